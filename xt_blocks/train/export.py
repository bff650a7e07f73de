"""The weights of a checkpoint as `save_pretrained` writes them, beside the graph in the run's folder.

The run's folder is then one that `from_pretrained` reads, whatever mesh wrote the checkpoint. It is read and written
tensor by tensor, files by turns of the ranks, so no process ever holds the whole model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor

from blockdsl.files import write_whole

from ..models.lower import lower_stream
from ..runtime.pretrained import CONFIG, config_of
from ..runtime.weights import publish, shards, write_file
from . import checkpoint

if TYPE_CHECKING:
    from blockdsl import BlockGraph

GENERATION = "generation_config.json"


class Export:
    """One process's part of writing the weights of a checkpoint into a folder.

    Args:
        source: the checkpoint.
        folder: which has the graph.
        end: the token that ends a text.
    """

    def __init__(self, source: Path, folder: Path, graph: BlockGraph, end: int | None) -> None:
        self.folder, self.graph, self.end = folder, graph, end
        with torch.device("meta"):
            named = lower_stream(graph).state_dict(keep_vars=True)
        first: dict[int, str] = {}
        self.shared = {n: kept for n, tensor in named.items() if (kept := first.setdefault(id(tensor), n)) != n}
        self.read = _reader(source)
        self.files = shards({name: tensor for name, tensor in named.items() if name not in self.shared})

    def write(self, rank: int = 0, ranks: int = 1) -> None:
        """The files that are this rank's to write, under names of their own. Raises OSError when the disk refuses."""
        for name in [*self.files][rank::ranks]:
            write_file(self.folder / f"{name}.tmp", self.files[name], self.read, self.shared)

    def publish(self) -> None:
        """By one process, when all have written: put the files in their place."""
        publish(self.folder, self.files)
        write_whole(self.folder / CONFIG, json.dumps(config_of({"": self.graph}, {}), indent=1) + "\n")
        if self.end is not None:
            ends = {"bos_token_id": self.end, "eos_token_id": self.end}
            write_whole(self.folder / GENERATION, json.dumps(ends) + "\n")


def _reader(source: Path) -> Callable[[str], Tensor]:
    """The whole tensors of a checkpoint by name, each read by itself."""
    if checkpoint.is_sharded(source):
        from ..distributed.checkpoint import WEIGHT, Stored  # loads much of torch

        stored = Stored(source)
        return lambda name: stored(WEIGHT + name)
    file: Any = safe_open(source / checkpoint.WEIGHTS, framework="pt")
    there, elsewhere = {*file.keys()}, file.metadata() or {}
    return lambda name: file.get_tensor(name if name in there else elsewhere[name])
