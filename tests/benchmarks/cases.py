"""All cases. Each says what is compared; the figures at their side are those that this library is to reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from .case import Case, Goal, Make, StartCase
from .contestants import x_transformers
from .contestants.base import Contestant
from .contestants.hugging_face import GPT2, Llama, Mamba2
from .contestants.loaded import Loaded, LoadedPacked, StaticCache, Theirs
from .contestants.ours import Compiled, Ours, Packed
from .contestants.plain import Plain
from .contestants.x_transformers import XTransformers, fastest, fused
from .setting import Setting
from .snippet import Snippet
from .work import FORWARD, GENERATING, TRAINING, Work

OURS = "ours"
OURS_PACKED = "ours, packed"
WITHOUT = "ours without it"
NOT_COMPILED = "ours, not compiled"
FUSED = "x-transformers, fused"
DEFAULT = "x-transformers"
HUGGING_FACE = "transformers"
STATIC = "transformers, static cache"
PLAIN = "plain torch"

PEERS: dict[str, Make] = {FUSED: fused, DEFAULT: XTransformers, HUGGING_FACE: GPT2, PLAIN: Plain}

# An option, as ours and the peer's Decoder take it.
OPTIONS: dict[str, dict[str, Any]] = {
    "alibi": {"alibi_pos_bias": True},
    "t5": {"rel_pos_bias": True},
    "dynamic": {"dynamic_pos_bias": True},
    "rotary": {"rotary_pos_emb": True},
    "xpos": {"rotary_xpos": True},
    "memory-kv": {"attn_num_mem_kv": 16},
    "qk-norm": {"attn_qk_norm": True},
    "token-shift": {"shift_tokens": 1},
    "sandwich-norm": {"sandwich_norm": True},
    "window": {"attn_max_attend_past": 128},
    "talking-heads": {"attn_talking_heads": True},
    "sparse-topk": {"attn_sparse_topk": 8},
    "residual-attention": {"residual_attn": True},
}
OURS_ALONE = {"xpos": {"rotary_pos_emb": True}}  # the peer turns rotary positions on by itself
THEIRS: dict[str, Make] = {"talking-heads": x_transformers.talking_heads}  # named otherwise there

SHORT, LONG = 512, 2048
OF_PLAIN = {"talking-heads": 0.85, "sparse-topk": 0.92, "residual-attention": 0.85}  # others: 0.95
BIASES = ("alibi", "t5", "dynamic")
OF_PEER_LONG = {"alibi": 1.15, "t5": 2.5, "dynamic": 1.9, "sparse-topk": 2.4, "window": 1.8}

GLU_ROTARY = {"ff_glu": True, "rotary_pos_emb": True}
PACKED_GOALS = {("gpt", 1): 2.1, ("gpt", 16): 2.5, ("glu-rotary", 1): 2.4, ("glu-rotary", 16): 3.5}
PUBLIC_GOALS = {("gpt", 1): 1.4, ("gpt", 16): 1.45, ("glu-rotary", 1): 1.55, ("glu-rotary", 16): 2.1}


def training() -> Iterator[Case]:
    goals = {
        1024: {FUSED: Goal(1.02, 0.9), DEFAULT: Goal(1.5, 0.3)},
        4096: {FUSED: Goal(1.0), DEFAULT: Goal(4.5)},
    }
    for seq in (256, 1024, 4096):
        yield Case(
            f"train/plain-{seq}",
            "a plain decoder",
            TRAINING,
            Setting(seq=seq),
            {OURS: Ours, **PEERS},
            goals.get(seq, {}),
            memory=True,
        )
    yield Case(
        "train/autocast-1024",
        "a plain decoder, bfloat16 arithmetic",
        TRAINING,
        Setting(seq=1024, precision="autocast"),
        {OURS: Ours, FUSED: fused, PLAIN: Plain},
        memory=True,
    )
    yield Case(
        "train/vocabulary-1024",
        "a plain decoder over 20,000 tokens",
        TRAINING,
        Setting(seq=1024, vocabulary=20_000),
        {OURS: Ours, FUSED: fused, HUGGING_FACE: GPT2, PLAIN: Plain},
        memory=True,
    )
    yield compiled_case("train", TRAINING)
    small = {"custom_layers": ("f",), "ff_mult": 1}
    yield Case(
        "train/head-1024",
        "head and loss over 20,000 tokens, after an embedding that does not learn and one small feedforward",
        TRAINING,
        Setting(seq=1024, vocabulary=20_000, depth=1),
        {OURS: head(partial(Ours, **small)), DEFAULT: head(partial(XTransformers, **small))},
        {DEFAULT: Goal(1.05, 0.3)},
        memory=True,
    )


def compiled_case(name: str, work: Work) -> Case:
    """That torch.compile makes nothing slower."""
    return Case(
        f"{name}/compiled-1024",
        "a plain decoder, compiled",
        work,
        Setting(seq=1024),
        {OURS: Compiled, NOT_COMPILED: Ours},
        {NOT_COMPILED: Goal(1.0)},
    )


def head(make: Make) -> Make:
    """With an embedding that takes no gradients, whose matrix is as large as the head's."""

    def made(setting: Setting) -> Contestant:
        contestant = make(setting)
        contestant.net.get_submodule("token_emb").requires_grad_(False)
        return contestant

    return made


