"""What is wrong with a text that the grammar has no place for, in the language's own words.

lark says which token it met, which it would have taken, and what was begun; from these, what was probably meant.
"""

from __future__ import annotations

import re

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from ..errors import PatternError, Span, shortened
from ..registry.kinds import kinds


def span_of(token: Token | None) -> Span:
    """Where a token stands."""
    assert token is not None
    return Span(token.start_pos or 0, token.end_pos or 0)


_STREAMS = "(a f)*6 => (a c f)*6"

# What is missing after a token that cannot end a pattern.
_AFTER = {
    "STAR": ("a repeat needs a count", "as in a*6"),
    "SHIFT": ("a shift needs a whole number", "as in a>>1"),
    "SLASH": ("a scale needs a number to divide by", "as in f/2"),
    "AT": ("a tie needs a label", "as in a@x f a@x f"),
    "VBAR": ("a stage is empty", "write its blocks after the '|', as in a f | a*6"),
    "AMPERSAND": ("a parallel branch is missing", "as in a & f"),
    "FEEDS": ("the right side of '=>' is empty", f"write the blocks that read the left side, as in {_STREAMS}"),
    "COLON": ("a stage is empty", "write its blocks after the name, as in stem: f a f"),
    "CIRCUMFLEX": ("a label needs a name", "as in a ^u f <u; a repeat is written a*6"),
    "LESSTHAN": ("a read needs the name of a label", "as in a ^u f <u; a token shift is written a>>1"),
    "SET": ("'set' needs a setting", "as in set dim=512, heads=8;"),
}

# What is missing before a token that cannot start one.
_BEFORE = {
    "STAR": ("there is nothing to repeat before '*'", "as in a*6"),
    "SHIFT": ("there is nothing to shift before '>>'", "as in a>>1"),
    "SLASH": ("there is nothing to scale before '/'", "as in f/2"),
    "AT": ("there is nothing to tie before '@'", "as in a@x f a@x f"),
    "VBAR": ("a stage is empty", "write its blocks before the '|', as in a f | a*6"),
    "AMPERSAND": _AFTER["AMPERSAND"],
    "FEEDS": ("the left side of '=>' is empty", f"write the blocks whose output is read, as in {_STREAMS}"),
    "COLON": ("a stage's name is missing before ':'", "as in stem: f a f"),
    "RPAR": ("the group is empty", "write blocks between the parentheses"),
}

_APART = "put a space between blocks"
_REPEAT = "a repeat is written a*6"
_GROUP = "groups are written with ( )"
_SHIFT = "a token shift is written a>>1"
_QUOTES = "write names without quotation marks"

_SET_TAKES_NONE = "'set' takes no parentheses: set dim=512, heads=8; a f"
_OPENS_OPTIONS = "'(' right after a name opens its options, as in a(heads=8, causal); a group needs a space before it"

_STRANGE = {
    "+": "'&' sums parallel branches; a space puts blocks one after another",
    "-": f"{_APART}; a minus sign goes only before a number",
    **dict.fromkeys("→⇒➔➡⟶⟹", f"{_APART}; what one stream gives to another is written {_STREAMS}"),
    "×": _REPEAT,
    **dict.fromkeys("[]{}", _GROUP),
    ">": f"{_SHIFT}, two streams {_STREAMS}",
    **dict.fromkeys("'\"`“”‘’", _QUOTES),
}


_MEGATRON = re.compile(r"(?=.*([MGE]|[*+]-))[MGE*+|-]{2,}")


def explained(text: str, error: UnexpectedInput, start: str) -> PatternError:
    """What is wrong with a text that lark does not take, and what to write instead.

    Args:
        start: the rule of all of it, "start" or "settings_only".
    """
    fault = _fault(text, error, start)
    if _MEGATRON.fullmatch(text.strip()):
        hint = "letters of Megatron are read by from_megatron(text), and on the command line with --from megatron"
        return PatternError(text, fault.span, fault.problem, hint)
    return fault


def _fault(text: str, error: UnexpectedInput, start: str) -> PatternError:
    if isinstance(error, UnexpectedToken):
        return PatternError(text, *_Unexpected(text, error, start).fault())
    assert isinstance(error, UnexpectedCharacters)
    at: int = error.pos_in_stream  # type: ignore[assignment]
    char = text[at]
    hint = "write a plain space" if char.isspace() else "names are letters, digits and '_'; comments start with '#'"
    shown = f"'{char}'" if char == "\\" else repr(char)
    problem = f"the character {shown} has no meaning here"
    if text[:at].endswith("=") and char == ">":
        return PatternError(text, Span(at, at + 1), problem, "a value comes after '=', as in heads=8")
    arrow = text.startswith("->", at) or (char == ">" and text[:at].rstrip().endswith("="))
    return PatternError(text, Span(at, at + 1), problem, _STRANGE.get("→" if arrow else char, hint))


# What '=>' cannot stand in, by a token of it.
_NOT_WITHIN = (("LPAR", "stands in a group"), ("EQUAL", "stands in a definition"), ("FEEDS", "is written twice"))


