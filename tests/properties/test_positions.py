"""Positions that are given: they take effect, by row too, and only their distances count."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from .models import SIZES, Model, close, context_for, cuts, examples, models

ROTARY, BIASES = ("rotary_pos_emb", "rotary_xpos"), ("rel_pos_bias", "dynamic_pos_bias", "alibi_pos_bias")


@st.composite
def positioned(draw: st.DrawFn, causal: bool | None = None) -> Model:
    """A model that reads positions."""
    drawn = draw(models(causal=causal, around=False))
    if not {*ROTARY, *BIASES} & drawn.settings.keys():
        drawn.settings[draw(st.sampled_from((*BIASES, "rotary_pos_emb")))] = True
    try:
        _ = drawn.graph
    except ValueError:
        assume(False)
    return drawn


@examples(17)
@given(positioned(), st.integers(1, 40), st.lists(st.integers(0, 30), min_size=6, max_size=6, unique=True))
def test_only_distances_count_and_rows_have_their_own(drawn: Model, by: int, where: list[int]) -> None:
    stack = drawn.stack()
    x, beside = torch.randn(2, 6, SIZES["dim"], dtype=torch.float64), context_for(stack, 2)
    pos = torch.tensor([sorted(where), list(range(6))])
    with torch.no_grad():
        out = stack(x, pos=pos, **beside)
        for row in range(2):
            own = {name: value[row : row + 1] for name, value in beside.items()}
            close(out[row : row + 1], stack(x[row : row + 1], pos=pos[row], **own))
        close(out[1], stack(x, **beside)[1])
        if not stack.anchored:  # learned memories stand where a row starts
            close(stack(x, pos=pos + by, **beside), out, 1e-4)


@examples(17)
@given(positioned(causal=True), cuts(6), st.lists(st.integers(0, 30), min_size=6, max_size=6, unique=True))
def test_cached_is_uncached_at_given_positions(drawn: Model, parts: list[int], where: list[int]) -> None:
    assume(drawn.graph.why_not_cached() is None)
    stack = drawn.stack()
    x, beside = torch.randn(2, 6, SIZES["dim"], dtype=torch.float64), context_for(stack, 2)
    pos = torch.tensor([sorted(where), list(range(6))])
    cache, out = stack.new_cache(2, 6), []
    with torch.no_grad():
        for i, (part, own) in enumerate(zip(x.split(parts, dim=1), pos.split(parts, dim=1), strict=True)):
            out.append(stack(part, pos=own, cache=cache, **(beside if i == 0 else {})))
        close(torch.cat(out, dim=1), stack(x, pos=pos, **beside))
