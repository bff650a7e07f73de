"""The TextMate grammar of the VS Code extension, made from the language's terminals and the registry.

    python -m tests.editor      # writes editors/vscode/pattern.tmLanguage.json

A highlighter of this sort goes by what is near, where `editor.tokens` reads the whole: a name is what the sign before or
after it says, and in parentheses right after a name stand arguments. `scopes` reads a text by a grammar, for the test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from blockdsl.editor.scan import CONSTANTS
from blockdsl.language.macros import MACROS
from blockdsl.language.parse import terminals
from blockdsl.registry.kinds import kinds

FILE = Path(__file__).parents[2] / "editors" / "vscode" / "pattern.tmLanguage.json"

SCOPES = {
    "comment": "comment.line.number-sign",
    "keyword": "keyword.other.set",
    "setting": "variable.other.property",
    "kind": "support.class",
    "macro": "entity.name.function",
    "definition": "variable.other.definition",
    "stage": "entity.name.section",
    "label": "entity.name.label",
    "tie": "entity.name.tag",
    "option": "variable.parameter",
    "value": "support.constant",
    "constant": "constant.language",
    "number": "constant.numeric",
    "operator": "keyword.operator",
    "punctuation": "punctuation.separator",
}
"""Types of tokens → what TextMate's grammars call the like."""

_SCOPE = {type: f"{scope}.pattern" for type, scope in SCOPES.items()}
Rule = dict[str, Any]


def textmate() -> Rule:
    """The grammar."""
    of = terminals()
    name = of["NAME"]
    operators = "|".join(of[each] for each in ("SHIFT", "FEEDS", "VBAR", "AMPERSAND", "STAR", "SLASH", "EQUAL"))
    reading = {option.name for kind in kinds().values() for option in kind.reading_options()}
    item = [
        _marked(rf"(\^)\s*({name})", "operator", "label"),
        _marked(rf"(@)\s*({name})", "operator", "tie"),
        _call(rf"(<)\s*({name})(\()", "operator", "label", "punctuation"),
        _marked(rf"(<)\s*({name})", "operator", "label"),
        {
            "begin": r"\bset\b",
            "end": of["SEMICOLON"],
            **_ends("keyword"),
            "patterns": _arguments(name, "setting", reading),
        },
        *(_call(rf"({_one_of(names)})(\()", type, "punctuation") for type, names in _NAMES.items()),
        _match(rf"{name}(?=\s*:)", "stage"),
        _match(rf"{name}(?=\s*=(?!>))", "definition"),
        *(_match(_one_of(names), type) for type, names in _NAMES.items()),
        _match(name, "definition"),
        _match(of["NUMBER"], "number"),
        _match(operators, "operator"),
        _match(r"[();:]", "punctuation"),
    ]
    repository = {
        "comment": _match(of["COMMENT"], "comment"),
        "arguments": {"patterns": _arguments(name, "option", reading)},
        "value": {"patterns": _values(of)},
    }
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "Layer pattern",
        "scopeName": "source.pattern",
        "fileTypes": ["pattern"],
        "patterns": [{"include": "#comment"}, *item],
        "repository": repository,
    }


_NAMES = {"kind": tuple(kinds()), "macro": tuple(MACROS)}


def _match(pattern: str, type: str) -> Rule:
    return {"match": pattern, "name": _SCOPE[type]}


def _marked(pattern: str, *types: str) -> Rule:
    return {"match": pattern, "captures": _captures(types)}


def _captures(types: tuple[str, ...]) -> Rule:
    return {str(i): {"name": _SCOPE[type]} for i, type in enumerate(types, start=1)}


def _ends(first: str) -> Rule:
    captures = {"beginCaptures": first, "endCaptures": "punctuation"}
    return {key: {"0": {"name": _SCOPE[type]}} for key, type in captures.items()}


def _call(pattern: str, *types: str) -> Rule:
    ends = {"beginCaptures": _captures(types), "endCaptures": {"0": {"name": _SCOPE["punctuation"]}}}
    return {"begin": pattern, "end": r"\)", **ends, "patterns": [{"include": "#arguments"}]}


def _arguments(name: str, type: str, reading: set[str]) -> list[Rule]:
    """In parentheses or after `set`: names, and after '=' values."""
    rules: list[Rule] = [{"include": "#comment"}]
    if type == "option":
        rules.append(_marked(rf"({_one_of(reading)})\s*(=)\s*({name})", "option", "operator", "label"))
    value = {"begin": "=", "end": r"(?=[,);])", "beginCaptures": {"0": {"name": _SCOPE["operator"]}}}
    rules.append({**value, "patterns": [{"include": "#value"}]})
    bare = [_match(terminals()["NUMBER"], "number"), _match(",", "punctuation")]
    tuples = {"begin": r"\(", "end": r"\)", "patterns": [{"include": "#value"}], **_ends("punctuation")}
    return [*rules, _match(name, type), *bare, tuples]


def _values(of: dict[str, str]) -> list[Rule]:
    """After '='; a tuple of values may have tuples."""
    tuples = {"begin": r"\(", "end": r"\)", "patterns": [{"include": "#value"}], **_ends("punctuation")}
    constants = _match(_one_of(CONSTANTS), "constant")
    words = [constants, _match(of["NAME"], "value"), _match(of["NUMBER"], "number"), _match(",", "punctuation")]
    return [{"include": "#comment"}, tuples, *words]


def _one_of(names: Any) -> str:
    return rf"\b(?:{'|'.join(sorted(names))})\b"


def text() -> str:
    """The file."""
    return json.dumps(textmate(), indent=1, ensure_ascii=False) + "\n"


# A reader of such grammars, as far as this one goes ---------------------------------------------------------------------


def scopes(text: str, grammar: Rule) -> list[tuple[int, int, str]]:
    """Every bit of a text that has a scope of its own, with that; line by line, as TextMate does."""
    out: list[tuple[int, int, str]] = []
    stack: list[Rule] = [grammar]
    start = 0
    for line in text.splitlines(keepends=True):
        at = 0
        while at <= len(line):
            rules = _flat(stack[-1]["patterns"], grammar["repository"])
            tried = [(re.compile(stack[-1]["end"]).search(line, at), None)] if len(stack) > 1 else []
            tried += [(re.compile(rule.get("match") or rule["begin"]).search(line, at), rule) for rule in rules]
            found = min(((m, rule) for m, rule in tried if m), key=lambda each: each[0].start(), default=None)
            if found is None:
                break
            matched, rule = found
            captures = (
                stack[-1].get("endCaptures", {})
                if rule is None
                else rule.get("captures", rule.get("beginCaptures", {}))
            )
            if rule is not None and "name" in rule:
                captures = {"0": {"name": rule["name"]}}
            for group, scope in captures.items():
                left, right = matched.span(int(group))
                out += [(start + left, start + right, scope["name"])] if right > left else []
            if rule is None:
                stack.pop()
            elif "begin" in rule:
                stack.append(rule)
            at = matched.end() if matched.end() > at or rule is None else at + 1
        start += len(line)
    return out


def _flat(rules: list[Rule], repository: Rule) -> list[Rule]:
    out: list[Rule] = []
    for rule in rules:
        if "include" in rule:
            named = repository[rule["include"][1:]]
            out += _flat(named["patterns"], repository) if "patterns" in named else [named]
        else:
            out.append(rule)
    return out
