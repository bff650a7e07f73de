"""Segment memories (Transformer-XL, Dai et al., arXiv:1901.02860), keyed by the graph's nodes.

A node keeps the stream it read, without gradient and before its norm. Self-attention makes keys and values of all of
it; a token shift needs only the last few tokens. A kind with a state of constant size continues from that, whatever
the length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .plan import Step


@dataclass(frozen=True)
class Memories:
    """What is kept from earlier segments of one batch of sequences.

    Attributes:
        streams: node → (batch, tokens, dim), what it read; "node.stream" → the stream after it, which others attend to.
        length: tokens kept.
        states: node → its pieces of constant size, (batch, *shape) each.
        mask: (batch, length) bool, which of them are real; None: all.
        pinned: how many of them, the first real ones of each row, are always kept: memory tokens.
        condition: (batch, length, features) of these tokens, as norms read it, where it was of each token.
        value_embeds: by number, (batch, length, features) of these tokens.
        attends: the nodes of self-attention in order. Iterating, indexing and measuring go over their streams.
    """

    streams: dict[str, Tensor]
    length: int
    mask: Tensor | None = None
    pinned: int = 0
    states: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    attends: tuple[str, ...] = ()
    condition: Tensor | None = None
    value_embeds: Mapping[int, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.attends)

    def __getitem__(self, index: int) -> Tensor:
        return self.streams[self.attends[index]]

    def __iter__(self) -> Iterator[Tensor]:
        return (self.streams[node] for node in self.attends)

    def __bool__(self) -> bool:
        return True

    @property
    def batch(self) -> int:
        """Number of rows; 0 if nothing is kept."""
        pieces = (piece for own in self.states.values() for piece in own.values())
        return next((t.shape[0] for t in (*self.streams.values(), *pieces)), 0)

    @property
    def nodes(self) -> set[str]:
        """The nodes that keep something."""
        return {*self.streams, *self.states}

    def routed(self, nodes: list[str], down: int) -> Memories:
        """Each of `nodes` reads the memory of the node `down` places after it; the last ones read the first ones'.

        ERNIE-Doc (Ding et al., arXiv:2012.15688): a layer then reads an upper layer's memory of an earlier segment.
        """
        if not down or not self.streams.keys() >= {*nodes}:  # of another model: the stack refuses them
            return self
        moved = {node: self.streams[nodes[(i + down) % len(nodes)]] for i, node in enumerate(nodes)}
        return replace(self, streams=self.streams | moved)

    def select(self, rows: Tensor) -> Memories:
        """Of these rows, (n,) int, repeats allowed."""
        streams = {node: t.index_select(0, rows) for node, t in self.streams.items()}
        rest = (self.mask, self.condition)
        mask, condition = (None if t is None else t.index_select(0, rows) for t in rest)
        states = {node: {name: t.index_select(0, rows) for name, t in own.items()} for node, own in self.states.items()}
        embeds = {number: t.index_select(0, rows) for number, t in self.value_embeds.items()}
        return replace(self, streams=streams, mask=mask, states=states, condition=condition, value_embeds=embeds)


def tokens_needed(step: Step) -> int | None:
    """How many past tokens a step needs: all (None), or as many as its token shift."""
    return None if "memory" in step.inputs else step.use.shift


def remembered(steps: list[Step]) -> Iterator[str]:
    """What of a text's segments is kept for later ones: nodes that read them, and the streams that they attend to."""
    for step in steps:
        if step.block is not None and (tokens_needed(step) != 0 or step.carries):
            yield step.node
        if step.own_context is not None:
            yield step.own_context


