"""Loading weights of x-transformers: what is reported, and what the model and its graph are afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import xt_blocks
from blockdsl import UserError
from xt_blocks.interop import load_x_transformers

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
    extra = {"context": torch.randn(2, 3, 32)} if net.attn_layers.reads_context else {}
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


def test_the_release_can_be_given_and_must_be_told() -> None:
    with pytest.raises(UserError, match="give release=1 or release=2"):
        load_x_transformers(decoder(), {"token_emb.emb.weight": torch.zeros(17, 32)})
    with pytest.raises(UserError, match="release must be 1 or 2, not 3"):
        load_x_transformers(decoder(), {}, release=3)
    with pytest.raises(TypeError, match="into a Linear"):
        load_x_transformers(torch.nn.Linear(2, 2), {}, release=2)


def test_tied_weights_cannot_be_those_of_the_peer() -> None:
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
