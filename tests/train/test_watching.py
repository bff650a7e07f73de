"""What is told of a run while it goes: speed, the share of the peak, memory; and where else it is logged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xt_blocks.train import RunFolder, peak_flops
from xt_blocks.train.device import memory_in_use

Blockdsl = Callable[..., tuple[int, str, str]]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_line_has_the_speed_and_the_share_of_the_peak(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, out, err = blockdsl("train", *small, "--steps", "5", "--peak", "0.002", "--out", run)
    assert status == 0, err
    steps = [line for line in lines(run) if "loss" in line]
    # The model's products by hand, forwards and twice that backwards, for 3 rows of 19 bytes: q, k, v and out with one
    # head of 64, scores and weighted sums of all pairs, the feedforward 4 times as wide, the logits.
    forward = 2 * 19 * (4 * 14 * 64 + 2 * 14 * 56 + 14 * 256) + 2 * 2 * 64 * 19**2
    graph = RunFolder.open(run).graph()
    assert graph.flops(19) == forward
    for line in steps:
        took = 57 / line["tokens_per_second"]
        assert line["mfu"] == pytest.approx(3 * graph.flops(19, 3) / took / 2e9, rel=0.01)
        assert line["memory"] > 2**20
        assert line["grad_norm"] > 0
    assert "speed     " in out
    assert " of 0.002 TFLOP/s (as told)\n" in out


def test_the_peak_of_this_machine_is_measured() -> None:
    flops, where = peak_flops("cpu", "fp32")
    assert 1e8 < flops < 1e15
    assert where == "measured on a product of matrices"


@pytest.mark.parametrize(
    ("name", "fp32", "bf16"),
    [
        ("NVIDIA H100 80GB HBM3", 67, 989),
        ("NVIDIA H100 PCIe", 51, 756),
        ("NVIDIA A100-SXM4-80GB", 19.5, 312),
        ("NVIDIA L40S", 91.6, 362),
        ("NVIDIA L4", 30.3, 121),
    ],
)
def test_the_peak_of_a_known_gpu_is_that_of_its_makers(
    monkeypatch: pytest.MonkeyPatch, name: str, fp32: float, bf16: float
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops("cuda", "fp32")[0] == fp32 * 1e12
    assert peak_flops("cuda:1", "bf16")[0] == bf16 * 1e12


def test_memory_is_what_the_process_has_held() -> None:
    before = memory_in_use("cpu")
    held = torch.ones(16 * 2**20)
    after = memory_in_use("cpu")
    assert before is not None
    assert after is not None
    assert before <= after < 2**40
    assert after >= held.numel() * 4
    assert memory_in_use("mps") is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--peak", "0"], "--peak must be more than 0, not 0"),
        (["--peak", "nan"], "--peak must be more than 0, not nan"),
        (["--log", "tensorbord"], "--log tensorbord: did you mean 'tensorboard'?"),
        (["--log", "csv"], "--log csv: there are tensorboard and wandb"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    status, out, err = blockdsl("train", *small, *flags, "--out", tmp_path / "run")
    assert (status, out, err) == (1, "", f"blockdsl train: {message}\n")
    assert not (tmp_path / "run").exists()


def test_a_log_whose_package_is_missing_names_the_extra(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xt_blocks.train.logs.find_spec", lambda name: None)
    _, _, err = blockdsl("train", *small, "--log", "tensorboard,wandb", "--out", tmp_path / "run")
    assert err == "blockdsl train: --log tensorboard needs tensorboard: pip install 'xt-blocks[tensorboard]'\n"