def extended(
    before: Memories | None,
    steps: list[Step],
    streams: dict[str, Tensor],
    states: Mapping[str, Mapping[str, Tensor]],
    mask: Tensor | None,
    most: int,
    pinned: int = 0,
    condition: Tensor | None = None,
    value_embeds: Mapping[int, Tensor] | None = None,
) -> Memories:
    """The memories after another segment.

    Args:
        before: the memories it started with.
        streams: as those of Memories, (batch, seq, dim) each.
        states: node → its pieces of constant size at the end of the segment.
        mask: (batch, seq) bool of the segment; None: all are real.
        most: tokens to keep, besides the pinned ones.
        pinned: tokens at the front of a first segment that are always kept.
        condition: (batch, 1 or seq, features) of the segment, as norms read it.
        value_embeds: by number, (batch, seq, features) of the segment.
    """
    new = next(iter(streams.values())) if streams else None
    if before is not None:
        pinned = before.pinned
    past = 0 if before is None else before.length
    total = past + (0 if new is None else new.shape[1])
    masks = None
    if new is not None and (mask is not None or (before is not None and before.mask is not None)):
        masks = torch.cat((_mask(before, new), _full(new) if mask is None else mask), dim=1)
    kept: dict[str, Tensor] = {}
    needed = {step.node: tokens_needed(step) for step in steps} | {step.own_context or "": None for step in steps}
    for node, shift in needed.items():
        if node not in streams or shift == 0:
            continue
        stream = streams[node].detach()
        if before is not None and node in before.streams:
            stream = torch.cat((before.streams[node].to(stream.dtype), stream), dim=1)
        tail = stream.shape[1] - min(total, shift or 0)
        kept[node] = _end(stream, most, pinned, masks) if shift is None else stream[:, tail:]
    last_masks = None if masks is None else _end(masks, most, pinned, masks)
    attends = tuple(step.node for step in steps if step.self_attends and step.node in kept)
    conditions = None if condition is None else _conditions(before, past, condition.detach(), total - past)
    if conditions is not None:
        conditions = _end(conditions, most, pinned, masks)
    embeds = {
        number: _end(vectors.detach(), most, pinned, masks)
        for number, vectors in with_earlier(before, value_embeds or {}).items()
    }
    return Memories(kept, min(total, most + pinned), last_masks, pinned, states, attends, conditions, embeds)


def with_earlier(mems: Memories | None, value_embeds: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
    """Value embeddings, (batch, seq, features) each, after those of the tokens that are kept."""
    if mems is None or not mems.length:
        return value_embeds
    return {
        number: torch.cat((mems.value_embeds[number].to(vectors.dtype), vectors), dim=1)
        for number, vectors in value_embeds.items()
    }


def _conditions(before: Memories | None, past: int, condition: Tensor, seq: int) -> Tensor | None:
    """(batch, past + seq, features); None: all were of rows, and so are those of later segments."""
    earlier = None if before is None else before.condition
    if earlier is None:
        return condition if condition.shape[1] > 1 and not past else None
    return torch.cat((earlier.to(condition.dtype), condition.expand(-1, seq, -1)), dim=1)


def _mask(before: Memories | None, like: Tensor) -> Tensor:
    if before is not None and before.mask is not None:
        return before.mask
    return _full(like)[:, :1].expand(-1, 0 if before is None else before.length)


def _full(like: Tensor) -> Tensor:
    return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)


def _end(x: Tensor, most: int, pinned: int, mask: Tensor | None) -> Tensor:
    """The last `most` tokens of `x: (batch, tokens, ...)` after the pinned ones, each row's first real ones.

    A row whose pinned tokens are among the last `most + pinned` keeps just these: padding is dropped first.
    """
    if x.shape[1] <= most + pinned:
        return x
    last = x[:, x.shape[1] - most :]
    if not pinned:
        return last
    first = x[:, :pinned]
    if mask is not None:
        start = mask.int().argmax(dim=-1, keepdim=True).clamp(max=x.shape[1] - most - pinned)
        places = start + torch.arange(pinned, device=x.device, dtype=torch.int64)
        first = torch.take_along_dim(x, places.reshape(*places.shape, *(1 for _ in x.shape[2:])), dim=1)
    return torch.cat((first, last), dim=1)
