"""The tensors of a Hugging Face folder by name, each read when it is asked for.

Owns the files: one or several safetensors, by their index, or PyTorch's with `weights_only`. Files are mapped, and are
closed after each tensor or a few, since the pages that were read count as memory until then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from blockdsl.errors import UserError

from ..runtime.weights import WHOLE, files_of

PICKLED = "pytorch_model.bin"
_MAPPED_BYTES = 2**26  # opening a file of PyTorch's takes long: it is kept until so much of it counts as memory


class Tensors(Mapping[str, Tensor]):
    """The tensors of the files of a folder, in those of safetensors where there are both.

    Attributes:
        dtypes: of each, known without reading it.

    Raises:
        UserError: there is no file of weights, or one is missing or damaged; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._pickled: dict[Path, dict[str, Tensor]] = {}
        self._touched = 0
        for name in (WHOLE, PICKLED):
            for file in files_of(folder, name):
                with _told(file):
                    found = self._unpickled(file) if name == PICKLED else _dtypes(file)
                self.files |= dict.fromkeys(found, file)
                self.dtypes |= {key: v if isinstance(v, torch.dtype) else v.dtype for key, v in found.items()}
            if self.files:
                return
        raise UserError(f"{folder} has no weights: neither {WHOLE} nor {PICKLED}, nor an index of several")

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import safe_open  # not on import of the package, which most of the time reads nothing

        file = self.files[name]
        with _told(file):
            if file.suffix == ".bin":
                tensor = self._unpickled(file)[name]
                self._touched += tensor.nbytes
                return tensor
            with safe_open(file, framework="pt") as opened:
                tensor = opened.get_tensor(name)
                return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def _unpickled(self, file: Path) -> dict[str, Tensor]:
        """The tensors of a file of PyTorch's, mapped until so much of it was read; an old one cannot be, and stays."""
        if self._touched > _MAPPED_BYTES:
            self._touched, self._pickled = 0, {}
        if file in self._pickled:
            return self._pickled[file]
        try:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError("it has other things than tensors by name")
        self._pickled[file] = state
        return state


def _dtypes(file: Path) -> dict[str, torch.dtype]:
    """Of the tensors of a safetensors file, of which the header alone is read."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return {name: _named(opened.get_slice(name).get_dtype()) for name in opened.keys()}  # noqa: SIM118 - no dict


def _named(safe: str) -> torch.dtype:
    """A type by its name in safetensors; those of eight bits and whole numbers are not told apart from one another."""
    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}.get(
        safe, torch.int64
    )


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Errors of a file that cannot be read, in the user's words."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise UserError(f"{file} is damaged, or no file of weights: {error}") from error
