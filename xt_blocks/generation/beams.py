"""Beam search: several texts at once, of which the likeliest stay.

Each step goes on from every beam with every token, and keeps the likeliest texts. One that ends is kept aside, and
competes with those that go on until none of these can become better. Owns the search and its scores; what the model
reads, and the states that move with the beams, are those of a `Decoding`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from blockdsl.registry.options import real, whole

from .decoding import Started, generating, is_one_of
from .options import Generation
from .sampling import Sampler, keep_top_k, log_probabilities
from .steps import Decoding

DRAWING = frozenset(("temperature", "top_k", "top_p", "top_a", "min_p", "generator"))
"""The options of a Generation that say how tokens are drawn."""


class Texts(NamedTuple):
    """Several texts of each row of a batch.

    Attributes:
        tokens: (batch, n, steps) int64, padded after a text's end.
        scores: (batch, n), the sums of their tokens' log-probabilities; -inf: there is no such text.
        lengths: (batch, n) int64
    """

    tokens: Tensor
    scores: Tensor
    lengths: Tensor

    def take(self, order: Tensor) -> Texts:
        """Those with these indices, `order: (batch, k)` int."""
        tokens = self.tokens.take_along_dim(order[..., None], dim=1)
        return Texts(tokens, self.scores.take_along_dim(order, dim=1), self.lengths.take_along_dim(order, dim=1))

    def best(self, count: int, length_penalty: float, *others: Texts) -> Texts:
        """The best `count` of these and the others, in order."""
        every = Texts(*(torch.cat(parts, dim=1) for parts in zip(self, *others, strict=True)))
        return every.take(_ranked(every.scores, every.lengths, length_penalty).topk(count, dim=1).indices)

    def shown(self, single: bool, every: bool) -> Tensor | tuple[Tensor, Tensor]:
        """The tokens of the first of each row, (batch, up to steps), without places after the end of all of them.

        Args:
            single: without the batch axis.
            every: of all of them, (n, batch, up to steps), and their scores (n, batch).
        """
        texts = self if every else Texts(*(part[:, :1] for part in self))
        lengths = texts.lengths.masked_fill(texts.scores.isneginf(), 0)
        tokens = texts.tokens[:, :, : int(lengths.max()) if lengths.numel() else 0].transpose(0, 1)
        tokens, scores = (tokens[:, 0], texts.scores[0]) if single else (tokens, texts.scores.T)
        return (tokens, scores) if every else tokens[0]


def _ranked(scores: Tensor, lengths: Tensor | float, length_penalty: float) -> Tensor:
    return scores if length_penalty == 0 else scores / lengths**length_penalty


@dataclass(frozen=True)
class BeamSearch:
    """How texts are searched.

    Args:
        beams: how many texts go on at once, and how many are found.
        length_penalty: texts are ranked by log-probability / length^length_penalty, the end token counted: above 0 it
            favours longer ones.
        stochastic: each beam goes on with `beams` tokens that are drawn without replacement (the Gumbel-top-k trick,
            arXiv:1903.06059), and not with the likeliest.

    Raises:
        ValueError: a number is out of its range, or an option of sampling is given and nothing is sampled.
    """

    generation: Generation
    beams: int = 4
    length_penalty: float = 0.0
    stochastic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "beams", whole("beams", self.beams, 1))
        object.__setattr__(self, "length_penalty", real("length_penalty", self.length_penalty))
        if self.stochastic:
            return
        for field in fields(Generation):
            value = getattr(self.generation, field.name)
            if field.name in DRAWING and value != field.default and not (field.name == "temperature" and value == 0):
                problem = f"{field.name} is given, but a beam search takes the likeliest"
                raise ValueError(f"{problem}: set stochastic=True to draw")

    def run(self, net: nn.Module, started: Started, pad_value: int, every: bool) -> Tensor | tuple[Tensor, Tensor]:
        """The best text after each prompt, or `every` one and their scores, as `Texts.shown` gives them.

        Args:
            net: the model of the decoding.
            pad_value: what follows a text's end.
        """
        prompts, decoding, steps, generation = started
        with generating(net, generation.filter_logits_fn is not None):
            texts = self._search(prompts.tokens, decoding, steps, pad_value)
            return texts.shown(prompts.single, every)

    def _search(self, prompts: Tensor, decoding: Decoding, steps: int, pad_value: int) -> Texts:
        batch, beams, stops = prompts.shape[0], self.beams, self.generation.ends
        none = torch.full((batch, beams), float("-inf"), device=prompts.device, dtype=torch.float32)
        ended = Texts(prompts.new_full((batch, beams, steps), pad_value), none, prompts.new_ones(batch, beams))
        going = ended._replace(scores=none.index_fill(1, prompts.new_zeros(1), 0.0))  # all start from the first
        rows = torch.arange(batch, device=prompts.device, dtype=torch.int64)[:, None]
        at = self.generation.at_steps(steps)
        for step in range(steps):
            new = self._log_probs(decoding.next_output(), at(step))
            new = new if step else new.repeat_interleave(beams, dim=0)
            count = new.shape[-1]
            every = (going.scores[..., None] + new.reshape(batch, beams, count)).flatten(1)
            most = beams * (1 + max(1, len(stops)))  # each beam may end, in so many ways, and as many go on
            best = every.topk(min(most, every.shape[1]), dim=1)
            source, token = best.indices // count, best.indices % count
            found = Texts(going.take(source).tokens, best.values, torch.full_like(token, step + 1))
            found.tokens[:, :, step] = token
            ends = is_one_of(token, stops)
            order = ends.int().argsort(dim=1, stable=True)[:, :beams]
            going = found._replace(scores=found.scores.masked_fill(ends, float("-inf"))).take(order)
            if stops:
                likely = Texts(*(part[:, :beams] for part in found))
                likely = likely._replace(scores=likely.scores.masked_fill(~ends[:, :beams], float("-inf")))
                ended = ended.best(beams, self.length_penalty, likely)
                if self._is_over(going, ended, step + 1, steps):
                    return ended
            if step + 1 < steps:
                source = source.take_along_dim(order, dim=1)
                decoding.select((rows * beams + source if step else rows.expand_as(source)).flatten())
                decoding.append(token.take_along_dim(order, dim=1).flatten())
        return going.best(beams, self.length_penalty, ended)

    def _log_probs(self, logits: Tensor, at: Sampler | int) -> Tensor:
        """(rows, tokens) log-probabilities of the next token, -inf for those that no beam goes on with.

        A token that is forced is sure.
        """
        if isinstance(at, int):
            sure = torch.full_like(logits, float("-inf"), dtype=torch.float32)
            return sure.index_fill_(-1, torch.tensor([at], device=logits.device, dtype=torch.int64), 0.0)
        if self.stochastic and at.temperature > 0:
            left = at.left(logits)
            noise = torch.empty_like(left).exponential_(generator=at.generator).log()
            left = keep_top_k(left - noise, self.beams)
        else:
            left = replace(at, temperature=0).left(logits)
        return log_probabilities(logits).masked_fill(left.isneginf(), float("-inf"))

    def _is_over(self, going: Texts, ended: Texts, length: int, steps: int) -> bool:
        """Whether no text that goes on can become better than those that have ended."""
        longest = steps if self.length_penalty > 0 else min(length + 1, steps)
        hope = _ranked(going.scores[:, 0], longest, self.length_penalty)
        worst = _ranked(ended.scores[:, -1], ended.lengths[:, -1], self.length_penalty)
        return bool((hope <= worst).all())
