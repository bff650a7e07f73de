"""Norms and layer scales by a condition: the arithmetic by hand, and the condition's way through every kind of pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, GraphError, PatternError, UserError
from xt_blocks import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper
from xt_blocks.kernels.cross_entropy import Target

DIM, COND = 8, 3
ADAPTIVE: dict[str, Any] = {"use_adaptive_rmsnorm": True, "use_adaptive_layerscale": True, "dim_condition": COND}
SIZES: dict[str, Any] = {"dim": DIM, "heads": 2, "attn_dim_head": 4}


def stirred(module: nn.Module) -> Any:
    """Weights that are zero at first would hide the condition."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def model(**settings: Any) -> TransformerWrapper:
    around = {name: settings.pop(name) for name in ("max_mem_len", "num_memory_tokens") if name in settings}
    stack = Decoder(**SIZES | {"depth": 2, "rotary_pos_emb": True} | ADAPTIVE | settings)
    return stirred(TransformerWrapper(num_tokens=11, max_seq_len=16, attn_layers=stack, **around)).double()


def condition(batch: int = 2, *seq: int) -> Tensor:
    return torch.randn(batch, *seq, COND, dtype=torch.float64)


# The arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("seq", [(), (5,)])
def test_a_block_by_hand(name: str, mlp: bool, seq: tuple[int, ...]) -> None:
    """Each place by itself, in float64; the final norm reads the condition too."""
    settings: dict[str, Any] = {f"use_adaptive_{name}": True, "use_adaptive_layerscale": True, "dim_condition": COND}
    further: dict[str, Any] = {"adaptive_condition_mlp": True, "adaptive_condition_mlp_expansion": 2} if mlp else {}
    graph = blockdsl.compile("f(sandwich_norm, scale_residual)", dim=DIM, norm_eps=0.1, **settings, **further)
    stack = stirred(xt_blocks.lower(graph)).double()
    weights, x, given = dict(stack.named_parameters()), torch.randn(2, 5, DIM, dtype=torch.float64), condition(2, *seq)
    out = stack(x, condition=given)
    for row in range(2):
        for place in range(5):
            of_place = given[row, place] if seq else given[row]
            if mlp:
                hidden = weights["condition_mlp.0.weight"] @ of_place
                of_place = hidden / (1 + torch.exp(-hidden))

            def normed(v: Tensor, where: str, of_place: Tensor = of_place) -> Tensor:
                v = v - v.mean() if name == "layernorm" else v
                return v / (v.square().mean() + 0.1).sqrt() * (1 + weights[f"{where}.to_gain.weight"] @ of_place)

            token, own = x[row, place], "blocks.f0"
            hidden = weights[f"{own}.layer.to_hidden.weight"] @ normed(token, f"{own}.norm")
            hidden = F.gelu(hidden + weights[f"{own}.layer.to_hidden.bias"])
            update = weights[f"{own}.layer.to_out.weight"] @ hidden + weights[f"{own}.layer.to_out.bias"]
            scale = weights[f"{own}.adaptive_layer_scale.to_gain.weight"] @ of_place
            scale = scale + weights[f"{own}.adaptive_layer_scale.to_gain.bias"]
            update = normed(update, f"{own}.sandwich_norm") / (1 + torch.exp(-scale))
            want = normed(token * weights[f"{own}.residual.scale"] + update, "norm")
            torch.testing.assert_close(out[row, place], want)


def test_a_new_block_is_its_plain_norm_and_a_small_branch() -> None:
    graph = blockdsl.compile("f", dim=DIM, use_adaptive_layernorm=True, use_adaptive_layerscale=True)
    block = xt_blocks.lower(graph).blocks["f0"]
    x, given = torch.randn(1, 3, DIM), torch.randn(1, 1, DIM)
    expected = x + block.layer(F.layer_norm(x, (DIM,))) * torch.tensor(-2.0).sigmoid()
    torch.testing.assert_close(block(x, condition=given).stream, expected)


def test_simple_rms_norm_and_a_norm_after_the_add_by_hand() -> None:
    stack = stirred(xt_blocks.lower(blockdsl.compile("f", dim=DIM, use_simple_rmsnorm=True, pre_and_post_norm=True)))
    block, x = stack.blocks["f0"], torch.randn(2, 3, DIM)

    def unit(v: Tensor) -> Tensor:
        return v / v.norm(dim=-1, keepdim=True) * DIM**0.5

    torch.testing.assert_close(stack(x), unit(x + block.layer(unit(x))))
    assert [name for name, _ in stack.named_parameters() if "norm" in name] == []


