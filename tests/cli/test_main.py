"""The command line as a whole: help, exit statuses, what is loaded, and readers that go away."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blockdsl import compile
from xt_blocks.cli import COMMANDS, parser

from ..built_in import LISTED
from .configurations import LLAMA
from .conftest import Ran, process

Run = Callable[..., Ran]
NAMES = [
    "check",
    "fmt",
    "show",
    "draw",
    "edit",
    "lsp",
    "stats",
    "plan",
    "diff",
    "options",
    "tokenize",
    "train",
    "generate",
    "attention",
    "record",
    "importance",
    "profile",
    "coords",
]
WITH_A_PATTERN = ["check", "fmt", "show", "stats"]


# Help --------------------------------------------------------------------------------------------------------------


def examples(help_text: str) -> list[str]:
    """The command lines below `examples:`, without the remarks after some of them."""
    lines = help_text.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    return [line.strip().split("    ")[0] for line in lines]


def test_help_lists_every_command_and_explains_the_language(blockdsl: Run) -> None:
    ran = blockdsl("--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("usage: blockdsl [-h] [--version] COMMAND ...\n")
    assert len(COMMANDS) == len(NAMES)
    for name in NAMES:
        assert re.search(rf"\n    {name}\s", ran.out)
    for sign in ("x*6", "x>>1", "x/2", "x@name", "a & f", "p | q", "f(glu)", "set dim=512;"):
        assert sign in ran.out
    assert len(examples(ran.out)) >= 4


def test_version(blockdsl: Run) -> None:
    from blockdsl import __version__

    assert blockdsl("--version") == (0, f"blockdsl {__version__}\n", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", __version__)


def test_the_package_runs_as_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "blockdsl", "check", "a f"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ok: 2 blocks in 1 stage\n", "")
    bare = subprocess.run([sys.executable, "-m", "blockdsl", "check", "b"], capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert bare.stderr.startswith("1:1: unknown block 'b'")


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_each_command_says_what_it_does_and_gives_examples(blockdsl: Run, name: str) -> None:
    ran = blockdsl(name, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: blockdsl {name} ")
    assert len(ran.out.split("\n\n")[1].strip()) > 30, "a description"
    assert len(examples(ran.out)) >= 2
    assert all("blockdsl " + name in example for example in examples(ran.out))
    assert all(action.help for action in subparser(name)), "each argument is explained"


def subparser(name: str) -> list[object]:
    (commands,) = (action for action in parser()._actions if action.dest == "command")
    return list(commands.choices[name]._actions)  # type: ignore[index, call-overload]


@pytest.mark.parametrize("name", WITH_A_PATTERN)
def test_the_examples_in_the_help_can_be_typed_as_they_are(
    blockdsl: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pattern").write_text("(a f)*2\n", encoding="utf-8")
    Path("path/to").mkdir(parents=True)
    Path("path/to/config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    Path("runs/1").mkdir(parents=True)
    Path("runs/1/graph.json").write_text(compile("(a f)*2", dim=8).to_json(), encoding="utf-8")
    for example in examples(blockdsl(name, "--help").out):
        piped, _, command = example.rpartition(" | ") if example.startswith("echo ") else ("", "", example)
        program, *arguments = shlex.split(command)
        assert program == "blockdsl"
        ran = blockdsl(*arguments, stdin=shlex.split(piped)[1] if piped else "")
        assert (ran.status, ran.err) == (0, ""), example


def test_the_examples_of_the_whole_show_what_they_promise(
    blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pattern").write_text("(a f)*2\n", encoding="utf-8")
    lines = [shlex.split(line) for line in examples(blockdsl("--help").out)]
    by_command = {command: arguments for _, command, *arguments in lines}
    expected = [
        "check",
        "show",
        "draw",
        "edit",
        "stats",
        "plan",
        "diff",
        "options",
        "train",
        "generate",
        "profile",
        "importance",
    ]
    assert sorted(by_command) == sorted(expected)
    wrong = blockdsl("check", *by_command["check"])
    assert (wrong.status, wrong.out) == (1, "")
    assert "^^^^" in wrong.err
    for name in ("show", "draw", "stats", "plan", "options"):
        assert blockdsl(name, *by_command[name]).status == 0
    assert Path("decoder.svg").read_text(encoding="utf-8").startswith("<svg ")


# Exit statuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["check", "a f"], 0),
        (["fmt", "a f"], 0),
        (["show", "a f"], 0),
        (["stats", "a f"], 0),
        (["diff", "a f", "a  f(mult=4)"], 0),
        (["options"], 0),
        (["options", "macaron"], 0),
        (["options", "nothing_like_it"], 2),
        (["check", "a |"], 1),
        (["fmt", "a |"], 1),
        (["show", "a |"], 1),
        (["stats", "a |"], 1),
        (["draw", "a |", "-o", "x.svg"], 1),
        (["draw", "a f"], 2),
        (["stats", "a", "--dim", "-3"], 1),
        (["diff", "a", "a |"], 2),
        (["diff", "a |", "a"], 2),
        (["diff", "a", "a", "--dim", "-3"], 2),
        (["diff", "a"], 2),
        (["diff", "-", "-"], 2),
        (["diff", "a", "none.pattern"], 2),
        ([], 2),
        (["chekc", "a"], 2),
        (["check", "a", "f"], 2),
        (["check", "--dim", "x", "a"], 2),
        (["check", "--nope", "a"], 2),
    ],
)
def test_the_status_is_0_for_well_1_for_a_fault_and_2_for_wrong_usage(
    blockdsl: Run, arguments: list[str], status: int
) -> None:
    ran = blockdsl(*arguments)
    assert ran.status == status
    assert bool(ran.err) == (status > 0)
    assert bool(ran.out) == (status == 0)
    assert "Traceback" not in ran.err


def test_the_status_is_that_of_the_process() -> None:
    good, bad, wrong = process("check", "a f"), process("check", "a | b"), process("check", "a", "b")
    assert (good.returncode, good.stdout, good.stderr) == (0, b"ok: 2 blocks in 1 stage\n", b"")
    assert (bad.returncode, bad.stdout) == (1, b"")
    assert bad.stderr.decode() == (
        f"1:5: unknown block 'b'\n  a | b\n      ^\n  kinds: {LISTED}; macros: macaron, par, sandwich\n"
    )
    assert (wrong.returncode, wrong.stdout) == (2, b"")


def test_a_package_installs_the_command() -> None:
    ran = process(
        code="from importlib.metadata import entry_points\nprint(entry_points(name='blockdsl')['blockdsl'].value)"
    )
    assert ran.stdout.decode().strip() == "xt_blocks.cli:main"


def test_bare_it_shows_the_help_as_an_error(blockdsl: Run) -> None:
    ran, helped = blockdsl(), blockdsl("--help")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == helped.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --stepz 5", "there is no option --stepz; did you mean --steps?"),
        ("train --ff-mult 2", "there is no option --ff-mult; a setting is given as --set ff_mult=..."),
        (
            "train --rotary_pos_emb",
            "there is no option --rotary_pos_emb; a setting is given as --set rotary_pos_emb=...",
        ),
        ("check a --jsn", "there is no option --jsn; did you mean --json?"),
        ("fmt a --wriet", "there is no option --wriet; did you mean --write?"),
        ("show a --ascci", "there is no option --ascci; did you mean --ascii?"),
        ("draw a --outt=x.svg", "there is no option --outt; did you mean --out?"),
        ("stats a --seqlen 5", "there is no option --seqlen; did you mean --seq-len?"),
        ("diff a f --seqlen 8", "there is no option --seqlen; did you mean --seq-len?"),
        ("options --jso --jsonn", "there is no option --jsonn; did you mean --json?"),
        ("generate r --temprature 1", "there is no option --temprature; did you mean --temperature?"),
        ("attention r --haed 1", "there is no option --haed; did you mean --head?"),
        ("check a -z", "there is no option -z; `blockdsl check --help` lists them"),
        ("--verion", "there is no option --verion; did you mean --version?"),
    ],
)
def test_an_unknown_option_has_the_nearest_named(blockdsl: Run, words: str, said: str) -> None:
    ran = blockdsl(*words.split())
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith(f"error: {said}\n")


def test_an_unknown_command_and_choice_have_the_nearest_named(blockdsl: Run) -> None:
    assert blockdsl("chekc", "a").err.endswith("; did you mean 'check'?\n")
    assert blockdsl("draw", "a", "-o", "x.svg", "--color", "flop").err.endswith("; did you mean 'flops'?\n")


def test_a_pattern_without_quotes_is_understood(blockdsl: Run) -> None:
    ran = blockdsl("check", "a", "f", "a")
    assert ran.err.endswith("unrecognized arguments: f a; a pattern with spaces is one argument, in quotes\n")


@pytest.mark.parametrize(
    "words", [["check", "--", "a"], ["stats", "a", "--di", "8"], ["stats", "a", "--dim=8"], ["check", "-"]]
)
def test_what_argparse_takes_is_taken(blockdsl: Run, words: list[str]) -> None:
    assert blockdsl(*words, stdin="a").status == 0
    assert "must be at least 1" in blockdsl("generate", "r", "--tokens", "-1").err  # a negative number is no option


def completions(line: str) -> list[str]:
    """What a shell offers where Tab is pressed at a line's end, as argcomplete asks a program for it."""
    code = "import os; os.dup2(1, 8); from xt_blocks.cli import main; main()"
    env = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    ran = process(code=code, **env)
    assert (ran.returncode, ran.stderr) == (0, b"")
    return sorted(word.strip() for word in ran.stdout.decode().splitlines())


