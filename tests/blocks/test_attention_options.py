"""Attention's smaller options: each by hand, all against a loop in float64, and what goes with what."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import UserError
from blockdsl.registry.kinds import kinds
from xt_blocks.blocks.forget import with_forgetting
from xt_blocks.blocks.l2_distance import distance_features
from xt_blocks.blocks.laser import exponentials, logarithms
from xt_blocks.kernels import explicit, tiles
from xt_blocks.kernels.scores.sigmoid import Sigmoid
from xt_blocks.kernels.scores.sparse_topk import StraightThrough
from xt_blocks.kernels.scores.zero_kv import ZeroKeySoftmax

HEADS, GROUPS, DIM = 4, 2, 3
PLAIN: dict[str, Any] = {"heads": HEADS, "kv_heads": GROUPS, "dim_head": DIM, "causal": True}
OPTIONS: dict[str, dict[str, Any]] = {
    "zero key": {"add_zero_kv": True},
    "sigmoid": {"sigmoid": True},
    "distance": {"l2_distance": True},
    "laser": {"laser": True, "laser_softcap": 2},
    "norm of keys": {"k_rmsnorm": True, "qk_rmsnorm_eps": 0.1},
    "norm of values": {"value_rmsnorm": True},
    "gates by head": {"gate_values": True, "gate_values_headwise": True},
    "gates of features": {"gate_values": True, "gate_bias": False, "gate_value_heads": True, "swiglu_values": True},
    "gates of low rank": {"gate_values": True, "gate_values_rank": 5, "output_gate": True, "output_gate_rank": 3},
    "gates of both kinds": {
        **{"gate_values": True, "gate_values_rank": 2, "low_rank_silu_gates": False},
        **{"output_gate": True, "output_gate_headwise": True, "value_dim_head": DIM},
    },
    "a gate by the output": {"output_gate": True, "swiglu_values": True},
    "top scores, straight through": {"sparse_topk": 2, "sparse_topk_straight_through": True},
    "signed weights": {"cog_signed": True},
    "signed weights, several": {"cog_signed": True, "l2_distance": True, "softcap": 1.5, "output_gate": True},
    "several": {"add_zero_kv": True, "l2_distance": True, "laser": True, "k_rmsnorm": True, "value_rmsnorm": True},
}


def layer_of(**options: Any) -> xt_blocks.Attention:
    torch.manual_seed(0)
    layer = xt_blocks.Attention(8, **(PLAIN | options)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


def by_loop(layer: xt_blocks.Attention, x: Tensor) -> Tensor:
    """The layer's output of `x: (seq, dim)`, one query and head after another."""
    o, weights = layer.options, dict(layer.named_parameters())
    q, k, v = (x @ weights["to_qkv.weight"].T).split((HEADS * DIM, GROUPS * DIM, GROUPS * DIM), dim=-1)

    def normed(vector: Tensor, gain: Tensor) -> Tensor:
        return vector / (vector.square().mean() + o.qk_rmsnorm_eps).sqrt() * gain

    out = []
    for i in range(len(x)):
        of_heads = []
        for head in range(HEADS):
            own, group = slice(head * DIM, (head + 1) * DIM), head // (HEADS // GROUPS)
            shared = slice(group * DIM, (group + 1) * DIM)
            numbers, values = [], []
            for j in range(i + 1):
                query, key, value = q[i, own], k[j, shared], v[j, shared]
                key = normed(key, weights["qk_norm.k.weight"][group]) if o.k_rmsnorm else key
                value = normed(value, weights["value_norm.weight"][group]) if o.value_rmsnorm else value
                score = -(query - key).square().sum() if o.l2_distance else query @ key
                score = score / math.sqrt(DIM)
                numbers.append(score if o.softcap is None else o.softcap * (score / o.softcap).tanh())
                values.append((o.laser_softcap * (value / o.laser_softcap).tanh()).exp() if o.laser else value)
            scores = torch.stack(numbers)
            powers = (scores.abs() if o.cog_signed else scores).exp()
            if o.sparse_topk is not None:
                powers = powers * (scores >= scores.sort(descending=True).values[: o.sparse_topk][-1])
            powers = powers * scores.sign() if o.cog_signed else powers
            share = powers / (1 + powers) if o.sigmoid else powers / (powers.abs().sum() + o.add_zero_kv)
            total = share @ torch.stack(values)
            total = total.log() if o.laser else total
            if o.gate_value_heads:
                gate = weights["output.to_head_gate.weight"][head] @ x[i] + weights["output.to_head_gate.bias"][head]
                total = total / (1 + (-gate).exp())
            of_heads.append(total)
        out.append(weights["output.to_out.weight"] @ gated(o, weights, x[i], torch.cat(of_heads)))
    return torch.stack(out)


