"""Where a pattern comes from, how it goes wrong there, and the settings beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from blockdsl import compile

from ..built_in import LISTED
from .conftest import Ran, Terminal, process

Run = Callable[..., Ran]


def test_a_pattern_is_given_as_an_argument_in_a_file_or_on_standard_input(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.pattern"
    path.write_text("(a f)*3  # six blocks\n", encoding="utf-8")
    expected = Ran(0, "ok: 6 blocks in 1 stage\n", "")
    assert blockdsl("check", "(a f)*3") == expected
    assert blockdsl("check", path) == expected
    assert blockdsl("check", "-", stdin="(a f)*3\n") == expected
    assert blockdsl("check", stdin="(a f)*3\n") == expected


def test_the_same_holds_for_processes_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "ü.pattern"
    path.write_bytes("\ufeffa f # ü\r\n".encode())  # as an editor on Windows writes it
    for ran in (process("check", path), process("check", stdin=path.read_bytes()), process("check", "a f # ü")):
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"ok: 2 blocks in 1 stage\n", b"")


def test_a_fault_in_a_file_names_the_file(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.pattern"
    path.write_text("set dim=8;\nf a f | attn*6\n", encoding="utf-8")
    shown = f"""\
        2:9: unknown block 'attn'
          f a f | attn*6
                  ^^^^
          did you mean 'a' (self-attention)?
          kinds: {LISTED}; macros: macaron, par, sandwich
        """
    for command in ("check", "fmt", "show", "stats"):
        assert blockdsl(command, path) == Ran(1, "", f"{path}:{dedent(shown)}")
        assert blockdsl(command, stdin=path.read_text(encoding="utf-8")) == Ran(1, "", dedent(shown))


def test_a_fault_that_the_stack_shows_names_the_file_too(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.pattern"
    path.write_text("a f\n  c\n", encoding="utf-8")
    ran = blockdsl("check", path, "--set", "context=false")
    assert ran.err.startswith(f"{path}:2:3: 'c' (cross-attention) without a context to attend to\n  ")
    assert (ran.status, ran.out) == (1, "")


def test_a_name_with_a_dot_or_a_slash_is_a_file_where_there_is_one(
    blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").mkdir()
    for name in ("a", "f/2", "x.pattern"):
        (tmp_path / name).write_text("c c c\n", encoding="utf-8")
    assert blockdsl("check", "a").out == "ok: 1 block in 1 stage\n"  # a text even beside a file called a
    assert blockdsl("check", "f").out == "ok: 1 block in 1 stage\n"
    assert blockdsl("check", "./a").out == "ok: 3 blocks in 1 stage\n"
    assert blockdsl("check", "f/2").out == "ok: 3 blocks in 1 stage\n"
    assert blockdsl("check", "f/3").out == "ok: 1 block in 1 stage\n"
    assert blockdsl("check", "x.pattern").out == "ok: 3 blocks in 1 stage\n"


@pytest.mark.parametrize("name", ["model.pattern", "runs/1/model.txt", "./no.such", "/nowhere/x.pattern"])
def test_a_file_that_is_not_there_is_not_taken_for_a_pattern(blockdsl: Run, name: str) -> None:
    assert blockdsl("check", name) == Ran(1, "", f"blockdsl check: there is no file {name}\n")


@pytest.mark.parametrize("name", ["runs/1", "runs/none", "./nosuch", "../runs/1", "~/runs/first", "/nowhere/1"])
def test_a_run_that_is_not_there_is_not_taken_for_a_scale(blockdsl: Run, name: str) -> None:
    assert blockdsl("check", name) == Ran(1, "", f"blockdsl check: there is no file or folder {name}\n")
    assert blockdsl("check", "mamba/2", "--causal").out == "ok: 1 block in 1 stage\n"
    assert "as in f/2" in blockdsl("check", "f/x").err


@pytest.mark.parametrize("name", ["model.pattern", "v1.2", "x.json", "inner/folder"])
@pytest.mark.parametrize(
    "command",
    [
        *(("check",), ("fmt",), ("show",), ("stats",), ("draw", "-o", "-"), ("diff", "a"), ("diff", "PLACE", "a")),
        *(("plan", "--mesh", "fsdp=2"), ("profile",), ("edit", "--no-browser", "--port", "0")),
        ("train", "--steps", "1", "--out", "nowhere", "--pattern"),
    ],
    ids=" ".join,
)
def test_a_folder_is_not_taken_for_a_pattern(
    blockdsl: Run, name: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    words = [name if word == "PLACE" else word for word in command]
    ran = blockdsl(*words, *([] if "PLACE" in command else [name]))
    assert (ran.status, ran.out) == (2 if command[0] == "diff" else 1, "")
    assert f"{name} is a folder without a graph.json or a config.json" in ran.err


@pytest.mark.parametrize("text", ["f/2.5", "f/.5", "f/2.e0", "f(mult=.5)", "a f # see model.pattern"])
def test_a_pattern_with_a_dot_is_not_taken_for_a_file(blockdsl: Run, text: str) -> None:
    assert blockdsl("check", text).status == 0


@pytest.mark.parametrize("command", ["check", "fmt", "show", "stats"])
def test_what_is_no_text_is_said_to_be_none(command: str, blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\xff\xfe\x00a f")
    assert blockdsl(command, path) == Ran(1, "", f"blockdsl {command}: {path} is not text in UTF-8\n")


@pytest.mark.parametrize("utf8", ["0", "1"])
def test_what_is_no_text_on_standard_input_is_said_to_be_none(utf8: str) -> None:
    ran = process("check", stdin=b"a \xff f", PYTHONUTF8=utf8)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr == b"blockdsl check: standard input is not text in UTF-8\n"


def test_a_file_that_cannot_be_read_is_named(blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pattern"
    path.write_text("a", encoding="utf-8")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)  # file modes do not stop the superuser
    assert blockdsl("check", path) == Ran(1, "", f"blockdsl check: cannot read {path}: Permission denied\n")


def test_without_a_pattern_at_a_terminal_one_is_asked_for(blockdsl: Run) -> None:
    message = 'blockdsl check: give a pattern, as in "f a f | a*6 f*6", a file, or text on standard input\n'
    assert blockdsl("check", stdin=Terminal()) == Ran(1, "", message)


def test_nothing_on_standard_input_is_an_empty_pattern(blockdsl: Run) -> None:
    message = "1:1: the pattern is empty\n  \n  ^\n  write blocks in their order, as in (a f)*6\n"
    assert blockdsl("check", stdin="") == Ran(1, "", message)


# Settings ----------------------------------------------------------------------------------------------------------


def stats(ran: Ran) -> int:
    assert (ran.status, ran.err) == (0, "")
    return json.loads(ran.out)["total"]["parameters"]


def test_the_command_line_wins_over_the_text_and_512_is_the_width_where_neither_says(blockdsl: Run) -> None:
    def one_feedforward(dim: int, mult: int = 4) -> int:
        """Two linear maps with biases, the block's norm and the last one."""
        return 2 * dim * dim * mult + dim * mult + dim + 4 * dim

    assert stats(blockdsl("stats", "f", "--json")) == one_feedforward(512)
    assert stats(blockdsl("stats", "set dim=16; f", "--json")) == one_feedforward(16)
    assert stats(blockdsl("stats", "set dim=16; f", "--json", "--dim", 24)) == one_feedforward(24)
    assert stats(blockdsl("stats", "set dim=16; f", "--json", "--set", "dim=24")) == one_feedforward(24)
    assert stats(blockdsl("stats", "f", "--json", "--set", "dim=16", "--dim", 24)) == one_feedforward(24)
    assert stats(blockdsl("stats", "f", "--json", "--dim", 8, "--set", "ff_mult=2,ff_dropout=0.1")) == one_feedforward(
        8, 2
    )
    assert stats(blockdsl("stats", "f", "--json", "--dim", 8, "--set", "ff_mult=2", "--set", "ff_mult=3")) == (
        one_feedforward(8, 3)
    )


