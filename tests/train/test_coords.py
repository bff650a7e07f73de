"""muP of models: weights, groups of the optimiser, and that it keeps what blocks add at one size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from blockdsl import BlockGraph, UserError, compile
from xt_blocks import lower, mup
from xt_blocks.runtime.mup import scalings
from xt_blocks.train import check_coordinates
from xt_blocks.train.coords import LOGITS, slope

from ..built_in import BUILT_IN, small


def at(dim: int, text: str = "a f", **settings: Any) -> BlockGraph:
    given = {"heads": 2, "attn_dim_head": dim // 2, "num_tokens": 61, "max_seq_len": 16, "causal": True, **settings}
    return compile(text, dim=dim, **given)


def test_weights_have_the_bases_deviation_times_their_scale() -> None:
    base, wide = at(32), at(128)
    torch.manual_seed(0)
    model, narrow = lower(wide.with_mup(base)), lower(base)
    state = torch.get_rng_state()
    groups = mup(model, base, lr=0.01, weight_decay=0.1)
    assert torch.equal(torch.get_rng_state(), state), "it draws nothing of the caller's"
    here, there = (dict(each.named_parameters()) for each in (model, narrow))
    block = "attn_layers.blocks.f1.layer."
    scales = {
        "token_emb.weight": 1,
        f"{block}to_hidden.weight": 1 / 2,
        f"{block}to_hidden.bias": 1,
        "to_logits.weight": 1 / 4,
    }
    for name, scale in scales.items():
        assert float((here[name].std() / there[name].std()).detach()) == pytest.approx(scale, rel=0.1), name
    assert torch.equal(here["attn_layers.norm.weight"], torch.ones(128))
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert settings.keys() == {id(p) for p in model.parameters()}
    assert settings[id(here[f"{block}to_out.weight"])] == settings[id(here["to_logits.weight"])] == (0.0025, 0.4)
    assert settings[id(here["token_emb.weight"])] == (0.01, 0.1)
    assert settings[id(here[f"{block}to_out.bias"])] == (0.01, 0)
    torch.optim.AdamW(groups)


def test_the_base_is_as_it_was() -> None:
    base = at(32, tie_embedding=True)
    model = lower(base.with_mup(base))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    groups = mup(model, base, lr=0.01)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert {group["lr"] for group in groups} == {0.01}


@pytest.mark.parametrize("kind", BUILT_IN)
def test_declared_shapes_and_modules_give_the_same_roles(kind: str) -> None:
    text = small(kind)
    base, wide = (at(dim, text, num_tokens=None, max_seq_len=None) for dim in (32, 64))
    declared = {name.partition(".")[2]: role for name, role in wide.width_roles(base).items()}
    found = scalings(lower(wide.with_mup(base)), base)
    assert {n.partition(".layer.")[2]: role for n, role in found.items() if ".layer." in n} == declared


def test_an_encoder_decoder_has_groups_too() -> None:
    given: Any = {"heads": 2, "num_tokens": 7, "max_seq_len": 8}
    base, wide = (compile("a f => a c f", dim=dim, attn_dim_head=dim // 2, **given) for dim in (8, 16))
    model = lower(wide.with_mup(base))
    groups = mup(model, base, lr=0.5)
    assert sum(len(group["params"]) for group in groups) == len([*model.parameters()])
    assert {group["lr"] for group in groups} == {0.5, 0.25}


def test_what_is_no_such_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"lower graph\.with_mup\(base\)"):
        mup(lower(at(32)), at(8), lr=0.1)
    with pytest.raises(TypeError, match="not Linear"):
        mup(torch.nn.Linear(2, 2), at(8), lr=0.1)


def test_a_slope_is_the_exponent_of_a_power() -> None:
    assert slope({width: 3 * width**0.7 for width in (8, 16, 64)}) == pytest.approx(0.7)
    assert math.isnan(slope({8: 1.0, 16: math.inf}))
    assert math.isnan(slope({8: 0.0, 16: 1.0}))


@pytest.mark.parametrize("settings", [{}, {"tie_embedding": True}], ids=["untied", "tied"])
def test_sizes_are_flat_with_mup_and_grow_without(settings: dict[str, Any]) -> None:
    graphs = {dim: at(dim, "a f a f", **settings) for dim in (32, 64, 128)}
    run: Any = {"seq_len": 16, "steps": 3, "dtype": torch.float64}
    scaled = check_coordinates(graphs, **run)
    assert [*scaled.slopes()] == ["a0", "f1", "a2", "f3", LOGITS]
    assert all(abs(value) < 0.25 for block, value in scaled.slopes().items() if block != LOGITS), scaled.slopes()
    assert scaled.verdict().startswith("muP: flat")
    standard = check_coordinates(graphs, standard=True, **run)
    assert all(value > 0.5 for block, value in standard.slopes().items() if block != LOGITS), standard.slopes()
    assert standard.verdict().startswith("standard: not flat; ")
    assert standard.sizes[32] == scaled.sizes[32], "the base is the same"
