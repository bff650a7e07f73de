"""Reading text, splitting it, drawing batches."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch

from blockdsl.errors import UserError
from xt_blocks.train import data
from xt_blocks.train.data import Document

STDLIB = Path(sysconfig.get_path("stdlib"))


def tensor(text: bytes) -> torch.Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)


# The standard library ---------------------------------------------------------------------------------------------


def test_the_library_is_read_in_order_without_what_is_not_its_own(tmp_path: Path) -> None:
    for name in (
        "b.py", "a/z.py", "a/b.py", "site-packages/x.py", "a/dist-packages/x.py", "test/x.py", "a/tests/x.py", "c.txt"
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / "latin.py").write_bytes("# café\n".encode("latin-1"))
    found = data.stdlib_documents(tmp_path)
    assert found == [Document(name, f"# {name}\n".encode()) for name in ("a/b.py", "a/z.py", "b.py")]


def test_a_library_without_sources_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        data.stdlib_documents(tmp_path)
    assert str(caught.value) == f"no .py sources of the standard library in {tmp_path}: name a text with --text FILE"


def test_the_running_library_is_megabytes_split_by_whole_files() -> None:
    documents = data.stdlib_documents()
    names = [document.name for document in documents]
    assert names == sorted(set(names))
    assert {"os.py", "json/decoder.py"} < set(names)
    corpus = data.load_corpus(None, seq_len=256)
    held = [document for document in documents if data.in_validation(document.name)]
    assert bytes(corpus.valid.tolist()) == b"".join(document.data for document in held)
    assert len(corpus.train) + len(corpus.valid) == sum(len(document.data) for document in documents) > 5_000_000
    assert 0.02 < len(corpus.valid) / len(corpus.train) < 0.15
    assert corpus.digest == data.load_corpus(None, seq_len=64).digest


def test_the_split_is_the_same_everywhere_and_for_ever() -> None:
    held = [name for name in ("os.py", "tarfile.py", "ast.py", "gzip.py", "re/_parser.py") if data.in_validation(name)]
    assert held == ["tarfile.py", "gzip.py"]


# Files ------------------------------------------------------------------------------------------------------------


def test_one_file_keeps_its_tail_for_validation(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_bytes(b"abcdefghij" * 100)
    corpus = data.load_corpus([path], seq_len=10)
    assert bytes(corpus.train.tolist()) + bytes(corpus.valid.tolist()) == path.read_bytes()
    assert len(corpus.valid) == 60
    assert corpus.source == "one.txt"


def test_a_short_text_gives_validation_one_sequence(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_bytes(b"x" * 58)
    corpus = data.load_corpus([path], seq_len=28)
    assert (len(corpus.train), len(corpus.valid)) == (29, 29)
    path.write_bytes(b"x" * 57)
    with pytest.raises(UserError) as caught:
        data.load_corpus([path], seq_len=28)
    assert str(caught.value) == (
        "the text has 57 bytes: too short for --seq-len 28, which needs 58 "
        "(one sequence of 29 to train on and one to validate with)"
    )


def test_many_files_are_split_by_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i:03d}.txt" for i in range(100)]
    for i, path in enumerate(paths):
        path.write_bytes(f"<{i:03d}>".encode() * 20)
    train, valid = (bytes(part.tolist()) for part in split_of(paths))
    in_train = {i for i in range(100) if f"<{i:03d}>".encode() in train}
    in_valid = {i for i in range(100) if f"<{i:03d}>".encode() in valid}
    assert in_train | in_valid == set(range(100))
    assert not in_train & in_valid
    assert 2 <= len(in_valid) <= 25
    # A file that goes moves no other, and neither does the order they are named in.
    gone = min(in_train)
    train, valid = (bytes(part.tolist()) for part in split_of(paths[::-1][: 99 - gone] + paths[:gone]))
    assert {i for i in range(100) if f"<{i:03d}>".encode() in valid} == in_valid


def split_of(paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    corpus = data.load_corpus(paths, seq_len=11)
    return corpus.train, corpus.valid


def test_few_files_each_keep_their_tail() -> None:
    documents = [Document("a", b"a" * 1000), Document("b", b"b" * 500)]
    assert not any(data.in_validation(document.name) for document in documents)
    assert data.split_documents(documents, 10) == (b"a" * 940 + b"b" * 470, b"a" * 60 + b"b" * 30)


def test_a_file_too_big_for_validation_is_not_held_out_whole() -> None:
    documents = [Document("tarfile.py", b"t" * 1000), Document("os.py", b"o" * 1000)]
    assert data.in_validation("tarfile.py")
    assert data.split_documents(documents, 10) == (b"t" * 940 + b"o" * 940, b"t" * 60 + b"o" * 60)


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_bytes(b"abcdefghij" * 100)
    twice = data.load_corpus([path, tmp_path / "." / "one.txt"], seq_len=10)
    assert len(twice.train) + len(twice.valid) == 1000


def test_the_digest_tells_a_changed_text(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    digests = []
    for content in (b"a" * 100, b"a" * 99 + b"b", b"b" + b"a" * 99):
        path.write_bytes(content)
        digests.append(data.load_corpus([path], seq_len=10).digest)
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"text\0more" * 9, "is not text (a NUL byte at offset 4)"),
        (b"caf\xe9" * 9, "is not text (byte 0xe9 at offset 3 is not UTF-8)"),
        (b"ten bytes.", "has 10 bytes, fewer than one sequence of 11 (--seq-len 10 and the byte to predict)"),
    ],
)
def test_an_unusable_file_is_named_with_the_reason(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        data.load_corpus([path], seq_len=10)
    assert str(caught.value) == f"--text {path}: {problem}"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        data.load_corpus([tmp_path], seq_len=10)
    assert str(caught.value) == f"--text {tmp_path}: is a folder; name the files in it, as in {tmp_path}/*.txt"


def test_every_unusable_file_is_named() -> None:
    paths = [f"/nowhere/{i:02d}" for i in range(13)]
    with pytest.raises(UserError) as caught:
        data.load_corpus(paths, seq_len=10)
    lines = [f"--text {path}: no such file" for path in paths[:10]]
    assert str(caught.value) == "\n  ".join([*lines, "... and 3 more"])


# Batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    text = tensor(bytes(range(256)) * 3)
    torch.manual_seed(1)
    first = data.training_batch(text, 17, 5, seed=2, step=7)
    torch.manual_seed(2)
    assert torch.equal(first, data.training_batch(text, 17, 5, seed=2, step=7))
    assert not torch.equal(first, data.training_batch(text, 17, 5, seed=2, step=8))
    assert not torch.equal(first, data.training_batch(text, 17, 5, seed=3, step=7))
    assert not torch.equal(first, data.training_batch(text, 17, 5, seed=7, step=2))


def test_a_batch_is_cut_from_anywhere_in_the_text() -> None:
    text = tensor(bytes(range(13)))
    batch = data.training_batch(text, 10, 200, seed=0, step=0)
    assert (batch.shape, batch.dtype) == ((200, 11), torch.int64)
    assert {tuple(row) for row in batch.tolist()} == {tuple(range(i, i + 11)) for i in range(3)}


def test_validation_predicts_each_byte_once() -> None:
    text = tensor(bytes(range(32)))
    sequences = data.validation_sequences(text, seq_len=7, budget=10**6)
    assert sequences[:, 1:].flatten().tolist() == list(range(1, 29))
    assert sequences[:, 0].tolist() == [0, 7, 14, 21]


def test_validation_within_a_budget_is_spread_over_the_text() -> None:
    text = tensor(bytes(range(201)))
    sequences = data.validation_sequences(text, seq_len=10, budget=59)
    assert sequences[:, 0].tolist() == [0, 40, 80, 120, 160]
    assert data.validation_sequences(text, seq_len=200, budget=1).shape == (1, 201)