def test_heads_and_causal_have_flags_of_their_own(blockdsl: Run) -> None:
    shown = blockdsl("show", "a", "--dim", 8, "--heads", 2, "--causal").out.split("\n")[0]
    # 2 heads of 64: four matrices of 8 x 128, and two norms
    assert (
        shown == f"dim 8 · 2 heads of 64 · causal · pre-norm LayerNorm · 1 block · {4 * 8 * 128 + 2 * 16:,} parameters"
    )
    assert "causal" not in blockdsl("show", "a", "--dim", 8).out.split("\n")[0]
    assert "causal" in blockdsl("show", "set causal; a", "--dim", 8).out.split("\n")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dim", 0], "blockdsl check: dim must be a whole number of at least 1, not 0\n"),
        (["--heads", -1], "blockdsl check: heads must be a whole number of at least 1, not -1\n"),
        (
            ["--set", "ff_multt=2"],
            "blockdsl check: --set: 1:1: unknown setting 'ff_multt'\n  ff_multt=2\n  ^^^^^^^^^^\n  did you mean 'ff_mult'?\n",
        ),
        (
            ["--set", "dim 8"],
            "blockdsl check: --set: 1:5: '8' is not allowed here\n  dim 8\n      ^\n"
            "  settings are separated by ',', as in dim=512, rotary_pos_emb\n",
        ),
        (["--set", ""], "blockdsl check: --set: 1:1: no setting is given\n  \n  ^\n  as in dim=512, rotary_pos_emb\n"),
        (
            ["--set", "rotary_emb_dim=4"],
            "blockdsl check: rotary_emb_dim is set, but it needs rotary_pos_emb\n",
        ),
        (
            ["--set", "ff_swish,ff_relu_squared"],
            "blockdsl check: swish and relu_squared are both set; a feedforward has one activation\n",
        ),
    ],
)
def test_a_wrong_setting_is_told_without_pointing_into_the_pattern(
    blockdsl: Run, arguments: list[object], message: str
) -> None:
    assert blockdsl("check", "a f", *arguments) == Ran(1, "", message)


