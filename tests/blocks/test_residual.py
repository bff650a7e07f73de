"""Norms and residuals by their formulas in float64, and what deepnorm draws, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl.registry.norms import Norm
from xt_blocks import Attention, CrossAttention, Decoder, Encoder, FeedForward
from xt_blocks.blocks.block import Block, Use
from xt_blocks.blocks.init import init_xavier
from xt_blocks.blocks.norms import ScaleNorm, norm
from xt_blocks.blocks.residual import ResidualConnection

DIM = 6


def randomised(module: nn.Module) -> nn.Module:
    """In float64, with no parameter left at a value that would hide it."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def sequence() -> Tensor:
    return torch.randn(2, 5, DIM, dtype=torch.float64)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


# Norms -------------------------------------------------------------------------------------------------------------


def normed(x: Tensor, kind: str, w: dict[str, Tensor], name: str) -> Tensor:
    """A norm written out, a token at a time."""
    out = torch.empty_like(x)
    for index in [(b, t) for b in range(x.shape[0]) for t in range(x.shape[1])]:
        token = x[index]
        if kind == "scalenorm":
            out[index] = w[f"{name}.weight"] * math.sqrt(DIM) * token / token.square().sum().sqrt()
        elif kind == "rmsnorm":
            out[index] = w[f"{name}.weight"] * token / token.square().mean().sqrt()
        else:
            centred = token - token.mean()
            scaled = centred / (centred.square().mean() + 1e-5).sqrt()
            out[index] = w[f"{name}.weight"] * scaled + w[f"{name}.bias"]
    return out