def gated(o: Any, weights: dict[str, Tensor], x: Tensor, merged: Tensor) -> Tensor:
    """`merged: (heads · features)` of a token, times its gates by the token `x: (dim)` and by itself."""
    logits = torch.zeros_like(merged)
    for name, reads, on in (("to_gate", x, o.gate_values), ("to_output_gate", merged, o.output_gate)):
        if not on:
            continue
        name = f"output.{name}"
        if f"{name}.down.weight" in weights:
            reads = weights[f"{name}.down.weight"] @ reads
            reads = reads / (1 + (-reads).exp()) if o.low_rank_silu_gates else reads
            name = f"{name}.up"
        own = weights[f"{name}.weight"] @ reads + weights.get(f"{name}.bias", torch.tensor(0.0))
        logits = logits + own.repeat_interleave(len(merged) // len(own))
    if not (o.gate_values or o.output_gate):
        return merged
    gates = 1 / (1 + (-logits).exp())
    return merged * gates * (logits if o.swiglu_values else 1)


def test_what_is_beyond_the_top_has_the_gradient_of_the_softmax_of_all() -> None:
    """Scores 3, 1, 2 and values 1, 10, 100: of the top two, and by hand the gradient as if there were all three."""
    layer = StraightThrough(2)
    scores = torch.tensor([[[[3.0, 1.0, 2.0]]]], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    out = (layer.apply(scores) * values).sum()
    first = math.e / (math.e + 1)
    assert math.isclose(out.item(), first + 100 * (1 - first))
    out.backward()
    powers = [math.exp(score) for score in (3, 1, 2)]
    soft = [power / sum(powers) for power in powers]
    mean = sum(share * value for share, value in zip(soft, (1, 10, 100), strict=True))
    by_hand = [share * (value - mean) for share, value in zip(soft, (1, 10, 100), strict=True)]
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad.flatten(), torch.tensor(by_hand, dtype=torch.float64))


@pytest.mark.parametrize("options", [{"sparse_topk": 3, "sparse_topk_straight_through": True}, {"cog_signed": True}])
def test_tiles_have_the_gradients_of_the_plain_form(options: dict[str, Any]) -> None:
    """Of a sequence that has several tiles, padded so that rows see nothing."""
    x, mask = torch.randn(2, 3 * tiles.ROWS + 5, 8, dtype=torch.float64), torch.ones(2, 3 * tiles.ROWS + 5).bool()
    mask[1, : tiles.ROWS + 3] = False
    found = []
    for kernel in (tiles.KERNEL, explicit.KERNEL):
        layer = layer_of(**options)
        layer.core = kernel.run  # type: ignore[assignment]
        own = x.clone().requires_grad_()
        out = layer(own, mask=mask)
        out.square().sum().backward()
        found.append((out, own.grad, layer.to_qkv.weight.grad))
    for tiled, plain in zip(*found, strict=True):
        torch.testing.assert_close(tiled, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_layer_is_what_a_loop_gives(name: str) -> None:
    layer, x = layer_of(**OPTIONS[name]), torch.randn(5, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x[None])[0], by_loop(layer, x), rtol=1e-9, atol=1e-9)


def test_by_hand() -> None:
    """Scores 2 and -4; a query 1, 2 and a key 3, -1; values 0 and log 3."""
    scores = torch.tensor([[[[2.0, -4.0]]]])
    powers = [math.exp(2), math.exp(-4)]
    with_zero = torch.tensor([[[[power / (1 + sum(powers)) for power in powers]]]])
    torch.testing.assert_close(ZeroKeySoftmax().apply(scores), with_zero)
    torch.testing.assert_close(Sigmoid().apply(scores), torch.tensor([[[[0.880797, 0.0179862]]]]))
    q, k = distance_features(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]]))
    assert float(q @ k.mT) == -13
    _, _, grown = exponentials(scores, scores, torch.tensor([[[[0.0], [math.log(3)]]]]), 1e4)
    torch.testing.assert_close(logarithms(grown.mean(dim=2)), torch.tensor([[[math.log(2)]]]))


