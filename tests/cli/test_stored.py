"""Graphs from files of others: a Hugging Face configuration, and the folder of an encoder and a decoder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .configurations import LLAMA
from .conftest import Ran

Run = Callable[..., Ran]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llama" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import xt_blocks

    folder = tmp_path_factory.mktemp("both")
    tokens = {"enc_num_tokens": 8, "enc_max_seq_len": 8, "dec_num_tokens": 8, "dec_max_seq_len": 8}
    model = xt_blocks.XTransformer(dim=16, enc_depth=2, enc_heads=2, dec_depth=3, dec_heads=2, **tokens)
    model.save_pretrained(folder)
    return folder


def test_a_configuration_is_a_graph(blockdsl: Run, config: Path) -> None:
    assert blockdsl("check", config).out == "ok: 4 blocks in 1 stage\n"
    assert blockdsl("check", config.parent) == blockdsl("check", config)
    shown = blockdsl("show", config).out
    assert "self-attention" in shown or "×2" in shown
    embedding, attention, feedforward, norms = 19 * 16, 16 * (16 + 8 + 8 + 16), 3 * 16 * 24, 5 * 16
    stats = json.loads(blockdsl("stats", config, "--json").out)
    assert stats["total"]["parameters"] == embedding + 2 * (attention + feedforward) + norms


def test_configurations_are_compared(blockdsl: Run, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "config.json"
    other.write_text(json.dumps({**LLAMA, "num_key_value_heads": 1}), encoding="utf-8")
    ran = blockdsl("diff", config, other)
    assert ran.status == 1
    assert "kv_heads" in ran.out
    assert blockdsl("diff", config, config.parent).status == 0


def test_what_is_wrong_with_a_configuration_names_the_file(blockdsl: Run, config: Path) -> None:
    config.write_text(json.dumps({**LLAMA, "odd": 1}), encoding="utf-8")
    assert f"{config}: keys that are not known for model_type='llama'" in blockdsl("show", config).err
    config.write_text("{}", encoding="utf-8")
    assert blockdsl("show", config).status == 1


def test_no_torch_is_loaded(config: Path) -> None:
    script = (
        "import sys; from xt_blocks.cli import main; main(['show', sys.argv[1]]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(config)], check=True, capture_output=True)


def test_an_encoder_and_a_decoder_are_one_graph(blockdsl: Run, both: Path) -> None:
    assert blockdsl("check", both).out == "ok: 13 blocks in 2 stages\n"
    stats = json.loads(blockdsl("stats", both, "--json").out)
    assert stats["pattern"] == "(a f)*2 => (a c f)*3"
    rows = ["encoder embedding", "encoder 1", "encoder head", "1", "embedding", "head"]
    assert sorted(row["stage"] for row in stats["stages"]) == sorted(rows)
    encoder, decoder = blockdsl("show", both).out.split("\n\ndecoder: its context is the encoder's output\n")
    assert encoder.split("\n\n")[1].startswith("encoder\n4 blocks")
    assert "cross-attention" in decoder


def test_an_encoder_and_a_decoder_are_drawn_side_by_side(blockdsl: Run, both: Path, tmp_path: Path) -> None:
    for suffix in (".svg", ".html", ".txt", ".dot", ".mmd"):
        file = tmp_path / f"both{suffix}"
        assert blockdsl("draw", both, "-o", file).status == 0
        text = file.read_text(encoding="utf-8")
        assert "encoder" in text
        assert "decoder" in text


def test_encoders_and_decoders_are_compared(blockdsl: Run, both: Path, config: Path) -> None:
    assert blockdsl("diff", both, both).out == "no differences\n"
    assert "encoder (a f)*2 -> none" in blockdsl("diff", both, config).out
