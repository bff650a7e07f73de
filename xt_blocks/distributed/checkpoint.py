"""Checkpoints of many ranks: each writes what it holds, under the names and shapes of one process.

The files are those of torch.distributed.checkpoint, which any number of ranks reads, and one process too. Owns what is
written of a model and its optimiser, and reading the files of one process into a rank's part. Leaves folders that are
renamed when whole to `xt_blocks.train.checkpoint`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from blockdsl.errors import UserError

from .pieces import HeldTensor
from .reasons import reason

WEIGHT, STATE = "model.", "optimizer."
"""What names begin with: `model.NAME`, `optimizer.NAME.exp_avg`."""

HeldTensors = Mapping[str, HeldTensor]
HeldOf = Callable[[str, Tensor], HeldTensor]
"""A parameter's name, and it or another tensor of its shape → what this rank holds of it."""


def _all_of_it(name: str, tensor: Tensor) -> HeldTensor:
    return HeldTensor.of(tensor, tensor.shape)


def contents(
    models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer] = (), piece_of: HeldOf = _all_of_it
) -> dict[str, HeldTensor]:
    """What a checkpoint has of a rank's models and optimisers, by name: views, which reading fills."""
    out: dict[str, HeldTensor] = {}
    for model in models:
        kept = model.state_dict(keep_vars=True).keys()
        out |= {WEIGHT + name: piece_of(name, parameter) for name, parameter in model.named_parameters()}
        out |= {WEIGHT + name: _all_of_it(name, buffer) for name, buffer in model.named_buffers() if name in kept}
    for name, key, parameter, value in _states(models, optimizers):
        of_parameter = value.ndim and value.shape == parameter.shape
        out[f"{STATE}{name}.{key}"] = piece_of(name, value) if of_parameter else _all_of_it(name, value)
    return out


def make_states(
    models: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    stored: Mapping[str, torch.Size],
    whole_shapes: Mapping[str, torch.Size] | None = None,
) -> None:
    """Give optimisers the state that a checkpoint has of their parameters, of zeros, for reading to fill.

    Args:
        stored: the names in the checkpoint, and shapes.
        whole_shapes: of parameters, by name; None: as they are.
    """
    keys: dict[str, dict[str, torch.Size]] = {}
    for entry, shape in stored.items():
        if entry.startswith(STATE):
            name, _, key = entry.removeprefix(STATE).rpartition(".")
            keys.setdefault(name, {})[key] = shape
    names = _names(models)
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            name = names[parameter]
            full = parameter.shape if whole_shapes is None else whole_shapes[name]
            optimizer.state[parameter] = {
                key: torch.zeros_like(parameter)
                if shape == full and key != "step"
                else torch.zeros(shape, device="cpu", dtype=torch.float32)
                for key, shape in keys.get(name, {}).items()
            }


def _names(models: Sequence[nn.Module]) -> dict[Tensor, str]:
    return {parameter: name for model in models for name, parameter in model.named_parameters()}


