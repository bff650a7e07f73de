"""Megatron's hybrid patterns: read, written back, and every message whole."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockdsl import PatternError, from_megatron, parse, to_megatron

# Published patterns: https://huggingface.co/nvidia/Nemotron-H-8B-Base-8K and arXiv:2406.07887, arXiv:2504.03624
NEMOTRON_H = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
LETTERS = "  letters: M Mamba-2, G gated delta net, * attention, + latent attention, - feedforward, E experts, |\n    pipeline cut"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("M-M*-|M-M*E", "m f m a f | m f m a e"),
        (NEMOTRON_H, "m (f m)*3 (a (f m)*5)*4 f"),
        ("*E*E*E", "(a e)*3"),
        ("GEGE", "(gdn e)*2"),
        ("M+-M+-", "(m a(q_rank=512, kv_rank=512) f)*2"),
        ("  M*-\n", "m a f"),
    ],
)
def test_their_letters_are_blocks(theirs: str, ours: str) -> None:
    pattern = from_megatron(theirs)
    assert pattern == parse(f"set causal; {ours}")
    assert to_megatron(pattern) == theirs.strip()


@given(st.lists(st.text(alphabet="MG*-E", min_size=1, max_size=20), min_size=1, max_size=4).map("|".join))
def test_there_and_back(letters: str) -> None:
    assert to_megatron(from_megatron(letters)) == letters


def test_back_from_any_writing_of_the_same_blocks() -> None:
    assert to_megatron("set dim=64, heads=4; unit = m f; unit*2 m a f") == "M-M-M*-"
    assert to_megatron("set attn_kv_rank=8; a f") == to_megatron("a(kv_rank=512, q_rank=512) f") == "+-"
    assert to_megatron("set attn_kv_rank=8; a(kv_rank=none) f") == "*-"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("M-m", f"1:3: unknown letter 'm'\n  M-m\n    ^\n  did you mean 'M' (Mamba-2)?\n{LETTERS}"),
        ("MA", f"1:2: unknown letter 'A'\n  MA\n   ^\n  did you mean '*' (attention)?\n{LETTERS}"),
        ("MX", f"1:2: unknown letter 'X'\n  MX\n   ^\n{LETTERS}"),
        ("M -", f"1:2: a pattern of Megatron has no spaces\n  M -\n   ^\n{LETTERS}"),
        (
            "M*/MM/MM",
            "1:3: '/', multi-token prediction, has no equal here\n  M*/MM/MM\n    ^\n"
            "  leave out what follows '/': the model itself is the same",
        ),
        (
            "M[M*E]",
            "1:2: '[', a group that is one layer of a checkpoint, has no equal here\n  M[M*E]\n   ^\n"
            "  leave the brackets out: the layers are the same",
        ),
        (
            "D-",
            "1:1: 'D', DeepSeek's sparse attention, has no equal here\n  D-\n  ^\n  the nearest is '+', latent attention",
        ),
        ("M||M", "1:3: a stage has no layers\n  M||M\n    ^\n  write some here, or leave '|' out"),
        ("M|", "1:3: a stage has no layers\n  M|\n    ^\n  write some here, or leave '|' out"),
        ("", "1:1: the pattern is empty\n  \n  ^\n  write layers in their order, as in M-M*-"),
        ("M*" * 6000, "1:13: this makes 12,000 blocks; the limit is 10,000\n"),
    ],
)
def test_what_of_theirs_is_refused(text: str, message: str) -> None:
    with pytest.raises(PatternError) as error:
        from_megatron(text)
    assert str(error.value).startswith(message) if len(text) > 100 else str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m c", "Megatron has no letter for 'c' (cross-attention)"),
        ("a(heads=4) f", "a letter of Megatron says no options: heads"),
        ("first: a f", "Megatron's stages have no names"),
        ("a & f", "Megatron has no parallel branches"),
        ("a>>1 f", "Megatron's layers have no token shift"),
        ("f/2 a", "Megatron's layers have no branch scale"),
        ("a@x f a@x", "Megatron's layers have no tie"),
        ("a a(kv_rank=512, q_rank=512)", "a model of Megatron has attention or latent attention, not both"),
        ("a(kv_rank=8) f", "a letter of Megatron says no options: kv_rank"),
    ],
)
def test_what_of_ours_is_refused(text: str, message: str) -> None:
    with pytest.raises(PatternError) as error:
        to_megatron(text)
    assert error.value.problem == message


def test_the_fault_is_underlined_in_the_text_as_given() -> None:
    with pytest.raises(PatternError) as error:
        to_megatron("m  (f  a(heads=4))*2")
    shown = """\
        1:8: a letter of Megatron says no options: heads
          m  (f  a(heads=4))*2
                 ^^^^^^^^^^
          say it for all blocks by `set`"""
    assert str(error.value) == dedent(shown)


def test_no_string() -> None:
    with pytest.raises(TypeError, match="a pattern is a string, not int"):
        from_megatron(3)  # type: ignore[arg-type]