def test_a_row_that_sees_nothing_is_zero_and_finite() -> None:
    x, mask = torch.randn(2, 6, 8, requires_grad=True), torch.tensor([[True], [False]]).expand(2, 6)
    for options in ({"add_zero_kv": True, "laser": True}, {"sigmoid": True, "laser": True}):
        layer = layer_of(**options).float()
        out = layer(x, mask=mask)
        assert torch.equal(out[1], torch.zeros(6, 8))
        out.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_exponentials_do_not_overflow_float16() -> None:
    layer = layer_of(laser=True).half()
    x = torch.full((1, 3, 8), 60.0, dtype=torch.float16)
    assert layer(x).dtype == torch.float16
    assert layer(x).isfinite().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sink": True, "sigmoid": True}, "sink and sigmoid are set; one of them takes the softmax's place"),
        ({"laser_softcap": 3}, "laser_softcap is set, but it needs laser"),
        ({"laser": True, "talking_heads": True}, "laser and talking_heads are set, but weights that heads exchange"),
        ({"gate_values_headwise": True}, "gate_values_headwise is set, but it needs gate_values"),
        ({"output_gate_rank": 3}, "output_gate_rank is set, but it needs output_gate"),
        ({"gate_values": True, "low_rank_silu_gates": False}, "needs gate_values_rank or output_gate_rank"),
        ({"swiglu_values": True}, "swiglu_values is set, but it needs gate_values or output_gate"),
        ({"sparse_topk_straight_through": True}, "sparse_topk_straight_through is set, but it needs sparse_topk"),
        ({"cog_signed": True, "sparse_topk": 2}, "cog_signed and sparse_topk are set, but the largest scores"),
        ({"cog_signed": True, "laser": True}, "laser and cog_signed are set, but its weights may be negative"),
        ({"k_rmsnorm": True, "qk_rmsnorm": "each"}, "qk_rmsnorm and k_rmsnorm are set; queries and keys have one norm"),
        ({"kv_rank": 4, "kv_heads": None, "laser": True}, "laser is set beside kv_rank=4, but values are made of"),
    ],
)
def test_what_does_not_go_together_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        layer_of(**options)


def test_kernels_that_cannot_say_why_and_drawings_show_it() -> None:
    x = torch.randn(1, 7, 24)
    assert "  sdpa: torch's kernel has no zero key-value" in xt_blocks.why(xt_blocks.Attention(24, add_zero_kv=True), x)
    assert "  flex: FlexAttention has no sigmoid" in xt_blocks.why(xt_blocks.Attention(24, sigmoid=True), x)
    assert xt_blocks.why(xt_blocks.Attention(24, l2_distance=True, laser=True), x).startswith("sdpa is taken")
    graph = blockdsl.compile("a(sigmoid, l2_distance, laser, value_rmsnorm) f(glu, glu_mult_bias)", dim=16)
    drawn = []
    for node in graph.nodes("block"):
        kind = kinds()[graph.block(node)["kind"]]
        drawn += [words for words, _ in kind.steps(kind.completed(16, graph.block(node)["options"]))]  # type: ignore[misc]
    assert {
        "sigmoid",
        "-|q - k|², 8 heads × 64",
        "RMSNorm of v",
        "· exp v capped at 15, 8 heads × 64",
        "logarithm",
    } <= {*drawn}
    assert "× a learned gain" in drawn


