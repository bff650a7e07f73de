"""Parquet, by pyarrow: rows are documents."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from blockdsl.errors import UserError
from xt_blocks.train import tokenize
from xt_blocks.train.documents import read_passages

TEXTS = [f"document {i} says ä" for i in range(80)] + ["", None, "document 3 says ä"]


def table(path: Path) -> Path:
    columns = {"id": list(range(len(TEXTS))), "content": TEXTS}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=7)
    return path


def test_rows_are_documents_split_as_lines_of_json_are(tmp_path: Path) -> None:
    passages = [*read_passages([table(tmp_path / "x.parquet")], "content")]
    assert [passage.text for passage in passages] == [text for text in TEXTS if text]
    assert all(passage.last for passage in passages)
    lines = "".join(f'{{"content": "document {i} says ä"}}\n' for i in range(80))
    (tmp_path / "x.jsonl").write_text(lines, encoding="utf-8")
    assert [*read_passages([tmp_path / "x.jsonl"], "content")] == passages[:80]
    index = tokenize([tmp_path / "x.parquet"], tmp_path / "tokens", field="content")
    assert sum(part["documents"] for part in index["parts"].values()) == 81


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: has no column 'contents'; --field says which, as content$"):
        [*read_passages([path], "contents")]
    with pytest.raises(UserError, match=r"x\.parquet: 'id' is no text, but int$"):
        [*read_passages([path], "id")]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"x\.parquet: is no Parquet file \("):
        [*read_passages([path], "content")]
