"""Every example runs, with few steps, and reaches what so few can: far more than an untrained model does.

What each reaches with all its steps is in its docstring.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = {path.stem: path for path in (Path(__file__).parents[2] / "examples").glob("*.py")}

ELSEWHERE = {"conformer", "with_lightning"}
"""In the README, output and all; and in tests/train/peers, where its package is."""


def run(name: str, *arguments: str) -> Any:
    """What an example's main returns."""
    main: Callable[[list[str]], Any] = runpy.run_path(str(EXAMPLES[name]))["main"]
    return main([*arguments])


def test_each_has_a_test() -> None:
    here = Path(__file__).read_text()
    assert {*EXAMPLES} == {*re.findall(r'run\(\s*"(\w+)"', here), *ELSEWHERE}


@pytest.mark.parametrize("name", EXAMPLES)
def test_is_a_screen_and_says_how_it_is_run(name: str) -> None:
    source = EXAMPLES[name].read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 100
    assert f"\nRun it: python examples/{name}.py" in source
    assert name not in sys.stdlib_module_names  # its folder comes first in sys.path when it runs


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ELSEWHERE])
def test_tells_its_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(name, "--help")
    assert exit_.value.code == 0
    assert "--" in capsys.readouterr().out.split("--help", 1)[1]


def test_decoder_learns_more_than_which_bytes_are_common(capsys: pytest.CaptureFixture[str]) -> None:
    bits = run(
        "decoder", "--steps", "40", "--length", "64", "--pattern", "set rotary_pos_emb; a>>1 f>>1", "--sample", "20"
    )
    assert bits < 4.4  # the entropy of single bytes is 4.7
    shown = capsys.readouterr().out
    assert f"{bits:.2f} bits a byte" in shown
    assert "def read_" in shown


def test_encoder_finds_more_than_the_commonest_letter(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("encoder", "--steps", "80") > 0.13  # e is 11 %
    shown = capsys.readouterr().out
    assert float(re.findall(r"logits by (\S+)", shown)[0]) < 1e-4
    assert len(re.findall(r"^ [a-z]*_[a-z]* +→ [a-z]+ +[a-z]+ *$", shown, re.MULTILINE)) == 10


def test_vit_names_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vit", "--steps", "200") > 0.75  # by chance 0.1
    assert "of 360 unseen digits named" in capsys.readouterr().out


def test_copy_task_copies(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("copy_task", "--steps", "170", "--longest", "3") > 0.9
    assert "of 500 fresh sequences copied" in capsys.readouterr().out


def test_caption_names_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("caption", "--steps", "80") > 0.3  # by chance 0.01
    assert re.search(r"→ [a-z]+ [a-z]+\n", capsys.readouterr().out)


def test_transformer_xl_measures_with_and_without_memories(capsys: pytest.CaptureFixture[str]) -> None:
    without, with_memories = run("transformer_xl", "--steps", "8", "--memory", "64", "--dim", "32")
    assert max(without, with_memories) < 8  # the bits of a byte of which nothing is known
    assert without != with_memories
    assert "byte  1 to  1" in capsys.readouterr().out


@pytest.mark.thorough
def test_transformer_xl_gains_by_its_memories() -> None:
    without, with_memories = run("transformer_xl", "--steps", "100", "--memory", "64", "--dim", "64")
    assert with_memories < without - 0.03


def test_maskgit_draws_what_is_more_like_a_digit_than_single_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    drawings, alone = run("maskgit", "--steps", "40", "--draw", "2")
    assert drawings < alone - 2
    picture = [line for line in capsys.readouterr().out.splitlines() if {*line} <= {*" ░▒█"}]
    assert len(picture) == 8
    assert {*" ▒█"} <= {*"".join(picture)}


def test_continuous_beats_the_last_value_and_zero(capsys: pytest.CaptureFixture[str]) -> None:
    error, repeated, zero = run("continuous", "--steps", "60", "--new", "4")
    assert error < 0.8 * min(repeated, zero)
    curves = [line for line in capsys.readouterr().out.splitlines() if {*line} <= {*" ·o"}]
    assert "".join(curves).count("o") >= 2


def test_with_accelerate_learns_more_than_which_bytes_are_common(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "40", "--length", "32", "--pattern", "set rotary_pos_emb; a>>1 f"]
    assert run("with_accelerate", *small, "--accumulate", "2") < 4.6  # the entropy of single bytes is 4.7
    assert "unseen files: 4." in capsys.readouterr().out


def test_tour_shows_costs_a_mistake_a_graph_and_an_edit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tour", "--dim", "128", "--tokens", "64").shape == (2, 50, 64)
    shown = capsys.readouterr().out
    attention, feedforward = 4 * 128 * 8 * 64, 2 * 128 * 512 + 512 + 128
    once = attention + feedforward + 3 * 2 * 128  # ALBERT's one layer, its norms and the last one
    assert f"(a@x f@y)*12\n    24 blocks, {once:,} parameters" in shown
    assert "did you mean 'a'" in shown
    assert "a2: reads no stream" in shown
    assert "132,480 parameters, as the graph's 132,480" in shown
