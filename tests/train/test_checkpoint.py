"""Checkpoints: all or nothing, and the same model when read back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import blockdsl
import xt_blocks
from blockdsl.errors import UserError
from xt_blocks.train import checkpoint
from xt_blocks.train.optimizer import make_optimizer

TOKENS = torch.arange(33).reshape(3, 11) * 7 % 256


def made(seed: int, pattern: str = "(a@x>>1 f)*2 a@x>>1") -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    settings = {"dim": 14, "heads": 2, "attn_dim_head": 7, "causal": True, "num_tokens": 256, "max_seq_len": 11}
    model = xt_blocks.lower(blockdsl.compile(pattern, **settings))
    optimizer = make_optimizer(model, 0.01)
    for _ in range(2):
        update(model, optimizer)
    return model.eval(), optimizer


def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(TOKENS).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("pattern", ["a f", "(a@x>>1 f)*2 a@x>>1", "a & f/2"])
def test_a_model_read_back_gives_the_same_logits_and_the_same_next_update(tmp_path: Path, pattern: str) -> None:
    model, optimizer = made(1, pattern)
    saved = checkpoint.save(tmp_path, 200, model, optimizer, {"seconds": 1.5})
    assert saved == tmp_path / "000200"
    other, other_optimizer = made(2, pattern)
    assert not torch.equal(model(TOKENS), other(TOKENS))
    assert checkpoint.load(saved, other, other_optimizer) == {"seconds": 1.5, "step": 200}
    assert torch.equal(model(TOKENS), other(TOKENS))
    update(model, optimizer)
    update(other, other_optimizer)
    assert torch.equal(model(TOKENS), other(TOKENS))


def test_the_latest_is_the_highest_number_that_is_complete(tmp_path: Path) -> None:
    model, optimizer = made(1)
    assert checkpoint.latest(tmp_path / "none") is None
    for step in (999_999, 1_000_000):
        checkpoint.save(tmp_path, step, model, optimizer, {})
    assert checkpoint.latest(tmp_path) == tmp_path / "1000000"
    (tmp_path / "1000000" / checkpoint.STATE).unlink()
    assert checkpoint.latest(tmp_path) == tmp_path / "999999"
    (tmp_path / "1000007.tmp-1").mkdir()
    (tmp_path / "notes").mkdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "999999"
    # Saving the damaged one again mends it.
    checkpoint.save(tmp_path, 1_000_000, model, optimizer, {})
    assert checkpoint.latest(tmp_path) == tmp_path / "1000000"


def test_older_ones_are_removed_only_when_the_new_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = made(1)
    rename, seen = os.rename, []

    def watched(source: Path, target: Path) -> None:
        seen.append(sorted(path.name for path in tmp_path.iterdir() if ".tmp-" not in path.name))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, model, optimizer, {})
    assert seen == [[], ["000001"], ["000001", "000002"], ["000002", "000003"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004"]


@pytest.mark.parametrize("point", ["torch.save", "os.rename", "os.fsync"])
def test_an_interruption_while_saving_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    model, optimizer = made(1)
    checkpoint.save(tmp_path, 1, model, optimizer, {})
    logits = model(TOKENS)
    update(model, optimizer)

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(point, die)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, model, optimizer, {})
    assert [path.name for path in tmp_path.glob("*.tmp-*")] == [f"000002.tmp-{os.getpid()}"]
    other, other_optimizer = made(2)
    found = checkpoint.latest(tmp_path)
    assert found == tmp_path / "000001"
    checkpoint.load(found, other, other_optimizer)
    assert torch.equal(other(TOKENS), logits)
    # The next one that succeeds clears the rest away.
    checkpoint.save(tmp_path, 3, model, optimizer, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000003"]


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE])
def test_a_damaged_file_is_an_error_with_its_place(tmp_path: Path, file: str) -> None:
    model, optimizer = made(1)
    saved = checkpoint.save(tmp_path, 1, model, optimizer, {})
    (saved / file).write_bytes((saved / file).read_bytes()[:9])
    with pytest.raises(UserError, match=f"^checkpoint {saved} cannot be read: "):
        checkpoint.load(saved, model, optimizer)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, 1, *made(1, "a f"), {})
    with pytest.raises(UserError, match=f"^checkpoint {saved} cannot be read: "):
        checkpoint.load(saved, made(1, "a f a f")[0])
    shutil.rmtree(saved)
