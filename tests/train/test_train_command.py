"""`blockdsl train`, in this process: what it writes, says and refuses, and that its numbers are repeatable."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import blockdsl as language
from xt_blocks.cli import train_flags as command

from .killed import killed_at_call

Blockdsl = Callable[..., tuple[int, str, str]]
Records = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def trained(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> Path:
    status, _, err = blockdsl("train", *small, "--out", tmp_path / "run")
    assert status == 0, err
    return tmp_path / "run"


def test_a_run_folder_is_complete(trained: Path, records: Records, text: Path) -> None:
    assert (trained / "pattern.txt").read_text() == "a>>1 | f\n"
    settings = json.loads((trained / "settings.json").read_text())
    assert (settings["dim"], settings["steps"], settings["text"]) == (14, 40, [str(text)])
    assert settings["options"] == {"ff_dropout": 0.1, "attn_dropout": 0.1}
    assert settings["threads"] == torch.get_num_threads()
    graph = language.BlockGraph.from_json((trained / "graph.json").read_text())
    assert graph.parameters() > 1000
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["000032", "000040"]
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoints", "config.json", "graph.json", "loss.png", "metrics.jsonl", "model.safetensors", "pattern.txt",
        "settings.json",
    ]  # fmt: skip
    found = records(trained)
    steps = [record for record in found if "loss" in record]
    assert [set(record) for record in steps] == [{"step", "loss", "lr", "grad_norm", "tokens"}] * 40
    assert [record["step"] for record in steps] == list(range(1, 41))
    assert [record["tokens"] for record in steps] == [57 * step for step in range(1, 41)]
    evaluations = [record for record in found if "loss" not in record]
    assert [record["step"] for record in evaluations] == [0, 8, 16, 24, 32, 40]
    assert all(set(record) == {"step", "val_bits_per_byte"} for record in evaluations)
    assert evaluations[-1]["val_bits_per_byte"] < evaluations[0]["val_bits_per_byte"]


def test_what_is_said(blockdsl: Blockdsl, small: list[str], tmp_path: Path, records: Records) -> None:
    run = tmp_path / "a run"
    _, out, err = blockdsl("train", *small, "--out", run)
    first, last = (records(run)[i]["val_bits_per_byte"] for i in (0, -1))
    assert out.startswith("pattern   a>>1 | f\n\n          ")
    assert "a>>1   self-attention" in out  # the drawing
    assert re.search(r"model     [\d,]+ parameters, [\d.]+ MFLOPs per byte forward\n", out)
    assert "words.txt: 0.02 MB to train on, 0.00 MB held out" in out
    assert re.search(rf"held out  {first:.3f} bits per byte before, {last:.3f} after; byte unigram entropy 4\.\d", out)
    assert f"step 8/40  validation {records(run)[9]['val_bits_per_byte']:.3f} bits/byte" in err
    assert f"saved     {run}\n" in out
    # The command it ends with works as it stands.
    words = shlex.split(out.splitlines()[-1].removeprefix("more      "))
    assert words[:4] == ["blockdsl", "generate", str(run), "--prompt"]
    status, generated, _ = blockdsl(*words[1:], "--seed", "1")
    assert status == 0
    assert generated.startswith(words[4])


def test_the_same_settings_give_the_same_numbers(
    trained: Path, blockdsl: Blockdsl, small: list[str], tmp_path: Path, records: Records
) -> None:
    blockdsl("train", *small, "--out", tmp_path / "again")
    assert records(tmp_path / "again") == records(trained)
    weights = [run / "checkpoints/000040/weights.safetensors" for run in (trained, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    blockdsl("train", *small, "--out", tmp_path / "other", "--seed", "1")
    assert records(tmp_path / "other")[1] != records(trained)[1]


def test_without_out_runs_are_named_by_the_time(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert blockdsl("train", *small, "--steps", "1")[0] == 0
    names = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch(r"\d{8}-\d{6}(-\d+)?", name) for name in names)


def test_a_patterns_own_settings_count_and_flags_win(blockdsl: Blockdsl, text: Path, tmp_path: Path) -> None:
    pattern = tmp_path / "model.pattern"
    pattern.write_text("# a model\nset dim=28, heads=7, ff_mult=2;\na\nf\n")
    flags = ["--pattern", pattern, "--text", text, "--seq-len", "19", "--batch", "2", "--steps", "1"]
    blockdsl("train", *flags, "--out", tmp_path / "one")
    blockdsl("train", *flags, "--out", tmp_path / "two", "--heads", "2", "--set", "ff_mult=3")
    one, two = (json.loads((tmp_path / name / "settings.json").read_text()) for name in ("one", "two"))
    assert (one["dim"], one["heads"], one["options"]) == (28, 7, {"ff_mult": 2})
    assert (two["dim"], two["heads"], two["options"]) == (28, 2, {"ff_mult": 3})
    assert (tmp_path / "one/pattern.txt").read_text() == "set dim=28, heads=7, ff_mult=2; a f\n"


# Resuming ---------------------------------------------------------------------------------------------------------


POINTS = {
    "before the first step": ("xt_blocks.train.loop.bits_per_byte", 0),
    "in a step": ("xt_blocks.train.engine.LocalEngine.step", 21),
    "in an evaluation": ("xt_blocks.train.loop.bits_per_byte", 3),
    "before a checkpoint": ("xt_blocks.train.checkpoint.save", 2),
    "in the middle of a checkpoint": ("torch.save", 2),
    "before a checkpoint's name": ("xt_blocks.train.checkpoint.os.rename", 2),
    "before the first checkpoint's name": ("xt_blocks.train.checkpoint.os.rename", 0),
    "before the old checkpoints go": ("xt_blocks.train.checkpoint.prune", 2),
    "before the plot": ("xt_blocks.train.plot_losses", 0),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_anywhere_goes_on_with_the_same_numbers(
    trained: Path,
    blockdsl: Blockdsl,
    small: list[str],
    tmp_path: Path,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    function, calls = POINTS[point]
    killed_at_call(monkeypatch, function, calls, lambda: blockdsl("train", *small, "--out", tmp_path / "killed"))
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"step": 22, "lo')
    status, _, err = blockdsl("train", "--resume", tmp_path / "killed")
    assert status == 0, err
    assert records(tmp_path / "killed") == records(trained)
    for name in ("weights.safetensors", "optimizer.pt"):
        first, second = (run / "checkpoints/000040" / name for run in (trained, tmp_path / "killed"))
        assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in (tmp_path / "killed/checkpoints").iterdir()) == ["000032", "000040"]


def test_more_steps_train_longer(trained: Path, blockdsl: Blockdsl, records: Records) -> None:
    before = records(trained)
    status, out, _ = blockdsl("train", "--resume", trained, "--steps", "50")
    assert status == 0
    assert "steps     raised from 40 to 50: from here on the learning rate follows the longer run's curve" in out
    after = records(trained)
    assert after[: len(before)] == before
    assert [record["step"] for record in after[len(before) :]] == [*range(41, 51), 50]
    assert after[len(before)]["lr"] > before[-2]["lr"]
    assert json.loads((trained / "settings.json").read_text())["steps"] == 50
    # And it is repeatable: the next one knows of the new number.
    assert blockdsl("train", "--resume", trained)[0] == 0
    assert records(trained) == after


def test_a_finished_run_resumed_says_its_numbers_again(trained: Path, blockdsl: Blockdsl, records: Records) -> None:
    before = records(trained)
    status, out, _ = blockdsl("train", "--resume", trained)
    assert status == 0
    assert "resumed   after step 40 of 40" in out
    assert "held out  " in out
    assert records(trained) == before


def test_a_resumed_run_computes_as_it_began(trained: Path, blockdsl: Blockdsl) -> None:
    before = torch.get_num_threads()
    settings = json.loads((trained / "settings.json").read_text())
    try:
        for threads, said in ((1, False), (99_999, True)):
            (trained / "settings.json").write_text(json.dumps({**settings, "threads": threads}))
            status, out, _ = blockdsl("train", "--resume", trained)
            assert status == 0
            assert ("numbers may differ in the last digits" in out) is said
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_flags_that_agree_may_be_repeated(trained: Path, blockdsl: Blockdsl, small: list[str]) -> None:
    assert blockdsl("train", *small, "--resume", trained, "--out", trained)[0] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dim", "28"], "--dim 28 contradicts the resumed run's 14"),
        (["--seq-len", "18"], "--seq-len 18 contradicts the resumed run's 19"),
        (["--seed", "1"], "--seed 1 contradicts the resumed run's 0"),
        (["--minutes", "2"], "--minutes 2.0 contradicts the resumed run's default"),
        (["--pattern", "a f"], "--pattern a f contradicts the resumed run's a>>1 | f"),
        (["--set", "ff_dropout=0.2"], "--set ff_dropout 0.2 contradicts the resumed run's 0.1"),
        (["--set", "ff_glu"], "--set ff_glu true contradicts the resumed run's default"),
        (["--device", "cuda"], "--device cuda contradicts the resumed run's cpu"),
    ],
)
def test_a_flag_that_contradicts_the_run_is_refused(
    trained: Path, blockdsl: Blockdsl, flags: list[str], message: str
) -> None:
    status, _, err = blockdsl("train", "--resume", trained, *flags)
    assert status != 0
    assert err == f"blockdsl train: {message}: leave the flag out, or start a new run\n"


def test_a_higher_rate_is_refused(trained: Path, blockdsl: Blockdsl) -> None:
    for rate in ("0.02", "nan"):
        _, _, err = blockdsl("train", "--resume", trained, "--lr", rate)
        assert err == f"blockdsl train: --lr {rate} contradicts the resumed run's 0.01: it can only be lowered\n"


def test_fewer_steps_are_refused(trained: Path, blockdsl: Blockdsl) -> None:
    _, _, err = blockdsl("train", "--resume", trained, "--steps", "39")
    assert err == "blockdsl train: --steps 39 contradicts the resumed run's 40: it can only be raised\n"


def test_a_loss_that_is_not_finite_keeps_a_checkpoint_and_says_how_to_go_on(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    flags = [*small, "--lr", "1e30", "--steps", "3"]
    expected = (
        "blockdsl train: the validation loss is nan at step 1: try a lower --lr than 1e+30\n"
        "  the run keeps its checkpoint of step 0, from before that; go on from it with\n"
        f"  blockdsl train --resume '{run}' --lr 0.003\n"
    )
    status, _, err = blockdsl("train", *flags, "--out", run)
    assert (status, err[err.index("blockdsl train") :]) == (1, expected)
    status, out, err = blockdsl("train", "--resume", run)  # as it was, it goes as it went
    assert (status, err[err.index("blockdsl train") :]) == (1, expected)
    assert "resumed   after step 0 of 3\n" in out
    status, out, err = blockdsl(*shlex.split(expected.splitlines()[-1])[1:])
    assert status == 0, err
    assert "lr        lowered from 1e+30 to 0.003 from here on\n" in out
    assert json.loads((run / "settings.json").read_text())["lr"] == 0.003
    assert blockdsl("generate", run, "--tokens", "3")[0] == 0


def test_a_damaged_checkpoint_gives_way_to_the_one_before(trained: Path, blockdsl: Blockdsl, records: Records) -> None:
    before, weights = records(trained), trained / "checkpoints/000040/weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    status, out, err = blockdsl("train", "--resume", trained)
    assert status == 0
    assert re.search(
        rf"^note: checkpoint {weights.parent} cannot be read: .*; 000032, the one before, is used$", err, re.MULTILINE
    )
    assert "resumed   after step 32 of 40\n" in out
    assert records(trained) == before
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("content", [b"\xff", b"", b"[]", b'{"dim": 14}', b'{"dim": "14"}'])
def test_damaged_settings_are_told(trained: Path, blockdsl: Blockdsl, content: bytes) -> None:
    whole = json.loads((trained / "settings.json").read_text())
    if content == b'{"dim": "14"}':
        content = json.dumps(whole | {"dim": "14"}).encode()
    (trained / "settings.json").write_bytes(content)
    for words in (["train", "--resume", trained], ["generate", trained]):
        status, _, err = blockdsl(*words)
        assert status == 1
        assert err.startswith(f"blockdsl {words[0]}: {trained}")
        assert "settings.json" in err
        assert "codec" not in err
        assert err.count("\n") == 1


def test_a_moved_run_and_a_moved_text_go_on(
    trained: Path, blockdsl: Blockdsl, text: Path, tmp_path: Path, records: Records
) -> None:
    before = records(trained)
    moved, other = tmp_path / "moved", tmp_path / "elsewhere" / "renamed.txt"
    shutil.rmtree(trained / "checkpoints/000040")
    trained.rename(moved)
    other.parent.mkdir()
    text.rename(other)
    _, _, err = blockdsl("train", "--resume", moved)
    assert err == (
        f"blockdsl train: --resume {moved}: the run's text {text} is not there any more; if it was moved, say where it "
        "is with --text\n"
    )
    assert blockdsl("train", "--resume", moved, "--text", other)[0] == 0
    assert records(moved) == before
    assert json.loads((moved / "settings.json").read_text())["text"] == [str(other)]
    assert blockdsl("train", "--resume", moved)[0] == 0  # it is known from now on


def test_an_overlay_of_a_run_whose_text_has_gone_asks_for_one(
    trained: Path, blockdsl: Blockdsl, text: Path, tmp_path: Path
) -> None:
    text.unlink()
    flags = ["draw", trained, "-o", tmp_path / "x.svg", "--overlay", "stream_norm"]
    status, _, err = blockdsl(*flags)
    assert status == 1
    assert err == (
        f"blockdsl draw: the text that {trained} was trained on is not there any more: say what the model is to read\n"
    )
    assert blockdsl(*flags, "--text", "the quick")[0] == 0


@pytest.mark.parametrize(
    "failing", ["xt_blocks.train.plot_losses", "xt_blocks.train.sample", "xt_blocks.train.show_text"]
)
def test_what_comes_after_the_training_does_not_fail_it(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such thing here")

    monkeypatch.setattr(failing, fail)
    status, out, err = blockdsl("train", *small, "--steps", "1", "--out", tmp_path / "run")
    assert status == 0
    assert f"saved     {tmp_path / 'run'}\n" in out
    assert re.search(r"^note: .*: no such thing here$", err, re.MULTILINE)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_does_not_end_a_run(small: list[str], tmp_path: Path, stream: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    other = "stderr" if stream == "stdout" else "stdout"
    command = [sys.executable, "-m", "blockdsl", "train", *small, "--steps", "2", "--out", str(tmp_path / "run")]
    try:
        ran = subprocess.run(command, check=False, **{stream: writing, other: subprocess.PIPE})  # type: ignore[call-overload]
    finally:
        os.close(writing)
    assert ran.returncode == 0
    assert b"Traceback" not in (ran.stdout or b"") + (ran.stderr or b"")
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["000001", "000002"]
    assert (tmp_path / "run/loss.png").exists()


def test_names_that_the_terminal_cannot_show_do_not_end_a_run(small: list[str], text: Path, tmp_path: Path) -> None:
    named = text.with_name("wörter.txt")
    text.rename(named)
    small[small.index(str(text))] = str(named)
    command = [sys.executable, "-m", "blockdsl", "train", *small, "--steps", "1", "--out", str(tmp_path / "rün")]
    ran = subprocess.run(
        command, check=False, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii", "TERM": "dumb"}
    )
    assert (ran.returncode, ran.stdout.isascii()) == (0, True), ran.stderr.decode()
    assert b"text      w?rter.txt" in ran.stdout


def test_a_lost_log_of_numbers_does_not_fail_a_resumed_run(trained: Path, blockdsl: Blockdsl) -> None:
    (trained / "metrics.jsonl").unlink()
    status, out, _ = blockdsl("train", "--resume", trained)
    assert status == 0
    assert "held out  " not in out
    assert f"saved     {trained}\n" in out


def test_heads_have_the_features_that_every_command_says(blockdsl: Blockdsl, text: Path, tmp_path: Path) -> None:
    flags = ["--dim", "32", "--heads", "8"]
    run = tmp_path / "run"
    small = ["--seq-len", "19", "--batch", "2", "--steps", "1", "--text", text]
    status, out, _ = blockdsl("train", "--pattern", "(a f)*2", *flags, *small, "--out", run)
    assert status == 0
    # 2 of 4 matrices of 32 x 512 and of 32 x 128 twice with biases, 3 norms and 2; 256 bytes in and out, 19 positions
    blocks = 2 * (4 * 32 * 512 + 2 * 32 * 128 + 128 + 32) + 5 * 64
    assert blocks + 2 * 256 * 32 + 256 + 19 * 32 == 165_344
    assert "dim 32 · 8 heads of 64 · causal · pre-norm LayerNorm · 4 blocks · 165,344 parameters\n" in out
    model = ["--set", "num_tokens=256,max_seq_len=19,causal"]
    for name in ("show", "stats"):
        assert "165,344" in blockdsl(name, "(a f)*2", *flags, *model)[1]
        assert "165,344" in blockdsl(name, run)[1]


def test_another_text_is_refused(trained: Path, blockdsl: Blockdsl, text: Path) -> None:
    other = text.with_name("other.txt")
    other.write_bytes(text.read_bytes() + b"!")
    _, _, err = blockdsl("train", "--resume", trained, "--text", other)
    assert err == (
        f"blockdsl train: --text {other} is another text than the resumed run's ({text}): "
        "leave the flag out, or start a new run\n"
    )
    text.write_bytes(text.read_bytes()[:-1] + b"!")
    _, _, err = blockdsl("train", "--resume", trained)
    assert err == f"blockdsl train: --resume {trained}: the text (words.txt) has changed since the run began\n"


def test_what_is_no_run_cannot_be_resumed(blockdsl: Blockdsl, tmp_path: Path) -> None:
    _, _, err = blockdsl("train", "--resume", tmp_path / "none")
    assert err == f"blockdsl train: {tmp_path / 'none'}: no such run folder\n"
    _, _, err = blockdsl("train", "--resume", tmp_path)
    assert err == f"blockdsl train: {tmp_path}: is not a run folder (it has no settings.json)\n"
    (tmp_path / "settings.json").write_text("[]")
    _, _, err = blockdsl("train", "--resume", tmp_path)
    assert err == f"blockdsl train: {tmp_path}: settings.json is not a run's settings (not an object)\n"


# Refusing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--heads", "4", "--set", "attn_dim_head=none"], "heads=4 does not divide dim=14, which dim_head=none asks for"),
        (["--dim", "0"], "--dim must be at least 1, not 0"),
        (["--heads", "-1"], "--heads must be at least 1, not -1"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--batch", "0"], "--batch must be at least 1, not 0"),
        (["--seq-len", "0"], "--seq-len must be at least 1, not 0"),
        (["--minutes", "0"], "--minutes must be more than 0, not 0"),
        (["--minutes", "inf"], "--minutes must be more than 0, not inf"),
        (["--lr", "0"], "--lr must be more than 0, not 0"),
        (["--lr", "nan"], "--lr must be more than 0, not nan"),
        (["--batch", "99999999"], "--batch 99999999 of --seq-len 19 is 1,899,999,981 bytes in one step; "
         "at most 16,777,216"),
        (["--device", "toaster"], "--device toaster: no such device; try cpu or cuda"),
        (["--device", "meta"], "--device meta: cannot train there; try cpu or cuda"),
        (["--set", "heads=2", "--heads", "7"], "--heads 7 and --set heads=2 contradict each other"),
        (["--set", "ff_mult=2", "--set", "ff_mult=3"], "--set gives ff_mult twice: 2 and 3"),
        (["--set", "causal=false"], "training a byte-level language model needs causal=true; leave it out"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_before_anything_is_built(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    given = [flag for flag in small if not ("--minutes" in flags and flag in ("--steps", "40"))]
    status, out, err = blockdsl("train", *given, *flags, "--out", tmp_path / "run")
    assert status in (1, 2)
    assert (out, err) == ("", f"blockdsl train: {message}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--pattern", "a g"], ["1:3: ", "'g'", "  a g\n    ^"]),
        (["--pattern", "a c f"], ["1:3: ", "context"]),
        (["--set", "ff_multt=2"], ["ff_multt", "did you mean 'ff_mult'?"]),
        (["--pattern", "a(causal=false)"], ["lets a position see the bytes after it"]),
        (["--steps", "5", "--minutes", "1"], ["not allowed with argument"]),
    ],
)
def test_a_faulty_pattern_or_setting_is_pointed_at(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path, flags: list[str], parts: list[str]
) -> None:
    status, _, err = blockdsl("train", *small, *flags, "--out", tmp_path / "run")
    assert status in (1, 2)
    assert all(part in err for part in parts), err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_model_that_no_memory_holds_is_refused(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    _, _, err = blockdsl("train", *small, "--dim", "14000000", "--out", tmp_path / "run")
    assert re.fullmatch(
        r"blockdsl train: [\d,]+ parameters need [\d,]+ GB to train; this machine has [\d,]+ GB: "
        r"take a smaller --dim or pattern\n",
        err,
    )


def test_unusable_text_is_refused_before_anything_is_built(
    blockdsl: Blockdsl, small: list[str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    status, _, err = blockdsl("train", *small, "--text", empty, tmp_path / "none", "--out", tmp_path / "run")
    assert status in (1, 2)
    assert err == f"blockdsl train: --text {empty}: is empty\n  --text {tmp_path / 'none'}: no such file\n"
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_not_written_to(trained: Path, blockdsl: Blockdsl, small: list[str], text: Path) -> None:
    _, _, err = blockdsl("train", *small, "--out", trained)
    assert err == (
        f"blockdsl train: --out {trained}: the folder is not empty; "
        f"continue it with --resume {trained}, or name another\n"
    )
    _, _, err = blockdsl("train", *small, "--out", trained / "checkpoints")
    assert err == f"blockdsl train: --out {trained / 'checkpoints'}: the folder is not empty; name another\n"
    _, _, err = blockdsl("train", *small, "--out", text)
    assert err == f"blockdsl train: --out {text}: is a file, not a folder\n"


def test_an_empty_folder_is_taken(blockdsl: Blockdsl, small: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert blockdsl("train", *small, "--out", tmp_path / "run")[0] == 0


def test_the_default_pattern_is_canonical() -> None:
    assert str(language.parse(command.PATTERN)) == command.PATTERN
