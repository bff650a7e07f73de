"""check, fmt, show and stats: what they print, whole, and what they exit with."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from blockdsl import compile
from xt_blocks.cli import main

from .conftest import Ran, Terminal, process

Run = Callable[..., Ran]


# check -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("a", "ok: 1 block in 1 stage\n"),
        ("f a f | a*6 f*6 | sandwich(6)", "ok: 27 blocks in 3 stages\n"),
        ("(a | f)*2", "ok: 4 blocks in 3 stages\n"),
        ("a*10000", "ok: 10,000 blocks in 1 stage\n"),
        ("(a | f)*5000", "ok: 10,000 blocks in 5,001 stages\n"),
        ("set dim=8; x = a a; x & f", "ok: 3 blocks in 1 stage\n"),
    ],
)
def test_check_says_what_a_pattern_makes(blockdsl: Run, text: str, out: str) -> None:
    assert blockdsl("check", text) == Ran(0, out, "")


def test_check_tells_of_definitions_that_are_not_used(blockdsl: Run) -> None:
    note = "note: 'x' is defined and not used\nnote: 'z' is defined and not used\n"
    assert blockdsl("check", "x = a; y = f; z = y; y") == Ran(0, "ok: 1 block in 1 stage\n", note)


def test_check_says_which_labels_nothing_reads(blockdsl: Run) -> None:
    note = "note: ^u names a place that nothing reads\n"
    assert blockdsl("check", "^u a ^v f <v") == Ran(0, "ok: 2 blocks in 1 stage\n", note)


def test_check_says_whose_output_a_read_by_soft_leaves_out(blockdsl: Run) -> None:
    note = "note: nothing reads the output of f1, a2: a later read by soft takes the stream's place\n"
    assert blockdsl("check", "a ^u f a <u(soft) f") == Ran(0, "ok: 4 blocks in 1 stage\n", note)
    for alike in (
        "a ^u f a <u(soft)/2 f",
        "(a f ^u)*2 <u(all, soft) f",
        "^x a ^k <x(soft) a(kv=k)",
        "a ^u f & <u(soft)",
    ):
        assert not blockdsl("check", alike).err


def test_check_as_json(blockdsl: Run) -> None:
    ran = blockdsl("check", "x = a; f  a | f", "--json")
    assert (ran.status, ran.err) == (0, "")
    notes = ["'x' is defined and not used"]
    assert json.loads(ran.out) == {"ok": True, "pattern": "x = a; f a | f", "blocks": 3, "stages": 2, "notes": notes}


@pytest.mark.parametrize("command", [["check"], ["stats"], ["diff", "a f"]])
def test_a_fault_as_json_says_where(blockdsl: Run, command: list[str]) -> None:
    ran = blockdsl(*command, "a f |\nattn*6", "--json")
    assert (ran.status, ran.err) == (2 if command[0] == "diff" else 1, "")
    fault = json.loads(ran.out)
    assert fault.pop("hint").startswith("did you mean 'a' (self-attention)?")
    assert fault == {"ok": False, "problem": "unknown block 'attn'", "line": 2, "column": 1, "length": 4}


def test_a_fault_outside_of_the_text_as_json(blockdsl: Run) -> None:
    ran = blockdsl("stats", "a f", "--seq-len", "-1", "--json")
    assert (ran.status, ran.err) == (1, "")
    assert json.loads(ran.out) == {"ok": False, "problem": "seq_len must be a whole number of at least 0, not -1"}


def test_check_reads_a_runs_folder_and_a_graph(blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/graph.json").write_text(compile("a f | f", dim=32, heads=4).to_json(), encoding="utf-8")
    Path("run/pattern.txt").write_text("a f | f\n", encoding="utf-8")
    for stored in ("run", "run/", "./run", "run/graph.json"):
        assert blockdsl("check", stored) == Ran(0, "ok: 3 blocks in 2 stages\n", "")
        assert json.loads(blockdsl("check", stored, "--json").out)["pattern"] == "a f | f"
    ran = blockdsl("check", "run", "--dim", 8)
    assert ran == Ran(1, "", "blockdsl check: run is a graph with all its settings; leave --dim out\n")
    for stored in ("run", "./run"):
        ran = blockdsl("fmt", stored)
        said = f"{stored} is a graph or a folder of one, not a pattern; a run's is in its pattern.txt"
        assert ran == Ran(1, "", f"blockdsl fmt: {said}\n")
    Path("run/graph.json").write_text("{}", encoding="utf-8")
    assert blockdsl("check", "run").err.startswith("blockdsl check: run/graph.json: ")


def test_check_finds_what_only_the_stack_shows(blockdsl: Run) -> None:
    error = """\
        1:5: the tie 'x' has different options here than before: heads
          a@x a(heads=2)@x
              ^^^^^^^^^^
          tied blocks are the same kind with the same options
        """
    error = error.replace("              ^^^^^^^^^^\n", "              ^^^^^^^^^^\n")
    assert blockdsl("check", "a@x a(heads=2)@x") == Ran(1, "", dedent(error))


# fmt ---------------------------------------------------------------------------------------------------------------

MESSY = "set heads=2,dim=8; x=(a  f)*2; # twice\n# then\nx|f\n"
TIDY = "set dim=8, heads=2;\nx = (a f)*2;  # twice\n# then\nx | f\n"


def test_fmt_prints_the_canonical_form(blockdsl: Run) -> None:
    assert blockdsl("fmt", "((a  f))*6") == Ran(0, "(a f)*6\n", "")
    assert blockdsl("fmt", stdin=MESSY) == Ran(0, TIDY, "")
    assert blockdsl("fmt", stdin=TIDY) == Ran(0, TIDY, "")


def test_fmt_check_shows_the_difference_and_exits_with_one(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.pattern"
    path.write_text(MESSY, encoding="utf-8")
    difference = f"""\
        --- {path}
        +++ formatted
        @@ -1,3 +1,4 @@
        -set heads=2,dim=8; x=(a  f)*2; # twice
        +set dim=8, heads=2;
        +x = (a f)*2;  # twice
         # then
        -x|f
        +x | f
        """
    assert blockdsl("fmt", "--check", path) == Ran(1, dedent(difference), "")
    assert path.read_text(encoding="utf-8") == MESSY
    assert blockdsl("fmt", "--check", "a  f") == Ran(1, "--- pattern\n+++ formatted\n@@ -1 +1 @@\n-a  f\n+a f\n", "")
    path.write_text(TIDY, encoding="utf-8")
    assert blockdsl("fmt", "--check", path) == Ran(0, "", "")
    assert blockdsl("fmt", "--check", "a f") == Ran(0, "", "")  # an argument ends in no newline
    assert blockdsl("fmt", "--check", stdin="a f\n\n").status == 1


def test_fmt_write_writes_the_file_and_only_where_that_changes_it(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.pattern"
    path.write_text(MESSY, encoding="utf-8")
    assert blockdsl("fmt", "--write", path) == Ran(0, "", "")
    assert path.read_bytes() == TIDY.encode()
    path.chmod(0o444)
    before = path.stat().st_mtime_ns
    assert blockdsl("fmt", "--write", path) == Ran(0, "", "")
    assert path.stat().st_mtime_ns == before


def test_fmt_write_leaves_a_file_with_a_fault_alone(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.pattern"
    path.write_text("a  f |", encoding="utf-8")
    ran = blockdsl("fmt", "--write", path)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"{path}:1:7: a stage is empty\n")
    assert path.read_text(encoding="utf-8") == "a  f |"


def test_fmt_write_needs_a_file_that_can_be_written(
    blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert blockdsl("fmt", "--write", "a") == Ran(2, "", "blockdsl fmt: --write needs a file\n")
    assert blockdsl("fmt", "--write", stdin="a") == Ran(2, "", "blockdsl fmt: --write needs a file\n")
    path = tmp_path / "m.pattern"
    path.write_text("a  f", encoding="utf-8")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)  # file modes do not stop the superuser
    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert blockdsl("fmt", "--write", path) == Ran(1, "", f"blockdsl fmt: cannot write {path}: Permission denied\n")


def test_fmt_takes_check_or_write_and_not_both(blockdsl: Run) -> None:
    ran = blockdsl("fmt", "--check", "--write", "a")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith("blockdsl fmt: error: argument --write: not allowed with argument --check\n")


# show --------------------------------------------------------------------------------------------------------------

PATTERN = "(a & f)*2 | n: c>>1 f/2"
DRAWING = """\
dim 512 · 8 heads of 64 · pre-norm LayerNorm · 6 blocks · 2 stages · 9,452,032 parameters
input · beside a context
│
├─ stage 1
│  (a & f) ×2
│     ╭ branch 1
│     │  a   self-attention · 8 heads × 64
│     ├ branch 2
│     │  f   feedforward · GELU 2,048
│     ╰ sum
│
├─ stage 2: n
│  c>>1      cross-attention · 8 heads × 64 · reads the context
│  f/2       feedforward · GELU 2,048
│
output · LayerNorm
"""
IN_ASCII = DRAWING.translate(str.maketrans("│├─╭╰×·", "|+-/\\x-")).replace("|     + branch", "|     + branch")


def test_show_draws_the_pattern(blockdsl: Run) -> None:
    assert blockdsl("show", PATTERN) == Ran(0, DRAWING, "")


def test_show_draws_with_ascii_characters_when_told(blockdsl: Run) -> None:
    assert IN_ASCII.isascii()
    assert blockdsl("show", "--ascii", PATTERN) == Ran(0, IN_ASCII, "")


def test_show_falls_back_to_ascii_where_the_terminal_has_nothing_else() -> None:
    utf8 = process("show", PATTERN, PYTHONIOENCODING="utf-8")
    assert (utf8.returncode, utf8.stdout.decode("utf-8"), utf8.stderr) == (0, DRAWING, b"")
    ascii_only = process("show", PATTERN, PYTHONIOENCODING="ascii")
    note = b"the terminal's encoding cannot show the drawing's lines; drawn in ASCII\n"
    assert (ascii_only.returncode, ascii_only.stdout.decode("ascii"), ascii_only.stderr) == (0, IN_ASCII, note)


def test_show_colours_blocks_by_kind_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = shown_on_a_terminal(monkeypatch, "show", PATTERN, NO_COLOR="1")
    assert plain == DRAWING
    assert shown_on_a_terminal(monkeypatch, "show", PATTERN, TERM="dumb") == DRAWING
    colored = shown_on_a_terminal(monkeypatch, "show", PATTERN, NO_COLOR="")
    for code, text in (("34", "a   "), ("33", "f   "), ("35", "c>>1      ")):
        assert f"\x1b[{code}m{text}\x1b[0m" in colored
    assert re.sub("\x1b\\[[0-9]+m", "", colored) == DRAWING


class Screen(Terminal):
    """Standard output that is a terminal."""

    encoding = "utf-8"


def shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str, **env: str) -> str:
    """What a command prints when standard output is a terminal."""
    screen = Screen()
    with monkeypatch.context() as patch:
        for name in ("NO_COLOR", "TERM"):
            patch.delenv(name, raising=False)
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", screen)
        main([*arguments])
    return screen.getvalue()


# diff --------------------------------------------------------------------------------------------------------------

DIFFERENCE = """\
1 block alike · 1 changed · 1 added
differ: 792 parameters -> 1.65 k parameters
alike: pre-norm LayerNorm
blocks
  + f(glu)            f2
  ~ a: shift 0 -> 1   a0
