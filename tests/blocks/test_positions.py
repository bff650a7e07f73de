"""Relative positions by formulas written out here, and what holds for each of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import blockdsl
import xt_blocks
from blockdsl import GraphError, PatternError, UserError
from xt_blocks.kernels.masks import Bias
from xt_blocks.positions.bias import ALiBi, DynamicBias, T5Bias, slopes
from xt_blocks.positions.relative import consecutive, positions_at, scores_bias

from .variants import SIZES, VARIANTS, inputs, stack

SWITCHES = {"rotary_pos_emb", "rotary_xpos", "rel_pos_bias", "dynamic_pos_bias", "alibi_pos_bias"}
RELATIVE = [name for name, (_, settings) in VARIANTS.items() if SWITCHES & settings.keys()]


def reference_bucket(distance: int, causal: bool, buckets: int, max_distance: int) -> int:
    """T5's, token by token (arXiv:1910.10683, 2.1)."""
    start = 0
    if not causal:
        buckets //= 2
        start = buckets if distance < 0 else 0
        distance = abs(distance)
    distance = max(distance, 0)
    exact = buckets // 2
    if distance < exact:
        return start + distance
    far = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact))
    return start + min(far, buckets - 1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (8, 20), (5, 9)])
def test_t5_buckets(causal: bool, buckets: int, most: int) -> None:
    bias = T5Bias(2, causal, buckets, most, 1.0)
    distances = range(-300, 300)
    expected = [reference_bucket(d, causal, buckets, most) for d in distances]
    assert bias.bucket(torch.tensor(distances)).tolist() == expected


@pytest.mark.parametrize(("scale", "factor"), [(None, 8**0.5), (1, 1.0), (0.5, 0.5)])
def test_t5_values_are_added_times_a_factor(scale: float | None, factor: float) -> None:
    settings = {"rel_pos_bias": True, "rel_pos_scale": scale}
    graph = blockdsl.compile("(a f)*2", dim=16, heads=2, attn_dim_head=8, **settings)
    assert graph.nx.nodes["t5_bias2"]["scale"] == factor
    bias = xt_blocks.lower(graph).positions["t5_bias2"]
    assert isinstance(bias, T5Bias)
    distance = torch.tensor([0, 3, -200])
    expected = torch.stack([bias.buckets.weight[reference_bucket(int(d), False, 32, 128)] for d in distance])
    torch.testing.assert_close(bias(distance), expected * factor)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [1 / 256]),
        (2, [1 / 16, 1 / 256]),
        (4, [1 / 4, 1 / 16, 1 / 64, 1 / 256]),
        (3, [1 / 16, 1 / 256, 1 / 4]),
        (6, [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]),
        (8, [2**-i for i in range(1, 9)]),
    ],
)
def test_alibi_slopes(heads: int, expected: list[float]) -> None:
    assert slopes(heads) == pytest.approx(expected)


@pytest.mark.parametrize("learned", [False, True])
def test_alibi_falls_to_both_sides_and_leaves_the_other_heads(learned: bool) -> None:
    for scale in (1.0, 0.3):
        bias = scores_bias(ALiBi(5, 2, learned, scale), consecutive(3, 2, "cpu")).whole()[0]
        for i in range(3):
            for j in range(5):
                far = scale * abs(i + 2 - j)
                assert bias[:, i, j].tolist() == pytest.approx([-far / 16, -far / 256, 0, 0, 0])


@pytest.mark.parametrize("log", [False, True])
def test_dynamic_bias_is_its_network_of_the_distance(log: bool) -> None:
    module = DynamicBias(2, 3, depth=2, log_distance=log).double()
    first, second, last = (layer.weight for layer in (*module.layers, module.to_bias))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    bias = scores_bias(module, consecutive(2, 1, "cpu")).whole()[0]
    for i in range(2):
        for j in range(3):
            d = float(i + 1 - j)
            x = torch.tensor([math.copysign(math.log1p(abs(d)), d) if log else d], dtype=torch.float64)
            for weight, layer in ((first, module.layers[0]), (second, module.layers[1])):
                x = weight @ x + layer.bias
                x = x / (1 + torch.exp(-x))
            torch.testing.assert_close(bias[:, i, j], last @ x + module.to_bias.bias)


@pytest.mark.parametrize("module", [T5Bias(3, True, 8, 9, 2.0), DynamicBias(3, 4, norm=True), ALiBi(3, 2)])
def test_consecutive_positions_and_the_same_given_one_by_one_agree(module: nn.Module) -> None:
    plain = scores_bias(module, consecutive(4, 3, "cpu")).whole()
    one = scores_bias(module, positions_at(torch.arange(3, 7), None, 3)).whole()
    rows = scores_bias(module, positions_at(torch.stack((torch.arange(3, 7), torch.arange(9, 13))), None, 3)).whole()
    torch.testing.assert_close(plain, one)
    torch.testing.assert_close(plain.expand(2, -1, -1, -1), rows)


