"""From logits to the next token.

The steps, in this order, each on the result of the one before: the caller's own filter on the model's logits; tokens
that are suppressed; temperature; top-k; top-p; top-a; min-p; the draw among the remaining tokens, in proportion to
their probabilities. A filter takes logits `(batch, tokens)` and returns them with dropped tokens at -inf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypedDict

import torch
from torch import Tensor

from blockdsl.registry.options import Option, by_name, checked_values, plain, real, whole

FilterLogits = Callable[[Tensor], Tensor]


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each row, exactly k even with ties (Fan et al., arXiv:1805.04833).

    Args:
        logits: (batch, tokens)

    Raises:
        ValueError: k is not a whole number of at least 1.
    """
    k = whole("top_k", k, 1)
    kept = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The smallest set of most likely tokens with a mass of at least p (nucleus sampling, arXiv:1904.09751).

    Args:
        logits: (batch, tokens)

    Raises:
        ValueError: p is not above 0 and at most 1.
    """
    p = real("top_p", p, above=0, most=1)
    if p == 1:
        return logits
    ordered, order = probabilities(logits).sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(drop, float("-inf"))


def keep_top_a(logits: Tensor, a: float) -> Tensor:
    """Tokens with a probability of at least a · p_max² (top-a, github.com/BlinkDL/RWKV-LM).

    The surer the model, the fewer tokens stay; the likeliest always does.

    Args:
        logits: (batch, tokens)

    Raises:
        ValueError: a is not from 0 to 1.
    """
    a = real("top_a", a, least=0, most=1)
    p = probabilities(logits)
    return logits.masked_fill(p < a * p.amax(dim=-1, keepdim=True) ** 2, float("-inf"))


def keep_min_p(logits: Tensor, m: float) -> Tensor:
    """Tokens with a probability of at least m · p_max (min-p, arXiv:2407.01082).

    Args:
        logits: (batch, tokens)

    Raises:
        ValueError: m is not from 0 to 1.
    """
    m = real("min_p", m, least=0, most=1)
    p = probabilities(logits)
    return logits.masked_fill(p < m * p.amax(dim=-1, keepdim=True), float("-inf"))


def without_tokens(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """All but these tokens.

    Args:
        logits: (batch, tokens)

    Raises:
        ValueError: there is no such token.
    """
    count = logits.shape[-1]
    if (largest := max(tokens, default=0)) >= count:
        raise ValueError(f"suppress_tokens are from 0 to {count - 1}, and one of them is {largest}")
    return logits.index_fill(-1, torch.tensor(tokens, device=logits.device, dtype=torch.int64), float("-inf"))


def checked_tokens(name: str, tokens: Sequence[int]) -> tuple[int, ...]:
    """Several tokens as Python's own numbers.

    Raises:
        ValueError: they are no tokens, or one alone.
    """
    given = plain(tokens)
    if not isinstance(given, Sequence) or not all(type(token) is int and token >= 0 for token in given):
        raise ValueError(f"{name} must be tokens, as in [1, 2], not {tokens!r}")
    return tuple(given)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the last axis, in float32 at least. Tokens at +inf share all of it."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _below(exact, exact.amax(dim=-1, keepdim=True)).softmax(dim=-1)


def log_probabilities(logits: Tensor) -> Tensor:
    """Logarithm of the softmax over the last axis, in float32 at least."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _below(exact, exact.amax(dim=-1, keepdim=True)).log_softmax(dim=-1)


def _below(logits: Tensor, largest: Tensor) -> Tensor:
    """Logits minus each row's `largest: (batch, 1)`, so at most 0: no exponential and no division overflows."""
    below = logits - largest
    if not torch.compiler.is_compiling() and isfinite(largest.sum()):
        return below
    return below.masked_fill(logits == largest, 0.0)  # inf - inf is 0 here


