"""Plans against arithmetic by hand, lowered shares, and a simulated pipeline."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed.pipelining.schedules import get_schedule_class

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, Mesh, UserError, zoo
from blockdsl.plan.local import tensor_part
from blockdsl.plan.report import Plan
from blockdsl.plan.schedule import SCHEDULES
from blockdsl.plan.search import meshes
from blockdsl.plan.setup import Setup, read_bytes
from blockdsl.plan.traffic import among
from xt_blocks.distributed.pipeline import SCHEDULES as TORCH_SCHEDULES

# dim 16, hidden 32, 2 heads of 8; blocks without biases, norms with a gain alone
DIM, INNER, VOCABULARY, TOKENS = 16, 32, 40, 8
A, F, NORM = 4 * DIM * DIM, 2 * DIM * INNER, DIM
SIZES = {
    "dim": DIM,
    "heads": 2,
    "attn_dim_head": 8,
    "ff_inner": INNER,
    "ff_no_bias": True,
    "use_rmsnorm": True,
    "rotary_pos_emb": True,
    "causal": True,
    "num_tokens": VOCABULARY,
    "max_seq_len": TOKENS,
    "logits_bias": False,
}


def compiled(text: str, **settings: Any) -> BlockGraph:
    return blockdsl.compile(text, **(SIZES | settings))


def planned(graph: BlockGraph, mesh: str, **setup: Any) -> Plan:
    return graph.plan(
        mesh, **{"seq_len": TOKENS, "batch": 16, "checkpoint": "none", "micro_batch": 1, "precision": "fp32"} | setup
    )


def sent(plan: Plan, place: int = 0) -> dict[tuple[str, str], tuple[int, int]]:
    return {(m.link, m.operation): (m.payload, m.sent) for m in plan.best.shares[place].sent}


# Parameters --------------------------------------------------------------------------------------------------------


def test_parameters_of_stages_by_hand() -> None:
    first, last = planned(compiled("(a f)*2 | a f"), "pp=2").best.shares
    assert first.parameters == VOCABULARY * DIM + 2 * (A + F + 2 * NORM)
    assert last.parameters == A + F + 2 * NORM + NORM + VOCABULARY * DIM


def test_what_stages_share_is_there_twice() -> None:
    graph = compiled("(a f)@t | (a f)@t", tie_embedding=True)
    first, last = planned(graph, "pp=2").best.shares
    assert graph.parameters() == VOCABULARY * DIM + A + F + 3 * NORM
    assert first.parameters == VOCABULARY * DIM + A + F + 2 * NORM
    assert last.parameters == graph.parameters()


def test_a_share_under_tp_is_what_the_local_graph_lowers_to() -> None:
    graph = compiled("(a f)*2 e", moe_experts=4)
    (share,) = planned(graph, "tp=2").best.shares
    lowered = xt_blocks.lower(tensor_part(graph, 2))
    assert share.parameters == sum(parameter.numel() for parameter in lowered.parameters())


def test_bytes_that_are_kept() -> None:
    graph = compiled("(a f)*2")
    whole = graph.parameters()
    (alone,), (sharded,) = planned(graph, "dp=1").best.shares, planned(graph, "fsdp=4").best.shares
    assert (alone.parameter_bytes, alone.gradient_bytes, alone.optimizer_bytes) == (4 * whole, 4 * whole, 8 * whole)
    assert (sharded.parameter_bytes, sharded.optimizer_bytes) == (-(-whole // 4) * 4, -(-whole // 4) * 8)
    around = 2 * VOCABULARY * DIM + NORM
    assert sharded.gathered_bytes == 4 * (around + 3 * max(A + NORM, F + NORM))
    assert alone.gathered_bytes == 0
    (sgd,), (muon,) = (planned(graph, "dp=1", optimizer=name).best.shares for name in ("sgd", "muon"))
    assert (sgd.optimizer_bytes, muon.optimizer_bytes) == (0, 4 * (2 * whole - 2 * (A + F)))


def test_seventy_billion_parameters_over_sixty_four_devices() -> None:
    """LLaMA 3 70B: 80 layers of 8 key heads and 28,672 hidden features, two tables of 128,256 tokens."""
    plan = zoo.entry("llama3-70b").graph().plan("pp=4,fsdp=2,tp=8", seq_len=8192, batch=1024, memory="80GB")
    attention, hidden, norm, table = 2 * 8192 * 8192 + 2 * 8192 * 1024, 3 * 8192 * 28672, 8192, 128256 * 8192
    assert plan.parameters == 80 * (attention + hidden + 2 * norm) + 2 * table + norm
    by_tp = [
        sum((attention if node[0] == "a" else hidden) // 8 + norm for stage in share.stages for node in stage.nodes)
        for share in plan.best.shares
    ]
    by_tp[0] += table
    by_tp[-1] += table + norm
    assert [share.parameters for share in plan.best.shares] == by_tp
    attentions = sum(node[0] == "a" for stage in plan.best.shares[1].stages for node in stage.nodes)
    assert plan.best.shares[1].cache_bytes == 2 * 2 * 8192 * 1024 // 8 * attentions  # keys and values in bfloat16
    assert plan.best.balance > 0.93


def test_the_cache_of_a_row() -> None:
    (share,) = planned(compiled("(a f)*2"), "tp=2").best.shares
    assert share.cache_bytes == tensor_part(compiled("(a f)*2"), 2).kv_cache_bytes(TOKENS)


def test_flops_of_a_step() -> None:
    graph = compiled("(a f)*2")
    assert planned(graph, "fsdp=2").best.shares[0].flops == 3 * graph.flops(TOKENS, batch=8)
    assert sum(share.flops for share in planned(graph, "pp=2").best.shares) == 3 * graph.flops(TOKENS, batch=16)


# What is sent ------------------------------------------------------------------------------------------------------


def test_what_fsdp_and_dp_send() -> None:
    graph = compiled("(a f)*2")
    blocks, around = 2 * (A + F + 2 * NORM), 2 * VOCABULARY * DIM + NORM
    found = sent(planned(graph, "fsdp=4", micro_batch=2))  # two micro-batches
    gathered, scattered = 2 * 4 * (2 * blocks + around), 2 * 4 * (blocks + around)
    assert found == {
        ("fsdp", "gather"): (gathered, gathered * 3 // 4),
        ("fsdp", "scatter"): (scattered, scattered * 3 // 4),
    }
    found = sent(planned(graph, "dp=2", micro_batch=8))
    assert found == {("dp", "all-reduce"): (4 * graph.parameters(), 4 * graph.parameters())}
    found = sent(planned(graph, "fsdp=4", micro_batch=2, precision="bf16"))
    gathered = 2 * (2 * 2 * blocks + 4 * around)  # what is around the blocks stays float32, and sums do
    assert found == {
        ("fsdp", "gather"): (gathered, gathered * 3 // 4),
        ("fsdp", "scatter"): (scattered, scattered * 3 // 4),
    }


def test_what_tp_sends() -> None:
    stream = TOKENS * DIM * 4  # of a row
    graph = compiled("(a f)*3")
    assert sent(planned(graph, "tp=2")) == {("tp", "all-reduce"): (16 * 6 * 2 * stream, 16 * 6 * 2 * stream)}
    low = sent(planned(graph, "tp=2", precision="bf16"))  # updates are bfloat16, the gradient of the stream is not
    assert low["tp", "all-reduce"][0] == 16 * 6 * (stream // 2 + stream)
    block, stage = (sent(planned(graph, "tp=2", checkpoint=name))["tp", "all-reduce"][0] for name in ("block", "stage"))
    assert (block, stage) == (16 * 6 * 2 * stream, 16 * (6 * 2 + 5) * stream)
    shared = sent(planned(compiled("a f", attn_one_kv_head=True, heads=4), "tp=4"))
    alike = 4 * 2 * 8 * DIM  # gradients of the one key's and value's weights, which all four hold
    assert shared["tp", "all-reduce"][0] == 16 * 2 * 2 * stream + alike


def test_what_a_pipeline_sends() -> None:
    stream = TOKENS * DIM * 4
    plan = planned(compiled("a f | a f | f"), "pp=3")
    assert [sent(plan, place)["pp", "send"][0] for place in range(3)] == [16 * stream, 2 * 16 * stream, 16 * stream]
    skip = planned(compiled("^u a f | f | <u f"), "pp=3")
    assert [sent(skip, place)["pp", "send"][0] for place in range(3)] == [
        2 * 16 * stream,
        4 * 16 * stream,
        2 * 16 * stream,
    ]
    scores = planned(compiled("a f | a f", attn_flash=False, residual_attn=True), "pp=2")
    assert sent(scores)["pp", "send"][0] == 16 * (stream + 2 * TOKENS * TOKENS * 4)
    kv = planned(compiled("a ^u f | a(kv=u) f"), "pp=2")
    assert sent(kv)["pp", "send"][0] == 16 * (stream + 2 * stream)
    further = planned(compiled("a ^u f | a(kv=u) f", attn_num_mem_kv=2), "pp=2")  # and values of the tokens alone
    assert sent(further)["pp", "send"][0] == 16 * (stream + 2 * (TOKENS + 2) * DIM * 4 + stream)
    values = planned(compiled("a ^u f | a(values=u) f"), "pp=2,tp=2")
    assert sent(values)["pp", "send"][0] == 16 * (stream + stream // 2)  # of one of two heads
    streams = planned(compiled("a f | a f", num_residual_streams=3), "pp=2")
    assert sent(streams)["pp", "send"][0] == 16 * 3 * stream


def test_muon_gathers_the_matrices_of_blocks_once_a_step() -> None:
    graph = compiled("(a f)*2")
    for mesh, link in (("fsdp=2", ("fsdp", "gather")), ("tp=2", ("tp", "all-reduce"))):
        adamw, muon = (sent(planned(graph, mesh, optimizer=name)) for name in ("adamw", "muon"))
        assert adamw.keys() == muon.keys()
        more = {each: muon[each][0] - adamw[each][0] for each in muon}
        assert {each: count for each, count in more.items() if count} == {link: 4 * 2 * (A + F)}
    both = {name: sent(planned(graph, "fsdp=2,tp=2", optimizer=name)) for name in ("adamw", "muon")}
    gathered = both["muon"]["fsdp", "gather"][0] - both["adamw"]["fsdp", "gather"][0]
    assert gathered == 4 * (A + F)  # of two layers, what one of two ranks has


def test_interleaved_stages_are_apart_and_send_more() -> None:
    stream = TOKENS * DIM * 4
    plan = planned(compiled("f*4", rotary_pos_emb=False), "pp=2", schedule="interleaved")
    assert [[stage.index for stage in share.stages] for share in plan.best.shares] == [[0, 2], [1, 3]]
    assert [sent(plan, place)["pp", "send"][0] for place in range(2)] == [3 * 16 * stream, 3 * 16 * stream]


def test_gradients_of_what_stages_share_are_summed() -> None:
    plan = planned(compiled("a f@t | a f@t", tie_embedding=True), "pp=2")
    shared = 4 * (F + NORM + VOCABULARY * DIM)
    assert sent(plan)["pp", "all-reduce"] == (shared, shared)


def test_what_cp_sends() -> None:
    graph = compiled("(a f)*2")
    kv = 16 * 2 * (2 * TOKENS * DIM) * 4  # rows, blocks, keys and values
    around = 2 * VOCABULARY * DIM + NORM
    gathered = 16 * 4 * (2 * (graph.parameters() - around) + around)  # micro-batches; blocks forward and backward
    scattered = 16 * 4 * graph.parameters()
    found = sent(planned(graph, "cp=2"))
    assert found == {
        ("cp", "gather"): (kv, kv // 2),
        ("cp", "scatter"): (kv, kv // 2),
        ("fsdp×cp", "gather"): (gathered, gathered // 2),
        ("fsdp×cp", "scatter"): (scattered, scattered // 2),
    }


def test_what_is_gathered_along_cp_is_held_by_what_is_computed_again() -> None:
    graph, kv = compiled("(a f)*2 | a f"), 2 * TOKENS * DIM * 4
    plans = {name: planned(graph, "cp=2", checkpoint=name).best.shares[0] for name in ("none", "block", "stage")}
    halves = {
        name: planned(graph, "dp=1", checkpoint=name, seq_len=TOKENS // 2).best.shares[0].activation_bytes[name]
        for name in plans
    }
    held = {name: share.activation_bytes[name] - halves[name] for name, share in plans.items()}
    assert held == {"none": 3 * kv, "block": kv, "stage": 2 * kv}


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_bytes_on_the_wire_of_a_ring(ranks: int) -> None:
    """What a rank sends when chunks go round a ring, step by step, until all have what they need."""
    chunk = 60
    gather = chunk * (ranks - 1)  # in each of ranks - 1 steps a chunk goes on
    assert among(ranks, "x", "gather", ranks * chunk)[0].sent == gather
    assert among(ranks, "x", "scatter", ranks * chunk)[0].sent == gather
    assert among(ranks, "x", "all-reduce", ranks * chunk)[0].sent == 2 * gather
    assert among(ranks, "x", "send", chunk)[0].sent == chunk
    assert among(1, "x", "gather", chunk) == []


# Schedules ---------------------------------------------------------------------------------------------------------


def order(schedule: str, ranks: int, micro_batches: int, place: int) -> list[tuple[str, int, int]]:
    """A rank's passes, one after another: forward or backward, its which stage, which micro-batch."""
    stages = SCHEDULES[schedule].stages

    def passes(which: str) -> Iterator[tuple[str, int, int]]:
        for first in range(0, micro_batches, ranks) if stages > 1 else [0]:
            group = range(first, first + ranks) if stages > 1 else range(micro_batches)
            for stage in range(stages) if which == "F" else reversed(range(stages)):
                yield from ((which, stage, micro_batch) for micro_batch in group)

    forward, backward = [*passes("F")], [*passes("B")]
    if schedule == "gpipe":
        return forward + backward
    before = ranks - place - 1 if stages == 1 else 2 * (ranks - place - 1) + (stages - 1) * ranks
    before = min(before, len(forward))
    steady = [one for pair in zip(forward[before:], backward, strict=False) for one in pair]
    return forward[:before] + steady + backward[len(forward) - before :]


