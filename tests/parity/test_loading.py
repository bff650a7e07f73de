"""Loading weights of x-transformers: what is reported, and what the model and its graph are afterwards."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xt_blocks
from blockdsl import UserError
from xt_blocks.interop import load_x_transformers
from xt_blocks.interop.names import release_of
from xt_blocks.positions.rotary import Rotary

from . import peer
from .test_parity import CASES

TOKENS = {"num_tokens": 17, "max_seq_len": 12}


def decoder(**options: Any) -> xt_blocks.TransformerWrapper:
    return xt_blocks.TransformerWrapper(**TOKENS, attn_layers=xt_blocks.Decoder(**(peer.BASE | options)))


def state(name: str) -> dict[str, torch.Tensor]:
    return peer.peer_state(CASES[name])


def test_all_that_does_not_fit_is_listed_at_once() -> None:
    weights = state("1_10_0-decoder_plain")
    del weights["norm.bias"], weights["attn_layers.layers.0.1.to_q.weight"], weights["token_emb.emb.weight"]
    weights["attn_layers.layers.9.1.to_q.weight"] = torch.zeros(1)
    weights["to_logits.weight"] = torch.zeros(3, 3)
    with pytest.raises(UserError) as error:
        load_x_transformers(decoder(), weights)
    assert str(error.value).splitlines() == [
        "these weights do not fit the model (read as of release 1.x; the two models must be built with the same arguments):",
        "  missing: token_emb.emb.weight",
        "  missing: attn_layers.layers.0.1.to_q.weight",
        "  missing: norm.bias",
        "  unexpected: attn_layers.layers.9.1.to_q.weight",
        "  of another size: to_logits.weight is (3, 3), the model's is (17, 32)",
    ]


def test_a_model_of_other_options_is_told_what_it_lacks() -> None:
    with pytest.raises(UserError, match=r"missing: attn_layers\.layers\.0\.1\.mem_k"):
        load_x_transformers(decoder(attn_num_mem_kv=2), state("1_10_0-decoder_plain"))
    with pytest.raises(UserError, match=r"unexpected: attn_layers\.layers\.0\.1\.mem_k"):
        load_x_transformers(decoder(), state("1_10_0-attn_num_mem_kv"))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].get("wrapper") == "TransformerWrapper"])
def test_the_graph_says_what_the_loaded_model_is(name: str) -> None:
    model = peer.loaded(CASES[name])
    net = model if isinstance(model, xt_blocks.TransformerWrapper) else model.net
    again = xt_blocks.lower(net.graph)
    again.load_state_dict(net.state_dict())
    tokens = torch.randint(0, 17, (2, 7))
    extra = {"context": torch.randn(2, 3, net.graph.dim_context)} if net.attn_layers.reads_context else {}
    if features := net.graph.condition[0]:
        extra["condition"] = torch.randn(2, features)
    torch.testing.assert_close(again.eval()(tokens, **extra), net(tokens, **extra))
    assert net.graph.parameters() == sum(parameter.numel() for parameter in net.parameters())


def test_an_old_wrapper_has_a_layernorm_behind_its_stack_whatever_its_norms() -> None:
    model = peer.loaded(CASES["1_10_0-use_rmsnorm"])
    assert isinstance(model.attn_layers.norm, torch.nn.LayerNorm)
    assert model.graph.nx.nodes["output"]["norm"] == "layernorm"


def test_an_old_stack_alone_has_no_norm_behind_it() -> None:
    model = peer.loaded(CASES["1_10_0-encoder_layers_only"])
    assert isinstance(model.norm, torch.nn.Identity)
    assert model.graph.nx.nodes["output"]["norm"] is None
    post = xt_blocks.Encoder(**peer.BASE, pre_norm=False)
    with pytest.raises(UserError, match="no norm after its last block"):
        load_x_transformers(post, state("1_10_0-encoder_layers_only"))


def test_a_gate_keeps_its_bias() -> None:
    weights = state("1_10_0-ff_glu")
    weights = dict(weights)
    del weights["attn_layers.layers.1.1.ff.3.bias"], weights["attn_layers.layers.3.1.ff.3.bias"]
    model = load_x_transformers(decoder(ff_glu=True, ff_no_bias=True), weights)
    first = model.attn_layers.blocks["f1"].layer
    assert torch.equal(first.to_hidden.bias, weights["attn_layers.layers.1.1.ff.0.proj.bias"])
    assert (first.to_out.bias == 0).all()
    assert model.graph.nx.nodes["f1"]["options"]["no_bias"] is False


def test_rotated_features_of_todays_release_are_put_in_our_order() -> None:
    weights = state("2_31_10-now_rotary_full")
    model = load_x_transformers(decoder(**CASES["2_31_10-now_rotary_full"]["layers"]), weights)
    theirs = weights["attn_layers.layers.0.1.to_q.weight"]
    ours = model.attn_layers.blocks["a0"].layer.to_qkv.weight[:32]
    assert torch.equal(ours[:8], theirs[0:16:2])
    assert torch.equal(ours[8:16], theirs[1:16:2])


def test_old_rotary_weights_are_loaded_with_a_warning() -> None:
    weights = state("1_10_0-decoder_plain")
    del weights["pos_emb.emb.weight"]
    with pytest.warns(UserWarning, match="1.x rotates values as well"):
        load_x_transformers(decoder(rotary_pos_emb=True), weights)


def test_what_no_parameters_of_ours_can_say_is_refused() -> None:
    with pytest.raises(UserError, match="orders ALiBi's slopes in a way"):
        load_x_transformers(
            xt_blocks.Decoder(dim=32, depth=1, heads=4, attn_dim_head=8, attn_kv_heads=2, alibi_pos_bias=True),
            {"final_norm.gamma": torch.ones(32)},
        )


@pytest.mark.parametrize("own", [{"class_token": True}, {"pool": "first"}, {"patch_norm": False}, {"crop": True}])
def test_images_are_read_as_x_transformers_reads_them(own: dict[str, Any]) -> None:
    model = xt_blocks.ViTransformerWrapper(
        image_size=8, patch_size=4, num_classes=3, attn_layers=xt_blocks.Encoder(dim=8, depth=1, heads=1), **own
    )
    with pytest.raises(UserError, match=f"{next(iter(own))}: x-transformers does not have it"):
        load_x_transformers(model, {}, release=2)


def test_the_release_can_be_given_and_must_be_told() -> None:
    with pytest.raises(UserError, match="give release=1 or release=2"):
        load_x_transformers(decoder(), {"token_emb.emb.weight": torch.zeros(17, 32)})
    with pytest.raises(UserError, match="release must be 1 or 2, not 3"):
        load_x_transformers(decoder(), {}, release=3)
    with pytest.raises(TypeError, match="into a Linear"):
        load_x_transformers(torch.nn.Linear(2, 2), {}, release=2)


def test_tied_weights_cannot_be_those_of_the_older_release() -> None:
    model = xt_blocks.Decoder(dim=32, heads=2, attn_dim_head=16, pattern="(a@x f@y)*2")
    with pytest.raises(UserError, match="is tied to another block"):
        load_x_transformers(model, state("1_10_0-encoder_layers_only"))


@pytest.mark.parametrize("critic", ["none", "own", "other"])
@pytest.mark.parametrize("release", ["1_10_0", "2_31_10"])
def test_what_fills_in_masks_is_loaded_with_its_critic(release: str, critic: str) -> None:
    """The peer keeps the net's names below `net.`, and a critic of itself has them once more."""
    case = next(c for c in peer.cases(release) if c.get("layers_class") == "Encoder" and len(c["args"]) == 1)
    weights, n = peer.peer_state(case), case["wrapper_kwargs"]["num_tokens"]
    net, judge = peer.build(case), peer.build({**case, "wrapper_kwargs": {**case["wrapper_kwargs"], "logits_dim": 1}})
    dim = net.dim
    state = {f"net.{name}": value for name, value in weights.items()}
    state |= {"null_embed": torch.randn(dim), "to_self_cond.weight": torch.randn(dim, dim)}
    head = {"weight": torch.randn(1, dim), "bias": torch.randn(1)}
    if critic == "own":
        state |= {f"token_critic.net.{name}": value for name, value in weights.items()}
        state |= {f"token_critic.to_logits.{name}": value for name, value in head.items()}
    if critic == "other":
        state |= {f"token_critic.{name}": value for name, value in weights.items() if "to_logits" not in name}
        state |= {f"token_critic.to_logits.{name}": value for name, value in head.items()}
    model = xt_blocks.NonAutoregressiveWrapper(
        net,
        mask_id=n - 1,
        self_cond=True,
        self_token_critic=critic == "own",
        token_critic=judge if critic == "other" else None,
    )
    load_x_transformers(model, state)
    assert torch.equal(model.null_embed, state["null_embed"])
    assert torch.equal(model.to_self_cond.weight, state["to_self_cond.weight"])
    x = peer.tensor(case["args"][0])
    close = {"rtol": 1e-4, "atol": 1e-5}
    if not case.get("kwargs"):
        torch.testing.assert_close(model.net.eval()(x), peer.expected(case), **close)
    if critic == "own":
        torch.testing.assert_close(model.to_critic.weight, head["weight"])
    if critic == "other":
        hidden = judge.eval()(x, return_embeddings=True)
        torch.testing.assert_close(judge(x), hidden @ head["weight"].T + head["bias"], **close)

    del state["null_embed"]
    with pytest.raises(UserError, match="missing: null_embed"):
        load_x_transformers(model, state)