def draw(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One index per row, with a probability in proportion to its weight.

    On the CPU, the index where the running sum of the weights passes a random share of the total: one random number
    per row, where torch.multinomial draws one per token.

    Args:
        weights: (batch, tokens), none negative.

    Returns:
        (batch,) int64
    """
    if weights.device.type != "cpu":
        return torch.multinomial(weights, 1, generator=generator).squeeze(-1)
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    drawn = torch.rand(len(weights), 1, dtype=torch.float64, device="cpu", generator=generator)
    share = 1 - drawn  # above 0: never a weight of 0
    return torch.searchsorted(sums, share * sums[:, -1:]).squeeze(-1)


class Sampling(TypedDict, total=False):
    """A Sampler's arguments, for methods that take them as `**options`."""

    temperature: float
    top_k: int | None
    top_p: float | None
    top_a: float | None
    min_p: float | None
    filter_logits_fn: FilterLogits | None
    suppress_tokens: Sequence[int]
    generator: torch.Generator | None


_NUMBERS = by_name(
    (
        Option("top_k", int, None, "likeliest tokens", least=1, optional=True),
        Option("top_p", float, None, "probability of those kept", above=0, most=1, optional=True),
        Option("top_a", float, None, "of the largest probability squared", least=0, most=1, optional=True),
        Option("min_p", float, None, "of the largest probability", least=0, most=1, optional=True),
    )
)


@dataclass(frozen=True)
class Sampler:
    """Draws one token per row: `sampler(logits (batch, tokens)) -> (batch,) int64`.

    Args:
        temperature: divides the logits; 0 is the most likely token, always.
        top_k: sample among the top_k most likely tokens.
        top_p: among the fewest of them that have this much probability.
        top_a: among those with a probability of at least top_a · p_max².
        min_p: among those with a probability of at least min_p · p_max.
        filter_logits_fn: any callable, logits (batch, tokens) in float32 or float64 → the same shape; a token at
            -inf is not drawn. It comes first, and at temperature 0 too.
        suppress_tokens: tokens that are never drawn, at temperature 0 neither.
        generator: for reproducible draws.

    Raises:
        ValueError: a number out of its range; when called, logits with a NaN or a row with no token left, or a token
            to suppress that there are no logits of.
        TypeError: a filter that cannot be called.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    top_a: float | None = None
    min_p: float | None = None
    filter_logits_fn: FilterLogits | None = None
    suppress_tokens: Sequence[int] = ()
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        temperature = plain(self.temperature)
        if type(temperature) not in (int, float) or not (temperature >= 0 and isfinite(temperature)):
            raise ValueError(f"temperature must be a number of at least 0 and finite, not {temperature}")
        own = checked_values({name: getattr(self, name) for name in _NUMBERS}, _NUMBERS)
        for name, value in (("temperature", temperature), *own.items()):
            object.__setattr__(self, name, value)
        if self.filter_logits_fn is not None and not callable(self.filter_logits_fn):
            raise TypeError(f"filter_logits_fn must be callable, not {type(self.filter_logits_fn).__name__}")
        if self.generator is not None and not isinstance(self.generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, not {type(self.generator).__name__}")
        object.__setattr__(self, "suppress_tokens", checked_tokens("suppress_tokens", self.suppress_tokens))

    def __call__(self, logits: Tensor) -> Tensor:
        if self.temperature == 0:
            return self._filtered(logits)[0].argmax(dim=-1)
        return draw(self.left(logits).exp(), self.generator)

    def left(self, logits: Tensor) -> Tensor:
        """The logits (batch, tokens) to draw from, each row's largest at 0 and dropped tokens at -inf."""
        logits = _below(*self._filtered(logits))
        if self.temperature == 0:
            return logits  # no filter below drops the largest
        if self.temperature != 1:
            logits = logits / max(self.temperature, torch.finfo(logits.dtype).tiny)
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.top_a is not None:
            logits = keep_top_a(logits, self.top_a)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits

    def _filtered(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The logits in float32 at least that the caller's own filter and suppressed tokens leave, and the largest of
        each row (batch, 1)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        largest = _checked_largest("the model's logits", logits)
        if self.filter_logits_fn is not None:
            out = self.filter_logits_fn(logits)
            if not isinstance(out, Tensor) or out.shape != logits.shape:
                what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise ValueError(f"filter_logits_fn must return logits {tuple(logits.shape)}, not {what}")
            logits = out.to(logits.dtype)
            largest = _checked_largest("what filter_logits_fn returned", logits)
        if self.suppress_tokens:
            logits = without_tokens(logits, self.suppress_tokens)
            largest = _checked_largest("what suppress_tokens leave", logits)
        return logits, largest


def _checked_largest(what: str, logits: Tensor) -> Tensor:
    """(batch, 1), the largest of each row; raise ValueError where a row has a NaN, or nothing but -inf."""
    largest = logits.amax(dim=-1, keepdim=True)  # a NaN is the largest of its row
    if not isfinite(largest.sum()) and (wrong := largest.isnan() | largest.isneginf()).any():
        row = int(wrong.nonzero()[0, 0])
        raise ValueError(f"{what}: row {row} has {'a NaN' if largest[row].isnan() else 'no token above -inf'}")
    return largest
