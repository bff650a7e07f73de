"""What the plan says that each option saves, against the tensors that autograd keeps: all options, by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, kinds
from blockdsl.plan.memory import StageMemory
from blockdsl.plan.stages import has_parameters
from blockdsl.registry.options import by_name
from blockdsl.registry.settings import STACK_SETTINGS
from blockdsl.registry.tokens import pair
from xt_blocks.blocks.attention import AnyAttention
from xt_blocks.kernels.cross_entropy import Target

from ..built_in import BUILT_IN
from .allocated import FusedNorm, attention_of_a_gpu, saved_bytes
from .samples import TOGETHER, Sample, every_option

EVERY = [*every_option()]
BY_OTHERS = {"checkpoint": "what is computed again is held by functions, not by autograd: test_memory has it"}


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "rms_norm", FusedNorm.rms_norm)
    monkeypatch.setattr(AnyAttention, "core", staticmethod(attention_of_a_gpu))


def test_every_option_has_a_sample() -> None:
    shown = {sample.option.partition("=")[0] for sample in EVERY}
    built_in = {option.setting for name in BUILT_IN for option in kinds()[name].all_options()}
    assert {*built_in, *by_name(STACK_SETTINGS)} - {None} == {name for name in shown if "(" not in name}


@pytest.mark.parametrize("sample", [*EVERY, *TOGETHER], ids=lambda sample: sample.option)
def test_what_an_option_saves(sample: Sample) -> None:
    if reason := BY_OTHERS.get(sample.option.partition("=")[0]):
        assert reason
        return
    graph = blockdsl.compile(sample.text, **sample.settings)
    # what is there once for all rows is counted in each
    rows = 1 if any(has_parameters(graph, node) for node in graph.nodes("position")) else 2
    torch.manual_seed(0)
    model = xt_blocks.lower(graph).train()
    args, further = batch(graph, rows, sample.tokens)
    real = saved_bytes(model, *args, **further) / 4 / rows
    tokens = graph.patches if graph.reads == "images" else sample.tokens
    memory = StageMemory(graph, tokens, sample.tokens)
    planned = memory.whole("none", logits="target" in further or graph.encoder is not None)
    assert planned.unknown == ()
    assert planned.streams + planned.held == pytest.approx(real, rel=0.02)


def batch(graph: BlockGraph, rows: int, tokens: int) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """What a model reads: its inputs, and by name what else; the loss of language models is computed too."""
    start, end, further = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end], {}
    if graph.nodes("context") and graph.encoder is None:
        further["context"] = torch.randn(rows, tokens, graph.dim_context, requires_grad=True)
    if graph.condition[0]:
        further["condition"] = torch.randn(rows, graph.condition[0])
    if graph.reads == "tokens":
        ids = torch.randint(0, start["num_tokens"], (rows, tokens))
        if end["logits_dim"] and not end["pool"] and graph.encoder is None:
            further["target"] = Target(torch.randint(0, end["logits_dim"], (rows, tokens)))
        return (ids,) if graph.encoder is None else (ids, ids.clone()), further
    if graph.reads == "images":
        return (torch.randn(rows, start["channels"], *pair(start["image_size"])),), further
    if graph.reads == "vectors":
        places = tokens * (2 if start["conv_stem"] else 1)
        return (torch.randn(rows, places, start["dim_in"] or graph.emb_dim),), further
    return (torch.randn(rows, tokens, graph.dim, requires_grad=True),), further
