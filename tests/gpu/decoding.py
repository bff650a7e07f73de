"""Cached steps against whole passes, and generation, compiled too."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from xt_blocks import AutoregressiveWrapper, TransformerWrapper

from ..benchmarks.case import Options
from .check import Check
from .compiling import graphs
from .options import CHOOSING, KINDS, Sizes, built, drawn
from .precision import PRECISIONS, Precision, held_to

CACHED = (
    "plain",
    "alibi",
    "t5",
    "window",
    "rotary",
    "xpos",
    "memory-kv",
    "grouped-heads",
    "token-shift",
    "talking_heads",
    *(name for name in KINDS if name not in CHOOSING),
)
COMPILED = {"rotary": False, "alibi": False, "window": True, "token-shift": True, "m": True}
"""Whether one may come later: each is compiled anew."""
CLOSE = 4.0
"""How many times the largest rounding error a generated token may be below the likeliest one."""


def checks() -> list[Check]:
    return [
        *(Check(f"cache/{name}", partial(cached, name)) for name in CACHED),
        Check("generate/as it is", partial(generated, "rotary", {})),
        Check("generate/prompts of several lengths", partial(generated, "rotary", {"ragged": True})),
        *(
            Check(f"generate/compiled, {name}", partial(generated, name, {"compile": True}), 150, later)
            for name, later in COMPILED.items()
        ),
        Check(
            "generate/compiled, bfloat16",
            partial(generated, "rotary", {"compile": True}, precision=PRECISIONS["bfloat16"]),
            150,
        ),
        Check("generate/drawn", reproduced),
    ]


def cached(name: str, options: Options) -> dict[str, Any]:
    """Steps of one token after a prompt with padding, growing and of fixed shapes, are the whole pass."""
    sizes = Sizes.of(options)._replace(seq=24)
    tokens = drawn(sizes, options.device)
    mask = torch.arange(sizes.seq, device=options.device) >= torch.tensor([[0], [3]], device=options.device)
    out: dict[str, Any] = {}
    for own in (PRECISIONS[name] for name in ("float32", "bfloat16", "float16", "autocast")):
        net = built(name, sizes, options.device).to(own.weights).eval()
        with torch.no_grad():
            exact = {"logits": copy.deepcopy(net).double()(tokens, mask=mask)[mask]}
            whole = {"logits": _whole(net, tokens, mask, own)[mask]}
            for way in ("growing", "fixed"):
                stepped = {"logits": _stepped(net, tokens, mask, own, way == "fixed")[mask]}
                out[f"{own.name}, {way}"] = held_to(exact, stepped, whole, own.arithmetic)
    return out


def _whole(net: TransformerWrapper, tokens: Tensor, mask: Tensor, precision: Precision) -> Tensor:
    with precision.autocast(tokens.device.type):
        return net(tokens, mask=mask)


def _stepped(net: TransformerWrapper, tokens: Tensor, mask: Tensor, precision: Precision, fixed: bool) -> Tensor:
    batch, seq = tokens.shape
    prompt = seq // 2
    with precision.autocast(tokens.device.type):
        cache = net.new_cache(batch, seq)
        logits = [net(tokens[:, :prompt], mask=mask[:, :prompt], cache=cache)]
        for place in range(prompt, seq):
            cache = cache.fix_shapes() if fixed else cache
            logits.append(net(tokens[:, place : place + 1], cache=cache))
    return torch.cat(logits, dim=1)


def generated(
    name: str, how: dict[str, bool], options: Options, precision: Precision = PRECISIONS["float32"]
) -> dict[str, int]:
    """Each token is the likeliest one after those before it, as float64 has it, but for rounding."""
    new, compiled = 8 if options.quick else 40, how.get("compile", False)
    sizes = Sizes.of(options)._replace(seq=16 + new)
    net = built(name, sizes, options.device).to(precision.weights).eval()
    rows = drawn(sizes._replace(seq=16), options.device)
    prompts = [rows[0], rows[1, 5:]] if how.get("ragged") else rows
    wrapper = AutoregressiveWrapper(net)
    made, again = (wrapper.generate(prompts, new, temperature=0.0, compile=compiled) for _ in range(2))
    counted = graphs()
    assert torch.equal(made, again), "a second call gives other tokens"
    for prompt, more in zip(prompts, made, strict=True):
        text = torch.cat((prompt, more))[None]
        with torch.no_grad():
            exact = copy.deepcopy(net).double()(text)
            rounding = (net(text) - exact).abs().max()
        logits = exact[0, len(prompt) - 1 : -1]
        below = (logits.amax(dim=-1) - logits.gather(-1, more[:, None])[:, 0]).max()
        assert below <= CLOSE * rounding, f"a token is {below:.2g} below the likeliest; rounding is {rounding:.2g}"
    if compiled:
        assert counted["graphs"], "nothing was compiled"
        assert not counted["left out"] or options.device == "cpu", f"steps that are no CUDA graph: {counted}"
    return counted


def reproduced(options: Options) -> None:
    """The same generator draws the same tokens, and another one others."""
    sizes = Sizes.of(options)._replace(seq=40)
    wrapper = AutoregressiveWrapper(built("rotary", sizes, options.device))
    prompt = drawn(sizes._replace(seq=8), options.device)

    def made(seed: int) -> Tensor:
        generator = torch.Generator(options.device).manual_seed(seed)
        return wrapper.generate(prompt, 24, temperature=1.0, top_k=12, top_p=0.95, generator=generator)

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
