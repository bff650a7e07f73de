"""Next-token training and generation over segments with memories (Dai et al., arXiv:1901.02860)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.registry.keywords import spells
from blockdsl.registry.options import whole

from ..kernels.cross_entropy import Target
from ..models.inputs import ContextInputs
from ..models.keywords import keywords_of, names_nearest, takes_what
from ..models.transformer import TransformerWrapper, loss_of
from ..runtime.auxiliary import auxiliary_losses
from ..runtime.drawn import Drawn
from .autoregressive import check_causal, shifted
from .beams import BeamSearch
from .decoding import Started, Stream
from .options import Generation, GenerationOptions, split_options
from .prompts import Prompts, PromptTokens, check_read, of_places, of_step, read_prompts
from .steps import Decoding, Rows, compiled_step

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..runtime.cache import Cache
    from ..runtime.memories import Memories


class SegmentOptions(ContextInputs, GenerationOptions, total=False):
    """Further arguments of `XLAutoregressiveWrapper.stream`."""


class XLAutoregressiveWrapper(Drawn, nn.Module):
    """Trains a causal model with memories on long texts, segment by segment, and generates with it.

    A segment has max_seq_len tokens. Each is read with the memories of the earlier ones.

    Args:
        net: the model; its stack is causal, and max_mem_len above 0.
        ignore_index: targets with this value do not count; as input they become pad_value.
        pad_value: what follows a row's eos in generated text.

    Raises:
        TypeError: net is not a model over tokens.
        ValueError: its stack is not causal, it does not have one logit for each of its tokens, it keeps no memories, or
            it has no max_seq_len.
    """

    @names_nearest
    def __init__(self, net: TransformerWrapper, ignore_index: int = -100, pad_value: int = 0) -> None:
        super().__init__()
        check_causal(net)
        if net.max_mem_len == 0:
            raise ValueError("the model keeps no memories: give it max_mem_len= above 0")
        if net.max_seq_len is None:
            raise ValueError("a segment has max_seq_len tokens, and the model has none: give it max_seq_len= above 0")
        self.net = net
        ignore_index, pad_value = whole("ignore_index", ignore_index, None), whole("pad_value", pad_value, None)
        self.ignore_index, self.pad_value = ignore_index, pad_value
        self.max_seq_len: int = net.max_seq_len

    @names_nearest
    @spells(keywords_of(ContextInputs))
    def forward(
        self,
        x: Tensor,
        mems: Memories | None = None,
        mask: Tensor | None = None,
        return_mems: bool = False,
        **inputs: Unpack[ContextInputs],
    ) -> Tensor | tuple[Tensor, Memories]:
        """Mean cross-entropy over all predicted tokens of all segments, in nats; in training with what its blocks add.

        Args:
            x: (batch, seq + 1) tokens, seq at least 1 and of any length; the model sees the first seq and predicts
                the last seq.
            mems: memories of the text before x.
            mask: (batch, seq + 1) bool, True = a real token; padding is neither seen nor predicted, and nothing is
                predicted from it.
            return_mems: return the memories after the last segment too.
            inputs: context, context_mask, for the model's cross-attention, which every segment reads; condition, for
                its adaptive norms, of rows or of the seq tokens.

        Returns:
            the loss, or (loss, memories).
        """
        tokens, target, mask = shifted(x, mask, self.ignore_index, self.pad_value)
        losses, read = [], {"return_mems": True, **inputs}
        with auxiliary_losses() as further:
            for start in range(0, tokens.shape[1], self.max_seq_len):
                segment = slice(start, start + self.max_seq_len)
                seen = None if mask is None else mask[:, segment]
                wanted = Target(target[:, segment], self.ignore_index, "sum")
                own = of_places(read, start, start + self.max_seq_len)
                loss, mems = loss_of(self.net, tokens[:, segment], wanted, mask=seen, mems=mems, **own)
                losses.append(loss)
        mean = further.added_to(torch.stack(losses).sum() / (target != self.ignore_index).sum())
        if not return_mems:
            return mean
        assert mems is not None
        return mean, mems

    @names_nearest
    @spells(keywords_of(ContextInputs, Generation))
    def stream(
        self, prompts: PromptTokens, seq_len: int, *, mems: Memories | None = None, **options: Unpack[SegmentOptions]
    ) -> Stream:
        """The tokens of `generate`, one a step, as `AutoregressiveWrapper.stream` gives them."""
        started = self._start(prompts, seq_len, {**options}, mems=mems)
        return Stream(self.net, started.prompts, started.decoding, started.steps, started.generation, self.pad_value)

    def _start(self, prompts: PromptTokens, seq_len: int, options: Mapping[str, Any], mems: Memories | None) -> Started:
        """The checked arguments of `stream` and `beam_search`."""
        generation, read = split_options(options)
        generation.check(self.net)
        seq_len = whole("seq_len", seq_len)
        rows = read_prompts(prompts)
        if mems is not None and hasattr(self.net, "attn_layers"):
            mems = self.net.attn_layers.memories(mems)
        if rows.ragged and mems is not None:
            raise ValueError("mems are for prompts of one length: generate each length separately")
        check_read(self.net, rows.tokens, read, seq_len)

        def start(prompts: Prompts, read: Mapping[str, Tensor]) -> Decoding:
            cached, compiled = generation.cache_kv, generation.compile
            return SegmentDecoding(self.net, self.max_seq_len, prompts, seq_len, cached, compiled, mems, read)

        decoding = DecodingByLength(rows, read, start) if rows.ragged else start(rows, read)
        return Started(rows, decoding, seq_len, generation)

    @names_nearest
    @takes_what(stream)
    def generate(self, prompts: PromptTokens, seq_len: int, **options: Any) -> Tensor:
        """Tokens after a prompt; both may be longer than a segment.

        Args:
            prompts: (batch, n) tokens, or (n,) for one row, or a list of (n,) of different lengths, each of which
                continues as if it were alone; n at least 1.
            seq_len: number of tokens to add.
            mems: memories of the text before the prompts, which must then have one length.
            context, context_mask: for the model's cross-attention.
            condition: (batch, dim_condition), or (batch, n + seq_len, dim_condition) of each token.
            options: those of sampling, eos_token, cache_kv and compile, as `AutoregressiveWrapper.generate` has them;
                keys and values are those of the current segment.

        Returns:
            (batch, seq_len) new tokens, or (seq_len,); fewer where every row has drawn eos_token.

        Raises:
            ValueError: a prompt is empty, seq_len negative, or an argument of sampling out of its range.
            TypeError: an unknown keyword; the message names the nearest one.
        """
        return self.stream(prompts, seq_len, **options).collect()

    @names_nearest
    @spells(keywords_of(ContextInputs, Generation))
    def beam_search(
        self,
        prompts: PromptTokens,
        seq_len: int,
        beams: int = 4,
        return_beams_and_scores: bool = False,
        *,
        length_penalty: float = 0.0,
        stochastic: bool = False,
        mems: Memories | None = None,
        **options: Unpack[SegmentOptions],
    ) -> Any:
        """The likeliest text that a search finds: as `AutoregressiveWrapper.beam_search`, with the inputs of
        `generate`."""
        started = self._start(prompts, seq_len, {**options}, mems=mems)
        search = BeamSearch(started.generation, beams, length_penalty, stochastic)
        return search.run(self.net, started, self.pad_value, return_beams_and_scores)


class SegmentDecoding:
    """Shows the model the current segment and the memories of those before.

    A full segment is read once more as a whole, which gives its memories and the logits of the next token.

    Args:
        net: the model.
        segment: tokens of one.
        prompts: of one length.
        new: how many tokens will be appended.
        cached: keep keys and values of the segment where the stack can.
        compiled: compile the steps after the first of a segment.
        mems: of the text before the prompts.
        read: further inputs of the model, each time it reads a segment from its start.
    """

    def __init__(
        self,
        net: TransformerWrapper,
        segment: int,
        prompts: Prompts,
        new: int,
        cached: bool,
        compiled: bool,
        mems: Memories | None,
        read: Mapping[str, Tensor],
    ) -> None:
        self.net, self.segment, self.mems, self.read = net, segment, mems, read
        self.rows = Rows(prompts.tokens, new)
        self.step: Callable[..., Tensor] = compiled_step(net) if compiled else net
        self.cached = cached and net.graph.why_not_cached() is None
        self.start = 0  # of the segment
        self.cache: Cache | None = None
        self.seen = 0  # tokens, of all, that the cache holds or the memories have

    def next_output(self) -> Tensor:
        """(batch, num_tokens)"""
        logits: Tensor
        while (end := self.start + self.segment) <= self.rows.length:
            segment = self.rows.since(self.start, end)
            read = of_places(self.read, self.start, end)
            logits, self.mems = self.net(segment, mems=self.mems, return_mems=True, last_only=True, **read)
            self.start, self.seen, self.cache = end, end, None
        if self.start < self.rows.length:
            logits = self._within_segment()
        return logits[:, -1]

    def _within_segment(self) -> Tensor:
        if not self.cached:
            read = of_places(self.read, self.start, self.rows.length)
            return self.net(self.rows.since(self.start), mems=self.mems, last_only=True, **read)
        if self.cache is not None:
            read = of_step(self.read, self.seen, self.rows.length)
            logits = self.step(self.rows.since(self.seen), cache=self.cache, **read)
        else:
            mem_len = 0 if self.mems is None else self.mems.length
            self.cache = self.net.new_cache(self.rows.batch, mem_len + self.segment)
            start = self.rows.since(self.start)
            read = of_places(self.read, self.start, self.rows.length)
            logits = self.net(start, mems=self.mems, cache=self.cache, last_only=True, **read)
        self.seen = self.rows.length
        return logits

    def append(self, token: Tensor) -> None:
        """token: (batch,)"""
        self.rows.append(token)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (n,) int."""
        self.rows.select(rows)
        self.read = {name: t[rows] for name, t in self.read.items()}
        self.mems = None if self.mems is None else self.mems.select(rows)
        self.cache = None if self.cache is None else self.cache.reorder(rows)