def simulated(schedule: str, ranks: int, micro_batches: int) -> tuple[float, list[float]]:
    """The share of the time in which a rank waits, and how many micro-batches of all its stages each holds at most."""
    stages = SCHEDULES[schedule].stages
    waiting = [order(schedule, ranks, micro_batches, place) for place in range(ranks)]
    free, done = [0.0] * ranks, {}
    held, most = [0] * ranks, [0] * ranks
    while any(waiting):
        for place in range(ranks):
            while waiting[place]:
                which, stage, micro_batch = waiting[place][0]
                at, last = stage * ranks + place, stages * ranks - 1
                if which == "F":
                    needs = [("F", at - 1, micro_batch)] if at else []
                else:
                    needs = [("F", at, micro_batch)] + ([("B", at + 1, micro_batch)] if at < last else [])
                if any(need not in done for need in needs):
                    break
                start = max([free[place], *(done[need] for need in needs)])
                free[place] = done[which, at, micro_batch] = start + (1 if which == "F" else 2) / stages
                held[place] += 1 if which == "F" else -1
                most[place] = max(most[place], held[place])
                waiting[place].pop(0)
    return 1 - 3 * micro_batches / max(free), [each / stages for each in most]


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved"])
@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 2), (2, 8), (4, 8), (4, 16), (3, 9)])
def test_schedules_against_a_simulation(schedule: str, ranks: int, micro_batches: int) -> None:
    own = SCHEDULES[schedule]
    waits, most = simulated(schedule, ranks, micro_batches)
    assert own.bubble(ranks, micro_batches) == pytest.approx(waits)
    assert [own.in_flight(ranks, micro_batches, place) for place in range(ranks)] == most


