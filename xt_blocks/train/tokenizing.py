"""From text to a folder of tokens.

Owns which tokens a text is while it is written, and that the folder is whole or not there. Leaves reading text to
`documents`, and the folder's format to `token_files`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blockdsl.errors import UserError, nearest
from blockdsl.files import sync, write_whole

from .documents import Passage, read_passages
from .token_files import FORMAT, INDEX, PARTS, SHARD_TOKENS, TOKENIZER, PartWriter, smallest_dtype

ENDS = ("<|endoftext|>", "<|end_of_text|>", "<eos>", "</s>", "[EOS]")
"""Tokens that end a document, as published tokenizers name them."""
AT_ONCE = 2**23
"""Characters that are encoded at once, on all cores."""


class Coder(Protocol):
    """Text as tokens."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def end(self) -> int | None: ...

    def encode(self, texts: list[str]) -> Iterable[NDArray[Any]]: ...


class ByteCoder:
    """A token is a byte of UTF-8."""

    num_tokens, end = 256, None

    def encode(self, texts: list[str]) -> Iterable[NDArray[Any]]:
        return [np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) for text in texts]


class PieceCoder:
    """The tokenizer of a tokenizer.json, without the special tokens that it would put around a text.

    Args:
        end: the token that follows each document; None: the one that `ENDS` knows, if any.

    Raises:
        UserError: tokenizers is not installed, the file is damaged, or there is no such token.
    """

    def __init__(self, path: Path, end: str | None = None) -> None:
        from ..interop.text import Pieces

        if not path.is_file():
            raise UserError(f"--tokenizer {path}: no such file")
        self.own = Pieces(path).own
        self.own.no_truncation()
        self.own.no_padding()
        vocabulary: dict[str, int] = self.own.get_vocab()
        self.num_tokens = max(vocabulary.values(), default=0) + 1
        if end is not None and end not in vocabulary:
            found = nearest(end, vocabulary)
            hint = f"; did you mean '{found}'?" if found else ""
            raise UserError(f"--end {end}: {path} has no such token{hint}")
        known = [name for name in ENDS if name in vocabulary]
        self.end = vocabulary[end] if end is not None else vocabulary[known[0]] if known else None

    def encode(self, texts: list[str]) -> Iterable[NDArray[Any]]:
        for encoded in self.own.encode_batch_fast(texts, add_special_tokens=False):
            yield np.array(encoded.ids, dtype=np.int64)


def tokenize(
    paths: Sequence[str | Path],
    out: Path,
    tokenizer: Path | None = None,
    *,
    field: str = "text",
    end: str | None = None,
    shard_tokens: int = SHARD_TOKENS,
) -> dict[str, Any]:
    """Write the tokens of files into the folder `out`, and return its index.

    It is written under another name and renamed when it is whole.

    Args:
        tokenizer: a tokenizer.json; None: tokens are bytes.
        field: of JSON lines, or column of Parquet: the text.
        end: the token after each document; None: the tokenizer's own, if a known one.

    Raises:
        UserError: a file, the tokenizer or the folder cannot be used, or nothing is left for one of the parts.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: is there already; name another")
    if end is not None and tokenizer is None:
        raise UserError(f"--end {end} is a token of a --tokenizer, and bytes have none")
    coder: Coder = ByteCoder() if tokenizer is None else PieceCoder(tokenizer, end)
    partial = out.with_name(out.name + ".tmp")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        index = _write(partial, read_passages(paths, field), coder, shard_tokens)
        count = len({Path(path).resolve() for path in paths})
        index["source"] = Path(paths[0]).name if count == 1 else f"{count:,} files"
        index["tokenizer"] = None
        if tokenizer is not None:
            data = tokenizer.read_bytes()
            index["tokenizer"] = hashlib.sha256(data).hexdigest()
            write_whole(partial / TOKENIZER, data)
        write_whole(partial / INDEX, json.dumps(index, indent=1) + "\n")
        if out.exists():
            out.rmdir()
        os.rename(partial, out)
        sync(out.parent)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return index


def _write(folder: Path, passages: Iterable[Passage], coder: Coder, shard_tokens: int) -> dict[str, Any]:
    dtype = smallest_dtype(coder.num_tokens)
    writers = {name: PartWriter(folder, name, dtype, shard_tokens) for name in PARTS}
    after = [] if coder.end is None else [coder.end]
    for group in _groups(passages):
        for passage, tokens in zip(group, coder.encode([passage.text for passage in group]), strict=True):
            writer = writers["valid" if passage.held_out else "train"]
            writer.write(tokens, len(passage.text.encode("utf-8", "surrogatepass")))
            if passage.last:
                writer.write(np.array(after, dtype=np.int64), 0)
                writer.end_document()
    parts = {name: writer.finish() for name, writer in writers.items()}
    documents = sum(part["documents"] for part in parts.values())
    for name, part in parts.items():
        if not part["tokens"]:
            what = "to train on" if name == "train" else "held out to validate with, which is 6% of them"
            raise UserError(f"of {documents:,} documents none is {what}: give more, or text files")
    digest = hashlib.sha256("".join(writer.digest.hexdigest() for writer in writers.values()).encode())
    return {
        "format": FORMAT,
        "dtype": dtype,
        "num_tokens": coder.num_tokens,
        "end": coder.end,
        "digest": digest.hexdigest(),
        "parts": parts,
    }


def _groups(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    """As many as are encoded at once."""
    group: list[Passage] = []
    size = 0
    for passage in passages:
        group.append(passage)
        size += len(passage.text)
        if size >= AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