def test_a_shell_completes_commands_options_and_names() -> None:
    assert completions("blockdsl ") == sorted([*NAMES, "--help", "--version", "-h"])
    assert completions("blockdsl sh") == ["show"]
    assert completions("blockdsl train --se") == ["--seed", "--seq-len", "--set"]
    assert completions("blockdsl draw a --detail ") == ["block", "op"]
    assert completions("blockdsl options rotary_x") == ["rotary_xpos", "rotary_xpos_scale_base"]
    marked = Path(__file__).parents[2] / "xt_blocks" / "cli" / "__init__.py"
    assert marked.read_text(encoding="utf-8").startswith("# PYTHON_ARGCOMPLETE_OK\n")


def test_without_argcomplete_a_command_is_run(monkeypatch: pytest.MonkeyPatch, blockdsl: Run) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert blockdsl("check", "a").status == 0


# What is loaded ----------------------------------------------------------------------------------------------------

HEAVY = ("torch", "networkx", "numpy", "matplotlib", "tqdm", "safetensors", "lark")


def loaded(code: str) -> list[str]:
    """Which of the heavy packages a fresh interpreter has loaded after running this code."""
    ran = process(
        code=f"{code}\nimport json, sys\nprint()\nprint(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return json.loads(ran.stdout.decode().splitlines()[-1])


def command(*arguments: str) -> str:
    return f"from xt_blocks.cli import main\ntry: main({list(arguments)!r})\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    "code",
    [
        "import blockdsl",
        "import blockdsl; blockdsl.parse('a f'); blockdsl.format_text('a f'); blockdsl.Pattern.from_layers(['a'])",
        command("check", "a f"),
        command("check", "a | b"),
        command("fmt", "a f"),
        command("options"),
        command("options", "dropout", "--json"),
        command("--help"),
        *(command(name, "--help") for name in NAMES),
    ],
)
def test_the_language_and_its_commands_load_neither_torch_nor_networkx(code: str) -> None:
    assert set(loaded(code)) <= {"lark"}


