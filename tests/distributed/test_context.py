"""Context parallelism: ranks that have some of each row's tokens give what one process gives, or say why they cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, UserError
from blockdsl.plan.context import why_whole_rows
from blockdsl.reference import Entry, entries
from xt_blocks import AutoregressiveWrapper

from ..properties.models import Model, examples, models
from .context_models import compare

SIZES: dict[str, Any] = {"dim": 16, "heads": 4, "attn_dim_head": 4, "causal": True}
TOKENS: dict[str, Any] = {"num_tokens": 11, "max_seq_len": 16}
SEQ = 8

MASKS = {
    "all real": [[1] * 9, [1] * 9],
    "padding on either side": [[0, 0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0, 0]],
    "holes": [[0, 1, 0, 0, 1, 0, 1, 1, 1], [1, 1, 0, 1, 0, 0, 0, 1, 1]],
    "one token that is predicted": [[1, 1, 0, 0, 0, 0, 0, 0, 0], [0] * 9],
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2", {}),
    "window within a rank": ("(a f)*2", {"attn_max_attend_past": 1, "rotary_pos_emb": True}),
    "windows of several ranks": ("a(max_attend_past=3) ^k f a(kv=k, max_attend_past=5) f a", {"alibi_pos_bias": True}),
    "window, xPos": ("(a f)*2", {"attn_max_attend_past": 3, "rotary_xpos": True}),
    "T5": ("(a f)*2", {"rel_pos_bias": True, "attn_num_mem_kv": 3}),
    "learned ALiBi, dynamic bias": (
        "(a f)*2",
        {"alibi_pos_bias": True, "alibi_learned": True, "dynamic_pos_bias": True},
    ),
    "grouped keys, memory key-values": ("(a f)*2", {"attn_kv_heads": 2, "attn_num_mem_kv": 2, "rotary_pos_emb": True}),
    "shared keys and values": ("(a f)*2", {"attn_shared_kv": True, "attn_qk_norm": True}),
    "keys of another": ("a ^k f a(kv=k) f a(kv=k)", {"attn_kv_heads": 2, "rotary_pos_emb": True}),
    "values of another": ("a ^v f (a(values=v, value_mix=learned) ^v f)*2", {}),
    "value embeddings": ("(a(value_embed=0, value_mix=gains) f)*2", {}),
    "scores of another": ("a ^s f a(scores=s)", {"rel_pos_bias": True}),
    "residual attention": ("(a f)*2", {"residual_attn": True}),
    "latent": ("(a f)*2", {"attn_kv_rank": 6, "attn_q_rank": 5, "rotary_pos_emb": True}),
    "latent, window": ("(a f)*2", {"attn_kv_rank": 6, "attn_max_attend_past": 3, "rotary_pos_emb": True}),
    "forget gate": ("(a f)*2", {"attn_forget_gate": True, "attn_kv_heads": 2}),
    "forget gate, window": ("(a f)*2", {"attn_forget_gate": True, "attn_max_attend_past": 3}),
    "top scores": ("(a f)*2", {"attn_sparse_topk": 2}),
    "talking heads, sink": ("a(talking_heads) f a(sink) f a(add_zero_kv)", {}),
    "attends to an earlier stream": ("a ^u f c(context=u) f", {"rotary_pos_emb": True}),
    "short convolution": ("(conv(kernel=3) f a)*2", {}),
    "convolution over several ranks": (
        "conv(kernel=6, inner=10, bias) f conv(kernel=1) conv>>1",
        {"checkpoint": "block"},
    ),
    "token shift": ("(a f)*2", {"shift_tokens": 1}),
    "token shift of more than a rank has": ("(a>>3 f>>3)*2", {"rotary_pos_emb": True}),
    "experts": ("(a e(experts=4, inner=8, balance_loss=0.1, z_loss=0.1))*2", {}),
    "blocks computed again": ("(a f>>1)*2", {"checkpoint": "block", "rel_pos_bias": True}),
    "stages computed again": ("(a f)*2 | (a & f) a", {"checkpoint": "stage"}),
    "several residual streams": ("(a f)*2", {"num_residual_streams": 3}),
    "ties, reads": ("^u (a f)@t*2 <u(gate) a", {"tie_embedding": True}),
    "dropout": ("(a f)*2", {"attn_dropout": 0.3, "ff_dropout": 0.2, "layer_dropout": 0.3, "emb_dropout": 0.1}),
}


def compiled(pattern: str, **settings: Any) -> BlockGraph:
    sizes = {name: size for name, size in SIZES.items() if name != "causal" or "=>" not in pattern}
    return blockdsl.compile(pattern, **{**sizes, **TOKENS, **settings})


def drawn(rows: int = 2, seq: int = SEQ) -> Tensor:
    return torch.randint(TOKENS["num_tokens"], (rows, seq + 1), generator=torch.Generator().manual_seed(3))


def mask_of(name: str) -> Tensor:
    return torch.tensor(MASKS[name]).bool()


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.distributed), 4])
@pytest.mark.parametrize("name", CASES)
def test_equal_to_one_process(monkeypatch: pytest.MonkeyPatch, name: str, ranks: int) -> None:
    pattern, settings = CASES[name]
    graph = compiled(pattern, **settings)
    assert why_whole_rows(graph) is None
    compare(monkeypatch, graph, ranks, drawn())
    compare(monkeypatch, graph, ranks, drawn(), mask_of("padding on either side"))


@pytest.mark.parametrize("mask", MASKS)
def test_masks(monkeypatch: pytest.MonkeyPatch, mask: str) -> None:
    """A rank may have no real token, none that is predicted, or some that later ones attend to and none of these."""
    graph = compiled(
        "a f>>1 conv(kernel=4) a(max_attend_past=3) e(experts=3, inner=8, balance_loss=0.1)", rel_pos_bias=True
    )
    compare(monkeypatch, graph, 4, drawn(), mask_of(mask))


@pytest.mark.parametrize(("rows", "seq", "ranks"), [(1, 8, 8), (1, 3, 3), (3, 15, 5), (2, 8, 1)])
def test_sizes(monkeypatch: pytest.MonkeyPatch, rows: int, seq: int, ranks: int) -> None:
    graph = compiled("(a f)*2 a(kv_rank=6, max_attend_past=2) f>>2", rotary_pos_emb=True)
    compare(monkeypatch, graph, ranks, drawn(rows, seq))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "state": ("a f>>1 mamba(state=4)", {}, "mamba2 (Mamba) carries a state along each row"),
    "memory tokens": ("a f", {"num_memory_tokens": 2}, "learned tokens are in front of each row"),
    "length": (
        "a f",
        {
            "rotary_pos_emb": True,
            "rotary_scaling": "dynamic",
            "rotary_factor": 2,
            "rotary_original_len": 4,
            "heads": 2,
            "attn_dim_head": 8,
        },
        "its frequencies change with the length",
    ),
    "not causal": ("a f", {"causal": False}, "a0 (self-attention) is not causal"),
    "an encoder": ("a f => a c f", {}, "an encoder with its decoder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_reads_whole_rows_is_refused_in_words(name: str) -> None:
    pattern, settings, words = REFUSED[name]
    graph = compiled(pattern, **settings)
    assert words in str(why_whole_rows(graph))
    with pytest.raises(UserError, match=r"^cp=2: ") as error:
        graph.plan("cp=2", seq_len=SEQ, batch=2)
    assert words in str(error.value)


def small_graph(entry: Entry) -> BlockGraph | None:
    """The entry's example with few features; None: only its own sizes go with it."""
    for without in ((), ("heads", "attn_dim_head"), ("dim",), tuple(TOKENS), ("causal",)):
        sizes = {name: size for name, size in (SIZES | TOKENS).items() if name not in without}
        try:
            return blockdsl.compile(entry.example.replace("*6", "*2"), **sizes)
        except (UserError, TypeError):  # a setting that is not one of two streams
            continue
    return None


