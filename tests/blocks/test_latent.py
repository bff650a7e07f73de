"""Latent attention, against the formulas of DeepSeek-V2 (arXiv:2405.04434, section 2.1) token by token in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from xt_blocks import Attention, AutoregressiveWrapper, Decoder, TransformerWrapper

DIM, HEADS, D, DV, RANK, Q_RANK, SHARED = 20, 3, 10, 7, 6, 5, 4
OWN = D - SHARED
SIZES: dict[str, Any] = {"heads": HEADS, "dim_head": D, "value_dim_head": DV, "kv_rank": RANK, "shared_key_dim": SHARED}


def drawn(module: nn.Module) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_().mul_(0.5)
    return module.double()


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * gain


def rotated(x: Tensor, place: int) -> Tensor:
    """Pairs of neighbours, each as a complex number times exp(i · place · theta^(-2i/d))."""
    angles = place * 10_000.0 ** (-torch.arange(0, len(x), 2, dtype=torch.float64) / len(x))
    turned = torch.view_as_complex(x.view(-1, 2)) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten()


def by_hand(layer: Attention, x: Tensor, low_rank_q: bool) -> Tensor:
    """The causal attention of one row, `x: (n, dim)`, with rotated shared keys."""
    w = dict(layer.named_parameters())
    size = Q_RANK if low_rank_q else HEADS * D
    to_q, to_latent, to_key = w["to_qkv.weight"].split((size, RANK, SHARED))
    to_heads = w["latent.to_kv.weight"].view(HEADS, OWN + DV, RANK)
    outs = []
    for i in range(len(x)):
        made = to_q @ x[i]
        if low_rank_q:
            made = w["latent.to_q.weight"] @ rms(made, w["latent.q_norm.weight"])
        of_heads = []
        for head in range(HEADS):
            q = made.view(HEADS, D)[head]
            scores, values = [], []
            for j in range(i + 1):
                latent = rms(to_latent @ x[j], w["latent.kv_norm.weight"])
                own, value = (to_heads[head] @ latent).split((OWN, DV))
                score = q[:OWN] @ own + rotated(q[OWN:], i) @ rotated(to_key @ x[j], j)
                scores.append(score / D**0.5)
                values.append(value)
            of_heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
        outs.append(w["output.to_out.weight"] @ torch.cat(of_heads))
    return torch.stack(outs)


@pytest.mark.parametrize("low_rank_q", [False, True])
@pytest.mark.parametrize("flash", [False, True])
def test_outputs_and_gradients_by_hand(low_rank_q: bool, flash: bool) -> None:
    torch.manual_seed(0)
    text = f"a(flash={str(flash).lower()})"
    own = {f"attn_{name}": value for name, value in SIZES.items() if name != "heads"}
    own |= {"attn_q_rank": Q_RANK} if low_rank_q else {}
    graph = blockdsl.compile(
        text, dim=DIM, heads=HEADS, causal=True, rotary_pos_emb=True, rotary_interleaved=True, pre_norm=False, **own
    )
    stack = drawn(xt_blocks.lower(graph))
    layer, stack.norm = stack.blocks["a0"].layer, nn.Identity()
    stack.blocks["a0"].norm = nn.Identity()
    x = torch.randn(1, 7, DIM, dtype=torch.float64)
    mine, theirs = stack(x) - x, by_hand(layer, x[0], low_rank_q)[None]
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)  # angles are in float32
    weights, grad = [*layer.parameters()], torch.randn_like(mine)
    for got, expected in zip(
        torch.autograd.grad(mine, weights, grad), torch.autograd.grad(theirs, weights, grad), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def net(**around: Any) -> TransformerWrapper:
    torch.manual_seed(1)
    own: dict[str, Any] = {"attn_kv_rank": RANK, "attn_q_rank": Q_RANK, "rotary_pos_emb": True}
    layers = Decoder(dim=DIM, depth=2, heads=HEADS, attn_dim_head=D, **own)
    model = drawn(TransformerWrapper(num_tokens=17, max_seq_len=24, attn_layers=layers, **around)).eval()
    assert isinstance(model, TransformerWrapper)
    return model


def steps(model: TransformerWrapper, tokens: Tensor, pieces: tuple[int, ...]) -> tuple[Tensor, Any]:
    cache, out, start = model.new_cache(batch=len(tokens)), [], 0
    for piece in pieces:
        out.append(model(tokens[:, start : start + piece], cache=cache))
        start += piece
    return torch.cat(out, dim=1), cache


@torch.no_grad()
def test_single_tokens_attend_to_latents_and_agree_with_whole_passes() -> None:
    model, tokens = net(), torch.randint(0, 17, (2, 9))
    whole, seen = model(tokens), []
    layer = model.attn_layers.blocks["a0"].layer
    core = layer.core
    layer.core = lambda request: (seen.append((*request.k.shape[1:], request.v.shape[3])), core(request))[1]
    for pieces in ((1,) * 9, (4, 1, 3, 1)):
        out, cache = steps(model, tokens, pieces)
        torch.testing.assert_close(out, whole)
    assert seen[-4:] == [(HEADS, 4, D, D), (1, 5, RANK + 4, RANK), (HEADS, 8, D, D), (1, 9, RANK + 4, RANK)]
    assert cache.bytes() == model.graph.kv_cache_bytes(24, batch=2, dtype="float64") == 2 * 2 * 24 * (RANK + 4) * 8


class Adapted(nn.Module):
    """What an adapter makes of a linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer, self.low = layer, nn.Linear(layer.in_features, layer.out_features).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.low(x)
        return out


