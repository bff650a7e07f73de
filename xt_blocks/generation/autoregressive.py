"""Next-token training and generation around a TransformerWrapper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks.subset import random_subset
from ..kernels.cross_entropy import Target
from ..kernels.masks import check_mask
from ..models.keywords import hands_on_to, names_nearest
from ..models.transformer import TransformerWrapper, loss_of
from ..runtime.drawn import Drawn
from .decoding import (
    Stream,
    WindowDecoding,
    check_compiled,
    check_read,
    check_steps,
    collect,
    decode,
    given,
    read_prompts,
)
from .sampling import Sampler


class AutoregressiveWrapper(Drawn, nn.Module):
    """Trains a causal model on the next token, and generates with it.

    Args:
        net: the model; its stack is causal.
        ignore_index: targets with this value do not count; as input they become pad_value.
        pad_value: what follows a row's eos in generated text.
        mask_prob: in training, the part of each row's tokens that self-attention does not see, drawn anew each
            time and never the first one (forgetful causal masking, arXiv:2210.13432).

    Raises:
        TypeError: net is no model over tokens.
        ValueError: its stack is not causal, it has no logits or other ones than its tokens', or mask_prob is not from
            0 to below 1.
    """

    @names_nearest
    def __init__(
        self, net: TransformerWrapper, ignore_index: int = -100, pad_value: int = 0, mask_prob: float = 0.0
    ) -> None:
        super().__init__()
        check_causal(net)
        if not 0 <= mask_prob < 1:
            raise ValueError(f"mask_prob must be from 0 to below 1, not {mask_prob}")
        self.net = net
        self.ignore_index, self.pad_value, self.mask_prob = ignore_index, pad_value, mask_prob
        self.max_seq_len = net.max_seq_len

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        prepend_embeds: Tensor | None = None,
        prepend_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        pos: Tensor | None = None,
        sum_embeds: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy of each token given those before it, in nats.

        Args:
            x: (batch, seq + 1) tokens, seq at least 1; the model sees the first seq and predicts the last seq.
            mask: (batch, seq + 1) bool, True = a real token; padding is neither seen nor predicted, and nothing is
                predicted from it.
            context, context_mask: for the model's cross-attention.
            prepend_embeds: (batch, p, emb_dim) in front of the tokens; from these nothing is predicted.
            prepend_mask: (batch, p) bool.
            attn_mask, pos, sum_embeds: as the model takes them, of the seq tokens that it sees.
        """
        tokens, target, mask = shifted(x, mask, self.ignore_index, self.pad_value)
        read = given(
            context=context,
            context_mask=context_mask,
            prepend_embeds=prepend_embeds,
            prepend_mask=prepend_mask,
            attn_mask=attn_mask,
            pos=pos,
            sum_embeds=sum_embeds,
        )
        if self.training and self.mask_prob > 0:
            read["self_attn_context_mask"] = remembered(tokens, mask, self.mask_prob)
        loss: Tensor = loss_of(self.net, tokens, Target(target, self.ignore_index), mask=mask, **read)
        return loss

    @names_nearest
    @hands_on_to(Sampler)
    def generate(
        self,
        prompts: Tensor | list[Tensor] | tuple[Tensor, ...],
        seq_len: int,
        *,
        eos_token: int | None = None,
        cache_kv: bool = True,
        compile: bool = False,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        prepend_embeds: Tensor | None = None,
        prepend_mask: Tensor | None = None,
        **sampling: Any,
    ) -> Tensor:
        """Tokens that go on from a prompt.

        Past max_seq_len the window slides: the model sees the last max_seq_len tokens, as it was trained to.

        Args:
            prompts: (batch, n) tokens, or (n,) for one row, or a list of (n,) of different lengths, each of which
                goes on as if it were alone; n at least 1.
            seq_len: how many tokens to add.
            eos_token: a row that has generated it is filled up with pad_value; the model runs until all have.
            cache_kv: keep keys and values between steps; the tokens are the same without.
            compile: compile the steps behind the prompt, once for each batch size and for each 128 tokens of length;
                on a GPU they are a CUDA graph.
            mask: (batch, n) bool, True = a real token; rows of different lengths are padded on the left.
            context, context_mask: for the model's cross-attention.
            prepend_embeds: (batch, p, emb_dim) in front of the tokens, and of the window when it slides.
            prepend_mask: (batch, p) bool.
            sampling: temperature=1., top_k, top_p, top_a, min_p, filter_logits_fn, generator, as
                `sampling.Sampler` has them.

        Returns:
            (batch, seq_len) new tokens, or (seq_len,).

        Raises:
            ValueError: a prompt is empty, seq_len negative, a mask of another shape or padded on the right, or
                an argument of sampling out of its range.
            TypeError: an unknown keyword; the message names the nearest one.
        """
        tokens = self.stream(
            prompts,
            seq_len,
            eos_token=eos_token,
            cache_kv=cache_kv,
            compile=compile,
            mask=mask,
            context=context,
            context_mask=context_mask,
            prepend_embeds=prepend_embeds,
            prepend_mask=prepend_mask,
            **sampling,
        )
        return collect(self.net, tokens, read_prompts(prompts, mask), seq_len, self.pad_value)

    @names_nearest
    @hands_on_to(Sampler)
    def stream(
        self,
        prompts: Tensor | list[Tensor] | tuple[Tensor, ...],
        seq_len: int,
        *,
        eos_token: int | None = None,
        cache_kv: bool = True,
        compile: bool = False,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        prepend_embeds: Tensor | None = None,
        prepend_mask: Tensor | None = None,
        **sampling: Any,
    ) -> Iterator[Tensor]:
        """The tokens of `generate`, one a step, each as soon as it is drawn; the arguments are the same.

        They are checked when this is called. The model is in evaluation mode, and without gradients, only while it
        makes a token: between two tokens its modes are the caller's, who may change them. Its weights may not
        change meanwhile, since the cache holds what they gave.

        Returns:
            an iterator of (batch,) int64 tokens, of one row too; seq_len of them, or fewer where every row ends.
        """
        sampler = Sampler(**sampling)
        check_steps(self.net, seq_len, eos_token)
        if compile:
            check_compiled(self.net, cache_kv)
        rows = read_prompts(prompts, mask)
        read = given(
            context=context, context_mask=context_mask, prepend_embeds=prepend_embeds, prepend_mask=prepend_mask
        )
        check_read(self.net, rows.tokens.shape[0], read)
        decoding = WindowDecoding(self.net, rows, seq_len, cache_kv, compile, read)
        steps = decode(decoding, sampler, seq_len, eos_token, self.pad_value)
        return Stream(self.net, steps, sampler.filter_logits_fn is not None)


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
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"tokens must be (batch, 2 or more), one to see and one to predict, not {tuple(x.shape)}")
    tokens, target = x[:, :-1], x[:, 1:].long()
    tokens = tokens.masked_fill(tokens == ignore_index, pad_value)
    if mask is None:
        return tokens, target, None
    check_mask("mask", mask, x)
    return tokens, target.masked_fill(~(mask[:, :-1] & mask[:, 1:]), ignore_index), mask[:, :-1]


def remembered(tokens: Tensor, mask: Tensor | None, mask_prob: float) -> Tensor:
    """(batch, seq) bool, False at int(n · mask_prob) random ones of each row's n real tokens, never at the first."""
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    may_hide = real & (real.cumsum(dim=1) > 1)
    how_many = torch.tensor([int(n * mask_prob) for n in range(tokens.shape[1] + 1)], device=tokens.device)
    return ~random_subset(may_hide, how_many[real.sum(dim=1)])
