"""What a plan says that a rank sends, against what a training step hands to torch.distributed's collectives."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import blockdsl
from blockdsl import BlockGraph, Mesh, UserError
from xt_blocks.distributed.job import distribute
from xt_blocks.distributed.muon import SharedMuon
from xt_blocks.train.optimizer import make_optimizer

from .processes import run

MODEL: dict[str, Any] = {
    "dim": 32,
    "heads": 4,
    "attn_dim_head": 8,
    "causal": True,
    "num_tokens": 64,
    "max_seq_len": 16,
    "rotary_pos_emb": True,
}
ROWS, TOKENS = 8, 16
PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2", {}),
    "glu, one key head, tied embedding": ("(a f)*3", {"ff_glu": True, "attn_one_kv_head": True, "tie_embedding": True}),
    "computed again": ("(a f)*2", {"checkpoint": "block", "use_rmsnorm": True}),
    "token shift": ("(a f)*2", {"shift_tokens": 1}),
    "short convolution": ("(conv(kernel=4) a)*2", {}),
    "stages computed again": ("(a f)*2 | (a & f) a", {"checkpoint": "stage"}),
    "encoder and decoder": ("(a f)@s*2 a => a c f", {"tie_token_emb": True}),
}
PAIRS = ("pp=2,tp=2", "pp=2,fsdp=2", "pp=2,cp=2", "dp=2,fsdp=2", "fsdp=2,tp=2")
LABELLED: dict[str, tuple[str, dict[str, Any]]] = {
    "keys and values of another": ("a ^k f a(kv=k) f | a(kv=k, max_attend_past=4) f", {"attn_kv_heads": 2}),
    "values of another": ("a ^v f a(values=v) f | a(values=v) f", {}),
    "a window's keys": ("a(max_attend_past=4) ^k f | a(kv=k, max_attend_past=4) f", {}),
    "keys, and values alone": ("a ^k f | a(kv=k) ^v f a(values=v) f", {"attn_num_mem_kv": 2}),
    "values of one that has its keys of another": ("a ^k f a(kv=k) ^v f | a(values=v) f", {}),
    "scores of another": ("a ^s f | a(scores=s) f", {}),
}
"""What blocks of another stage read crosses the cut beside the stream."""
OPERATIONS = {
    name: operation
    for operation, names in {
        "send": ("send",),
        "gather": ("_allgather_base_", "all_gather_single_", "all_gather_into_tensor"),
        "scatter": ("_reduce_scatter_base_", "reduce_scatter_single_"),
        "all-reduce": ("allreduce_",),
    }.items()
    for name in names
}


class Counted(TorchDispatchMode):
    """Bytes that are handed to collectives, whole, by operation; a sum of a few numbers, as of losses, is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        out = func(*args, **(kwargs or {}))
        if name in OPERATIONS:
            leaves = torch.utils._pytree.tree_leaves((args, out))  # DTensor's gather returns the whole
            tensors = [each for each in leaves if isinstance(each, torch.Tensor)]
            whole = max(tensor.numel() * tensor.element_size() for tensor in tensors)
            if whole > 8 * 8:
                self.bytes[OPERATIONS[name]] = self.bytes.get(OPERATIONS[name], 0) + whole
        return out


def compiled(text: str, settings: dict[str, Any]) -> BlockGraph:
    given = {name: value for name, value in MODEL.items() if name != "causal" or "=>" not in text}
    return blockdsl.compile(text, **given, **settings)


def counted(
    mesh: str,
    accumulate: int,
    schedule: str,
    precision: str,
    optimizer: str,
    patterns: dict[str, tuple[str, dict[str, Any]]],
) -> dict[str, dict[str, int] | str]:
    """Of each pattern, what one step hands over; or why no job trains so."""
    out: dict[str, dict[str, int] | str] = {}
    for name, (text, settings) in patterns.items():
        try:
            graph = compiled(text, settings)
            job = distribute(graph, mesh, accumulate=accumulate, schedule=schedule, precision=precision)
        except UserError as error:
            out[name] = str(error)
            continue
        tokens = torch.randint(64, (ROWS, TOKENS + 1), generator=torch.Generator().manual_seed(0))
        source = None if graph.encoder is None else tokens[:, 1:]
        job.backward(tokens, source=source)
        stepping = make_optimizer(nn.ModuleList(job.nets), 0.01, optimizer, partial(SharedMuon, job))
        with Counted() as count:
            job.backward(tokens, source=source)
            stepping.step()
        out[name] = count.bytes
    return out


