"""How fast it is, and how much memory it takes, beside x-transformers, transformers and a plain torch model.

The cases are those of `tests.benchmarks` in a GPU's sizes. Each contestant is built, runs once to warm up, and once to be
looked at how much memory it takes; then all take turns. One that runs out of memory is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..benchmarks.case import Case, Entry, Make, Options
from ..benchmarks.cases import (
    DEFAULT,
    FUSED,
    GLU_ROTARY,
    HUGGING_FACE,
    OPTIONS,
    OURS,
    OURS_ALONE,
    PLAIN,
    THEIRS,
    WITHOUT,
)
from ..benchmarks.compare import conditions, timed
from ..benchmarks.contestants.base import Contestant, LeftOut
from ..benchmarks.contestants.hugging_face import GPT2, Llama
from ..benchmarks.contestants.ours import Ours
from ..benchmarks.contestants.plain import Plain
from ..benchmarks.contestants.x_transformers import fastest, fused
from ..benchmarks.result import Result
from ..benchmarks.setting import Setting
from ..benchmarks.work import GENERATING, TRAINING
from .check import Check, described, free
from .compiling import graphs
from .memory import taken

COMPILED = "ours, compiled"
BIG = Setting(vocabulary=32_000, dim=1024, depth=24, heads=16, precision="autocast")
MIDDLE = replace(BIG, vocabulary=256, depth=6, seq=4096, batch=1)
"""For options: what is not fused holds the scores of every block, half a GB each in bfloat16."""
MORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "glu": ({"ff_glu": True}, {"ff_glu": True}),
    "grouped-heads": ({"attn_kv_heads": 2}, {"attn_kv_heads": 2}),
    "softcap": ({"attn_softcap": 50.0}, {"attn_softclamp_logits": True, "attn_logit_softclamp_value": 50.0}),
    "sink": ({"attn_sink": True}, {"attn_head_learned_sink": True}),
}
"""Options that the benchmarks on a CPU do not have, as ours and the peer's Decoder take them."""
ROUNDS = {"train": 5, "option": 5, "generate": 3}


def on_device(make: Make) -> Make:
    """Built where it is used: a large model's first weights are drawn there in no time."""

    def made(setting: Setting) -> Contestant:
        with torch.device(setting.device):
            return make(setting)

    return made


class TrainsCompiled(Ours):
    """Its loss compiled."""

    def __init__(self, setting: Setting, **layers: Any) -> None:
        super().__init__(setting, **layers)
        self.step = torch.compile(self.wrapper)

    def loss(self, tokens: Tensor) -> Tensor:
        return self.step(tokens)


class GeneratesCompiled(Ours):
    """By `generate(compile=True)`."""

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        return self.wrapper.generate(prompt, new, temperature=0.0, compile=True)


def contestants(own: dict[str, Make]) -> dict[str, Make]:
    return {name: on_device(make) for name, make in own.items()}


def training() -> Iterator[Case]:
    gpt: dict[str, Make] = {OURS: Ours, FUSED: fused, HUGGING_FACE: GPT2, PLAIN: Plain}
    for seq, batch in ((4096, 4), (1024, 16), (16384, 1)):
        setting = replace(BIG, seq=seq, batch=batch)
        yield Case(f"train/gpt-{seq}", "a plain decoder", TRAINING, setting, contestants(gpt))
    llama: dict[str, Make] = {
        OURS: partial(Ours, **GLU_ROTARY),
        FUSED: partial(fused, **GLU_ROTARY),
        HUGGING_FACE: Llama,
        PLAIN: partial(Plain, glu_rotary=True),
    }
    title = "rotary positions and a gated feedforward"
    yield Case("train/glu-rotary-4096", title, TRAINING, replace(BIG, seq=4096, batch=4), contestants(llama))


def generation() -> Iterator[Case]:
    ours = partial(Ours, **GLU_ROTARY)
    peers: dict[str, Make] = {
        OURS: ours,
        DEFAULT: partial(fastest, **GLU_ROTARY),
        HUGGING_FACE: Llama,
        PLAIN: partial(Plain, glu_rotary=True),
    }
    for batch in (1, 64):
        setting = replace(BIG, seq=128, new=64, batch=batch, precision="bfloat16")
        yield Case(f"generate/{batch}", "the public API as it is", GENERATING, setting, contestants(peers))
    for batch in (1, 64):
        setting = replace(BIG, seq=128, new=64, batch=batch, precision="bfloat16")
        yield Case(
            f"generate/{batch}-compiled",
            "generate(compile=True), CUDA graphs on a GPU",
            GENERATING,
            setting,
            contestants({COMPILED: partial(GeneratesCompiled, **GLU_ROTARY), OURS: ours}),
        )


def options() -> Iterator[Case]:
    of_benchmarks = {name: (OURS_ALONE.get(name, {}) | own, own) for name, own in OPTIONS.items()}
    for name, (ours, theirs) in (of_benchmarks | MORE).items():
        peer = THEIRS.get(name, partial(fastest, **theirs))
        title = ", ".join(f"{key}={value}" for key, value in ours.items())
        own: dict[str, Make] = {OURS: partial(Ours, **ours), WITHOUT: Ours, DEFAULT: peer}
        yield Case(f"option/{name}-4096", title, TRAINING, MIDDLE, contestants(own))


def compiled() -> Iterator[Case]:
    title = "the loss compiled, and as it is"
    yield Case(
        "train/compiled-4096",
        title,
        TRAINING,
        MIDDLE,
        contestants({COMPILED: TrainsCompiled, OURS: Ours, PLAIN: Plain}),
    )


CASES = {case.name: case for group in (training, generation, options, compiled) for case in group()}


def checks() -> list[Check]:
    """What is compiled takes minutes, and comes later."""
    return [Check(f"speed/{name}", partial(measured, name), 180, later="compiled" in name) for name in CASES]


def measured(name: str, options: Options) -> dict[str, Any]:
    """The benchmark's Result, and what was compiled for it."""
    return {"result": asdict(compared(CASES[name], options)), **graphs()}


def compared(case: Case, options: Options) -> Result:
    """Who cannot take part is left out.

    Raises:
        Exception: what the first contestant, ours, does not get past.
    """
    entries: dict[str, Entry] = {}
    memory: dict[str, int | None] = {}
    left_out: dict[str, str] = {}
    for contestant in case.contestants:
        try:
            entries[contestant], memory[contestant] = prepared(case, contestant, options)
        except LeftOut as reason:
            left_out[contestant] = str(reason)
        except Exception as error:
            if not entries:
                raise
            left_out[contestant] = described(error)
            error.__traceback__ = None  # which holds on to all that its frames hold
            free()
    rounds = 1 if options.quick else ROUNDS[case.name.split("/")[0]]
    rows = [row.with_memory(memory[row.contestant]) for row in timed(case, entries, options, rounds)]
    return Result(case.name, case.title, case.sizes, rows, left_out, conditions(options, rounds))


def prepared(case: Case, contestant: str, options: Options) -> tuple[Entry, int | None]:
    """It, and the bytes that its work takes, once it has been done."""
    entry = case.entry(contestant, options)
    entry.seconds()
    return entry, taken(entry.seconds, options.device) or None