# What the model and its graph are set to ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "depth"),
    [
        ({"macaron": True}, 2),
        ({"cross_attend": True}, 2),
        ({"cross_attend": True, "macaron": True, "depth": 3, "sandwich_coef": 1}, 3),
        ({"cross_attend": True, "depth": 4, "par_ratio": 4}, 4),
    ],
)
def test_deepnorm_of_the_older_release_follows_depth(layers: dict[str, Any], depth: int) -> None:
    model = decoder(deepnorm=True, **layers)
    weights = peer_like(model)
    load_x_transformers(model, weights)
    for node in model.graph.nodes("block"):
        constant = (2 * depth) ** 0.25
        assert model.graph.nx.nodes[node]["options"]["scale_residual_constant"] == pytest.approx(constant)
        assert model.attn_layers.blocks[node].residual.constant == pytest.approx(constant)


def test_deepnorm_of_an_order_that_does_not_tell_its_depth_is_refused() -> None:
    model = decoder(deepnorm=True, custom_layers=("a", "f", "f"))
    with pytest.raises(UserError, match=r"deepnorm: 1\.x takes its constant from depth"):
        load_x_transformers(model, peer_like(model))
    said = {"pre_norm": False, "scale_residual": True, "scale_residual_constant": 1.5}
    model = decoder(**said, custom_layers=("a", "f", "f"))
    assert load_x_transformers(model, peer_like(model)).attn_layers.blocks["a0"].residual.constant == 1.5


