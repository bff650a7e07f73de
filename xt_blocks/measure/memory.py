"""What the owners of a pass keep for the backward pass, and how much memory is in use while each runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .stacks import OneStack


class SavedBytes:
    """Bytes that autograd keeps, by the owner who keeps them first; weights are not counted, nor twice what two keep.

    What is recomputed keeps its input alone (`recompute`): the stream that the first block of such a part reads.
    """

    def __init__(self, model: nn.Module, stacks: list[OneStack]) -> None:
        own = (*model.parameters(), *model.buffers())
        self.known = {tensor.untyped_storage().data_ptr() for tensor in own}
        parts = [(one.prefix, part) for one in stacks for part in one.stack.parts]
        self.recomputed = {prefix + part.steps[0].node for prefix, part in parts if part.recomputed}
        self.bytes: defaultdict[str, int] = defaultdict(int)
        self.owner = ""

    def begin(self, owner: str) -> None:
        self.owner = owner

    def enters(self, node: str, x: Tensor) -> None:
        if node in self.recomputed:
            self._count(node, x)

    def _count(self, owner: str, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.bytes[owner] += storage.nbytes()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Inside, what is kept is counted."""

        def pack(tensor: Tensor) -> Tensor:
            self._count(self.owner, tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield


class Peaks:
    """The most bytes that a GPU held while each owner ran, whatever they were for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.owner = ""
        self.bytes: dict[str, int] = {}

    def begin(self, owner: str) -> None:
        most = torch.cuda.max_memory_allocated(self.device)
        self.bytes[self.owner] = max(most, self.bytes.get(self.owner, 0))
        torch.cuda.reset_peak_memory_stats(self.device)
        self.owner = owner
