"""A job over ranks gives the losses, gradients and weights of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
from blockdsl import UserError
from blockdsl.plan.mesh import Mesh
from xt_blocks import AutoregressiveWrapper
from xt_blocks.distributed import init
from xt_blocks.distributed import job as job_module
from xt_blocks.distributed.init import initialised
from xt_blocks.distributed.job import distribute
from xt_blocks.kernels.batch_rows import BatchRows, rows_of_batch
from xt_blocks.runtime.seeds import seed_for

from .processes import run
from .random_models import gathered

MODEL: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8, "causal": True, "num_tokens": 32, "max_seq_len": 12}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2 | a ^k f a(kv=k) f", {}),
    "tied": ("(a f)@s*2 a(kv_heads=1)", {"rotary_pos_emb": True, "tie_embedding": True}),
    "tables": ("a(value_embed=0) f | a(value_embed=1, value_mix=gains) f a(value_embed=0) f", {}),
    "wired": ("a ^s f a(scores=s) <s(gain) f(glu)", {"rel_pos_bias": True, "use_rmsnorm": True}),
    "recomputed": ("(a f)*2 m(state=4, dim_head=8, chunk=4)", {"checkpoint": "block"}),
    "dropped": (
        "(a(dropout=0.2) f(dropout=0.3, glu) e(experts=4, inner=8, dropout=0.4, balance_loss=0.1))*2",
        {"layer_dropout": 0.3, "attn_sublayer_dropout": 0.2, "ff_sublayer_dropout": 0.1, "emb_dropout": 0.2}
        | {"checkpoint": "block"},
    ),
    "corrected": ("a e(experts=4, top=2, inner=8, balance_loss=0, correction_rate=0.1)", {}),
    "experts": ("a e(experts=4, top=2, inner=8, balance_loss=0.1)", {}),
}

DEEP = ("plain", "recomputed", "dropped")
"""Those that can be cut into four stages, none of which share parameters with another on the same rank."""


def batches(masked: bool) -> list[tuple[Tensor, Tensor | None]]:
    drawn = torch.Generator().manual_seed(5)
    out = []
    for _ in range(3):
        tokens = torch.randint(32, (4, 9), generator=drawn)
        lengths = torch.tensor([9, 4, 9, 2])
        out.append((tokens, torch.arange(9) < lengths[:, None] if masked else None))
    return out


def trained(name: str, mesh: str, masked: bool = False, **options: Any) -> dict[str, Any]:
    """Three steps of SGD: losses, the norms of the gradients, and the weights after them by name."""
    pattern, settings = CASES[name]
    torch.set_default_dtype(torch.float64)
    try:
        graph = blockdsl.compile(pattern, **MODEL, **settings)
        job = distribute(graph, mesh, seed=3, **options)
        optimizer = torch.optim.SGD(job.parameters(), lr=0.5)
        losses, norms, first = [], [], gathered(job)
        for step, (tokens, mask) in enumerate(batches(masked)):
            job.seed(step)
            losses.append(job.backward(tokens, mask))
            norms.append(job.clip(0.7))
            optimizer.step()
            optimizer.zero_grad()
        losses.append(job.loss(*batches(masked)[0]))
        after = gathered(job)
        held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in job.parameters())
    finally:
        torch.set_default_dtype(torch.float32)
    return {"losses": losses, "norms": norms, "first": first, "after": after, "held": held}


def all_cases(mesh: str, schedule: str) -> dict[str, Any]:
    cases = [name for name in CASES if name in DEEP or schedule in ("1f1b", "gpipe")]
    if "cp" in mesh:
        cases.remove("recomputed")  # it carries a state along the rows
    out = {name: trained(name, mesh, schedule=schedule) for name in cases}
    out["masked"] = trained("plain", mesh, masked=True, schedule=schedule)
    return out


def of_one_process(name: str, masked: bool = False, accumulate: int = 1) -> dict[str, Any]:
    """The same in plain torch, without any of the distributed code but the initial weights.

    Args:
        accumulate: micro-batches; the balance of experts is of each.
    """
    pattern, settings = CASES[name]
    torch.set_default_dtype(torch.float64)
    try:
        net = initialised(blockdsl.compile(pattern, **MODEL, **settings), 3)
        wrapper, losses, norms = AutoregressiveWrapper(net), [], []
        first = {f"model.{n}": p.detach().clone() for n, p in net.state_dict().items()}
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        for step, (tokens, mask) in enumerate(batches(masked)):
            wrapper.train()
            pieces = torch.arange(len(tokens)).tensor_split(accumulate)
            total = 0.0
            for rows in pieces:
                with rows_of_batch(BatchRows(rows.tolist(), seed_for("dropout", step))):
                    loss = wrapper(tokens[rows], mask=None if mask is None else mask[rows]) * len(rows) / len(tokens)
                loss.backward()
                total += loss.item()
            losses.append(total)
            norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), 0.7)))
            optimizer.step()
            optimizer.zero_grad()
        net.eval()
        losses.append(wrapper(batches(masked)[0][0], mask=batches(masked)[0][1]).item())
    finally:
        torch.set_default_dtype(torch.float32)
    return {
        "losses": losses,
        "norms": norms,
        "first": first,
        "after": {f"model.{n}": p for n, p in net.state_dict().items()},
    }


@pytest.mark.parametrize(
    ("mesh", "schedule"),
    [
        ("fsdp=2", "1f1b"),
        ("pp=2", "1f1b"),
        ("tp=2", "1f1b"),
        ("cp=2", "1f1b"),
        pytest.param("dp=2", "1f1b", marks=pytest.mark.distributed),
        pytest.param("fsdp=2,tp=2", "1f1b", marks=pytest.mark.distributed),
        pytest.param("cp=4", "1f1b", marks=pytest.mark.distributed),
        pytest.param("fsdp=2,cp=2", "1f1b", marks=pytest.mark.distributed),
        pytest.param("dp=2,cp=2", "1f1b", marks=pytest.mark.distributed),
        pytest.param("cp=2,tp=2", "1f1b", marks=pytest.mark.distributed),
        pytest.param("pp=2,cp=2", "1f1b", marks=pytest.mark.distributed),
        pytest.param("pp=2,fsdp=2", "gpipe", marks=pytest.mark.distributed),
        pytest.param("pp=2,dp=2,fsdp=2", "interleaved", marks=pytest.mark.distributed),
        pytest.param("pp=2,tp=2", "1f1b", marks=pytest.mark.distributed),
        pytest.param("pp=2", "interleaved", marks=pytest.mark.distributed),
        pytest.param("pp=2", "zero-bubble", marks=pytest.mark.distributed),
    ],
)
def test_equal_to_one_process(mesh: str, schedule: str) -> None:
    first, second, *_ = run(all_cases, Mesh.parse(mesh).size, mesh, schedule)
    for name in first:
        micro = Mesh.parse(mesh).pp
        expected = of_one_process("plain", True) if name == "masked" else of_one_process(name, accumulate=micro)
        for rank in (first, second):
            found = rank[name]
            losses = [each.cross_entropy + sum(each.added.values()) for each in found["losses"]]
            assert losses == pytest.approx(expected["losses"], abs=1e-9), name
            assert found["first"].keys() == expected["first"].keys()
            for parameter, tensor in found["first"].items():
                assert torch.equal(tensor, expected["first"][parameter]), (name, parameter)
            assert found["norms"] == pytest.approx(expected["norms"], abs=1e-9), name
            for parameter, tensor in found["after"].items():
                torch.testing.assert_close(tensor, expected["after"][parameter].to(tensor), atol=1e-9, rtol=0)
        if mesh in ("fsdp=2", "cp=2"):
            whole_model = sum(t.numel() for n, t in expected["first"].items() if not n.endswith("correction"))
            assert first[name]["held"] + second[name]["held"] == whole_model


def all_logits(mesh: str, schedule: str) -> dict[str, Tensor]:
    """Of each case, and a loss after it, which an evaluation must not have changed."""
    torch.set_default_dtype(torch.float64)
    try:
        out = {}
        for name in CASES if schedule == "1f1b" else DEEP:
            pattern, settings = CASES[name]
            job = distribute(blockdsl.compile(pattern, **MODEL, **settings), mesh, seed=3, schedule=schedule)
            out[name] = job.logits(batches(False)[0][0])
            job.backward(*batches(True)[0])
            assert torch.equal(job.logits(batches(False)[0][0]), out[name])
    finally:
        torch.set_default_dtype(torch.float32)
    return out


@pytest.mark.parametrize(("mesh", "schedule"), [("pp=2", "1f1b"), ("pp=2", "interleaved"), ("fsdp=2", "1f1b")])
def test_logits_are_those_of_one_process_on_every_rank(mesh: str, schedule: str) -> None:
    for found in run(all_logits, 2, mesh, schedule):
        for name, logits in found.items():
            pattern, settings = CASES[name]
            torch.set_default_dtype(torch.float64)
            try:
                net = initialised(blockdsl.compile(pattern, **MODEL, **settings), 3).eval()
            finally:
                torch.set_default_dtype(torch.float32)
            torch.testing.assert_close(logits, net(batches(False)[0][0]), rtol=1e-9, atol=1e-9)


def generated(mesh: str) -> Tensor:
    pattern, settings = CASES["tied"]
    job = distribute(blockdsl.compile(pattern, **MODEL, **settings), mesh, seed=3)
    before = job.generate(torch.tensor([[1, 2, 3], [4, 5, 6]]), 8, temperature=0.0)
    optimizer = torch.optim.SGD(job.parameters(), lr=0.5)  # made after a pass without gradients
    job.backward(batches(False)[0][0])
    optimizer.step()
    return torch.cat((before, job.generate(torch.tensor([[1, 2, 3], [4, 5, 6]]), 8, temperature=0.0)), dim=1)


@pytest.mark.parametrize("mesh", ["fsdp=2", "tp=2", "cp=2"])
def test_ranks_generate_what_one_process_does(mesh: str) -> None:
    pattern, settings = CASES["tied"]
    wrapper = AutoregressiveWrapper(initialised(blockdsl.compile(pattern, **MODEL, **settings), 3))
    prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    before = wrapper.generate(prompts, 8, temperature=0.0)
    optimizer = torch.optim.SGD(wrapper.parameters(), lr=0.5)
    wrapper.train()
    wrapper(batches(False)[0][0]).backward()
    optimizer.step()
    expected = torch.cat((before, wrapper.generate(prompts, 8, temperature=0.0)), dim=1)
    for found in run(generated, 2, mesh):
        assert torch.equal(found, expected)


def refused(schedule: str, pattern: str, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        distribute(blockdsl.compile(pattern, **MODEL, **settings), "pp=2", schedule=schedule)
    return str(error.value)


def all_refused() -> list[str]:
    return [
        refused("1f1b", "a"),
        refused("interleaved", "(a f)*2", rel_pos_bias=True),
        refused("1f2b", "(a f)*2"),
        refused("interleaved", "(a(value_embed=0) f)*2"),
    ]


def what_is_read_beside() -> list[str]:
    out = []
    for pattern, settings in (("a c f", {}), ("a f", {"dim_condition": 4, "use_adaptive_rmsnorm": True})):
        with pytest.raises(UserError) as error:
            distribute(blockdsl.compile(pattern, **MODEL, **settings), "fsdp=2")
        out.append(str(error.value))
    return out


def test_models_that_read_more_than_tokens_are_refused_in_words() -> None:
    context, condition = run(what_is_read_beside, 2)[0]
    assert "tokens alone, and c1 attends to a context" in context
    assert "takes no condition" in condition


def faults(mesh: str) -> list[str]:
    """What a rank says of batches and folders that are none; each time all ranks have to, as a job goes on after it."""
    job = distribute(blockdsl.compile("a f | a f", **MODEL), mesh)
    tokens, said = batches(False)[0][0], []
    wrong = tokens.clone()
    wrong[0, 0] = 999  # of a row that one rank has, and a stage that one rank has
    for ask in (
        lambda: job.backward(wrong),
        lambda: job.loss(wrong),
        lambda: job.backward(tokens[0]),
        lambda: job.backward(tokens, torch.ones(2, 2, dtype=torch.bool)),
        lambda: job.backward(tokens.repeat(1, 9)),
        lambda: job.clip(0.0),
        lambda: job.save("/dev/null/none"),
        lambda: job.load("/dev/null/none"),
    ):
        with pytest.raises((UserError, ValueError)) as error:
            ask()
        said.append(str(error.value))
    job.backward(tokens)
    return said


@pytest.mark.parametrize("mesh", ["fsdp=2", "pp=2"])
def test_of_a_fault_every_rank_tells_and_none_waits(mesh: str) -> None:
    first, second = run(faults, 2, mesh)
    assert first == second
    last, rows, seq = MODEL["num_tokens"] - 1, *batches(False)[0][0].shape
    known = batches(False)[0][0].min()
    outside = f"tokens are from 0 to {last}; these go from {known} to 999"
    assert first[:6] == [
        outside,
        outside,
        f"tokens must be (batch, 2 or more), one to see and one to predict, not ({seq},)",
        f"mask must be ({rows}, {seq}), not (2, 2)",
        f"the sequence has {9 * seq - 1} tokens; max_seq_len is {MODEL['max_seq_len']}",
        "max_norm must be above 0, not 0.0",
    ]
    assert "/dev/null/none cannot be written: " in first[6]
    assert "/dev/null/none cannot be read: " in first[7]


def test_what_is_no_graph_or_mesh_is_refused() -> None:
    with pytest.raises(TypeError, match=r"graph must be a BlockGraph, as blockdsl\.compile makes one, not str"):
        distribute("a f", "dp=2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match='mesh must be a Mesh or its text, as "dp=2,fsdp=2", not int'):
        distribute(blockdsl.compile("a f", **MODEL), 2)  # type: ignore[arg-type]


def test_what_no_pipeline_can_do_is_said_in_words() -> None:
    few, shares, unknown, table = run(all_refused, 2)[0]
    assert "pp=2: a pipeline needs a block for each of its 2 stages; the stack has 1 block" in few
    assert "two of one rank share the parameters of" in shares
    assert "two of one rank share the parameters of value_embed=0" in table
    assert "there is no schedule '1f2b'; did you mean '1f1b'?" in unknown


def order_of_work(mesh: str) -> list[str]:
    """What is drawn and what is sharded, one after another."""
    seen: list[str] = []
    draw, shard = init.drawn_block, job_module.sharded

    def drawn(graph: Any, node: str, seed: int) -> Any:
        seen.append(f"draw {node}")
        return draw(graph, node, seed)

    def sharded(module: Any, *further: Any) -> Any:
        seen.append(f"shard a {type(module).__name__}")
        return shard(module, *further)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(init, "drawn_block", drawn)
        patch.setattr(job_module, "sharded", sharded)
        distribute(blockdsl.compile("(a f)@s*2 a", **MODEL), mesh)
    return seen


def test_a_block_is_sharded_before_the_next_is_drawn() -> None:
    """So that no rank holds the whole model while it is made."""
    one = [part for node in ("a0", "f1", "a4") for part in (f"draw {node}", "shard a Block")]
    assert run(order_of_work, 2, "fsdp=2") == [[*one, "shard a StageLoss"]] * 2