def peer_like(model: xt_blocks.TransformerWrapper) -> dict[str, torch.Tensor]:
    """Weights of release 1.x that fit a post-norm decoder over tokens."""
    stack, dim = model.attn_layers, model.dim
    out = {"token_emb.emb.weight": torch.randn(17, dim), "pos_emb.emb.weight": torch.randn(12, dim)}
    out |= {"norm.weight": torch.ones(dim), "norm.bias": torch.zeros(dim)}
    out |= {"to_logits.weight": torch.randn(17, dim), "to_logits.bias": torch.zeros(17)}
    for i, name in enumerate(stack.blocks):
        at = f"attn_layers.layers.{i}"
        if i < len(stack.blocks) - 1:
            out |= {f"{at}.0.2.weight": torch.ones(dim), f"{at}.0.2.bias": torch.zeros(dim)}
        out[f"{at}.2.residual_scale"] = torch.ones(dim)
        if name.startswith("f"):
            place = f"{at}.1.fn.ff" if stack.graph.nx.nodes[name]["scale"] != 1 else f"{at}.1.ff"
            out |= {f"{place}.0.0.weight": torch.randn(4 * dim, dim), f"{place}.0.0.bias": torch.zeros(4 * dim)}
            out |= {f"{place}.3.weight": torch.randn(dim, 4 * dim), f"{place}.3.bias": torch.zeros(dim)}
        else:
            out |= {f"{at}.1.to_{name}.weight": torch.randn(32, dim) for name in "qkv"}
            out[f"{at}.1.to_out.weight"] = torch.randn(dim, 32)
    return out


def test_a_half_step_before_a_sandwich_norm_is_taken_into_the_weights() -> None:
    case = CASES["1_10_0-macaron_sandwich_norm"]
    model, weights = peer.loaded(case), peer.peer_state(case)
    assert torch.equal(
        model.attn_layers.blocks["f0"].layer.to_out.weight, weights["attn_layers.layers.0.1.fn.ff.3.weight"] / 2
    )
    assert model.graph.nx.nodes["f0"]["scale"] == 1.0
    assert [step.use.scale for step in model.attn_layers.plan] == [1.0] * 6


