"""Data beyond memory: the order of sequences, reading documents, folders of tokens, and runs on them. Tokens are bytes here;
tests/train/peers has those of a tokenizer."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blockdsl.errors import UserError
from xt_blocks.train import documents, load_corpus, open_tokens, tokenize
from xt_blocks.train.order import permuted, sequences_of

from .killed import killed_at_call

Blockdsl = Callable[..., tuple[int, str, str]]
Records = Callable[[Path], list[dict[str, Any]]]


# The order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 100, 1000])
def test_the_order_is_a_permutation(size: int) -> None:
    indices = np.arange(size, dtype=np.uint64)
    for seed in range(3):
        assert sorted(permuted(indices, size, seed).tolist()) == indices.tolist()
        one_by_one = [int(permuted(indices[i : i + 1], size, seed)[0]) for i in range(size)]
        assert one_by_one == permuted(indices, size, seed).tolist()


def test_the_order_looks_random() -> None:
    orders = [permuted(np.arange(1000, dtype=np.uint64), 1000, seed).astype(float) for seed in range(20)]
    assert len({tuple(order) for order in orders}) == 20
    for order in orders:
        assert abs(np.corrcoef(np.arange(1000), order)[0, 1]) < 0.13  # 4 deviations of 1/sqrt(1000)
        assert np.sum(np.abs(np.diff(order)) == 1) < 12  # 2 are expected


def test_a_size_that_no_memory_holds() -> None:
    found = permuted(np.arange(5, dtype=np.uint64), 10**15, 0)
    assert len(set(found.tolist())) == 5
    assert all(value < 10**15 for value in found.tolist())
    assert max(found.tolist()) > 10**12


def test_each_sequence_is_read_once_an_epoch_however_large_a_batch_is() -> None:
    stream = [i for step in range(14) for i in sequences_of(step, 3, 7, seed=5)]
    for epoch in range(6):
        assert sorted(stream[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert stream[:7] != stream[7:14]
    assert [i for step in range(2) for i in sequences_of(step, 21, 7, seed=5)] == stream
    assert sequences_of(0, 7, 7, seed=6) != stream[:7]


# Documents to tokens ---------------------------------------------------------------------------------------------------


def whole(folder: Path, part: str) -> bytes:
    """All tokens of a part of bytes, from its shards."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob(f"{part}-*.bin")))


def ends(folder: Path, part: str) -> list[int]:
    return np.fromfile(folder / f"{part}.ends", "<u8").tolist()


def words(count: int, seed: int) -> str:
    choose = torch.Generator().manual_seed(seed)
    known = ["ä", "the", "quick", "brown", "fox\n"]
    return " ".join(known[i] for i in torch.randint(5, (count,), generator=choose).tolist())


@pytest.mark.parametrize("count", [1, 3, 40])
def test_text_is_split_as_the_run_on_text_splits_it(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "PASSAGE", 50)
    monkeypatch.setattr("xt_blocks.train.tokenizing.AT_ONCE", 120)
    (tmp_path / "text").mkdir()
    paths = [tmp_path / "text" / f"page{i}.txt" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_text(words(60 + i, i), encoding="utf-8")
    index = tokenize([*paths, paths[0]], tmp_path / "tokens", shard_tokens=64)
    corpus = load_corpus(paths, 9)
    parts = {part: whole(tmp_path / "tokens", part) for part in ("train", "valid")}
    total = len(corpus.train) + len(corpus.valid)
    for part, data in parts.items():
        expected = bytes(getattr(corpus, part).tolist())
        # A tail that would begin within a character begins with it.
        assert abs(len(data) - len(expected)) <= (count if count < 40 else 0)
        assert data.decode().split()[2:4] == expected.decode(errors="ignore").split()[2:4]
        assert index["parts"][part] | {"shards": None} == {
            "tokens": len(data), "bytes": len(data), "documents": len(ends(tmp_path / "tokens", part)), "shards": None
        }  # fmt: skip
        assert set(index["parts"][part]["shards"][:-1]) <= {64}
    assert sum(map(len, parts.values())) == total
    assert ends(tmp_path / "tokens", "train")[-1] == len(parts["train"])
    if count == 40:
        sizes = [len(path.read_bytes()) for path in sorted(paths, key=lambda path: path.name)]
        lengths = np.diff([0, *ends(tmp_path / "tokens", "train")])
        assert sorted([*lengths.tolist(), *np.diff([0, *ends(tmp_path / "tokens", "valid")]).tolist()]) == sorted(sizes)


def test_a_long_line_is_read_in_pieces_and_cut_where_the_tail_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "PASSAGE", 70)
    text = "".join(f"{i:06d}," for i in range(200))
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(text.encode()))
    passages = [*documents.read_passages([tmp_path / "x.txt.gz"], "text")]
    assert max(len(passage.text) for passage in passages) <= 140
    train, valid = ("".join(passage.text for passage in passages if passage.held_out is side) for side in (False, True))
    assert train + valid == text
    assert len(valid) == 84  # 6% of 1400
    assert [passage.last for passage in passages if passage.held_out][-1]
    assert sum(passage.last for passage in passages) == 2