def test_a_branch_without_its_part_along_the_stream() -> None:
    graph = blockdsl.compile("(f & f/2)", dim=DIM, orthog_residual=True, scale_residual=True, final_norm=False)
    stack, x = stirred(xt_blocks.lower(graph)).double(), torch.randn(2, 3, DIM, dtype=torch.float64)
    want = x.clone()
    for node, scale in (("f0", 1.0), ("f1", 0.5)):
        block = stack.blocks[node]
        update = scale * block.layer(block.norm(x))
        for row in range(2):
            for place in range(3):
                unit = x[row, place] / x[row, place].norm()
                update[row, place] -= (update[row, place] @ unit) * unit
        assert (update * x).sum(dim=-1).abs().max() < 1e-5
        want += update + x * (block.residual.scale - 1)
    torch.testing.assert_close(stack(x), want, atol=1e-5, rtol=1e-5)


def test_dropout_of_a_layers_output() -> None:
    """What is left is scaled up, in front of what a block makes of it."""
    stack = xt_blocks.lower(blockdsl.compile("a f", ff_sublayer_dropout=0.5, attn_sublayer_dropout=0.25, **SIZES))
    x = torch.randn(40, 5, DIM)
    for node, share in (("a0", 0.25), ("f1", 0.5)):
        block = stack.blocks[node].eval()
        want = block(x).update
        got = block.train()(x).update
        kept = got != 0
        torch.testing.assert_close(got[kept], want[kept] / (1 - share))
        assert abs(kept.float().mean().item() - (1 - share)) < 0.05


# Every kind of pass --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [(), (10,)])
def test_generation_with_a_cache_compiled_by_hand_and_without_gives_the_same(seq: tuple[int, ...]) -> None:
    net = model(num_memory_tokens=2)
    trainer, tokens, given = AutoregressiveWrapper(net), torch.randint(0, 11, (2, 4)), condition(2, *seq)
    prompts = [tokens[0], tokens[1, 2:]]  # padded on the left
    whole = trainer.generate(prompts, 6, temperature=0.0, cache_kv=False, condition=given)
    assert torch.equal(trainer.generate(prompts, 6, temperature=0.0, condition=given), whole)
    alone = given[1:, 2:] if seq else given[1:]
    assert torch.equal(trainer.generate(prompts[1][None], 6, temperature=0.0, condition=alone)[0], whole[1])
    other = trainer.generate(prompts, 6, temperature=0.0, condition=given + 5)
    assert not torch.equal(other, whole)
    text = torch.cat((tokens, whole), dim=1)[:1]
    step = {"condition": given[:1, :6] if seq else given[:1]}
    _, seen = net(text[:, :6], return_intermediates=True, **step)
    step = {"condition": given[:1]} if seq else {}
    torch.testing.assert_close(net(text, cache=seen, **step), net(text, condition=given[:1])[:, 6:])
    cache = net.new_cache(1)
    net(text[:, :6], cache=cache, condition=given[:1, :6] if seq else given[:1])
    copied = cache.fix_shapes().select(torch.tensor([0, 0]))
    step = {"condition": given[:1, 6:7].expand(2, -1, -1)} if seq else {}
    after = net(text[:, 6:7].expand(2, -1), cache=copied, **step)
    torch.testing.assert_close(after[:, 0], net(text, condition=given[:1])[:, 6].expand(2, -1))


