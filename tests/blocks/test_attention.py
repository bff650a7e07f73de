"""Attention against a loop written out in float64, fused against explicit, and rows that see nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from xt_blocks import Attention, CrossAttention
from xt_blocks.kernels import table
from xt_blocks.kernels.masks import AttentionMask, Masks, MaskSpec
from xt_blocks.kernels.request import Request
from xt_blocks.kernels.scores.spec import ScoreSpec
from xt_blocks.positions import Rotary, Rotation


def reference(q: Tensor, k: Tensor, v: Tensor, visible: list[list[bool]]) -> Tensor:
    """One head of one row, a query at a time: q (i, d), k and v (j, d), visible[i][j]."""
    out = torch.zeros(q.shape[0], v.shape[1], dtype=torch.float64)
    for i in range(q.shape[0]):
        seen = [j for j in range(k.shape[0]) if visible[i][j]]
        weights = [math.exp((q[i] @ k[j]).item() / math.sqrt(q.shape[1])) for j in seen]
        for j, weight in zip(seen, weights, strict=True):
            out[i] += weight / sum(weights) * v[j]
    return out


def by_hand(layer: Attention, x: Tensor, visible: list[list[bool]]) -> Tensor:
    heads, rows = layer.heads, []
    d = layer.output.to_out.in_features // heads
    qkv = x @ layer.to_qkv.weight.T
    for row in qkv:
        q, k, v = row.split(heads * d, dim=-1)
        cut = [slice(h * d, (h + 1) * d) for h in range(heads)]
        rows.append(torch.cat([reference(q[:, c], k[:, c], v[:, c], visible) for c in cut], dim=-1))
    return torch.stack(rows) @ layer.output.to_out.weight.T


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_the_written_out_sum(causal: bool) -> None:
    layer = Attention(dim=11, heads=3, dim_head=5, causal=causal).double()
    x = torch.randn(2, 7, 11, dtype=torch.float64)
    visible = [[not causal or j <= i for j in range(7)] for i in range(7)]
    torch.testing.assert_close(layer(x), by_hand(layer, x, visible))


@pytest.mark.parametrize(("back", "ahead"), [(None, 0), (None, 2), (0, 1), (2, 3), (1, 0), (0, 0), (9, 9)])
@pytest.mark.parametrize("flash", [False, True])
def test_a_window_both_ways_is_the_written_out_sum(back: int | None, ahead: int, flash: bool) -> None:
    layer = Attention(dim=11, heads=3, dim_head=5, max_attend_past=back, max_attend_future=ahead, flash=flash).double()
    x = torch.randn(2, 7, 11, dtype=torch.float64)
    visible = [[(back is None or i - j <= back) and j - i <= ahead for j in range(7)] for i in range(7)]
    torch.testing.assert_close(layer(x), by_hand(layer, x, visible))


def test_a_causal_block_has_no_window_ahead() -> None:
    with pytest.raises(ValueError, match="max_attend_future=2 is set, but a causal block attends to no later token"):
        Attention(dim=11, causal=True, max_attend_future=2)


def test_windows_ahead_are_seen_in_memory_and_in_padded_rows() -> None:
    layer = Attention(dim=11, heads=1, dim_head=5, max_attend_past=1, max_attend_future=1).double()
    x = torch.randn(1, 9, 11, dtype=torch.float64)
    whole = layer(x)
    torch.testing.assert_close(layer(x[:, 4:], memory=x[:, :4]), whole[:, 4:])
    padded = torch.cat((torch.randn(1, 3, 11, dtype=torch.float64), x), dim=1)
    mask = torch.arange(12)[None] >= 3
    torch.testing.assert_close(layer(padded, mask=mask)[:, 3:], whole)


def test_cross_attention_is_the_written_out_sum() -> None:
    layer = CrossAttention(dim=11, heads=1, dim_head=5).double()
    x, context = torch.randn(1, 3, 11, dtype=torch.float64), torch.randn(1, 7, 11, dtype=torch.float64)
    k, v = (context[0] @ layer.to_kv.weight.T).split(5, dim=-1)
    out = reference(x[0] @ layer.to_q.weight.T, k, v, [[j != 2 for j in range(7)]] * 3)
    mask = torch.tensor([[j != 2 for j in range(7)]])
    torch.testing.assert_close(layer(x, context=context, context_mask=mask)[0], out @ layer.output.to_out.weight.T)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_fused_and_explicit_agree(causal: bool, past: int, padded: bool) -> None:
    n, keys = 5, 5 + past
    q, k, v = torch.randn(3, 2, n, 8), torch.randn(3, 2, keys, 8), torch.randn(3, 2, keys, 8)
    mask = torch.arange(keys) < torch.tensor([[keys], [3], [0]]) if padded else None
    request = Request(q, k, v, Masks(n, past, mask).tokens(MaskSpec(causal)), ScoreSpec(8**-0.5))
    explicit, scores = table.run("explicit", request._replace(keep_scores=True))
    assert scores is not None
    torch.testing.assert_close(table.run("sdpa", request)[0], explicit)
    torch.testing.assert_close(scores.before, torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(8))


def test_masks_say_what_is_seen() -> None:
    masks = Masks(3, 2, torch.tensor([[False, True, True, True, False]]))
    allowed = masks.tokens(MaskSpec(True)).allowed
    assert allowed is not None
    assert allowed[0, 0].tolist() == [
        [False, True, True, False, False],
        [False, True, True, True, False],
        [False, True, True, True, False],
    ]
    assert masks.tokens(MaskSpec(True)) is masks.tokens(MaskSpec(True))  # made once a forward pass
    assert Masks(3).tokens(MaskSpec(True)).is_causal  # the fused kernel's own
    assert Masks(3).tokens(MaskSpec(False)).allowed is None
    assert Masks(1, 9).tokens(MaskSpec(True)).allowed is None  # one new token sees all before it


@pytest.mark.parametrize("causal", [False, True])
def test_a_row_that_sees_nothing_is_finite_and_has_finite_gradients(causal: bool) -> None:
    layer = Attention(dim=8, heads=2, dim_head=4, causal=causal)
    x = torch.randn(2, 5, 8, requires_grad=True)
    mask = torch.tensor([[True] * 5, [False] * 5])
    out = layer(x, mask=mask)
    assert torch.equal(out[1], torch.zeros(5, 8))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_a_masked_context_leaves_no_trace() -> None:
    layer = CrossAttention(dim=8, heads=2, dim_head=4)
    x, mask = torch.randn(2, 3, 8), torch.tensor([[False] * 4, [True, False, False, True]])
    one, two = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    two[1, [0, 3]] = one[1, [0, 3]]
    assert torch.equal(layer(x, context=one, context_mask=mask), layer(x, context=two, context_mask=mask))


def test_kept_scores_are_added_to_the_next_ones() -> None:
    layer = Attention(dim=8, heads=2, dim_head=4, residual_attn=True)
    x, before = torch.randn(1, 3, 8), torch.randn(1, 2, 3, 3)
    q, k, v = layer.project(x)
    scores = q @ k.transpose(-1, -2) / 2 + before
    out, kept = layer(x, scores=before, keep_scores=True)
    torch.testing.assert_close(kept.before, scores)
    torch.testing.assert_close(kept.weights, scores.softmax(-1))
    torch.testing.assert_close(out, layer.output.to_out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))
    with pytest.raises(ValueError, match="residual_attn is false"):
        Attention(dim=8)(x, scores=before)


def test_dropout_acts_in_training_only() -> None:
    layer = Attention(dim=8, heads=2, dim_head=4, dropout=0.5)
    x = torch.randn(2, 9, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def rotation(positions: Tensor, dim: int, **said: Any) -> Rotation:
    return Rotary(dim, **said).rotation(positions)


def test_rotary_turns_pairs_by_hand_computed_angles() -> None:
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64)
    turned = rotation(torch.tensor([0, 1, 2, 500]), 4).apply(x)
    for row, position in enumerate([0, 1, 2, 500]):
        for i in range(2):
            angle = position * 10_000 ** (-2 * i / 4)
            a, b = float(x[0, 0, row, i]), float(x[0, 0, row, i + 2])
            assert float(turned[0, 0, row, i]) == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-4)
            assert float(turned[0, 0, row, i + 2]) == pytest.approx(b * math.cos(angle) + a * math.sin(angle), abs=1e-4)
    assert torch.equal(turned[..., 4:], x[..., 4:])


@pytest.mark.parametrize("theta", [500.0, 1e6])
def test_theta_is_the_base_of_the_frequencies(theta: float) -> None:
    x = torch.randn(1, 1, 2, 8, dtype=torch.float64)
    turned = rotation(torch.tensor([3, 40]), 8, theta=theta).apply(x)
    for row, position in enumerate([3, 40]):
        for i in range(4):
            angle = position / theta ** (2 * i / 8)
            a, b = float(x[0, 0, row, i]), float(x[0, 0, row, i + 4])
            assert float(turned[0, 0, row, i]) == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-5)


def test_a_stack_rotates_by_what_the_nodes_and_edges_say() -> None:
    """Written out: the second block has another theta, the third none."""
    graph = blockdsl.compile(
        "a a(rotary_theta=50) a(rotary=false)", dim=12, heads=2, attn_dim_head=4, rotary_pos_emb=True, rotary_emb_dim=4
    )
    stack = xt_blocks.lower(graph).double().eval()
    x = torch.randn(1, 6, 12, dtype=torch.float64)
    expected = x
    for block, theta in zip(stack.blocks.values(), (1e4, 50.0, None), strict=True):
        turn = None if theta is None else rotation(torch.arange(6), 4, theta=theta)
        expected = expected + block.layer(block.norm(expected), rotary=turn)
    torch.testing.assert_close(stack(x), stack.norm(expected))
    graph.nx.nodes["rotary4x"]["theta"] = 70.0
    edited = xt_blocks.lower(graph).double().eval()
    edited.load_state_dict(stack.state_dict())
    assert not torch.allclose(edited(x), stack(x))
    graph.nx.remove_edge("rotary4", "a0")  # nothing reads the node then
    graph.nx.remove_node("rotary4")
    text = "a(rotary=false) a(rotary_theta=70) a(rotary=false)"
    same = blockdsl.compile(text, dim=12, heads=2, attn_dim_head=4, rotary_pos_emb=True, rotary_emb_dim=4)
    assert not graph.diff(same)


def test_rotary_angles_are_float32_in_any_module() -> None:
    far = torch.arange(100_000, 100_008)
    q = torch.randn(1, 1, 8, 64)
    exact, low = rotation(far, 64).apply(q), rotation(far, 64).apply(q.bfloat16())
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().max() < 0.05  # the rounding of bfloat16 itself, not of its angles


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(i: int, j: int) -> float:
        turned = rotation(torch.tensor([i]), 16).apply(q) * rotation(torch.tensor([j]), 16).apply(k)
        return float(turned.sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-3)
    assert abs(score(7, 3) - score(3, 7)) > 1e-3


@pytest.mark.parametrize("kv_heads", [3, 1])
@pytest.mark.parametrize("dim", [8, 4])
@pytest.mark.parametrize("said", [{}, {"interleaved": True}, {"scaling": "yarn", "factor": 4, "original_len": 64}])
def test_a_single_tokens_queries_and_keys_turn_as_each_does(dim: int, kv_heads: int, said: dict[str, Any]) -> None:
    q, k = torch.randn(2, 3, 1, 8), torch.randn(2, kv_heads, 1, 8)
    for turns in (
        rotation(torch.tensor([5]), dim, **said),
        rotation(torch.tensor([[5], [9]]), dim, **said),
    ):  # of all rows, of each
        for own, x in zip(turns.both(q, k), (q, k), strict=True):
            torch.testing.assert_close(own, turns.apply(x))
    for own, x in zip(rotation(torch.tensor([5]), dim, **said).both(q.bfloat16(), k.bfloat16()), (q, k), strict=True):
        assert torch.equal(own, rotation(torch.tensor([5]), dim, **said).apply(x.bfloat16()))
    with torch.autocast("cpu", torch.bfloat16):  # multiplies float32 in bfloat16
        for own, x in zip(rotation(torch.tensor([5]), dim, **said).both(q, k), (q, k), strict=True):
            assert torch.equal(own, rotation(torch.tensor([5]), dim, **said).apply(x))


def test_explicit_scores_of_large_float16_features_are_finite_as_the_fused_ones() -> None:
    q = torch.full((1, 1, 2, 64), 50.0, dtype=torch.float16)  # q·k is 160,000, its 64-th part fits
    v = torch.randn(1, 1, 2, 64).half()
    request = Request(q, q, v, AttentionMask(queries=2), ScoreSpec(1 / 8))
    out, scores = table.run("explicit", request._replace(keep_scores=True))
    assert scores is not None
    assert scores.before.unique().tolist() == [20_000.0]
    torch.testing.assert_close(out, table.run("sdpa", request)[0])


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("mem_kv", [0, 2])
def test_a_single_query_of_heads_that_share_keys_is_the_first_of_two(kv_heads: int, flash: bool, mem_kv: int) -> None:
    options = {"kv_heads": kv_heads, "flash": flash, "num_mem_kv": mem_kv}
    layer = CrossAttention(dim=12, heads=4, dim_head=5, value_dim_head=3, **options).double()
    x, context = (torch.randn(3, n, 12, dtype=torch.float64, requires_grad=True) for n in (1, 6))
    real = torch.arange(6) < torch.tensor([[6], [3], [0]])  # the last row sees nothing but memory
    for seen in (None, real):
        outs = [layer(x.expand(-1, queries, -1), context, seen)[:, :1] for queries in (1, 2)]
        torch.testing.assert_close(*outs)
        weight = torch.randn_like(x)
        torch.testing.assert_close(
            *(torch.autograd.grad((out * weight).sum(), (x, context, *layer.parameters())) for out in outs)
        )


def test_a_layer_on_its_own_checks_its_mask() -> None:
    x = torch.randn(2, 3, 8)
    with pytest.raises(ValueError, match=r"mask must be boolean, True = attend, not torch\.float32"):
        Attention(dim=8)(x, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"context_mask must be \(2, 5\), not \(1, 5\)"):
        CrossAttention(dim=8)(x, context=torch.randn(2, 5, 8), context_mask=torch.ones(1, 5).bool())


@pytest.mark.parametrize("how", [{"cross_attn_tokens_dropout": 0.5}, {"pattern": "c(tokens_dropout=0.5)"}])
def test_in_training_a_row_does_not_see_a_share_of_the_contexts_real_tokens(how: dict[str, Any]) -> None:
    order = {} if "pattern" in how else {"pattern": "c"}
    stack = xt_blocks.Decoder(dim=12, heads=2, attn_dim_head=6, **(order | how))
    x, context = torch.randn(3, 2, 12), torch.randn(3, 8, 12)
    real = torch.arange(8) < torch.tensor([[8], [5], [1]])
    record = xt_blocks.Intermediates(keep_attention=True)
    stack.train()(x, context=context, context_mask=real, intermediates=record)
    seen = record.attn_maps[0].gt(0)
    assert (seen == seen[:, :1, :1]).all(), "one draw a row"
    assert not (seen[:, 0, 0] & ~real).any()
    assert seen[:, 0, 0].sum(dim=1).tolist() == [4, 3, 1]
    record = xt_blocks.Intermediates(keep_attention=True)
    stack.eval()(x, context=context, context_mask=real, intermediates=record)
    assert torch.equal(record.attn_maps[0][:, 0, 0].gt(0), real)