costs, at 5 tokens a row
  parameters     792 ->  1,648 (+108.1%)
  FLOPs        7,640 -> 15,320 (+100.5%)
  cache bytes    240
"""


def test_diff_shows_what_differs_and_exits_with_one(blockdsl: Run) -> None:
    # a and f as for stats below; f(glu) has a further map of 8 x 32 with 32 biases, of 2 * 8 * 32 FLOPs a token
    sizes = ["--dim", 8, "--heads", 2, "--set", "attn_dim_head=3", "--seq-len", 5]
    assert 208 + 568 + 16 == 792
    assert 792 + 568 + 288 == 1648
    assert 5 * (504 + 1024) + 5 * 3 * 512 == 15_320
    ran = blockdsl("diff", "a f", "a>>1 f f(glu)", *sizes)
    assert (ran.status, ran.err) == (1, "")
    assert ran.out == DIFFERENCE
    assert blockdsl("diff", "a f", "a(heads=2)  f", *sizes) == Ran(0, "no differences\n", "")


def test_diff_gives_json(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.pattern"
    path.write_text("set dim=8, heads=2; a f", encoding="utf-8")
    ran = blockdsl("diff", path, "-", "--dim", 8, "--heads", 2, "--json", stdin="a f | c")
    assert ran.status == 1
    plain = json.loads(ran.out)
    assert [row["node"] for row in plain["added"]] == ["context", "c2"]
    assert plain["stages"] == [{"before": None, "after": 1, "changes": []}]
    same = blockdsl("diff", path, path, "--json")
    assert (same.status, json.loads(same.out)["equal"]) == (0, True)


def test_diff_tells_a_fault_by_another_status(blockdsl: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.pattern"
    path.write_text("a |", encoding="utf-8")
    ran = blockdsl("diff", "a f", path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"{path}:1:4: a stage is empty\n")
    assert (
        blockdsl("diff", "-", "-").err == "blockdsl diff: only one of the two patterns can come from standard input\n"
    )


def test_diff_writes_what_the_terminal_can_show() -> None:
    ran = process("diff", "a f", "a f f f", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (1, b"")
    assert b"\nblocks\n  + 2 x f   f2, f3\n" in ran.stdout
    assert ran.stdout.startswith(b"2 blocks alike - 2 added\ndiffer: ")


def test_diff_is_in_colour_on_a_terminal_that_wants_it(blockdsl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = blockdsl("diff", "a f", "a c").out
    assert shown_on_a_terminal(monkeypatch, "diff", "a f", "a c", NO_COLOR="1") == plain
    colored = shown_on_a_terminal(monkeypatch, "diff", "a f", "a c")
    assert "\x1b[31m  - f   f1\x1b[0m\n\x1b[32m  + c   c1\x1b[0m\n" in colored
    assert re.sub("\x1b\\[[0-9]+m", "", colored) == plain


# stats -------------------------------------------------------------------------------------------------------------

# By hand, with dim d=8, 2 heads of 3 (i=6 features), rows of n=5 tokens and a context of m=7:
#   a: a norm 2d, q k v 3id, out id                                  16 + 144 + 48          =  208 parameters
#   f: a norm 2d, two maps of 8 x 32, their biases 32 and 8          16 + 256 + 256 + 40    =  568
#   c: as a                                                                                 =  208
#   the last norm                                                                           =   16
#   a: maps 2 * 4id a token, products 2 * 2ni                        384 + 120              =  504 FLOPs a token
#   f: 2 * 2 * 8 * 32                                                                       = 1024
#   c: q and out 2 * 2id a token, k and v 2 * 2id for each of m, products 4mi
#                                                                    192 + 192 * 7/5 + 168  =  628.8
#   a: keys and values 2i numbers of 4 bytes a token                                        =   48 bytes
#   c: the same for each of m                                        48 * 7/5               =   67.2
STATS = ["stats", "(a f)*2 | n: c", "--dim", 8, "--heads", 2, "--set", "attn_dim_head=3", "--seq-len", 5]
STATS += ["--context-len", 7]


def test_stats_prints_a_table_with_a_row_a_stage_and_the_total(blockdsl: Run) -> None:
    table = """\
        stage  blocks  parameters  FLOPs/token  KV bytes/token
        ------------------------------------------------------
        1           4       1,552        3,056              96
        2: n        1         208          629              67
        head        0          16            0               0
        ------------------------------------------------------
        total       5       1,776        3,685             163
        at 5 tokens a row
        """
    assert blockdsl(*STATS) == Ran(0, dedent(table), "")


def test_stats_tells_what_a_token_uses(blockdsl: Run) -> None:
    assert "parameters  active  FLOPs/token" in blockdsl("stats", "a e", "--dim", 8, "--heads", 2).out


def test_stats_gives_the_same_as_json_unrounded(blockdsl: Run) -> None:
    def row(blocks: int, parameters: int, flops: float, kv: float) -> dict[str, float]:
        numbers = {"blocks": blocks, "parameters": parameters, "active_parameters": parameters}
        return numbers | {"flops_per_token": flops, "kv_bytes_per_token": kv}

    ran = blockdsl(*STATS, "--json")
    assert (ran.status, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "pattern": "(a f)*2 | n: c",
        "seq_len": 5,
        "stages": [
            {"stage": "1", **row(4, 2 * (208 + 568), 2 * (504 + 1024), 2 * 48)},
            {"stage": "2: n", **row(1, 208, 628.8, 67.2)},
            {"stage": "head", **row(0, 16, 0, 0)},
        ],
        "total": row(5, 1776, 3684.8, 163.2),
    }


def test_stats_counts_the_cache_in_the_type_it_is_kept_in(blockdsl: Run) -> None:
    def kv(*arguments: str) -> float:
        return json.loads(blockdsl("stats", "a", "--heads", 2, "--json", *arguments).out)["total"]["kv_bytes_per_token"]

    assert kv() == 2 * 2 * 64 * 4
    assert kv("--dtype", "bfloat16") == 2 * 2 * 64 * 2
    ran = blockdsl("stats", "a", "--dtype", "float12")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("blockdsl stats: unknown dtype 'float12'; known: float64, float32, float16, bfloat16, ")


def test_stats_counts_tied_parameters_once_and_their_flops_every_time(blockdsl: Run) -> None:
    def total(text: str) -> dict[str, float]:
        return json.loads(blockdsl("stats", text, "--dim", 8, "--heads", 2, "--json").out)["total"]

    once, twice, tied = total("f"), total("f f"), total("f@x f@x")
    assert tied["parameters"] == once["parameters"] == twice["parameters"] - 568
    assert tied["flops_per_token"] == twice["flops_per_token"] == 2 * 1024
    assert tied["blocks"] == 2


def test_stats_has_rows_for_an_embedding_and_its_logits(blockdsl: Run) -> None:
    ran = blockdsl("stats", "f", "--dim", 8, "--set", "num_tokens=11,max_seq_len=13", "--json")
    rows = {row["stage"]: row["parameters"] for row in json.loads(ran.out)["stages"]}
    assert rows == {"embedding": 11 * 8 + 13 * 8, "1": 568, "head": 2 * 8 + 8 * 11 + 11}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seq-len", -1], "blockdsl stats: seq_len must be a whole number of at least 0, not -1\n"),
        (["--seq-len", "9" * 400], "blockdsl stats: --seq-len and --context-len are at most 1,000,000,000,000\n"),
        (["--context-len", 10**13], "blockdsl stats: --seq-len and --context-len are at most 1,000,000,000,000\n"),
    ],
)
def test_stats_refuses_lengths_that_no_row_has(blockdsl: Run, arguments: list[object], message: str) -> None:
    assert blockdsl("stats", "a f", *arguments) == Ran(1, "", message)


def test_stats_of_no_tokens_and_of_the_most(blockdsl: Run) -> None:
    assert blockdsl("stats", "a f", "--seq-len", 0).status == 0
    total = json.loads(blockdsl("stats", "f", "--dim", 8, "--seq-len", 10**12, "--json").out)["total"]
    assert total["flops_per_token"] == 1024


def test_the_largest_model_that_can_be_written_is_counted(blockdsl: Run) -> None:
    most = 10**18 - 1
    text = f"set dim={most}, heads={most}, attn_dim_head={most}, context; a f(mult={most}) c"
    for command in ("check", "show", "stats"):
        ran = blockdsl(command, text)
        assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("set rotary_pos_emb, rotary_emb_dim=3; a", "rotary positions of 3 features do not fit a head of 64"),
        ("set residual_attn; a a(heads=4)", "residual attention adds the scores of 8 heads to those of 4"),
    ],
)
def test_check_finds_what_only_the_wiring_shows(pattern: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", pattern]) == 1
    assert problem in capsys.readouterr().err


# options -----------------------------------------------------------------------------------------------------------

SPARSE = """\
attn_sparse_topk
  only so many of each query's largest scores count; none: all
  area     attention
  blocks   a (self-attention), c (cross-attention)
  keyword  attn_sparse_topk=8
  pattern  a(sparse_topk=8), or for every block: set attn_sparse_topk=8;
  example  (a(sparse_topk=8) f)*6
  values   a whole number of at least 1 or none
  default  none
  paper    arXiv:1912.11637
