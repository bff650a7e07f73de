"""Every attention kernel of the table, in each number format, forward and backward.

It is held to the formula written out. Options that change scores are held to the explicit kernel in float64, so that one
with a new row is checked without a change here.
"""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from blockdsl.reference import telling
from blockdsl.registry.builtin import SELF_ATTENTION
from xt_blocks.kernels import explicit, table
from xt_blocks.kernels.documents import Documents
from xt_blocks.kernels.masks import Bias, Masks, MaskSpec
from xt_blocks.kernels.request import AttentionKernel, Request
from xt_blocks.kernels.scores.spec import ScoreSpec
from xt_blocks.positions.relative import RelativeBias

from ..benchmarks.case import Options
from . import written_out
from .check import Check, NotHere
from .precision import held_to
from .written_out import Case, Inputs

KERNELS: dict[str, AttentionKernel] = {kernel.name: kernel for kernel in table.KERNELS}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MASKS: dict[str, Case] = {
    "causal": Case(),
    "all keys": Case(causal=False),
    "other features": Case(features=40, value_features=24),
    "128 features": Case(features=128, value_features=128),
    "after a past": Case(past=90),
    "one query": Case(queries=1, past=699),
    "one query of many keys": Case(queries=1, past=4000, padded=True),
    "padded": Case(padded=True),
    "padded, all keys": Case(padded=True, causal=False),
    "an attn_mask": Case(attn_mask=True),
    "an attn_mask, all keys": Case(attn_mask=True, causal=False),
    "learned keys": Case(mem_kv=3),
    "a window": Case(window=100),
    "a window both ways, padded": Case(causal=False, window=100, future=64, padded=True),
    "a window, learned keys, padded": Case(window=100, mem_kv=3, padded=True),
    "documents": Case(documents=True),
    "documents, all at once": Case(documents=True, causal=False, window=100, mem_kv=3, padded=True, bias=True),
    "a bias": Case(bias=True),
    "a bias, all keys": Case(bias=True, causal=False),
    "a bias, a window, learned keys, a past": Case(bias=True, window=100, mem_kv=3, past=90),
}
OPTIONS = {option.name: option for option in SELF_ATTENTION.options if option.scores and option.name != "dropout"}
CASES = MASKS | {name: Case(bias=True, mem_kv=3, option=name) for name in OPTIONS}

CHOICE = {
    "causal": "sdpa",
    "all keys": "sdpa",
    "one query": "sdpa",
    "padded": "sdpa",
    "an attn_mask": "sdpa",
    "a window": "flex",
    "documents": "flex",
    "documents, all at once": "flex",
    "a bias": "flex",
    "a bias, a window, learned keys, a past": "flex",
    "softcap": "flex",
    "sink": "flex",
}
"""Which kernel a GPU is to take; in small, it computes these alone."""


def checks() -> list[Check]:
    return [
        Check("kernel/choice", choice),
        *(
            Check(f"kernel/{name}, {title}", partial(check, name, dtype), 150, later=title == "float16")
            for name in KERNELS
            for title, dtype in DTYPES.items()
        ),
    ]


def choice(options: Options) -> dict[str, str]:
    """Which kernel is taken for each case: on a GPU, the one that is meant for it."""
    told = {}
    for title, case in CASES.items():
        asked = Asked.drawn(case, options.device).to(torch.bfloat16)
        told[title] = table.why(asked.request()).splitlines()[0]
    wrong = [f"{title}: {told[title]}" for title, kernel in CHOICE.items() if not told[title].startswith(f"{kernel} ")]
    assert not wrong or torch.device(options.device).type != "cuda", "; ".join(wrong)
    return told


def check(name: str, dtype: torch.dtype, options: Options) -> dict[str, Any]:
    """Of each case that the kernel takes: the result, and the gradients of all that learns."""
    out: dict[str, Any] = {}
    failed, reasons = [], set()
    meant = [title for title, kernel in CHOICE.items() if kernel == name] if options.quick else []
    for title in meant or CASES:
        try:
            out[title] = of_case(KERNELS[name], CASES[title], dtype, options)
        except NotHere as reason:
            reasons.add(str(reason))
        except Exception as error:
            failed.append(f"{title}: {error}")
        torch.compiler.reset()  # the programs of many cases are no sign that one kernel needs too many
    assert not failed, "; ".join(failed)
    if not out:
        raise NotHere("; ".join(sorted(reasons)))
    return out


