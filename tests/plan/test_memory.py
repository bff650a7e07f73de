"""What the plan says that is saved, against what torch saves, and against what is alive during a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import blockdsl
import xt_blocks
from blockdsl import BlockGraph
from blockdsl.plan import memory
from blockdsl.plan.memory import CHECKPOINTING, Activations, Checkpointing, StageMemory
from blockdsl.plan.stages import stages
from blockdsl.registry.kinds import kind_of
from blockdsl.registry.norms import norms_of

from .allocated import Allocated, FusedNorm, saved_bytes

ROWS, TOKENS, DIM = 2, 128, 32
SIZES = {"dim": DIM, "heads": 4, "attn_dim_head": 8, "causal": True}

# What test_saved, which walks the options, leaves to combinations.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "glu": ("f*3", {"ff_glu": True, "ff_swish": True, "ff_no_bias": True}),
    "shared heads, rotary": ("a*3", {"attn_kv_heads": 2, "rotary_pos_emb": True}),
    "scores in hand": ("a*3", {"attn_flash": False}),
    "scores in hand, shared heads": ("a*3", {"attn_flash": False, "attn_kv_heads": 2}),
    "scores in hand, rotary": ("a*3", {"attn_flash": False, "rotary_pos_emb": True}),
    "dropped weights": ("a*3", {"attn_dropout": 0.1}),
    "dropped outputs": ("(a f)*2", {"attn_sublayer_dropout": 0.5, "ff_sublayer_dropout": 0.5}),
    "gates by head": ("a*3", {"attn_gate_values": True, "attn_gate_values_headwise": True, "attn_swiglu_values": True}),
    "gates of low rank": (
        "a*3",
        {"attn_gate_values": True, "attn_gate_values_rank": 16, "attn_output_gate": True, "attn_output_gate_rank": 24},
    ),
    "gates of both kinds": ("a*3", {"attn_gate_value_heads": True, "attn_output_gate": True}),
    "experts with glu": ("e*3", {"moe_experts": 4, "moe_glu": True}),
    "short convolution of another width": ("conv(inner=48)*3", {}),
    "mamba-2": ("m(state=6, dim_head=8, chunk=32)*3", {}),
    "mamba-2 in groups": (
        "m(state=6, heads=4, dim_head=8, groups=2, kernel=2, chunk=32)*3",
        {"ssm_gated_norm": "group"},
    ),
    "mamba-2 in one chunk": ("m(state=6, dim_head=8, chunk=128, gated_norm=none)*3", {}),
    "gated linear attention": ("gla(heads=4, dim_head=6, value_dim_head=10)*3", {}),
    "gated linear attention, decay by head": ("gla(heads=4, dim_head=6, decay=head)*3", {}),
    "gated delta net": ("gdn(heads=4, dim_head=6, value_dim_head=10)*3", {}),
    "gated delta net, shared keys": ("gdn(heads=2, value_heads=4, dim_head=6)*3", {}),
    "Kimi delta attention": ("kda(heads=4, dim_head=6, kernel=3)*3", {}),
    "HGRN2 with a lower bound": ("hgrn(heads=4, dim_head=6, lower_bound=0.2)*3", {}),
}


def held(planned: Activations) -> int:
    return planned.streams + planned.held


def memory_of(graph: BlockGraph, tokens: int) -> StageMemory:
    return StageMemory(graph, tokens, tokens)


@pytest.mark.parametrize("name", CASES)
def test_what_a_forward_pass_saves(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, settings = CASES[name]
    monkeypatch.setattr(torch.nn.functional, "rms_norm", FusedNorm.rms_norm)
    graph = blockdsl.compile(text, **(SIZES | settings))
    model = xt_blocks.lower(graph)
    context = {"context": torch.randn(ROWS, TOKENS, DIM, requires_grad=True)} if graph.nodes("context") else {}
    real = saved_bytes(model, torch.randn(ROWS, TOKENS, DIM, requires_grad=True), **context) / 4
    planned = memory_of(graph, TOKENS).saved(stages(graph, 1)[0], True, "none")
    assert planned.unknown == ()
    assert ROWS * held(planned) == pytest.approx(real, rel=0.012)


@pytest.mark.parametrize(
    ("text", "settings", "normed"),
    [
        ("(a f)*2", {"use_rmsnorm": True}, 5 * DIM),
        ("a*2", {"attn_qk_rmsnorm": "head"}, 2 * 2 * DIM),
        ("a*2", {"attn_kv_rank": 16, "attn_q_rank": 8, "rotary_pos_emb": True}, 2 * (16 + 8)),
    ],
)
def test_rmsnorm_saves_more_on_a_cpu(text: str, settings: dict[str, Any], normed: int) -> None:
    """There torch saves what it has normed before the gain, too; elsewhere one number of each token, as counted here."""
    graph = blockdsl.compile(text, **SIZES, **settings)
    real = saved_bytes(xt_blocks.lower(graph), torch.randn(ROWS, TOKENS, DIM, requires_grad=True)) / 4 / ROWS / TOKENS
    planned = held(memory_of(graph, TOKENS).saved(stages(graph, 1)[0], True, "none")) / TOKENS
    assert planned == pytest.approx(real - normed, rel=0.015)


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("(a f)*4", {}),
        ("(a f)*2 | (a f)*2", {"ff_glu": True, "rotary_pos_emb": True}),
        ("(a & f)*3 | f", {"tie_embedding": True}),
    ],
)
def test_what_is_alive_in_a_training_step(text: str, settings: dict[str, Any], checkpointing: Checkpointing) -> None:
    """After the forward pass within 4%; the most at once, without temporaries, within a quarter below."""
    graph = blockdsl.compile(
        text,
        **SIZES | settings,
        num_tokens=50,
        max_seq_len=TOKENS,
        checkpoint=None if checkpointing == "none" else checkpointing,
    )
    model = xt_blocks.AutoregressiveWrapper(xt_blocks.lower(graph)).train()
    tokens = torch.randint(0, 50, (4, TOKENS + 1))
    model(tokens).backward()  # so that gradients are there
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with Allocated([*model.parameters(), *gradients, *model.buffers(), tokens]) as allocated:
        loss = model(tokens)
        after = allocated.now
        loss.backward()
    planned = memory_of(graph, TOKENS).saved(stages(graph, 1)[0], True, checkpointing, logits=True)
    assert 4 * 4 * held(planned) == pytest.approx(after, rel=0.04)
    assert (
        0.75 * allocated.peak
        < 4 * 4 * (held(planned) + planned.working_streams + planned.working)
        < 1.04 * allocated.peak
    )


def test_kinds_that_do_not_say_what_they_save(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = blockdsl.compile("a gdn f", **SIZES)
    monkeypatch.setattr(
        memory, "kind_of", lambda name: replace(kind_of(name), saved=None) if name == "gdn" else kind_of(name)
    )
    planned = memory_of(graph, 8).saved(stages(graph, 1)[0], True, "none")
    assert planned.unknown == ("gated delta net",)
    assert norms_of(graph.block("a0")["options"]).stream is not None


def test_a_bidirectional_block_saves_twice_as_much() -> None:
    graph = blockdsl.compile("conv f", **SIZES | {"causal": False}, bidirectional=True)
    real = saved_bytes(xt_blocks.lower(graph), torch.randn(ROWS, TOKENS, DIM, requires_grad=True)) / 4
    planned = memory_of(graph, TOKENS).saved(stages(graph, 1)[0], True, "none")
    assert ROWS * held(planned) == pytest.approx(real, rel=0.06)