@pytest.mark.parametrize("arguments", [["show", "a f"], ["stats", "a f"], ["diff", "a", "f"]])
def test_a_graph_is_drawn_and_counted_without_torch(arguments: list[str]) -> None:
    found = loaded(command(*arguments))
    assert "torch" not in found
    assert "networkx" in found


@pytest.mark.parametrize("name", ["show", "stats"])
def test_a_command_run_in_a_program_leaves_the_package_as_it_was(name: str) -> None:
    # The function `compile` has the name of the module it stands in, which an import can put in its place.
    ran = process(code=f"{command(name, 'a')}\nimport blockdsl\nprint(blockdsl.compile('a f', dim=8).dim)")
    assert (ran.stdout.decode().splitlines()[-1], ran.stderr) == ("8", b"")


def test_the_check_of_what_is_loaded_can_fail() -> None:
    assert "torch" in loaded("import torch")
    assert "torch" in loaded("import blockdsl; from xt_blocks import lower")
    assert "networkx" in loaded("import blockdsl; blockdsl.compile('a', dim=8)")
    assert loaded("pass") == []


# Output that cannot be written -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["check", "a f"], ["fmt", "a f"], ["show", "a f"], ["stats", "a f"], ["--help"], ["fmt", "a " * 9000]],
    ids=lambda arguments: " ".join(arguments)[:20],
)
def test_a_reader_that_has_gone_is_no_fault(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = process(*arguments, stdout=writing)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_difference_is_told_to_a_reader_that_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = process("diff", "a f", "a f f", stdout=writing)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, b"")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("command", ["check", "show"])
def test_a_closed_output_is_no_fault(command: str, stream: str) -> None:
    code = f"import sys; sys.{stream} = None; from xt_blocks.cli import main; sys.exit(main())"
    ran = process(command, "a f", code=code)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_stream_that_the_shell_closes_is_no_fault(stream: str, tmp_path: Path) -> None:
    number = ("stdin", "stdout", "stderr").index(stream)
    command = [sys.executable, "-m", "blockdsl", "draw", "a f", "-o", str(tmp_path / "x.svg")]
    ran = subprocess.run(
        command, capture_output=True, check=False, preexec_fn=lambda: os.close(number), env={**os.environ}
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert (tmp_path / "x.svg").exists()


def test_without_standard_input_a_pattern_is_asked_for() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "blockdsl", "check"], capture_output=True, check=False, preexec_fn=lambda: os.close(0)
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"blockdsl check: give a pattern, as in ")


