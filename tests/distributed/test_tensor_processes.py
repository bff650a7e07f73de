"""Tensor parallelism over real processes: training, what is drawn at random, and generation, against one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import xt_blocks
from xt_blocks.distributed.init import local_tensor
from xt_blocks.distributed.tensor import cuts, sum_gradients

from .processes import run, stop
from .split_models import compare, compiled, run_pass, share, whole_model
from .test_tensor import ATTENTION, EVERY_CACHE, PATTERNS, inputs_of

STEPS = 3

TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "decoder": ("(a f)*2", {"attn_kv_heads": 2, "ff_glu": True, "rotary_pos_emb": True, "attn_qk_rmsnorm": "head"}),
    "biases and ties": ("(a f)@u*2", {"rel_pos_bias": True, "attn_out_bias": True, "attn_one_kv_head": True}),
    "experts and scans": ("a e(experts=4, inner=8, z_loss=0.1) gdn(heads=2, dim_head=4) rglru(heads=2)", {}),
    "drawn at random": (
        "(a f a(dropout=0.2) f(dropout=0.2, glu) e(dropout=0.1, experts=4, inner=8))*2",
        {"layer_dropout": 0.3, "attn_sublayer_dropout": 0.2, "ff_sublayer_dropout": 0.1},
    ),
    "whole beside shares": ("a(talking_heads) f m(state=4, heads=4, dim_head=8) a", {"residual_attn": True}),
}


def trained(model: nn.Module, tokens: Tensor, group: Any, graph: Any) -> list[float]:
    """BatchLosses of some steps of SGD; with a group, as one of its ranks."""
    own = cuts(model, graph, group.size()) if group is not None else {}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    wrapper, losses = xt_blocks.AutoregressiveWrapper(model.train()), []
    torch.manual_seed(11)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = wrapper(tokens)
        loss.backward()
        if group is not None:
            sum_gradients(model, own, group)
        optimizer.step()
        losses.append(loss.item())
    return losses


def of_a_rank(names: list[str]) -> dict[str, dict[str, Any]]:
    """Each case trained whole and in shares, twice; how far apart they are, and what they generate."""
    group, out = dist.group.WORLD, {}
    assert group is not None
    for name in names:
        pattern, settings = TRAINED[name]
        graph = compiled(pattern, **settings).with_tokens(17, 32)
        whole = whole_model(graph)
        mine, again = share(whole, graph, group), share(whole, graph, group)
        tokens = torch.randint(0, 17, (3, 9), generator=torch.Generator().manual_seed(5))
        losses = [
            trained(whole, tokens, None, graph),
            *(trained(model, tokens, group, graph) for model in (mine, again)),
        ]
        own = cuts(whole, graph, group.size())
        weights = {
            n: local_tensor(p.detach(), own.get(n), group.size(), group.rank()) for n, p in whole.named_parameters()
        }
        apart = max((p.detach() - weights[n]).abs().max().item() for n, p in mine.named_parameters())
        prompt = tokens[:, :4]
        written = [
            xt_blocks.AutoregressiveWrapper(model.eval()).generate(
                prompt, 6, temperature=temperature, generator=torch.Generator().manual_seed(1)
            )
            for model in (whole, mine)
            for temperature in (0.0, 1.0)
        ]
        out[name] = {
            "losses": losses,
            "apart": apart,
            "same bits": all(torch.equal(a, b) for a, b in zip(mine.parameters(), again.parameters(), strict=True)),
            "same tokens": torch.equal(written[0], written[2]) and torch.equal(written[1], written[3]),
            "replicas": {n: p.detach() for n, p in mine.named_parameters() if n not in own},
            "in shares": len(own),
        }
    return out


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.distributed)])
def test_training_and_generation(ranks: int) -> None:
    found = run(of_a_rank, ranks, [*TRAINED])
    for name in TRAINED:
        for own in (rank[name] for rank in found):
            one_process, *shares = own["losses"]
            assert shares[0] == shares[1], name
            assert shares[0] == pytest.approx(one_process, abs=1e-9), name
            assert own["apart"] < 1e-9, name
            assert own["same bits"], name
            assert own["same tokens"], name
            assert own["in shares"] > 2, name
            for parameter, value in own["replicas"].items():
                assert torch.equal(value, found[0][name]["replicas"][parameter]), (name, parameter)


def every_option_of_a_rank() -> int:
    """Each option held against the whole model, over processes."""
    group = dist.group.WORLD
    assert group is not None
    cases = {name: ("a f a", settings) for name, settings in ATTENTION.items()} | PATTERNS
    for pattern, settings in cases.values():
        graph = compiled(pattern, **settings)
        whole, inputs = whole_model(graph), inputs_of(graph)
        compare(graph, whole, inputs, group, run_pass(whole, inputs))
    return len(cases)


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_option(ranks: int) -> None:
    assert run(every_option_of_a_rank, ranks) == [len(ATTENTION) + len(PATTERNS)] * ranks


def every_cache_of_a_rank() -> tuple[bool, Tensor]:
    group = dist.group.WORLD
    assert group is not None
    graph = compiled(EVERY_CACHE, rotary_pos_emb=True, rglru_heads=4).with_tokens(17, 32)
    whole = whole_model(graph).eval()
    prompt = torch.randint(0, 17, (2, 5), generator=torch.Generator().manual_seed(4))
    models = whole, share(whole, graph, group)
    texts = [xt_blocks.AutoregressiveWrapper(model).generate(prompt, 12, temperature=0.0) for model in models]
    return torch.equal(*texts), texts[1]


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_cache(ranks: int) -> None:
    found = run(every_cache_of_a_rank, ranks)
    assert all(same and torch.equal(text, found[0][1]) for same, text in found)


def sharded_of_a_rank(fsdp: int, compiles: bool) -> dict[str, float]:
    """Gradients of a model whose blocks are compiled, and whose shares are sharded over further ranks."""
    mesh = init_device_mesh("cpu", (fsdp, dist.get_world_size() // fsdp), mesh_dim_names=("fsdp", "tp"))
    group = mesh["tp"].get_group()
    graph = compiled("(a(kv_heads=1) f)*2 a(kv_rank=6) e(experts=4, inner=8)", attn_qkv_bias=True, rel_pos_bias=True)
    whole, inputs = whole_model(graph), inputs_of(graph)
    expected, model = run_pass(whole, inputs), share(whole, graph, group)
    for block in model.blocks.values():
        if compiles:
            block.compile(backend="aot_eager")
        if fsdp > 1:
            fully_shard(block, mesh=mesh["fsdp"])
    own, found = cuts(model, graph, group.size()), run_pass(model, inputs)
    sum_gradients(model, own, group)
    torch.testing.assert_close((found.out, found.of_inputs), (expected.out, expected.of_inputs))
    apart = {}
    for name, parameter in model.named_parameters():
        if (grad := parameter.grad) is not None:
            grad = grad.full_tensor() if isinstance(grad, DTensor) else grad
            wanted = local_tensor(expected.gradients[name], own.get(name), group.size(), group.rank())
            apart[name] = (grad - wanted).abs().max().item()
    return apart


@pytest.mark.distributed
@pytest.mark.parametrize(("ranks", "fsdp", "compiles"), [(2, 1, True), (4, 2, False), (4, 2, True)])
def test_sharded_and_compiled_blocks(ranks: int, fsdp: int, compiles: bool) -> None:
    stop()  # what is compiled keeps the names of process groups
    for apart in run(sharded_of_a_rank, ranks, fsdp, compiles):
        assert len(apart) > 30
        assert max(apart.values()) < 1e-9, apart
