"""One name, one meaning, over both packages; and words that the project says otherwise.

Standard terms are in `docs/glossary.md`. The words below were this project's own for them, and do not come back.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("blockdsl", "xt_blocks")

# Word → what to write instead. Found in names (between underscores and capitals), comments, docstrings and messages.
WORDS = {
    "behind": "after",
    "sight": "mask spec",
    "watched": "hooked",
    "room": "capacity, space",
    "bags": "weighted sum",
    "mixed": "weighted sum, summed",
}
# The same, in names alone: in a sentence they may be plain English, as what reaches a model or turns a switch on.
NAMES = {
    "reach": "window",
    "triangle": "is_causal",
    "pairs": "attn_mask",
    "turn": "rotate",
    "turned": "rotated",
    "turns": "rotations",
}
PHRASES = {
    "linear maps?": "linear layer",
    "runs? as written": "unhooked",
    "in each other's place": "swapped",
}
# Module → words in it that are right: pairs of two graphs' nodes, and of aligned elements.
RIGHT = {
    "blockdsl/graph/align.py": {"pairs"},
    "blockdsl/graph/diff.py": {"pairs"},
    "blockdsl/graph/matched.py": {"pairs"},
    "blockdsl/draw/layout/beside.py": {"pairs"},
    "blockdsl/draw/words/changes.py": {"pairs"},
    "blockdsl/editor/spans.py": {"pairs"},
    "blockdsl/graph/json.py": {"pairs"},  # a keyword of json.loads
    "xt_blocks/distributed/shard.py": {"mixed"},  # torch's MixedPrecisionPolicy
    "xt_blocks/kernels/scores/talking_heads.py": {"behind"},  # a key of old state dicts
}
# Functions that several modules have, one each, and that are called with the module's name before them.
OF_EACH_MODULE = {
    *("add_parser", "attention", "check", "draw", "linear", "overlay", "parameters", "read", "run", "takes", "write"),
    *("declines", "products", "supports", "weighted_sum", "why"),
}


def sources() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def defined(sort: type[ast.ClassDef] | type[ast.FunctionDef]) -> dict[str, list[str]]:
    """Each public class or function → the modules that define it.

    Without the folder that has x-transformers' names, which are another library's on purpose.
    """
    out: dict[str, list[str]] = {}
    for name, text in sources():
        if name.startswith("xt_blocks/x_transformers/"):
            continue
        for node in ast.parse(text).body:
            if isinstance(node, sort) and not node.name.startswith("_") and name not in out.get(node.name, ()):
                out.setdefault(node.name, []).append(name)  # overloads are one function
    return out


def words_of(text: str) -> Iterator[tuple[int, str, bool]]:
    """Each word of a source with its line; true where it is in a name."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_name = token.type == tokenize.NAME
        if is_name or token.type in (tokenize.COMMENT, tokenize.STRING) or "STRING" in tokenize.tok_name[token.type]:
            for i, line in enumerate(token.string.splitlines()):
                for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", line):
                    yield token.start[0] + i, word.lower(), is_name


def faults_of(name: str, text: str) -> list[str]:
    right = RIGHT.get(name, set())
    found = {(line, word) for line, word, in_name in words_of(text) if word in (WORDS | NAMES if in_name else WORDS)}
    faults = [f"{name}:{line}: {word}: {(WORDS | NAMES)[word]}" for line, word in sorted(found) if word not in right]
    for phrase, instead in PHRASES.items():
        for match in re.finditer(phrase.replace(" ", r"[\s#]+"), text):
            faults.append(f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}: {instead}")
    return faults


def test_a_class_is_defined_once() -> None:
    assert {name: where for name, where in defined(ast.ClassDef).items() if len(where) > 1} == {}


def test_a_public_function_is_defined_once() -> None:
    twice = {name: where for name, where in defined(ast.FunctionDef).items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in OF_EACH_MODULE} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_words_that_are_said_otherwise(package: str) -> None:
    assert [fault for name, text in sources() if name.startswith(package) for fault in faults_of(name, text)] == []


def test_a_word_is_found_wherever_it_is() -> None:
    text = '"""Room."""\nturn_on = keep_pairs = 1  # one behind\nclass RoomOf: ...\nf"{pairs} a linear\nmap"\n'.replace(
        '\nmap"', ' map"'
    )
    found = [fault.split(": ")[:2] for fault in faults_of("x.py", text)]
    assert found == [
        ["x.py:1", "room"],
        ["x.py:2", "behind"],
        ["x.py:2", "pairs"],
        ["x.py:2", "turn"],
        ["x.py:3", "room"],
        *([["x.py:4", "pairs"]] if hasattr(tokenize, "FSTRING_MIDDLE") else []),  # names in f-strings are tokens then
        ["x.py:4", "linear map"],
    ]
