"""The folder of a run that has ended is one that `from_pretrained` reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import xt_blocks
from xt_blocks.runtime import weights
from xt_blocks.train import export, load_trained

from .killed import killed_at_call

Blockdsl = Callable[..., tuple[int, str, str]]


def assert_is_the_last(run: Path) -> None:
    expected, found = load_trained(run), xt_blocks.from_pretrained(run)
    assert found.graph == expected.graph
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.parametrize("pattern", ["(a@x>>1 f)*2 a@x>>1", "set tie_embedding; a e(experts=2, correction_rate=0.1)"])
def test_from_pretrained_reads_a_run(pattern: str, blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert blockdsl("train", *small, "--pattern", pattern, "--steps", "2", "--out", run)[0] == 0
    assert_is_the_last(run)
    assert blockdsl("train", "--resume", run, "--steps", "3")[0] == 0
    assert_is_the_last(run)


def test_the_best_of_a_run_with_patience(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--patience", "1", "--val-every", "1", "--lr", "0.3", "--steps", "30"]
    status, out, _ = blockdsl("train", *small, *words, "--out", run)
    assert (status, "stopped   after step" in out) == (0, True)
    assert_is_the_last(run)


@pytest.mark.parametrize("calls", range(4))
def test_a_kill_while_it_is_exported_is_made_good(
    calls: int, blockdsl: Blockdsl, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "shards", partial(weights.shards, max_shard_bytes=4000))
    run = tmp_path / "run"
    killed_at_call(
        monkeypatch,
        "xt_blocks.train.export.write_file" if calls < 3 else "xt_blocks.train.export.publish",
        calls % 3,
        lambda: blockdsl("train", *small, "--steps", "2", "--out", run),
    )
    assert blockdsl("train", "--resume", run)[0] == 0
    assert_is_the_last(run)
    assert not [*run.glob("*.tmp")]


def test_a_disk_that_is_full_costs_the_export_alone(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_file", full)
        status, out, err = blockdsl("train", *small, "--steps", "2", "--out", tmp_path / "run")
    assert status == 0
    assert "saved     " in out
    told = f"note: {tmp_path / 'run'} has no model.safetensors of the last checkpoint: [Errno 28] No space"
    assert told in err
    assert blockdsl("train", "--resume", tmp_path / "run")[0] == 0
    assert_is_the_last(tmp_path / "run")


def test_a_run_of_tokens_says_which_one_ends_a_text(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps({"text": f"line {i} of many"}) + "\n" for i in range(400)))
    assert blockdsl("tokenize", tmp_path / "lines.jsonl", "--out", tmp_path / "tokens")[0] == 0
    words = [word for word in small if word not in ("--text", str(tmp_path / "words.txt"))]
    assert blockdsl("train", *words, "--data", tmp_path / "tokens", "--steps", "2", "--out", tmp_path / "run")[0] == 0
    end = json.loads((tmp_path / "run/settings.json").read_text())["end"]
    assert (tmp_path / "run/generation_config.json").is_file() == (end is not None)
    assert_is_the_last(tmp_path / "run")
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in ("config.json", "graph.json", "model.safetensors"):
        os.rename(tmp_path / "run" / file, alone / file)
    assert blockdsl("generate", alone, "--prompt", "line", "--tokens", "3", "--seed", "1")[0] == 0


def test_without_its_checkpoints_a_run_still_writes(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert blockdsl("train", *small, "--steps", "2", "--out", run)[0] == 0
    words = ["generate", run, "--prompt", "the", "--tokens", "9", "--temperature", "0"]
    before = blockdsl(*words)
    shutil.rmtree(run / "checkpoints")
    assert blockdsl(*words) == before
