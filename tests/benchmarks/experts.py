"""Experts beside transformers' Mixtral block, with the same weights: a train step, and a decoding step.

    python -m tests.benchmarks.experts [--device cuda] [--dtype bfloat16] [--dim 512 --inner 1024 --experts 8 --tokens 1024]

All run in one process in turn. `MixtralSparseMoeBlock` computes its experts in two ways: a product of each expert, and
torch's product of groups. Ours is held to theirs before it is timed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xt_blocks import Experts

from .measure import interleaved, ratios, timed

THEIRS = {"transformers, eager": "eager", "transformers, grouped_mm": "grouped_mm"}
OURS = "ours"
GOAL = 1.2


def peers(args: argparse.Namespace, ours: Experts) -> dict[str, nn.Module]:
    """Theirs, each with our weights."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    made = {}
    for name, implementation in THEIRS.items():
        config = MixtralConfig(
            hidden_size=args.dim,
            intermediate_size=args.inner,
            num_local_experts=args.experts,
            num_experts_per_tok=args.top,
        )
        config._experts_implementation = implementation
        block = MixtralSparseMoeBlock(config).to(args.device, args.dtype)
        with torch.no_grad():
            block.gate.weight.copy_(ours.router.weight)
            block.experts.gate_up_proj.copy_(ours.to_hidden.weight)
            block.experts.down_proj.copy_(ours.to_out.weight)
        made[name] = block
    return made


def step(block: nn.Module, x: Tensor) -> Callable[[], None]:
    """Outputs and the gradients of the input and all weights."""
    direction = torch.randn_like(x)

    def once() -> None:
        block.zero_grad(set_to_none=True)
        own = x.detach().requires_grad_()
        torch.autograd.backward(block(own), direction)

    return once


def decode(block: nn.Module, x: Tensor) -> Callable[[], None]:
    def once() -> None:
        with torch.inference_mode():
            block(x)

    return once


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=torch.float32, type=lambda name: getattr(torch, name))
    for name, size in {"dim": 512, "inner": 1024, "experts": 8, "top": 2, "tokens": 1024, "runs": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options: dict[str, Any] = {"glu": True, "gate_first": True, "activation": "silu", "no_bias": True}
    sizes: dict[str, Any] = {"experts": args.experts, "top": args.top, "inner": args.inner, "balance_loss": 0.0}
    ours = Experts(args.dim, **sizes, **options).to(args.device, args.dtype)
    blocks = {OURS: ours, **peers(args, ours)}
    many, one = (torch.randn(1, n, args.dim, device=args.device, dtype=args.dtype) for n in (args.tokens, 1))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if args.dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    for x in (many, one):
        for block in blocks.values():
            torch.testing.assert_close(block(x), ours(x), **tolerance)
    works = {f"a train step of {args.tokens} tokens": (step, many, 1), "a decoding step": (decode, one, 30)}
    for title, (work, x, repeats) in works.items():
        rounds = {name: timed(work(block, x), args.device, repeats) for name, block in blocks.items()}
        seconds = interleaved(rounds, args.runs)
        print(f"{title}, {args.device}, dim {args.dim}, {args.experts} experts of {args.inner}, top {args.top}")
        for name in blocks:
            best, ratio = min(seconds[name]), ratios(seconds[name], seconds[OURS])
            reached = "" if name == OURS else f"  {ratio.median:.2f} times ours ({ratio.low:.2f} to {ratio.high:.2f})"
            print(f"  {name:26}{best * 1e3:9.3f} ms{reached}")
        slowest = min(ratios(seconds[name], seconds[OURS]).median for name in THEIRS)
        print(f"  to reach {GOAL}: {'reached' if slowest >= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
