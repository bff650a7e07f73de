"""How tokens are generated: how each is chosen, what ends a row, and how the steps run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from blockdsl.registry.options import plain

from ..models.transformer import TransformerWrapper
from .sampling import Sampler, Sampling, checked_tokens


class GenerationOptions(Sampling, total=False):
    """A Generation's arguments, for methods that take them as `**options`."""

    eos_token: int | Sequence[int] | None
    begin_suppress_tokens: Sequence[int]
    forced_tokens: Mapping[int, int] | None
    cache_kv: bool
    compile: bool


@dataclass(frozen=True)
class Generation(Sampler):
    """How tokens are generated: a Sampler, and how its steps run.

    Args:
        eos_token: a row that has generated it, or one of several, is padded; decoding ends when all rows have.
        begin_suppress_tokens: tokens that are not drawn first, after those that are forced at the start
            (Whisper, arXiv:2212.04356).
        forced_tokens: steps and the tokens that are taken there, whatever the model says: 0 is the first step, and -1
            the last one of those that are asked for. `{0: 0, -1: 2}` is BART's (arXiv:1910.13461).
        cache_kv: keep keys and values between steps; without, the tokens are the same.
        compile: compile the steps after the prompt, once for each batch size and for each 128 tokens of length; on a
            GPU they are a CUDA graph.
    """

    eos_token: int | Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] = ()
    forced_tokens: Mapping[int, int] | None = None
    cache_kv: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "eos_token", plain(self.eos_token))
        first = checked_tokens("begin_suppress_tokens", self.begin_suppress_tokens)
        object.__setattr__(self, "begin_suppress_tokens", first)
        object.__setattr__(self, "forced_tokens", _checked_forced(self.forced_tokens))

    @property
    def ends(self) -> Sequence[int]:
        """The tokens that end a row."""
        eos = self.eos_token
        return () if eos is None else eos if isinstance(eos, list | tuple) else (eos,)

    def check(self, net: TransformerWrapper) -> None:
        """Raise ValueError unless `net` can generate tokens like this."""
        if not all(type(end) is int and 0 <= end < net.num_tokens for end in self.ends):
            raise ValueError(f"eos_token must be a token, from 0 to {net.num_tokens - 1}, not {self.eos_token}")
        said = (self.suppress_tokens, self.begin_suppress_tokens, (self.forced_tokens or {}).values())
        for name, tokens in zip(("suppress_tokens", "begin_suppress_tokens", "forced_tokens"), said, strict=True):
            if (largest := max(tokens, default=0)) >= net.num_tokens:
                raise ValueError(f"{name} are tokens from 0 to {net.num_tokens - 1}, and one of them is {largest}")
        if not self.compile:
            return
        if not self.cache_kv:
            raise ValueError("compile is set, but cache_kv is off: only steps with a cache are compiled")
        if reason := net.graph.why_not_cached():
            raise ValueError(f"compile is set, but no cache can be kept: {reason}")

    def at_steps(self, steps: int) -> Callable[[int], Sampler | int]:
        """From each of so many steps to what takes its token, or to the token that is forced."""
        forced = {step if step >= 0 else steps + step: token for step, token in (self.forced_tokens or {}).items()}
        begin = next(step for step in range(steps + 1) if step not in forced)
        first: Sampler = self
        if self.begin_suppress_tokens:
            first = replace(self, suppress_tokens=(*self.suppress_tokens, *self.begin_suppress_tokens))

        return lambda step: forced.get(step, first if step == begin else self)

    def chooser(self, steps: int) -> Callable[[Tensor, int], Tensor]:
        """What takes a token at each of so many steps: from logits (batch, tokens) and the step to tokens (batch,)."""
        at = self.at_steps(steps)

        def choose(logits: Tensor, step: int) -> Tensor:
            sampler = at(step)
            if isinstance(sampler, int):
                return logits.new_full(logits.shape[:1], sampler, dtype=torch.int64)
            return sampler(logits)

        return choose


def _checked_forced(forced: Any) -> dict[int, int] | None:
    if forced is None:
        return None
    if isinstance(forced, Mapping):
        tokens = {plain(step): plain(token) for step, token in forced.items()}
        if all(type(step) is int and type(token) is int and token >= 0 for step, token in tokens.items()):
            return tokens
    raise ValueError(f"forced_tokens must be tokens by step, as in {{0: 5, -1: 2}}, not {forced!r}")


def split_options(options: Mapping[str, Any]) -> tuple[Generation, dict[str, Any]]:
    """Split the keywords of `stream` into how to generate and what the model reads."""
    own = {field.name for field in fields(Generation)}
    generation = Generation(**{name: value for name, value in options.items() if name in own})
    return generation, {name: value for name, value in options.items() if name not in own and value is not None}