@pytest.mark.parametrize("schedule", ["interleaved", "zero-bubble"])
@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 2), (2, 8), (4, 8), (4, 16), (8, 16)])
def test_schedules_as_torch_orders_them(schedule: str, ranks: int, micro_batches: int) -> None:
    """A forward pass takes 1, gradients of the input 1, those of weights 1."""
    own, count = SCHEDULES[schedule], ranks * SCHEDULES[schedule].stages
    stages = [stage_of(ranks, count, index) for index in range(0, count, ranks)]
    kind: Any = get_schedule_class(TORCH_SCHEDULES[schedule])
    orders = kind(stages, micro_batches, loss_fn=lambda output, target: output).pipeline_order
    free, done, most = [0] * ranks, {}, [0] * ranks
    waiting = [[each for each in orders[place] if each is not None] for place in range(ranks)]
    held = [0] * ranks
    while any(waiting):
        for place in range(ranks):
            while waiting[place]:
                what, at, micro_batch = waiting[place][0].computation_type.name, *waiting[place][0][::2]
                backward = what in ("FULL_BACKWARD", "BACKWARD_INPUT")
                needs = {"FORWARD": [("FORWARD", at - 1)] * (at > 0), "BACKWARD_WEIGHT": []}.get(what)
                if needs is None:
                    needs = [("FORWARD", at) if at == count - 1 else ("BACKWARD", at + 1)]
                if any((*need, micro_batch) not in done for need in needs):
                    break
                start = max([free[place], *(done[(*need, micro_batch)] for need in needs)])
                free[place] = start + (2 if what == "FULL_BACKWARD" else 1)
                done["BACKWARD" if backward else what, at, micro_batch] = free[place]
                held[place] += {"FORWARD": 1, "BACKWARD_INPUT": 0}.get(what, -1)
                most[place] = max(most[place], held[place])
                waiting[place].pop(0)
    assert own.bubble(ranks, micro_batches) == pytest.approx(1 - 3 * own.stages * micro_batches / max(free))
    assert [own.in_flight(ranks, micro_batches, place) for place in range(ranks)] == [n / own.stages for n in most]