def test_a_norm_that_is_put_in_has_the_models_dtype() -> None:
    model = decoder(pre_norm=False, use_rmsnorm=True).to(torch.bfloat16)
    weights = state("1_10_0-post_norm")
    weights = {name.replace(".0.2.weight", ".0.2.g"): tensor for name, tensor in weights.items()}
    model = load_x_transformers(model, {name: t for name, t in weights.items() if not name.endswith(".0.2.bias")})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(torch.randint(0, 17, (1, 4))).dtype == torch.bfloat16


def test_gains_that_are_stored_less_one_are_added_in_full_precision() -> None:
    weights = state("2_31_10-now_rotary_full")
    weights["attn_layers.final_norm.gamma"] = torch.full((32,), 1 / 300, dtype=torch.bfloat16)
    model = load_x_transformers(decoder(**CASES["2_31_10-now_rotary_full"]["layers"]), weights)
    assert torch.equal(model.attn_layers.norm.weight, 1 + weights["attn_layers.final_norm.gamma"].float())


def test_all_weights_in_half_precision_are_read() -> None:
    case = CASES["2_31_10-now_rotary_full"]
    weights = {name: tensor.half() for name, tensor in peer.peer_state(case).items()}
    model = load_x_transformers(peer.build(case), weights).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(peer.output(case, model), peer.expected(case), rtol=0.02, atol=0.02)


# What is refused, and what is warned of ------------------------------------------------------------------------------


REFUSED = [
    ("1_10_0-decoder_plain", {"residual_attn": True, "attn_sparse_topk": 2}, "attn_sparse_topk: residual attention of 1.x"),
    ("1_10_0-decoder_plain", {"attn_softcap": 5}, "attn_softcap: 1.x does not have it"),
    ("1_10_0-attn_num_mem_kv", {"attn_num_mem_kv": 4, "alibi_pos_bias": True}, "attn_num_mem_kv: 1.x biases the scores"),
    ("1_10_0-attn_num_mem_kv", {"attn_num_mem_kv": 4, "rel_pos_bias": True}, "attn_num_mem_kv: 1.x biases the scores"),
    ("1_10_0-attn_num_mem_kv", {"attn_num_mem_kv": 4, "attn_max_attend_past": 2}, "attn_num_mem_kv: 1.x sees memory"),
    ("1_10_0-dynamic_pos_bias", {"dynamic_pos_bias": True, "alibi_pos_bias": True}, "alibi_pos_bias: 1.x ignores it"),
    ("2_31_10-softcap", {"attn_softcap": 2, "alibi_pos_bias": True}, "attn_softcap: 2.x caps the scores with"),
    ("2_31_10-sink", {"attn_sink": True, "attn_sparse_topk": 2}, "attn_sink: 2.x counts it among the top k"),
    ("2_31_10-now_rotary_full", {"pattern": "(a & f)*2", "depth": None, "rotary_pos_emb": True}, "wired otherwise"),
    ("2_31_10-now_rotary_full", {"pattern": "a f/3 a f", "depth": None, "rotary_pos_emb": True}, "half steps"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "words"), REFUSED)
def test_other_numbers_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_x_transformers(decoder(**options), state(name))


def test_groups_of_features_that_rotation_breaks_up_are_refused() -> None:
    grouped = {"attn_qk_norm": True, "attn_qk_norm_groups": 2, "rotary_pos_emb": True}
    weights = state("2_31_10-now_rotary_full")
    load_x_transformers(decoder(**grouped), weights)  # 8 of 16 features are rotated: a group by itself
    for further in ({"rotary_emb_dim": 16}, {"attn_qk_norm_groups": 4}, {"rotary_emb_dim": 12}):
        with pytest.raises(UserError, match=r"attn_qk_norm_groups: with rotary_pos_emb, 2\.x groups other features"):
            load_x_transformers(decoder(**(grouped | further)), weights)


