"""Runs on the tokens of a tokenizer.json, by tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from xt_blocks.train import open_tokens, tokenize

from ..conftest import blockdsl, records, small, text

__all__ = ["blockdsl", "records", "small", "text"]

Blockdsl = Callable[..., tuple[int, str, str]]
Records = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def tokenizer(text: Path) -> Path:
    """Of 300 tokens, among them one that ends a text; it would cut texts, and put another token before them."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<s>", "<stop>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own.train([str(text)], BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet))
    own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    own.enable_truncation(16)
    path = text.with_name("tokenizer.json")
    own.save(str(path))
    return path


def decoded(tokenizer: Path, tokens: list[int]) -> str:
    return str(Tokenizer.from_file(str(tokenizer)).decode(tokens, skip_special_tokens=False))


def test_tokens_decode_to_the_documents(text: Path, tokenizer: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"the {i} fox"}) for i in range(60)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    for name, end in (("usual", None), ("own", "<stop>")):
        index = tokenize([tmp_path / "x.jsonl"], tmp_path / name, tokenizer, end=end)
        assert (index["dtype"], index["num_tokens"]) == ("uint16", 300)
        found = []
        for part in ("train", "valid"):
            tokens = np.fromfile(tmp_path / name / f"{part}-00000.bin", "<u2").tolist()
            ends = np.fromfile(tmp_path / name / f"{part}.ends", "<u8").tolist()
            assert {tokens[end - 1] for end in ends} == {index["end"]}
            found += [decoded(tokenizer, tokens[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
            assert index["parts"][part]["bytes"] == sum(len(text) for text in found[-len(ends) :]) - len(ends) * len(
                end or "<|endoftext|>"
            )
        assert sorted(found) == sorted(f"the {i} fox{end or '<|endoftext|>'}" for i in range(60))


def test_a_run_on_tokens_generates_text(
    blockdsl: Blockdsl, small: list[str], text: Path, tokenizer: Path, tmp_path: Path, records: Records
) -> None:
    status, out, err = blockdsl("tokenize", text, "--tokenizer", tokenizer, "--out", tmp_path / "tokens")
    assert status == 0, err
    assert "held out" in out
    flags = [{"--text": "--data", str(text): str(tmp_path / "tokens")}.get(word, word) for word in small]
    run = tmp_path / "run"
    status, out, err = blockdsl("train", *flags, "--steps", "10", "--out", run)
    assert status == 0, err
    assert "nats/token" not in out
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["num_tokens"], settings["end"]) == (300, 0)
    assert (run / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    first, *_, last = records(run)
    corpus = open_tokens(tmp_path / "tokens", 19)
    assert 5 < first["val_loss"] < 6.5  # log(300) is 5.7
    for record in (first, last):  # of a token, and of the bytes that it stands for
        bits = record["val_loss"] / log(2) * corpus.valid.tokens / corpus.valid.bytes
        assert record["val_bits_per_byte"] == pytest.approx(bits)
    assert 5 < records(run)[1]["loss"] < 6.5
    assert f"held out  {first['val_bits_per_byte']:.3f} bits per byte before" in out
    assert "there is no sample" not in err
    status, out, err = blockdsl("generate", run, "--prompt", "the quick", "--tokens", "5", "--seed", "1")
    assert (status, out.startswith("the quick")) == (0, True)
    assert blockdsl("generate", run, "--tokens", "5", "--temperature", "0")[0] == 0
    assert blockdsl("train", "--resume", run)[0] == 0
    status, _, err = blockdsl("attention", run, "--block", "a0", "--text", "the quick", "-o", tmp_path / "x.svg")
    assert status == 0, err
    assert ">quick<" in (tmp_path / "x.svg").read_text() or "quick" in (tmp_path / "x.svg").read_text()
    _, _, err = blockdsl("train", *flags, "--set", "num_tokens=256", "--out", tmp_path / "other")
    assert err == (f"blockdsl train: training on --data {tmp_path / 'tokens'} needs num_tokens=300; leave it out\n")


def test_what_is_no_tokenizer_is_told(blockdsl: Blockdsl, text: Path, tokenizer: Path, tmp_path: Path) -> None:
    def said(*flags: str | Path) -> str:
        return blockdsl("tokenize", text, "--out", tmp_path / "tokens", *flags)[2]

    assert said("--tokenizer", text).startswith(f"blockdsl tokenize: {text} is no tokenizer: ")
    none = tmp_path / "none.json"
    assert said("--tokenizer", none) == f"blockdsl tokenize: --tokenizer {none}: no such file\n"
    assert said("--tokenizer", tokenizer, "--end", "<stopp>") == (
        f"blockdsl tokenize: --end <stopp>: {tokenizer} has no such token; did you mean '<stop>'?\n"
    )
    assert not (tmp_path / "tokens").exists()