"""

DIM = """\
dim
  features of the stream
  area     stack
  keyword  dim=512
  pattern  set dim=512;
  example  set dim=512; (a f)*6
  values   a whole number of at least 1; must be given
"""

PAR = """\
par
  par(n, ratio): attention early and sparse, then feedforwards
  area     ordering
  pattern  par(6, 4)
  example  par(6, 4)
  values   n: the depth, how many attentions; ratio: how many blocks there are for each attention
  paper    arXiv:2009.04534
"""


@pytest.mark.parametrize(
    ("name", "out"), [("attn_sparse_topk", SPARSE), ("sparse_topk", SPARSE), ("dim", DIM), ("par", PAR)]
)
def test_options_tells_all_of_one(blockdsl: Run, name: str, out: str) -> None:
    assert blockdsl("options", name) == Ran(0, out, "")


def test_options_tells_of_each_that_has_the_name(blockdsl: Run) -> None:
    paragraphs = blockdsl("options", "dropout").out.split("\n\n")
    assert [text.partition("\n")[0] for text in paragraphs] == [
        "attn_dropout",
        "ff_dropout",
        "moe_dropout",
    ]


def test_options_knows_other_names_kinds_and_areas(blockdsl: Run) -> None:
    assert blockdsl("options", "rope") == blockdsl("options", "rotary_pos_emb")
    assert [text.partition("\n")[0] for text in blockdsl("options", "swiglu").out.split("\n\n")] == [
        "ff_glu",
        "ff_swish",
    ]
    assert blockdsl("options", "performer") == Ran(
        2, "", "blockdsl options: there is no option 'performer'; there is no attention by random features here\n"
    )
    whole = blockdsl("options").out
    for name in ("positions", "ordering"):
        assert f"{blockdsl('options', name).out.rstrip()}\n" in whole
    of_f = blockdsl("options", "f").out
    assert of_f == blockdsl("options", "feedforward").out
    assert of_f.startswith("feedforward\n  ff_mult ")
    assert "attn_dropout" not in of_f
    assert {entry["keyword"] for entry in json.loads(blockdsl("options", "f", "--json").out)} >= {"ff_glu", "pre_norm"}


def test_options_lists_all_by_area(blockdsl: Run) -> None:
    ran = blockdsl("options")
    assert (ran.status, ran.err) == (0, "")
    areas = [text.partition("\n")[0] for text in ran.out.split("\n\n")]
    assert areas[:7] == ["stack", "two streams", "embedding", "vectors", "images", "attention", "feedforward"]
    lines = ran.out.splitlines()
    assert lines[:2] == ["stack", "  dim            set dim=512;      a whole number of at least 1; must be given"]
    at = next(i for i, line in enumerate(lines) if line.startswith("  attn_kv_heads "))
    words = [word for word in lines[at].split("  ") if word]
    assert [word.strip() for word in words] == [
        "attn_kv_heads",
        "a(kv_heads=2)",
        "a whole number of at least 1 or none; default none",
    ]
    paper = "heads of keys and values, each shared by heads / kv_heads query heads; none: heads (arXiv:2305.13245)"
    assert lines[at + 1].strip() == paper


def test_options_as_json(blockdsl: Run) -> None:
    (entry,) = json.loads(blockdsl("options", "sparse_topk", "--json").out)
    assert entry["keyword"] == "attn_sparse_topk"
    assert entry["kinds"] == ["a", "c"]
    assert entry["papers"] == ["arXiv:1912.11637"]
    assert len(json.loads(blockdsl("options", "--json").out)) > 50


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("attn_sparse_topkk", "did you mean 'attn_sparse_topk'?"),
        ("macron", "did you mean 'macaron'?"),
        ("xyzzy", "`blockdsl options` lists them all"),
    ],
)
def test_options_names_the_nearest_of_an_unknown_name(blockdsl: Run, name: str, error: str) -> None:
    assert blockdsl("options", name) == Ran(2, "", f"blockdsl options: there is no option '{name}'; {error}\n")


def test_diff_draws_both_sides(blockdsl: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = blockdsl("diff", "a f", "a f f", "-o", "x.svg")
    assert ran.status == 1
    assert 'data-node="after.f2"' in Path("x.svg").read_text(encoding="utf-8")
    assert blockdsl("diff", "a f", "a f f", "-o", "x.html", "--seq-len", 7).status == 1
    before, after = compile("a f", dim=512), compile("a f f", dim=512)
    assert Path("x.html").read_text(encoding="utf-8") == before.diff(after, 7).to_html(seq_len=7)
    assert blockdsl("diff", "a f", "a f f", "-o", "x.png").err == "wrote x.png\n"
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--overlay", "stream_norm", "--text", "x"], "needs a trained run's folder"),
        (["--overlay", "stream_norm"], "needs a trained run's folder"),
        (["--overlay", "stream_norm", "--color", "kind", "--text", "x"], "a block has one colour"),
        (["--text", "x"], "--text needs --overlay"),
    ],
)
def test_an_overlay_is_of_a_run_and_a_text(blockdsl: Run, words: list[str], message: str) -> None:
    ran = blockdsl("draw", "a f", "-o", "x.svg", *words)
    assert ran.status == 1
    assert message in ran.err


def test_a_pattern_of_two_streams(blockdsl: Run, tmp_path: Path) -> None:
    text = "(a f)*2 => (a c f)*3"
    assert blockdsl("check", text) == (0, "ok: 13 blocks in 2 stages\n", "")
    told = "note: c attends to a context: give it when calling, or write (a f)*6 => (a c f)*6\n"
    assert blockdsl("check", "(a f)*2 | (a c f)*3") == (0, "ok: 13 blocks in 2 stages\n", told)
    assert blockdsl("check", "set context; a c").err == ""
    assert blockdsl("fmt", "(a  f)*2=>(a c f)*3").out == f"{text}\n"
    assert blockdsl("stats", text, "--set", "enc_ff_mult=2", "--dim", "64").out.count("\nencoder ") == 2
    assert "×3" in blockdsl("show", text, "--set", "enc_dim=32,dec_dim=64").out
    for suffix in ("svg", "html", "dot", "mmd", "txt"):
        assert blockdsl("draw", text, "-o", tmp_path / f"both.{suffix}").status == 0
    out = blockdsl("diff", text, "(a f)*2 f => (a c f)*3").out
    assert out.startswith("encoder\n4 blocks alike · 1 added\n")
    assert "\nblocks\n  + f" in out
    assert repr(compile(text, dim=16)) == f"BlockGraph({text!r}, dim=16, blocks=13)"
    for given, message in (
        ((text, "--causal"), "the pattern takes no --causal: the decoder is causal and the encoder is not; enc_causal"),
        ((text, "--set", "enc_pool=mean"), "the pattern takes no --set enc_pool: encoder and decoder give an output"),
        (("a f", "--set", "enc_heads=2"), "the pattern takes no --set enc_heads: it is of two streams"),
        (("a f", "--set", "tie_token_emb"), "the pattern takes no --set tie_token_emb: it is of two streams"),
    ):
        assert message in blockdsl("stats", *given).err
    assert "a run reads one stream of bytes" in blockdsl("train", "--pattern", text, "--steps", "1").err


# loops -------------------------------------------------------------------------------------------------------------


def test_loops_repeat_tied_units_as_often_as_asked(blockdsl: Run, tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(compile("a (a f)@core*2", dim=16, heads=2).to_json())
    for source in (["a (a f)@core*2", "--dim", "16"], [str(tmp_path)]):
        ran = blockdsl("stats", *source, "--loops", "core=5", "--json")
        assert (ran.status, ran.err) == (0, "")
        found = json.loads(ran.out)
        assert (found["pattern"], found["total"]["blocks"]) == ("a (a f)@core*5", 11)
    fault = "blockdsl show: --loops core: give a tie and how often its unit is repeated, as in --loops core=16\n"
    assert blockdsl("show", "a@core*2", "--loops", "core") == Ran(1, "", fault)
