"""Each activation by its formula, in a plain and a gated feedforward, and fused with packed weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blockdsl.registry import activations
from xt_blocks import FeedForward, pack
from xt_blocks.kernels.activations import ACTIVATIONS


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def tanh(x: Tensor) -> Tensor:
    return 2 * sigmoid(2 * x) - 1


FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: torch.where(x > 0, x, 0),
    "relu_squared": lambda x: torch.where(x > 0, x, 0) ** 2,
    "silu": lambda x: x * sigmoid(x),
    "tanh": tanh,
    "sigmoid": sigmoid,
}


def test_every_name_has_a_function_and_a_formula() -> None:
    assert [*ACTIVATIONS] == [*activations.ACTIVATIONS] == [*FORMULAS]


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("gate", ["", "first", "second"])
def test_a_feedforward_is_its_formula(name: str, gate: str) -> None:
    layer = FeedForward(dim=7, inner=11, activation=name, glu=bool(gate), gate_first=gate == "first").double()
    x = 3 * torch.randn(2, 5, 7, dtype=torch.float64)
    hidden = x @ layer.to_hidden.weight.T + layer.to_hidden.bias
    assert hidden.shape[-1] == (22 if gate else 11)
    first, second = hidden[..., :11], hidden[..., 11:]
    activated = {
        "": lambda: FORMULAS[name](first),
        "first": lambda: FORMULAS[name](first) * second,
        "second": lambda: first * FORMULAS[name](second),
    }[gate]()
    torch.testing.assert_close(layer(x), activated @ layer.to_out.weight.T + layer.to_out.bias)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("glu", [False, True])
def test_a_packed_feedforward_gives_the_same(name: str, glu: bool) -> None:
    layer, x = FeedForward(dim=24, activation=name, glu=glu), 3 * torch.randn(2, 5, 24)
    with torch.no_grad():
        plain = layer(x)
        torch.testing.assert_close(pack(layer)(x), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients(name: str) -> None:
    x = 2 * torch.randn(9, dtype=torch.float64)
    x = torch.where(x.abs() < 0.01, 0.5, x).requires_grad_()  # away from where ReLU has none
    assert torch.autograd.gradcheck(ACTIVATIONS[name], x)


def test_the_switches_are_spellings() -> None:
    for switch, name in (("swish", "silu"), ("relu_squared", "relu_squared")):
        assert FeedForward(dim=4, **{switch: True}).activation == name  # type: ignore[arg-type]
    assert FeedForward(dim=4).activation == "gelu"


def test_hidden_features_that_no_multiple_gives() -> None:
    assert FeedForward(dim=1536, mult=8960 / 1536 - 1e-13).to_hidden.out_features == 8959
    assert FeedForward(dim=1536, inner=8960).to_hidden.out_features == 8960


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"activation": "relu", "swish": True},
            "activation=relu and swish are both set; a feedforward has one activation",
        ),
        ({"inner": 9, "mult": 2}, "inner=9 and mult=2 are both set; give one"),
        ({"gate_first": True}, "gate_first is set, but it needs glu"),
        ({"activation": "gelu_new"}, "activation must be one of 'gelu', "),
    ],
)
def test_what_clashes(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeedForward(dim=4, **options)  # type: ignore[arg-type]
