"""`blockdsl profile`, `importance` and `record`: tables, JSON and pictures of the same numbers, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blockdsl import Measurement, UserError, compile
from blockdsl.measurements import Measurements
from xt_blocks import measure, record
from xt_blocks.measure.runs import importance_of_run, record_of_run
from xt_blocks.train import LocalEngine, RunFolder, bits_per_byte, load_corpus, load_trained

from ..train.conftest import WORDS

Blockdsl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    from xt_blocks.cli import main

    folder = tmp_path_factory.mktemp("run")
    text = folder / "words.txt"
    text.write_text(" ".join(WORDS * 100), encoding="utf-8")
    flags = [
        "--dim",
        "16",
        "--heads",
        "2",
        "--seq-len",
        "19",
        "--batch",
        "3",
        "--steps",
        "5",
        "--lr",
        "0.01",
        "--set",
        "attn_num_mem_kv=2",
    ]
    assert main(["train", "--pattern", "(a f)*2", *flags, "--text", str(text), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def blockdsl(capfd: pytest.CaptureFixture[str]) -> Blockdsl:
    from xt_blocks.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        return status, *capfd.readouterr()

    return run


def figures(table: str) -> tuple[list[str], dict[str, list[str]]]:
    """The heads of a table's columns, and each node's numbers, as they are written."""
    head, rule, *rows = table.splitlines()
    ends = [found.end() for found in re.finditer(r"\S+( \S+)*", head)]
    names = [found[0] for found in re.finditer(r"\S+( \S+)*", head)]
    read = {}
    for row in rows:
        if row == rule:
            break
        cells = [row[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)]
        read[row.split()[0]] = cells[2:]
    return names, read


def written(value: float | None, m: dict[str, Any], all_values: list[float], digits: int = 3) -> str:
    """A number of the JSON as the table has it, by its own rules."""
    if value is None:
        return "-"
    values = {str(i): each for i, each in enumerate(all_values)}
    return Measurement("", m["unit"], values, digits=digits).figures(value)


def same(table: str, told: dict[str, Any]) -> None:
    """All numbers of JSON are those of a table."""
    names, rows = figures(table)
    assert [name.partition(" (")[0].replace(" ", "_") for name in names[2:]] == [*told["measurements"]]
    assert [*rows] == [row["node"] for row in told["blocks"]]
    for i, (name, m) in enumerate(told["measurements"].items()):
        values = [row[name] for row in told["blocks"] if row[name] is not None]
        digits = 5 if name == "loss" else 3
        for row in told["blocks"]:
            assert rows[row["node"]][i] == written(row[name], m, values, digits)


def test_the_table_has_the_numbers_of_the_json(tmp_path: Path) -> None:
    found = Measurements(
        {"": compile("a f | a", dim=16)},
        {
            "time": Measurement("time", "s", {"a0": 0.0012, "f1": 0.0031, "a2": 0.012, "input": 0.5}),
            "gain": Measurement("gain", "bits", {"a0": -2.0, "f1": 0.1234567}),
        },
        {"whole": 1.5},
        ("the whole is 1.5",),
    )
    told = json.loads(json.dumps(found.as_json()))
    assert told["whole"] == 1.5
    assert told["blocks"][1] == {"node": "a0", "block": "a", "time": 0.0012, "gain": -2.0}
    same(found.to_text(), told)
    lines = found.to_text("gain").splitlines()
    assert next(line for line in lines if line.startswith("a0")).endswith("  " + "·" * 12)
    assert next(line for line in lines if line.startswith("f1")).endswith("0.123  █")
    assert lines[-1] == "the whole is 1.5"
    assert str(found) == found.to_text()
    for show, said in (("time", ">1.2 ms<"), ("gain", ">-2 bits<")):
        file = tmp_path / f"{show}.svg"
        picture = found.to_svg(file, show=show)
        assert said in picture
        assert file.read_text(encoding="utf-8") == f"{picture}\n"
    assert found.to_html(show="time") != found.to_html(show="gain")
    assert found.to_png(show="time") != found.to_png(show="gain")
    assert found.to_pdf(tmp_path / "x.pdf", show="gain")[:4] == b"%PDF"
    with pytest.raises(UserError, match="there is no measurement 'peak'; there are time, gain"):
        found.to_svg(show="peak")
    with pytest.raises(UserError, match=r"x\.png: to_svg writes \.svg files; to_png writes \.png"):
        found.to_svg(tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_profile_prints_a_table_or_json_and_draws(blockdsl: Blockdsl, tmp_path: Path) -> None:
    flags = ["(a f)*2", "--dim", 16, "--seq-len", 8, "--batch", 2, "--repeats", 2, "--warmup", 0]
    status, out, err = blockdsl("profile", *flags)
    assert (status, err) == (0, "")
    assert [*figures(out)[1]] == ["input", "a0", "f1", "a2", "f3", "output"]
    assert re.search(
        r"median of 2 passes · 2 × 8 tokens · fp32 on cpu\n.*forward \+ .*backward\n.*explain \d+\.\d%", out
    )
    status, out, _ = blockdsl("profile", *flags, "--json")
    told = json.loads(out)
    assert (told["batch"], told["seq_len"], told["repeats"], told["device"]) == (2, 8, 2, "cpu")
    assert all(row["time"] == row["forward"] + row["backward"] for row in told["blocks"])
    assert told["whole"]["explained"] > 0
    picture = tmp_path / "x.svg"
    status, out, err = blockdsl("profile", *flags, "-o", picture, "--show", "saved", "--json")
    assert (status, err) == (0, f"wrote {picture}\n")
    row = json.loads(out)["blocks"][1]
    assert f">{row['saved'] / 1e3:.3g} kB<" in picture.read_text(encoding="utf-8")
    folded = tmp_path / "folded.svg"
    assert blockdsl("profile", *flags, "-o", folded, "--no-unfold")[0] == 0
    assert ">×2<" in folded.read_text(encoding="utf-8")


def test_each_flag_of_profile_reaches_what_it_is_of(blockdsl: Blockdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    real = measure.profile
    monkeypatch.setattr(measure, "profile", lambda model, **options: given.update(options) or real(model, **options))
    short = ["a c f", "--dim", 16, "--seq-len", 8, "--batch", 1, "--repeats", 1, "--warmup", 0, "--forward-only"]
    flops = {}
    for length in (4, 12):
        status, out, err = blockdsl(
            "profile", *short, "--context-len", length, "--seed", 5, "--device", "cpu:0", "--json"
        )
        assert (status, err) == (0, "")
        assert (given["context_len"], given["seed"], given["device"]) == (length, 5, "cpu:0")
        flops[length] = {row["node"]: row["flops"] for row in json.loads(out)["blocks"]}
    assert flops[12]["c1"] > flops[4]["c1"]
    assert flops[12]["a0"] == flops[4]["a0"]


def test_profile_of_a_run_is_of_its_model(blockdsl: Blockdsl, run: Path) -> None:
    status, out, err = blockdsl("profile", run, "--repeats", 1, "--warmup", 0, "--forward-only")
    assert (status, err) == (0, "")
    assert "8 × 19 tokens" in out
    assert [name.partition(" ")[0] for name in figures(out)[0][2:]] == ["time", "flops", "rate"]
    assert "backward" not in out


def test_importance_is_the_loss_of_the_evaluation_without_each_block(blockdsl: Blockdsl, run: Path) -> None:
    status, out, err = blockdsl("importance", run)
    assert (status, err) == (0, "")
    told = json.loads(blockdsl("importance", run, "--json")[1])
    same(out, told)
    folder = RunFolder.open(run)
    settings, model = folder.settings, load_trained(run)
    data = load_corpus(settings.text, settings.seq_len)
    assert told["whole"] == pytest.approx(bits_per_byte(LocalEngine(model, settings), data, settings.seq_len))
    with torch.no_grad():
        for weight in model.attn_layers.blocks["f1"].layer.parameters():
            weight.zero_()
    without = bits_per_byte(LocalEngine(model, settings), data, settings.seq_len)
    assert told["blocks"][1]["loss"] == pytest.approx(without, rel=1e-6)
    few = importance_of_run(run, 19)
    assert few["loss"].note == "19 tokens that the run did not train on"


def test_record_is_a_table_of_the_record(blockdsl: Blockdsl, run: Path, tmp_path: Path) -> None:
    text = b"the fox"
    found = record(load_trained(run), torch.tensor([[*text]]))
    assert record_of_run(run, text).facts["records"] == found
    told = json.loads(blockdsl("record", run, "--text", "the fox", "--json")[1])
    assert told["records"] == found
    same(blockdsl("record", run, "--text", "the fox")[1], told)
    for row in told["blocks"]:
        own = found[row["node"]]
        heads = own["attention_entropy"]
        assert (row["stream_norm"], row["branch_norm"]) == (own["stream_norm"], own["branch_norm"])
        assert row["attention_entropy"] == (None if heads is None else pytest.approx(sum(heads) / 2))
    picture = tmp_path / "x.svg"
    assert blockdsl("record", run, "--text", "the fox", "--show", "branch_norm", "-o", picture)[0] == 0
    assert f">{found['f1']['branch_norm']:.3g}<" in picture.read_text(encoding="utf-8")
    other = tmp_path / "y.svg"
    assert blockdsl("draw", run, "--overlay", "branch_norm", "--text", "the fox", "-o", other)[0] == 0
    assert other.read_text(encoding="utf-8") == picture.read_text(encoding="utf-8")


def test_what_is_held_out_is_read_unless_a_text_is_given(run: Path) -> None:
    settings = RunFolder.open(run).settings
    held = load_corpus(settings.text, settings.seq_len).valid[: settings.seq_len]
    assert record_of_run(run, None).facts == record_of_run(run, bytes(held.tolist())).facts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "a f", "--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["profile", "a f", "--batch", "-3"], "--batch must be at least 1, not -3"),
        (["profile", "a f", "--warmup", "-1"], "--warmup must be at least 0, not -1"),
        (["profile", "a f", "--device", "toaster"], "--device toaster: no such device; try cpu or cuda"),
        (["profile", "a f", "--precision", "fp8"], "--precision fp8: there are fp32 and bf16"),
        (
            ["profile", "set max_seq_len=8, num_tokens=9; a f", "--seq-len", "9"],
            "seq_len=9 is more than max_seq_len=8",
        ),
        (["profile", "nothing.json"], "there is no file nothing.json"),
        (["profile", "a q"], "unknown block 'q'"),
        (["profile", "a f", "--show", "speed"], "invalid choice: 'speed'"),
        (["profile", "a f", "--show", "peak"], "--show peak: measured on a GPU alone, as with --device cuda"),
        (["profile", "a f", "--show", "backward", "--forward-only"], "--show backward: --forward-only leaves it out"),
        (["profile", "a f", "--detail", "op"], "--detail is of the picture: say where to with -o"),
        (["profile", "a f", "-o", "x.gif"], "x.gif: a picture's name ends in .svg, .png, .pdf, .html"),
        (["profile", "a f", "-o", "x.html", "--columns", "2"], "--columns: not for .html files"),
        (["profile", "a f", "-o", "-", "--json"], "--json and -o - both write to standard output"),
        (["profile", "a f", "--set", "num_tokens=50257,max_seq_len=9,dim=999999"], "parameters need"),
        (["profile", "a f", "--device", "gpu"], "--device gpu: no such device; did you mean 'cuda'?"),
        (["importance", "nowhere"], "nowhere: no such run folder"),
        (["importance", "."], ".: is not a run folder"),
        (["importance", "a f"], "a f: no such run folder"),
        (["importance", "RUN", "--tokens", "0"], "--tokens must be at least 1, not 0"),
        (["importance", "RUN", "--device", "toaster"], "--device toaster: no such device"),
        (["record", "nowhere"], "nowhere: no such run folder"),
        (["record", "RUN", "--text", ""], "the text is empty: give at least one byte"),
        (["record", "RUN", "--text", "x" * 20], "the text has 20 bytes, and the model reads 19"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    blockdsl: Blockdsl, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--repeats", "1", "--dim", "16"] if arguments[0] == "profile" and "--repeats" not in arguments else []
    small = [] if any("dim=" in word for word in arguments) else small
    status, out, err = blockdsl(*(run if word == "RUN" else word for word in arguments), *small)
    assert status in (1, 2)
    assert message in (err + out)
    assert not [*tmp_path.iterdir()]


def test_a_run_whose_text_has_gone_says_what_to_do(blockdsl: Blockdsl, run: Path) -> None:
    (text,) = RunFolder.open(run).settings.text or ()
    away = Path(text).with_suffix(".away")
    Path(text).rename(away)
    try:
        _, _, err = blockdsl("importance", run)
        assert f"is not there any more: if it was moved, `blockdsl train --resume {run} --text FILE`" in err
        assert "say what the model is to read" in blockdsl("record", run)[2]
    finally:
        away.rename(text)
    Path(text).write_text(Path(text).read_text(encoding="utf-8") + " changed", encoding="utf-8")
    assert "the text has changed" in blockdsl("importance", run, "--tokens", "19")[1]