@pytest.mark.parametrize(
    ("mesh", "accumulate", "schedule", "precision"),
    [
        ("fsdp=2", 2, "1f1b", "bf16"),
        ("dp=2", 2, "1f1b", "fp32"),
        ("tp=2", 1, "1f1b", "fp32"),
        ("cp=2", 2, "1f1b", "bf16"),
        ("pp=2", 2, "gpipe", "fp32"),
        ("pp=2", 4, "interleaved", "fp32"),
        ("pp=2", 2, "zero-bubble", "fp32"),
        *(
            pytest.param(mesh, accumulate, "1f1b", "fp32", marks=pytest.mark.distributed)
            for mesh, accumulate in (("fsdp=2", 1), ("tp=2", 2), ("cp=2", 1), ("pp=2", 4))
        ),
        *(
            pytest.param(mesh, 1 if "pp" not in mesh else 2, "1f1b", precision, marks=pytest.mark.distributed)
            for mesh in ("dp=2", "tp=2", "pp=2", *PAIRS)
            for precision in ("fp32", "bf16")
            if mesh in PAIRS or precision == "bf16"
        ),
        *(
            pytest.param(mesh, 2, schedule, "fp32", marks=pytest.mark.distributed)
            for mesh, schedule in (("dp=2,fsdp=2", "1f1b"), ("pp=2,dp=2,fsdp=2", "gpipe"))
        ),
    ],
)
def test_what_a_step_sends(mesh: str, accumulate: int, schedule: str, precision: str) -> None:
    compare(mesh, accumulate, schedule, precision)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("mesh", "precision"),
    [(mesh, precision) for mesh in ("pp=2", "pp=2,cp=2", "pp=2,fsdp=2") for precision in ("fp32", "bf16")],
)
def test_what_crosses_a_cut_for_labels(mesh: str, precision: str) -> None:
    """Along cp the last rank has attended to the keys of all tokens, and hands them on."""
    compare(mesh, 2, "1f1b", precision, patterns=LABELLED)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
@pytest.mark.parametrize(
    "mesh",
    [
        "fsdp=2",
        *(
            pytest.param(mesh, marks=pytest.mark.distributed)
            for mesh in ("tp=2", "dp=2", "cp=2", "pp=2", "fsdp=2,tp=2", "pp=2,fsdp=2", "pp=2,tp=2", "dp=2,fsdp=2")
        ),
    ],
)
def test_what_muon_sends_beside(mesh: str) -> None:
    compare(mesh, 1 if "pp" not in mesh else 2, "1f1b", "fp32", "muon")


def compare(
    mesh: str,
    accumulate: int,
    schedule: str,
    precision: str,
    optimizer: str = "adamw",
    patterns: dict[str, tuple[str, dict[str, Any]]] = PATTERNS,
) -> None:
    """What each rank is planned to send, with what the busiest one at its place along pp has sent."""
    sizes = Mesh.parse(mesh)
    found, compared = run(counted, sizes.size, mesh, accumulate, schedule, precision, optimizer, patterns), 0
    for name, (text, settings) in patterns.items():
        if isinstance(found[0][name], str):  # stages of one rank share parameters, or an encoder is refused
            assert sizes.pp > 1 or "=>" in text
            continue
        graph = compiled(text, settings)
        run_as = {"checkpoint": settings.get("checkpoint", "none"), "precision": precision, "schedule": schedule}
        run_as["optimizer"] = optimizer
        rows = ROWS // accumulate // sizes.data
        plan = graph.plan(mesh, seq_len=TOKENS, batch=ROWS, micro_batch=rows, **run_as)
        for place, share in enumerate(plan.best.shares):
            alike = [real[name] for rank, real in enumerate(found) if sizes.place(rank)["pp"] == place]
            busiest = {operation: max(each.get(operation, 0) for each in alike) for operation in alike[0]}
            planned: dict[str, int] = {}
            for message in share.sent:
                planned[message.operation] = planned.get(message.operation, 0) + message.payload
            assert busiest.keys() == planned.keys(), name
            for operation, payload in planned.items():
                assert payload == pytest.approx(busiest[operation], rel=0.02), (name, operation)
        compared += 1
    assert compared
