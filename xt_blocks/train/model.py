"""From a run's settings to a language model.

Owns what makes a pattern a language model (causal, one stream of tokens), initialisation from the run's
seed, and the check that the model cannot see what it predicts. Leaves the graph to `blockdsl` and its
modules to `xt_blocks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import blockdsl
from blockdsl.errors import UserError

from ..distributed.init import initialised
from ..models.transformer import TransformerWrapper
from ..runtime.evaluation import evaluating
from .settings import TrainSettings

FIXED: dict[str, Any] = {
    "causal": True,
    "context": False,
    "logits_dim": None,
    "return_only_embed": False,
    "max_mem_len": 0,
}
"""Settings a language model has whatever the pattern says, beside the number of tokens."""


def compile_graph(settings: TrainSettings) -> blockdsl.BlockGraph:
    """The block graph of the run's model.

    Raises UserError for a setting that clashes with a language model over the run's tokens, PatternError for the
    pattern's own faults (a block that reads a context among them).
    """
    if blockdsl.parse(settings.pattern).encoder is not None:
        told = "with XTransformer, and over several processes with xt_blocks.distribute"
        raise UserError(f"a run reads one stream of bytes, and this pattern has two; train it in Python, {told}")
    options = dict(settings.options)
    fixed = {**FIXED, "num_tokens": settings.num_tokens}
    for name, value in fixed.items():
        if options.pop(name, value) != value:
            shown = str(value).lower()
            what = "a byte-level language model" if settings.data is None else f"on --data {settings.data}"
            raise UserError(f"training {what} needs {name}={shown}; leave it out")
    longest = options.pop("max_seq_len", None)
    if longest is None:
        longest = settings.seq_len
    if 0 < longest < settings.seq_len:
        raise UserError(f"max_seq_len={longest} is less than --seq-len {settings.seq_len}")
    try:
        graph = blockdsl.compile(
            settings.pattern,
            dim=settings.dim,
            heads=settings.heads,
            max_seq_len=longest,
            **fixed,
            **options,
        )
    except TypeError as error:  # an unknown setting; the message names the nearest one
        raise UserError(f"--set: {error}") from None
    if graph.nodes("condition"):
        told = "train it in Python, where the loss takes condition="
        raise UserError(f"a run reads bytes alone, and norms or layer scales of this pattern read a condition; {told}")
    return graph


def check_fits(graph: blockdsl.BlockGraph) -> None:
    """Raises UserError when the weights, their gradients and AdamW's two moments exceed this machine's memory."""
    needed = 4 * graph.parameters() * torch.float32.itemsize
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # a system that does not say
        return
    if needed > memory:
        raise UserError(
            f"{graph.parameters():,} parameters need {needed / 1e9:,.0f} GB to train; "
            f"this machine has {memory / 1e9:,.0f} GB: take a smaller --dim or pattern"
        )


def build_model(graph: blockdsl.BlockGraph, seed: int) -> TransformerWrapper:
    """Lower `graph`, initialised from `seed`; tokens (batch, seq) int64 -> logits (batch, seq, num_tokens)."""
    model = initialised(graph, seed)
    assert isinstance(model, TransformerWrapper)  # the graph embeds tokens
    return model


def check_lookahead(model: TransformerWrapper, seq_len: int) -> None:
    """Raises UserError when a later byte changes an earlier prediction."""
    with evaluating(model):
        check_logits(model, model.num_tokens, seq_len)


def check_logits(logits_of: Callable[[Tensor], Tensor], num_tokens: int, seq_len: int) -> None:
    """The same of a function from tokens (1, seq) to logits (1, seq, num_tokens).

    A pattern can cause that (`a(causal=false)`, a registered kind); the loss would then go to zero while nothing
    is learned. Tested on the model rather than read from the graph, so that it holds for any kind.
    """
    length = min(seq_len, 64)
    tokens = torch.randint(
        num_tokens, (1, length), device="cpu", dtype=torch.int64, generator=torch.Generator().manual_seed(0)
    )
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % num_tokens
    before, after = logits_of(tokens)[:, :-1], logits_of(changed)[:, :-1]
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-4):
        raise UserError(
            "this pattern lets a position see the bytes after it, which it has to predict "
            "(as a(causal=false) does): there would be nothing to learn"
        )
