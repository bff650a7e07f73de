"""Two kinds of one's own that keep a state of constant size: a gated causal convolution and a decaying running sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import blockdsl
from blockdsl import Kind, Option, State


class GatedConvolution(nn.Module):
    """Each feature mixed over a token and those before it, then gated; the state is the tail of what is mixed."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.to_values = nn.Linear(dim, 2 * dim)
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        values, gate = self.to_values(x).chunk(2, dim=-1)
        if mask is not None:
            values = values.masked_fill(~mask[..., None], 0.0)
        tail = values.new_zeros(x.shape[0], self.kernel - 1, x.shape[2]) if cache is None else cache.read("tail")
        values = torch.cat((tail, values), dim=1)
        if cache is not None:
            cache.write("tail", values[:, x.shape[1] :])
        return self.conv(values.transpose(1, 2)).transpose(1, 2) * gate.sigmoid()


class RunningSum(nn.Module):
    """s[t] = decay·s[t - 1] + x[t], in float32 whatever the model's type; padding is no step."""

    def __init__(self, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.to_in, self.to_out = nn.Linear(dim, 2), nn.Linear(2, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        new = self.to_in(x).float()
        steps = torch.ones(x.shape[:2]) if mask is None else mask.float()
        time = steps.cumsum(dim=1)
        decays = self.decay ** (time[:, :, None] - time[:, None]).clamp(min=0) * torch.ones(2 * x.shape[1:2]).tril()
        sums = decays @ (new * steps[..., None])
        if cache is not None:
            sums = sums + self.decay ** time[..., None] * cache.read("sum")[:, None]
            cache.write("sum", sums[:, -1])
        return self.to_out(sums.to(x.dtype))


GATED_CONVOLUTION = Kind(
    name="gconv",
    title="gated convolution",
    prefix="gconv",
    options=(Option("kernel", int, 3, "width of the kernel", setting="gconv_kernel", least=1),),
    inputs=("mask", "cache"),
    shapes=lambda o: {
        "to_values.weight": (2 * o.dim, o.dim),
        "to_values.bias": (2 * o.dim,),
        "conv.weight": (o.dim, 1, o.kernel),
        "conv.bias": (o.dim,),
    },
    flops=lambda o, sizes: 2 * sizes.batch * sizes.seq * o.dim * (2 * o.dim + o.kernel),
    module=GatedConvolution,
    state=lambda o: {"tail": State((o.kernel - 1, o.dim))},
    causal_only=True,
)

RUNNING_SUM = Kind(
    name="ema",
    title="running sum",
    options=(Option("decay", float, 0.75, "what is left of the sum after a step", above=0, below=1),),
    inputs=("mask", "cache"),
    shapes=lambda o: {"to_in.weight": (2, o.dim), "to_in.bias": (2,), "to_out.weight": (o.dim, 2)},
    flops=lambda o, sizes: 8 * sizes.batch * sizes.seq * o.dim,
    module=RunningSum,
    state=lambda o: {"sum": State((2,), dtype="float32")},
    causal_only=True,
)


@contextmanager
def registered(*kinds: Kind) -> Iterator[None]:
    """These kinds are known for the time of a `with`."""
    for kind in kinds:
        blockdsl.register(kind)
    try:
        yield
    finally:
        for kind in kinds:
            blockdsl.unregister(kind.name)
