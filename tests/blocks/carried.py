"""What every kind that carries a state along the sequence is held to.

    check_state("(conv f)*2", dim=16)

A stack in float64 with random weights gives the same whatever way it is run: in steps and in pieces with a cache, with
padding anywhere as each row alone, with fixed shapes, and in segments; and it has the parameters and the state that its
graph counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl import BlockGraph
from xt_blocks.runtime.intermediates import Intermediates

SEQ = 11
MASKS = {
    "left": torch.arange(SEQ) >= torch.tensor([[0], [4], [7]]),
    "right": torch.arange(SEQ) < torch.tensor([[5], [11], [1]]),
    "holes": torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1], [0] * 5 + [1] * 6, [1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0]])
    == 1,
}


def graph_of(pattern: str, **settings: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **{"dim": 16, "heads": 2, "attn_dim_head": 4, "causal": True, **settings})


def stack_of(graph: BlockGraph, seed: int = 0) -> xt_blocks.Stack:
    """In float64, no parameter at its initial value."""
    torch.manual_seed(seed)
    stack = xt_blocks.lower(graph)
    assert isinstance(stack, xt_blocks.Stack)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return stack.double().eval()


def check_state(pattern: str, **settings: Any) -> None:
    """Every way of running a stack gives what a pass over each row's real tokens gives."""
    graph = graph_of(pattern, **settings)
    stack = stack_of(graph)
    assert sum(p.numel() for p in stack.parameters()) == graph.parameters()
    x = torch.randn(3, SEQ, graph.dim, dtype=torch.float64)
    with torch.no_grad():
        whole = stack(x)
        for cuts in ([1] * SEQ, [4, 1, 6], [SEQ]):
            same(in_steps(stack, x, cuts), whole)
        for mask in MASKS.values():
            padded = stack(x, mask=mask)
            for row in range(3):
                same(padded[row, mask[row]], stack(x[row, mask[row]][None])[0])
            for cuts in ([1] * SEQ, [4, 1, 6]):
                same(in_steps(stack, x, cuts, mask)[mask], padded[mask])
            same(in_segments(stack, x, [4, 1, 6], mask)[mask], padded[mask])
        same(with_fixed_shapes(stack, x, MASKS["left"])[MASKS["left"]], stack(x, mask=MASKS["left"])[MASKS["left"]])
    cache = stack.new_cache(2, SEQ)
    stack.float()(x[:2, :3].float(), cache=cache)
    assert cache.bytes() == graph.kv_cache_bytes(SEQ, batch=2)


def check_flops(graph: BlockGraph, uncounted: float = 0) -> None:
    """Those of a pass over 2 × SEQ tokens within 2% of torch's counter, which leaves out `uncounted`."""
    stack = xt_blocks.lower(graph)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        stack(torch.randn(2, SEQ, graph.dim))
    counted = counter.get_total_flops()
    assert counted > 0
    assert abs(graph.flops(SEQ, batch=2) - uncounted - counted) <= 0.02 * counted


def in_steps(stack: xt_blocks.Stack, x: Tensor, cuts: list[int], mask: Tensor | None = None) -> Tensor:
    cache, out = stack.new_cache(len(x), SEQ), []
    masks = [None] * len(cuts) if mask is None else mask.split(cuts, dim=1)
    for part, seen in zip(x.split(cuts, dim=1), masks, strict=True):
        out.append(stack(part, mask=seen, cache=cache))
    return torch.cat(out, dim=1)


def in_segments(stack: xt_blocks.Stack, x: Tensor, cuts: list[int], mask: Tensor) -> Tensor:
    out, mems = [], None
    for part, seen in zip(x.split(cuts, dim=1), mask.split(cuts, dim=1), strict=True):
        record = Intermediates()
        out.append(stack(part, mems=mems, mask=seen, intermediates=record))
        mems = stack.remember(mems, record, seen, SEQ)
    return torch.cat(out, dim=1)


def with_fixed_shapes(stack: xt_blocks.Stack, x: Tensor, mask: Tensor) -> Tensor:
    cache = stack.new_cache(len(x), SEQ)
    out = [stack(x[:, :8], mask=mask[:, :8], cache=cache)]
    cache.fix_shapes()
    return torch.cat(out + [stack(token, cache=cache) for token in x[:, 8:].split(1, dim=1)], dim=1)


def same(out: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(out, want, rtol=1e-9, atol=1e-9)
