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


def restored(folder: Path) -> checkpoint.Restored:
    found = checkpoint.restore(folder, *made(2))
    assert found is not None
    return found


def test_the_highest_number_is_read(tmp_path: Path) -> None:
    model, optimizer = made(1)
    assert checkpoint.restore(tmp_path / "none", model, optimizer) is None
    for step in (999_999, 1_000_000):
        checkpoint.save(tmp_path, step, model, optimizer, {})
    (tmp_path / "1000007.tmp-1").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "1000008").touch()
    assert restored(tmp_path) == (tmp_path / "1000000", {"step": 1_000_000}, {})


def garbled(data: bytes) -> bytes:
    """The bytes of a file of the same size that is something else."""
    return bytes(byte ^ 0x5A for byte in data)


def not_a_number(data: bytes) -> bytes:
    """Weights of which the last is NaN."""
    return data[:-4] + b"\xff\xff\xff\x7f"


FILES = (checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE)
DAMAGES = {"empty": lambda data: b"", "cut": lambda data: data[: len(data) // 2], "garbled": garbled, "gone": None}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    model, optimizer = made(1)
    checkpoint.save(tmp_path, 3, model, optimizer, {"seconds": 1.5})
    logits = model(TOKENS)
    update(model, optimizer)
    last = checkpoint.save(tmp_path, 4, model, optimizer, {"seconds": 2.5})
    spoil(last / file, damage)
    other, other_optimizer = made(2)
    found = checkpoint.restore(tmp_path, other, other_optimizer)
    assert found is not None
    assert found[:2] == (tmp_path / "000003", {"seconds": 1.5, "step": 3})
    assert torch.equal(other(TOKENS), logits)
    (note,) = found.notes()
    assert note.startswith(f"checkpoint {last} cannot be read: ")
    assert note.endswith("; 000003, the one before, is used")
    assert "\n" not in note
    # Set aside, it can be written again.
    checkpoint.set_aside(last)
    assert checkpoint.save(tmp_path, 4, model, optimizer, {}) == last
    assert restored(tmp_path).path == last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004", "000004.damaged"]


def spoil(path: Path, damage: str) -> None:
    data, how = path.read_bytes(), DAMAGES[damage]
    path.unlink() if how is None else path.write_bytes(how(data))


def test_weights_that_are_not_finite_are_damaged(tmp_path: Path) -> None:
    for step in (3, 4):
        checkpoint.save(tmp_path, step, *made(1), {})
    weights = tmp_path / "000004" / checkpoint.WEIGHTS
    weights.write_bytes(not_a_number(weights.read_bytes()))
    found = restored(tmp_path)
    assert (found.path.name, [*found.damaged]) == ("000003", [weights.parent])
    assert "its weights are not finite" in found.notes()[0]


def test_where_all_are_damaged_each_is_named(tmp_path: Path) -> None:
    for step in (3, 4):
        spoil(checkpoint.save(tmp_path, step, *made(1), {}) / checkpoint.STATE, "empty")
    with pytest.raises(UserError) as caught:
        restored(tmp_path)
    later, earlier, then = str(caught.value).split("\n  ")
    assert then == "no checkpoint is left: the run has to be started again"
    assert later.startswith(f"checkpoint {tmp_path / '000004'} cannot be read: ")
    assert earlier.startswith(f"checkpoint {tmp_path / '000003'} cannot be read: ")


def test_a_model_alone_needs_no_optimizer(tmp_path: Path) -> None:
    (checkpoint.save(tmp_path, 3, *made(1), {}) / checkpoint.OPTIMIZER).unlink()
    found = checkpoint.restore(tmp_path, made(2)[0])
    assert found is not None
    assert found.damaged == {}


def test_a_disk_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(
        UserError, match=r"^checkpoint .*000003 cannot be written: \[Errno 28\] No space left on device$"
    ):
        checkpoint.save(tmp_path, 3, *made(1), {})


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
    found = checkpoint.restore(tmp_path, other, other_optimizer)
    assert found == (tmp_path / "000001", {"step": 1}, {})
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
