"""What blocks with state share: padding moved to the end of each row, and a convolution that goes on from its state."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks.blocks import causal_conv as of_convolutions
from xt_blocks.blocks.causal_conv import CausalConv, causal_conv
from xt_blocks.blocks.real_tokens import RealTokens

HOLES = [[0, 0, 1, 1, 0, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]]


class Cache:
    """A layer's state in a dict."""

    window = None

    def __init__(self, like: Tensor) -> None:
        self.pieces = {"conv": like}

    def read(self, name: str) -> Tensor:
        return self.pieces[name]

    def write(self, name: str, new: Tensor) -> None:
        assert new.shape == self.pieces[name].shape
        self.pieces[name] = new

    def tail(self, name: str, x: Tensor, real: RealTokens) -> Tensor:
        before = self.pieces[name]
        self.write(name, real.last(before, x))
        return before

    def append(self, **new: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


def test_real_tokens_come_first_and_go_back_to_their_places() -> None:
    mask, x = torch.tensor(HOLES, dtype=torch.bool), torch.arange(1.0, 57).reshape(4, 7, 2)
    real = RealTokens.of(mask, 7)
    assert real.count is not None
    assert real.mask is not None
    assert real.count.tolist() == [4, 3, 7, 0] == real.mask.sum(dim=1).tolist()
    first = real.first(x)
    for row in range(4):
        assert torch.equal(first[row, : real.count[row]], x[row][mask[row]])
        assert not first[row, real.count[row] :].any()
    assert torch.equal(real.back(first), x * mask[..., None])
    assert torch.equal(real.back(first + 1), (x + 1) * mask[..., None])
    assert torch.equal(real.only(first + 1), (first + 1) * real.mask[..., None])
    assert torch.equal(real.back(first[..., 0]), x[..., 0] * mask)  # without features
    free = RealTokens.of(None, 7)
    assert free.count is None
    assert free.mask is None
    assert free.first(x) is free.back(x) is free.only(x) is x


@pytest.mark.parametrize(("kernel", "bias"), [(1, True), (3, True), (4, False)])
def test_the_convolution_by_hand_in_pieces_and_with_padding(kernel: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = CausalConv(5, kernel, bias=bias).double()
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (5, 1, kernel)} | (
        {"bias": (5,)} if bias else {}
    )
    x = torch.randn(4, 7, 5, dtype=torch.float64)

    def by_hand(row: Tensor) -> Tensor:
        out = torch.zeros_like(row)
        for t, k in itertools.product(range(len(row)), range(kernel)):
            if t >= k:
                out[t] += layer.weight[:, 0, kernel - 1 - k] * row[t - k]
        return out if layer.bias is None else out + layer.bias

    with torch.no_grad():
        torch.testing.assert_close(layer(x, RealTokens()), torch.stack([by_hand(row) for row in x]))
        for mask in (torch.tensor(HOLES, dtype=torch.bool), None):
            for sizes in ((7,), (1,) * 7, (3, 4), (2, 1, 4)):
                cache, out = Cache(x.new_zeros(4, kernel - 1, 5)), []
                for piece in torch.arange(7).split(sizes):
                    real = RealTokens.of(None if mask is None else mask[:, piece], len(piece))
                    out.append(real.back(layer(real.first(x[:, piece]), real, cache)))
                for row in range(4):
                    seen = slice(None) if mask is None else mask[row]
                    torch.testing.assert_close(torch.cat(out, dim=1)[row, seen], by_hand(x[row, seen]))


def test_gradients_of_the_single_token_and_of_the_whole_are_the_same() -> None:
    torch.manual_seed(1)
    layer, x = CausalConv(3, 4).double(), torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(2, 6, 3, dtype=torch.float64)
    wanted = torch.autograd.grad((layer(x, RealTokens()) * factors).sum(), (x, *layer.parameters()))
    cache = Cache(x.new_zeros(2, 3, 3))
    steps = torch.cat([layer(x[:, i : i + 1], RealTokens(), cache) for i in range(6)], dim=1)
    torch.testing.assert_close(torch.autograd.grad((steps * factors).sum(), (x, *layer.parameters())), wanted)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("piece", [1, 12, 2**16])
def test_derivatives_of_the_whole(bias: bool, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_convolutions, "PIECE", piece)
    torch.manual_seed(2)
    x, tail = torch.randn(2, 7, 2, dtype=torch.float64), torch.randn(2, 2, 2, dtype=torch.float64)
    weights = [parameter.detach() for parameter in CausalConv(2, 3, bias).double().parameters()]
    inputs = [t.requires_grad_() for t in (x, tail, *weights)]

    def conv(x: Tensor, tail: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return causal_conv(x, tail, weight, bias)

    want = F.conv1d(torch.cat((tail, x), 1).transpose(1, 2), *weights, groups=2).transpose(1, 2)
    torch.testing.assert_close(conv(*inputs), want)
    assert torch.autograd.gradcheck(conv, inputs)
    assert torch.autograd.gradgradcheck(conv, inputs)


def test_xavier_initialises_weights_with_the_gain() -> None:
    layer = CausalConv(500, 4)
    layer.init_xavier(2.0)
    assert layer.bias is not None
    assert not layer.bias.any()
    expected = 2.0 * (2 / (4 + 500 * 4)) ** 0.5
    assert abs(float(layer.weight.detach().std()) / expected - 1) < 0.1
