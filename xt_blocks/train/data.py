"""What a run trains on, and text as bytes: reading it, splitting it for training and validation, drawing batches.

Owns the text sources (the standard library, a user's files), their checks and the split. Leaves the model, the loss and
the unigram baseline to others, and tokens on the disk to `token_files`. Nothing here is random: files come in a fixed
order, the split is a pure function of the text and its names, a batch of the seed and the step.

Axes: `batch` sequences, `seq` bytes of context, one more byte as the last target.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, log
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from blockdsl.errors import UserError

from ..runtime.seeds import seed_for

VALIDATION_SHARE = 0.06
"""The part of the text that is held out from training: about this share of the files, or of every file's bytes."""

FAIR_SHARE = (0.02, 0.25)
"""A split by file is used when it gives validation between these shares of the bytes; with few files it may not."""

UNREAD_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"})
"""Folders of the standard library that are left out: what others installed there, and the library's own
tests, which many installations lack (slim containers, Debian): with them the text would differ."""


@dataclass(frozen=True)
class Document:
    """One file: its name (stable across machines, for the split) and its bytes."""

    name: str
    data: bytes


class Data(Protocol):
    """What a run trains on and is validated with.

    Attributes:
        source: in words, where it comes from.
        digest: changes when a token of it does.
        num_tokens: the vocabulary's size.
        unit, nats: what training losses are shown in, and how many nats that is.
        bytes_per_token: of what is held out.
    """

    @property
    def source(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def num_tokens(self) -> int: ...

    @property
    def unit(self) -> str: ...

    @property
    def nats(self) -> float: ...

    @property
    def bytes_per_token(self) -> float: ...

    def batch(self, seq_len: int, batch: int, seed: int, step: int) -> Tensor:
        """The batch of a step, (batch, seq_len + 1) int64: a pure function of the arguments."""

    def validation(self, seq_len: int, budget: int) -> Tensor:
        """Sequences that were held out, (sequences, seq_len + 1) int64, evenly spread; they predict at most about
        `budget` tokens and always at least seq_len."""


@dataclass(frozen=True)
class Corpus:
    """Text as bytes, in memory.

    `train` and `valid` are uint8 tensors of shape (bytes,); `source` says in words where they come from;
    `digest` changes when a byte of either does.
    """

    train: Tensor
    valid: Tensor
    source: str
    digest: str
    num_tokens: ClassVar[int] = 256
    unit: ClassVar[str] = "bits/byte"
    nats: ClassVar[float] = log(2)
    bytes_per_token: ClassVar[float] = 1.0

    def batch(self, seq_len: int, batch: int, seed: int, step: int) -> Tensor:
        """Sequences from random places of the text."""
        return training_batch(self.train, seq_len, batch, seed, step)

    def validation(self, seq_len: int, budget: int) -> Tensor:
        return validation_sequences(self.valid, seq_len, budget)


def stdlib_documents(root: Path | None = None) -> list[Document]:
    """The `.py` sources of the running Python's standard library, in the order of their relative paths.

    Raises UserError when there are none, as in a Python that ships its library as a zip of bytecode.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    documents = []
    for path in _python_files(root):
        data = path.read_bytes()
        if data and _not_text(data) is None:
            documents.append(Document(path.relative_to(root).as_posix(), data))
    documents.sort(key=lambda document: document.name)
    if not documents:
        raise UserError(f"no .py sources of the standard library in {root}: name a text with --text FILE")
    return documents


def _python_files(root: Path) -> Iterable[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in UNREAD_FOLDERS]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                yield path


def file_documents(paths: Sequence[str | Path], seq_len: int) -> list[Document]:
    """A user's files, in the order of their names.

    Each must be UTF-8 text without NUL bytes and hold a sequence (`seq_len` bytes and the one to predict).
    The model itself could learn any bytes; but a prompt is encoded as UTF-8 and a sample decoded as
    UTF-8, and a file that is neither is nearly always an image or an archive named by mistake.

    Raises UserError that names every file which cannot be used.
    """
    documents, problems = [], []
    for name, path in files_by_name(paths):
        try:
            documents.append(Document(name, read_document(path, seq_len)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = [f"... and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise UserError("\n  ".join(problems[:10] + more))
    return documents


def files_by_name(paths: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """Each file once, in the order of their names, which count from the folder they share, so that a moved collection
    splits the same."""
    unique = list(dict.fromkeys(Path(path).resolve() for path in paths))
    shared = Path(os.path.commonpath([path.parent for path in unique]))
    return sorted((path.relative_to(shared).as_posix(), path) for path in unique)


def read_document(path: Path, seq_len: int) -> bytes:
    """The bytes of one text file. Raises UserError when it is missing, not a regular file, empty, not text,
    or shorter than one sequence."""
    if not path.exists():
        raise UserError(f"--text {path}: no such file")
    if path.is_dir():
        raise UserError(f"--text {path}: is a folder; name the files in it, as in {path}/*.txt")
    if not path.is_file():
        raise UserError(f"--text {path}: is not a regular file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"--text {path}: cannot be read ({error.strerror})") from None
    if not data:
        raise UserError(f"--text {path}: is empty")
    if (problem := _not_text(data)) is not None:
        raise UserError(f"--text {path}: is not text ({problem})")
    if len(data) < seq_len + 1:
        raise UserError(
            f"--text {path}: has {len(data)} bytes, fewer than one sequence of {seq_len + 1} "
            f"(--seq-len {seq_len} and the byte to predict)"
        )
    return data


def _not_text(data: bytes) -> str | None:
    zero = data.find(0)
    if zero >= 0:
        return f"a NUL byte at offset {zero:,}"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"byte 0x{data[error.start]:02x} at offset {error.start:,} is not UTF-8"
    return None


def load_corpus(paths: Sequence[str | Path] | None, seq_len: int) -> Corpus:
    """Read and split `paths`, or the standard library's sources when None.

    Raises UserError when a file cannot be used or the text is too short for both parts.
    """
    if paths is None:
        documents = stdlib_documents()
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        source = f"{len(documents):,} files of the Python {version} standard library"
    else:
        documents = file_documents(paths, seq_len)
        source = documents[0].name if len(documents) == 1 else f"{len(documents):,} files"
    train, valid = split_documents(documents, seq_len)
    digest = hashlib.sha256(train + b"\0" + valid).hexdigest()
    return Corpus(_tensor(train), _tensor(valid), source, digest)


def split_documents(documents: Sequence[Document], seq_len: int) -> tuple[bytes, bytes]:
    """Training and validation bytes, each at least `seq_len + 1` long.

    By file where that gives validation a fair share: a whole unseen file is the honest test. Otherwise
    (one file, or few) the tail of every file is kept back: a contiguous tail, since pieces scattered
    through a file would be surrounded by training text that nearly repeats them.

    Raises UserError when the text is too short for two such parts.
    """
    by_file = _split_by_file(documents)
    if _fair(*by_file) and min(map(len, by_file)) > seq_len:
        return by_file
    return _split_tails(documents, seq_len)


def in_validation(name: str) -> bool:
    """Whether a file belongs to validation: a hash of its name alone, so other files coming or going
    never move it from one part to the other."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < VALIDATION_SHARE * 2**64


def _split_by_file(documents: Sequence[Document]) -> tuple[bytes, bytes]:
    held = [in_validation(document.name) for document in documents]
    train = b"".join(d.data for d, is_held in zip(documents, held, strict=True) if not is_held)
    valid = b"".join(d.data for d, is_held in zip(documents, held, strict=True) if is_held)
    return train, valid


def _fair(train: bytes, valid: bytes) -> bool:
    low, high = FAIR_SHARE
    return low <= len(valid) / (len(train) + len(valid)) <= high


def _split_tails(documents: Sequence[Document], seq_len: int) -> tuple[bytes, bytes]:
    total = sum(len(document.data) for document in documents)
    share = max(VALIDATION_SHARE, (seq_len + 1) / total)
    # Rounded up, so that the tails together are never shorter than one sequence.
    cuts = [len(d.data) - min(len(d.data), ceil(share * len(d.data))) for d in documents]
    train = b"".join(d.data[:cut] for d, cut in zip(documents, cuts, strict=True))
    valid = b"".join(d.data[cut:] for d, cut in zip(documents, cuts, strict=True))
    if min(len(train), len(valid)) < seq_len + 1:
        raise UserError(
            f"the text has {total:,} bytes: too short for --seq-len {seq_len}, which needs "
            f"{2 * (seq_len + 1):,} (one sequence of {seq_len + 1} to train on and one to validate with)"
        )
    return train, valid


def _tensor(data: bytes) -> Tensor:
    # A bytearray, as torch warns about memory it must not write to.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def training_batch(text: Tensor, seq_len: int, batch: int, seed: int, step: int) -> Tensor:
    """Sequences from random places of `text` (bytes,): (batch, seq_len + 1) int64.

    A pure function of its arguments: step 200 draws the same bytes whether or not the run was resumed.
    """
    generator = torch.Generator().manual_seed(seed_for("batch", seed, step))
    starts = torch.randint(len(text) - seq_len, (batch, 1), device="cpu", dtype=torch.int64, generator=generator)
    return text[starts + _places(seq_len + 1)].long()


def validation_sequences(text: Tensor, seq_len: int, budget: int) -> Tensor:
    """Sequences that do not overlap in what they predict, evenly spread over `text` (bytes,):
    (sequences, seq_len + 1) int64, predicting at most about `budget` bytes and always at least seq_len.
    """
    starts = torch.tensor(evenly_spread(len(text), seq_len, budget), device="cpu", dtype=torch.int64)
    return text[starts[:, None] + _places(seq_len + 1)].long()


def evenly_spread(length: int, seq_len: int, budget: int) -> list[int]:
    """Where sequences start, of those that follow one another by `seq_len` in `length` tokens: at least one, and as
    many as predict at most `budget`."""
    available = (length - 1) // seq_len
    count = max(1, min(available, budget // seq_len))
    return [i * available // count * seq_len for i in range(count)]


def _places(count: int) -> Tensor:
    return torch.arange(count, device="cpu", dtype=torch.int64)