def stage_of(ranks: int, count: int, index: int) -> Any:
    """What a schedule of torch reads of a stage."""
    ranks_of = {stage: stage % ranks for stage in range(count)}
    said = {"stage_index": index, "num_stages": count, "group_size": ranks, "group_rank": 0, "has_backward": True}
    return SimpleNamespace(**said, stage_index_to_group_rank=ranks_of, is_first=index == 0, is_last=False, submod=None)


def test_a_schedule_that_fsdp_cannot_run_is_refused() -> None:
    graph = compiled("(a f)*4")
    with pytest.raises(
        UserError, match=r"schedule=zero-bubble does not run along dp, fsdp or cp \(pp=2,fsdp=2\): take 1f1b"
    ):
        planned(graph, "pp=2,fsdp=2", schedule="zero-bubble")
    assert planned(graph, "pp=2,tp=2", schedule="zero-bubble").best.shares[0].stages[1].index == 2


def test_activations_in_bfloat16() -> None:
    """The stream is float32; within blocks numbers have two bytes, and so have copies of the weights."""
    graph = compiled("f", rotary_pos_emb=False)
    (low,), (full,) = (planned(graph, "dp=1", precision=name).best.shares for name in ("bf16", "fp32"))
    stream, head = TOKENS * (DIM + 1 + DIM), TOKENS * DIM  # the block's, and the final norm's with its statistics
    within = TOKENS * (1 + DIM + 2 * INNER)
    assert full.activation_bytes["none"] == 4 * (stream + head + within)
    assert low.activation_bytes["none"] == 4 * stream + 2 * (head + within) + 2 * graph.parameters()


