"""`torchrun` of a run whose ranks are killed within a save, raise, hang or are stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import xt_blocks
from xt_blocks.cli import main
from xt_blocks.train import load_trained

from .processes import ROOT
from .test_train_command import COMMAND, at_step, finished, numbers, torchrun

WRITER = "torch.distributed.checkpoint.filesystem.FileSystemWriter"
KILLS: list[tuple[Any, ...]] = [
    (1, f"{WRITER}.write_data", 2, "kill"),  # before its file is there
    (1, f"{WRITER}.write_data", 2, "kill", "checkpoints/*.tmp-mesh/__0_0.distcp"),  # when the other's is
    (0, f"{WRITER}.finish", 2, "kill"),  # all files but the one that says where the tensors are
    (1, "xt_blocks.train.mesh.nothing", 4, "kill"),  # its part is done
    (0, "xt_blocks.train.mesh.os.rename", 2, "kill"),  # all files
    (0, "xt_blocks.train.checkpoint.prune", 2, "kill"),  # renamed
    (0, "xt_blocks.train.export.write_file", 1, "kill"),  # the last is being exported
]
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="stops processes as Unix does")


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    return str(tmp_path / "text.txt")


def started(strikes: list[tuple[Any, ...]], *words: str, ranks: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """torchrun of `struck.py`."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
    start += ["--monitor-interval", "0.2", str(Path(__file__).with_name("struck.py")), json.dumps(strikes), "train"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *start, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(err: str) -> list[str]:
    """What the command said of faults, without torchrun's own words."""
    return re.findall(r"^(?:blockdsl train: .*|\[rank\d\]: \w*Error: .*)$", err, re.MULTILINE)


@pytest.mark.distributed
@pytest.mark.parametrize("mesh", ["fsdp=2", "pp=2"])
def test_kills_at_any_point_of_a_save_leave_the_numbers_of_an_unbroken_run(
    mesh: str, tmp_path: Path, text: str
) -> None:
    words = [*COMMAND, "--text", text, "--steps", "30", "--mesh", mesh]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    code, _, err = finished(torchrun(2, *words, "--out", str(unbroken)))
    assert code == 0, err
    code, out, err = finished(started(KILLS, *words, "--out", str(broken), restarts=len(KILLS)), 600)
    assert code == 0, err
    assert out.count("resumed   after step") == len(KILLS)
    assert err.count("failed (exitcode: -9)") == len(KILLS)
    assert numbers(broken) == numbers(unbroken)
    assert sorted(path.name for path in (broken / "checkpoints").iterdir()) == ["000027", "000030"]
    assert not [*broken.glob("*.tmp")]
    expected = load_trained(unbroken).state_dict()
    for name, tensor in xt_blocks.from_pretrained(broken).state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.distributed
def test_a_kill_while_the_folder_is_made_begins_it_again(tmp_path: Path, text: str) -> None:
    words = [*COMMAND, "--text", text, "--steps", "2", "--mesh", "dp=2", "--out", str(tmp_path / "run")]
    code, _, err = finished(started([(0, "xt_blocks.train.run_folder.write_whole", 2, "kill")], *words, restarts=1))
    assert code == 0, err
    assert err.count("failed (exitcode: -9)") == 1
    assert numbers(tmp_path / "run")[-1]["step"] == 2


@pytest.mark.distributed
def test_a_rank_that_is_late_reads_the_settings_that_the_others_read(tmp_path: Path, text: str) -> None:
    """The first rank changes them in the run's folder; a late one, which found nothing to change, waited elsewhere."""
    run = tmp_path / "run"
    words = [*COMMAND, "--text", text, "--steps", "2", "--mesh", "dp=2", "--out", str(run)]
    assert finished(torchrun(2, *words))[0] == 0
    late = [(1, "xt_blocks.cli.train._resume", 1, "late")]
    code, _, err = finished(started(late, "--resume", str(run), "--steps", "4", "--mesh", "dp=2", "--timeout", "60"))
    assert code == 0, err
    assert numbers(run)[-1]["step"] == 4


@pytest.mark.distributed
def test_of_a_rank_that_finds_a_fault_by_itself_one_message_tells(tmp_path: Path, text: str) -> None:
    words = [*COMMAND, "--text", text, "--steps", "30", "--mesh", "fsdp=2", "--out", str(tmp_path / "run")]
    code, _, err = finished(started([(1, "xt_blocks.train.mesh.MeshEngine.step", 2, "full")], *words))
    assert code != 0
    assert said(err) == ["blockdsl train: rank 1: [Errno 28] No space left on device"]


@pytest.mark.distributed
def test_of_a_rank_that_raises_the_traceback_is_the_only_one(tmp_path: Path, text: str) -> None:
    words = [*COMMAND, "--text", text, "--steps", "30", "--mesh", "dp=3", "--out", str(tmp_path / "run")]
    process = started([(1, "xt_blocks.train.mesh.MeshEngine.step", 2, "raise")], *words, ranks=3)
    code, _, err = finished(process)
    assert code != 0
    assert said(err) == ["[rank1]: ValueError: what no one foresaw"], err


@pytest.mark.distributed
def test_a_full_disk_stops_all_and_the_run_goes_on_when_there_is_space(tmp_path: Path, text: str) -> None:
    words = [*COMMAND, "--text", text, "--steps", "12", "--mesh", "fsdp=2"]
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    assert finished(torchrun(2, *words, "--out", str(unbroken)))[0] == 0
    code, _, err = finished(started([(1, "torch.save", 60, "full")], *words, "--out", str(run)))
    assert code != 0
    (told,) = said(err)
    assert re.search(r"checkpoint \S+/0000\d\d cannot be written: rank 1: \[Errno 28\] No space left on device$", told)
    code, out, err = finished(torchrun(2, "--resume", str(run), "--mesh", "fsdp=2"))
    assert (code, "resumed   after step" in out) == (0, True), err
    assert numbers(run) == numbers(unbroken)


@pytest.mark.distributed
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_and_says_how_to_go_on(number: int, tmp_path: Path, text: str) -> None:
    words = [*COMMAND, "--text", text, "--steps", "600", "--mesh", "fsdp=2", "--val-every", "600"]
    run = tmp_path / "run"
    process = torchrun(2, *words, "--out", str(run))
    at_step(run, 5, process)
    process.send_signal(number)
    asked = time.monotonic()
    code, _, err = finished(process)
    assert time.monotonic() - asked < 60
    assert code != 0
    last = numbers(run)[-1]["step"]
    assert (run / f"checkpoints/{last:06d}").is_dir()
    again = f"torchrun --nproc-per-node 2 -m blockdsl train --resume {run} --mesh fsdp=2"
    assert err.count(f"stopped after step {last}, saved; continue with\n  {again}\n") == 1
    exported = xt_blocks.from_pretrained(run).state_dict()
    for name, tensor in load_trained(run).state_dict().items():
        assert torch.equal(exported[name], tensor)
    assert main(["train", "--resume", str(run)]) == 0
    assert [record["step"] for record in numbers(run)] == [0, *range(1, 601), 600]
