"""A full disk, as /dev/full is: the file that could not be written is named, whichever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blockdsl
import xt_blocks
from xt_blocks.runtime.weights import WHOLE, write_file
from xt_blocks.train.metrics import MetricsLog

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def on_a_full_disk(path: Path, flush: bool) -> None:
    with MetricsLog(path, 0) as log:
        log._file.close()
        log._file = FULL.open("a", encoding="utf-8")
        if flush:
            log.write({"step": 1})
        log._file.write("what no one has flushed")


@pytest.mark.parametrize("flush", [True, False])
def test_the_log(tmp_path: Path, flush: bool) -> None:
    """One error, which names it: closing what could not be written raises none of its own."""
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        on_a_full_disk(path, flush)


def test_weights(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3)}
    path = tmp_path / f"{WHOLE}.tmp"
    path.symlink_to(FULL)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write_file(path, tensors, tensors.__getitem__, {})


@pytest.mark.parametrize("file", ["graph.json", "config.json", f"{WHOLE}.tmp"])
def test_a_folder_of_a_model(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = xt_blocks.lower(blockdsl.compile("a f", dim=16, heads=2, num_tokens=8, max_seq_len=8))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # of what was there before
    (tmp_path / file).symlink_to(FULL)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path / file}'"):
        model.save_pretrained(tmp_path)