def test_segments_are_one_long_text() -> None:
    net = model(max_mem_len=9, num_memory_tokens=1)
    tokens, given, out, mems = torch.randint(0, 11, (2, 9)), condition(2, 9), [], None
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        logits, mems = net(tokens[:, part], mems=mems, return_mems=True, condition=given[:, part])
        out.append(logits)
    torch.testing.assert_close(torch.cat(out, dim=1), net(tokens, condition=given))
    trainer = xt_blocks.XLAutoregressiveWrapper(net)
    trainer.max_seq_len = 4
    loss = F.cross_entropy(net(tokens[:, :-1], condition=given[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(trainer(tokens, condition=given[:, :-1]), loss)
    _, mems = net(tokens, return_mems=True, condition=condition(2))
    with pytest.raises(ValueError, match="condition is of each token, but the tokens in mems have none of their own"):
        net(tokens, mems=mems, condition=given)


@pytest.mark.parametrize("seq", [(), (11,)])
def test_generation_past_the_window_and_over_segments(seq: tuple[int, ...]) -> None:
    rolling = TransformerWrapper(num_tokens=11, max_seq_len=4, use_abs_pos_emb=False, attn_layers=Decoder(
        **SIZES, **ADAPTIVE, depth=2, rotary_pos_emb=True, attn_max_attend_past=2))  # fmt: skip
    segments = model(max_mem_len=5)
    segments.max_seq_len = 4
    prompts = [torch.randint(0, 11, (n,)) for n in (6, 3)]
    for trainer in (AutoregressiveWrapper(stirred(rolling).double()), xt_blocks.XLAutoregressiveWrapper(segments)):
        given = condition(2, *seq)
        cached, plain = (
            trainer.generate(prompts, 5, temperature=0.0, condition=given, cache_kv=kept) for kept in (True, False)
        )
        assert torch.equal(cached, plain)
        for row, prompt in enumerate(prompts):
            own = given[row : row + 1, 6 - len(prompt) :] if seq else given[row : row + 1]
            assert torch.equal(trainer.generate(prompt[None], 5, temperature=0.0, condition=own)[0], cached[row])


def test_losses_gradients_and_records() -> None:
    net, tokens = model(checkpoint="block").train(), torch.randint(0, 11, (2, 6))
    given = condition().requires_grad_()
    loss = AutoregressiveWrapper(net)(tokens, condition=given)
    loss.backward()
    want = F.cross_entropy(net.eval()(tokens[:, :-1], condition=given).transpose(1, 2), tokens[:, 1:])
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(given.grad, torch.autograd.grad(want, given)[0])
    rows = xt_blocks.record(net, tokens, condition=given)
    assert [*rows] == ["a0", "f1", "a2", "f3"]
    with torch.no_grad():
        plain = net.float()(tokens, condition=given.float())
        torch.testing.assert_close(xt_blocks.pack(net)(tokens, condition=given.float()), plain)


def test_other_models_around_a_stack() -> None:
    given = condition().float()
    encoder = Encoder(**SIZES | {"depth": 1} | ADAPTIVE)
    vectors = stirred(
        xt_blocks.ContinuousTransformerWrapper(max_seq_len=8, attn_layers=Decoder(**SIZES, depth=1, **ADAPTIVE))
    )
    x = torch.randn(2, 5, DIM)
    assert not torch.equal(vectors(x, condition=given), vectors(x, condition=given + 1))
    trainer = xt_blocks.ContinuousAutoregressiveWrapper(vectors)
    cached, plain = (trainer.generate(x[:, :2], 4, cache_kv=cached, condition=given) for cached in (True, False))
    torch.testing.assert_close(cached, plain)
    image = stirred(xt_blocks.ViTransformerWrapper(image_size=4, patch_size=2, attn_layers=encoder, pool="attention"))
    assert not torch.equal(
        image(torch.ones(2, 3, 4, 4), condition=given), image(torch.ones(2, 3, 4, 4), condition=-given)
    )
    sides = {
        f"{side}_{name}": value
        for side in ("enc", "dec")
        for name, value in {"num_tokens": 9, "max_seq_len": 8, "depth": 1, "heads": 1}.items()
    }
    pair = stirred(xt_blocks.XTransformer(dim=DIM, **sides, dec_use_adaptive_layernorm=True, dec_dim_condition=COND))
    tokens = torch.randint(0, 9, (2, 4))
    assert pair(tokens, tokens, condition=given) != pair(tokens, tokens, condition=given + 1)
    assert pair.generate(tokens, tokens[:, :1], 3, condition=given).shape == (2, 3)
    text = TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=encoder, pool="mean", return_only_embed=True)
    dual, texts = xt_blocks.DualEncoder(image, stirred(text)), torch.randint(0, 9, (2, 4))
    one, other = (
        dual(torch.ones(2, 3, 4, 4), texts, image_condition=given, text_condition=sign * given) for sign in (1, -1)
    )
    assert not torch.equal(one, other)
    both = stirred(xt_blocks.lower(blockdsl.compile("(a f)*1 => a c", **SIZES, **ADAPTIVE)))
    assert not torch.equal(both(x, x, condition=given), both(x, x, condition=given + 1))
    filler = xt_blocks.NonAutoregressiveWrapper(
        stirred(TransformerWrapper(num_tokens=12, max_seq_len=5, attn_layers=encoder)), mask_id=11
    )
    assert filler(torch.randint(0, 11, (2, 5)), condition=given).loss.isfinite()
    assert filler.generate(2, condition=given).shape == (2, 5)
    target = Target(torch.randint(0, 11, (2, 5)))
    assert model().float()(torch.randint(0, 11, (2, 5)), target=target, condition=given).ndim == 0


# What is wrong, in words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "the stack has norms or layer scales that read a condition: give condition="),
        (torch.zeros(2, 4), r"condition must be \(2, 3\) or \(2, 5, 3\), not \(2, 4\)"),
        (torch.zeros(1, 3), r"condition must be \(2, 3\) or \(2, 5, 3\), not \(1, 3\)"),
        (torch.zeros(2, 4, 3), r"condition must be \(2, 3\) or \(2, 5, 3\), not \(2, 4, 3\)"),
        (torch.zeros(2, 3, dtype=torch.int64), "condition must be floating point"),
    ],
)
def test_a_condition_that_is_missing_or_does_not_fit(given: Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model()(torch.zeros(2, 5, dtype=torch.int64), condition=given)


def test_a_condition_that_nothing_reads() -> None:
    net = TransformerWrapper(num_tokens=11, max_seq_len=16, attn_layers=Decoder(**SIZES, depth=1))
    words = "a condition is given, but no norm or layer scale"
    with pytest.raises(ValueError, match=words):
        net(torch.zeros(2, 5, dtype=torch.int64), condition=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=words):
        AutoregressiveWrapper(net).generate(torch.zeros(2, 5, dtype=torch.int64), 3, condition=torch.zeros(2, 3))
    with pytest.raises(TypeError, match="condition must be a tensor, not list"):
        model()(torch.zeros(2, 5, dtype=torch.int64), condition=[[0.0] * 3] * 2)
    with pytest.raises(ValueError, match=r"condition must be \(2, 3\), or \(2, 8, 3\) of each token, not \(2, 5, 3\)"):
        AutoregressiveWrapper(model()).generate(torch.zeros(2, 5, dtype=torch.int64), 3, condition=torch.zeros(2, 5, 3))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dim_condition": 3}, "dim_condition is set, but no norm or layer scale reads a condition"),
        ({"adaptive_condition_mlp": True}, "adaptive_condition_mlp is set, but no norm or layer scale reads"),
        ({"adaptive_condition_mlp_expansion": 2}, "adaptive_condition_mlp_expansion is set, but it needs"),
        (
            {"use_adaptive_rmsnorm": True, "use_rmsnorm": True},
            "use_rmsnorm and use_adaptive_rmsnorm are both set; give one",
        ),
        (
            {"use_adaptive_rmsnorm": True, "norm_unit_offset": True},
            "norm_unit_offset is set, but use_adaptive_rmsnorm has no gain of its own",
        ),
        (
            {"use_adaptive_rmsnorm": True, "norm_gain": False},
            "norm_gain is false, but the gain of use_adaptive_rmsnorm",
        ),
        ({"use_adaptive_layerscale": True, "layer_scale": 0.1}, "use_adaptive_layerscale and layer_scale are both set"),
        ({"pre_and_post_norm": True, "pre_norm": False}, "pre_and_post_norm is set, but it needs pre_norm"),
    ],
)
def test_settings_that_clash(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        blockdsl.compile("a f", **SIZES, **settings)


def test_the_graph_says_who_reads_the_condition() -> None:
    g = blockdsl.compile("a f(use_adaptive_layernorm) f(use_adaptive_layerscale)", dim_condition=COND, **SIZES)
    assert g.nx.nodes["condition"] == {"type": "condition", "dim": COND, "expansion": None}
    assert [*g.nx.succ["condition"]] == ["f1", "f2"]
    assert g.nx.nodes["output"]["norm"] == "layernorm"
    assert BlockGraph.from_json(g.to_json()) == g
    assert g.digest() != blockdsl.compile(str(g.pattern), dim_condition=4, **SIZES).digest()
    wider = blockdsl.compile(str(g.pattern), dim_condition=4, **SIZES)
    assert [change.changes[0].name for change in g.diff(wider).settings] == ["dim"]
    plain = blockdsl.compile("a f f", **SIZES)
    assert plain.diff(g).added == ("condition",)
    assert {change.after for change in plain.diff(g).wiring} == {"f1", "f2"}
    assert "condition: 3 features\n" in g.to_text()
    assert "reads the condition" in g.to_text()
    assert "× σ(W·condition + b)" in g.to_svg(detail="op", unfold=True)
    for text in (g.to_svg(), g.to_dot(), g.to_mermaid()):
        assert "condition" in text
    g.nx.remove_edge("condition", "f1")
    with pytest.raises(GraphError, match="f1: has no condition, and is adaptive"):
        g.lint()
    g.nx.add_edge("condition", "f1", carries="condition")
    g.nx.add_edge("condition", "output", carries="condition")
    with pytest.raises(GraphError, match="output: reads a condition, but nothing of it is adaptive"):
        g.lint()
    g.nx.remove_edge("condition", "output")
    g.nx.add_edge("input", "f2", carries=("stream", "condition"))
    with pytest.raises(GraphError, match="input cannot hand condition to block"):
        g.lint()
    with pytest.raises(PatternError, match="dim_condition is set, but no norm"):
        blockdsl.compile("set dim_condition=3; a f", **SIZES)