def test_micro_batches_in_flight_hold_their_activations() -> None:
    graph = compiled("f*8", rotary_pos_emb=False)
    one_by_one = planned(graph, "pp=4").best.shares
    assert [share.activation_bytes["none"] for share in one_by_one[:3]] == [
        in_flight * 4 * SAVED_BY_TWO for in_flight in (4, 3, 2)
    ]
    together = planned(graph, "pp=4", schedule="gpipe").best.shares
    assert together[1].activation_bytes["none"] == 16 * 4 * SAVED_BY_TWO


SAVED_BY_TWO = 2 * TOKENS * (DIM + 1 + DIM + 2 * INNER)
"""Numbers that two feedforwards save of a row: stream and norm, input, hidden features before and after GELU."""


# Which meshes ------------------------------------------------------------------------------------------------------


def test_every_mesh_of_so_many_devices() -> None:
    found = [*meshes(12, Setup(TOKENS, 16))]
    assert len(found) == len({*found}) == count_of(12)
    assert all(mesh.size == 12 and mesh.cp == 1 and mesh.tp <= 8 for mesh in found)
    assert any(mesh.cp == 4 for mesh in meshes(16, Setup(TOKENS, 4)))


def count_of(size: int) -> int:
    """Ways to write `size` as pp · dp · fsdp · tp, with tp up to 8."""
    numbers = range(1, size + 1)
    return sum(
        pp * dp * fsdp * tp == size for pp in numbers for dp in numbers for fsdp in numbers for tp in numbers[:8]
    )