def test_lines_of_json_are_documents(tmp_path: Path) -> None:
    texts = [f"document {i} says ä" for i in range(80)] + ["", "document 3 says ä"]
    lines = "\n".join(json.dumps({"id": i, "content": text}) for i, text in enumerate(texts)) + "\n\n"
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    out = tmp_path / "tokens"
    tokenize([tmp_path / "b.jsonl.gz", tmp_path / "a.jsonl"], out, field="content")
    found: dict[str, list[str]] = {}
    for part in ("train", "valid"):
        data, places = whole(out, part), [0, *ends(out, part)]
        found[part] = [data[a:b].decode() for a, b in pairwise(places)]
    assert sorted(found["train"] + found["valid"]) == sorted(2 * [text for text in texts if text])
    assert not {*found["train"]} & {*found["valid"]}  # one that occurs again is on its side
    assert 2 <= len(found["valid"]) <= 24


def test_a_killed_one_leaves_no_folder_and_the_next_one_goes_well(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tokens"
    for function in ("xt_blocks.train.tokenizing.PartWriter.finish", "xt_blocks.train.tokenizing.os.rename"):
        killed_at_call(monkeypatch, function, 0, lambda: tokenize([text], out))
        assert not out.exists()
    (tmp_path / "tokens.tmp").mkdir()  # as a kill by the system leaves it
    (tmp_path / "tokens.tmp/junk").touch()
    first = tokenize([text], out)
    assert sorted(path.name for path in out.iterdir()) == [
        "index.json", "train-00000.bin", "train.ends", "valid-00000.bin", "valid.ends"
    ]  # fmt: skip
    assert not (tmp_path / "tokens.tmp").exists()
    second = tokenize([text], tmp_path / "again")
    assert first == second
    text.write_text(text.read_text() + "x")
    assert tokenize([text], tmp_path / "other")["digest"] != first["digest"]


def test_ctrl_c_leaves_no_folder(
    blockdsl: Blockdsl, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xt_blocks.train.token_files.PartWriter.write", interrupted)
    status, out, err = blockdsl("tokenize", text, "--out", tmp_path / "tokens")
    assert (status, out, err) == (130, "", f"stopped; there is no {tmp_path / 'tokens'}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]


def test_a_full_disk_is_told(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xt_blocks.train.token_files.PartWriter.write", full)
    with pytest.raises(UserError, match=r"^--out .*tokens: cannot be written \(No space left on device\)$"):
        tokenize([text], tmp_path / "tokens")
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "{path}: no such file"),
        ("x.txt", b"ab\xff\xfe cd", "{path}: is not text (invalid start byte near byte 2)"),
        ("x.txt", b"ab\0", "{path}: is not text (it has a NUL byte)"),
        ("x.txt.gz", b"plain", "{path}: is no whole gzip file (Not a gzipped file (b'pl'))"),
        ("x.txt", b"", "of 0 documents none is to train on: give more, or text files"),
        ("x.jsonl", b"{}\n", "{path}, line 1: has no field 'text'"),
        ("x.jsonl", b'{"text": "a"}\nnot json\n', "{path}, line 2: is no JSON object"),
        ("x.jsonl", b'{"txt": "a", "id": 1}\n', "{path}, line 1: has no field 'text'; --field says which, as txt"),
        ("x.jsonl", b'{"text": 1}\n', "{path}, line 1: 'text' is no text, but int"),
        ("x.jsonl", b'{"text": "a"}\n', "of 1 documents none is held out to validate with, which is 6% of them: give more, or text files"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str, blockdsl: Blockdsl
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    status, _, err = blockdsl("tokenize", path, "--out", tmp_path / "tokens")
    assert (status, err) == (1, f"blockdsl tokenize: {message.format(path=path)}\n")
    assert not any(child.is_dir() for child in tmp_path.iterdir())


def test_a_folder_in_use_is_not_written_to(text: Path, tmp_path: Path, blockdsl: Blockdsl) -> None:
    (tmp_path / "empty").mkdir()
    assert blockdsl("tokenize", text, "--out", tmp_path / "empty")[0] == 0
    _, _, err = blockdsl("tokenize", text, "--out", tmp_path / "empty")
    assert err == f"blockdsl tokenize: --out {tmp_path / 'empty'}: is there already; name another\n"
    _, _, err = blockdsl("tokenize", text, "--end", "</s>", "--out", tmp_path / "x")
    assert err == "blockdsl tokenize: --end </s> is a token of a --tokenizer, and bytes have none\n"
    _, _, err = blockdsl("tokenize", tmp_path, "--out", tmp_path / "x")
    assert err == f"blockdsl tokenize: {tmp_path}: is a folder; name the files in it\n"


# Runs on tokens --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(text: Path, tmp_path: Path) -> Path:
    tokenize([text], tmp_path / "tokens", shard_tokens=1000)
    return tmp_path / "tokens"


@pytest.fixture
def flags(small: list[str], tokens: Path, text: Path) -> list[str]:
    """Of a small run on them."""
    return [{"--text": "--data", str(text): str(tokens)}.get(word, word) for word in small]


def test_rows_are_read_over_the_ends_of_shards(tokens: Path) -> None:
    corpus, data = open_tokens(tokens, 19), whole(tokens, "train")
    for step in (0, 1, 70, 10_000):
        rows = corpus.batch(19, 5, 3, step)
        assert (rows.dtype, rows.shape) == (torch.int64, (5, 20))
        count = (len(data) - 1) // 19
        starts = [i * 19 for i in sequences_of(step, 5, count, 3)]
        assert [bytes(row.tolist()) for row in rows] == [data[start : start + 20] for start in starts]
    held_out = load_corpus(json.loads((tokens / "index.json").read_text()) and [tokens.parent / "words.txt"], 19)
    assert torch.equal(corpus.validation(19, 190), held_out.validation(19, 190))


def test_a_run_on_tokens_resumes_at_any_step(
    blockdsl: Blockdsl,
    flags: list[str],
    tokens: Path,
    tmp_path: Path,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["train", *flags, "--steps", "12", "--out"]
    status, out, err = blockdsl(*command, tmp_path / "whole")
    assert status == 0, err
    assert "tokens    words.txt: 0.02 million to train on, 0.00 million held out\n" in out
    settings = json.loads((tmp_path / "whole/settings.json").read_text())
    assert (settings["text"], settings["data"], settings["num_tokens"]) == (None, str(tokens), 256)
    killed_at_call(
        monkeypatch, "xt_blocks.train.engine.LocalEngine.step", 8, lambda: blockdsl(*command, tmp_path / "killed")
    )
    moved = tokens.rename(tmp_path / "moved")
    _, _, err = blockdsl("train", "--resume", tmp_path / "killed")
    assert err == (
        f"blockdsl train: --resume {tmp_path / 'killed'}: the run's data {tokens} is not there any more; if it was "
        "moved, say where it is with --data\n"
    )
    assert blockdsl("train", "--resume", tmp_path / "killed", "--data", moved)[0] == 0
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    assert blockdsl("generate", tmp_path / "killed", "--tokens", "3", "--prompt", "the ")[1].startswith("the ")
    assert blockdsl("draw", tmp_path / "killed", "--overlay", "stream_norm", "-o", tmp_path / "x.svg")[0] == 0


def test_other_tokens_are_refused(
    blockdsl: Blockdsl, flags: list[str], tokens: Path, text: Path, tmp_path: Path
) -> None:
    assert blockdsl("train", *flags, "--steps", "1", "--out", tmp_path / "run")[0] == 0
    text.write_text(text.read_text() * 2)
    tokenize([text], tmp_path / "other")
    _, _, err = blockdsl("train", "--resume", tmp_path / "run", "--data", tmp_path / "other")
    assert err == (
        f"blockdsl train: --data {tmp_path / 'other'} is another data than the resumed run's ({tokens}): "
        "leave the flag out, or start a new run\n"
    )
    _, _, err = blockdsl("train", "--resume", tmp_path / "run", "--text", text)
    assert err.endswith(f"the run reads --data {tokens}; leave the other flag out\n")
    shutil.rmtree(tokens)
    shutil.copytree(tmp_path / "other", tokens)
    _, _, err = blockdsl("train", "--resume", tmp_path / "run")
    assert err.endswith("the data (words.txt) has changed since the run began\n")


def test_a_damaged_folder_is_told(blockdsl: Blockdsl, flags: list[str], tokens: Path, tmp_path: Path) -> None:
    def said() -> str:
        _, _, err = blockdsl("train", *flags, "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return err.removeprefix(f"blockdsl train: --data {tokens}: ")

    shard = tokens / "train-00002.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    assert said() == "train-00002.bin has 993 bytes, and has 1,000 by the index\n"
    shard.unlink()
    assert said() == "train-00002.bin is missing, and has 1,000 by the index\n"
    shard.write_bytes(whole)
    index = json.loads((tokens / "index.json").read_text())
    (tokens / "index.json").write_text(json.dumps(index | {"format": 9}))
    assert said() == "is of format 9, and this release reads 1\n"
    for broken in ("{", "[]", "{}"):
        (tokens / "index.json").write_text(broken)
        assert said() == (
            "is no folder of tokens (it has no index.json that can be read; blockdsl tokenize makes one)\n"
        )


def test_fewer_tokens_than_a_sequence_are_refused(
    blockdsl: Blockdsl, flags: list[str], tokens: Path, tmp_path: Path
) -> None:
    held = len(whole(tokens, "valid"))
    _, _, err = blockdsl("train", *flags, "--seq-len", held, "--out", tmp_path / "run")
    assert err == (
        f"blockdsl train: --data {tokens}: has {held:,} tokens held out, fewer than one sequence of {held + 1:,} "
        f"(--seq-len {held} and the token to predict)\n"
    )


def test_a_run_reads_text_or_tokens(blockdsl: Blockdsl, flags: list[str], text: Path, tmp_path: Path) -> None:
    status, _, err = blockdsl("train", *flags, "--text", text, "--out", tmp_path / "run")
    assert status == 2
    assert "not allowed with argument" in err
