"""What a user reads when a text is at fault: every message whole, as it is printed."""

from __future__ import annotations

import ast
import pickle
import textwrap
from pathlib import Path
from textwrap import dedent

import pytest

from blockdsl import Pattern, PatternError, UserError, parse, parse_settings
from blockdsl.errors import Span, did_you_mean, nearest
from blockdsl.registry.kinds import kinds
from blockdsl.registry.settings import table

from ..built_in import BUILT_IN, LISTED

MESSAGES_FILE = Path(__file__).with_name("messages.txt")


def messages() -> list[tuple[str, str]]:
    """Each text of messages.txt and the message written beneath it."""
    paragraphs = MESSAGES_FILE.read_text(encoding="utf-8").split("\n\n")
    parted = [paragraph.strip("\n").split("\n", 1) for paragraph in paragraphs if not paragraph.startswith("#")]
    return [(ast.literal_eval(text), filled(expected)) for text, expected in parted]


def filled(expected: str) -> str:
    """With the names that a message lists in their places, over lines of at most 100 columns."""
    lists = {
        "{settings}": ("settings", sorted(table())),
        **{
            f"{{options of {kind}}}": ("options", [option.name for option in kinds()[kind].written_options()])
            for kind in BUILT_IN
        },
    }
    for place, (title, names) in lists.items():
        lines = textwrap.wrap(f"{title}: {', '.join(names)}", 100, subsequent_indent="  ")
        expected = expected.replace(place, "\n  ".join(lines))
    return expected.replace("{kinds}", LISTED)


MESSAGES = [
    *messages(),
    # These have spaces at a line's end, which an editor might take away.
    ("", "1:1: the pattern is empty\n  \n  ^\n  write blocks in their order, as in (a f)*6"),
    ("  \n ", "1:1: the pattern is empty\n    \n  ^\n  write blocks in their order, as in (a f)*6"),
    ("a f\r\nb f\r\n", f"2:1: unknown block 'b'\n  b f \n  ^\n  kinds: {LISTED}; macros: macaron, par, sandwich"),
]


def message(block: str) -> str:
    return dedent(block).strip("\n ") if block.startswith("\n") else block


@pytest.mark.parametrize(("text", "expected"), MESSAGES, ids=[repr(text) for text, _ in MESSAGES])
def test_the_whole_message(text: str, expected: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse(text)
    assert str(caught.value) == message(expected)


@pytest.mark.parametrize(("text", "expected"), MESSAGES, ids=[repr(text) for text, _ in MESSAGES])
def test_the_message_is_in_the_languages_words_and_fits_a_terminal(text: str, expected: str) -> None:
    lines = message(expected).split("\n")
    internal = (
        "Token",
        "$END",
        "LPAR",
        "VBAR",
        "None",
        "Traceback",
        "lark",
        "object",
        "<class",
        "<function",
        "tuple",
        "str'",
    )
    said = "\n".join([lines[0], *lines[3:]]).replace(repr(text.strip()), "")
    assert not [word for word in internal if word in said and word not in text]
    assert all(len(line) <= 120 for line in lines if "settings: " not in line)
    assert set(lines[2].strip()) == {"^"}
    assert len(lines) >= 4, "every message says what to do instead"
    assert not lines[0].split(": ", 1)[1][0].isupper(), "it goes on with the line that the position began"


# Where the fault is ------------------------------------------------------------------------------------------------


def caught(text: str) -> PatternError:
    with pytest.raises(PatternError) as error:
        parse(text)
    return error.value


def test_an_error_says_in_its_attributes_what_its_text_says() -> None:
    error = caught("a f |\n  stem: attn*6")
    assert (error.line, error.column) == (2, 9)
    assert error.text == "a f |\n  stem: attn*6"
    assert error.text[slice(*error.span)] == "attn"
    assert error.problem == "unknown block 'attn'"
    assert error.hint == f"did you mean 'a' (self-attention)?\nkinds: {LISTED}; macros: macaron, par, sandwich"
    assert isinstance(error, UserError)
    assert isinstance(error, ValueError)


def test_an_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(caught("f | b")))
    assert str(error) == str(caught("f | b"))
    assert (error.line, error.column, error.hint) == (1, 5, caught("f | b").hint)


@pytest.mark.parametrize(
    ("before", "line", "column"),
    [("", 1, 1), ("a ", 1, 3), ("a\n", 2, 1), ("a\r\n\r\n ", 3, 2), ("# ü\n\ta\t", 2, 4), ("a" + "\n" * 99, 100, 1)],
)
def test_line_and_column_count_from_one(before: str, line: int, column: int) -> None:
    error = caught(f"{before}b f")
    assert (error.line, error.column) == (line, column)


