"""What training does beside its kernels: activation checkpointing, the loss by parts, memory, and the command itself."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper
from xt_blocks.kernels.cross_entropy import Target

from ..benchmarks.case import Options
from .check import Check, NotHere
from .compiling import graphs
from .memory import taken
from .precision import PRECISIONS, Precision, held_to

NEEDED = ("safetensors", "numpy", "tqdm", "matplotlib")
"""Packages that the command imports, and the rest of the library does not."""
LENGTHS = (600, 700, 800, 520, 1000, 640, 900, 768, 1024, 555, 1111, 1300)
LONG = 8192
FLAT = {
    "plain": {},
    "alibi": {"alibi_pos_bias": True},
    "learned alibi": {"alibi_pos_bias": True, "alibi_learned": True},
    "t5": {"rel_pos_bias": True},
    "window": {"attn_max_attend_past": 256},
    "memory-kv": {"attn_num_mem_kv": 16},
}
"""Options with which no tensor of every pair of tokens may be held."""


def checks() -> list[Check]:
    return [
        *(Check(f"loss/{own.name}", partial(loss_by_parts, own)) for own in PRECISIONS.values()),
        *(Check(f"checkpoint/{part}", partial(checkpointed, part)) for part in ("block", "stage")),
        Check("train/blockdsl train", command, 150),
        *(Check(f"memory/{name}", partial(flat, name), 90, later=True) for name in FLAT),
        Check("memory/many lengths", lengths, 150, later=True),
    ]


def loss_by_parts(precision: Precision, options: Options) -> dict[str, Any]:
    """`Target.of_linear` and its gradients are those of logits; on a GPU it holds less than half of them."""
    batch, seq, dim, classes = (2, 64, 8, 2**14) if options.quick else (4, 2048, 256, 2**14)
    dtype, device = precision.weights, options.device
    made = [own.to(device, dtype) for own in (torch.randn(batch, seq, dim), torch.randn(classes, dim) / dim**0.5)]
    target = Target(torch.randint(classes, (batch, seq)).masked_fill(torch.rand(batch, seq) < 0.2, -100).to(device))

    def results(by: Callable[[Tensor, Tensor], Tensor], autocast: Precision, dtype: torch.dtype) -> dict[str, Tensor]:
        x, weight = (own.to(dtype, copy=True).requires_grad_() for own in made)
        with autocast.autocast(device):
            loss = by(x, weight)
        loss.backward()
        assert x.grad is not None
        assert weight.grad is not None
        return {"loss": loss.detach(), "by x": x.grad, "by weight": weight.grad}

    def by_logits(x: Tensor, weight: Tensor) -> Tensor:
        return target.of_logits(F.linear(x, weight))

    exact = results(by_logits, PRECISIONS["float32"], torch.float64)
    plain = results(by_logits, precision, dtype)
    parts: dict[str, Tensor] = {}
    used = taken(lambda: parts.update(results(target.of_linear, precision, dtype)), device)
    whole = 4 * batch * seq * classes
    assert options.quick or used < whole / 2, f"{used / 2**20:.0f} MB are held, of logits of {whole / 2**20:.0f} MB"
    return held_to(exact, parts, plain, precision.arithmetic)


def decoder(length: int, options: Options, pattern: str = "a f", **settings: Any) -> AutoregressiveWrapper:
    torch.manual_seed(0)
    dim, heads = (32, 2) if options.quick else (512, 8)
    stack = Decoder(pattern=pattern, dim=dim, heads=heads, attn_dim_head=dim // heads, **settings)
    net = TransformerWrapper(num_tokens=64, max_seq_len=length, attn_layers=stack, use_abs_pos_emb=False)
    return AutoregressiveWrapper(net.to(options.device))


def tokens(length: int, options: Options, batch: int = 1) -> Tensor:
    """(batch, length + 1) random ones."""
    return torch.randint(64, (batch, length + 1), generator=torch.Generator().manual_seed(0)).to(options.device)


def checkpointed(part: str, options: Options) -> dict[str, float]:
    """Loss and gradients are those without it, dropout included; on a GPU in less memory."""
    length = 16 if options.quick else 2048
    batch = tokens(length, options, batch=2)
    gradients: list[list[Tensor]] = []
    used: list[int] = []
    dropout = {"attn_dropout": 0.1, "ff_dropout": 0.1}
    for checkpoint in (None, part):
        model = decoder(length, options, "a f | a f | a f | a f", checkpoint=checkpoint, **dropout).train()

        def step(model: AutoregressiveWrapper = model) -> None:
            torch.manual_seed(1)
            loss = model(batch)
            loss.backward()
            gradients.append([loss.detach(), *(own.grad for own in model.parameters() if own.grad is not None)])

        used.append(taken(step, options.device))
    for with_it, without in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-3, atol=float(1e-4 * without.abs().max()))
    assert options.quick or used[1] < 0.7 * used[0] or not used[0], (
        f"{used[1] / 2**20:.0f} MB with it, {used[0] / 2**20:.0f} MB without"
    )
    return {"MB without": used[0] / 2**20, "MB with": used[1] / 2**20}


def flat(name: str, options: Options) -> dict[str, float]:
    """A long training step holds less than the scores of one block would take."""
    length = 32 if options.quick else LONG
    model, batch = decoder(length, options, **FLAT[name]).train(), tokens(length, options)

    def step() -> None:
        with PRECISIONS["autocast"].autocast(options.device):
            model(batch).backward()
        model.zero_grad()

    step()  # what is compiled is compiled here
    used, scores = taken(step, options.device), 2 * 8 * length**2
    assert options.quick or used < scores, (
        f"{used / 2**20:.0f} MB are held; the scores alone take {scores / 2**20:.0f} MB"
    )
    return {"MB": used / 2**20, "MB of scores": scores / 2**20}


def lengths(options: Options) -> dict[str, int]:
    """A step of each of many lengths, one after the other, by what was compiled for the first ones."""
    some = (9, 12, 10) if options.quick else LENGTHS
    model = decoder(max(some), options, alibi_pos_bias=True, alibi_learned=True).train()
    for length in some:
        loss = model(tokens(length, options))
        loss.backward()
        assert loss.isfinite()
    return graphs()


def command(options: Options) -> dict[str, float]:
    """`blockdsl train` learns, goes on where it stopped, and `blockdsl generate` samples from it."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise NotHere(f"{', '.join(missing)} is not installed")
    from xt_blocks.cli import main

    words = random.Random(0).choices(["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"], k=4000)
    dim, steps = (16, 12) if options.quick else (128, 200)
    said = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(io.StringIO()),  # its progress
    ):
        text, run = Path(folder) / "words.txt", Path(folder) / "run"
        text.write_text(" ".join(words))
        flags = ["--pattern", "(a f)*2", "--dim", dim, "--heads", 2, "--seq-len", 32, "--batch", 8, "--lr", 0.01]
        flags += ["--text", text, "--device", options.device, "--steps", steps, "--out", run]
        assert main(["train", *map(str, flags)]) == 0, "train"
        assert main(["train", "--resume", str(run), "--steps", str(steps + 5)]) == 0, "train --resume"
        assert main(["generate", str(run), "--prompt", "the ", "--tokens", "20"]) == 0, "generate"
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bits = [own["val_bits_per_byte"] for own in records if "val_bits_per_byte" in own]
    assert bits[-1] < bits[0] - 0.1, f"it learned nothing: {bits[0]:.2f} bits per byte, then {bits[-1]:.2f}"
    assert "the " in said.getvalue()
    return {"bits before": bits[0], "bits after": bits[-1]}