# Contexts of another width ------------------------------------------------------------------------------------------


def test_a_context_has_a_width_of_its_own() -> None:
    graph = blockdsl.compile("(a c f)*2", dim=16, heads=2, cross_attn_dim_context=10)
    stack, x, context = xt_blocks.lower(graph), torch.randn(2, 3, 16), torch.randn(2, 4, 10)
    assert graph.dim_context == 10
    assert stack(x, context=context).shape == (2, 3, 16)  # type: ignore[operator]
    assert graph.parameters() == sum(parameter.numel() for parameter in stack.parameters())
    with pytest.raises(ValueError, match=r"context must be \(2, seq, 10\), not \(2, 4, 16\)"):
        stack(x, context=torch.randn(2, 4, 16))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"c2: reads a context of 16 features \(dim_context\), and context has 10"):
        blockdsl.compile("c(dim_context=10) f c", dim=16)


def test_an_encoder_of_another_width() -> None:
    encoder = xt_blocks.TransformerWrapper(
        num_tokens=9, max_seq_len=8, return_only_embed=True, attn_layers=xt_blocks.Encoder(dim=10, depth=1, heads=2)
    )
    decoder = xt_blocks.Decoder(dim=16, depth=1, heads=2, cross_attend=True, cross_attn_dim_context=10)
    net = xt_blocks.TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=decoder)
    model = xt_blocks.XTransformer.from_models(encoder, net)
    source = torch.randint(0, 9, (2, 5))
    model(source, source).backward()
    assert model.generate(source, torch.zeros(2, 1, dtype=torch.long), 3).shape == (2, 3)
    with pytest.raises(
        UserError, match="the encoder gives vectors of 16 features, and the decoder's cross-attention reads 10"
    ):
        xt_blocks.XTransformer.from_models(
            xt_blocks.TransformerWrapper(
                num_tokens=9, max_seq_len=8, return_only_embed=True, attn_layers=xt_blocks.Encoder(dim=16, depth=1)
            ),
            net,
        )


# Positions of a context ---------------------------------------------------------------------------------------------


def rotated() -> xt_blocks.Stack:
    torch.manual_seed(0)
    graph = blockdsl.compile("c f c", dim=16, heads=2, attn_dim_head=8, cross_attn_rotary=True)
    return xt_blocks.lower(graph).double().eval()  # type: ignore[return-value]


def test_queries_and_the_contexts_keys_are_rotated_by_their_places() -> None:
    torch.manual_seed(0)
    layer = xt_blocks.CrossAttention(16, heads=1, dim_head=4).double()
    graph = blockdsl.compile("c(rotary)", dim=16, heads=1, attn_dim_head=4)
    stack: Any = xt_blocks.lower(graph).double()
    block = stack.blocks["c0"]
    block.layer.load_state_dict(layer.state_dict())
    x, context, places = torch.randn(1, 3, 16).double(), torch.randn(1, 2, 16).double(), torch.tensor([5, 1])
    q, (k, v) = layer.to_q(block.norm(x))[0], layer.to_kv(context)[0].chunk(2, dim=-1)
    out = []
    for i in range(3):
        scores = []
        for j, place in enumerate(places.tolist()):
            angle = torch.tensor(float(i - place))  # features 0 and 1 are rotated, the others are not
            rotation = torch.stack((torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos()))))
            scores.append(((rotation.double() @ q[i, :2]) @ k[j, :2] + q[i, 2:] @ k[j, 2:]) / 2)
        out.append(torch.stack(scores).softmax(dim=0) @ v)
    want = stack.norm(x + layer.to_out(torch.stack(out))[None])
    torch.testing.assert_close(stack(x, context=context, context_pos=places), want, rtol=1e-6, atol=1e-6)


