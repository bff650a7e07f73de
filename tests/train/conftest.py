"""Shared by the training tests: a small text, a small model's flags, the command line run in this process."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xt_blocks.cli import main
from xt_blocks.train import MEASURED

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "wizards", "brew", "coffee"]


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process has written is with the system. To wait for the disk, which is for when power fails, takes
    a third of a small run."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Some 20 kB that are easy to learn: lines of random words."""
    choose = random.Random(3)
    lines = [" ".join(choose.choice(WORDS) for _ in range(7)) for _ in range(500)]
    path = tmp_path / "words.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def small(text: Path) -> list[str]:
    """Flags of a run of 40 steps that takes a fraction of a second. Dropout makes it draw random numbers."""
    flags = {
        "--pattern": "a>>1 | f",
        "--dim": "14",
        "--heads": "1",
        "--seq-len": "19",
        "--batch": "3",
        "--steps": "40",
        "--lr": "0.01",
        "--set": "ff_dropout=0.1,attn_dropout=0.1",
        "--text": str(text),
    }
    return [word for flag in flags.items() for word in flag]


@pytest.fixture
def blockdsl(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """blockdsl("train", ...) -> exit status, standard output, standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse's own errors
            status = int(stopped.code or 0)
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="session")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run_of(_runs: Path, blockdsl: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., Path]:
    """run_of(name, *flags) -> a run folder of the test's own; the run of a name is trained once."""

    def copied(name: str, *flags: str) -> Path:
        if not (_runs / name).exists():
            assert blockdsl("train", *flags, "--out", _runs / name)[0] == 0
        return Path(shutil.copytree(_runs / name, tmp_path / "run"))

    return copied


def read_records(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, every line of which must be whole, without what is measured, which varies."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in record.items() if name not in MEASURED} for record in records]


@pytest.fixture
def records() -> Callable[[Path], list[dict[str, Any]]]:
    return read_records
