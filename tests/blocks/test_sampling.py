"""Filters and the draw, against plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from xt_blocks import AutoregressiveWrapper
from xt_blocks.generation.sampling import Sampler, keep_min_p, keep_top_a, keep_top_k, keep_top_p

from .variants import language_model, tokens

NEAR = 1e-5
"""A probability this near to a threshold may fall on either side of it."""


# A plain reference -------------------------------------------------------------------------------------------------

Row = dict[int, float]  # token → its probability


def normal(weights: Row) -> Row:
    total = math.fsum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def softmax(logits: dict[int, float], temperature: float = 1.0) -> Row:
    largest = max(logits.values())
    return normal({token: math.exp((value - largest) / temperature) for token, value in logits.items()})


def above(row: Row, threshold: float) -> Row:
    assume(all(abs(p - threshold) > NEAR for p in row.values()))
    return {token: p for token, p in row.items() if p > threshold}


def plain_top_k(row: Row, k: int) -> Row:
    ordered = sorted(row.values(), reverse=True)
    return row if k >= len(row) else above(row, (ordered[k - 1] + ordered[k]) / 2)


def plain_top_p(row: Row, p: float) -> Row:
    out: Row = {}
    for token in sorted(row, key=lambda token: -row[token]):
        if out:
            assume(abs(sum(out.values()) - p) > NEAR)
        if sum(out.values()) >= p:
            assume(min(out.values()) - row[token] > NEAR)  # no tie at the edge
            break
        out[token] = row[token]
    return out


def plain_top_a(row: Row, a: float) -> Row:
    return above(row, a * max(row.values()) ** 2)


def plain_min_p(row: Row, m: float) -> Row:
    return above(row, m * max(row.values()))


def drawn_from(logits: Tensor) -> Row:
    return {token: p for token, p in enumerate(logits.softmax(dim=-1).tolist()) if p > 0}


LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12)
SHARE = st.floats(0.01, 0.98)


@given(LOGITS, st.floats(0.2, 3), st.none() | st.integers(1, 9), *[st.none() | SHARE] * 3)
def test_filters_compose_in_their_order(
    logits: list[float], temperature: float, k: int | None, p: float | None, a: float | None, m: float | None
) -> None:
    row = softmax(dict(enumerate(logits)), temperature)
    if k is not None:
        row = normal(plain_top_k(row, k))
    if p is not None:
        row = normal(plain_top_p(row, p))
    if a is not None:
        row = normal(plain_top_a(row, a))
    if m is not None:
        row = normal(plain_min_p(row, m))
    sampler = Sampler(temperature=temperature, top_k=k, top_p=p, top_a=a, min_p=m)
    assert drawn_from(sampler.left(torch.tensor([logits]))[0]) == pytest.approx(row, abs=1e-6, rel=1e-4)


@pytest.mark.parametrize(
    ("keep", "plain"), [(keep_top_p, plain_top_p), (keep_top_a, plain_top_a), (keep_min_p, plain_min_p)]
)
@given(logits=LOGITS, share=SHARE)
def test_one_filter_leaves_the_logits_it_keeps_as_they_are(
    keep: Any, plain: Any, logits: list[float], share: float
) -> None:
    kept = plain(softmax(dict(enumerate(logits))), share)
    both = keep(torch.tensor([logits, [0.0] * len(logits)]), share)  # rows do not meet
    assert {i: v for i, v in enumerate(both[0].tolist()) if v != -math.inf} == {i: logits[i] for i in kept}


@pytest.mark.parametrize(
    ("keep", "share", "kept"),
    [  # of probabilities 0.1, 0.5, 0.25, 0.15
        (keep_top_p, 0.49, [1]),
        (keep_top_p, 0.51, [1, 2]),
        (keep_top_p, 0.76, [1, 2, 3]),
        (keep_top_p, 1.0, [0, 1, 2, 3]),
        (keep_top_a, 0.39, [0, 1, 2, 3]),  # above 0.0975
        (keep_top_a, 0.41, [1, 2, 3]),  # above 0.1025
        (keep_top_a, 0.7, [1, 2]),  # above 0.175
        (keep_top_a, 0.0, [0, 1, 2, 3]),
        (keep_top_a, 1.0, [1, 2]),
        (keep_min_p, 0.19, [0, 1, 2, 3]),
        (keep_min_p, 0.21, [1, 2, 3]),
        (keep_min_p, 0.51, [1]),
        (keep_min_p, 0.0, [0, 1, 2, 3]),
        (keep_min_p, 1.0, [1]),
    ],
)
def test_what_a_share_keeps(keep: Any, share: float, kept: list[int]) -> None:
    logits = torch.tensor([[0.1, 0.5, 0.25, 0.15]]).log()
    out = keep(logits, share)
    assert out.isfinite().nonzero()[:, 1].tolist() == kept
    assert torch.equal(out[0, kept], logits[0, kept])  # those kept stay in proportion


def test_top_p_of_one_keeps_a_long_tail() -> None:
    logits = torch.linspace(0, -40, 50_000)[None]
    assert torch.equal(keep_top_p(logits, 1.0), logits)


def test_top_k_keeps_k_of_equals() -> None:
    assert keep_top_k(torch.zeros(3, 5), 2).isfinite().sum(dim=-1).tolist() == [2, 2, 2]


def test_top_k_keeps_the_k_largest() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 1.0, 2.0, 3.0]])
    assert keep_top_k(logits, 2).isfinite().tolist() == [[False, True, False, True], [True, False, False, True]]
    assert torch.equal(keep_top_k(logits, 99), logits)


# The caller's own filter -------------------------------------------------------------------------------------------


def test_a_filter_of_the_callers_comes_first_and_at_temperature_0_too() -> None:
    seen: list[Tensor] = []

    def forbid_2(logits: Tensor) -> Tensor:
        seen.append(logits.clone())
        logits[:, 2] = -math.inf
        return logits

    logits = torch.tensor([[1.0, 2.0, 9.0, 0.0]], dtype=torch.float16)
    assert Sampler(temperature=0, filter_logits_fn=forbid_2)(logits).tolist() == [1]
    left = Sampler(temperature=0.5, top_k=2, filter_logits_fn=forbid_2).left(logits)
    assert left.isfinite().tolist() == [[True, True, False, False]]
    for given_to_filter in seen:
        assert given_to_filter.dtype == torch.float32
        assert given_to_filter.tolist() == [[1.0, 2.0, 9.0, 0.0]]


@pytest.mark.parametrize(
    ("filter_logits", "message"),
    [
        (lambda x: x[:, :2], r"filter_logits_fn must return logits \(2, 4\), not \(2, 2\)"),
        (lambda x: None, r"filter_logits_fn must return logits \(2, 4\), not NoneType"),
        (lambda x: x.masked_fill(x < 5, -math.inf), "what filter_logits_fn returned: row 1 has no token above -inf"),
        (lambda x: x * math.nan, "what filter_logits_fn returned: row 0 has a NaN"),
    ],
)
def test_what_a_filter_returns_is_checked(filter_logits: Any, message: str) -> None:
    logits = torch.tensor([[1.0, 2.0, 9.0, 0.0], [1.0, 2.0, 3.0, 0.0]])
    for temperature in (0, 1):
        with pytest.raises(ValueError, match=message):
            Sampler(temperature=temperature, filter_logits_fn=filter_logits)(logits)


@pytest.mark.parametrize("temperature", [0, 1])
def test_suppressed_tokens_are_not_drawn(temperature: float) -> None:
    logits = torch.tensor([[1.0, 2.0, 9.0, 0.0], [9.0, 2.0, 3.0, 0.0]])
    left = Sampler(temperature=temperature, suppress_tokens=[2, 0]).left(logits)
    assert left.tolist() == [[-math.inf, 0.0, -math.inf, -2.0]] * 2
    assert Sampler(temperature=temperature, suppress_tokens=[2, 0, 3])(logits).tolist() == [1, 1]
    only_2 = Sampler(
        temperature=temperature, suppress_tokens=[1], filter_logits_fn=lambda x: x.masked_fill(x > 2, -9.0)
    )
    assert only_2.left(logits)[0].tolist() == [0.0, -math.inf, -10.0, -1.0]
    with pytest.raises(ValueError, match="what suppress_tokens leave: row 0 has no token above -inf"):
        Sampler(temperature=temperature, suppress_tokens=range(4))(logits)
    with pytest.raises(ValueError, match="suppress_tokens are from 0 to 3, and one of them is 4"):
        Sampler(temperature=temperature, suppress_tokens=[4])(logits)


@pytest.mark.parametrize("tokens", [3, [-1], [1.5], "ab", [True]])
def test_what_is_suppressed_are_tokens(tokens: Any) -> None:
    with pytest.raises(ValueError, match=r"suppress_tokens must be tokens, as in \[1, 2\], not"):
        Sampler(suppress_tokens=tokens)


def test_a_filter_is_callable() -> None:
    with pytest.raises(TypeError, match="filter_logits_fn must be callable, not str"):
        Sampler(filter_logits_fn="top_k")  # type: ignore[arg-type]


# Extremes ----------------------------------------------------------------------------------------------------------

EXTREMES = st.sampled_from([math.inf, -math.inf, 1e30, -1e30, 3e38, -3e38, 65504.0, 0.0, 1.0, 1e-30])


@given(
    logits=st.lists(EXTREMES, min_size=1, max_size=6),
    temperature=st.sampled_from([0.0, 1e-320, 1e-38, 0.7, 1e30]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    top_k=st.none() | st.integers(1, 3),
    shares=st.fixed_dictionaries(
        {name: st.sampled_from([None, 1e-9, 0.5, 1.0]) for name in ("top_p", "top_a", "min_p")}
    ),
)
def test_extreme_logits_are_drawn_from(
    logits: list[float], temperature: float, dtype: torch.dtype, top_k: int | None, shares: dict[str, float | None]
) -> None:
    row = torch.tensor([logits], dtype=dtype)
    assume(row.max() > -math.inf)
    sampler = Sampler(temperature=temperature, top_k=top_k, **shares)
    assert not sampler.left(row).isnan().any()
    drawn = row[0, sampler(row)[0]]
    assert drawn > -math.inf
    if row.max() == math.inf or temperature < 1e-9:
        assert drawn == row.max()


def test_tokens_at_infinity_share_the_draw() -> None:
    left = Sampler().left(torch.tensor([[1.0, math.inf, -math.inf, math.inf]]))
    assert left.softmax(-1).tolist() == [[0.0, 0.5, 0.0, 0.5]]


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0, math.nan], "the model's logits: row 1 has a NaN"),
        ([-math.inf, -math.inf], "the model's logits: row 1 has no token above -inf"),
    ],
)
def test_logits_without_a_token_are_an_error(row: list[float], message: str, temperature: float) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(temperature=temperature)(torch.tensor([[0.0, 1.0], row]))


def test_a_tiny_temperature_is_the_most_likely_token() -> None:
    logits = torch.tensor([[1.0, 300.0, 299.0], [5.0, 4.0, -7.0]])
    for temperature in (1e-38, 1e-320):
        assert Sampler(temperature=temperature)(logits).tolist() == [1, 0]
        assert Sampler(temperature=temperature, top_p=0.5)(logits).tolist() == [1, 0]


# The draw ----------------------------------------------------------------------------------------------------------


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log().expand(20_000, 3)

    def shares(**kwargs: Any) -> list[float]:
        drawn = Sampler(generator=torch.Generator().manual_seed(0), **kwargs)(logits)
        return (torch.bincount(drawn, minlength=3) / 20_000).tolist()

    assert shares() == pytest.approx([0.1, 0.6, 0.3], abs=0.015)
    assert shares(temperature=0.5) == pytest.approx([0.01 / 0.46, 0.36 / 0.46, 0.09 / 0.46], abs=0.015)
    # what top-a keeps, it keeps in proportion: above 0.18
    assert shares(top_a=0.5) == pytest.approx([0, 2 / 3, 1 / 3], abs=0.015)
    assert shares(temperature=0) == [0, 1, 0]


WRONG = [
    ({"temperature": -1}, "temperature must be a number of at least 0 and finite, not -1"),
    ({"temperature": math.nan}, "temperature must be a number of at least 0 and finite, not nan"),
    ({"temperature": math.inf}, "temperature must be a number of at least 0 and finite, not inf"),
    ({"top_k": 0}, "top_k must be a whole number of at least 1 or none, not 0"),
    ({"top_k": 2.5}, "top_k must be a whole number of at least 1 or none, not 2.5"),
    ({"top_k": True}, "top_k must be a whole number of at least 1 or none, not true"),
    ({"top_p": 0.0}, "top_p must be a number above 0 and at most 1 or none, not 0.0"),
    ({"top_p": 1.5}, "top_p must be a number above 0 and at most 1 or none, not 1.5"),
    ({"top_p": math.nan}, "top_p must be a number above 0 and at most 1 or none, not nan"),
    ({"top_a": -0.1}, "top_a must be a number from 0 to 1 or none, not -0.1"),
    ({"top_a": 1.1}, "top_a must be a number from 0 to 1 or none, not 1.1"),
    ({"min_p": -0.1}, "min_p must be a number from 0 to 1 or none, not -0.1"),
    ({"min_p": 2}, "min_p must be a number from 0 to 1 or none, not 2"),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_a_number_out_of_its_range_is_refused_before_the_model_runs(kwargs: dict[str, Any], message: str) -> None:
    model = AutoregressiveWrapper(language_model())
    model.net.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    for method in (model.generate, model.stream):
        for seq_len in (0, 2):
            with pytest.raises(ValueError, match=message):
                method(tokens(1, 3), seq_len, **({"temperature": 0} | kwargs))