# Stored graphs -----------------------------------------------------------------------------------------------------


def test_a_stored_graph_stands_where_a_pattern_does(
    blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/graph.json").write_text(compile("a f", dim=32, heads=4).to_json(), encoding="utf-8")
    for stored in ("run", "run/", "run/graph.json"):
        assert blockdsl("show", stored).out.startswith("dim 32 · 4 heads of 64 · pre-norm LayerNorm · 2 blocks")
        assert json.loads(blockdsl("stats", stored, "--json").out)["pattern"] == "a f"
        assert blockdsl("diff", stored, "run") == Ran(0, "no differences\n", "")
        assert blockdsl("diff", "a f f", stored).status == 1
    ran = blockdsl("diff", "run", "a f", "--dim", 32, "--heads", 4)
    assert ran == Ran(2, "", "blockdsl diff: run is a graph with all its settings; leave --dim and --heads out\n")


def test_a_pattern_of_megatron_wherever_a_text_is_read(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "hybrid.txt"
    path.write_text("*-*-|*-*-\n", encoding="utf-8")
    expected = Ran(0, "ok: 8 blocks in 2 stages\n", "")
    assert blockdsl("check", "--from", "megatron", path) == expected
    assert blockdsl("check", "--from=megatron", "*-*-|*-*-") == expected
    assert blockdsl("check", "--from=megatron", stdin="*-*-|*-*-") == expected
    assert blockdsl("fmt", "--from=megatron", path) == Ran(0, "set causal;\n(a f)*2 | (a f)*2\n", "")
    for command in ("show", "stats"):
        assert blockdsl(command, "--from=megatron", path) == blockdsl(command, "--causal", "(a f)*2 | (a f)*2")
    assert blockdsl("diff", "--from=megatron", "*-*-", "*-", "--json").status == 1
    assert blockdsl("draw", "--from=megatron", path, "-o", tmp_path / "x.svg").status == 0
    path.write_text("*-\n*x", encoding="utf-8")
    assert blockdsl("check", "--from=megatron", path).err.startswith(f"{path}:1:3: a pattern of Megatron has no spaces")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "--from=megatron", "zoo:gpt2"), "zoo:gpt2 is no pattern of megatron; leave --from out"),
        (("fmt", "--from=megatron", "--check", "*-"), "leave --check and --write out"),
        (("fmt", "--from=megatron", "--write", "x.txt"), "leave --check and --write out"),
    ],
)
def test_another_language_where_there_is_none(blockdsl: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = blockdsl(*arguments)
    assert message in ran.err
    assert (ran.status, ran.out) == (1, "")


def test_a_stored_graph_is_no_pattern_of_another_language(blockdsl: Run, tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(compile("a f", dim=16).to_json(), encoding="utf-8")
    ran = blockdsl("show", "--from=megatron", tmp_path)
    assert "leave --from out" in ran.err
