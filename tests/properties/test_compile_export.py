"""Each option of the table compiles without a graph break and exports with a dynamic batch and length.

Those that `tests/blocks/test_compile_export.py` has in its stacks are not tried again. A run tries models of many
options at once: half of them compile, and a quarter of the others export. `pytest -m thorough` tries the rest of both,
and each option by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from blockdsl import UserError
from blockdsl.reference import needs
from blockdsl.registry.settings import table

from ..blocks.test_compile_export import NAMES
from ..blocks.variants import VARIANTS
from ..built_in import HYBRID, small
from ..thorough import part_of
from .models import AROUND, OF_HYBRID, OF_STACK, TOKENS, Model, context_for, tokens, values

COVERED = {name for variant in NAMES for name in VARIANTS[variant][1]}
NUMBERS = {"attn_dim_head", "attn_qk_scale", "attn_qk_norm_scale", "attn_qk_layernorm_eps", "attn_qk_rmsnorm_eps"} | {
    *("alibi_scale", "ff_mult", "init_gain", "norm_eps"),
    *("dim_condition", "adaptive_condition_mlp", "use_adaptive_layernorm"),  # adaptive_condition_mlp_expansion has them
    *("rotary_theta", "rotary_beta_slow", "rotary_high_freq_factor", "rotary_long_factors"),
}
"""Sizes and factors of operations that another option's model has, too."""
OPTIONS = sorted(((OF_STACK.keys() - COVERED - OF_HYBRID) | AROUND.keys()) - NUMBERS)
EVERY_KIND = "every kind"


def alone(name: str) -> Model:
    """A small model with one option, and what it needs; or with every kind of block."""
    if name == EVERY_KIND:
        return Model(" ".join(f"{small(kind)}>>1" for kind in HYBRID), {"causal": True}, {}, 0)
    option = table()[name]
    others = {n: v for n, v in needs(name, option.area).items() if n not in TOKENS}
    given = others | {name: values(option)[0]}
    settings = {n: v for n, v in given.items() if n not in AROUND}
    texts = {"cross_residual_attn": "a c f c", "residual_attn": "a f a", "shared_norm": "(a & f)*2"}
    read_by = {"attn_": "a c", "cross_attn_": "a c", "ff_": "f"}
    text = texts.get(name, next((own for prefix, own in read_by.items() if name.startswith(prefix)), "a f"))
    causal = name != "attn_max_attend_future"  # which a causal block has nothing of
    return Model(text, {"causal": causal} | settings, {n: v for n, v in given.items() if n in AROUND}, 0)


def inputs(model: Any, batch: int, seq: int) -> dict[str, Any]:
    mask = torch.arange(seq) >= torch.tensor([[0]] * (batch - 1) + [[2]])
    return {"x": tokens(batch, seq), "mask": mask, **context_for(model, batch)}


def joined(one: Model, other: Model) -> Model | None:
    """A model with the options of both; None: they do not go together."""
    if any(one.settings.get(n, v) != v for n, v in other.settings.items()):
        return None
    both = replace(one, settings=one.settings | other.settings, around=one.around | other.around)
    try:
        both.model()
    except UserError:
        return None
    return both


def together(names: list[str]) -> list[Model]:
    """As few models as have all of these options, each with the first that it goes together with."""
    models: list[Model] = []
    for name in names:
        own = alone(name)
        for number, model in enumerate(models):
            if (both := joined(model, own)) is not None:
                models[number] = both
                break
        else:
            models.append(replace(own, text="a c f") if own.text in ("a c", "f", "a f") else own)
    return models


PARTS = 8


def compiles(model: Model) -> None:
    """Without a graph break, and gives the same."""
    net = model.model().train()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    given = inputs(net, 2, 6)
    torch.manual_seed(1)
    out = net(**given)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(**given), out)


def exports(model: Model) -> None:
    """With a dynamic batch and length, and gives the same for others."""
    net = model.model()
    batch, seq = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("seq", min=3, max=20)
    given = inputs(net, 3, 6)
    shapes = {"x": {0: batch, 1: seq}, "mask": {0: batch, 1: seq}, "context": {0: batch}, "condition": {0: batch}}
    shapes = {argument: shapes[argument] for argument in given}
    exported = torch.export.export(net, (), given, dynamic_shapes=shapes, strict=False).module()
    longer = inputs(net, 5, 9)
    torch.testing.assert_close(exported(**longer), net(**longer))


@pytest.mark.parametrize("part", part_of(range(PARTS), 2))
def test_options_together_compile_without_a_graph_break(part: int) -> None:
    for model in together(OPTIONS[part::PARTS]):
        compiles(model)


@pytest.mark.parametrize("part", part_of(range(PARTS), 4, first=1))
def test_options_together_export_with_a_dynamic_batch_and_length(part: int) -> None:
    for model in together(OPTIONS[part::PARTS]):
        exports(model)


def test_every_kind_compiles_without_a_graph_break() -> None:
    compiles(alone(EVERY_KIND))


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_by_itself_compiles_without_a_graph_break(name: str) -> None:
    compiles(alone(name))


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_by_itself_exports_with_a_dynamic_batch_and_length(name: str) -> None:
    exports(alone(name))
