"""TensorBoard and Weights & Biases, the real ones, have the numbers of metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from ..conftest import blockdsl, small, text

__all__ = ["blockdsl", "small", "text"]

Blockdsl = Callable[..., tuple[int, str, str]]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def in_tensorboard(run: Path) -> dict[tuple[str, int], float]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {(name, event.step): event.value for name in events.Tags()["scalars"] for event in events.Scalars(name)}


def records_of(data: bytes) -> Iterator[bytes]:
    """Those of a log in LevelDB's format, after a header of 7 bytes: in blocks of 32 KiB, each piece with a checksum (4
    bytes), its length (2) and its type (1): whole, first, middle or last."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := -at % 2**15) and left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def in_wandb(file: Path) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for data in records_of(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            step = record.history.step.num
            found |= {(name, step): value for name, value in items.items() if not name.startswith("_")}
    return found


def test_they_have_the_numbers_of_the_run(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    status, _, err = blockdsl("train", *small, "--steps", "4", "--log", "tensorboard,wandb", "--out", run)
    assert status == 0, err
    expected = {(name, line["step"]): value for line in lines(run) for name, value in line.items() if name != "step"}
    assert in_tensorboard(run) == pytest.approx(expected, rel=1e-6)
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert in_wandb(file) == pytest.approx(expected)
    # and a run that goes on adds to them
    status, _, err = blockdsl("train", "--resume", run, "--steps", "6", "--log", "tensorboard")
    assert status == 0, err
    assert {step for name, step in in_tensorboard(run) if name == "loss"} == {1, 2, 3, 4, 5, 6}