@torch.no_grad()
def test_hooks_and_adapters_of_keys_and_values_are_called_in_single_steps() -> None:
    model, tokens = net(), torch.randint(0, 17, (2, 6))
    latent = model.attn_layers.blocks["a0"].layer.latent
    before = model(tokens)
    hook = latent.to_kv.register_forward_hook(lambda module, args, out: out * 2)
    torch.testing.assert_close(steps(model, tokens, (1,) * 6)[0], model(tokens))
    assert not torch.allclose(model(tokens), before)
    hook.remove()
    for layer in (Adapted(latent.to_kv), nn.Sequential(latent.to_kv), nn.Linear(RANK, HEADS * (D - 4 + D)).double()):
        latent.to_kv = layer
        torch.testing.assert_close(steps(model, tokens, (2, 1, 1, 1, 1))[0], model(tokens))


@torch.no_grad()
def test_fixed_shapes_packed_weights_and_padding() -> None:
    model, tokens = net(), torch.randint(0, 17, (2, 8))
    whole = model(tokens)
    _, cache = steps(model, tokens, (5,))
    cache.fix_shapes()
    fixed = [model(tokens[:, i : i + 1], cache=cache) for i in (5, 6, 7)]
    torch.testing.assert_close(torch.cat(fixed, dim=1), whole[:, 5:])
    prompts = [torch.randint(0, 17, (n,)) for n in (3, 6)]
    wrapper = AutoregressiveWrapper(xt_blocks.pack(model.float()))
    together = wrapper.generate(prompts, 5, temperature=0.0)
    assert torch.equal(together, torch.stack([wrapper.generate(one, 5, temperature=0.0) for one in prompts]))


def test_segments_equal_the_whole() -> None:
    model, tokens = net(max_mem_len=12), torch.randint(0, 17, (2, 12))
    first, mems = model(tokens[:, :7], return_mems=True)
    second, _ = model(tokens[:, 7:], mems=mems, return_mems=True)
    torch.testing.assert_close(torch.cat((first, second), dim=1), model(tokens), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"q_rank": None}, {"qkv_bias": True, "gate_values": True}])
def test_costs_are_exact(settings: dict[str, Any]) -> None:
    options = {**SIZES, "q_rank": Q_RANK, **settings}
    written = {f"attn_{name}": value for name, value in options.items() if name != "heads"}
    graph = blockdsl.compile("a", dim=DIM, heads=HEADS, causal=True, pre_norm=False, **written)
    stack = xt_blocks.lower(graph)
    assert sum(parameter.numel() for parameter in stack.parameters()) == graph.parameters()
    with FlopCounterMode(display=False) as counter:
        stack(torch.randn(2, 11, DIM))
    assert counter.get_total_flops() == graph.flops(11, batch=2)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"q_rank": 4}, "q_rank=4 is set, but it needs kv_rank"),
        ({"shared_key_dim": 4}, "shared_key_dim=4 is set, but it needs kv_rank"),
        ({"kv_rank": 6, "kv_heads": 2}, "kv_heads=2 is set beside kv_rank=6, but all heads read the same latents"),
        ({"kv_rank": 6, "one_kv_head": True}, "one_kv_head is set beside kv_rank=6, but all heads read the same"),
        ({"kv_rank": 6, "shared_kv": True}, "shared_kv is set beside kv_rank=6, but values are made of latents"),
        ({"kv_rank": 6, "num_mem_kv": 2}, "num_mem_kv is set beside kv_rank=6, but memory key-values have no latents"),
        ({"kv_rank": 6, "qk_norm": True}, "qk_norm is set beside kv_rank=6, but latents are normed instead"),
        ({"kv_rank": 6, "qk_rmsnorm": "head"}, "qk_rmsnorm is set beside kv_rank=6, but latents are normed instead"),
        ({"kv_rank": 6, "qkv_bias": True, "k_bias": False}, "k_bias is false beside kv_rank=6, but keys and values"),
        ({"kv_rank": 6, "shared_key_dim": 8}, "shared_key_dim=8 leaves none of dim_head=8 to the latents"),
    ],
)
def test_what_clashes_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Attention(dim=16, heads=4, dim_head=8, **options)


def test_only_the_shared_key_is_rotated() -> None:
    for settings in ({"attn_shared_key_dim": 0}, {"attn_shared_key_dim": 3, "rotary_emb_dim": 4}):
        with pytest.raises(ValueError, match="do not fit a shared key of"):
            blockdsl.compile("a", dim=16, heads=2, attn_dim_head=8, attn_kv_rank=4, rotary_pos_emb=True, **settings)
    graph = blockdsl.compile("a a(kv_rank=none)", dim=16, heads=2, attn_dim_head=8, attn_kv_rank=4, rotary_pos_emb=True)
    assert [graph.nx.nodes[node]["dim"] for node in graph.nodes("position")] == [4]


def test_values_have_the_gain_of_initial_weights() -> None:
    torch.manual_seed(2)
    layer = Attention(dim=64, heads=4, dim_head=32, kv_rank=64, shared_key_dim=16)
    layer.init_xavier(0.01)
    keys, values = layer.latent.to_kv.weight.view(4, 48, 64).split((16, 32), dim=1)
    assert keys.std() > 50 * values.std()
    assert layer.to_qkv.weight.std() > 50 * values.std()
