"""Next-token training and generation around a TransformerWrapper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.masks import check_mask
from ..keywords import names_nearest
from .sampling import sample
from .transformer import TransformerWrapper


class AutoregressiveWrapper(nn.Module):
    """Trains a causal model on the next token, and generates with it.

    Args:
        net: the model; its stack is causal.
        ignore_index: targets with this value do not count; as input they become pad_value.
        pad_value: what follows a row's eos in generated text.

    Raises:
        TypeError: net is no model over tokens.
        ValueError: its stack is not causal.
    """

    @names_nearest
    def __init__(self, net: TransformerWrapper, ignore_index: int = -100, pad_value: int = 0) -> None:
        super().__init__()
        if not hasattr(net, "max_seq_len"):
            raise TypeError(f"net must be a model over tokens, as TransformerWrapper is, not {type(net).__name__}")
        if reason := net.graph.sees_later():
            raise ValueError(f"the model sees later tokens: {reason}; a Decoder is causal, as is causal=True")
        self.net = net
        self.ignore_index, self.pad_value = ignore_index, pad_value
        self.max_seq_len = net.max_seq_len

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy of each token given those before it, in nats.

        Args:
            x: (batch, seq + 1) tokens, seq at least 1; the model sees the first seq and predicts the last seq.
            mask: (batch, seq + 1) bool, True = a real token; padding is neither seen nor predicted, and nothing is
                predicted from it.
            context, context_mask: for the model's cross-attention.
        """
        if x.ndim != 2 or x.shape[1] < 2:
            raise ValueError(f"tokens must be (batch, 2 or more), one to see and one to predict, not {tuple(x.shape)}")
        tokens, target = x[:, :-1], x[:, 1:].long()
        tokens = tokens.masked_fill(tokens == self.ignore_index, self.pad_value)
        if mask is not None:
            if mask.shape != x.shape:
                raise ValueError(f"mask must be {tuple(x.shape)} like the tokens, not {tuple(mask.shape)}")
            target = target.masked_fill(~(mask[:, :-1] & mask[:, 1:]), self.ignore_index)
            mask = mask[:, :-1]
        logits = self.net(tokens, mask=mask, context=context, context_mask=context_mask)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=self.ignore_index)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        seq_len: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        eos_token: int | None = None,
        cache_kv: bool = True,
        generator: torch.Generator | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Tokens that go on from a prompt.

        Past max_seq_len the window slides: the model sees the last max_seq_len tokens, as it was trained to.

        Args:
            prompt: (batch, n) tokens, or (n,) for one row; n at least 1.
            seq_len: how many tokens to add.
            temperature: 0 takes the most likely token.
            top_k, top_p: sample among so many tokens, or so much of the mass (arXiv:1904.09751).
            eos_token: a row that has generated it is filled up with pad_value; the model runs until all have.
            cache_kv: keep keys and values between steps; the tokens are the same without.
            generator: for reproducible sampling.
            mask: (batch, n) bool, True = a real token; rows of different lengths are padded on the left.
            context, context_mask: for the model's cross-attention.

        Returns:
            (batch, seq_len) new tokens, or (seq_len,).

        Raises:
            ValueError: the prompt is empty, seq_len negative, the mask of another shape or padded on the right, or
                an argument of sampling out of its range.
        """
        rows = prompt if prompt.ndim == 2 else prompt[None]
        if rows.shape[1] == 0:
            raise ValueError("the prompt is empty: give at least one token")
        if seq_len < 0:
            raise ValueError(f"seq_len must be at least 0, not {seq_len}")
        if mask is not None:
            mask = mask if mask.ndim == 2 else mask[None]
            check_mask("mask", mask, rows)
            if (mask.any(dim=1) & ~mask[:, -1]).any():
                raise ValueError("the mask hides the end of a prompt: pad shorter prompts on the left")
        was_training = [module for module in self.net.modules() if module.training]
        self.net.eval()
        try:
            read = {"context": context, "context_mask": context_mask}
            decoder = _Decoder(self.net, rows, seq_len, mask, cache_kv, read)
            finished = torch.zeros(rows.shape[0], dtype=torch.bool, device=rows.device)
            for _ in range(seq_len):
                token = sample(decoder.next_logits(), temperature, top_k, top_p, generator)
                token = token.masked_fill(finished, self.pad_value)
                decoder.append(token)
                if eos_token is not None:
                    finished = finished | (token == eos_token)
                    if finished.all():
                        break
        finally:
            for module in was_training:
                module.training = True
        out = decoder.tokens[:, rows.shape[1] :]
        out = F.pad(out, (0, seq_len - out.shape[1]), value=self.pad_value)
        return out if prompt.ndim == 2 else out[0]


class _Decoder:
    """The tokens so far and the logits of the next; with a cache only while everything fits the window."""

    def __init__(
        self,
        net: TransformerWrapper,
        tokens: Tensor,
        new: int,
        mask: Tensor | None,
        cached: bool,
        read: dict[str, Tensor | None],
    ) -> None:
        self.net, self.read = net, read
        self.tokens, self.mask = tokens, mask
        self.window = net.max_seq_len
        self.cache = None
        if cached and tokens.shape[1] <= self.window and net.graph.why_not_cached() is None:
            self.cache = net.new_cache(tokens.shape[0], min(self.window, tokens.shape[1] + new))

    def next_logits(self) -> Tensor:
        """(batch, num_tokens)"""
        if self.cache is not None and self.tokens.shape[1] > self.cache.max_len - self.cache.prefix:
            self.cache = None  # the window slides: every token's value changes with the one that left
        seen = 0 if self.cache is None else self.cache.length - self.cache.prefix
        new = slice(seen or -self.window, None)
        mask = None if self.mask is None else self.mask[:, new]
        # a context is read once: later steps find its keys and values in the cache
        context = {} if seen else self.read
        return self.net(self.tokens[:, new], mask=mask, cache=self.cache, **context)[:, -1]

    def append(self, token: Tensor) -> None:
        self.tokens = torch.cat((self.tokens, token[:, None]), dim=1)
        if self.mask is not None:
            self.mask = F.pad(self.mask, (0, 1), value=True)
