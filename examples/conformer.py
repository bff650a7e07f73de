"""A block kind of one's own: the Conformer (Gulati et al., arXiv:2005.08100) as `f/2 a dwconv f/2`.

Run it: python examples/conformer.py
"""

import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import Kind, Option


class DepthwiseConv(nn.Module):
    """Each feature convolved along the sequence."""

    def __init__(self, dim: int, kernel: int, causal: bool) -> None:
        super().__init__()
        self.left = kernel - 1 if causal else (kernel - 1) // 2
        self.right = kernel - 1 - self.left
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`x: (batch, seq, dim)`, `mask: (batch, seq)` → (batch, seq, dim)."""
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)  # padding is as good as the end of the sequence
        padded = nn.functional.pad(x.transpose(1, 2), (self.left, self.right))
        return self.conv(padded).transpose(1, 2)


CONV = Kind(
    name="dwconv",
    title="depthwise convolution",
    prefix="dwconv",
    options=(
        Option("kernel", int, 7, "width of the kernel", setting="dwconv_kernel", least=1),
        Option("causal", bool, False, "no token sees a later one", setting="causal"),
    ),
    inputs=("mask",),
    shapes=lambda o: {"conv.weight": (o.dim, 1, o.kernel), "conv.bias": (o.dim,)},
    flops=lambda o, sizes: 2 * sizes.batch * sizes.seq * o.dim * o.kernel,
    module=DepthwiseConv,
)


def main() -> None:
    blockdsl.register(CONV)
    graph = blockdsl.compile("(f/2 a dwconv(kernel=15) f/2)*4", dim=64, heads=4, attn_dim_head=16)
    print(graph)
    stack = xt_blocks.lower(graph)
    print("out:", tuple(stack(torch.randn(2, 50, 64)).shape))


if __name__ == "__main__":
    main()
