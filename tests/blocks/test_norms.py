"""What norms are made of (eps, gain, bias, gains kept as offsets), written out in float64, and where the options reach."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import PatternError, UserError
from blockdsl.registry.norms import Norm
from xt_blocks.blocks.norms import norm

DIM = 6
NAMES = ("layernorm", "rmsnorm", "scalenorm")
DETAILS: list[dict[str, Any]] = [
    {"norm_eps": eps, "norm_bias": bias, "norm_gain": gain, "norm_unit_offset": offset}
    for eps, bias, gain, offset in itertools.product((None, 0.3), (True, False), (True, False), (False, True))
    if gain or not offset
]


def written_out(x: Tensor, name: str, details: dict[str, Any], weights: dict[str, Tensor]) -> Tensor:
    """A norm, a token and a feature at a time."""
    eps = details["norm_eps"]
    eps = (1e-5 if name == "layernorm" else 1e-8) if eps is None else eps
    out = torch.empty_like(x)
    for row, token in itertools.product(range(x.shape[0]), range(x.shape[1])):
        features = x[row, token].tolist()
        mean = sum(features) / len(features) if name == "layernorm" else 0.0
        square = sum((feature - mean) ** 2 for feature in features) / len(features)
        for i, feature in enumerate(features):
            gain = 1.0
            if details["norm_gain"]:
                gain = weights["weight"][i if name != "scalenorm" else 0].item() + (
                    1 if details["norm_unit_offset"] else 0
                )
            bias = weights["bias"][i].item() if name == "layernorm" and details["norm_bias"] else 0.0
            out[row, token, i] = gain * (feature - mean) / math.sqrt(square + eps) + bias
    return out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("details", DETAILS, ids=str)
def test_a_norm_is_its_formula(name: str, details: dict[str, Any]) -> None:
    spec = Norm.of(name, details)
    own = norm(spec, DIM).double()
    assert sum(p.numel() for p in own.parameters()) == spec.parameters(DIM)
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    plain = written_out(x, name, details | {"norm_gain": False, "norm_bias": False}, {})
    torch.testing.assert_close(own(x), plain)  # as it starts, with a gain of one
    for parameter in own.parameters():
        parameter.data = torch.randn_like(parameter)
    torch.testing.assert_close(own(x), written_out(x, name, details, own.state_dict()))
    if spec.gain or spec.bias:
        assert torch.autograd.gradcheck(lambda x, *_: own(x), (x.requires_grad_(), *own.parameters()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", [{}, {"sandwich_norm": True}, {"pre_norm": False}], ids=str)
@pytest.mark.parametrize("details", DETAILS, ids=str)
def test_the_settings_reach_every_norm_and_costs_count_it(
    name: str, place: dict[str, Any], details: dict[str, Any]
) -> None:
    settings = {f"use_{name}": True} if name != "layernorm" else {}
    graph = blockdsl.compile("a f", dim=DIM, heads=2, attn_dim_head=3, **settings, **place, **details)
    graph = graph.with_tokens(7, 9, post_emb_norm=True)
    model = xt_blocks.lower(graph)
    assert graph.parameters() == sum(p.numel() for p in model.parameters())
    x = torch.randn(2, 3, DIM)
    stack = model.attn_layers
    norms = [(name, block.norm) for block in stack.blocks.values()] + [("layernorm", model.post_emb_norm)]
    norms += [(name, b.sandwich_norm) for b in stack.blocks.values() if place.get("sandwich_norm")]
    norms += [(name, stack.norm)] if place.get("pre_norm", True) else []
    for which, module in norms:
        want = written_out(x, which, details, module.state_dict())
        torch.testing.assert_close(module(x), want, rtol=1e-5, atol=1e-5)


def test_a_block_has_its_own() -> None:
    graph = blockdsl.compile("set norm_eps=0.5; f f(norm_eps=none) f(norm_eps=1e-12, norm_bias=false)", dim=DIM)
    eps = [block.norm.eps for block in xt_blocks.lower(graph).blocks.values()]
    assert eps == [0.5, 1e-5, 1e-12]
    assert [graph.block(node)["options"]["norm_bias"] for node in graph.nodes("block")] == [True, True, False]
    assert graph.nx.nodes[graph.end]["norm_eps"] == 0.5


def test_text_and_keywords_say_the_same() -> None:
    text = "set dim=6, use_rmsnorm, norm_eps=1e-06, norm_unit_offset; (a f)*2"
    ours = blockdsl.compile(text)
    assert not ours.diff(blockdsl.compile("(a f)*2", dim=6, use_rmsnorm=True, norm_eps=1e-6, norm_unit_offset=True))
    assert not ours.diff(blockdsl.BlockGraph.from_json(ours.to_json()))
    difference = ours.diff(blockdsl.compile("(a f)*2", dim=6, use_rmsnorm=True, norm_eps=1e-5, norm_unit_offset=True))
    (end,) = difference.settings
    assert [(c.name, c.before, c.after) for c in end.changes] == [("norm_eps", 1e-6, 1e-5)]
    assert len(difference.blocks) == 4


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("f", {"norm_eps": 0}, "norm_eps must be a number above 0 or none, not 0"),
        (
            "f",
            {"norm_unit_offset": True, "norm_gain": False},
            "norm_unit_offset is set, but norm_gain=false leaves no gain",
        ),
    ],
)
def test_what_is_refused(text: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        blockdsl.compile(text, dim=DIM, **settings)
    assert str(error.value) == message
    with pytest.raises(PatternError):
        blockdsl.compile(f"f(norm_unit_offset=true, norm_gain=false) {text}", dim=DIM)


def test_a_drawing_says_what_is_not_usual() -> None:
    graph = blockdsl.compile("f", dim=DIM, norm_bias=False, norm_eps=1e-6)
    assert "output · LayerNorm without bias, eps 1e-06" in graph.to_text()
    assert "LayerNorm without bias" in graph.to_svg()
    graph = blockdsl.compile("f", dim=DIM, use_rmsnorm=True, norm_unit_offset=True)
    assert "RMSNorm × (1 + gain)" in graph.to_text()