class _Unexpected:
    """A token, or the end, where the grammar has no place for it; the parser's state tells what was begun."""

    def __init__(self, text: str, error: UnexpectedToken, start: str) -> None:
        self.text = text
        self.token: Token = error.token
        self.end = self.token.type == "$END"
        self.accepts = error.accepts or set()
        stack = error.interactive_parser.parser_state.value_stack
        begun = [value for value in stack if isinstance(value, Token)]  # tokens of what is not complete yet
        self.begun = {token.type for token in begun}
        self.last = stack[-1] if stack and isinstance(stack[-1], Token) else None
        self.after = None if self.last is None else self.last.type
        self.opened = next((token for token in reversed(begun) if token.type in ("LPAR", "CALL")), None)
        self.alone = start == "settings_only"
        called = self.after != "SEMICOLON" and any(token.type in ("CALL", "SET") for token in begun)
        self.options = self.alone or called

    def fault(self) -> tuple[Span, str, str]:
        """Where, what is wrong, and what to do instead."""
        if self.token.type == "RPAR" and self.opened is None:
            return span_of(self.token), "this ')' has no '('", "remove it, or open a '(' before it"
        ends = self.end or (self.token.type == "SEMICOLON" and not self.options)
        if self.opened is not None and ends:
            at = span_of(self.opened).end - 1
            return Span(at, at + 1), "this '(' is never closed", "close it with ')'"
        if not self.end:
            return span_of(self.token), *self._problem()
        code = re.sub(r"#[^\n]*", lambda comment: " " * len(comment.group()), self.text).rstrip()
        if code:
            return Span(len(code), len(code) + 1), *self._problem()
        if self.alone:
            return Span(0, 1), "no setting is given", "as in dim=512, rotary_pos_emb"
        return Span(0, 1), "the pattern is empty", "write blocks in their order, as in (a f)*6"

    def _problem(self) -> tuple[str, str]:
        token, after = self.token.type, self.after
        if after == "SLASH" and token == "SLASH":
            return _AFTER["SLASH"][0], "comments start with '#'"
        if after in _AFTER:
            return _AFTER[after]
        if after == "EQUAL" and "NUMBER" in self.accepts:
            return "a value is missing after '='", "as in heads=8"
        if after == "EQUAL":
            is_setting = token == "NUMBER"  # heads=8;
            hint = "settings start with 'set': set heads=8; a f" if is_setting else "as in x = a f;"
            return "a pattern is missing after '='", hint
        cannot = "the text ends too early" if self.end else f"'{shortened(self.token)}' is not allowed here"
        return self._in_options(cannot) if self.options else self._in_pattern(cannot)

    def _in_pattern(self, cannot: str) -> tuple[str, str]:
        token, after = self.token.type, self.after
        if token == "FEEDS" and (within := next((words for kind, words in _NOT_WITHIN if kind in self.begun), "")):
            return f"'=>' {within}", f"it joins two whole streams, and a pattern has no more: {_STREAMS}"
        if token in _BEFORE and "NAME" in self.accepts and "VBAR" not in self.accepts:
            return _BEFORE[token]
        if self.end and "SET" in self.accepts:
            return "the pattern is missing", "write its blocks after the last ';', as in set dim=512; (a f)*6"
        if self.end:
            return cannot, "a definition ends with ';', as in x = a f; x*6"
        if after == "NUMBER" and token == "STAR":
            return "a repeat is given twice", "group it, as in (a*6)*2"
        if after == "NUMBER" and token in ("SHIFT", "SLASH", "AT"):
            suffix = {"SHIFT": ">>1", "SLASH": "/2", "AT": "@x"}[token]
            hint = f"write it before the '*', as in a{suffix}*6, or after a group, as in (a*6){suffix}"
            return f"'{self.token}' cannot come after a count", hint
        if token == "COLON":
            return "a stage's name comes first", "as in a f | stem: a f"
        if token == "COMMA":
            return cannot, _APART
        if token == "NUMBER":
            spaced = after == "LPAR" and re.search(r"\w\s+\($", self.text[: span_of(self.last).end])
            if spaced:
                return cannot, "arguments come right after the name, without a space: sandwich(6)"
            count = "a count goes after '*', as in a*6"
            return cannot, count if "VBAR" not in self.accepts else f"{count}; arguments in parentheses: sandwich(6)"
        if re.search(r"\bset\s*\(", self.text):
            return cannot, _SET_TAKES_NONE
        if self.opened is not None:
            return cannot, "options come right after the name, without a space: a(heads=8)"
        before = "settings and definitions come before the pattern and end with ';': set dim=512; x = a f; x*6"
        return (
            cannot,
            f"{before}\ntwo streams are joined by '=>': {_STREAMS}"
            if token == "EQUAL" and "set" not in self.text
            else before,
        )

    def _in_options(self, cannot: str) -> tuple[str, str]:
        """Inside `a(...)`, after `set`, or in settings alone."""
        if self.after == "COMMA" or self.token.type == "COMMA":
            what = "an option" if self.opened is not None else "a setting"
            return f"{what} is missing {'after' if self.after == 'COMMA' else 'before'} ','", "as in heads=8, causal"
        if self.token.type == "COLON" and "EQUAL" in self.accepts:
            return cannot, "a value comes after '=', as in heads=8"
        if self.opened is not None:
            before, inside = self.text[: span_of(self.opened).end], self.text[span_of(self.opened).end :]
            if re.search(r"\bset\s*\($", before):
                return cannot, _SET_TAKES_NONE
            first, comes = re.match(r"\s*(\w*)\s*([=,]?)", inside).groups()  # type: ignore[union-attr]
            kind = kinds().get(self.opened.rstrip("("))
            if comes or (kind is not None and first in kind.written_by_name):
                return cannot, "options are separated by ',' and end with ')', as in a(heads=8, causal)"
            return cannot, _OPENS_OPTIONS
        if self.alone:
            return cannot, "settings are separated by ',', as in dim=512, rotary_pos_emb"
        return cannot, "settings are separated by ',' and end with ';', as in set dim=512, heads=8; a f"
