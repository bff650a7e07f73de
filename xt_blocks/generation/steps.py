"""What a model reads to give the next token or vector, and what is kept between steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from blockdsl.graph.state import SLACK, why_not_rolling, widest_window

from ..models.sequence import SequenceModel
from ..runtime.cache import Cache
from .prompts import Prompts, of_places, of_step


class Rows:
    """(batch, length) tokens, or (batch, length, dim) vectors, with capacity for `new` more after a prompt."""

    def __init__(self, prompt: Tensor, new: int) -> None:
        batch, length, *features = prompt.shape
        self._buffer = torch.cat((prompt, prompt.new_zeros(batch, new, *features)), dim=1)
        self.batch, self.length, self.capacity = batch, length, length + new

    def append(self, token: Tensor) -> None:
        """token: (batch,), or a vector (batch, dim)."""
        self._buffer[:, self.length] = token
        self.length += 1

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (n,) int."""
        self._buffer = self._buffer.index_select(0, rows)
        self.batch = self._buffer.shape[0]

    def since(self, start: int, end: int | None = None) -> Tensor:
        """(batch, tokens, ...) from place `start` on, to the last one or up to place `end`."""
        return self._buffer[:, start : self.length if end is None else end]


class Decoding(Protocol):
    """The tokens or vectors so far, and the model's output for the next."""

    def next_output(self) -> Tensor:
        """(batch, num_tokens) logits, or (batch, dim) the next vector."""

    def append(self, token: Tensor) -> None:
        """token: (batch,), or a vector (batch, dim)."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (n,) int, repeats allowed, as a beam search does."""


