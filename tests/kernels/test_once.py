"""Functions with a gradient by hand: a second derivative through one is right, or refused in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks

ONCE = {  # by hand, once: a chunk, pieces, a selective scan, tiles
    "m": {},
    "m(chunk=4)": {},
    "mamba": {},
    "a(max_attend_past=9)": {"alibi_pos_bias": True},
}
TILED = 260


def stack(pattern: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"dim": 8, "heads": 2, "attn_dim_head": 4, "causal": True}
    return xt_blocks.lower(blockdsl.compile(pattern, **sizes, **settings)).double()


def inputs(seq: int = 70) -> tuple[Tensor, Tensor]:
    x = torch.randn(1, seq, 8, dtype=torch.float64, requires_grad=True)
    return x, torch.randn_like(x)


@pytest.mark.parametrize("loss", [lambda y: y[0, -1, 0], lambda y: y.pow(3).mean()], ids=["linear", "cube"])
@pytest.mark.parametrize("pattern", ONCE)
def test_a_second_derivative_that_there_is_not_is_refused(pattern: str, loss: Callable[[Tensor], Tensor]) -> None:
    net, (x, v) = stack(pattern, **ONCE[pattern]), inputs(TILED if pattern[:2] == "a(" else 70)
    (plain,) = torch.autograd.grad(loss(net(x)), x)
    (first,) = torch.autograd.grad(loss(net(x)), x, create_graph=True)
    torch.testing.assert_close(first, plain)
    assert first.abs().max() > 1e-3
    with pytest.raises(RuntimeError, match=r"has first derivatives only; (torch\.func|attn_flash=False) has others"):
        torch.autograd.grad((first * v).sum(), x)
    (first,) = torch.autograd.grad(loss(net(x)), x, create_graph=True)
    with pytest.raises(RuntimeError, match="has first derivatives only"):
        (first * v).sum().backward()


@pytest.mark.parametrize("pattern", ["m", "m(chunk=4)", "mamba"])
def test_torch_func_has_second_derivatives_of_scans(pattern: str) -> None:
    net, (x, v) = stack(pattern), inputs()
    second = torch.func.jvp(torch.func.grad(lambda x: net(x).pow(3).mean()), (x.detach(),), (v,))[1]
    before, after = (
        torch.autograd.grad(net(moved).pow(3).mean(), moved)[0]
        for moved in ((x - 1e-4 * v).detach().requires_grad_(), (x + 1e-4 * v).detach().requires_grad_())
    )
    torch.testing.assert_close((after - before) / 2e-4, second, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "pattern", ["a(max_attend_past=9)", "gdn", "kda", "gla", "rglru", "hgrn", "conv", "f(glu)", "e"]
)
def test_others_have_second_derivatives(pattern: str) -> None:
    net, (x, v) = stack(pattern, attn_flash=False), inputs()
    (first,) = torch.autograd.grad(net(x).pow(3).mean(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * v).sum(), x)
    before, after = (
        torch.autograd.grad(net(moved).pow(3).mean(), moved)[0]
        for moved in ((x - 1e-4 * v).detach().requires_grad_(), (x + 1e-4 * v).detach().requires_grad_())
    )
    torch.testing.assert_close((after - before) / 2e-4, second, rtol=1e-4, atol=1e-8)
