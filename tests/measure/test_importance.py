"""The loss without a block: against a model that was made without it, by hand, and by zero weights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch

import blockdsl
from blockdsl import UserError
from xt_blocks import AutoregressiveWrapper, importance, lower, record, recorded
from xt_blocks.measure import next_token_loss

TOKENS: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8, "num_tokens": 20, "max_seq_len": 12}


def made(pattern: str, **settings: Any) -> tuple[blockdsl.BlockGraph, Any, torch.Tensor]:
    """A graph, its model with weights that are not at their start, and rows of tokens."""
    torch.manual_seed(0)
    graph = blockdsl.compile(pattern, causal=True, **{**TOKENS, **settings})
    model = lower(graph)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return graph, model, torch.randint(20, (5, 9))


@pytest.mark.parametrize(
    ("pattern", "settings"),
    [
        ("(a f)*2", {}),
        ("(a & f) a", {}),
        (
            "((a f) & m(ssm_state=4, ssm_dim_head=8)) f".replace("ssm_state", "state").replace(
                "ssm_dim_head", "dim_head"
            ),
            {},
        ),
        ("a@x f a@x f", {}),
        ("(a f)*2", {"pre_norm": False}),
        ("(a f)*2", {"sandwich_norm": True, "gate_residual": True}),
        ("(a f)*2", {"num_residual_streams": 3}),
        ("^u a f <u(gain) a", {}),
        ("a f/2 f>>1", {"ff_dropout": 0.5, "layer_dropout": 0.3}),
    ],
)
def test_the_loss_is_that_of_a_model_made_without_the_block(pattern: str, settings: dict[str, Any]) -> None:
    graph, model, tokens = made(pattern, **settings)
    found = importance(model, tokens)
    model.eval()
    with torch.no_grad():
        assert found.facts["whole"] == pytest.approx(next_token_loss(model, tokens), rel=1e-6)
    nodes = [node for node in graph.order() if graph.node_type(node) in ("block", "read")]
    assert [*found["loss"].values] == nodes
    owners = {node: nodes[0] for nodes in graph.tied().values() for node in nodes}
    for node in nodes:
        other = graph.copy()
        other.remove(node)
        without = lower(other).eval()
        theirs = {n: first for first, nodes in other.tied().items() for n in nodes}
        keys = {theirs[n]: owners[n] for n in other.nx if n in theirs and n in owners}
        own = model.state_dict()
        for name in without.state_dict():
            parts = name.split(".")
            place = 2 if parts[0] == "attn_layers" and parts[1] in ("blocks", "joins") else None
            source = name if place is None else ".".join([*parts[:2], keys[parts[2]], *parts[3:]])
            without.state_dict()[name].copy_(own[source])
        with torch.no_grad():
            loss = next_token_loss(without, tokens)
        assert found["loss"].values[node] == pytest.approx(loss, rel=1e-5), node
        assert found["difference"].values[node] == pytest.approx(loss - found.facts["whole"], abs=1e-5), node


def test_an_update_of_zero_weights_is_none() -> None:
    _, model, tokens = made("(a f)*2")
    found = importance(model, tokens)
    layer = model.attn_layers.blocks["f1"].layer
    last = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        for weight in last.parameters():
            weight.zero_()
        assert next_token_loss(model.eval(), tokens) == pytest.approx(found["loss"].values["f1"], rel=1e-6)
    again = importance(model, tokens)
    assert again["difference"].values["f1"] == 0


def test_tied_blocks_count_by_call_and_all_is_as_before() -> None:
    _, model, tokens = made("(a@x f@y)*3", ff_dropout=0.2)
    model.train()
    state = torch.get_rng_state()
    found = importance(model, tokens)
    assert len({*found["loss"].values.values()}) == 6
    assert importance(model, tokens).as_json() == found.as_json()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_loss_that_draws_random_numbers_draws_the_same_for_all() -> None:
    _, model, _ = made("a f")

    def loss(net: Any, rows: int) -> float:
        return next_token_loss(net, torch.randint(20, (rows, 9)))

    found = importance(model, 4, loss=loss, unit="nats a token", seed=3)
    assert importance(model, 4, loss=loss, unit="nats a token", seed=3).as_json() == found.as_json()
    assert importance(model, 4, loss=loss, seed=4).facts != found.facts
    layer = model.attn_layers.blocks["f1"].layer
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
    assert importance(model, 4, loss=loss, seed=3)["difference"].values["f1"] == 0
    assert found["loss"].unit == "nats a token"


def test_a_block_is_left_out_of_each_pass_of_a_loss() -> None:
    _, model, tokens = made("a@x f a@x")
    once = importance(model, tokens)
    twice = importance(model, tokens, loss=lambda net, rows: next_token_loss(net, rows) + next_token_loss(net, rows))
    assert twice["loss"].values == pytest.approx({node: 2 * value for node, value in once["loss"].values.items()})


def test_two_streams_have_a_row_for_each_block_of_both() -> None:
    model = lower(blockdsl.compile("a f => a c", dim=16, num_tokens=20, max_seq_len=12))
    src, tgt = torch.randint(20, (2, 7)), torch.randint(20, (2, 9))
    found = importance(model, (src, tgt), loss=lambda net, data: net(*data))
    assert [*found["loss"].values] == ["encoder.a0", "encoder.f1", "decoder.a0", "decoder.c1"]
    encoder = model.encoder
    with torch.no_grad():
        for weight in encoder.attn_layers.blocks["f1"].layer.parameters():
            weight.zero_()
        assert float(model.eval()(src, tgt)) == pytest.approx(found["loss"].values["encoder.f1"], rel=1e-6)
    assert "a c" not in found.to_svg()
    assert "encoder.f1" in found.to_text()


def test_many_rows_are_read_in_parts_and_a_wrapper_makes_its_own_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, tokens = made("a f")
    whole = importance(model, tokens)
    assert importance(AutoregressiveWrapper(model), tokens).as_json() == whole.as_json()
    monkeypatch.setattr(import_module("xt_blocks.measure.importance"), "ROWS", 2 * 8)  # of 5 rows two, two and one
    parts, rows = importance(model, tokens), set[int]()
    model.register_forward_pre_hook(lambda model, args: rows.add(len(args[0])))
    assert next_token_loss(model.eval(), tokens) == pytest.approx(whole.facts["whole"], rel=1e-6)
    assert rows == {1, 2}
    assert parts["loss"].values == pytest.approx(whole["loss"].values, rel=1e-6)


def test_what_is_more_than_a_sum_is_said() -> None:
    _, model, tokens = made("a ^k f(scale_residual_constant=0) a(kv=k)")
    found = importance(model, tokens)
    assert found.notes == {
        "a0": "its keys and values stay, for a2",
        "f1": "it replaces the stream, which without it passes as it came",
    }
    assert "a0: its keys and values stay, for a2" in found.to_text()
    assert found.as_json()["blocks"][0]["note"] == found.notes["a0"]


def test_a_loss_that_is_no_number_and_a_model_without_blocks_are_refused() -> None:
    _, model, tokens = made("a f")
    with pytest.raises(UserError, match="the loss of the whole model is nan"):
        importance(model, tokens, loss=lambda net, data: float("nan"))
    with pytest.raises(UserError, match=r"loss\(model, data\) must be a number, not a tensor \(5, 9, 20\)"):
        importance(model, tokens, loss=lambda net, data: net(data))
    with pytest.raises(ValueError, match=r"tokens must be \(rows, seq \+ 1\), of one row or more, not \(9,\)"):
        importance(model, tokens[0])
    with pytest.raises(ValueError, match=r"of one row or more, not \(0, 9\)"):
        importance(model, tokens[:0])
    with pytest.raises(TypeError, match=r"tokens must be a tensor, not list; torch\.tensor\(tokens\) makes one"):
        importance(model, [[1, 2, 3]])
    for measure in (importance, recorded, record):
        with pytest.raises(TypeError, match=r"a model is a torch module, as lower\(graph\) makes one, not BlockGraph"):
            measure(model.graph, tokens)
    with pytest.raises(UserError, match="Linear has no stack of blocks"):
        importance(torch.nn.Linear(2, 2), tokens)