# learned memory keys stand where the sequence starts, and a context has positions of its own
@pytest.mark.parametrize(
    "name", [name for name in RELATIVE if name not in ("memory kv, rotary", "cross, both rotated")]
)
def test_only_differences_of_positions_count(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    out = model(x, **extra)
    for pos in (torch.arange(7) + 11, torch.stack((torch.arange(7), torch.arange(7) + 40))):
        torch.testing.assert_close(model(x, pos=pos, **extra), out, rtol=1e-4, atol=1e-5)
    apart = torch.tensor([0, 2, 3, 7, 8, 20, 21])
    assert not torch.allclose(model(x, pos=apart, **extra), out, atol=1e-4)


@pytest.mark.parametrize("name", RELATIVE)
def test_given_positions_go_on_in_a_cache(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    pos = torch.tensor([[3, 4, 6, 9, 10, 11, 12], [0, 1, 2, 3, 4, 5, 6]])
    cache = model.new_cache(2, 7)
    parts = [
        model(x[:, :3], pos=pos[:, :3], cache=cache, **extra),
        model(x[:, 3:5], pos=pos[:, 3:5], cache=cache),
        model(x[:, 5:6], cache=cache),  # right behind the last one
        model(x[:, 6:], cache=cache),
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(x, pos=pos, **extra), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("lengths", [(9, 4), (4, 9)])
def test_no_length_leaves_traces_for_the_next(name: str, lengths: tuple[int, int]) -> None:
    torch.manual_seed(1)
    used, fresh = stack(name), stack(name)
    fresh.load_state_dict(used.state_dict())
    for length in lengths:
        x, extra = inputs(used, seq=length)
        last = used(x, **extra)
    assert torch.equal(last, fresh(x, **extra))


def test_memory_keys_have_no_bias() -> None:
    attention = xt_blocks.Attention(24, heads=3, dim_head=8, num_mem_kv=2, causal=True)
    seen: list[torch.Tensor] = []
    attend = attention.attend
    attention.attend = lambda *args: seen.append(args[4].whole_bias(torch.float32)) or attend(*args)  # type: ignore[method-assign, func-returns-value]
    model = stack("plain")
    values = scores_bias(ALiBi(3, 3), consecutive(5, 0, "cpu"))
    attention(torch.randn(2, 5, 24), bias=Bias(("alibi3",), values))
    assert model is not None
    assert seen[0].shape == (1, 3, 5, 7)
    assert (seen[0][..., :2] == 0).all()
    assert torch.equal(seen[0][..., 2:], values.whole())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pattern", ["rotary_xpos", "alibi_pos_bias", "rel_pos_bias", "dynamic_pos_bias"])
def test_far_positions_are_as_exact_as_near_ones_in_low_precision(pattern: str, dtype: torch.dtype) -> None:
    model = xt_blocks.Decoder(dim=16, depth=1, heads=2, attn_dim_head=8, **{pattern: True}).to(dtype).eval()
    x = torch.randn(1, 6, 16).to(dtype)
    near, far = model(x, pos=torch.arange(6)), model(x, pos=torch.arange(6) + 30_000)
    torch.testing.assert_close(near, far, rtol=0.02, atol=0.02)


def test_xpos_of_a_long_float16_sequence_is_finite() -> None:
    model = xt_blocks.Decoder(dim=16, depth=1, heads=2, attn_dim_head=8, rotary_xpos=True, rotary_xpos_scale_base=32)
    assert model.half().eval()(torch.randn(1, 1500, 16).half()).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rotary_xpos": True, "causal": False},
            r"rotary_xpos decays towards the past, and this attention is not causal\n.*\n.*\n  make it causal, or leave",
        ),
        ({"rotary_xpos": True, "rotary_pos_emb": False}, "rotary_xpos is set, but rotary_pos_emb is false"),
        ({"rotary_xpos": True, "attn_num_mem_kv": 1}, "num_mem_kv's memory key-values have no position"),
        ({"rotary_xpos_scale_base": 9}, "rotary_xpos_scale_base is set, but it needs rotary_xpos"),
        ({"alibi_num_heads": 2}, "alibi_num_heads is set, but it needs alibi_pos_bias"),
        ({"alibi_learned": True}, "alibi_learned is set, but it needs alibi_pos_bias"),
        ({"alibi_pos_bias": True, "alibi_num_heads": 4}, "alibi_num_heads=4 is more than the block's 3 heads"),
        ({"rel_pos_num_buckets": 16}, "rel_pos_num_buckets is set, but it needs rel_pos_bias"),
        ({"rel_pos_bias": True, "rel_pos_max_distance": 9}, "rel_pos_max_distance=9 must be above 16"),
        ({"dynamic_pos_bias_norm": True}, "dynamic_pos_bias_norm is set, but it needs dynamic_pos_bias"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        blockdsl.compile("(a f)*2", **(SIZES | {"causal": True} | settings))


@pytest.mark.parametrize("setting", ["rel_pos_bias", "alibi_pos_bias", "dynamic_pos_bias", "rotary_pos_emb"])
def test_a_scheme_that_nothing_reads_is_refused(setting: str) -> None:
    with pytest.raises(PatternError, match="no block of the pattern uses"):
        blockdsl.compile(f"set {setting}; (c f)*2", **SIZES)


def test_one_node_serves_all_blocks_that_ask_for_the_same() -> None:
    graph = blockdsl.compile("a a(heads=2) a a(causal=false)", **SIZES, causal=True, rel_pos_bias=True)
    nodes = {node: sorted(graph.nx.succ[node]) for node in graph.nodes("position")}
    assert nodes == {"t5_bias3": ["a0", "a2"], "t5_bias2": ["a1"], "t5_bias3x": ["a3"]}
    assert graph.parameters() == sum(p.numel() for p in xt_blocks.lower(graph).parameters())


def test_an_edited_bias_is_what_the_model_does_or_is_refused() -> None:
    graph = blockdsl.compile("(a f)*2", **SIZES, causal=True, alibi_pos_bias=True)
    graph.nx.remove_edge("alibi3", "a2")
    model, x = xt_blocks.lower(graph), torch.randn(1, 5, 24)
    assert [step.biases for step in model.plan] == [("alibi3",), (), (), ()]
    assert model(x).isfinite().all()
    graph.nx.nodes["alibi3"]["heads"] = 4
    with pytest.raises(GraphError, match="alibi3 → a0: a position bias of 4 heads does not fit 3 heads"):
        xt_blocks.lower(graph)


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("name", ["plain", "rotary", "ALiBi", "talking heads", "memory kv"])
def test_a_triangle_as_attn_mask_makes_an_encoder_causal(name: str, rank: int) -> None:
    causal, plain = stack(name), stack(name, causal=False)
    plain.load_state_dict(causal.state_dict())
    x, extra = inputs(causal)
    triangle = torch.ones((2, 3, 7, 7)[4 - rank :], dtype=torch.bool).tril()
    torch.testing.assert_close(plain(x, attn_mask=triangle, **extra), causal(x, **extra), rtol=1e-5, atol=2e-6)


def test_attn_mask_of_a_head_is_of_that_head_alone() -> None:
    model = stack("plain", causal=False)
    attention = model.blocks["a0"].layer
    x = torch.randn(1, 4, 24)
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    mask[1] = torch.eye(4, dtype=torch.bool)
    record = xt_blocks.Intermediates(keep_attention=True)
    model(x, attn_mask=mask, intermediates=record)
    weights = record.attention["a0"].weights[0]
    assert torch.equal(weights[1], torch.eye(4))
    assert (weights[0] > 0).all()
    assert attention is not None


@pytest.mark.parametrize(
    ("shape", "dtype"), [((7, 6), torch.bool), ((7, 7), torch.float32), ((3, 3, 7, 7), torch.bool), ((7,), torch.bool)]
)
def test_a_wrong_attn_mask_is_refused(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    model = stack("plain")
    x, _ = inputs(model)
    with pytest.raises(ValueError, match="attn_mask must be"):
        model(x, attn_mask=torch.ones(shape, dtype=dtype))


def test_a_row_that_an_attn_mask_hides_whole_is_finite() -> None:
    model = stack("ALiBi on some heads").train()
    x, _ = inputs(model)
    mask = torch.zeros(7, 7, dtype=torch.bool)
    out = model(x, attn_mask=mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_tokens_out_of_sight_are_those_of_the_mask_but_stay_in_place() -> None:
    model = stack("rotary")
    x, _ = inputs(model)
    hidden = torch.ones(2, 7, dtype=torch.bool)
    hidden[:, 3] = False
    pairs = torch.ones(7, 7, dtype=torch.bool).tril()
    pairs[:, 3] = False
    expected = model(x, attn_mask=pairs)
    torch.testing.assert_close(model(x, self_attn_context_mask=hidden), expected, rtol=1e-5, atol=2e-6)
    changed = x.clone()
    changed[:, 3] += 1
    out = model(changed, self_attn_context_mask=hidden)
    keep = torch.arange(7) != 3
    torch.testing.assert_close(out[:, keep], expected[:, keep], rtol=1e-5, atol=2e-6)


def test_what_nothing_reads_is_refused() -> None:
    x = torch.randn(1, 4, 24)
    with pytest.raises(ValueError, match="pos is given, but no block reads positions"):
        stack("plain")(x, pos=torch.arange(4))
    with pytest.raises(ValueError, match="attn_mask is given, but the stack has no self-attention"):
        stack("feedforwards only")(x, attn_mask=torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"pos must be whole numbers \(4,\) or \(1, 4\), not torch.float32 \(4,\)"):
        stack("rotary")(x, pos=torch.arange(4.0))
