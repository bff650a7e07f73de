"""Every keyword argument is shown, with its default and type, to whoever asks: Python, editors and type checkers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Literal

import pytest

import blockdsl
import xt_blocks
from blockdsl.registry.keywords import annotation
from blockdsl.registry.options import Option
from blockdsl.registry.settings import table
from tests import signatures

PUBLIC = [getattr(xt_blocks, name) for name in sorted(dir(xt_blocks)) if inspect.isclass(getattr(xt_blocks, name))]


def test_the_generated_types_are_up_to_date() -> None:
    assert signatures.PATH.read_text(encoding="utf-8") == signatures.text(), "run `python -m tests.signatures`"


@pytest.mark.parametrize("called", [*PUBLIC, xt_blocks.lower, blockdsl.compile], ids=lambda called: called.__name__)
def test_nothing_is_left_to_a_double_star(called: object) -> None:
    for parameter in inspect.signature(called).parameters.values():  # type: ignore[arg-type]
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD, f"**{parameter.name}"
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name


def test_a_stack_shows_each_setting_with_its_default() -> None:
    shown = inspect.signature(xt_blocks.Decoder).parameters
    assert shown["attn_dim_head"].default == 64
    assert shown["ff_mult"].default == 4
    assert shown["ff_glu"].annotation is bool
    assert shown["attn_kv_heads"].annotation == (int | None)
    assert "causal" not in shown
    assert "cross_attend" not in inspect.signature(xt_blocks.CrossAttender).parameters
    assert {*table()} <= {*inspect.signature(blockdsl.compile).parameters}


def test_annotations() -> None:
    assert annotation(Option("n", int, 1, "")) is int
    assert annotation(Option("n", int, None, "")) == (int | None)
    assert annotation(Option("x", str, "a", "", choices=("a", "b"), optional=True)) == Literal["a", "b"] | None


GOOD = """
    import blockdsl
    from xt_blocks import Attention, Decoder, FeedForward
    Decoder(dim=8, depth=1, rotary_pos_emb=True, attn_kv_heads=None)
    Attention(dim=8, heads=2, causal=True)
    FeedForward(8, glu=True)
    blockdsl.compile("a f", dim=8, conv_kernel=3)
"""
BAD = """
    from xt_blocks import Attention, Decoder, FeedForward
    Decoder(dim=8, depth=1, rotary_pos_em=True)
    Attention(dim=8, heads="2")
    FeedForward(8, glue=True)
"""


def test_a_type_checker_knows_them(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(dedent(GOOD))
    bad.write_text(dedent(BAD))
    command = [sys.executable, "-m", "mypy", str(good), str(bad)]  # as the check of the tree, which may be kept
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    found = [line for line in ran.stdout.splitlines() if "error:" in line]
    assert len(found) == 3, ran.stdout
    assert all("bad.py" in line for line in found)
    for line, wrong in zip(found, ("rotary_pos_em", "heads", "glue"), strict=True):
        assert wrong in line
