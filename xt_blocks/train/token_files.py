"""A folder of tokens: text that `blockdsl tokenize` has made numbers of, for training beyond memory.

    index.json        counts, digest, vocabulary size
    tokenizer.json    what made the tokens, unless they are bytes
    train-00000.bin   tokens, one after the other, as little-endian numbers of the index's dtype
    train.ends        where each document ends, as uint64, counted in tokens of the part
    valid-00000.bin   the same of what is held out from training
    valid.ends

Owns writing and reading it. Shards are memory-mapped: what is read is what a step needs. Leaves text to `documents`,
and its tokens to `tokenizing`.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import log
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blockdsl.errors import UserError
from blockdsl.files import sync

from .data import evenly_spread
from .order import sequences_of

INDEX, TOKENIZER = "index.json", "tokenizer.json"
FORMAT = 1
SHARD_TOKENS = 2**28
PARTS = ("train", "valid")
DTYPES = {"uint8": 2**8, "uint16": 2**16, "uint32": 2**32}


def smallest_dtype(num_tokens: int) -> str:
    return next(name for name, held in DTYPES.items() if num_tokens <= held)


class PartWriter:
    """Writes the shards of one part."""

    def __init__(self, folder: Path, name: str, dtype: str, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder, self.name, self.shard_tokens = folder, name, shard_tokens
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.shards: list[int] = []
        self.tokens = self.bytes = self.documents = 0
        self.digest = hashlib.sha256()
        self._ends = (folder / f"{name}.ends").open("wb")
        self._file: IO[bytes] | None = None

    def write(self, tokens: NDArray[Any], text_bytes: int) -> None:
        """Tokens of `text_bytes` bytes of text; in a new shard where one is full."""
        data = tokens.astype(self.dtype)
        self.digest.update(data.tobytes())
        self.tokens += len(data)
        self.bytes += text_bytes
        while len(data):
            if self._file is None or self.shards[-1] == self.shard_tokens:
                self._close_shard()
                self._file = (self.folder / shard_name(self.name, len(self.shards))).open("wb")
                self.shards.append(0)
            taken = data[: self.shard_tokens - self.shards[-1]]
            self._file.write(taken.tobytes())
            self.shards[-1] += len(taken)
            data = data[len(taken) :]

    def end_document(self) -> None:
        end = self.tokens.to_bytes(8, "little")
        self._ends.write(end)
        self.digest.update(end)
        self.documents += 1

    def finish(self) -> dict[str, Any]:
        """What the index says of the part."""
        self._close_shard()
        self._ends.close()
        sync(self.folder / f"{self.name}.ends")
        return {"documents": self.documents, "tokens": self.tokens, "bytes": self.bytes, "shards": self.shards}

    def _close_shard(self) -> None:
        if self._file is not None:
            self._file.close()
            sync(Path(self._file.name))


def shard_name(part: str, number: int) -> str:
    return f"{part}-{number:05d}.bin"


class TokenPart:
    """One part, as one row of tokens over all shards."""

    def __init__(self, folder: Path, name: str, dtype: str, saved: dict[str, Any]) -> None:
        self.tokens, self.bytes, self.documents = saved["tokens"], saved["bytes"], saved["documents"]
        kind = np.dtype(dtype).newbyteorder("<")
        self._shards = []
        for number, held in enumerate(saved["shards"]):
            path = folder / shard_name(name, number)
            size = path.stat().st_size if path.is_file() else None
            if size != held * kind.itemsize:
                found = "is missing" if size is None else f"has {size:,} bytes"
                raise UserError(f"--data {folder}: {path.name} {found}, and has {held * kind.itemsize:,} by the index")
            self._shards.append(np.memmap(path, kind, "r", shape=(held,)))
        self._starts = [0, *accumulate(saved["shards"])]

    def __len__(self) -> int:
        return int(self.tokens)

    def read(self, start: int, length: int) -> NDArray[np.int64]:
        """(length,), from any place on."""
        pieces = []
        while length:
            number = bisect_right(self._starts, start) - 1
            within = start - self._starts[number]
            piece = self._shards[number][within : within + length]
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return np.concatenate(pieces).astype(np.int64)

    def rows(self, starts: list[int], length: int) -> Tensor:
        """(rows, length) int64."""
        return torch.from_numpy(np.stack([self.read(start, length) for start in starts]))


@dataclass(frozen=True)
class TokenCorpus:
    """Tokens ready for training; what `data.Corpus` is of bytes.

    Attributes:
        end: the token that ends a document, if any.
        unit, nats: what training losses are shown in, and how many nats that is.
        bytes_per_token: of what is held out.
    """

    folder: Path
    train: TokenPart
    valid: TokenPart
    source: str
    digest: str
    num_tokens: int
    end: int | None
    of_bytes: bool

    @property
    def unit(self) -> str:
        return "bits/byte" if self.of_bytes else "nats/token"

    @property
    def nats(self) -> float:
        return log(2) if self.of_bytes else 1.0

    @property
    def bytes_per_token(self) -> float:
        return self.valid.bytes / self.valid.tokens

    @property
    def tokenizer(self) -> Path | None:
        """The file, unless tokens are bytes."""
        return None if self.of_bytes else self.folder / TOKENIZER

    def batch(self, seq_len: int, batch: int, seed: int, step: int) -> Tensor:
        """(batch, seq_len + 1) int64. Sequences follow one another in the text by `seq_len`, and each is read once an
        epoch, in a seeded order: a pure function of the arguments."""
        count = (len(self.train) - 1) // seq_len
        return self.train.rows([i * seq_len for i in sequences_of(step, batch, count, seed)], seq_len + 1)

    def validation(self, seq_len: int, budget: int) -> Tensor:
        """(sequences, seq_len + 1) int64, evenly spread, that predict at most about `budget` tokens."""
        return self.valid.rows(evenly_spread(len(self.valid), seq_len, budget), seq_len + 1)


def open_tokens(folder: Path, seq_len: int) -> TokenCorpus:
    """The tokens of a folder. Raises UserError when it is no such folder, is damaged, or has fewer than a sequence."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise UserError(f"--data {folder}: is of format {index['format']}, and this release reads {FORMAT}")
        parts = {name: TokenPart(folder, name, index["dtype"], index["parts"][name]) for name in PARTS}
        fields = {name: index[name] for name in ("source", "digest", "num_tokens", "end", "tokenizer")}
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        hint = f"it has no {INDEX} that can be read; blockdsl tokenize makes one"
        raise UserError(f"--data {folder}: is no folder of tokens ({hint})") from None
    for name, part in parts.items():
        if len(part) <= seq_len:
            what = "to train on" if name == "train" else "held out"
            raise UserError(
                f"--data {folder}: has {len(part):,} tokens {what}, fewer than one sequence of {seq_len + 1:,} "
                f"(--seq-len {seq_len} and the token to predict)"
            )
    of_bytes = fields.pop("tokenizer") is None
    return TokenCorpus(folder, parts["train"], parts["valid"], of_bytes=of_bytes, **fields)
