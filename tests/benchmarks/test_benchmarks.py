"""The benchmarks run, in small, and count rightly. How long anything takes is not asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import blockdsl

from ..thorough import part_of
from . import against
from .__main__ import main, selected
from .case import Case, Goal, Options, StartCase
from .cases import CASES, DEFAULT, FUSED, HUGGING_FACE, OURS, OURS_PACKED, PLAIN, STATIC
from .compare import compare
from .contestants.ours import Ours
from .contestants.plain import Plain
from .limits import Least, Machine, Rates
from .measure import Spread, interleaved, ratios
from .memory import growth
from .plot import plot
from .report import report, seconds, tables
from .result import Result, Row, met, store, stored
from .setting import Setting
from .snippet import ROOT, Snippet
from .work import attended, drawn, generating_least, training_least, useful_flops, window

QUICK = Options(quick=True)
SMALL = Setting(seq=5, new=6, batch=2).quick()
GLU_ROTARY = {"ff_glu": True, "rotary_pos_emb": True}

MODEL_CASES = {name: case for name, case in CASES.items() if isinstance(case, Case)}
SNIPPETS = {
    f"{case.name}, {name}": snippet
    for case in CASES.values()
    if isinstance(case, StartCase)
    for name, snippet in case.contestants.items()
    if snippet.needs is None
}


@pytest.mark.parametrize("name", part_of(MODEL_CASES, 6))
def test_every_case_of_ours_runs_beside_the_plain_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # that takes long, and is tested elsewhere
    case = CASES[name]
    result = compare(case, QUICK, runs=1, memory=False, contestants=("ours*", PLAIN))
    if not result.rows:
        pytest.skip(result.left_out[OURS])
    expected = [who for who in case.contestants if who.startswith("ours") or who == PLAIN]
    assert [row.contestant for row in result.rows] == [who for who in expected if who not in result.left_out]
    assert all(len(row.seconds) == 1 and row.seconds[0] > 0 for row in result.rows)
    assert all(row.of_limit is not None and row.of_limit.median > 0 for row in result.rows)
    assert f"`{name}`" in tables([result], CASES)


@pytest.mark.parametrize("name", part_of(SNIPPETS, 3))
def test_every_snippet_of_ours_runs(name: str) -> None:
    assert SNIPPETS[name].seconds() > 0


@pytest.mark.parametrize(
    ("module", "name", "contestants"),
    [
        ("x_transformers", "train/plain-256", (FUSED, DEFAULT)),
        ("x_transformers", "option/talking-heads-512", (DEFAULT,)),
        ("x_transformers", "option/t5-512", (DEFAULT,)),
        ("x_transformers", "generate/glu-rotary-1", (DEFAULT,)),
        ("transformers", "train/plain-256", (HUGGING_FACE,)),
        ("transformers", "generate/gpt-1", (HUGGING_FACE,)),
        ("transformers", "generate/glu-rotary-1", (HUGGING_FACE,)),
        ("transformers", "loaded/llama-1", (STATIC, HUGGING_FACE)),
    ],
)
def test_a_peer_runs_where_it_is_installed(module: str, name: str, contestants: tuple[str, ...]) -> None:
    pytest.importorskip(module)
    result = compare(CASES[name], QUICK, runs=1, memory=False, contestants=contestants)
    assert [row.contestant for row in result.rows] == [OURS, *contestants]


@pytest.mark.parametrize("name", ["train/plain-256", "generate/glu-rotary-1", "start/import"])
def test_a_peer_that_is_not_installed_is_left_out_and_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "x_transformers", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    case = CASES[name]
    result = compare(case, QUICK, runs=1, memory=False)
    there = [who for who in case.contestants if who in (OURS, OURS_PACKED, PLAIN)]
    assert [row.contestant for row in result.rows] == there
    assert {*result.left_out} == {*case.contestants} - {*there}
    assert "x-transformers left out: x-transformers is not installed" in tables([result], CASES).replace(", fused", "")


def test_a_case_whose_first_contestant_is_left_out_says_only_that() -> None:
    missing = Snippet("", "", needs="no_such_module")
    case = StartCase("start/x", "a title", {OURS: missing, "other": Snippet("", "")})
    result = compare(case, QUICK, runs=1)
    assert result.rows == []
    assert tables([result], {"start/x": case}) == (
        "- `start/x`: a title; a fresh process each time\n- `start/x`: ours left out: no-such-module is not installed\n"
    )


@pytest.mark.parametrize("glu_rotary", [False, True])
def test_the_plain_code_computes_what_ours_does(glu_rotary: bool) -> None:
    plain, ours = Plain(SMALL, glu_rotary), Ours(SMALL, **(GLU_ROTARY if glu_rotary else {}))
    tokens = drawn(SMALL, SMALL.seq)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        expected = ours.logits(tokens)
    with FlopCounterMode(display=False) as counted_too, torch.no_grad():
        plain.logits(tokens)
    assert counted.get_total_flops() == counted_too.get_total_flops()
    plain.net.load_state_dict(renamed(ours.net.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(plain.logits(tokens), expected)


# How our names start, and the plain code's; a layer of it is two of our blocks.
NAMES = {
    r"token_emb\.": "tokens.",
    r"pos_emb\.embedding\.": "places.",
    r"attn_layers\.norm\.": "norm.",
    r"to_logits\.": "head.",
    r"attn_layers\.blocks\.a(\d+)\.norm\.": "layers.{}.norm1.",
    r"attn_layers\.blocks\.a(\d+)\..*to_qkv\.": "layers.{}.qkv.",
    r"attn_layers\.blocks\.a(\d+)\..*to_out\.": "layers.{}.out.",
    r"attn_layers\.blocks\.f(\d+)\.norm\.": "layers.{}.norm2.",
    r"attn_layers\.blocks\.f(\d+)\..*to_hidden\.": "layers.{}.up.",
    r"attn_layers\.blocks\.f(\d+)\..*to_out\.": "layers.{}.down.",
}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the plain code's names."""
    out = {}
    for name, value in state.items():
        for ours, theirs in NAMES.items():
            if found := re.match(ours, name):
                out[theirs.format(*(int(place) // 2 for place in found.groups())) + name[found.end() :]] = value
    return out


@pytest.mark.parametrize("glu_rotary", [False, True])
def test_the_plain_code_generates_what_whole_passes_give(glu_rotary: bool) -> None:
    torch.manual_seed(0)
    model = Plain(SMALL, glu_rotary)
    model.net.double()
    tokens = drawn(SMALL, SMALL.seq)
    generated = model.generate(tokens, SMALL.new)
    for _ in range(SMALL.new):
        with torch.no_grad():
            tokens = torch.cat((tokens, model.logits(tokens)[:, -1:].argmax(dim=-1)), dim=1)
    assert torch.equal(tokens[:, SMALL.seq :], generated)
    assert len(set(generated.flatten().tolist())) > 1


def test_rounds_go_from_one_to_the_next_and_the_first_is_not_counted() -> None:
    calls: list[str] = []

    def contestant(name: str) -> int:
        calls.append(name)
        return len(calls)

    out = interleaved({name: lambda name=name: contestant(name) for name in "abc"}, runs=2)  # type: ignore[misc]
    assert "".join(calls) == "abcabcabc"
    assert out == {"a": [4, 7], "b": [5, 8], "c": [6, 9]}


def test_quartiles_by_hand() -> None:
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(2, 3, 4)
    assert Spread.of([4, 1, 2, 3]) == Spread(1.75, 2.5, 3.25)
    assert Spread.of([7]) == Spread(7, 7, 7)


def test_ratios_are_taken_within_rounds() -> None:
    # 2, 3 and 1: their median is 2, while that of the medians is 3 / 2
    assert ratios(theirs=[2, 6, 3], ours=[1, 2, 3]) == Spread(1.5, 2, 2.5)


def test_the_limit_is_the_slower_of_product_and_memory() -> None:
    rates = Rates(flops=10, bytes=2)
    assert (Least(40, 6, 6).seconds(rates), Least(40, 6, 6).bound(rates)) == (4, "product")
    assert (Least(20, 6, 6).seconds(rates), Least(20, 6, 6).bound(rates)) == (3, "memory")
    row = Row("x", [8.0, 2.0, 4.0]).with_limit(Least(40, 6, 6), [rates, Rates(20, 100), rates])
    assert row.least == [4, 2, 4]
    assert row.of_limit == Spread(0.75, 1.0, 1.0)
    assert row.bound == "product"


def test_the_machine_has_rates() -> None:
    rates = Machine("cpu", torch.float32, 1000, product=16).rates()
    assert rates.flops > 0
    assert rates.bytes > 0


def test_pairs_that_attend() -> None:
    assert attended(4, float("inf")) == 1 + 2 + 3 + 4
    assert attended(5, 2) == 1 + 2 + 3 + 3 + 3


def test_useful_flops_by_hand() -> None:
    n, dim = 6, 4
    graph = blockdsl.compile("a", dim=dim, heads=1, attn_dim_head=dim, causal=True)
    maps = 2 * n * dim * dim * 4  # queries, keys, values, output
    pair = 2 * dim * 2  # a score, and a value weighed
    assert graph.flops(n) == maps + pair * n * n
    assert useful_flops(graph, n, 1) == maps + pair * 21
    windowed = blockdsl.compile("a(max_attend_past=2)", dim=dim, heads=1, attn_dim_head=dim, causal=True)
    assert window(windowed) == 2
    assert useful_flops(windowed, n, batch=3) == 3 * (maps + pair * (1 + 2 + 4 * 3))


def test_what_training_and_generation_cannot_do_without() -> None:
    graph = blockdsl.compile("f(no_bias, mult=1)", dim=4, causal=True, num_tokens=3, max_seq_len=9)
    block = 2 * 4 * 4 + 8  # two maps and a norm
    head = 8 + (4 + 1) * 3  # the last norm, and the logits
    setting = Setting(seq=2, new=3, batch=5, vocabulary=3)
    flops = 2 * (2 * 4 * 4 + 4 * 3)  # a token
    least = training_least(graph, setting)
    assert (least.flops, least.span) == (3 * 2 * 5 * flops, 4 * (block + head))
    least = generating_least(graph, replace(setting, precision="bfloat16"))
    assert (least.flops, least.bytes, least.span) == (5 * 5 * flops, 3 * 2 * (block + head), 2 * (block + head))
    attention = blockdsl.compile("a", dim=4, heads=1, attn_dim_head=4, causal=True, num_tokens=3, max_seq_len=9)
    least = generating_least(attention, setting)
    assert least.bytes - 3 * least.span == 5 * 4 * (2 * 4) * (2 + 3 + 4)  # the cache of each of three steps


RESULT = Result(
    "train/plain-1024",
    "a title",
    "some sizes",
    [
        Row(OURS, [1.0, 1.0, 2.0], 2000, 1024, [0.5, 0.5, 1.0], "product", 90 * 2**20),
        Row(FUSED, [1.5, 1.25, 3.0], 1990, 1024, [0.5, 0.5, 1.0], "product", 100 * 2**20),
        Row(DEFAULT, [0.2, 0.4, 0.6], 2000, 1024, [0.5, 0.5, 1.0], "product", 200 * 2**20),
    ],
    {HUGGING_FACE: "transformers is not installed"},
    "a machine, 3 rounds",
)

TEXT = """
## Training: forward, loss, backward

| case               | contestant            | parameters | median | tokens/s | ours, times as fast | at least | memory | ours, part of it | at most | of the limit |
| ------------------ | --------------------- | ---------: | -----: | -------: | ------------------: | -------: | -----: | ---------------: | ------: | -----------: |
| `train/plain-1024` | ours                  |      2,000 |    1 s |    1,024 |                     |          |  90 MB |                  |         |        50% p |
|                    | x-transformers, fused |     -0.50% |  1.5 s |      683 | 1.50 (1.38 to 1.50) |     1.02 | 100 MB |             0.90 |    0.90 |        33% p |
|                    | x-transformers        |    as many | 400 ms |    2,560 | 0.30 (0.25 to 0.35) |    1.50! | 200 MB |             0.45 |   0.30! |       167% p |

- `train/plain-1024`: a title; some sizes
- `train/plain-1024`: transformers left out: transformers is not installed
"""


def test_the_report() -> None:
    text = report([RESULT], CASES)
    assert text.endswith("\n- a machine, 3 rounds\n" + TEXT)
    assert text.startswith("# Speed\n")


def test_measured_under_different_conditions() -> None:
    later = replace(RESULT, case="train/plain-4096", conditions="another machine")
    text = report([RESULT, later], CASES)
    assert "\n- a machine, 3 rounds: `train/plain-1024`\n- another machine: `train/plain-4096`\n" in text


def test_a_reason_for_being_left_out_is_told_once() -> None:
    other = replace(RESULT, case="train/plain-256")
    assert tables([RESULT, other], CASES).count("transformers is not installed") == 1


def test_times_have_three_digits() -> None:
    assert [seconds(value) for value in (12.345, 1.0, 0.9876, 0.00123456)] == ["12.3 s", "1 s", "988 ms", "1.23 ms"]


def test_a_figure_is_reached_or_not() -> None:
    goal = Goal(faster=1.5, memory=0.5)
    assert met(goal, Spread(1, 1.5, 2), 0.5) == (True, True)
    assert met(goal, Spread(1, 1.49, 2), 0.51) == (False, False)
    assert met(goal, None, None) == (None, None)
    assert met(Goal(), Spread(1, 1, 1), 0.1) == (None, None)


def test_results_are_kept(tmp_path: Path) -> None:
    store(tmp_path / "results.json", [RESULT])
    assert stored(tmp_path / "results.json") == {RESULT.case: RESULT}
    assert stored(tmp_path / "none.json") == {}


def test_the_picture_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    for name in ("1.svg", "2.svg"):
        plot([RESULT], tmp_path / name)
    svg = (tmp_path / "1.svg").read_text()
    assert svg == (tmp_path / "2.svg").read_text()
    for shown in ("plain-1024", FUSED, DEFAULT, "Training: forward, loss, backward"):
        assert f">{shown}<" in svg
    assert ">Forward<" not in svg


def test_the_picture_of_nothing_is_drawn(tmp_path: Path) -> None:
    plot([], tmp_path / "none.svg")
    assert (tmp_path / "none.svg").exists()


def test_the_command_writes_what_the_documentation_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--device", "cpu", "--contestants", "ours*", "--out", str(tmp_path)]
    assert main(["option/alibi-512", *arguments]) == 0
    assert "| `option/alibi-512` | ours " in capsys.readouterr().out
    assert main(["train/plain-256", *arguments]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "speed.svg", "results.json"}
    text = (tmp_path / "README.md").read_text()
    assert text.index("`train/plain-256`") < text.index("`option/alibi-512`")  # the first run is kept
    assert "small sizes, which say nothing of speed" in text
    assert "(speed.svg)" in text


def test_the_command_lists_and_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "generate/gpt-*"]) == 0
    assert "generate/gpt-16-packed" in capsys.readouterr().out
    assert selected(["train/plain-*", "train/plain-256"]) == ["train/plain-256", "train/plain-1024", "train/plain-4096"]
    assert selected([]) == [*CASES]
    assert main(["train/plain-265"]) == 2
    assert capsys.readouterr().err == "no case 'train/plain-265'; did you mean 'train/plain-256'?\n"


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    used = growth("train/plain-256", OURS, QUICK)
    assert used is not None
    assert 0 <= used < 2**28


def test_the_highest_mark_rises_by_what_is_held_and_can_be_set_back() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    script = """
import torch
from tests.benchmarks.memory import high_water, reset
start = high_water("cpu")
torch.ones(2**24)
print(high_water("cpu") - start)
reset("cpu")
print(high_water("cpu") - start)
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    held, later = map(int, run.stdout.split())
    assert 60 * 2**20 < held < 80 * 2**20
    assert later < 20 * 2**20 or later == held  # where the system does not let it be set


def test_two_checkouts_take_turns(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "against.json"
    root = str(Path(__file__).parent.parent.parent)
    assert against.main([root, "train/plain-256", "--quick", "--runs", "2", "--onednn", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())
    assert (row["case"], row["contestant"], len(row["ratios"])) == ("train/plain-256", "ours", 2)
    assert all(ratio > 0 for ratio in row["ratios"])
    assert capfd.readouterr().out.startswith("train/plain-256 ")


def test_a_folder_that_is_no_checkout_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert against.main([str(tmp_path)]) == 2
    assert "is no checkout" in capsys.readouterr().err


def test_a_model_that_is_loaded_generates_what_transformers_does() -> None:
    pytest.importorskip("transformers")
    case = CASES["loaded/llama-16"]
    prompt = drawn(case.setting.quick(), 5)
    tokens = [case.made(who, QUICK).generate(prompt, 6) for who in case.contestants]
    assert all(torch.equal(found, tokens[0]) for found in tokens)
