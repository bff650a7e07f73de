"""What torch keeps and allocates: saved tensors by autograd's hooks, and live bytes by every operation's results."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def saved_bytes(model: nn.Module, *args: Tensor, **kwargs: Tensor) -> int:
    """Bytes of what autograd keeps of a forward pass, each storage once; parameters and buffers aside."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(*args, **kwargs)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


class FusedNorm(torch.autograd.Function):
    """RMSNorm that saves what torch's kernels for GPUs save: its input and a number of each token.

    On a CPU torch saves what it has normed, too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, scale, *([] if weight is None else [weight]))
        return x * scale if weight is None else x * scale * weight

    @classmethod
    def rms_norm(cls, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
        out: Tensor = cls.apply(x, weight, eps or 1e-6)  # type: ignore[no-untyped-call]
        return out


class Allocated(TorchDispatchMode):
    """Counts the storages that operations make within it, as large as they are, since some are emptied and used again.

    Attributes:
        now, peak: bytes that are alive, and the most that were.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.live: dict[int, Any] = {}

    @property
    def now(self) -> int:
        return sum(storage.nbytes() for each in [*self.live.values()] if (storage := each()) is not None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self.live and storage.data_ptr() not in self.known and storage.nbytes():
            self.live[key] = weakref.ref(storage, lambda _: self.live.pop(key, None))
