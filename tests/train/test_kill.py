"""Real processes, really killed: what is left on the disk is always enough to go on with the same numbers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blockdsl.files import leftovers

from .killed import killed_at_call

Blockdsl = Callable[..., tuple[int, str, str]]
Records = Callable[[Path], list[dict[str, Any]]]

# Saving after every step puts a good part of the time, and so of the kills, inside the saving.
PROGRAM = """
import sys
from xt_blocks.train import loop
loop.SECONDS_BETWEEN_SAVES = 0
from xt_blocks.cli import main
sys.exit(main(sys.argv[1:]))
"""


def started(run: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """The command line in a process of its own, returned once it is about to train."""
    before = _written(run)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # sums are split by it
    )
    while _written(run) == before and process.poll() is None:
        time.sleep(0.002)
    return process


def _written(run: Path) -> float:
    metrics = run / "metrics.jsonl"
    return metrics.stat().st_mtime_ns if metrics.exists() else 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_again_and_again(blockdsl: Blockdsl, small: list[str], tmp_path: Path, records: Records) -> None:
    steps = ["--steps", "60"]
    blockdsl("train", *small, *steps, "--out", tmp_path / "whole")
    run, delays = tmp_path / "killed", random.Random()
    arguments: list[str | Path] = ["train", *small, *steps, "--out", run]
    reached = []
    for _ in range(3):
        process = started(run, *arguments)
        time.sleep(delays.uniform(0, 0.3))
        process.kill()
        process.communicate()
        reached.append(sorted(path.name for path in (run / "checkpoints").iterdir()))
        arguments = ["train", "--resume", run]
    status, _, err = blockdsl(*arguments)
    assert status == 0, (err, reached)
    assert records(run) == records(tmp_path / "whole"), reached


@pytest.mark.parametrize("written", range(3))
def test_a_folder_that_a_kill_left_half_made_is_made_again(
    written: int, blockdsl: Blockdsl, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the rename of pattern.txt, graph.json or settings.json, as torchrun then starts the same command again."""
    run, arguments = tmp_path / "run", ["train", *small, "--steps", "2", "--out", str(tmp_path / "run")]
    killed_at_call(monkeypatch, "blockdsl.files.os.replace", written, lambda: blockdsl(*arguments))
    assert len([*leftovers(run)]) == 1
    status, _, err = blockdsl(*arguments)
    assert status == 0, err
    assert not [*run.glob(".*")]


def test_what_a_killed_write_has_left_is_removed_by_the_next_run(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    blockdsl("train", *small, "--steps", "2", "--out", run)
    for name in (".0123456789abcdef.tmp", ".notes.tmp", ".begun"):
        (run / name).touch()
    _, _, err = blockdsl("train", *small, "--out", run)
    assert "the folder is not empty; continue it with --resume" in err
    assert blockdsl("train", "--resume", run, "--steps", "3")[0] == 0
    assert [path.name for path in run.glob(".*")] == [".notes.tmp"]


def test_ctrl_c_saves_and_says_how_to_go_on(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, records: Records
) -> None:
    blockdsl("train", *small, "--steps", "150", "--out", tmp_path / "whole")
    run = tmp_path / "stopped"
    process = started(run, "train", *small, "--steps", "150", "--out", run)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    last = records(run)[-1]["step"]
    assert last < 150
    assert err.endswith(f"stopped after step {last}, saved; continue with\n  blockdsl train --resume {run}\n")
    assert (run / f"checkpoints/{last:06d}").is_dir()
    assert (run / "loss.png").exists()
    blockdsl("train", "--resume", run)
    assert records(run) == records(tmp_path / "whole")
