"""The engine of one process: accumulation, precision, compilation, optimisers, and that each can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from blockdsl.errors import UserError
from xt_blocks.train import LocalEngine, TrainSettings, build_model, compile_graph, engine, load_trained
from xt_blocks.train.best import Best

from .killed import killed_at_call

Blockdsl = Callable[..., tuple[int, str, str]]
Records = Callable[[Path], list[dict[str, Any]]]

SETTINGS = TrainSettings(
    pattern="(a>>1 f)*2",
    text=None,
    text_digest="",
    dim=12,
    heads=2,
    seq_len=9,
    batch=7,
    steps=60,
    minutes=None,
    lr=0.01,
    seed=5,
    device="cpu",
    threads=1,
    options={"rotary_pos_emb": True},
)
has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
BATCH = torch.randint(0, 256, (7, 10), generator=torch.Generator().manual_seed(3))


def made(dtype: torch.dtype = torch.float32, **changes: Any) -> LocalEngine:
    settings = replace(SETTINGS, **changes)
    return LocalEngine(build_model(compile_graph(settings), settings.seed).to(dtype), settings)


def weights(made: LocalEngine) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in made.model.named_parameters()}


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_the_gradient_of_parts_is_that_of_the_whole_batch(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_GRADIENT_NORM", 1e9)
    running = made(torch.float64, accumulate=parts)  # 7 rows: parts of unequal size
    running.optimizer = torch.optim.SGD(running.model.parameters(), lr=1.0)
    loss = F.cross_entropy(running.model(BATCH[:, :-1]).flatten(0, 1), BATCH[:, 1:].flatten())
    expected = dict(zip(weights(running), torch.autograd.grad(loss, [*running.model.parameters()]), strict=True))
    before = weights(running)
    result = running.step(BATCH, step=4, rate=1.0)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.norm == pytest.approx(torch.cat([g.flatten() for g in expected.values()]).norm().item(), rel=1e-9)
    for name, after in weights(running).items():
        torch.testing.assert_close(before[name] - after, expected[name], rtol=1e-9, atol=1e-12)


def test_what_experts_add_is_a_mean_over_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [made(pattern="a e(experts=4, top=2)").step(rows, 0, 0.0) for rows in (BATCH[:4], BATCH[4:])]
    both = made(pattern="a e(experts=4, top=2)", accumulate=2).step(BATCH, 0, 0.0)
    assert both.added.keys() == alone[0].added.keys() != set()
    for name, value in both.added.items():
        assert value == pytest.approx((4 * alone[0].added[name] + 3 * alone[1].added[name]) / 7, rel=1e-5)
    assert both.loss == pytest.approx((4 * alone[0].loss + 3 * alone[1].loss) / 7, rel=1e-5)


def test_bf16_computes_in_bfloat16_and_keeps_weights_in_float32() -> None:
    running, plain, seen = made(precision="bf16"), made(), []
    linear = next(module for module in running.model.attn_layers.blocks.modules() if isinstance(module, nn.Linear))
    linear.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    first, other = running.step(BATCH, 0, 0.01), plain.step(BATCH, 0, 0.01)
    evaluated = running.loss(BATCH)
    assert seen == [torch.bfloat16] * 2
    assert {value.dtype for value in weights(running).values()} == {torch.float32}
    assert {value.dtype for own in running.optimizer.state_dict()["state"].values() for value in own.values()} == {
        torch.float32
    }
    assert 0 < abs(first.loss - other.loss) < 0.02
    assert evaluated == pytest.approx(plain.loss(BATCH), abs=0.02)


@pytest.mark.parametrize("checkpoint", [None, "block"])
def test_blocks_are_compiled_once_a_kind_and_compute_the_same(
    checkpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr("xt_blocks.runtime.compiled.BACKEND", counter)
    sizes = {"pattern": "(a>>1 f)*3", "options": {"rotary_pos_emb": True, "checkpoint": checkpoint}}
    running, plain = made(compile=True, **sizes), made(**sizes)
    assert running.model.state_dict().keys() == plain.model.state_dict().keys()
    for step in range(2):
        assert running.step(BATCH, step, 0.01).loss == pytest.approx(plain.step(BATCH, step, 0.01).loss, rel=1e-5)
    assert counter.frame_count == 3  # a feedforward, the attention that makes the mask, and those that find it made
    assert running.loss(BATCH) == pytest.approx(plain.loss(BATCH), rel=1e-5)


@has_muon
def test_muon_has_the_matrices_of_blocks_and_moves_them_alike_in_all_directions() -> None:
    running = made(optimizer="muon")
    muon, adamw = running.optimizer.each  # type: ignore[union-attr]
    assert (type(muon), type(adamw)) == (torch.optim.Muon, torch.optim.AdamW)
    names = {id(p): name for name, p in running.model.named_parameters()}
    own = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert own == {name for name, p in running.model.named_parameters() if ".blocks." in name and p.ndim == 2} != set()
    rest = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert rest == set(names.values()) - own
    before = weights(running)
    running.step(BATCH, 0, 0.01)
    for name, after in weights(running).items():
        if name in own:
            decayed = before[name] * (1 - 0.01 * 0.1)
            scale = 0.01 * 0.2 * max(after.shape) ** 0.5
            values = torch.linalg.svdvals((decayed - after) / scale)
            assert values.median() > 0.6, name  # about 1 each, whatever the gradient's were
            assert values.max() < 1.4, name
        else:
            assert not torch.equal(before[name], after), name


# Runs ---------------------------------------------------------------------------------------------------------------

RUNS = {
    "bf16": ["--precision", "bf16"],
    "accumulate": ["--accumulate", "2"],
    "patience": ["--val-every", "3", "--patience", "50"],
}


@pytest.mark.parametrize(
    "flags", [*RUNS.values(), pytest.param(["--optimizer", "muon"], marks=has_muon)], ids=[*RUNS, "muon"]
)
def test_a_killed_run_goes_on_with_the_same_numbers(
    blockdsl: Blockdsl,
    small: list[str],
    tmp_path: Path,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
) -> None:
    command = ["train", *small, *flags, "--steps", "12", "--out"]
    status, _, err = blockdsl(*command, tmp_path / "whole")
    assert status == 0, err
    killed_at_call(
        monkeypatch, "xt_blocks.train.engine.LocalEngine.step", 8, lambda: blockdsl(*command, tmp_path / "killed")
    )
    assert blockdsl("train", "--resume", tmp_path / "killed", *flags)[0] == 0
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    for name in ("weights.safetensors", "optimizer.pt"):
        first, second = (tmp_path / run / "checkpoints/000012" / name for run in ("whole", "killed"))
        assert first.read_bytes() == second.read_bytes()


def test_checkpointed_blocks_change_no_number(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, records: Records
) -> None:
    for name, flags in {"plain": [], "block": ["--checkpoint", "block"]}.items():
        assert blockdsl("train", *small, *flags, "--steps", "4", "--out", tmp_path / name)[0] == 0
    assert json.loads((tmp_path / "block/settings.json").read_text())["options"]["checkpoint"] == "block"
    assert records(tmp_path / "block") == records(tmp_path / "plain")


def test_a_run_of_an_older_release_goes_on_as_it_was(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, records: Records
) -> None:
    """Its settings and checkpoints say nothing of what has come since."""
    assert blockdsl("train", *small, "--steps", "10", "--out", tmp_path / "run")[0] == 0
    before = records(tmp_path / "run")
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    since = ("precision", "compile", "accumulate", "optimizer", "val_every", "patience")
    old = {name: value for name, value in settings.items() if name not in since}
    (tmp_path / "run/settings.json").write_text(json.dumps(old))
    last, earlier = tmp_path / "run/checkpoints/000010", tmp_path / "run/checkpoints/000008"
    weights = (last / "weights.safetensors").read_bytes()
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    (earlier / "state.json").write_text(json.dumps({"seconds": 1.0, "step": 8}))
    status, _, err = blockdsl("train", "--resume", tmp_path / "run")
    assert status == 0, err
    assert records(tmp_path / "run") == before
    assert (last / "weights.safetensors").read_bytes() == weights


def test_patience_ends_a_run_and_keeps_the_best(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([8.0, 6.0, 5.0, 5.5, 5.0, 7.0, 1.0])  # steps 0, 2, 4, 6, 8, 10; the best at 4
    run, flags = tmp_path / "run", ["--val-every", "2", "--patience", "3"]
    with monkeypatch.context() as scripted:
        scripted.setattr("xt_blocks.train.loop.bits_per_byte", lambda *_: next(values))
        status, out, err = blockdsl("train", *small, *flags, "--out", run)
    assert status == 0, err
    assert "stopped   after step 10: 3 evaluations were no better\n" in out
    assert "held out  8.000 bits per byte before, 5.000 after; " in out
    assert records(run)[-1] == {"step": 10, "val_bits_per_byte": 7.0}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000004", "000008", "000010"]
    best = load_trained(run).state_dict()
    graph = compile_graph(TrainSettings.from_json((run / "settings.json").read_text()))
    for step, same in ((4, True), (10, False)):
        of_step = build_model(graph, 0)
        engine.checkpoint.load(run / f"checkpoints/{step:06d}", of_step)
        assert all(torch.equal(value, best[name]) for name, value in of_step.state_dict().items()) is same
    before = records(run)
    status, out, _ = blockdsl("train", "--resume", run)  # its patience has ended
    assert (status, records(run)) == (0, before)
    assert "stopped   after step 10" in out


def test_best_counts_what_is_no_better() -> None:
    best = Best()
    for step, (value, expected) in enumerate([(3.0, 0), (3.0, 1), (2.5, 0), (2.6, 1), (9.0, 2)]):
        best.see(step, value)
        assert best.since == expected
    assert (best.step, best.value) == (2, 2.5)
    assert Best.from_state(best.to_state()) == best
    assert Best.from_state(None) == Best()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 0}, "--accumulate must be at least 1, not 0"),
        ({"accumulate": 8}, "--accumulate 8 is more than --batch 7, the sequences to divide"),
        ({"val_every": 0}, "--val-every must be at least 1, not 0"),
        ({"patience": -1}, "--patience must be at least 1, not -1"),
        ({"precision": "fp16"}, "--precision fp16: there are fp32 and bf16"),
        ({"optimizer": "sgd"}, "--optimizer sgd: there are adamw and muon"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        replace(SETTINGS, **changes).check()
    assert str(caught.value) == message


def test_muon_is_not_in_every_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(UserError, match=r"^--optimizer muon needs torch 2\.9 or later, and this is torch "):
        replace(SETTINGS, optimizer="muon").check()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--compile"], "--compile true contradicts the resumed run's false"),
        (["--accumulate", "2"], "--accumulate 2 contradicts the resumed run's 1"),
        (["--val-every", "2"], "--val-every 2 contradicts the resumed run's default"),
        (["--checkpoint", "block"], "--checkpoint block contradicts the resumed run's none"),
    ],
)
def test_a_resumed_run_is_computed_as_it_began(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    blockdsl("train", *small, "--steps", "1", "--out", tmp_path / "run")
    _, _, err = blockdsl("train", "--resume", tmp_path / "run", *flags)
    assert err == f"blockdsl train: {message}: leave the flag out, or start a new run\n"


def test_checkpoint_may_be_said_once(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    flags = ["--checkpoint", "block", "--set", "checkpoint=stage"]
    _, _, err = blockdsl("train", *small, *flags, "--out", tmp_path / "run")
    assert err == "blockdsl train: --checkpoint block and --set checkpoint=stage contradict each other\n"
