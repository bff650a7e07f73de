"""A module's tensors as safetensors files: one, or several with an index, each storage written once.

Owns the files, what they are called and how they say that tensors are shared. Leaves the graph to `pretrained`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockdsl.errors import UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = "model-{:05d}-of-{:05d}.safetensors"


def write_weights(folder: Path, tensors: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    """Write `tensors` by name, and take away the weights that the folder had before.

    A tensor that is another one under a second name is not written again; the file's metadata has
    `{second name: first name}` as JSON under "shared".
    """
    from safetensors.torch import save_file  # not on import of the package, which most of the time saves nothing

    own, shared = _told_apart(tensors)
    parts = _parts(own, max_shard_bytes)
    names = [WHOLE] if len(parts) == 1 else [_SHARD.format(i + 1, len(parts)) for i in range(len(parts))]
    metadata = {"format": "pt", "shared": json.dumps(shared)}
    for name, part in zip(names, parts, strict=True):
        save_file({key: _alone(tensor) for key, tensor in part.items()}, folder / f"{name}.tmp", metadata=metadata)
    for old in (*folder.glob("model*.safetensors"), folder / INDEX):
        old.unlink(missing_ok=True)
    for name in names:
        (folder / f"{name}.tmp").rename(folder / name)
    if len(parts) > 1:
        where = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        size = sum(tensor.nbytes for tensor in own.values())
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def read_weights(
    folder: Path, device: Any = None, dtype: torch.dtype | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a folder by name, and which names are others': {second name: first name}.

    Args:
        device: to read them to; the CPU by default.
        dtype: of floating-point ones; by default as they were written.

    Raises:
        UserError: a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt", device=str(device or "cpu")) as file:
                for key in file.keys():  # noqa: SIM118 - it is no dict
                    tensor = file.get_tensor(key)
                    tensors[key] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
                shared |= json.loads((file.metadata() or {}).get("shared", "{}"))
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
    return tensors | {name: tensors[first] for name, first in shared.items() if first in tensors}, shared


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        if not (folder / WHOLE).is_file():
            raise UserError(f"{folder} has no weights: neither {WHOLE} nor {INDEX}")
        return [folder / WHOLE]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is no index of safetensors files") from None
    if outside := [name for name in names if Path(name).name != name]:
        raise UserError(f"{index} names {outside[0]!r}, which is no file of the folder")
    return [folder / name for name in names]


def _told_apart(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Those that are written, and for each other name the one that it shares its tensor with."""
    own: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        known = first.setdefault(place, name) if tensor.numel() else name
        if known == name:
            own[name] = tensor
        else:
            shared[name] = known
    return own, shared


def _parts(tensors: Mapping[str, Tensor], most: int) -> list[dict[str, Tensor]]:
    """In order, none above `most` bytes unless it is a single tensor."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if parts[-1] and size + tensor.nbytes > most:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts


def _alone(tensor: Tensor) -> Tensor:
    """Contiguous, and all of its storage."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
