"""`torchrun -m blockdsl train`: ranks that are killed, that hang, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from xt_blocks.cli import main

from .processes import ROOT

COMMAND = ["--pattern", "(a f)*2", "--dim", "16", "--heads", "1", "--seq-len", "16", "--batch", "4", "--val-every", "3"]


def torchrun(ranks: int, *words: str, restarts: int = 0, command: str = "train") -> subprocess.Popen[str]:
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
    start += ["--monitor-interval", "0.2", "-m", "blockdsl", command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *start, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    return str(tmp_path / "text.txt")


def numbers(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second", "mfu", "memory")
    return [{name: value for name, value in record.items() if name not in timed} for record in records]


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun has started, as the system numbers them."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(each) for each in children.read_text().split()] if children.is_file() else []


def at_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait for the run to have come to a step."""
    while process.poll() is None:
        if (run / "metrics.jsonl").is_file() and any(each["step"] >= step for each in numbers_so_far(run)):
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate())


def numbers_so_far(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


@pytest.mark.distributed
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks by /proc")
def test_a_killed_rank_leaves_the_numbers_of_an_unbroken_run(tmp_path: Path, text: str) -> None:
    words = [*COMMAND, "--text", text, "--steps", "40", "--mesh", "fsdp=2"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert finished(torchrun(2, *words, "--out", str(unbroken)))[0] == 0
    process = torchrun(2, *words, "--out", str(broken), restarts=2)
    at_step(broken, 7, process)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    code, out, err = finished(process)
    assert code == 0, err
    assert "resumed   after step" in out
    assert numbers(broken) == numbers(unbroken)


@pytest.mark.distributed
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks by /proc")
def test_a_rank_that_hangs_ends_the_job_with_its_name(tmp_path: Path, text: str) -> None:
    words = [*COMMAND, "--text", text, "--steps", "100000", "--mesh", "fsdp=2", "--timeout", "8"]
    process = torchrun(2, *words, "--out", str(tmp_path / "run"))
    at_step(tmp_path / "run", 5, process)
    hung = ranks_of(process)[1]
    os.kill(hung, signal.SIGSTOP)
    started = time.monotonic()
    try:
        code, _, err = finished(process)
    finally:
        if Path(f"/proc/{hung}").exists():
            os.kill(hung, signal.SIGKILL)
    assert code != 0
    assert "rank 0: rank 1 gave no answer (at most 8 s are waited for)" in err
    assert time.monotonic() - started < 120  # torchrun itself waits half a minute for the one that hangs


@pytest.mark.distributed
@pytest.mark.parametrize("meshes", [("pp=2", "tp=2"), ("tp=2", "fsdp=2")])
def test_a_run_goes_on_upon_another_mesh(tmp_path: Path, text: str, meshes: tuple[str, str]) -> None:
    words = [*COMMAND, "--text", text]
    one, many = tmp_path / "one", tmp_path / "many"
    code, _, err = finished(torchrun(2, *words, "--steps", "8", "--mesh", meshes[0], "--out", str(one)))
    assert code == 0, err
    code, _, err = finished(torchrun(2, *words, "--steps", "4", "--mesh", meshes[0], "--out", str(many)))
    assert code == 0, err
    code, out, err = finished(torchrun(2, "--resume", str(many), "--steps", "8", "--mesh", meshes[1]))
    assert code == 0, err
    assert "resumed   after step 4" in out
    assert [each["step"] for each in numbers(many)] == [0, 1, 2, 3, 3, 4, 4, 5, 6, 6, 7, 8, 8]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--mesh fsdp=2", "give --out"),
        pytest.param(
            "--mesh fsdp=3 --out a", "--mesh fsdp=3 has 3 ranks, and torchrun started 2", marks=pytest.mark.distributed
        ),
        pytest.param(
            "--mesh fsdp=2 --pattern a=>c --out a",
            "this pattern has two; train it in Python, with XTransformer, and over several processes with xt_blocks.distribute",
            marks=pytest.mark.distributed,
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(words: str, told: str, tmp_path: Path, text: str) -> None:
    given = words.replace("--out a", f"--out {tmp_path}/a").split()
    code, _, err = finished(torchrun(2, *COMMAND, "--text", text, "--steps", "2", *given))
    assert code != 0
    assert err.count(told) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--schedule interleaved", "--schedule orders the stages of a pipeline, and there is none: give --mesh pp=2"),
        ("--timeout 5", "--timeout is how long ranks wait for one another, and this is one process"),
        ("--timeout 0", "--timeout must be more than 0 seconds, not 0"),
        ("--mesh fdsp=2", "there is no axis 'fdsp'; did you mean 'fsdp'?"),
        ("--mesh pp=2", "--mesh pp=2 has 2 ranks, and this is one process; start them with"),
    ],
)
def test_flags_of_many_processes_are_refused_in_one(
    words: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--steps", "1", "--out", str(tmp_path / "run"), *words.split()]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
