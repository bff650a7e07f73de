"""The stack as a torch module: parallel sums, ties, copies, types, errors."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.utils.checkpoint import checkpoint

import blockdsl
import xt_blocks
from xt_blocks.blocks.block import BlockOutput

from .variants import SIZES, VARIANTS, inputs, stack


def test_parallel_branches_are_summed_as_in_gpt_j() -> None:
    model = xt_blocks.lower(blockdsl.compile("a & f", causal=True, **SIZES))
    a, f = model.blocks["a0"], model.blocks["f1"]  # type: ignore[index]
    x = torch.randn(2, 5, 24)
    expected = x + a.layer(a.norm(x)) + f.layer(f.norm(x))
    torch.testing.assert_close(model(x), model.norm(expected))  # type: ignore[operator]


def test_a_branch_of_several_blocks_contributes_what_it_adds() -> None:
    model = xt_blocks.lower(blockdsl.compile("f (a f/2) & f & (a a) f", causal=True, **SIZES))
    step = {node: model.blocks[node] for node in model.graph.nodes("block")}  # type: ignore[index]

    def run(node: str, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return x + scale * step[node].layer(step[node].norm(x))

    x = torch.randn(2, 5, 24)
    x1 = run("f0", x)
    one = run("f2", run("a1", x1), 0.5)
    two = run("f3", x1) - x1
    three = run("a5", run("a4", x1)) - x1
    x2 = x1 + (one - x1) + two + three
    torch.testing.assert_close(model(x), model.norm(run("f6", x2)))  # type: ignore[operator]


def test_tied_blocks_are_one_module_and_appear_once_in_the_state_dict() -> None:
    model = stack("ties")
    names = {name.split(".")[1] for name in model.state_dict() if name.startswith("blocks")}
    assert names == {"a0", "f1"}
    plain = xt_blocks.lower(blockdsl.compile("(a f)*3", causal=True, rotary_pos_emb=True, **SIZES))
    for i in range(3):
        plain.blocks[f"a{2 * i}"].load_state_dict(model.blocks["a0"].state_dict())  # type: ignore[index]
        plain.blocks[f"f{2 * i + 1}"].load_state_dict(model.blocks["f1"].state_dict())  # type: ignore[index]
    plain.norm.load_state_dict(model.norm.state_dict())
    x, _ = inputs(model)
    assert torch.equal(plain(x), model(x))


@pytest.mark.parametrize("name", VARIANTS)
def test_copies_are_equal_and_independent(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    out = model(x, **extra)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ]
    fresh = stack(name)
    fresh.load_state_dict(model.state_dict())
    for other in [*copies, fresh]:
        assert torch.equal(other(x, **extra), out)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1.0)
    assert torch.equal(model(x, **extra), out)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", VARIANTS)
def test_modules_run_in_their_own_type(name: str, dtype: torch.dtype) -> None:
    model = stack(name).to(dtype)
    x, extra = inputs(model)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    out = model(x.to(dtype), mask=mask, **{k: v.to(dtype) for k, v in extra.items()})
    assert out.dtype == dtype
    assert out.isfinite().all()
    reference = copy.deepcopy(model).double()
    exact = reference(x.to(dtype).double(), mask=mask, **{k: v.to(dtype).double() for k, v in extra.items()})
    error = (out.double() - exact)[mask].norm() / exact[mask].norm()
    assert error < {torch.bfloat16: 0.03, torch.float16: 0.004, torch.float64: 1e-6}[dtype]


@pytest.mark.parametrize("name", ["rotary", "residual attention", "parallel chains", "cross", "shift 2"])
def test_autocast_trains_and_decodes(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = model(x, **extra)
        cache = model.new_cache(2, 7)
        parts = [model(x[:, :3], cache=cache, **extra), model(x[:, 3:], cache=cache)]
    assert whole.isfinite().all()
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 0.1


def test_shape_and_mask_errors_are_in_the_users_words() -> None:
    model, cross = stack("plain"), stack("cross")
    x, context = torch.randn(2, 7, 24), torch.randn(2, 5, 24)
    wrong: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
        (model, (torch.randn(2, 7, 8),), {}, r"x must be \(batch, seq, 24\), not \(2, 7, 8\)"),
        (model, (x,), {"context": context}, "a context is given, but no block reads one"),
        (cross, (x,), {}, "the stack has cross-attention: give context="),
        (cross, (x,), {"context": context[:1]}, r"context must be \(2, seq, 24\), not \(1, 5, 24\)"),
        (cross, (x,), {"context": context[..., :8]}, r"context must be \(2, seq, 24\), not \(2, 5, 8\)"),
        (model, (x,), {"mask": torch.ones(2, 7)}, "mask must be boolean, True = attend, not torch.float32"),
        (model, (x,), {"mask": torch.ones(2, 6).bool()}, r"mask must be \(2, 7\), not \(2, 6\)"),
        (cross, (x,), {"context": context, "context_mask": torch.ones(2, 7).bool()}, r"context_mask must be \(2, 5\)"),
        (model, (x,), {"context_mask": torch.ones(2, 5).bool()}, "a context_mask is given, but no context"),
    ]
    for module, args, kwargs, message in wrong:
        with pytest.raises(ValueError, match=message):
            module(*args, **kwargs)


def test_values_are_dropped_when_nothing_reads_them_any_more() -> None:
    model = stack("parallel chains")
    alive = {"input"}
    for step in model.plan:
        assert set(step.reads) <= alive
        assert step.base is None or step.base in alive
        alive = (alive | {step.node}) - set(step.done)
    assert alive == {model.plan[-1].node}


def test_lowering_leaves_the_graph_alone() -> None:
    graph = blockdsl.compile("a f", dim=8)
    before = graph.to_json()
    model = xt_blocks.lower(graph)
    graph.nx.nodes["f1"]["options"]["mult"] = 2
    assert model.graph.to_json() == before


def test_a_node_that_torch_has_a_name_for_is_refused() -> None:
    graph = blockdsl.compile("a f", dim=8)
    graph.nx = nx.relabel_nodes(graph.nx, {"a0": "keys"})
    with pytest.raises(blockdsl.GraphError, match="keys: torch's modules use this name themselves"):
        xt_blocks.lower(graph)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_hook_on_a_block_sees_every_pass_through_it(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    calls: list[str] = []
    for node, block in model.blocks.items():
        block.register_forward_hook(lambda *_, node=node: calls.append(node))  # type: ignore[misc]
    model(x, **extra)
    assert len(calls) == len(model.graph.nodes("block"))
    assert set(calls) == set(model.blocks)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_the_same_with_every_block_checkpointed(name: str) -> None:
    plain = stack(name, attn_dropout=0.2, ff_dropout=0.2, layer_dropout=0.2).train()
    checkpointed = copy.deepcopy(plain)
    apply_activation_checkpointing(checkpointed, check_fn=lambda module: isinstance(module, xt_blocks.Block))
    x, extra = inputs(plain)
    for model in (plain, checkpointed):
        torch.manual_seed(1)
        model(x, **extra).square().mean().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_half_precision_trains_with_every_block_checkpointed() -> None:
    plain = stack("T5 bias").train()
    checkpointed = copy.deepcopy(plain)
    apply_activation_checkpointing(checkpointed, check_fn=lambda module: isinstance(module, xt_blocks.Block))
    x, extra = inputs(plain)
    for model in (plain, checkpointed):
        with torch.autocast("cpu", dtype=torch.float16):
            out = model(x, **extra)
        out.float().square().mean().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_gradients_are_the_same_with_the_whole_stack_checkpointed() -> None:
    model = stack("parallel chains", attn_dropout=0.2, layer_dropout=0.2).train()
    x = inputs(model)[0].requires_grad_()
    grads = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(run(x).square().mean(), [x, *model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1])


def test_without_gradients_a_pass_holds_two_streams_however_deep() -> None:
    model = stack("plain")
    x, _ = inputs(model)
    streams: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []

    def count(block: object, args: object, out: BlockOutput) -> None:
        streams.append(weakref.ref(out.stream))
        held.append(sum(stream() is not None for stream in streams))

    for block in model.blocks.values():
        block.register_forward_hook(count)
    with torch.no_grad():
        model(x)
    assert held == [1, 2, 2, 2]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_parameters_may_be_swapped_and_stacked() -> None:
    models = [stack("ties") for _ in range(3)]
    x, _ = inputs(models[0])
    parameters, _ = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    out = torch.func.vmap(lambda own: torch.func.functional_call(models[0], own, (x,)))(parameters)
    for row, model in zip(out, models, strict=True):
        torch.testing.assert_close(row, model(x), rtol=1e-5, atol=1e-6)


# Deep stacks ---------------------------------------------------------------------------------------------------------


def calls(run: Callable[[], Any]) -> int:
    """How many Python functions run."""
    count = 0

    def note(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


DEEP = ["(a f)*{}", "(a & f)*{}", "(a@x f@y)*{}", "a & (a f)*{}"]


@pytest.mark.parametrize("pattern", DEEP)
def test_building_a_stack_is_linear_in_its_blocks(pattern: str) -> None:
    graphs = [blockdsl.compile(pattern.format(n), **SIZES, residual_attn=True) for n in (20, 60, 100)]
    few, some, many = (calls(lambda graph=graph: xt_blocks.lower(graph)) for graph in graphs)  # type: ignore[misc]
    assert many - some == pytest.approx(some - few, rel=0.02)


@pytest.mark.parametrize("pattern", DEEP)
def test_running_a_stack_is_linear_in_its_blocks(pattern: str) -> None:
    models = [xt_blocks.Decoder(pattern=pattern.format(n), **SIZES).eval() for n in (20, 60, 100)]
    x = torch.randn(1, 3, SIZES["dim"])
    few, some, many = (calls(lambda model=model: model(x)) for model in models)  # type: ignore[misc]
    assert many - some == pytest.approx(some - few, rel=0.02)
    assert (many - few) / 160 < 80  # a block; half of them are those of modules