def options() -> Iterator[Case]:
    for seq in (SHORT, LONG):
        for name, option in OPTIONS.items():
            yield Case(
                f"option/{name}-{seq}",
                ", ".join(f"{key}={value}" for key, value in option.items()),
                TRAINING,
                Setting(seq=seq),
                {
                    OURS: partial(Ours, **OURS_ALONE.get(name, {}), **option),
                    WITHOUT: Ours,
                    DEFAULT: THEIRS.get(name, partial(fastest, **option)),
                },
                option_goals(name, seq),
                memory=True,
            )


def option_goals(name: str, seq: int) -> dict[str, Goal]:
    if seq == LONG:
        return {DEFAULT: Goal(OF_PEER_LONG.get(name), 0.5 if name in BIASES else None)}
    at_least = None if name in OF_PLAIN else 1.0
    return {WITHOUT: Goal(OF_PLAIN.get(name, 0.95)), DEFAULT: Goal(at_least, 0.65 if name in BIASES else None)}


def state_space() -> Iterator[Case]:
    """Mamba-2 beside attention, at twice the length, and beside transformers' own without its kernels."""
    hybrid = partial(Ours, layer="m f")

    def half(setting: Setting) -> Contestant:
        return hybrid(replace(setting, seq=setting.seq // 2))

    yield Case(
        "state/mamba2-4096",
        "Mamba-2 in place of attention",
        TRAINING,
        Setting(seq=4096),
        {OURS: hybrid, "ours, attention": Ours},
        {"ours, attention": Goal(1.0)},
        memory=True,
    )
    yield Case(
        "state/mamba2-8192",
        "Mamba-2 in place of attention; twice the tokens take at most 2.1 times as long",
        TRAINING,
        Setting(seq=8192),
        {OURS: hybrid, "ours, 4096 tokens": half},
        {"ours, 4096 tokens": Goal(1 / 2.1)},
        memory=True,
    )
    alone: dict[str, Make] = {OURS: partial(Ours, layer="m"), HUGGING_FACE: Mamba2}
    for name, work, setting in (
        ("train", TRAINING, Setting(seq=1024)),
        ("generate", GENERATING, Setting(seq=64, new=64)),
    ):
        yield Case(
            f"state/mamba2-{name}", "Mamba-2 alone", work, setting, alone, {HUGGING_FACE: Goal(1.5)}, memory=True
        )


def forward() -> Iterator[Case]:
    for seq in (1024, 4096):
        yield Case(
            f"forward/plain-{seq}",
            "a plain decoder",
            FORWARD,
            Setting(seq=seq),
            {OURS: Ours, **PEERS},
            {FUSED: Goal(memory=0.5)} if seq == 4096 else {},
            memory=True,
        )
    yield compiled_case("forward", FORWARD)
    windowed = partial(Ours, **OPTIONS["window"])
    yield Case(
        "forward/window-4096",
        "a window of 128 tokens",
        FORWARD,
        Setting(seq=4096),
        {OURS: windowed, "ours, full attention": Ours, DEFAULT: partial(fastest, **OPTIONS["window"])},
        {"ours, full attention": Goal(3.0)},
        memory=True,
    )

    def half(setting: Setting) -> Contestant:
        return windowed(replace(setting, seq=setting.seq // 2))

    yield Case(
        "forward/window-8192",
        "a window of 128 tokens; twice the tokens take at most 2.2 times as long",
        FORWARD,
        Setting(seq=8192),
        {OURS: windowed, "ours, 4096 tokens": half, "ours, full attention": Ours},
        {"ours, 4096 tokens": Goal(1 / 2.2)},
        memory=True,
    )
    yield Case(
        "forward/deep",
        "many small blocks",
        FORWARD,
        Setting(seq=32, dim=64, depth=48, heads=4),
        {OURS: Ours, FUSED: fused, DEFAULT: XTransformers, PLAIN: Plain},
        {FUSED: Goal(1.5), DEFAULT: Goal(1.5)},
        repeats=20,
    )


def generation() -> Iterator[Case]:
    for model, layers, library, by_hand in (
        ("gpt", {}, GPT2, Plain),
        ("glu-rotary", GLU_ROTARY, Llama, partial(Plain, glu_rotary=True)),
    ):
        for batch in (1, 16):
            setting = Setting(seq=16, new=256, batch=batch)
            ours = partial(Ours, **layers)
            peers: dict[str, Make] = {DEFAULT: partial(fastest, **layers), HUGGING_FACE: library, PLAIN: by_hand}
            key = (model, batch)
            yield Case(
                f"generate/{model}-{batch}",
                "the public API as it is",
                GENERATING,
                setting,
                {OURS: ours, **peers},
                {DEFAULT: Goal(PUBLIC_GOALS[key])},
            )
            yield Case(
                f"generate/{model}-{batch}-packed",
                "weights packed for the CPU's kernels",
                GENERATING,
                setting,
                {OURS: partial(Packed, **layers), "ours, not packed": ours, **peers},
                {DEFAULT: Goal(PACKED_GOALS[key]), HUGGING_FACE: Goal(1.8 if layers else None)},
            )
            yield Case(
                f"generate/{model}-{batch}-compiled",
                "the step compiled",
                GENERATING,
                setting,
                {OURS: partial(Compiled, **layers), NOT_COMPILED: ours},
                {NOT_COMPILED: Goal(1.0)},
            )
            low = replace(setting, precision="bfloat16")
            yield Case(
                f"generate/{model}-{batch}-bfloat16",
                "bfloat16 weights, the step compiled",
                GENERATING,
                low,
                {
                    OURS: partial(Compiled, **layers),
                    NOT_COMPILED: ours,
                    OURS_PACKED: partial(Packed, **layers),
                    **peers,
                },
            )


def loaded() -> Iterator[Case]:
    for batch in (1, 16):
        yield Case(
            f"loaded/llama-{batch}",
            "a LLaMA with the weights of transformers",
            GENERATING,
            Setting(seq=64, new=64, batch=batch, vocabulary=32_000, dim=1024, depth=16, heads=16),
            {OURS: LoadedPacked, "ours, not packed": Loaded, STATIC: StaticCache, HUGGING_FACE: Theirs},
            {STATIC: Goal(1.8)},
        )


GPT3 = "dim=12288, heads=96, attn_dim_head=128"
WARM = "import blockdsl; blockdsl.compile('a', dim=8)"


def start() -> Iterator[StartCase]:
    yield StartCase(
        "start/import",
        "import, torch loaded",
        {
            OURS: Snippet("import torch", "import xt_blocks"),
            DEFAULT: Snippet("import torch", "import x_transformers", needs="x_transformers"),
        },
    )
    yield StartCase("start/import-language", "import blockdsl", {OURS: Snippet("", "import blockdsl")})
    yield StartCase(
        "start/check",
        "blockdsl check, the whole process",
        {
            OURS: whole_process(
                "import sys; from xt_blocks.cli import main; sys.exit(main(['check', 'f a f | a*6 f*6 | sandwich(6)']))"
            ),
            "an empty process": whole_process("pass"),
        },
    )
    yield StartCase(
        "start/parse",
        "2,000 blocks, the first in the process",
        {OURS: Snippet("import blockdsl", "blockdsl.parse('(a f)*1000')")},
    )
    yield StartCase(
        "start/compile",
        "20,000 blocks; ten times the blocks take little more than ten times as long",
        {
            OURS: Snippet(WARM, compiled(10_000)),
            "ours, 2,000 blocks": Snippet(WARM, compiled(1_000)),
        },
        {"ours, 2,000 blocks": Goal(0.08)},
    )
    yield StartCase(
        "start/build",
        "2,000 blocks as modules; twice the blocks take little more than twice as long",
        {OURS: built(1_000), "ours, 1,000 blocks": built(500)},
        {"ours, 1,000 blocks": Goal(0.4)},
    )
    yield StartCase(
        "start/gpt3",
        "GPT-3 without its weights",
        {
            OURS: Snippet(
                "import blockdsl, torch, xt_blocks",
                f"with torch.device('meta'): xt_blocks.lower(blockdsl.compile("
                f"'(a f)*96', {GPT3}, causal=True, num_tokens=50257, max_seq_len=2048))",
            ),
            DEFAULT: Snippet(
                "import torch; from x_transformers import TransformerWrapper, Decoder",
                "with torch.device('meta'): TransformerWrapper(num_tokens=50257, max_seq_len=2048, "
                "attn_layers=Decoder(dim=12288, depth=96, heads=96, attn_dim_head=128))",
                needs="x_transformers",
            ),
        },
    )
    yield StartCase(
        "start/count",
        "GPT-3's parameters from its graph",
        {
            OURS: Snippet(
                f"import blockdsl; g = blockdsl.compile('(a f)*96', {GPT3}, num_tokens=50257, max_seq_len=2048)",
                "assert g.parameters() == 175_217_149_009",
            )
        },
    )


def whole_process(script: str) -> Snippet:
    return Snippet("import subprocess, sys", f"subprocess.run([sys.executable, '-c', {script!r}], check=True)")


def compiled(layers: int) -> str:
    return f"blockdsl.compile(blockdsl.parse('(a f)*{layers}', max_blocks=20_000), dim=512, heads=8)"


def built(layers: int) -> Snippet:
    graph = f"blockdsl.compile('(a f)*{layers}', dim=64, heads=4)"
    return Snippet(f"import blockdsl, torch, xt_blocks; g = {graph}", "with torch.device('meta'): xt_blocks.lower(g)")


CASES: dict[str, Case | StartCase] = {
    case.name: case
    for group in (training, options, forward, state_space, generation, loaded, start)
    for case in group()
}
