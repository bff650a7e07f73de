"""What torch keeps and allocates: saved tensors by autograd's hooks, and live bytes by every operation's results."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xt_blocks.kernels import explicit
from xt_blocks.kernels.request import Request, Result


def saved_bytes(model: nn.Module, *args: Tensor, **kwargs: Tensor) -> int:
    """Bytes of what autograd keeps of a forward pass, each storage once; parameters, buffers and the batch aside."""
    batch = [
        tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor) and not tensor.requires_grad
    ]
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), *batch)}
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
        x_read, x = x, x.contiguous()
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x_read, scale, *([] if weight is None else [weight]))
        return x * scale if weight is None else x * scale * weight

    @classmethod
    def rms_norm(cls, x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
        out: Tensor = cls.apply(x, weight, eps or 1e-6)  # type: ignore[no-untyped-call]
        return out


class FusedAttention(torch.autograd.Function):
    """Attention that saves what torch's fused kernels for GPUs save: queries, keys, values, their weighted sum, and a
    number of each query. What it computes has no meaning.

    On a CPU torch's own holds the scores where heads of keys and values differ in size.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        batch, heads, seq, _ = q.shape
        apart = q.is_contiguous()  # the sum lies in memory as queries do
        shape = (batch, heads, seq, v.shape[-1]) if apart else (batch, seq, heads, v.shape[-1])
        out, sums = q.new_zeros(shape), q.new_zeros(batch, heads, seq)
        out = out if apart else out.transpose(1, 2)
        ctx.save_for_backward(q, k, v, out, sums)
        return out, sums


def attention_of_a_gpu(request: Request) -> Result:
    """Attention as `kernels.table` chooses on a GPU, where FlexAttention is compiled."""
    q, k, v, mask, spec, *_ = request.repeated()
    fused = q.shape[-1] == v.shape[-1] and q.shape[-1] in (16, 32, 64, 128) and mask.queries >= 512
    if request.needs_scores() is not None or not all(modifier.in_flex and fused for modifier in spec.modifiers):
        return explicit.run(request)
    out, sums = FusedAttention.apply(q, k, v)  # type: ignore[no-untyped-call]
    for form in (modifier.flex(q) for modifier in spec.modifiers):
        out = out if form.output is None else form.output(out, sums)
    return out, None


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