class WindowDecoding:
    """The model reads the last max_seq_len tokens; it has a cache only while these are all tokens.

    A model of any length reads them all. Once the window slides, every value changes with the token that left, and
    cached ones are no longer exact. Nor are they where rotary positions change with the length of the text: the model
    then reads all tokens again.

    Args:
        net: the model.
        prompts: from `read_prompts`.
        new: number of tokens to append.
        cached: keep keys and values if the stack can.
        compiled: compile the steps after the prompt.
        read: further inputs of the model, for passes that do not continue a cache.
    """

    def __init__(
        self,
        net: SequenceModel,
        prompts: Prompts,
        new: int,
        cached: bool,
        compiled: bool,
        read: Mapping[str, Any],
    ) -> None:
        self.net, self.read = net, read
        self.step: Callable[..., Tensor] = compiled_step(net) if compiled else net
        self.rows, self.mask = Rows(prompts.tokens, new), None
        if prompts.mask is not None:
            self.mask = F.pad(prompts.mask, (0, new), value=True)
        self.prepended = read["prepend_embeds"].shape[1] if "prepend_embeds" in read else 0
        self.capacity = capacity_for(self.rows.capacity, net.max_seq_len, compiled)
        self.cached = cached and not self._start and net.graph.why_not_cached() is None
        self.cache, self.seen = self._new_cache(), 0
        self.before = {0}  # how many places of the stream each row has before the tokens, less its padding
        if net.attn_layers.changes_with_length and self.mask is not None:
            self.before = {-padding for padding in (~self.mask).sum(dim=1).tolist()}

    def _new_cache(self) -> Cache | None:
        if not self.cached:
            return None
        prepended = {"prepended": self.prepended} if self.prepended else {}
        return self.net.new_cache(self.rows.batch, self.capacity, **prepended)

    def _changed(self) -> bool:
        """Whether rotary positions are others than at the last step."""
        length = self.net.num_memory_tokens + self.prepended + self.rows.length
        return any(self.net.attn_layers.changes_at(length + before) for before in self.before)

    @property
    def _start(self) -> int:
        """Where the window starts."""
        return 0 if self.net.max_seq_len is None else max(0, self.rows.length - self.net.max_seq_len)

    def next_output(self) -> Tensor:
        """(batch, num_tokens) logits, or (batch, dim) the next vector."""
        rows, start = self.rows, self._start
        if start:
            self.cache, self.seen = None, 0
        elif self.cache is not None and self.seen and self._changed():
            self.cache, self.seen = self._new_cache(), 0
        if self.seen:
            out = self.step(rows.since(self.seen), cache=self.cache, **of_step(self.read, self.seen, rows.length))
        else:
            mask = {} if self.mask is None else {"mask": self.mask[:, start : rows.length]}
            read = of_places(self.read, start, rows.length)
            out = self.net(rows.since(start), cache=self.cache, last_only=True, **mask, **read)
        if self.cache is not None:
            self.seen = rows.length
        return out[:, -1]

    def append(self, token: Tensor) -> None:
        """token: (batch,), or a vector (batch, dim)."""
        self.rows.append(token)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (n,) int."""
        self.rows.select(rows)
        self.mask, self.read = selected(self.mask, rows), {name: t[rows] for name, t in self.read.items()}
        self.cache = None if self.cache is None else self.cache.reorder(rows)


class RollingDecoding:
    """The model reads each token once, whatever max_seq_len says, into a cache of constant size.

    It is for stacks in which every block keeps a window or a state per row, and positions say only how far apart
    tokens are: then nothing is lost with the tokens that the cache forgets, and the outputs are those of a pass over
    the whole text. A prompt longer than max_seq_len is read in pieces.

    Args:
        net: the model; `why_not_rolling` of its graph is None, and nothing is before its tokens.
        prompts, new, cached, compiled, read: as of `WindowDecoding`.
    """

    def __init__(
        self,
        net: SequenceModel,
        prompts: Prompts,
        new: int,
        cached: bool,
        compiled: bool,
        read: Mapping[str, Any],
    ) -> None:
        self.net, self.read, self.mask = net, read, prompts.mask
        self.step: Callable[..., Tensor] = compiled_step(net) if compiled else net
        self.rows, self.prompt = Rows(prompts.tokens, new), prompts.tokens.shape[1]
        self.seen = self.held = 0  # tokens read, and those of them that the cache holds
        self.piece = self.prompt if net.max_seq_len is None else min(self.prompt, net.max_seq_len)
        self.window = widest_window(net.attn_layers.kept.values()) or 0
        most = self.window + max(self.piece, SLACK) + 1  # one more, since tokens are forgotten by twos
        capacity = capacity_for(min(self.rows.capacity, most), None, compiled)
        self.cache = net.new_cache(self.rows.batch, capacity) if cached else None

    def next_output(self) -> Tensor:
        """(batch, num_tokens) logits, or (batch, dim) the next vector."""
        if self.cache is None:
            mask = None if self.mask is None else F.pad(self.mask, (0, self.rows.length - self.prompt), value=True)
            read = of_places(self.read, 0, self.rows.length)
            return self.net(self.rows.since(0), mask=mask, last_only=True, **read)[:, -1]
        while self.seen < self.prompt:
            end = min(self.seen + self.piece, self.prompt)
            self._make_space(self.cache, end - self.seen)
            mask = None if self.mask is None else self.mask[:, self.seen : end]
            first = (of_step if self.seen else of_places)(self.read, self.seen, end)
            out = self.net(self.rows.since(self.seen, end), mask=mask, cache=self.cache, last_only=True, **first)
            self.seen, self.held = end, self.held + end - self.seen
        if self.seen < self.rows.length:
            self._make_space(self.cache, 1)
            read = of_step(self.read, self.seen, self.rows.length)
            out = self.step(self.rows.since(self.seen), cache=self.cache, **read)
            self.seen, self.held = self.seen + 1, self.held + 1
        return out[:, -1]

    def _make_space(self, cache: Cache, new: int) -> None:
        """Let the cache forget what no block attends to, where `new` more tokens would not fit."""
        if self.held + new > cache.max_len:
            places = (self.held - self.window) // 2 * 2
            cache.forget(places)
            self.held -= places

    def append(self, token: Tensor) -> None:
        """token: (batch,), or a vector (batch, dim)."""
        self.rows.append(token)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (n,) int."""
        self.rows.select(rows)
        self.mask, self.read = selected(self.mask, rows), {name: t[rows] for name, t in self.read.items()}
        self.cache = None if self.cache is None else self.cache.reorder(rows)


def selected(t: Tensor | None, rows: Tensor) -> Tensor | None:
    """These rows of a tensor with a batch axis in front."""
    return None if t is None else t.index_select(0, rows)


def decoding_of(
    net: SequenceModel, prompts: Prompts, new: int, cached: bool, compiled: bool, read: Mapping[str, Any]
) -> WindowDecoding | RollingDecoding:
    """The decoding of a model without memories; the arguments are those of `WindowDecoding`."""
    in_front = net.num_memory_tokens or "prepend_embeds" in read  # which stays in front of a window
    rolls = not in_front and why_not_rolling(net.graph) is None
    return (RollingDecoding if rolls else WindowDecoding)(net, prompts, new, cached, compiled, read)


def compiled_step(net: SequenceModel) -> Callable[..., Tensor]:
    """`net(token, cache=cache, **read)`, compiled once for all caches of one shape.

    It is one graph, but without `fullgraph`: past torch's limit of compiled shapes it runs uncompiled.
    """
    on_gpu = any(parameter.is_cuda for parameter in net.parameters())
    step = torch.compile(net, dynamic=False, mode="reduce-overhead" if on_gpu else None)
    return lambda token, cache, **read: step(token, cache=cache.fix_shapes(), **read)


def capacity_for(tokens: int, most: int | None, compiled: bool) -> int:
    """Capacity of a cache for `tokens`, at most `most`; compiled, in steps of 128, each a shape to compile for."""
    capacity = -(-tokens // 128) * 128 if compiled else tokens
    return capacity if most is None else min(most, capacity)
