"""A module's tensors as safetensors files: one, or several with an index, each storage written once.

Owns the files, what they are called and how they say that tensors are shared. They are written tensor by tensor, so
what is written need never be in memory as a whole. Leaves the graph to `pretrained`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockdsl.errors import UserError
from blockdsl.files import naming, read_object, write_whole

WHOLE = "model.safetensors"
INDEX = f"{WHOLE}.index.json"
_SHARD = "model-{:05d}-of-{:05d}.safetensors"


MAX_SHARD_BYTES = 5 * 10**9
TYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.bool: "BOOL"},
    **{torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8", torch.complex64: "C64"},
    **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"},
}
"""What safetensors calls torch's types (https://huggingface.co/docs/safetensors)."""


def write_weights(folder: Path, tensors: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    """Write `tensors` by name, and take away the weights that the folder had before.

    A tensor that is another one under a second name is not written again; the file's metadata has
    `{second name: first name}` as JSON under "shared".
    """
    own, shared = _told_apart(tensors)
    files = shards(own, max_shard_bytes)
    for name, part in files.items():
        write_file(folder / f"{name}.tmp", part, own.__getitem__, shared)
    publish(folder, files)


def shards(tensors: Mapping[str, Tensor], max_shard_bytes: int = MAX_SHARD_BYTES) -> dict[str, dict[str, Tensor]]:
    """The files of a folder of weights by name, and which tensors, perhaps on the meta device, are in each."""
    parts = _parts(tensors, max_shard_bytes)
    names = [WHOLE] if len(parts) == 1 else [_SHARD.format(i + 1, len(parts)) for i in range(len(parts))]
    return dict(zip(names, parts, strict=True))


def write_file(
    path: Path, tensors: Mapping[str, Tensor], read: Callable[[str], Tensor], shared: Mapping[str, str]
) -> None:
    """Write one file of safetensors, and force it to the disk.

    Args:
        tensors: of which types and shapes are taken; they may be on the meta device.
        read: gives the values of each; one at a time is in memory.
        shared: {second name: first name} of tensors that have two.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "shared": json.dumps(dict(shared))}}
    names, end = sorted(tensors, key=lambda name: -tensors[name].itemsize), 0  # so each lies at a multiple of its size
    for name in names:
        start, end = end, end + tensors[name].nbytes
        kind, shape = TYPES[tensors[name].dtype], list(tensors[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with naming(path), path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            values = read(name).detach().to("cpu").contiguous()
            if (values.dtype, values.shape) != (tensors[name].dtype, tensors[name].shape):
                raise ValueError(f"{name} is not as it was announced")
            file.write(values.reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def publish(folder: Path, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put files that were all written as NAME.tmp in the place of the weights that the folder had before."""
    for old in (*folder.glob("model*.safetensors"), folder / INDEX):
        old.unlink(missing_ok=True)
    for name in files:
        (folder / f"{name}.tmp").rename(folder / name)
    if len(files) > 1:
        where = {key: name for name, part in files.items() for key in part}
        size = sum(tensor.nbytes for part in files.values() for tensor in part.values())
        index = {"metadata": {"total_size": size}, "weight_map": where}
        write_whole(folder / INDEX, json.dumps(index, indent=1) + "\n")


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
    if not (files := files_of(folder, WHOLE)):
        raise UserError(f"{folder} has no weights: neither {WHOLE} nor {INDEX}")
    for path in files:
        try:
            with safe_open(path, framework="pt", device=str(device or "cpu")) as file:
                for key in file.keys():  # noqa: SIM118 - it is no dict
                    tensor = file.get_tensor(key)
                    tensors[key] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
                shared |= json.loads((file.metadata() or {}).get("shared", "{}"))
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
    return tensors | {name: tensors[first] for name, first in shared.items() if first in tensors}, shared


def files_of(folder: Path, name: str) -> list[Path]:
    """The file of this name, or those that its index lists; empty: there is neither.

    Raises:
        UserError: the index is damaged, or names a file that is not in the folder.
    """
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    try:
        listed = sorted({str(file) for file in read_object(index)["weight_map"].values()})
    except (KeyError, AttributeError):
        raise UserError(f"{index} is damaged: it is no index of weights") from None
    if outside := [file for file in listed if Path(file).name != file]:
        raise UserError(f"{index} names a file elsewhere: {outside[0]}")
    if missing := [file for file in listed if not (folder / file).is_file()]:
        raise UserError(f"{folder} is not whole: {', '.join(missing)} is missing, which {index.name} names")
    return [folder / file for file in listed]


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
