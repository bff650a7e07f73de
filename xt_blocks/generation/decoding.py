"""Decoding: prompts of one or of several lengths, what the model is shown at each step, and the loop over steps.

Owns what is the same for every model over tokens. A `Decoding` knows which tokens the model sees for the next one,
and what is kept between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.hooks import unhooked
from ..kernels.masks import check_mask
from ..models.transformer import TransformerWrapper
from ..runtime.evaluation import evaluating, evaluating_all
from .sampling import Sampler


class Decoding(Protocol):
    """The tokens so far, and the logits of the next."""

    def next_logits(self) -> Tensor:
        """(batch, num_tokens)"""

    def append(self, token: Tensor) -> None:
        """token: (batch,)"""


# Prompts -----------------------------------------------------------------------------------------------------------


class Prompts(NamedTuple):
    """Prompts side by side, padded on the left.

    Attributes:
        tokens: (batch, n) int64.
        mask: (batch, n) bool, True = a real token; None: all are.
        single: they were one prompt without a batch.
        ragged: they were a list with prompts of different lengths.
    """

    tokens: Tensor
    mask: Tensor | None = None
    single: bool = False
    ragged: bool = False


def read_prompts(prompts: Tensor | list[Tensor] | tuple[Tensor, ...], mask: Tensor | None = None) -> Prompts:
    """Of (n,) or (batch, n) tokens with a mask of the same shape, or of a list of (n,) tokens.

    Raises:
        ValueError: a prompt is empty, of another shape or type, or its mask is padded on the right.
        TypeError: neither a tensor nor a list of tensors.
    """
    if isinstance(prompts, (list, tuple)):
        if mask is not None:
            raise ValueError("a list of prompts is padded and masked inside: give no mask")
        return _side_by_side(prompts)
    if not isinstance(prompts, Tensor):
        raise TypeError(f"prompts must be a tensor or a list of tensors, not {type(prompts).__name__}")
    if prompts.ndim not in (1, 2):
        raise ValueError(f"prompts must be (n,), (batch, n) or a list of (n,), not {tuple(prompts.shape)}")
    _check_tokens(prompts)
    single = prompts.ndim == 1
    rows = prompts[None] if single else prompts
    if rows.shape[1] == 0:
        raise ValueError("the prompt is empty: give at least one token")
    if mask is not None:
        mask = mask[None] if mask.ndim == 1 else mask
        check_mask("mask", mask, rows)
        if (mask.any(dim=1) & ~mask[:, -1]).any():
            raise ValueError("the mask hides the end of a prompt: pad shorter prompts on the left")
    return Prompts(rows.long(), mask, single)


def _side_by_side(prompts: list[Tensor] | tuple[Tensor, ...]) -> Prompts:
    if not prompts:
        raise ValueError("the list of prompts is empty: give at least one")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, Tensor):
            raise TypeError(f"prompts must be a tensor or a list of tensors, not of {type(prompt).__name__}")
        if prompt.ndim != 1:
            raise ValueError(f"prompt {i} of the list must be (n,), not {tuple(prompt.shape)}")
        if prompt.shape[0] == 0:
            raise ValueError(f"prompt {i} of the list is empty: give at least one token")
        _check_tokens(prompt)
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64, device=prompts[0].device)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        tokens[i, longest - len(prompt) :] = prompt
        mask[i, longest - len(prompt) :] = True
    ragged = any(len(prompt) < longest for prompt in prompts)
    return Prompts(tokens, mask if ragged else None, ragged=ragged)


def _check_tokens(tokens: Tensor) -> None:
    if tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"prompts must be int64 or int32, not {tokens.dtype}")


# What is read beside them ------------------------------------------------------------------------------------------


def given(**arguments: Tensor | None) -> dict[str, Tensor]:
    """Those of the arguments that are there."""
    return {name: value for name, value in arguments.items() if value is not None}


def check_read(net: TransformerWrapper, batch: int, read: dict[str, Tensor]) -> None:
    """Raise ValueError where the model lacks a context, or what is read beside the tokens is not as it must be."""
    reads_context = bool(net.graph.nodes("context"))
    if "context" in read and not reads_context:
        raise ValueError("a context is given, but the model has no cross-attention")
    beside = (("context", "context_mask", net.graph.dim), ("prepend_embeds", "prepend_mask", net.graph.emb_dim))
    for name, mask_name, dim in beside:
        value = read.get(name)
        if value is None:
            if mask_name in read:
                raise ValueError(f"{mask_name} is given, but no {name}")
        elif value.ndim != 3 or value.shape[::2] != (batch, dim):
            raise ValueError(f"{name} must be ({batch}, seq, {dim}), not {tuple(value.shape)}")
        check_mask(mask_name, read.get(mask_name), value)
    if reads_context and "context" not in read:
        raise ValueError("the model has cross-attention: give context=")


# Steps -------------------------------------------------------------------------------------------------------------


class Tokens:
    """(batch, length) tokens in room for `new` more behind a prompt."""

    def __init__(self, prompt: Tensor, new: int) -> None:
        self._room = torch.cat((prompt, prompt.new_zeros(prompt.shape[0], new)), dim=1)
        self.batch, self.length, self.room = prompt.shape[0], prompt.shape[1], self._room.shape[1]

    def append(self, token: Tensor) -> None:
        self._room[:, self.length] = token
        self.length += 1

    def since(self, start: int, end: int | None = None) -> Tensor:
        """(batch, tokens) from place `start` on, to the last one or up to place `end`."""
        return self._room[:, start : self.length if end is None else end]


class WindowDecoding:
    """Shows the model the last max_seq_len tokens; with a cache only while that is all of them.

    Once the window slides, every token's value changes with the one that left, and no cached one is exact.

    Args:
        net: the model.
        prompts: as they were read.
        new: how many tokens will be appended.
        cached: keep keys and values where the stack can.
        compiled: compile the steps behind the prompt.
        read: what else the model is given, each time it reads the tokens from the first one on.
    """

    def __init__(
        self,
        net: TransformerWrapper,
        prompts: Prompts,
        new: int,
        cached: bool,
        compiled: bool,
        read: dict[str, Tensor],
    ) -> None:
        self.net, self.read = net, read
        self.step: Callable[..., Tensor] = compiled_step(net) if compiled else net
        self.tokens, self.mask = Tokens(prompts.tokens, new), None
        if prompts.mask is not None:
            self.mask = F.pad(prompts.mask, (0, new), value=True)
        self.cache, self.seen = None, 0
        if cached and self.tokens.length <= net.max_seq_len and net.graph.why_not_cached() is None:
            prepended = {"prepended": read["prepend_embeds"].shape[1]} if "prepend_embeds" in read else {}
            room = room_for(self.tokens.room, net.max_seq_len, compiled)
            self.cache = net.new_cache(self.tokens.batch, room, **prepended)

    def next_logits(self) -> Tensor:
        """(batch, num_tokens)"""
        if self.tokens.length > self.net.max_seq_len:
            self.cache, self.seen = None, 0
        if self.seen:
            logits = self.step(self.tokens.since(self.seen), cache=self.cache)
        else:
            start = max(0, self.tokens.length - self.net.max_seq_len)
            mask = {} if self.mask is None else {"mask": self.mask[:, start : self.tokens.length]}
            logits = self.net(self.tokens.since(start), cache=self.cache, last_only=True, **mask, **self.read)
        if self.cache is not None:
            self.seen = self.tokens.length
        return logits[:, -1]

    def append(self, token: Tensor) -> None:
        """token: (batch,)"""
        self.tokens.append(token)


def compiled_step(net: TransformerWrapper) -> Callable[..., Tensor]:
    """`net(token, cache=cache)` behind what a cache holds, compiled once for all caches of one shape.

    It is one graph. `fullgraph` is not asked for: beyond the number of shapes that torch compiles, it runs uncompiled.
    """
    on_gpu = any(parameter.is_cuda for parameter in net.parameters())
    step = torch.compile(net, dynamic=False, mode="reduce-overhead" if on_gpu else None)
    return lambda token, cache: step(token, cache=cache.fix_shapes())


def check_compiled(net: TransformerWrapper, cached: bool) -> None:
    """Raise ValueError where there are no steps behind a cache to compile."""
    if not cached:
        raise ValueError("compile is set, but cache_kv is off: what is compiled is a step with a cache")
    if reason := net.graph.why_not_cached():
        raise ValueError(f"compile is set, but no cache can be kept: {reason}")


def room_for(tokens: int, most: int, compiled: bool) -> int:
    """Of a cache for so many tokens, at most so many; in steps of 128 where each is a shape to compile for."""
    return min(most, -(-tokens // 128) * 128 if compiled else tokens)


# The loop ----------------------------------------------------------------------------------------------------------


class Stream:
    """An iterator over the tokens of `steps`, for whose time the model is in evaluation mode, without gradients.

    Attributes:
        steps: to be gone through by who sees to that himself.
        filtered: a filter of the caller's reads the logits.
    """

    def __init__(self, net: nn.Module, steps: Generator[Tensor, None, None], filtered: bool = False) -> None:
        self.steps, self.filtered = steps, filtered
        self._modules = [*net.modules()]

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Tensor:
        with evaluating_all(self._modules):
            token = next(self.steps, None)
        if token is None:
            raise StopIteration
        return token

    def close(self) -> None:
        """No more tokens."""
        self.steps.close()


def decode(
    decoding: Decoding, sampler: Sampler, steps: int, eos_token: int | None, pad_value: int
) -> Generator[Tensor, None, None]:
    """(batch,) int64 tokens, one a step, until all rows have drawn eos_token; a row has pad_value behind its own."""
    finished: Tensor | None = None
    for _ in range(steps):
        token = sampler(decoding.next_logits())
        decoding.append(token)
        if eos_token is not None:
            ended = token == eos_token
            if finished is not None:
                token, ended = token.masked_fill(finished, pad_value), ended | finished
            finished = ended
        yield token
        if finished is not None and finished.all():
            return


def check_length(seq_len: int) -> None:
    """Raise ValueError unless seq_len is a number of steps."""
    if isinstance(seq_len, bool) or not hasattr(seq_len, "__index__") or seq_len < 0:
        raise ValueError(f"seq_len must be at least 0, a whole number, not {seq_len}")


def check_steps(net: TransformerWrapper, seq_len: int, eos_token: int | None) -> None:
    """Raise ValueError unless seq_len is a number of tokens and eos_token one of the model's."""
    check_length(seq_len)
    if eos_token is not None and not (hasattr(eos_token, "__index__") and 0 <= eos_token < net.num_tokens):
        raise ValueError(f"eos_token must be a token, from 0 to {net.num_tokens - 1}, not {eos_token}")


def collect(net: nn.Module, stream: Iterator[Tensor], prompts: Prompts, seq_len: int, pad_value: int) -> Tensor:
    """The steps of a stream side by side, (batch, seq_len) or (seq_len,); pad_value where they ended early."""
    steps, alone = stream, False
    if isinstance(stream, Stream):  # who sees a tensor may keep it for autograd, which takes none of inference mode
        steps, alone = stream.steps, not stream.filtered and all(map(unhooked, net.modules()))
    with evaluating(net), torch.inference_mode() if alone else nullcontext():  # once for all steps
        tokens = [*steps]
    out = prompts.tokens.new_full((prompts.tokens.shape[0], seq_len), pad_value)
    if tokens:
        out[:, : len(tokens)] = torch.stack(tokens, dim=1)
    return out[0] if prompts.single else out