def test_other_frequencies_are_refused() -> None:
    weights = state("2_31_10-now_rotary_full") | {"attn_layers.rotary_pos_emb.inv_freq": 1e4 ** -(torch.arange(4) / 4)}
    load_x_transformers(decoder(rotary_pos_emb=True), weights)
    for theirs in (1e5 ** -(torch.arange(4) / 4), 1e4 ** -(torch.arange(8) / 8)):
        with pytest.raises(UserError, match="rotary_pos_emb: the frequencies differ"):
            load_x_transformers(decoder(rotary_pos_emb=True), weights | {"attn_layers.rotary_pos_emb.inv_freq": theirs})
    with pytest.raises(UserError, match="rotary_xpos: one of the two models decays"):
        load_x_transformers(decoder(rotary_xpos=True), weights)


def test_a_window_of_cross_attention_is_warned_of() -> None:
    case = CASES["2_31_10-now_cross_attender"]
    model = xt_blocks.Encoder(**peer.BASE, pattern=None, custom_layers=("a", "c", "f"), attn_max_attend_past=2)
    weights = {f"layers.{i}.1.to_{name}.weight": torch.randn(32, 32) for i in (0, 1) for name in ("q", "k", "v", "out")}
    weights |= {
        name.replace("layers.1.", "layers.2."): t for name, t in peer.peer_state(case).items() if ".ff." in name
    }
    weights = {name: t for name, t in weights.items() if "layers.3" not in name}
    weights |= {f"layers.{i}.0.0.gamma": torch.zeros(32) for i in range(3)} | {"final_norm.gamma": torch.zeros(32)}
    with pytest.warns(
        UserWarning, match="attn_max_attend_past: in x-transformers it is a window of cross-attention too"
    ):
        load_x_transformers(model, weights)


def test_memories_of_the_older_release_are_warned_of() -> None:
    model = xt_blocks.TransformerWrapper(**TOKENS, max_mem_len=8, attn_layers=xt_blocks.Decoder(**peer.BASE))
    with pytest.warns(UserWarning, match=r"max_mem_len: 1\.x reads earlier segments before the block's norm"):
        load_x_transformers(model, state("1_10_0-decoder_plain"))


def test_a_warning_is_given_once_and_at_the_callers_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_x_transformers(decoder(attn_sparse_topk=3), state("1_10_0-attn_sparse_topk"))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_no_parameter_stays_as_it_was_made() -> None:
    model = xt_blocks.ContinuousTransformerWrapper(
        max_seq_len=8, use_abs_pos_emb=False, emb_dim=16, attn_layers=xt_blocks.Encoder(**peer.BASE)
    )
    weights = {f"attn_layers.{name}": t for name, t in state("1_10_0-encoder_layers_only").items()}
    with pytest.raises(UserError, match=r"not there: project_emb\.weight of the model"):
        load_x_transformers(model, weights | {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32)})


def test_norms_of_another_kind_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"missing: attn_layers\.layers\.0\.0\.0\.g"):
        load_x_transformers(decoder(use_rmsnorm=True, rotary_pos_emb=True), state("2_31_10-now_rotary_full"))


def test_a_weight_of_another_shape_and_the_same_size_does_not_fit() -> None:
    weights = state("1_10_0-decoder_plain")
    weights["attn_layers.layers.1.1.ff.3.weight"] = weights["attn_layers.layers.1.1.ff.3.weight"].T
    with pytest.raises(UserError, match=r"ff\.3\.weight is \(128, 32\), the model's is \(32, 128\)"):
        load_x_transformers(decoder(), weights)
    weights["attn_layers.layers.1.1.ff.3.weight"] = torch.zeros(32, 128, dtype=torch.int8)
    with pytest.raises(UserError, match="int8, no type of a parameter"):
        load_x_transformers(decoder(), weights)


def test_a_model_without_memory_is_not_filled_in_silence() -> None:
    with torch.device("meta"):
        model = decoder()
    with pytest.raises(UserError, match="on the meta device"):
        load_x_transformers(model, state("1_10_0-decoder_plain"))


