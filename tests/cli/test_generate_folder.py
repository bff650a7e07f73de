"""`blockdsl generate` with the folder of a model that no run wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import blockdsl as dsl
import xt_blocks
from blockdsl.errors import UserError
from xt_blocks import AutoregressiveWrapper, XTransformer
from xt_blocks.interop.text import Bytes, Writer, load_writer

Blockdsl = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model over bytes."""
    torch.manual_seed(0)
    graph = dsl.compile("(a f)*2", dim=16, heads=2, causal=True, num_tokens=256, max_seq_len=24)
    xt_blocks.lower(graph).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_prompt_goes_on(folder: Path, blockdsl: Blockdsl) -> None:
    status, out, err = blockdsl("generate", folder, "--prompt", "the é", "--tokens", "30", "--temperature", "0")
    assert (status, err) == (0, "")
    model = AutoregressiveWrapper(xt_blocks.from_pretrained(folder))
    new = model.generate(torch.tensor([[*"the é".encode()]]), 30, temperature=0.0)
    text = bytes([*"the é".encode(), *new[0].tolist()]).decode(errors="replace")
    assert out.rstrip("\n") == "".join(
        c if c.isprintable() or c in "\n\t\r" else "\N{REPLACEMENT CHARACTER}" for c in text
    ).rstrip("\n")


def test_a_seed_gives_the_same_text(folder: Path, blockdsl: Blockdsl) -> None:
    texts = [blockdsl("generate", folder, "--seed", seed)[1] for seed in ("7", "7", "8")]
    assert texts[0] == texts[1] != texts[2]
    _, out, err = blockdsl("generate", folder)
    assert blockdsl("generate", folder, "--seed", err.removeprefix("seed ").strip())[1] == out


def test_a_token_that_ends_a_text(folder: Path) -> None:
    model = AutoregressiveWrapper(xt_blocks.from_pretrained(folder))
    first = int(model.generate(torch.tensor([97, 98]), 1, temperature=0.0))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [300, first], "bos_token_id": 9}))
    ending = load_writer(folder)
    assert (ending.start, ending.ends) == (9, {300, first})
    assert "".join(ending.write("ab", 12, temperature=0.0)) == ""


def test_the_likeliest_text(folder: Path, blockdsl: Blockdsl) -> None:
    model = AutoregressiveWrapper(xt_blocks.from_pretrained(folder))
    found = model.beam_search(torch.tensor([97, 98]), 9, beams=3)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [300, int(found[4])]}))
    writer = load_writer(folder)
    ending = model.beam_search(torch.tensor([97, 98]), 9, beams=3, eos_token=[int(found[4])]).tolist()
    text = Bytes().decode([97, 98, *(token for token in ending if token != found[4])])
    assert "ab" + "".join(writer.write("ab", 9, beams=3)) == text.split("\0")[0]
    status, out, err = blockdsl("generate", folder, "--prompt", "ab", "--tokens", "9", "--beams", "3")
    assert (status, err) == (0, "")
    assert out.startswith("ab")
    status, _, err = blockdsl("generate", folder, "--beams", "3", "--top-k", "2")
    assert status != 0
    assert "--top-k is for tokens that are drawn, and --beams takes the likeliest" in err


def test_a_character_is_shown_once_all_of_its_bytes_are_there(folder: Path) -> None:
    pieces = Writer(load_writer(folder).model, Bytes())._pieces([65], iter([*"é€x".encode(), 0xE2]))
    assert [*pieces] == ["é", "€", "x", "\N{REPLACEMENT CHARACTER}"]


def test_an_encoder_decoder_answers(tmp_path: Path, blockdsl: Blockdsl) -> None:
    sides = {"num_tokens": 256, "max_seq_len": 24, "depth": 1, "heads": 2}
    model = XTransformer(
        dim=16, **{f"{side}_{name}": value for side in ("enc", "dec") for name, value in sides.items()}
    )
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"decoder_start_token_id": 5}')
    status, out, _ = blockdsl("generate", tmp_path, "--prompt", "abc", "--tokens", "9", "--temperature", "0")
    new = model.generate(torch.tensor([[97, 98, 99]]), torch.tensor([[5]]), 9, temperature=0.0)
    assert status == 0
    assert len(out.rstrip("\n")) <= 9
    assert not out.startswith("abc")
    assert "".join(load_writer(tmp_path).write("abc", 9, temperature=0.0)) == Bytes().decode(new[0].tolist())


def test_what_cannot_be_written_with(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(name: str, pattern: str, **settings: object) -> Path:
        xt_blocks.lower(dsl.compile(pattern, dim=16, heads=2, **settings)).save_pretrained(tmp_path / name)
        return tmp_path / name

    words = {"num_tokens": 300, "max_seq_len": 8}
    for path, problem in (
        (saved("encoder", "a f", **words), "sees later tokens, and gives no next ones: a0"),
        (saved("stack", "a f"), "no model that gives logits of tokens, but a Stack"),
        (saved("words", "a f", causal=True, **words), "has no tokenizer.json, which says what its 300 tokens are"),
    ):
        with pytest.raises(UserError, match=problem):
            load_writer(path)
    (folder / "tokenizer.json").write_text("{")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"tokenizers is needed: pip install 'xt-blocks\[tokenizers\]'"):
        load_writer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="the prompt is empty"):
        next(load_writer(folder)._replace(start=None).write("", 3))
