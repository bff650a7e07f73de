"""What the graph says a model costs is what it costs."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .models import HYBRID, Model, context_for, examples, models, tokens


@examples(40)
@given(models())
def test_parameters_are_those_of_the_module(drawn: Model) -> None:
    model = drawn.model()
    assert model.graph.parameters() == sum(parameter.numel() for parameter in model.parameters())


def of_solve(triangle: tuple[int, ...], sides: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Operations of a triangular solve, which torch does not count: (..., n, n) and (..., n, m)."""
    return math.prod(sides) * triangle[-1]


def of_matrix_times_vector(matrix: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Operations of a matrix times a vector, as of the weights that write to residual streams; torch counts none."""
    return 2 * math.prod(matrix)


NOT_COUNTED = {
    torch.ops.aten.linalg_solve_triangular: of_solve,
    torch.ops.aten.mv: of_matrix_times_vector,
}


@examples(27)
@given(models(), st.integers(1, 3), st.integers(1, 9), st.integers(1, 6))
def test_flops_are_those_that_torch_counts(drawn: Model, batch: int, seq: int, context: int) -> None:
    assume(not drawn.kinds & {"mamba", "rglru"})  # their recurrences, number by number, are no products
    if drawn.kinds & {*HYBRID}:
        seq += 1  # a single token is a step of the recurrence, whose products torch does not count
    if "m" in drawn.kinds:
        seq = 3 * -(-seq // 3)  # whole chunks: the counter hooks on modules, and all chunks at once are filled up
    model = drawn.model(torch.float32)
    x, beside = tokens(batch, seq), context_for(model, batch, context)
    counter = FlopCounterMode(display=False, custom_mapping=NOT_COUNTED)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(x, **beside)
    count = counter.get_total_flops()
    assert abs(model.graph.flops(seq, batch, context) - count) <= 0.02 * count
