"""Each option of the table, by itself, compiles without a graph break and exports with a dynamic batch and length.

Those that `tests/blocks/test_compile_export.py` has in its stacks are not tried again. A run tries one of the two of
each, `pytest -m thorough` the other.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

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


@pytest.mark.parametrize("name", [EVERY_KIND, *part_of(OPTIONS, 4)])
def test_an_option_by_itself_compiles_without_a_graph_break(name: str) -> None:
    model = alone(name).model().train()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    given = inputs(model, 2, 6)
    torch.manual_seed(1)
    out = model(**given)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(**given), out)


@pytest.mark.parametrize("name", part_of(OPTIONS, 4, first=1))
def test_an_option_by_itself_exports_with_a_dynamic_batch_and_length(name: str) -> None:
    model = alone(name).model()
    batch, seq = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("seq", min=3, max=20)
    given = inputs(model, 3, 6)
    shapes = {"x": {0: batch, 1: seq}, "mask": {0: batch, 1: seq}, "context": {0: batch}, "condition": {0: batch}}
    shapes = {argument: shapes[argument] for argument in given}
    exported = torch.export.export(model, (), given, dynamic_shapes=shapes, strict=False).module()
    longer = inputs(model, 5, 9)
    torch.testing.assert_close(exported(**longer), model(**longer))
