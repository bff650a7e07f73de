"""Rows of a family that is made up: two components with a shared module, several blocks of a kind, tied layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import xt_blocks
from blockdsl import hugging_face
from blockdsl.errors import UserError
from blockdsl.hugging_face.config import Config
from blockdsl.hugging_face.family import Component, Family, Row, Tied, Weight
from xt_blocks import from_hugging_face, to_hugging_face

SETTINGS = {"dim": 8, "heads": 2, "attn_dim_head": 4, "num_tokens": 5, "max_seq_len": 6}


def attention(theirs: str, block: str = "a") -> list[Row]:
    return [
        Weight(f"{block}.norm", f"{theirs}.norm"),
        Weight(f"{block}.layer.to_qkv", f"{theirs}.qkv"),
        Weight(f"{block}.layer.output.to_out", f"{theirs}.out"),
    ]


def feedforward(theirs: str, block: str) -> list[Row]:
    return [
        Weight(f"{block}.norm", f"{theirs}.norm"),
        Weight(f"{block}.layer.to_hidden", f"{theirs}.in"),
        Weight(f"{block}.layer.to_out", f"{theirs}.out"),
    ]


def both(config: Config) -> dict[str, Component]:
    decoder: list[Row] = [
        Tied("decoder.embed.weight", "shared.weight"),
        Weight("pos_emb.embedding", "decoder.positions"),
        *attention("decoder.{i}.self"),
        Weight("c.norm", "decoder.{i}.cross.norm"),
        Weight("c.layer.to_q", "decoder.{i}.cross.q"),
        Weight("c.layer.to_kv", ("decoder.{i}.cross.k", "decoder.{i}.cross.v")),
        Weight("c.layer.output.to_out", "decoder.{i}.cross.out"),
        *feedforward("decoder.{i}.ff", "f"),
        Weight("attn_layers.norm", "decoder.norm"),
        Weight("to_logits", "lm_head"),
    ]
    encoder: list[Row] = [
        Weight("token_emb", "shared"),
        Weight("pos_emb.embedding", "encoder.positions"),
        *feedforward("encoder.{i}.first", "f"),
        *attention("encoder.{i}.self"),
        *feedforward("encoder.{i}.second", "f2"),
        Weight("attn_layers.norm", "encoder.norm"),
    ]
    settings = {**SETTINGS, "causal": True}
    return {
        "encoder": Component("(f a f)*2", {**SETTINGS, "return_only_embed": True}, encoder, 2),
        "decoder": Component("(a c f)*2", settings, decoder, 2, {"tie_token_emb": True}),
    }


def tied(config: Config) -> dict[str, Component]:
    rows: list[Row] = [Weight("token_emb", "embed"), Weight("pos_emb.embedding", "positions"), *attention("groups.{i}")]
    rows += [Weight("attn_layers.norm", "norm")]
    return {"": Component("(a@x*3) a@y*2", {**SETTINGS, "return_only_embed": True}, rows, 2)}


@pytest.fixture(autouse=True)
def _families(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        name: Family((name,), (f"{name}Model",), "", "", "", read) for name, read in (("both", both), ("tied", tied))
    }
    monkeypatch.setattr(hugging_face, "families", lambda: known)


def model(name: str) -> Any:
    graphs = hugging_face.read({"model_type": name}).graphs()
    built: Any = xt_blocks.lower(graphs[""])
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter)
    return built.eval()


@pytest.mark.parametrize("name", ["both", "tied"])
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    before = model(name)
    to_hugging_face(before, tmp_path, config={"model_type": name})
    after = from_hugging_face(tmp_path)
    ours, theirs = before.state_dict(), after.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert sum(p.numel() for p in after.parameters()) == sum(p.numel() for p in before.parameters())


def test_blocks_of_a_kind_are_told_apart(tmp_path: Path) -> None:
    before = model("both")
    to_hugging_face(before, tmp_path, config={"model_type": "both"})
    written = load_file(tmp_path / "model.safetensors")
    blocks = before.encoder.attn_layers.blocks
    assert [*blocks] == ["f0", "a1", "f2", "f3", "a4", "f5"]
    assert torch.equal(written["encoder.1.first.in.weight"], blocks["f3"].layer.to_hidden.weight)
    assert torch.equal(written["encoder.1.second.in.weight"], blocks["f5"].layer.to_hidden.weight)
    kv = before.decoder.net.attn_layers.blocks["c4"].layer.to_kv.weight
    assert torch.equal(torch.cat((written["decoder.1.cross.k.weight"], written["decoder.1.cross.v.weight"])), kv)


def test_a_shared_module_is_one(tmp_path: Path) -> None:
    to_hugging_face(model("both"), tmp_path, config={"model_type": "both"})
    after = from_hugging_face(tmp_path)
    assert after.decoder.net.token_emb is after.encoder.token_emb
    file = tmp_path / "model.safetensors"
    written = load_file(file)
    assert "decoder.embed.weight" not in written
    save_file({**written, "decoder.embed.weight": written["shared.weight"].clone()}, file)
    from_hugging_face(tmp_path)  # an equal one may be there
    save_file({**written, "decoder.embed.weight": written["shared.weight"] + 1}, file)
    with pytest.raises(UserError, match=r"decoder\.embed\.weight is not shared\.weight"):
        from_hugging_face(tmp_path)


def test_tied_layers_have_weights_once(tmp_path: Path) -> None:
    before = model("tied")
    to_hugging_face(before, tmp_path, config={"model_type": "tied"})
    written = load_file(tmp_path / "model.safetensors")
    assert torch.equal(written["groups.1.qkv.weight"], before.attn_layers.blocks["a3"].layer.to_qkv.weight)
    assert "groups.2.qkv.weight" not in written