def _states(
    models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """A parameter's name, what is kept of it, the parameter, and the value."""
    names = _names(models)
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                yield names[parameter], key, parameter, value


def write(folder: Path, pieces: HeldTensors, group: dist.ProcessGroup | None = None) -> None:
    """Write what all ranks of a group hold into a folder, which is made if it is not there; each calls this.

    Raises:
        UserError: a rank could not, as when its disk is full.
    """
    with _in_words():
        state_dict_saver.save({**pieces}, storage_writer=FileSystemWriter(folder), planner=_Save(), process_group=group)


def read(folder: Path, pieces: HeldTensors, alone: bool = False) -> None:
    """Fill the pieces from a checkpoint of many ranks, each of which calls this; or `alone`, by this process.

    Raises:
        UserError: files are damaged or missing, or of another model.
    """
    with _in_words(), warnings.catch_warnings():
        if alone:
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        reader = FileSystemReader(folder)
        state_dict_loader.load({**pieces}, storage_reader=reader, planner=_Load(), no_dist=alone)


@contextmanager
def _in_words() -> Iterator[None]:
    """torch's exception is none that `except Exception` catches."""
    try:
        yield
    except CheckpointException as error:
        raise UserError(reason(error)) from error


def shapes(folder: Path) -> dict[str, torch.Size]:
    """The names in a checkpoint of many ranks, and the shapes of their tensors.

    Raises:
        ValueError: a file is missing, damaged, or shorter than it was.
    """
    try:
        metadata = FileSystemReader(folder).read_metadata()
    except Exception as error:  # a pickle of other bytes raises anything
        raise ValueError(f".metadata cannot be read: {reason(error)}") from error
    ends: dict[str, int] = {}
    for place in metadata.storage_data.values():
        ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
    for name, end in sorted(ends.items()):
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if (size := file.stat().st_size) < end:
            raise ValueError(f"{name} is cut off: it has {size:,} bytes of {end:,}")
    found = metadata.state_dict_metadata
    return {name: each.size for name, each in found.items() if isinstance(each, TensorStorageMetadata)}


class Stored:
    """The whole tensors of a checkpoint of many ranks, each read by itself: `stored(name)`."""

    def __init__(self, folder: Path) -> None:
        self.reader = FileSystemReader(folder)
        self.metadata = self.reader.read_metadata()
        self.reader.set_up_storage_reader(self.metadata, is_coordinator=True)

    def __call__(self, name: str) -> Tensor:
        stored = self.metadata.state_dict_metadata[name]
        assert isinstance(stored, TensorStorageMetadata)
        out = torch.empty(stored.size, device="cpu", dtype=stored.properties.dtype)
        planner = _Load()
        planner.set_up_planner({name: HeldTensor.of(out, out.shape)}, self.metadata)
        self.reader.read_data(planner.create_local_plan(), planner).wait()
        return out


def read_safetensors(file: Path, pieces: HeldTensors) -> None:
    """Fill the pieces of weights from the file of one process, of which each rank reads what it holds.

    Raises:
        KeyError: a name is missing.
        ValueError: a tensor has another shape.
    """
    with safe_open(file, framework="pt") as source:
        elsewhere, there = source.metadata() or {}, {*source.keys()}
        for name, piece in pieces.items():
            stored = source.get_slice(name if name in there else elsewhere[name])
            if (shape := torch.Size(stored.get_shape())) != piece.shape:
                raise ValueError(f"{name} has shape {tuple(shape)}, not {tuple(piece.shape)}")
            for rectangle in piece.rectangles:
                values = rectangle.of(stored) if piece.shape else source.get_tensor(name)
                rectangle.part.copy_(values)


def read_tensors(tensors: Mapping[str, Tensor], pieces: HeldTensors) -> None:
    """Fill the pieces from whole tensors."""
    for name, piece in pieces.items():
        for rectangle in piece.rectangles:
            rectangle.part.copy_(rectangle.of(tensors[name]))


class _Save(DefaultSavePlanner):
    """Writes each rectangle; what several ranks hold alike is written once."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> SavePlan:
        items = [item for name, piece in self.state_dict.items() for item in _written(name, piece)]
        self.plan = SavePlan(items)
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Any:
        return _found(self.state_dict[index.fqn], index)


class _Load(DefaultLoadPlanner):
    """Reads each rectangle from whatever parts it was written in."""

    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None
        items = []
        for name, piece in self.state_dict.items():
            stored = self.metadata.state_dict_metadata.get(name)
            if not isinstance(stored, TensorStorageMetadata):
                raise KeyError(f"there is no {name}")
            if stored.size != piece.shape:
                raise ValueError(f"{name} has shape {tuple(stored.size)}, not {tuple(piece.shape)}")
            items += create_read_items_for_chunk_list(name, stored, [_chunk(r) for r in piece.rectangles])
        return LoadPlan(items)

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        return _found(self.state_dict[index.fqn], index)


def _chunk(rectangle: Any) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(rectangle.offset), rectangle.part.shape)


def _written(name: str, piece: HeldTensor) -> Iterator[WriteItem]:
    for rectangle in piece.rectangles:
        data = TensorWriteData(_chunk(rectangle), TensorProperties.create_from_tensor(rectangle.part), piece.shape)
        yield WriteItem(MetadataIndex(name, rectangle.offset), WriteItemType.SHARD, tensor_data=data)


def _found(piece: HeldTensor, index: MetadataIndex) -> Tensor:
    return next(r.part for r in piece.rectangles if torch.Size(r.offset) == index.offset)