def test_scalenorm_gives_features_of_unit_mean_square_whatever_the_width() -> None:
    for dim in (4, 512):
        own = ScaleNorm(dim)
        assert [p.tolist() for p in own.parameters()] == [[1.0]]
        out = own(30 * torch.randn(3, dim))
        torch.testing.assert_close(out.square().mean(-1), torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scalenorm_of_a_narrow_type_neither_overflows_nor_divides_by_zero(dtype: torch.dtype) -> None:
    own = norm(Norm.of("scalenorm", {}), 64).to(dtype)
    x = torch.stack((torch.zeros(64), torch.full((64,), 60_000.0))).to(dtype)
    torch.testing.assert_close(own(x), torch.tensor([[0.0], [1.0]], dtype=dtype).expand(2, 64))


# The block ---------------------------------------------------------------------------------------------------------


def joined(update: Tensor, x: Tensor, w: dict[str, Tensor], constant: float) -> Tensor:
    """Update and residual meet: y = u + r, or a GRU's equations; r = x · scale · constant."""
    residual = x * constant
    if "residual.scale" in w:
        residual = residual * w["residual.scale"]
    if "residual.gate.weight_ih" not in w:
        return update + residual
    of_update = (update @ w["residual.gate.weight_ih"].T + w["residual.gate.bias_ih"]).chunk(3, dim=-1)
    of_residual = (residual @ w["residual.gate.weight_hh"].T + w["residual.gate.bias_hh"]).chunk(3, dim=-1)
    reset, keep = (1 / (1 + (-(of_update[i] + of_residual[i])).exp()) for i in (0, 1))
    new = (of_update[2] + reset * of_residual[2]).tanh()
    return (1 - keep) * new + keep * residual


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm", "scalenorm"])
@pytest.mark.parametrize("place", ["pre", "sandwich", "post"])
@pytest.mark.parametrize(
    "residual",
    [
        {},
        {"scale": True},
        {"constant": 2.5},
        {"scale": True, "constant": 0.75},
        {"gate": True},
        {"gate": True, "scale": True, "constant": 1.5},
    ],
)
def test_a_block_is_its_formula(kind: str, place: str, residual: dict[str, Any]) -> None:
    connection, spec = ResidualConnection(DIM, **residual), Norm.of(kind, {})
    block = randomised(
        Block(nn.Linear(DIM, DIM), DIM, spec, place != "post", 0.0, spec if place == "sandwich" else None, connection)
    )
    w, x = weights(block), sequence()
    update = (x if place == "post" else normed(x, kind, w, "norm")) @ w["layer.weight"].T + w["layer.bias"]
    if place == "sandwich":
        update = normed(update, kind, w, "sandwich_norm")
    y = joined(0.5 * update, x, w, residual.get("constant", 1.0))
    y = normed(y, kind, w, "norm") if place == "post" else y
    out = block(x, Use(scale=0.5))
    torch.testing.assert_close(out.stream, y)
    torch.testing.assert_close(out.update, 0.5 * update)
    assert out.adds == (not residual and place != "post")


@pytest.mark.parametrize("place", ["pre", "sandwich", "post"])
def test_layer_scale_multiplies_each_feature_of_the_branch(place: str) -> None:
    layer, pre_norm, sandwich = nn.Linear(DIM, DIM), place != "post", place == "sandwich"
    connection = ResidualConnection(DIM, constant=2.5)
    spec = Norm.of("layernorm", {})
    block = Block(layer, DIM, spec, pre_norm, 0.0, spec if sandwich else None, connection, layer_scale=0.1)
    assert torch.equal(block.layer_scale, torch.full((DIM,), 0.1))
    w, x = weights(randomised(block)), sequence()
    update = (normed(x, "layernorm", w, "norm") if pre_norm else x) @ w["layer.weight"].T + w["layer.bias"]
    update = normed(update, "layernorm", w, "sandwich_norm") if sandwich else update
    y = 2.5 * x + torch.diag(w["layer_scale"]).matmul(update[..., None])[..., 0] / 2
    torch.testing.assert_close(block(x, Use(scale=0.5)).stream, y if pre_norm else normed(y, "layernorm", w, "norm"))


def test_branch_scale_multiplies_what_the_text_divides() -> None:
    graph = blockdsl.compile("set branch_scale=0.22; f/2 f(branch_scale=3)", dim=DIM)
    model = xt_blocks.lower(graph).double()
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    first, second = model.blocks.values()  # type: ignore[union-attr, operator]
    y = x + 0.11 * first.layer(first.norm(x))
    y = y + 3 * second.layer(second.norm(y))
    torch.testing.assert_close(model(x), model.norm(y))  # type: ignore[operator]


def test_layer_scale_is_of_all_blocks_or_of_one() -> None:
    graph = blockdsl.compile("set layer_scale=0.1; a f(layer_scale=none) f(layer_scale=1e-5)", dim=DIM, heads=1)
    gains = [block.layer_scale for block in xt_blocks.lower(graph).blocks.values()]  # type: ignore[union-attr, operator]
    assert gains[1] is None
    assert [gains[0][0].item(), gains[2][0].item()] == pytest.approx([0.1, 1e-5])
    without = blockdsl.compile("a f f", dim=DIM, heads=1)
    assert graph.parameters() - without.parameters() == 2 * DIM
    assert graph.flops(5) == without.flops(5)
    assert blockdsl.parse(str(blockdsl.parse("f(layer_scale = 1e-5)"))) == blockdsl.parse("f(layer_scale=0.00001)")
    assert "layer_scale=none" in graph.to_text()
    with pytest.raises(blockdsl.UserError, match="layer_scale must be a number of at least 0 or none, not -1"):
        blockdsl.compile("f(layer_scale=-1)", dim=DIM)


@pytest.mark.parametrize("name", ["scale_residual", "gate_residual", "sandwich_norm", "use_scalenorm", "layer_scale"])
def test_every_parameter_of_an_option_has_a_gradient_of_finite_differences(name: str) -> None:
    model = randomised(
        xt_blocks.lower(
            blockdsl.compile("f/2 & f f", dim=DIM, ff_mult=1, **{name: 0.1 if name == "layer_scale" else True})
        )
    )
    own = [p for n, p in model.named_parameters() if "layer" not in n]
    assert torch.autograd.gradcheck(lambda x, *_: model(x), (sequence().requires_grad_(), *own), fast_mode=True)


def test_a_dropped_row_keeps_its_scaled_residual() -> None:
    block = Block(
        nn.Linear(DIM, DIM), DIM, Norm.of("layernorm", {}), drop=0.5, residual=ResidualConnection(DIM, constant=2.0)
    )
    x = torch.randn(200, 1, DIM)
    skipped = (block(x).stream == 2 * x).all(-1).sum().item()
    assert 60 < skipped < 140


def test_parallel_branches_add_what_their_gates_changed() -> None:
    model = xt_blocks.lower(blockdsl.compile("f & (f f)", dim=DIM, gate_residual=True, pre_norm=False)).eval()
    x = torch.randn(2, 5, DIM)
    one, two, three = (model.blocks[f"f{i}"] for i in range(3))  # type: ignore[index]
    chain = three(two(x).stream).stream
    torch.testing.assert_close(model(x), x + (one(x).stream - x) + (chain - x))


def test_a_block_alone_may_have_the_options() -> None:
    text = "f f(gate_residual, use_scalenorm, sandwich_norm) f(scale_residual, scale_residual_constant=2)"
    model = xt_blocks.lower(blockdsl.compile(text, dim=DIM))
    plain, gated, scaled = model.blocks.values()  # type: ignore[union-attr, operator]
    assert plain.residual.adds
    assert isinstance(gated.norm, ScaleNorm)
    assert isinstance(gated.sandwich_norm, ScaleNorm)
    assert isinstance(gated.residual.gate, nn.GRUCell)
    assert (scaled.residual.constant, scaled.residual.scale.shape) == (2.0, (DIM,))
    assert isinstance(model.norm, nn.LayerNorm)
    assert isinstance(Decoder(DIM, 1, use_scalenorm=True).norm, ScaleNorm)


@pytest.mark.parametrize("name", ["scale_residual", "gate_residual", "deepnorm", "sandwich_norm", "use_scalenorm"])
def test_autocast_trains_and_decodes(name: str) -> None:
    model = Decoder(16, 2, heads=2, attn_dim_head=8, **{name: True})
    x = torch.randn(2, 7, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = model(x)
        cache = model.new_cache(2, 7)
        parts = torch.cat([model(x[:, :3], cache=cache), model(x[:, 3:], cache=cache)], dim=1)
    assert (parts - whole).abs().max() < 0.1
    whole.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# Initial weights ---------------------------------------------------------------------------------------------------


def assert_drawn(weight: Tensor, gain: float, fans: int | None = None) -> None:
    """Xavier normal: standard deviation gain · √(2 / (fan in + fan out))."""
    assert weight.std().item() == pytest.approx(gain * math.sqrt(2 / (fans or sum(weight.shape))), rel=0.03)
    assert abs(weight.mean().item()) < 0.05 * weight.std().item()


@pytest.mark.parametrize(("text", "blocks"), [("(a f)*3", 6), ("(a c f)*2", 6), ("a@x f a@x f & f", 5)])
def test_deepnorm_draws_every_matrix_by_its_own_fans(text: str, blocks: int) -> None:
    gain = (4 * blocks) ** -0.25
    model = xt_blocks.lower(
        blockdsl.compile(
            text, dim=192, heads=4, attn_dim_head=64, attn_kv_heads=2, attn_value_dim_head=32, deepnorm=True
        )
    )
    for block in model.blocks.values():  # type: ignore[union-attr, operator]
        layer = block.layer
        assert block.residual.constant == pytest.approx(blocks**0.25)
        assert block.residual.scale.eq(1).all()
        assert not block.pre_norm
        if isinstance(layer, FeedForward):
            assert_drawn(layer.to_hidden.weight, gain)
            assert_drawn(layer.to_out.weight, gain)
            assert not layer.to_hidden.bias.any()
            assert not layer.to_out.bias.any()
            continue
        assert_drawn(layer.output.to_out.weight, gain)
        if isinstance(layer, CrossAttention):
            q, (k, v) = layer.to_q.weight, layer.to_kv.weight.split((128, 64))
        else:
            q, k, v = layer.to_qkv.weight.split((256, 128, 64))
        assert_drawn(q, 1.0, fans=192 + 256)
        assert_drawn(k, 1.0, fans=192 + 128)
        assert_drawn(v, gain, fans=192 + 64)
    assert isinstance(model.norm, nn.Identity)


def test_deepnorms_gains_are_the_papers() -> None:
    for text, layers, alpha, beta in (
        ("(a f)*N", 9, (2 * 9) ** 0.25, (8 * 9) ** -0.25),
        ("(a c f)*N", 7, (3 * 7) ** 0.25, (12 * 7) ** -0.25),
    ):
        g = blockdsl.compile(text.replace("N", str(layers)), dim=8, deepnorm=True)
        for node in g.nodes("block"):
            options = g.nx.nodes[node]["options"]
            assert options["scale_residual_constant"] == pytest.approx(alpha)
            assert options["init_gain"] == pytest.approx(beta)
            assert (options["pre_norm"], options["scale_residual"]) == (False, True)


def test_what_the_user_gives_wins_over_deepnorm() -> None:
    g = blockdsl.compile(
        "set init_gain=0.25; a f(scale_residual=false, init_gain=none)", dim=8, deepnorm=True, scale_residual_constant=3
    )
    a, f = (g.nx.nodes[node]["options"] for node in g.nodes("block"))
    assert (a["scale_residual"], a["scale_residual_constant"], a["init_gain"]) == (True, 3, 0.25)
    assert (f["scale_residual"], f["scale_residual_constant"], f["init_gain"]) == (False, 3, None)


def test_keys_that_serve_as_values_have_the_values_gain() -> None:
    options = {"heads": 4, "dim_head": 64, "shared_kv": True}
    for layer, weight in (
        (own := Attention(192, **options), own.to_qkv.weight[256:]),
        (cross := CrossAttention(192, **options), cross.to_kv.weight),
    ):
        init_xavier(layer, 0.3)
        assert_drawn(weight, 0.3, fans=192 + 256)


def test_what_starts_at_a_value_of_its_own_keeps_it() -> None:
    layers = Encoder(
        64,
        1,
        deepnorm=True,
        zero_init_branch_output=True,
        attn_gate_values=True,
        attn_tensor_product=True,
        cross_attend=True,
    )
    for name, parameter in layers.named_parameters():
        if name.endswith(("to_out.weight", "to_out.bias", "to_gate.weight", "to_hidden.bias")):
            assert not parameter.any(), name
        if name.endswith("to_gate.bias"):
            assert parameter.eq(1).all(), name
        if name.endswith("to_relation.weight"):
            assert_drawn(parameter, 1.0)


def test_a_module_of_a_users_kind_is_drawn_whole_unless_it_knows_better() -> None:
    class Own(nn.Linear):
        def init_xavier(self, gain: float) -> None:
            nn.init.constant_(self.weight, gain)

    layer = nn.Sequential(nn.Linear(200, 100), nn.Conv1d(100, 60, 3), nn.LayerNorm(60), Own(60, 60))
    init_xavier(layer, 0.5)
    assert_drawn(layer[0].weight, 0.5)
    assert_drawn(layer[1].weight, 0.5, fans=300 + 180)
    assert not layer[0].bias.any()
    assert not layer[1].bias.any()
    assert layer[2].weight.eq(1).all()
    assert layer[3].weight.eq(0.5).all()


def test_without_a_gain_weights_are_drawn_as_torch_does() -> None:
    layer = Decoder(64, 1).blocks["f1"].layer
    assert layer.to_hidden.bias.any()
    assert layer.to_hidden.weight.abs().max() <= 64**-0.5


def test_a_residual_connection_of_ones_own_takes_the_place_of_ours() -> None:
    class Halved(nn.Module):
        def forward(self, update: Tensor, x: Tensor) -> Tensor:
            return x + update / 2

    block, x = Block(nn.Linear(DIM, DIM), DIM, Norm.of("layernorm", {})), torch.randn(2, 5, DIM)
    assert block(x).adds
    block.residual = Halved()
    out = block(x)
    torch.testing.assert_close(out.stream, x + block.layer(block.norm(x)) / 2)
    assert not out.adds
