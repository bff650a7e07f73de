"""Attention's requests over every mask and every option that changes scores, for tests that walk the table."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blockdsl.reference import telling
from blockdsl.registry.builtin import SELF_ATTENTION
from blockdsl.registry.options import Option
from xt_blocks.kernels.documents import Documents
from xt_blocks.kernels.masks import AttentionMask, Bias, Masks, MaskSpec
from xt_blocks.kernels.request import Request
from xt_blocks.kernels.scores.spec import Modifier, ScoreSpec
from xt_blocks.positions.relative import RelativeBias

HEADS, DIM = 3, 16
IN_SOFTMAX = {"sink", "add_zero_kv", "sigmoid", "cog_signed"}
OPTIONS: dict[str, Option] = {option.name: option for option in SELF_ATTENTION.options if option.scores}


@dataclass(frozen=True)
class Case:
    """The tokens of a call, and what hides or biases keys; a query is hidden from all where rows are padded."""

    queries: int = 150
    past: int = 0
    causal: bool = True
    window: int | None = None
    future: int | None = None
    mem_kv: int = 0
    padded: bool = False
    attn_mask: bool = False
    bias: bool = False
    kv_heads: int = HEADS
    documents: bool = False


CASES: dict[str, Case] = {
    "causal": Case(),
    "all keys": Case(causal=False),
    "after a past": Case(past=37),
    "a window": Case(window=20),
    "a window ahead": Case(causal=False, future=20),
    "a window both ways": Case(causal=False, window=20, future=7),
    "both ways, all at once": Case(causal=False, window=70, future=9, past=11, mem_kv=2, padded=True, bias=True),
    "only ahead, one key": Case(causal=False, window=0, future=1),
    "learned keys": Case(mem_kv=3),
    "padded": Case(padded=True),
    "padded, all keys": Case(padded=True, causal=False),
    "an attn_mask": Case(attn_mask=True),
    "a bias": Case(bias=True),
    "a bias, all keys": Case(bias=True, causal=False),
    "all at once": Case(past=11, window=70, mem_kv=2, padded=True, bias=True),
    "one key head": Case(kv_heads=1, padded=True, past=3),
    "documents": Case(documents=True),
    "documents, all at once": Case(causal=False, documents=True, window=70, future=9, mem_kv=2, padded=True, bias=True),
    "one query": Case(queries=1, past=40),
    "one query, one key head": Case(queries=1, past=40, kv_heads=1),
    "one query, one key head, padded, biased": Case(queries=1, past=40, kv_heads=1, padded=True, bias=True, mem_kv=1),
    "one query, padded, biased": Case(queries=1, past=40, padded=True, bias=True, mem_kv=1),
}


def module_of(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """What the row of an option makes, with no parameter where it starts, in evaluation mode."""
    option = OPTIONS[name]
    made = pkgutil.resolve_name(option.scores)(
        SELF_ATTENTION.complete(HEADS * DIM, {"heads": HEADS, "dim_head": DIM, name: telling(option)}, "a test")
    )
    if isinstance(made, nn.Module):
        made.to(dtype).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += 0.5 * torch.randn_like(parameter)
    return made


def modifiers_of(module: Any) -> tuple[Modifier, ...]:
    return module() if isinstance(module, nn.Module) else (module,)


def mask_of(case: Case, dtype: torch.dtype = torch.float64) -> tuple[AttentionMask, list[Tensor]]:
    """The mask, and what is learned in it."""
    tokens = case.past + case.queries
    mask = torch.arange(tokens) >= torch.tensor([[0], [tokens // 3]]) if case.padded else None
    seen = torch.rand(1, HEADS, case.queries, tokens) > 0.5 if case.attn_mask else None
    line = torch.randn(HEADS, case.queries + tokens - 1, dtype=dtype, requires_grad=True)
    bias = Bias(("bias",), RelativeBias(line, case.queries, tokens)) if case.bias else None
    documents = Documents.of((torch.rand(2, case.queries) < 0.05).cumsum(dim=1)) if case.documents else None
    masks = Masks(case.queries, case.past, mask, attn_mask=seen, documents=documents)
    return masks.tokens(MaskSpec(case.causal, case.window, case.mem_kv, future=case.future), bias), [
        line
    ] if case.bias else []


def request_of(case: Case, modules: Any = (), dtype: torch.dtype = torch.float64) -> tuple[Request, list[Tensor]]:
    """A request, and all that has a gradient in it."""

    def drawn(tokens: int, heads: int = HEADS) -> Tensor:
        return torch.randn(2, heads, tokens, DIM, dtype=dtype, requires_grad=True)

    keys = case.mem_kv + case.past + case.queries
    mask, learned = mask_of(case, dtype)
    read = [drawn(case.queries), drawn(keys, case.kv_heads), drawn(keys, case.kv_heads), *learned]
    spec = ScoreSpec(0.7, tuple(modifier for module in modules for modifier in modifiers_of(module)))
    for module in modules:
        read += module.parameters() if isinstance(module, nn.Module) else ()
    return Request(*read[:3], mask, spec), read


def combinations() -> Iterator[tuple[str, ...]]:
    """No option, each, every two, and all, with at most one in the softmax's place."""
    names = [*OPTIONS]
    yield ()
    yield from ((name,) for name in names)
    yield from ((a, b) for i, a in enumerate(names) for b in names[i + 1 :] if not {a, b} <= IN_SOFTMAX)
    yield tuple(name for name in names if name not in {*sorted(IN_SOFTMAX)[1:]})
