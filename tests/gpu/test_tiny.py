"""The harness runs whole in small on a CPU, so that it is right when a GPU is there; and it sees what is broken."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ..benchmarks.case import Options
from ..benchmarks.contestants.base import LeftOut
from ..benchmarks.snippet import ROOT
from . import kernels, speed
from .__main__ import main
from .check import FAILED, PASSED, SKIPPED, Check, NotHere
from .isolated import Worker, outcomes
from .precision import held_to
from .table import CHECKS

TINY = Options("cpu", quick=True)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a process of the harness."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.thorough
def test_all_of_it_runs_and_passes_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--device", "cpu", "--out", str(tmp_path)]) == 0, capsys.readouterr().out
    kept = json.loads((tmp_path / "results.json").read_text())
    assert [own["name"] for own in kept["checks"]] == [*CHECKS]
    assert {own["status"] for own in kept["checks"]} == {PASSED}
    assert (tmp_path / "failed.txt").read_text() == ""

    rows = {own["name"]: own["details"]["result"]["rows"] for own in kept["checks"] if own["name"].startswith("speed/")}
    assert len(rows) == len(speed.CASES)
    assert all(len(of) >= 2 and all(min(row["seconds"]) > 0 for row in of) for of in rows.values())
    text = (tmp_path / "README.md").read_text()
    assert f"{len(CHECKS)} passed, 0 failed, 0 skipped" in text
    assert "small sizes, which say nothing of speed" in text
    for name in speed.CASES:
        assert f"| `{name}` " in text


# What is broken is found --------------------------------------------------------------------------------------------


def sees_later(out: Tensor) -> Tensor:
    """A result in which two places are exchanged."""
    return out if out.shape[2] == 1 else torch.cat((out[:, :, 1:2], out[:, :, :1], out[:, :, 2:]), dim=2)


BROKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "too large": lambda out: out * 1.1,
    "exchanged": sees_later,
    "without a gradient by it": lambda out: out.detach() + 0 * out,
    "not finite": lambda out: out / 0,
}


FAULTS = [
    pytest.param(
        fault, dtype, marks=[pytest.mark.thorough] if (place + of_dtype) % 2 else []
    )  # a run tries each in one
    for place, fault in enumerate(BROKEN)
    for of_dtype, dtype in enumerate(("float32", "bfloat16"))
]


@pytest.mark.parametrize(("fault", "dtype"), FAULTS)
def test_a_broken_kernel_is_told(
    fault: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = kernels.KERNELS["sdpa"]
    broken = replace(kernel, run=lambda request: (BROKEN[fault](kernel.run(request)[0]), None))
    monkeypatch.setitem(kernels.KERNELS, "sdpa", broken)
    command = ["--tiny", "--device", "cpu", "--in-process", "--out", str(tmp_path)]
    assert main([f"kernel/sdpa, {dtype}", f"kernel/tiles, {dtype}", *command]) == 1
    (line,) = (tmp_path / "failed.txt").read_text().splitlines()
    assert line.startswith(f"kernel/sdpa, {dtype}: AssertionError: causal: ")
    assert "is off by" in line
    assert f"- {line}\n" in (tmp_path / "README.md").read_text()
    assert "1 passed, 1 failed, 0 skipped" in capsys.readouterr().out
    kept = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert "kernels.py" in next(own["trace"] for own in kept if own["status"] == FAILED)


def test_what_is_allowed_follows_what_plain_code_is_off() -> None:
    exact = {"x": torch.tensor([1.0, -10.0], dtype=torch.float64), "y": torch.zeros(0)}
    plain = {"x": torch.tensor([1.0, -10.01]), "y": torch.zeros(0)}
    near = {"x": torch.tensor([0.975, -10.0]), "y": torch.zeros(0)}  # 2.5 times as far; 3 and half of 3 times pass
    assert held_to(exact, near, plain, torch.float32)["nearest to its limit"] == "x"
    for faulty in (
        {**near, "x": torch.tensor([0.94, -10.0])},
        {**near, "x": torch.tensor([float("nan"), -10.0])},
        {**near, "x": torch.tensor([1.0])},
        {"x": near["x"]},
    ):
        with pytest.raises(AssertionError):
            held_to(exact, faulty, plain, torch.float32)


# Each check is made for itself --------------------------------------------------------------------------------------


def passes(options: Options) -> dict[str, Any]:
    return {"quick": options.quick}


def dies(options: Options) -> None:
    os._exit(3)


def aborts(options: Options) -> None:
    os.abort()


def hangs(options: Options) -> None:
    time.sleep(600)


def is_out_of_memory(options: Options) -> None:
    raise torch.OutOfMemoryError("all of it\nis taken")


def is_not_here(options: Options) -> None:
    raise NotHere("there is none")


def test_checks_that_fail_leave_the_others_alone() -> None:
    checks = [
        Check("x/dies", dies),
        Check("x/aborts", aborts),
        Check("x/hangs", hangs, seconds=2),
        Check("x/memory", is_out_of_memory),
        Check("x/not here", is_not_here),
        Check("x/passes", passes),
        Check("x/hangs till the end", hangs, seconds=1000),
        Check("x/too late", passes),
    ]
    with Worker(TINY) as worker:
        done = {own.name.removeprefix("x/"): own for own in outcomes(checks[:6], worker, time.monotonic() + 300)}
        done |= {own.name.removeprefix("x/"): own for own in outcomes(checks[6:], worker, time.monotonic() + 5)}
    assert {name: own.status for name, own in done.items()} == {
        "dies": FAILED,
        "aborts": FAILED,
        "hangs": FAILED,
        "memory": FAILED,
        "not here": SKIPPED,
        "passes": PASSED,
        "hangs till the end": SKIPPED,
        "too late": SKIPPED,
    }
    assert done["dies"].reason == "the process exited with 3"
    assert done["aborts"].reason == "the process was ended by SIGABRT"
    assert done["hangs"].reason == "stopped after 2 s"
    assert done["memory"].reason.startswith("OutOfMemoryError: all of it is taken (tests/gpu/test_tiny.py:")
    assert done["not here"].reason == "there is none"
    assert done["passes"].details == {"quick": True}
    assert done["hangs till the end"].reason == "stopped: no time was left"
    assert done["too late"].reason == "no time was left"


def test_a_peer_that_fails_is_left_out_and_ours_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> Any:
        raise torch.OutOfMemoryError("too little")

    case = speed.CASES["train/gpt-1024"]
    ours, *others = case.contestants
    peers = replace(case, contestants=case.contestants | dict.fromkeys(others, faulty))
    result = speed.compared(peers, TINY)
    assert [row.contestant for row in result.rows] == [ours]
    assert all(reason.startswith("OutOfMemoryError: too little") for reason in result.left_out.values())
    assert result.left_out.keys() == {*others}
    with pytest.raises(torch.OutOfMemoryError):
        speed.compared(replace(case, contestants=case.contestants | {ours: faulty}), TINY)


# On a device --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", speed.CASES)
def test_contestants_are_built_on_the_device_whole(name: str) -> None:
    case = speed.CASES[name]
    for make in case.contestants.values():
        try:
            net = make(replace(case.setting.quick(), device="meta")).net
        except LeftOut:
            continue
        assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"meta"}


def test_without_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert capsys.readouterr().err == "there is no GPU here; --tiny --device cpu runs all of it in small\n"


def test_the_command_lists_and_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "loss/*", "cache/rotary"]) == 0
    assert capsys.readouterr().out.split() == ["cache/rotary", *(name for name in CHECKS if name.startswith("loss/"))]
    assert main(["lost/*"]) == 2
    assert "no check is named lost/*" in capsys.readouterr().err