@pytest.mark.parametrize("arguments", [["options"], ["stats", "a f"], ["show", "a f"], ["diff", "a f", "a f f f f"]])
@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "C", "TERM": "dumb"}])
def test_a_terminal_that_has_only_ascii_is_written_to_in_ascii(arguments: list[str], env: dict[str, str]) -> None:
    ran = process(*arguments, PYTHONCOERCECLOCALE="0", **env)
    assert ran.returncode == (arguments[0] == "diff")
    assert ran.stdout.isascii()
    assert b"?" not in ran.stdout
    assert b"Traceback" not in ran.stderr


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "read only"
    path.touch()
    with path.open("rb") as stdout:  # a file that was opened for reading
        ran = process("check", "a f", stdout=stdout)
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"blockdsl check: [Errno ")
    assert ran.stderr.count(b"\n") == 1


def test_a_comment_that_the_terminal_cannot_show_is_told() -> None:
    ran = process("fmt", "a # ü", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr == b"blockdsl fmt: the output's encoding, ascii, has no '\\xfc'\n"
    fault = process("check", "a ü", PYTHONIOENCODING="ascii")
    assert fault.stderr.startswith(b"1:3: the character '\\xfc' has no meaning here\n  a \\xfc\n    ^\n")


def test_an_argument_that_is_no_text_is_told() -> None:
    ran = process(code="import sys\nfrom xt_blocks.cli import main\nsys.exit(main(['check', 'a \\udcff']))")
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"1:3: the character '\\udcff' has no meaning here\n")