def test_the_cause_is_not_shown_for_it_is_the_parsers() -> None:
    for text in ("a f)", "a*0", "b", "a $"):
        error = caught(text)
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize("before", [0, 10, 24, 25, 26, 80, 99, 100, 101, 5000])
@pytest.mark.parametrize("after", [0, 3, 60, 5000])
def test_a_long_line_is_cut_around_the_fault(before: int, after: int) -> None:
    text = "a " * (before // 2) + "wrong" + " f" * (after // 2)
    _, shown, marks, *_ = str(caught(text)).split("\n")
    assert len(shown) <= 2 + 100 + 2
    at = marks.index("^")
    assert shown[at : at + len(marks.strip())] == "wrong"
    assert shown.startswith("  …") == (len(text) > 100 and before > 25)
    assert shown.endswith("…") == (len(text) > 100 and len(text) - (before - 25 if before > 25 else 0) > 100)
    # What is shown is the text itself, as it stands.
    assert shown.strip().strip("…") in text


def test_a_fault_longer_than_a_line_is_underlined_as_far_as_the_line_is_shown() -> None:
    _, shown, marks, *_ = str(caught("x" * 500)).split("\n")
    assert shown == "  " + "x" * 100 + "…"
    assert marks == "  " + "^" * 100


def test_a_fault_over_several_lines_is_underlined_on_its_first() -> None:
    assert str(caught("a (f\n  c)*6000 # no")).split("\n")[:3] == [
        "1:3: this makes 12,000 blocks; the limit is 10,000",
        "  a (f",
        "    ^^",
    ]


def test_a_fault_at_the_end_is_marked_after_the_last_word_and_not_after_a_comment() -> None:
    assert str(caught("a f *  # six\n# times\n")).split("\n")[:3] == [
        "1:6: a repeat needs a count",
        "  a f *  # six",
        "       ^",
    ]


def test_tabs_and_what_a_terminal_would_obey_are_shown_as_one_space_each() -> None:
    _, shown, marks, *_ = str(caught("a\t(\x0cf b\x1b[31m\u2028 # \x07")).split("\n")
    assert shown == "  a ( f b [31m  #  "
    assert marks == "         ^"


# Settings alone, and layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: no setting is given\n  \n  ^\n  as in dim=512, rotary_pos_emb"),
        (
            "heads 8",
            """
            1:7: '8' is not allowed here
              heads 8
                    ^
              settings are separated by ',', as in dim=512, rotary_pos_emb
            """,
        ),
        (
            "dim=512;",
            """
            1:8: ';' is not allowed here
              dim=512;
                     ^
              settings are separated by ',', as in dim=512, rotary_pos_emb
            """,
        ),
        (
            "dim=512,",
            """
            1:9: a setting is missing after ','
              dim=512,
                      ^
              as in heads=8, causal
            """,
        ),
        (
            "set dim=512",
            """
            1:5: 'dim' is not allowed here
              set dim=512
                  ^^^
              settings are separated by ',', as in dim=512, rotary_pos_emb
            """,
        ),
        (
            "dim=0",
            """
            1:1: dim must be a whole number of at least 1, not 0
              dim=0
              ^^^^^
              dim: features of the stream
            """,
        ),
        (
            "rotary",
            """
            1:1: unknown setting 'rotary'
              rotary
              ^^^^^^
              did you mean 'rotary_pos_emb'?
            """,
        ),
    ],
)
def test_the_whole_message_of_settings_alone(text: str, expected: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse_settings(text)
    assert str(caught.value) == message(expected)


def test_an_error_in_one_of_the_layers_shows_that_layer() -> None:
    with pytest.raises(PatternError) as caught:
        Pattern.from_layers(["a", "a f"])
    assert str(caught.value) == message(
        """
        1:1: each layer is one block
          a f
          ^^^
          as in ['a', 'f/2', 'a & f']
        """
    )


# The parts ---------------------------------------------------------------------------------------------------------


def test_an_error_whose_place_lies_outside_the_text_is_still_shown() -> None:
    for span in (Span(0, 0), Span(3, 9), Span(99, 100)):
        assert str(PatternError("a f", span, "wrong")).split("\n")[1] == "  a f"
    assert str(PatternError("", Span(5, 9), "wrong", "so")) == "1:1: wrong\n  \n  ^\n  so"


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("head", ["heads", "dim_head"], "heads"),
        ("HEADS", ["heads"], "heads"),
        ("mult", ["ff_mult", "dim"], "ff_mult"),
        ("encoder", ["enc", "a"], "enc"),
        ("zebra", ["a", "dim"], None),
        ("", ["a"], None),
        ("x" * 1000, ["x" * 999], None),
    ],
)
def test_the_nearest_name_is_one_that_was_probably_meant(word: str, known: list[str], expected: str | None) -> None:
    assert nearest(word, known) == expected
    assert did_you_mean(word, known) == (f"did you mean '{expected}'?" if expected else "")


def test_a_word_that_several_names_end_in_is_answered_with_all_of_them() -> None:
    assert (
        did_you_mean("dropout", ["ff_dropout", "attn_dropout", "dim"]) == "did you mean 'attn_dropout' or 'ff_dropout'?"
    )
    assert did_you_mean("dropout", ["ff_dropout"]) == "did you mean 'ff_dropout'?"