def test_only_differences_of_positions_count_where_both_are_given() -> None:
    stack, x, context = rotated(), torch.randn(2, 3, 16).double(), torch.randn(2, 4, 16).double()
    own, theirs = torch.tensor([2, 3, 7]), torch.tensor([[4, 0, 1, 9], [0, 1, 2, 3]])
    out = stack(x, context=context, pos=own, context_pos=theirs)
    torch.testing.assert_close(stack(x, context=context, pos=own + 30, context_pos=theirs + 30), out, rtol=1e-5, atol=1e-5)  # fmt: skip
    assert not torch.allclose(stack(x, context=context, pos=own, context_pos=theirs + 1), out, atol=1e-3)
    assert not torch.allclose(stack(x, context=context), stack(x, context=context.flip(1)), atol=1e-3)


def test_padding_of_either_does_not_move_positions() -> None:
    stack, x, context = rotated(), torch.randn(2, 3, 16).double(), torch.randn(2, 4, 16).double()
    mask, context_mask = torch.tensor([[False] * 2 + [True] * 3] * 2), torch.tensor([[False] + [True] * 4] * 2)
    padded = [torch.cat((torch.randn(2, n, 16).double(), t), dim=1) for n, t in ((2, x), (1, context))]
    out = stack(padded[0], context=padded[1], mask=mask, context_mask=context_mask)
    torch.testing.assert_close(out[:, 2:], stack(x, context=context))


def test_the_context_keeps_its_positions_while_decoding() -> None:
    decoder = xt_blocks.Decoder(
        dim=16, depth=2, heads=2, attn_dim_head=8, cross_attend=True, cross_attn_rotary=True, rotary_pos_emb=True
    )
    net = xt_blocks.TransformerWrapper(num_tokens=9, max_seq_len=12, attn_layers=decoder).eval()
    read = {"context": torch.randn(2, 4, 16), "context_pos": torch.tensor([[4, 0, 1, 9], [0, 1, 2, 3]])}
    tokens = torch.randint(0, 9, (2, 3))
    found = xt_blocks.AutoregressiveWrapper(net).generate(tokens, 5, temperature=0, **read)
    for _ in range(5):
        tokens = torch.cat((tokens, net(tokens, **read)[:, -1:].argmax(dim=-1)), dim=1)
    assert torch.equal(found, tokens[:, 3:])


@pytest.mark.parametrize(
    ("pattern", "given", "words"),
    [
        ("c f", {"context_pos": torch.arange(2)}, "no block reads its positions: turn on cross_attn_rotary"),
        ("c(rotary) f", {"context_pos": torch.arange(3)}, r"context_pos must be whole numbers \(2,\) or \(1, 2\)"),
        ("c(rotary) f", {"context_pos": torch.ones(2)}, "context_pos must be whole numbers"),
    ],
)
def test_positions_of_a_context_are_checked(pattern: str, given: dict[str, Tensor], words: str) -> None:
    stack: Any = xt_blocks.lower(blockdsl.compile(pattern, dim=16))
    with pytest.raises(ValueError, match=words):
        stack(torch.randn(1, 3, 16), context=torch.randn(1, 2, 16), **given)


