"""Each attention kernel, in each number format, forward and backward, against the formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from xt_blocks.kernels import table
from xt_blocks.kernels.masks import Bias, Masks, MaskSpec
from xt_blocks.kernels.request import AttentionKernel, Request
from xt_blocks.kernels.scores.sparse_topk import TopK
from xt_blocks.kernels.scores.spec import Modifier, ScoreSpec
from xt_blocks.kernels.scores.talking_heads import TalkingHeads
from xt_blocks.positions.relative import RelativeBias

from ..benchmarks.case import Options
from . import written_out
from .check import Check, NotHere
from .precision import held_to
from .written_out import Case, Inputs

CASES: dict[str, Case] = {
    "causal": Case(),
    "all keys": Case(causal=False),
    "other features": Case(features=40, value_features=24),
    "128 features": Case(features=128, value_features=128),
    "after a past": Case(past=90),
    "one query": Case(queries=1, past=699),
    "one query of many keys": Case(queries=1, past=4000, padded=True),
    "padded": Case(padded=True),
    "padded, all keys": Case(padded=True, causal=False),
    "a mask of pairs": Case(pairs=True),
    "memories": Case(memories=3),
    "a window": Case(window=100),
    "a window, memories, padded": Case(window=100, memories=3, padded=True),
    "a bias": Case(bias=True),
    "a bias, all keys": Case(bias=True, causal=False),
    "a bias, a window, memories, a past": Case(bias=True, window=100, memories=3, past=90),
    "talking heads": Case(talking_heads=True),
    "the largest 8": Case(sparse_topk=8),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def checks() -> list[Check]:
    return [
        Check(f"kernel/{name}, {str(dtype).removeprefix('torch.')}", partial(check, name, dtype), 150)
        for name in KERNELS
        for dtype in DTYPES
    ]


def check(name: str, dtype: torch.dtype, options: Options) -> dict[str, Any]:
    """Of each case that the kernel takes: the result, and the gradients of all that learns."""
    out: dict[str, Any] = {}
    failed: list[str] = []
    for title, case in CASES.items():
        case = case.small() if options.quick else case
        drawn = Inputs.drawn(case, options.device).to(dtype)
        try:
            got = passed(partial(KERNELS[name], case), drawn)
        except NotHere:
            continue
        exact = passed(partial(written_out.attention, case), drawn.to(torch.float64))
        plain = passed(partial(written_out.attention, case), drawn)
        try:
            out[title] = held_to(exact, got, plain, dtype)
        except AssertionError as error:
            failed.append(f"{title}: {error}")
    assert not failed, "; ".join(failed)
    if not out:
        raise NotHere("it takes none of the cases here")
    return out


def passed(run: Callable[[Inputs], Tensor], inputs: Inputs) -> dict[str, Tensor]:
    """The result, and gradients by a fixed weighted sum of it."""
    out = run(inputs)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    learned = inputs.learned()
    gradients = torch.autograd.grad(out, [*learned.values()], weights.to(out.device, out.dtype))
    return {"result": out.detach(), **dict(zip(learned, gradients, strict=True))}


def _request(case: Case, inputs: Inputs) -> Request:
    bias = None
    if inputs.bias is not None:
        bias = Bias(("bias",), RelativeBias(inputs.bias, case.queries, case.tokens))
    masks = Masks(case.queries, case.past, inputs.mask, attn_mask=inputs.pairs, device=inputs.q.device)
    mask = masks.tokens(MaskSpec(case.causal, case.window, case.memories), bias)
    topk = () if case.sparse_topk is None else (TopK(case.sparse_topk),)
    return Request(inputs.q, inputs.k, inputs.v, mask, ScoreSpec(case.scale, (*_mix(inputs), *topk)))


def _mix(inputs: Inputs) -> tuple[Modifier, ...]:
    if inputs.before is None:
        return ()
    mix = TalkingHeads(SimpleNamespace(heads=len(inputs.before)))
    for layer, weight in ((mix.before, inputs.before), (mix.after, inputs.after)):
        del layer.weight
        layer.weight = weight  # type: ignore[assignment]  # a leaf, whose gradient is asked for
    made: tuple[Modifier, ...] = mix()
    return made


def _by(kernel: AttentionKernel, case: Case, inputs: Inputs) -> Tensor:
    request = _request(case, inputs)
    if (reason := kernel.supports(request)) is not None:
        raise NotHere(reason)
    return kernel.run(request)[0]


def _chosen(case: Case, inputs: Inputs) -> Tensor:
    return table.attention(_request(case, inputs))[0]


KERNELS = {kernel.name: partial(_by, kernel) for kernel in table.KERNELS} | {"chosen": _chosen}