@pytest.mark.parametrize("compiled", ["stack", "net", "both", "all"])
def test_a_wrapped_model_is_filled_too(compiled: str) -> None:
    case = CASES["1_10_0-use_rmsnorm"]
    stack: Any = xt_blocks.Decoder(**(peer.BASE | case["layers"]))
    net: Any = xt_blocks.TransformerWrapper(
        attn_layers=stack if compiled == "net" else torch.compile(stack, backend="eager"), **case["wrapper_kwargs"]
    )
    model: Any = xt_blocks.AutoregressiveWrapper(net if compiled == "stack" else torch.compile(net, backend="eager"))
    if compiled == "all":
        model = torch.compile(torch.nn.DataParallel(model), backend="eager")
    assert load_x_transformers(model, peer.peer_state(case)) is model
    torch.testing.assert_close(peer.output(case, net.eval()), peer.expected(case), rtol=1e-4, atol=1e-5)


SPOILT: list[Callable[[dict[str, Any]], Any]] = [
    lambda weights: weights.pop("to_logits.weight"),
    lambda weights: weights.update(further=torch.zeros(1)),
    lambda weights: weights.update({"norm.weight": torch.zeros(3)}),
    lambda weights: weights.update({"norm.weight": torch.zeros(32, device="meta")}),
]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("name", ["1_10_0-macaron_sandwich_norm", "1_10_0-more_glu_no_bias", "1_10_0-deepnorm_macaron"])
def test_a_load_that_fails_leaves_the_model_as_it_was(name: str, spoil: Callable[[dict[str, Any]], Any]) -> None:
    model, weights = peer.build(CASES[name]), peer.peer_state(CASES[name])
    before, text, graph = copy.deepcopy(model.state_dict()), str(model), model.graph.to_json()
    spoil(weights)
    with pytest.raises(UserError, match="do not fit"):
        load_x_transformers(model, weights)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (str(model), model.graph.to_json()) == (text, graph)


# What is given -------------------------------------------------------------------------------------------------------