def trains(graph: BlockGraph) -> bool:
    """Whether it is a language model over one stream of tokens, which nothing but these go into."""
    if graph.reads != "tokens" or graph.encoder is not None or graph.nodes("condition") or graph.nodes("context"):
        return False
    try:
        AutoregressiveWrapper(xt_blocks.lower(graph))(drawn())
    except ValueError:  # it has no logits of each token, or is not causal
        return False
    return True


AREAS: dict[str, list[Entry]] = {}
for entry in entries():
    AREAS.setdefault(entry.area, []).append(entry)


@pytest.mark.distributed
@pytest.mark.parametrize("area", AREAS)
def test_every_option_is_equal_or_refused(monkeypatch: pytest.MonkeyPatch, area: str) -> None:
    for entry in AREAS[area]:
        graph = small_graph(entry)
        if graph is not None and trains(graph) and why_whole_rows(graph) is None:
            compare(monkeypatch, graph, 2, drawn(), mask_of("holes"))


@given(models(causal=True), st.sampled_from([2, 4]), st.sampled_from([*MASKS]))
@examples(12)
def test_random_models(model: Model, ranks: int, mask: str) -> None:
    graph = model.graph.with_tokens(**TOKENS, **model.around)
    assume(trains(graph))
    assume(why_whole_rows(graph) is None)
    with pytest.MonkeyPatch.context() as monkeypatch:
        compare(monkeypatch, graph, ranks, drawn(), None if mask == "all real" else mask_of(mask))