def of_case(kernel: AttentionKernel, case: Case, dtype: torch.dtype, options: Options) -> dict[str, Any]:
    """
    Raises:
        NotHere: the kernel does not compute it.
    """
    drawn = Asked.drawn(case.small() if options.quick else case, options.device)
    asked = drawn.to(dtype)
    if reason := refused(kernel, asked, options):
        asked = drawn.to(dtype, learns=False)  # some have no gradient
        if refused(kernel, asked, options):
            raise NotHere(reason)
    exact = asked.to(torch.float64, asked.inputs.q.requires_grad)
    got = results(asked, lambda: kernel.run(asked.request())[0])
    return held_to(results(exact, exact.plainly), got, results(asked, asked.plainly), dtype)


def refused(kernel: AttentionKernel, asked: Asked, options: Options) -> str:
    """Why the kernel is not to compute it: it cannot, or it leaves it to others; in small all that can be is computed."""
    request = asked.request()
    return kernel.supports(request) or ("" if options.quick else kernel.declines(request)) or ""


@dataclass(frozen=True)
class Asked:
    """A case with its tensors, and what its option makes of the table's row: a modifier, or a module that gives some."""

    case: Case
    inputs: Inputs
    option: Any = None

    @classmethod
    def drawn(cls, case: Case, device: str) -> Asked:
        option = None
        if case.option is not None:
            row = OPTIONS[case.option]
            settings = {"heads": case.heads, "dim_head": case.features, row.name: telling(row)}
            option = pkgutil.resolve_name(row.scores)(
                SELF_ATTENTION.complete(case.heads * case.features, settings, "a check")
            )
        if isinstance(option, nn.Module):
            option.to(device).eval()
        return cls(case, Inputs.drawn(case, device), option)

    def to(self, dtype: torch.dtype, learns: bool = True) -> Asked:
        option = copy.deepcopy(self.option)
        if isinstance(option, nn.Module):
            option.to(dtype).requires_grad_(learns)
        return replace(self, inputs=self.inputs.to(dtype, learns), option=option)

    def learned(self) -> dict[str, Tensor]:
        """What may have a gradient."""
        return self.inputs.learned() | (
            dict(self.option.named_parameters()) if isinstance(self.option, nn.Module) else {}
        )

    def request(self) -> Request:
        case, inputs = self.case, self.inputs
        bias = None
        if inputs.bias is not None:
            bias = Bias(("bias",), RelativeBias(inputs.bias, case.queries, case.tokens))
        documents = None if inputs.doc_ids is None else Documents.of(inputs.doc_ids)
        given: dict[str, Any] = {"attn_mask": inputs.attn_mask, "device": inputs.q.device, "documents": documents}
        masks = Masks(case.queries, case.past, inputs.mask, **given)
        mask = masks.tokens(MaskSpec(case.causal, case.window, case.mem_kv, future=case.future), bias)
        modifiers = (
            () if self.option is None else self.option() if isinstance(self.option, nn.Module) else (self.option,)
        )
        return Request(inputs.q, inputs.k, inputs.v, mask, ScoreSpec(case.scale, modifiers))

    def plainly(self) -> Tensor:
        """(b, h, i, dv)"""
        if self.case.option is None:
            return written_out.attention(self.case, self.inputs)
        return explicit.KERNEL.run(self.request())[0]


def results(asked: Asked, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The result, and where something learns the gradients by a fixed weighted sum of it."""
    out = run()
    if not out.requires_grad:
        return {"result": out}
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    learned = asked.learned()
    gradients = torch.autograd.grad(out, [*learned.values()], weights.to(out.device, out.dtype))
    return {"result": out.detach(), **dict(zip(learned, gradients, strict=True))}