def test_those_that_fit_come_first_and_less_is_computed_again() -> None:
    graph = compiled("(a f)*4")
    plan = graph.plan(gpus=8, seq_len=TOKENS, batch=16, memory=120_000)
    fitting = [each.fits for each in plan.meshes]
    assert True in fitting
    assert False in fitting
    assert fitting == sorted(fitting, reverse=True)
    useful = [round(each.useful, 3) for each in plan.meshes if each.fits]
    assert useful == sorted(useful, reverse=True)
    for each in plan.meshes:
        assert (each.memory <= 120_000 * 0.9) == each.fits
    free = graph.plan(gpus=8, seq_len=TOKENS, batch=16)
    assert all(each.checkpoint == "none" and each.fits is None for each in free.meshes)


def test_the_pattern_with_its_cuts() -> None:
    plan = planned(compiled("(a f)*4"), "pp=4,fsdp=2", memory="1MB")
    cut = plan.cut(titled=False).lint()
    assert str(cut.to_pattern()).endswith("a f | a f | a f | a f")
    assert cut.parameters() == plan.parameters
    share = plan.best.shares[1]
    title = f"ranks 2-3 · 0.00 M parameters · {share.memory('none') / 1e3:.1f} kB of 1.0 MB each"
    assert plan.cut().stages[1] == title
    picture = plan.cut().to_svg()
    assert all(words in picture for words in title.split())  # long titles take several lines
    assert title in str(plan)
    alone = planned(compiled("(a f)*4"), "pp=4").best.shares[1]
    title = f"rank 1 · 0.00 M parameters · {alone.memory('none') / 1e3:.1f} kB"
    assert planned(compiled("(a f)*4"), "pp=4").cut().stages[1] == title


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("80GB", 80 * 10**9),
        ("80 GiB", 80 * 2**30),
        ("1.5tb", 15 * 10**11),
        ("512MiB", 2**29),
        ("100B", 100),
        (2**20, 2**20),
    ],
)
def test_memory_is_read(text: Any, nbytes: int) -> None:
    assert read_bytes(text) == nbytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mesh": "dp=2", "memory": "80"}, "memory '80' names no unit: 80GB? (80B are bytes)"),
        ({"mesh": "pp=9"}, "pp=9: a pipeline needs a block for each of its 9 stages; the stack has 4 blocks"),
        ({"mesh": "dp=3,fsdp=3"}, "batch=16 is not divisible by dp × fsdp=9"),
        ({"mesh": "dp=2", "micro_batch": 3}, "rows a rank=8 is not divisible by micro_batch=3"),
        ({"mesh": "cp=3"}, "seq_len=8 is not divisible by cp=3"),
        (
            {"mesh": "tp=3"},
            "tp=3: no block splits: a0 and 1 more (heads=2 is not divisible by 3); f1 and 1 more (inner=32 is not divisible "
            "by 3)",
        ),
        ({"mesh": "tq=3"}, "mesh 'tq=3': there is no axis 'tq'; the axes are pp, dp, fsdp, cp, tp"),
        ({}, "give a number of gpus, or one mesh"),
        ({"mesh": "dp=2", "gpus": 2}, "give a number of gpus, or one mesh"),
        ({"gpus": 0}, "gpus must be a whole number of at least 1, not 0"),
        ({"gpus": 7, "batch": 1, "seq_len": 5}, None),
        ({"gpus": 8, "memory": "80GX"}, "memory '80GX': unknown unit 'GX'; as in 80GB or 80GiB"),
        ({"gpus": 8, "memory": "much"}, "memory must be a size such as 80GB, not 'much'"),
        ({"gpus": 8, "memory": -1}, "memory must be a number above 0, not -1"),
        ({"gpus": 8, "seq_len": 9}, "seq_len=9 is above the model's max_seq_len=8"),
        (
            {"gpus": 8, "optimizer": "adam"},
            "optimizer must be one of adamw, muon, sgd, not 'adam'; did you mean 'adamw'?",
        ),
        ({"gpus": 8, "reserve": 1.5}, "reserve must be a number of at least 0 and below 1, not 1.5"),
    ],
)
def test_what_cannot_be_planned(arguments: dict[str, Any], message: str | None) -> None:
    with pytest.raises(UserError) as raised:
        compiled("(a f)*2").plan(**{"seq_len": TOKENS, "batch": 16} | arguments)
    assert message is None or str(raised.value) == message


