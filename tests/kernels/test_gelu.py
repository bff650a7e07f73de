"""GELU by parts against torch's own, with its gradients, and which shapes torch is given."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from xt_blocks import FeedForward
from xt_blocks.kernels import gelu as module
from xt_blocks.kernels.gelu import gelu, row_counts

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (1, 1, 5), (2, 3, 5), (1, 100, 8), (1, 64, 8), (1, 0, 8), (37, 4), (3, 67, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_torchs_own_with_its_gradients(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    x = (3 * torch.randn(shape)).to(dtype).requires_grad_()
    other = x.detach().clone().requires_grad_()
    grad = torch.randn(shape).to(dtype)
    close(gelu(x), F.gelu(other))
    gelu(x).backward(grad)
    F.gelu(other).backward(grad)
    close(x.grad, other.grad, **tolerance)
    with torch.no_grad():
        close(gelu(x), F.gelu(x))


def test_second_derivatives() -> None:
    assert torch.autograd.gradgradcheck(gelu, torch.randn(70, 2, dtype=torch.float64, requires_grad=True))


def test_what_is_not_contiguous_or_is_followed_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(65, 66, requires_grad=True)
    monkeypatch.setattr(module, "_parts", None)  # would raise
    close(gelu(x.T), F.gelu(x.T))
    close(torch.func.vmap(gelu)(x), F.gelu(x))
    close(torch.func.jvp(gelu, (x,), (x,))[1], torch.func.jvp(F.gelu, (x,), (x,))[1])
    with FlopCounterMode(display=False), torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        close(gelu(x), F.gelu(x))
    compiled = torch.compile(gelu, backend="eager", fullgraph=True, dynamic=True)
    close(compiled(x), F.gelu(x))


class Shapes(TorchDispatchMode):
    """The shapes of contiguous tensors that GELU's operations are given, for each of which oneDNN keeps a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "gelu" in str(func) and args[0].is_contiguous():
            self.rows.add(args[0].shape[:-1].numel())
        return func(*args, **(kwargs or {}))


def test_all_lengths_are_computed_in_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.onednn, "followed", lambda: False)  # here a mode follows, to see the shapes
    layer, seen = FeedForward(dim=8), Shapes()
    with seen:
        for length in range(1, 300):
            layer(torch.randn(1, length, 8)).sum().backward()
    assert seen.rows == {*range(1, 33), 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256}


@pytest.mark.parametrize("rows", range(0, 1100, 7))
def test_row_counts_add_up(rows: int) -> None:
    assert sum(row_counts(rows)) == rows
    assert len([*row_counts(rows)]) <= 5


def test_a_gradient_that_is_not_contiguous() -> None:
    x: Tensor = torch.randn(70, 5, requires_grad=True)
    (own,) = torch.autograd.grad(gelu(x), x, torch.ones(5, 70).T)
    (plain,) = torch.autograd.grad(F.gelu(x), x, torch.ones(70, 5))
    close(own, plain)