def test_what_cross_attention_cannot_rotate_by_is_said() -> None:
    scaled = "set rotary_pos_emb, rotary_scaling=dynamic, rotary_factor=2, rotary_original_len=8; "
    with pytest.raises(UserError, match="goes by the length of one text, and cross-attention reads two"):
        blockdsl.compile(scaled + "a c(rotary)", dim=16)
    with pytest.raises(UserError, match="rotary_theta is set, but it needs rotary"):
        blockdsl.compile("c(rotary_theta=20)", dim=16)
    graph = blockdsl.compile("c(rotary) f", dim=16)
    graph.block("c0")["options"]["rotary"] = False
    with pytest.raises(UserError, match="c0: reads rotary positions, and its option rotary is false"):
        graph.lint()


# Forgetting ---------------------------------------------------------------------------------------------------------


def forgetful(**options: Any) -> xt_blocks.Attention:
    return layer_of(forget_gate=True, **options)


def test_a_head_forgets_by_the_gates_of_the_tokens_in_between() -> None:
    layer, x = forgetful(num_mem_kv=1), torch.randn(5, 8, dtype=torch.float64)
    o, weights = layer.options, dict(layer.named_parameters())
    q, k, v = (x @ weights["to_qkv.weight"].T).split((HEADS * DIM, GROUPS * DIM, GROUPS * DIM), dim=-1)
    gates = (x @ weights["forget_gate.weight"].T + weights["forget_gate.bias"]).sigmoid()
    out = []
    for i in range(5):
        of_heads = []
        for head in range(HEADS):
            own, group = slice(head * DIM, (head + 1) * DIM), head // (HEADS // GROUPS)
            shared = slice(group * DIM, (group + 1) * DIM)
            memory = weights["mem_kv.keys"][group, 0], weights["mem_kv.values"][group, 0]
            powers, values = [(q[i, own] @ memory[0] / math.sqrt(DIM)).exp()], [memory[1]]  # nothing forgets these
            for j in range(i + 1):
                left = gates[j + 1 : i + 1, head].prod()
                powers.append((q[i, own] @ k[j, shared] / math.sqrt(DIM)).exp() * left)
                values.append(v[j, shared])
            of_heads.append(torch.stack(powers) / sum(powers) @ torch.stack(values))
        out.append(weights["output.to_out.weight"] @ torch.cat(of_heads))
    assert o.forget_gate
    torch.testing.assert_close(layer(x[None])[0], torch.stack(out), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gates_are_exact_in_low_precision(dtype: torch.dtype) -> None:
    """Running sums near 300, of which one number in bfloat16 would lose differences below 2."""
    logs = -torch.rand(1, 600, HEADS)
    q, k = torch.zeros(1, HEADS, 600, DIM, dtype=dtype), torch.zeros(1, GROUPS, 600, DIM, dtype=dtype)
    queries, keys = with_forgetting(q, k, logs, 0.5, None)
    scores = 0.5 * queries.double() @ keys.double().repeat_interleave(HEADS // GROUPS, dim=1).mT
    sums = logs.double().cumsum(dim=1).transpose(1, 2)
    torch.testing.assert_close(scores, sums[..., :, None] - sums[..., None, :], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"causal": False}, "forget_gate is set, but it needs causal"),
        ({"softcap": 2}, "forget_gate is set beside softcap, but gates would be capped too"),
    ],
)
def test_what_does_not_go_with_gates_is_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        forgetful(**options)


# The stack's output -------------------------------------------------------------------------------------------------


def test_the_output_is_bounded_before_its_norm() -> None:
    graph = blockdsl.compile("set output_softcap=0.5; a f", dim=16, heads=2, attn_dim_head=8)
    assert graph.nx.nodes["output"]["softcap"] == 0.5
    assert "softcap 0.5, LayerNorm" in str(graph)
    assert blockdsl.compile(graph.to_pattern(), dim=16) == graph
    stack: Any = xt_blocks.lower(graph)
    x = torch.randn(2, 3, 16)
    last = stack(x, return_hiddens=True)[1].last
    torch.testing.assert_close(stack(x), stack.norm(0.5 * (last / 0.5).tanh()))
    assert not torch.allclose(stack(x), stack.norm(last), atol=1e-2)
