"""Two machines: a `torchrun` each, which meet at an address of loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .processes import ROOT
from .test_train_command import COMMAND, at_step, finished, numbers, ranks_of, torchrun

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks by /proc"),
]
SECONDS = 300.0
"""For a run on a machine that is busy with other things."""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    return [*COMMAND, "--text", str(tmp_path / "text.txt"), "--steps", "40", "--mesh", "fsdp=2"]


class Machines:
    """What starts `torchrun` on one of two machines; what it says is in files, as a pipe that is full would stop it."""

    def __init__(self, folder: Path, words: list[str], out: str, restarts: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{free.getsockname()[1]}"
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", place, "--rdzv-id", "one", "--monitor-interval", "0.2"]
        start = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        start += ["--max-restarts", str(restarts), *meet, "-m", "blockdsl", "train", *words, "--out", out]
        self.command = [sys.executable, *start]
        self.said, self.started = folder / "said", list[subprocess.Popen[str]]()

    def start(self, folder: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        with self.said.open("a") as said:
            process = subprocess.Popen(self.command, env=environment, stdout=said, stderr=said, text=True, cwd=folder)
        self.started.append(process)
        return process


def answers(host: str, port: int) -> bool:
    """Whether the first machine is where they meet."""
    try:
        socket.create_connection((host, port)).close()
    except OSError:
        return False
    return True


@contextmanager
def machines(folder: Path, words: list[str], out: str | None = None, restarts: int = 2) -> Iterator[Machines]:
    """None of their processes is left behind."""
    both = Machines(folder, words, str(folder / "run") if out is None else out, restarts)
    try:
        yield both
    finally:
        for process in both.started:
            if process.poll() is None:
                for rank in ranks_of(process):
                    os.kill(rank, signal.SIGKILL)
                process.kill()


def unbroken(folder: Path, words: list[str]) -> Path:
    """The same run on one machine."""
    code, _, err = finished(torchrun(2, *words, "--out", str(folder / "unbroken")))
    assert code == 0, err
    return folder / "unbroken"


@pytest.mark.parametrize("machine", [0, 1])
def test_a_rank_that_is_killed_on_one_machine_leaves_the_numbers_of_an_unbroken_run(
    machine: int, tmp_path: Path, words: list[str]
) -> None:
    with machines(tmp_path, words) as two:
        started = [two.start(), two.start()]
        at_step(tmp_path / "run", 7, started[0])
        os.kill(ranks_of(started[machine])[0], signal.SIGKILL)
        assert [process.wait(SECONDS) for process in started] == [0, 0], two.said.read_text()
    assert two.said.read_text().count("resumed   after step") == 1
    assert numbers(tmp_path / "run") == numbers(unbroken(tmp_path, words))


def test_a_machine_that_went_away_and_is_started_again_goes_on(tmp_path: Path, words: list[str]) -> None:
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # else torchrun tells a newcomer no address
    with machines(tmp_path, words) as two:
        host = two.start(**own_store)
        place = two.command[two.command.index("--rdzv-endpoint") + 1].split(":")
        while host.poll() is None and not answers(place[0], int(place[1])):
            time.sleep(0.05)
        other = two.start(**own_store)
        at_step(tmp_path / "run", 7, host)
        (rank,) = ranks_of(other)
        other.kill()
        os.kill(rank, signal.SIGKILL)
        other.wait()
        again = two.start(**own_store)
        assert [process.wait(SECONDS) for process in (host, again)] == [0, 0], two.said.read_text()
    assert numbers(tmp_path / "run") == numbers(unbroken(tmp_path, words))


def test_machines_that_see_different_folders_are_told(tmp_path: Path, words: list[str]) -> None:
    places = [tmp_path / "one", tmp_path / "other"]
    for place in places:
        place.mkdir()
    with machines(tmp_path, words, out="run", restarts=0) as two:
        assert 0 not in [process.wait(SECONDS) for process in [two.start(place) for place in places]]
    told = "blockdsl train: rank 1: run is not here: machines of one job need a folder that all of them see"
    assert two.said.read_text().count(told) == 1