def wrapped(weights: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The same weights with the names that torch's wrappers give them."""
    return [
        {f"_orig_mod.{name}": tensor for name, tensor in weights.items()},
        {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()},
        {name.replace("attn_layers.", "attn_layers._orig_mod."): tensor for name, tensor in weights.items()},
        {name.replace("layers.0.1.", "layers.0.1.module."): tensor for name, tensor in weights.items()},
        {f"_fsdp_wrapped_module.{name}": tensor for name, tensor in weights.items()},
        {f"net.module.{name}": tensor for name, tensor in weights.items()},
    ]


@pytest.mark.parametrize("which", range(6))
def test_what_wrappers_put_into_names_does_not_matter(which: int) -> None:
    case = CASES["2_31_10-now_rotary_full"]
    model = load_x_transformers(peer.build(case), wrapped(peer.peer_state(case))[which]).eval()
    torch.testing.assert_close(peer.output(case, model), peer.expected(case), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("release", ["1_10_0-decoder_plain", "2_31_10-now_rotary_full"])
def test_a_wrappers_weights_are_read_by_its_net_and_the_other_way_round(release: str) -> None:
    case = CASES[release]
    bare = peer.peer_state(case)
    around = {f"net.{name}": tensor for name, tensor in bare.items()}
    for model, weights in (
        (peer.build(case), around),
        (xt_blocks.AutoregressiveWrapper(peer.build(case)), bare),
        (xt_blocks.AutoregressiveWrapper(peer.build(case)), around),
    ):
        net = getattr(load_x_transformers(model, weights), "net", model).eval()
        torch.testing.assert_close(peer.output(case, net), peer.expected(case), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["ema_model.", "model.", "decoder.net.", "online_model.module.net."])
def test_a_prefix_that_is_not_the_models_is_named(prefix: str) -> None:
    weights = {prefix + name: tensor for name, tensor in state("1_10_0-decoder_plain").items()}
    plain = prefix.replace("module.", "")
    with pytest.raises(UserError, match=rf"the weights of this model are below '{plain}'") as error:
        load_x_transformers(decoder(), weights)
    advice = str(error.value).split("give ")[1]
    state_dict = {name.replace("module.", ""): tensor for name, tensor in weights.items()}
    load_x_transformers(decoder(), eval(advice, {"state": state_dict}))


def test_two_prefixes_are_both_named() -> None:
    weights = state("1_10_0-decoder_plain")
    both = {f"{prefix}.{name}": t for prefix in ("ema_model", "online_model") for name, t in weights.items()}
    with pytest.raises(UserError, match=r"below 'ema_model\.' \(there is 'online_model\.' too\)"):
        load_x_transformers(decoder(), both | {"initted": torch.ones(1)})


def test_names_that_are_one_without_their_wrappers_are_refused() -> None:
    weights = state("1_10_0-decoder_plain")
    with pytest.raises(UserError, match=r"two of the names are norm\.weight"):
        load_x_transformers(decoder(), weights | {"module.norm.weight": torch.ones(32)})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (torch.nn.Linear(2, 2), TypeError, r"a model was given: give its model\.state_dict\(\)"),
        ("model.pt", TypeError, r"a path was given: give torch\.load\('model\.pt', weights_only=True\)"),
        (Path("model.pt"), TypeError, r"a path was given: give torch\.load\('model\.pt', weights_only=True\)"),
        ([("a", torch.ones(1))], TypeError, "not a list"),
        (None, TypeError, "not a NoneType"),
        ({"to_logits.weight": np.zeros(2)}, TypeError, r"'to_logits\.weight' is a ndarray, not a tensor"),
        ({"model": {"a": torch.ones(1)}, "step": 3}, UserError, r"whole checkpoint, with 'model', 'step'.*checkpoint\['model'\]"),
        ({"state_dict": {"a": torch.ones(1)}, "ema": {"a": torch.ones(1)}}, UserError, r"checkpoint\['state_dict'\] or checkpoint\['ema'\]"),
    ],
)  # fmt: skip
def test_what_is_no_state_dict_gets_words(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_x_transformers(decoder(), given)


@pytest.mark.parametrize(
    ("names", "release"),
    [
        (["layers.0.0.0.g", "layers.0.1.to_q.weight", "final_norm.g"], (2, 31)),
        (["layers.0.0.2.g", "layers.0.1.to_q.weight", "layers.1.1.to_q.weight"], (1, 14)),
        (["layers.0.0.2.g", "layers.1.0.2.g", "layers.1.1.to_q.weight"], (2, 31)),
        (["layers.0.0.0.g", "layers.0.1.to_q.weight"], (1, 14)),
        (["layers.0.0.0.weight"], (1, 14)),
        (["layers.0.0.0.gamma"], (2, 31)),
        (["layers.0.0.0.g", "layers.0.1.attend.head_attn_sink"], (2, 31)),
        (["net.attn_layers.layers.0.0.0.g", "net.attn_layers.layers.0.1.attend.x", "net.norm.weight"], (1, 14)),
    ],
)
def test_the_release_is_told_from_few_names(names: list[str], release: tuple[int, int]) -> None:
    assert release_of(dict.fromkeys(names, torch.ones(1))) == release


@pytest.mark.parametrize(
    "names",
    [
        ["layers.0.0.0.weight", "layers.0.0.0.bias", "final_norm.weight"],
        ["layers.0.0.0.gamma", "layers.0.0.0.beta", "final_norm.gamma"],
        ["layers.0.0.2.weight", "layers.1.0.2.weight", "layers.1.1.ff.2.weight"],
        ["layers.0.0.0.g", "layers.1.1.ff.3.weight", "final_norm.g"],
        ["attn_layers.layers.0.0.0.g", "attn_layers.final_norm.g", "to_logits.bias"],
    ],
)
def test_releases_in_between_are_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match=r"of a release of x-transformers from 1\.15 to 1\.31, which is not read"):
        release_of(dict.fromkeys(names, torch.ones(1)))
    with pytest.raises(UserError, match=r"from 1\.15 to 1\.31"):
        load_x_transformers(decoder(), state("1_10_0-decoder_plain"), release="1.20.3")


