"""Looking inside a pass: streams, scores and weights of attention, what is returned and in which order."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import xt_blocks
from xt_blocks import Decoder, Encoder, TransformerWrapper
from xt_blocks.kernels import table
from xt_blocks.kernels.request import AttentionKernel
from xt_blocks.runtime.intermediates import Intermediates
from xt_blocks.runtime.memories import Memories

from .variants import EITHER_WAY, SIZES, VARIANTS, inputs, stack, tokens


def of_pattern(pattern: str, causal: bool = True, around: dict[str, Any] | None = None, **options: Any) -> Any:
    layers = (Decoder if causal else Encoder)(pattern=pattern, **(SIZES | (around or {})))
    given = {"num_tokens": 17, "max_seq_len": 16, "max_mem_len": 8} | options
    return TransformerWrapper(attn_layers=layers, **given).eval()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# What is returned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", list(product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("out", ["logits", "embeddings", "both"])
def test_what_was_asked_for_comes_in_one_order(out: str, asked: tuple[bool, bool, bool]) -> None:
    net, x = of_pattern("(a f)*2", num_memory_tokens=1), tokens(2, 5)
    names = ("return_intermediates", "return_mems", "return_attn")
    how = {"embeddings": {"return_embeddings": True}, "both": {"return_logits_and_embeddings": True}}.get(out, {})
    given = net(x, **how, **dict(zip(names, asked, strict=True)))
    first, *rest = given if any(asked) else (given,)
    if any(asked):
        assert isinstance(given, tuple)
    kinds = [kind for kind, wanted in zip((Intermediates, Memories, list), asked, strict=True) if wanted]
    assert [type(part) for part in rest] == kinds
    logits, embeddings = net(x), net(x, return_embeddings=True)
    for ours, theirs in zip(
        first if out == "both" else (first,),
        {"logits": (logits,), "embeddings": (embeddings,), "both": (logits, embeddings)}[out],
        strict=True,
    ):
        close(ours, theirs)
    if asked[0]:
        record = rest[0]
        assert (record.mems is not None) == asked[1]
        assert len(record.attn_maps) == 2
        assert len(record.layer_hiddens) == 5
        if asked[2]:
            assert all(one is other for one, other in zip(rest[-1], record.attn_maps, strict=True))
    elif asked[1]:
        assert rest[0].length == 6


def test_memories_alone_leave_attention_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noting(kernel: AttentionKernel) -> AttentionKernel:
        return replace(kernel, run=lambda request: calls.append(kernel.name) or kernel.run(request))  # type: ignore[func-returns-value]

    monkeypatch.setattr(table, "KERNELS", tuple(map(noting, table.KERNELS)))
    net, x = of_pattern("a f a"), tokens(1, 4)
    for how, want in (
        ({}, "sdpa"),
        ({"return_attn": True}, "explicit"),
        ({"return_mems": True}, "sdpa"),
        ({"return_intermediates": True}, "explicit"),
        ({}, "sdpa"),
    ):
        calls.clear()
        net(x, **how)
        assert calls == [want] * 2


@pytest.mark.parametrize(("name", "causal"), EITHER_WAY)
def test_a_record_changes_no_number(name: str, causal: bool) -> None:
    model = stack(name, causal)
    x, extra = inputs(model)
    mask = torch.tensor([[True] * 7, [False] * 3 + [True] * 4])
    record = Intermediates(keep_attention=True)
    out, want = model(x, mask=mask, intermediates=record, **extra), model(x, mask=mask, **extra)
    torch.testing.assert_close(out[mask], want[mask], rtol=1e-5, atol=3e-6)
    graph = model.graph
    blocks = graph.nodes("block")
    assert sorted(record.streams) == sorted(blocks)
    assert sorted(record.attention) == sorted(n for n in blocks if graph.block(n)["kind"] in ("a", "c"))
    for node, scores in record.attention.items():
        options = graph.nx.nodes[node]["options"]
        keys = (5 if graph.block(node)["kind"] == "c" else 7) + options["num_mem_kv"]
        assert scores.weights.shape == scores.before.shape == (2, options["heads"], 7, keys)
        sums = scores.weights.abs().sum(dim=-1).movedim(1, -1)[mask]
        if options["sink"] or options["add_zero_kv"]:
            assert (sums < 1).all()
        elif not options["sigmoid"]:
            assert (sums - 1).abs().max() < 1e-5
        if graph.block(node)["kind"] == "a":
            assert (scores.weights[1, :, :, options["num_mem_kv"] :][..., :3] == 0).all()
            if causal:
                assert (scores.weights[..., options["num_mem_kv"] :].triu(1) == 0).all()
        if options["sparse_topk"] is not None:
            assert (scores.weights > 0).sum(dim=-1).max() <= options["sparse_topk"]


@pytest.mark.parametrize("cls", [Encoder, Decoder])
def test_a_stack_gives_its_hiddens(cls: Any) -> None:
    model, x = cls(pattern="a f & a f", **SIZES).eval(), torch.randn(2, 6, 24)
    out, record = model(x, return_hiddens=True)
    close(out, model(x))
    assert torch.equal(record.streams["a0"], x)
    assert [*record.layer_hiddens[:-1]] == [*record.streams.values()]
    close(model.norm(record.layer_hiddens[-1]), out)
    assert [one is record.streams[node] for one, node in zip(record.hiddens, ("a0", "a2"), strict=True)] == [True] * 2
    assert [*record.attention] == ["a0", "a2"]
    mine = Intermediates(keep_attention=True)
    _, given = model(x, intermediates=mine, return_hiddens=True)
    assert given is mine
    assert len(mine.attn_maps) == 2


# By hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
def test_the_weights_of_one_block_by_hand(causal: bool) -> None:
    net, x = of_pattern("a", causal, num_memory_tokens=2), tokens(2, 5)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    _, record, (weights,) = net(x, mask=mask, return_intermediates=True, return_attn=True)
    embedded = net.token_emb.weight[x] + net.pos_emb.embedding.weight[:5]
    stream = torch.cat((net.memory_tokens.expand(2, -1, -1), embedded), dim=1)
    close(record.streams["a0"], stream)
    block = net.attn_layers.blocks["a0"]
    q, k, _ = (block.norm(stream) @ block.layer.to_qkv.weight.T).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / 8**0.5
    close(record.attention["a0"].before, scores)
    seen = torch.cat((torch.ones(2, 2).bool(), mask), dim=1)[:, None, None, :].expand(2, 3, 7, 7)
    seen = seen.tril() if causal else seen
    exp = scores.exp() * seen
    close(weights, exp / exp.sum(dim=-1, keepdim=True))
    assert (weights[~seen] == 0).all()


def test_weights_of_a_cross_attention_by_hand() -> None:
    net, x, context = of_pattern("c", max_mem_len=0), tokens(2, 4), torch.randn(2, 3, 24)
    shown = torch.tensor([[True, True, True], [True, False, True]])
    _, (weights,) = net(x, context=context, context_mask=shown, return_attn=True)
    block = net.attn_layers.blocks["c0"]
    stream = net.token_emb.weight[x] + net.pos_emb.embedding.weight[:4]
    q = (block.norm(stream) @ block.layer.to_q.weight.T).unflatten(-1, (3, 8))
    k = (context @ block.layer.to_kv.weight.T)[..., :24].unflatten(-1, (3, 8))
    exp = (torch.einsum("bihd,bjhd->bhij", q, k) / 8**0.5).exp() * shown[:, None, None, :]
    close(weights, exp / exp.sum(dim=-1, keepdim=True))


def test_a_row_that_sees_nothing_has_weights_of_zero() -> None:
    net = of_pattern("a", False)
    _, (weights,) = net(tokens(2, 3), mask=torch.tensor([[True] * 3, [False] * 3]), return_attn=True)
    assert (weights[1] == 0).all()


def test_what_the_weights_are_of_with_memories_and_a_cache() -> None:
    net, x = of_pattern("(a f)*2", num_memory_tokens=1, around={"attn_num_mem_kv": 2}), tokens(2, 9)
    front = torch.randn(2, 2, 24)
    _, mems, attn = net(x[:, :4], prepend_embeds=front, return_mems=True, return_attn=True)
    assert [w.shape for w in attn] == [(2, 3, 7, 9)] * 2
    cache = net.new_cache(2, 20)
    _, attn = net(x[:, 4:7], mems=mems, cache=cache, return_attn=True)
    assert [w.shape for w in attn] == [(2, 3, 3, 12)] * 2
    _, record, attn = net(x[:, 7:], cache=cache, return_attn=True, return_intermediates=True)
    assert [w.shape for w in attn] == [(2, 3, 2, 14)] * 2
    assert record.hiddens[0].shape == (2, 2, 24)
    close(attn[0].sum(dim=-1), torch.ones(2, 3, 2))


def test_gradients_flow_through_what_is_returned() -> None:
    net = of_pattern("a f").train()
    _, (weights,) = net(tokens(2, 5), return_attn=True)
    weights[..., 0].sum().backward()
    assert net.attn_layers.blocks["a0"].layer.to_qkv.weight.grad.abs().sum() > 0
    assert isinstance(net.attn_layers, xt_blocks.Stack)


def test_every_variant_is_looked_into() -> None:
    assert {name for name, _ in EITHER_WAY} == {*VARIANTS}
