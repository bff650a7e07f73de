"""Next-token training and generation around a TransformerWrapper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blockdsl.registry.keywords import spells
from blockdsl.registry.options import real, whole

from ..blocks.subset import random_subset
from ..kernels.cross_entropy import Target
from ..kernels.documents import checked_doc_ids
from ..kernels.masks import check_mask
from ..kernels.tensors import whole_numbers
from ..models.inputs import PlacedInputs, PrefixedInputs
from ..models.keywords import keywords_of, names_nearest, takes_what
from ..models.transformer import TransformerWrapper, loss_of
from ..runtime.auxiliary import auxiliary_losses
from ..runtime.drawn import Drawn
from .beams import BeamSearch
from .decoding import Started, Stream
from .options import Generation, GenerationOptions, split_options
from .prompts import PromptTokens, check_read, read_prompts
from .steps import decoding_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


class WindowOptions(PrefixedInputs, GenerationOptions, total=False):
    """Further arguments of `AutoregressiveWrapper.stream`."""


class AutoregressiveWrapper(Drawn, nn.Module):
    """Trains a causal model on the next token, and generates with it.

    Args:
        net: the model; its stack is causal.
        ignore_index: targets with this value do not count; as input they become pad_value.
        pad_value: what follows a row's eos in generated text.
        mask_prob: in training, the part of each row's tokens that self-attention does not see, drawn anew each
            time and never the first one (forgetful causal masking, arXiv:2210.13432).
        z_loss_weight: in training, factor of log²Z that is added to a token's loss, where Z is the sum of its logits'
            exponentials (PaLM, arXiv:2204.02311).

    Raises:
        TypeError: net is not a model over tokens.
        ValueError: its stack is not causal, it does not have one logit for each of its tokens, or mask_prob is
            not from 0 to below 1, or z_loss_weight negative.
    """

    z_loss_weight = 0.0

    @names_nearest
    def __init__(
        self,
        net: TransformerWrapper,
        ignore_index: int = -100,
        pad_value: int = 0,
        mask_prob: float = 0.0,
        *,
        z_loss_weight: float = 0.0,
    ) -> None:
        super().__init__()
        check_causal(net)
        mask_prob = real("mask_prob", mask_prob, least=0, below=1)
        self.net = net
        ignore_index, pad_value = whole("ignore_index", ignore_index, None), whole("pad_value", pad_value, None)
        self.ignore_index, self.pad_value, self.mask_prob = ignore_index, pad_value, mask_prob
        self.z_loss_weight = real("z_loss_weight", z_loss_weight, least=0)
        self.max_seq_len = net.max_seq_len

    @names_nearest
    @spells(keywords_of(PlacedInputs))
    def forward(self, x: Tensor, mask: Tensor | None = None, **inputs: Unpack[PlacedInputs]) -> Tensor:
        """Mean cross-entropy of each token given those before it, in nats; in training with what its blocks add.

        Args:
            x: (batch, seq + 1) tokens, seq at least 1; the model sees the first seq and predicts the last seq.
            mask: (batch, seq + 1) bool, True = a real token; padding is neither seen nor predicted, and nothing is
                predicted from it.
            inputs: context, context_mask, condition, prepend_embeds, prepend_mask, attn_mask, pos, sum_embeds, as the
                model takes them, of the seq tokens that it sees; from prepended embeddings nothing is predicted. And
                doc_ids or cu_seqlens, of all seq + 1 tokens: nothing is predicted from another document.
        """
        tokens, target, mask = shifted(x, mask, self.ignore_index, self.pad_value)
        read: dict[str, Any] = {**inputs}
        doc_ids = checked_doc_ids(read.pop("doc_ids", None), read.pop("cu_seqlens", None), x)
        begins = None
        if doc_ids is not None:
            begins = doc_ids[:, 1:] != doc_ids[:, :-1]
            target, read["doc_ids"] = target.masked_fill(begins, self.ignore_index), doc_ids[:, :-1]
        if self.training and self.mask_prob > 0:
            read["self_attn_context_mask"] = forgetful_mask(tokens, mask, self.mask_prob, begins)
        with auxiliary_losses() as further:
            loss: Tensor = loss_of(self.net, tokens, self._wanted(target), mask=mask, **read)
        return further.added_to(loss)

    def _wanted(self, target: Tensor) -> Target:
        return Target(target, self.ignore_index, z_loss=self.z_loss_weight if self.training else 0.0)

    @names_nearest
    @spells(keywords_of(PrefixedInputs, Generation))
    def stream(
        self, prompts: PromptTokens, seq_len: int, *, mask: Tensor | None = None, **options: Unpack[WindowOptions]
    ) -> Stream:
        """The tokens of `generate`, one a step, each as soon as it is drawn; the arguments are the same.

        They are checked when this is called. The model is in evaluation mode, and without gradients, only while it
        makes a token: between two tokens its modes are the caller's, who may change them. Its weights may not
        change meanwhile, since the cache holds what they gave.

        Returns:
            an iterator of (batch,) int64 tokens, of one row too; seq_len of them, or fewer where every row ends.
        """
        started = self._start(prompts, seq_len, {**options}, mask=mask)
        return Stream(self.net, started.prompts, started.decoding, started.steps, started.generation, self.pad_value)

    def _start(self, prompts: PromptTokens, seq_len: int, options: Mapping[str, Any], mask: Tensor | None) -> Started:
        """The checked arguments of `stream` and `beam_search`."""
        generation, read = split_options(options)
        generation.check(self.net)
        seq_len = whole("seq_len", seq_len)
        rows = read_prompts(prompts, mask)
        check_read(self.net, rows.tokens, read, seq_len)
        decoding = decoding_of(self.net, rows, seq_len, generation.cache_kv, generation.compile, read)
        return Started(rows, decoding, seq_len, generation)

    @names_nearest
    @takes_what(stream)
    def generate(self, prompts: PromptTokens, seq_len: int, **options: Any) -> Tensor:
        """Tokens that go on from a prompt.

        Past max_seq_len the window slides: the model sees the last max_seq_len tokens, as it was trained to, and reads
        them anew for each token. One of any length sees all. So does one whose blocks keep windows or states of
        constant size and whose positions are relative, from a cache that does not grow.

        Args:
            prompts: (batch, n) tokens, or (n,) for one row, or a list of (n,) of different lengths, each of which
                goes on as if it were alone; n at least 1.
            seq_len: how many tokens to add.
            mask: (batch, n) bool, True = a real token; rows of different lengths are padded on the left.
            context, context_mask: for the model's cross-attention.
            condition: (batch, dim_condition), or (batch, n + seq_len, dim_condition) of each token.
            prepend_embeds: (batch, p, emb_dim) in front of the tokens, and of the window when it slides.
            prepend_mask: (batch, p) bool.
            options: temperature=1., top_k, top_p, top_a, min_p, filter_logits_fn, suppress_tokens, generator, as
                `sampling.Sampler` has them, and eos_token, begin_suppress_tokens, forced_tokens, cache_kv=True,
                compile=False, as `decoding.Generation` has them.

        Returns:
            (batch, seq_len) new tokens, or (seq_len,); fewer where every row has drawn eos_token.

        Raises:
            ValueError: a prompt is empty, seq_len negative, a mask of another shape or padded on the right, or
                an argument of sampling out of its range.
            TypeError: an unknown keyword; the message names the nearest one.
        """
        return self.stream(prompts, seq_len, **options).collect()

    @names_nearest
    @spells(keywords_of(PrefixedInputs, Generation))
    def beam_search(
        self,
        prompts: PromptTokens,
        seq_len: int,
        beams: int = 4,
        return_beams_and_scores: bool = False,
        *,
        length_penalty: float = 0.0,
        stochastic: bool = False,
        mask: Tensor | None = None,
        **options: Unpack[WindowOptions],
    ) -> Any:
        """The likeliest text that a search over several at once finds; `beams.BeamSearch` has its arguments.

        Args:
            prompts, seq_len, mask: as of `generate`.
            beams: how many texts go on at once. As many as there are texts: it finds the likeliest one.
            return_beams_and_scores: return all of them, best first, and their scores.
            length_penalty: texts are ranked by log-probability / length^length_penalty.
            stochastic: each beam goes on with tokens that are drawn; temperature, top_k and the like are for it alone.
            options: the others of `generate`. A text that ends with eos_token is kept, and competes with the others.
                Filters and suppressed tokens say which tokens a text may have, and do not change its score.

        Returns:
            (batch, up to seq_len) tokens, or (up to seq_len,); or all beams, (beams, batch, up to seq_len) or
            (beams, up to seq_len), and the sums of the log-probabilities of their tokens, (beams, batch) or (beams,):
            -inf where there are fewer texts than beams. After its end a text has pad_value. A token that is forced
            counts nothing.

        Raises:
            ValueError, TypeError: as `generate`, or an argument of the search is out of its range.
        """
        started = self._start(prompts, seq_len, {**options}, mask=mask)
        search = BeamSearch(started.generation, beams, length_penalty, stochastic)
        return search.run(self.net, started, self.pad_value, return_beams_and_scores)


def check_causal(net: TransformerWrapper) -> None:
    """Raise unless net is a model over tokens with a logit for each, and no token sees a later one."""
    if not hasattr(net, "num_tokens"):
        raise TypeError(f"net must be a model over tokens, as TransformerWrapper is, not {type(net).__name__}")
    if net.return_only_embed:
        raise ValueError("the model has no logits: return_only_embed is set")
    logits = net.graph.nx.nodes[net.graph.end]["logits_dim"]
    if logits != net.num_tokens:
        raise ValueError(f"logits_dim={logits} gives no logit for each of the {net.num_tokens} tokens: leave it out")
    if reason := net.graph.sees_later():
        raise ValueError(f"the model sees later tokens: {reason}; a Decoder is causal, as is causal=True")


def shifted(x: Tensor, mask: Tensor | None, ignore_index: int, pad_value: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """From `x: (batch, seq + 1)` what the model sees, what it predicts, and the mask of what it sees, (batch, seq)."""
    x = whole_numbers("tokens", x, " (batch, seq + 1)")
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"tokens must be (batch, 2 or more), one to see and one to predict, not {tuple(x.shape)}")
    tokens, target = x[:, :-1], x[:, 1:].long()
    tokens = tokens.masked_fill(tokens == ignore_index, pad_value)
    if mask is None:
        return tokens, target, None
    check_mask("mask", mask, x)
    return tokens, target.masked_fill(~(mask[:, :-1] & mask[:, 1:]), ignore_index), mask[:, :-1]


def forgetful_mask(tokens: Tensor, mask: Tensor | None, mask_prob: float, begins: Tensor | None = None) -> Tensor:
    """(batch, seq) bool, False at int(n · mask_prob) random ones of each row's n real tokens, never at the first.

    Args:
        begins: (batch, seq) bool, whether the token after each is the first of another document.
    """
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    may_hide = real & (real.cumsum(dim=1) > 1)
    if begins is not None:
        may_hide[:, 1:] &= ~begins[:, :-1]
    how_many = torch.tensor(
        [int(n * mask_prob) for n in range(tokens.shape[1] + 1)], device=tokens.device, dtype=torch.int64
    )
    return ~random_subset(may_hide, how_many[real.sum(dim=1)])