def test_gains_that_look_as_if_not_stored_less_one_are_warned_of() -> None:
    weights = state("2_31_10-now_use_rmsnorm")
    with pytest.warns(UserWarning, match="use_rmsnorm, use_scalenorm: the gains are around one"):
        load_x_transformers(decoder(use_rmsnorm=True), weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_x_transformers(decoder(use_rmsnorm=True), weights, release="2.31.10")


def test_what_changed_within_a_release_follows_the_version() -> None:
    case = CASES["2_31_10-more_rotary_qk_dim_scale"]
    model, weights = peer.build(case), peer.peer_state(case)
    with pytest.warns(UserWarning, match=r"attn_qk_norm: read as of 2\.26 or later, which scale scores once"):
        load_x_transformers(model, weights)
    for release, scale in (("2.26.0", 0.25), ("2.25.1", 1000.0), ("2.17.0", 10.0)):
        attention = load_x_transformers(peer.build(case), weights, release).attn_layers.blocks["a0"].layer
        assert attention.scale == attention.options.qk_norm_scale == scale
    case = CASES["2_31_10-more_talking_heads"]
    name = "attn_layers.layers.0.1.attend.pre_softmax_talking_heads.weight"
    mixed = peer.peer_state(case)[name].flatten(1)
    for release, added in (("1.39.0", torch.eye(2)), ("1.38.2", torch.zeros(2, 2))):
        model = load_x_transformers(peer.build(case), peer.peer_state(case), release)
        assert torch.equal(model.attn_layers.blocks["a0"].layer.talking_heads.before.weight, mixed + added)
    tied = xt_blocks.TransformerWrapper(**TOKENS, tie_embedding=True, attn_layers=xt_blocks.Decoder(**peer.BASE))
    weights = {name: t for name, t in state("2_31_10-now_post_emb_norm").items() if "to_logits" not in name}
    weights = {name: t for name, t in weights.items() if "post_emb_norm" not in name}
    for release, words in ((None, "read as of 2.31 or later"), ("2.30.1", "before 2.31 tied logits")):
        with pytest.warns(UserWarning, match=f"tie_embedding: {words}"):
            load_x_transformers(tied, weights, release)


def test_rotary_positions_that_rotate_more_than_they_are_told_are_set() -> None:
    """Until 1.42 at least 32 features are rotated."""
    model = decoder(rotary_pos_emb=True, attn_dim_head=48)
    weights = state("2_31_10-now_rotary_full")
    for i in (0, 2):
        weights |= {f"attn_layers.layers.{i}.1.to_{name}.weight": torch.randn(96, 32) for name in "qkv"}
        weights[f"attn_layers.layers.{i}.1.to_out.weight"] = torch.randn(32, 96)
    weights["attn_layers.rotary_pos_emb.inv_freq"] = 1e4 ** -(torch.arange(16) / 16)
    load_x_transformers(model, weights)
    assert [*model.attn_layers.rotary.values()] == [Rotary(32)]
    assert [attrs["dim"] for _, attrs in model.graph.nx.nodes(data=True) if attrs.get("scheme") == "rotary"] == [32]
    theirs, ours = weights["attn_layers.layers.0.1.to_q.weight"], model.attn_layers.blocks["a0"].layer.to_qkv.weight
    assert torch.equal(ours[:16], theirs[0:32:2])
    assert torch.equal(ours[32:48], theirs[32:48])


def test_ties_that_are_numbered_say_which_layer_of_the_peer_they_are() -> None:
    """As `layers_execute_order=(1, 0, 1, 2)` does; other ties are numbered where they first run."""
    weights = {"final_norm.gamma": torch.zeros(32)}
    for i in range(3):
        weights |= {f"layers.{i}.1.to_{name}.weight": torch.randn(32, 32) for name in ("q", "k", "v", "out")}
        weights[f"layers.{i}.0.0.gamma"] = torch.zeros(32)
    for pattern, layers in (("a@x1 a@x0 a@x1 a@x2", "102"), ("a@x1 a@x3 a@x1 a@x2", "012"), ("a@x a@y a@x a", "012")):
        stack = xt_blocks.Decoder(dim=32, heads=2, attn_dim_head=16, pattern=pattern)
        load_x_transformers(stack, weights)
        for i, block in zip(layers, stack.blocks.values(), strict=True):
            assert torch.equal(block.layer.output.to_out.weight, weights[f"layers.{i}.1.to_out.weight"])


# Wiring -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("skips", "(^u a f)*2 a f (<u(cat) a f)*2", "reads what entered earlier blocks"),
        ("skips", "(^u a f)*2 a f (<u(pop, gain) a f)*2", "reads what entered earlier blocks"),
        (
            "values_learned",
            "a f a ^v f a(values=v, value_mix=learned) f",
            "a2: x-transformers mixes the values of the first attention",
        ),
        ("values_half", "a ^v c f c a(values=v) f", "c3: x-transformers mixes the values of the first attention"),
    ],
)
def test_other_wiring_than_theirs_is_refused(name: str, text: str, words: str) -> None:
    case = CASES[f"2_31_10-{name}"]
    ours = peer.build(case | {"layers": {"pattern": text}})
    with pytest.raises(UserError, match=words):
        load_x_transformers(ours, peer.peer_state(case))
