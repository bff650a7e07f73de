"""Decoding: prompts of one or several lengths, the input of each step, and the loop over steps.

Owns what is the same for all models over tokens or vectors. A `Decoding` knows what the model reads to predict the next
one, and what is kept between steps.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.graph.state import SLACK, why_not_rolling, widest_window
from blockdsl.registry.options import plain

from ..kernels.hooks import unhooked
from ..kernels.masks import check_mask
from ..kernels.tensors import check_tensor, check_vectors, whole_numbers
from ..models.sequence import SequenceModel
from ..models.transformer import TransformerWrapper
from ..runtime.cache import Cache
from ..runtime.evaluation import evaluating, evaluating_all
from .sampling import Sampler, Sampling, checked_tokens

# Options -----------------------------------------------------------------------------------------------------------

PromptTokens = Tensor | list[Tensor] | tuple[Tensor, ...]
"""(batch, n) tokens, or (n,) for one row, or a list of (n,) of different lengths."""


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


# Prompts -----------------------------------------------------------------------------------------------------------


class Prompts(NamedTuple):
    """Prompts side by side, padded on the left.

    Attributes:
        tokens: (batch, n) int64, or vectors (batch, n, dim).
        mask: (batch, n) bool, True = a real token; None: all are.
        single: whether it was one prompt without a batch axis.
        ragged: whether it was a list of prompts of different lengths.
    """

    tokens: Tensor
    mask: Tensor | None = None
    single: bool = False
    ragged: bool = False


def read_prompts(prompts: PromptTokens, mask: Tensor | None = None) -> Prompts:
    """Prompts from (n,) or (batch, n) tokens with a mask of the same shape, or from a list of (n,) tokens.

    Raises:
        ValueError: a prompt is empty, of another shape or type, or its mask is padded on the right.
        TypeError: neither a tensor nor a list of tensors.
    """
    if isinstance(prompts, (list, tuple)):
        if mask is not None:
            raise ValueError("a list of prompts gets its padding and mask here: give no mask")
        return _side_by_side(prompts)
    if not isinstance(prompts, Tensor):
        raise TypeError(f"prompts must be a tensor or a list of tensors, not {type(prompts).__name__}")
    if prompts.ndim not in (1, 2):
        raise ValueError(f"prompts must be (n,), (batch, n) or a list of (n,), not {tuple(prompts.shape)}")
    prompts = whole_numbers("prompts", prompts)
    single = prompts.ndim == 1
    rows = prompts[None] if single else prompts
    if rows.shape[1] == 0:
        raise ValueError("the prompt is empty: give at least one token")
    if mask is not None:
        check_tensor("mask", mask, rows)
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
            raise TypeError(f"prompts must be a tensor or a list of tensors, not a list of {type(prompt).__name__}")
        if prompt.ndim != 1:
            raise ValueError(f"prompt {i} of the list must be (n,), not {tuple(prompt.shape)}")
        if prompt.shape[0] == 0:
            raise ValueError(f"prompt {i} of the list is empty: give at least one token")
        whole_numbers("prompts", prompt)
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64, device=prompts[0].device)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        tokens[i, longest - len(prompt) :] = prompt
        mask[i, longest - len(prompt) :] = True
    ragged = any(len(prompt) < longest for prompt in prompts)
    return Prompts(tokens, mask if ragged else None, ragged=ragged)


# Inputs besides the tokens ------------------------------------------------------------------------------------------


def check_read(net: TransformerWrapper, prompts: Tensor, read: Mapping[str, Any], new: int) -> None:
    """Raise ValueError if a context or a condition is missing, or an input besides the tokens is wrong.

    Args:
        prompts: (batch, n)
        new: how many tokens are added.
    """
    batch, reads_context = prompts.shape[0], bool(net.graph.nodes("context"))
    if "context" in read and not reads_context:
        raise ValueError("a context is given, but the model has no cross-attention")
    beside = (("context", "context_mask", net.graph.dim_context), ("prepend_embeds", "prepend_mask", net.graph.emb_dim))
    for name, mask_name, dim in beside:
        value = read.get(name)
        if value is None:
            if mask_name in read:
                raise ValueError(f"{mask_name} is given, but no {name}")
            continue
        check_vectors(name, value, prompts)
        if value.ndim != 3 or value.shape[::2] != (batch, dim):
            raise ValueError(f"{name} must be ({batch}, seq, {dim}), not {tuple(value.shape)}")
        check_mask(mask_name, read.get(mask_name), value)
    if reads_context and "context" not in read:
        raise ValueError("the model has cross-attention: give context=")
    _check_condition(net, read.get("condition"), prompts, new)


def _check_condition(net: TransformerWrapper, condition: Tensor | None, prompts: Tensor, new: int) -> None:
    (batch, length), (dim, _) = prompts.shape, net.graph.condition
    if condition is None and dim:
        raise ValueError("the model has norms or layer scales that read a condition: give condition=")
    if condition is None:
        return
    if not dim:
        raise ValueError("a condition is given, but no norm or layer scale of the model reads one")
    check_vectors("condition", condition, prompts)
    wanted = {(batch, dim), (batch, 1, dim), (batch, length + new, dim)}
    if tuple(condition.shape) not in wanted:
        shape = f"({batch}, {dim}), or ({batch}, {length + new}, {dim}) of each token"
        raise ValueError(f"condition must be {shape}, not {tuple(condition.shape)}")


def of_places(read: Mapping[str, Any], start: int, end: int | None) -> dict[str, Any]:
    """What the model reads with the tokens from place `start` to `end`: of a condition of each token, theirs."""
    condition = read.get("condition")
    if condition is None or condition.ndim != 3 or condition.shape[1] == 1:
        return {**read}
    return {**read, "condition": condition[:, start:end]}


def of_step(read: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """Of that, what a cache does not hold and a further step reads anew."""
    condition = of_places(read, start, end).get("condition")
    return {} if condition is read.get("condition") else {"condition": condition}


# Steps -------------------------------------------------------------------------------------------------------------


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


class Started(NamedTuple):
    """What goes on from prompts, for so many steps."""

    prompts: Prompts
    decoding: Decoding
    steps: int
    generation: Generation


# The loop ----------------------------------------------------------------------------------------------------------


def decode(
    decoding: Decoding,
    choose: Callable[[Tensor, int], Tensor],
    steps: int,
    ends: Sequence[int] = (),
    pad_value: int = 0,
) -> Generator[Tensor, None, None]:
    """(batch,) int64 tokens, or (batch, dim) vectors, one per step.

    Ends when all rows have drawn one of the tokens `ends`; after its own, a row has pad_value.

    Args:
        choose: the model's output for the next token, such as (batch, num_tokens) logits, and the step's number, →
            the token (batch,).
    """
    finished: Tensor | None = None
    for step in range(steps):
        token = choose(decoding.next_output(), step)
        decoding.append(token)
        if ends:
            ended = is_one_of(token, ends)
            if finished is not None:
                token, ended = token.masked_fill(finished, pad_value), ended | finished
            finished = ended
        yield token
        if finished is not None and finished.all():
            return


def is_one_of(token: Tensor, ends: Sequence[int]) -> Tensor:
    """Bool of the same shape: which of these tokens are among those that end a row."""
    found = [token == end for end in ends]
    return reduce(operator.or_, found) if found else torch.zeros_like(token, dtype=torch.bool)


@contextmanager
def generating(net: nn.Module, seen: bool) -> Iterator[None]:
    """Evaluation mode, without gradients, around all steps.

    Args:
        seen: a caller's function sees tensors. It may keep one for autograd, as a hook may, which refuses those of
            inference mode.
    """
    alone = not seen and all(map(unhooked, net.modules()))
    with evaluating(net), torch.inference_mode() if alone else nullcontext():
        yield


class Stream:
    """An iterator over the steps of `decode`, each in evaluation mode, without gradients.

    Args:
        net: the model.
        prompts: where it starts.
        decoding: of the model, with these prompts.
        seq_len: how many steps, at most.
        generation: how tokens are drawn; None: the model's output is the next vector.
        pad_value: what follows a row's eos.
    """

    def __init__(
        self,
        net: nn.Module,
        prompts: Prompts,
        decoding: Decoding,
        seq_len: int,
        generation: Generation | None = None,
        pad_value: int = 0,
    ) -> None:
        self._net, self._prompts = net, prompts
        if generation is None:
            self._seen, self._steps = False, decode(decoding, _as_it_is, seq_len)
        else:
            self._seen = generation.filter_logits_fn is not None
            self._steps = decode(decoding, generation.chooser(seq_len), seq_len, generation.ends, pad_value)
        self._modules = [*net.modules()]

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Tensor:
        with evaluating_all(self._modules):
            token = next(self._steps, None)
        if token is None:
            raise StopIteration
        return token

    def close(self) -> None:
        """No more tokens."""
        self._steps.close()

    def collect(self) -> Tensor:
        """All steps side by side, (batch, steps, ...) or (steps, ...): seq_len of them, or fewer if every row ended."""
        with generating(self._net, self._seen):  # once for all steps
            steps = [*self._steps]
        batch, _, *features = self._prompts.tokens.shape
        out = torch.stack(steps, dim=1) if steps else self._prompts.tokens.new_zeros(batch, 0, *features)
        return out[0] if self._prompts.single else out


def _as_it_is(vector: Tensor, step: int) -> Tensor:
    return vector