def test_an_argument_that_is_not_there() -> None:
    with pytest.raises(TypeError, match=r"^plan\(\) got an unknown argument 'optimiser'; did you mean 'optimizer'\?$"):
        compiled("a").plan(gpus=2, seq_len=8, batch=2, optimiser="adamw")


def test_a_block_that_reads_rows_from_their_start_is_not_cut_along_them() -> None:
    with pytest.raises(UserError, match=r"^cp=2: mamba0 \(Mamba\) carries a state along each row"):
        planned(compiled("mamba a"), "cp=2")


def test_layers_that_are_whole_on_every_rank_are_named() -> None:
    plan = planned(compiled("a f", ff_inner=31), "tp=2")
    assert plan.best.notes == ("tp=2: whole on every rank: f1 (inner=31 is not divisible by 2)",)
    assert plan.best.notes[0] in str(plan)


def test_an_encoder_with_its_decoder() -> None:
    graph = blockdsl.compile("(a f)*2 => (a c f)*2", dim=16, heads=2, attn_dim_head=8, num_tokens=40, max_seq_len=8)
    (share,) = graph.plan("fsdp=2", seq_len=8, batch=4).best.shares
    assert share.parameters == graph.parameters()
    assert share.flops == 3 * graph.flops(8, batch=2)
    refused = graph.plan(gpus=4, seq_len=8, batch=4).refused
    assert refused[Mesh(pp=2, dp=2)] == "pp=2: an encoder with its decoder is not cut into pipeline stages"


def test_a_plan_needs_no_torch() -> None:
    code = (
        "import sys; from xt_blocks.cli import main; "
        "main(['plan', 'zoo:gpt2', '--gpus', '8', '--memory', '80GB', '--seq-len', '1024']); "
        "sys.exit('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