class DecodingByLength:
    """Rows of different lengths, each length decoded separately: padding would move where a row's segments end.

    Args:
        prompts: padded on the left.
        read: further inputs of the model, by row.
        start: makes the decoding of prompts of one length and of what is read with them.
    """

    def __init__(
        self,
        prompts: Prompts,
        read: Mapping[str, Tensor],
        start: Callable[[Prompts, Mapping[str, Tensor]], Decoding],
    ) -> None:
        assert prompts.mask is not None
        lengths = prompts.mask.sum(dim=1)
        by_length = {n: (lengths == n).nonzero()[:, 0] for n in sorted(set(lengths.tolist()))}
        self.rows = [*by_length.values()]
        self.parts = [
            start(Prompts(prompts.tokens[rows, -n:]), _of_rows(read, rows, prompts.tokens.shape[1] - n))
            for n, rows in by_length.items()
        ]
        self.order = torch.cat(self.rows).argsort()

    def next_output(self) -> Tensor:
        """(batch, num_tokens)"""
        return torch.cat([part.next_output() for part in self.parts])[self.order]

    def append(self, token: Tensor) -> None:
        """token: (batch,)"""
        for rows, part in zip(self.rows, self.parts, strict=True):
            part.append(token[rows])

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (n,) int; each stays in the part of the row it comes from."""
        chosen = [torch.isin(rows, own).nonzero()[:, 0] for own in self.rows]
        for part, own, new in zip(self.parts, self.rows, chosen, strict=True):
            part.select(torch.searchsorted(own, rows[new]))
        self.rows, self.order = chosen, torch.cat(chosen).argsort()


def _of_rows(read: Mapping[str, Tensor], rows: Tensor, padding: int) -> dict[str, Any]:
    """What these rows read, which have so many places of padding."""
    return of_places({name: value[rows] for name, value in read.items()}, padding, None)
