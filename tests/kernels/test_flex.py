"""FlexAttention is compiled as often as it needs to be, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature

import pytest
import torch
from torch._dynamo import config
from torch._dynamo.utils import counters

from xt_blocks.kernels import compat, flex
from xt_blocks.kernels.masks import Bias, Masks, MaskSpec
from xt_blocks.positions.relative import RelativeBias


def programs(cases: Iterable[tuple[int, int, int | None]]) -> int:
    """How many there are after calls with so many heads, tokens, and a window or a bias in its place."""
    torch.compiler.reset()
    counters.clear()
    compiled = flex.compile_(compat.flex_attention().flex_attention, backend="eager")
    with torch.no_grad(), config.patch(fail_on_recompile_limit_hit=True):
        for heads, tokens, window in cases:
            q = torch.randn(1, heads, tokens, 16)
            bias = None if window else Bias(("b",), RelativeBias(torch.randn(heads, 2 * tokens - 1), tokens, tokens))
            mask = Masks(tokens).tokens(MaskSpec(True, window), bias)
            score = flex._score(mask, [])
            compiled(q, q, q, score_mod=score, block_mask=flex.block_mask(mask, q, q), scale=0.3)
    return counters["stats"]["unique_graphs"]


def test_one_program_serves_all_lengths_and_windows() -> None:
    assert programs((2, tokens, None) for tokens in (150, 140, 170, 133)) <= 3
    assert programs((2, 150, window) for window in (5, 6, 7, 8)) <= 3


def test_there_are_more_models_than_torch_compiles_a_function_for() -> None:
    if "recompile_limit" not in signature(torch.compile).parameters:
        pytest.skip("this torch cannot be told how often to compile")
    assert programs((heads, 130, None) for heads in range(1, config.recompile_limit + 3)) > config.recompile_limit
