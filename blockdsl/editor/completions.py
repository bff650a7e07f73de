"""What can be written at a place: kinds, macros, definitions, options, settings, values, labels, ties, whole models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .. import zoo
from ..language.macros import MACROS
from ..registry.kinds import kinds
from ..registry.options import Option, spell
from ..synonyms import meant
from .known import READ_WORDS, known_options, known_settings
from .scan import OpenFrame, ScannedToken, Scanner, with_names
from .values import Completion

ZOO = "zoo:"
_WORD = re.compile(r"[A-Za-z0-9_]*$")
_MODEL = re.compile(r"(?:#[^\n]*\n|\s)*([\w:.-]*)")  # after comments


def completions(text: str, offset: int) -> list[Completion]:
    """What can be written at `offset`, the likeliest first; all of a word that is begun there is replaced.

    A word matches what it begins, then what it is a part of, then what it is another name of: `rope` finds
    `rotary_pos_emb`.
    """
    offset = max(0, min(offset, len(text)))
    before = _WORD.search(text, 0, offset)
    assert before is not None
    start, word = before.start(), before.group()
    if "#" in text[text.rfind("\n", 0, offset) + 1 : offset] or word[:1].isdigit():
        return []
    after = re.compile(r"[A-Za-z0-9_]*").match(text, offset)
    assert after is not None
    found = [Completion(*each[:3], start, after.end(), each[3]) for each in _possible(text, start)]
    return [*_matching(found, word), *_models(text, offset)]


_Row = tuple[str, str, str, str]  # label, kind, insert, help
Tokens = list[ScannedToken]


def _possible(text: str, start: int) -> Iterator[_Row]:
    """All that can stand at a place, whatever is begun there."""
    scanner = Scanner(text, at=start)
    pieces, expects = with_names(scanner.pieces), scanner.expected_at
    frame = scanner.open_at[-1] if scanner.open_at else None
    if expects in ("statement", "item"):
        yield from _items(pieces, expects == "statement")
    elif expects in ("label", "read", "tie"):
        yield from _names(pieces, start, "tie" if expects == "tie" else "label")
    elif frame is not None and expects == "option":
        yield from _arguments(pieces, start, frame, "=>" in text)
    elif frame is not None and expects == "value":
        known = known_settings("=>" in text) if frame.sort == "set" else known_options(frame.name)
        if (option := known.get(frame.option)) is not None and frame.sort != "read":
            yield from _names(pieces, start, "label") if option.reads else _values(option)


def _items(pieces: Tokens, statement: bool) -> Iterator[_Row]:
    yield from ((name, "kind", name, kind.title) for name, kind in kinds().items())
    defined = dict.fromkeys(piece.text for piece in pieces if piece.type == "definition")
    yield from ((name, "definition", name, "defined in this text") for name in defined)
    yield from ((name, "macro", f"{name}(", f"{macro.usage}: {macro.doc}") for name, macro in MACROS.items())
    if statement:
        yield "set", "keyword", "set ", "settings of the stack: set dim=512, heads=8;"


def _names(pieces: Tokens, start: int, type: str) -> Iterator[_Row]:
    written = [piece for piece in pieces if piece.type == type and not piece.start <= start <= piece.end]
    for name in dict.fromkeys(piece.text for piece in written):
        what = "a tie: its blocks share one set of parameters" if type == "tie" else "a place of the stream"
        yield name, type, name, what


def _arguments(pieces: Tokens, start: int, frame: OpenFrame, pair: bool) -> Iterator[_Row]:
    if frame.sort == "read":
        yield from ((name, "option", name + "=" * (name == "init"), doc) for name, doc in READ_WORDS.items())
        return
    given = {*frame.given}
    if frame.sort == "set":
        known = known_settings(pair)
        given |= {piece.text for piece in pieces if piece.type == "setting" and piece.start != start}
    else:
        known = known_options(frame.name)
        given |= _given_after(pieces, start)
    for name, option in known.items():
        if name not in given:
            kind = "setting" if frame.sort == "set" else "option"
            yield name, kind, name if option.type is bool else f"{name}=", summary(option)


def _given_after(pieces: Tokens, start: int) -> set[str]:
    """The options that a call has after the word at `start`."""
    found, depth = set[str](), 0
    for piece in pieces:
        if piece.start <= start:
            continue
        depth += {"(": 1, ")": -1}.get(piece.text, 0)
        if depth < 0 or piece.text == ";":
            break
        if piece.type == "option":
            found.add(piece.text)
    return found


def _values(option: Option) -> Iterator[_Row]:
    words = ["true", "false"] if option.type is bool else [*option.choices]
    words += ["none"] if option.optional else []
    default = spell(option.default)
    words += [default] if default not in words and option.default is not None else []
    for word in words:
        yield word, "value", word, f"{option.doc}{'; the default' * (word == default)}"


def summary(option: Option) -> str:
    """What an option does, its values and its default, in one line."""
    default = f"; default {spell(option.default)}" if option.default is not None or option.optional else ""
    return f"{option.doc}. {option.wanted().capitalize()}{default}"


def _models(text: str, offset: int) -> list[Completion]:
    """Published models, where nothing but the start of a name is in the text; every size after `zoo:`."""
    found = _MODEL.fullmatch(text[:offset])
    if found is None or text[offset:].strip():
        return []
    asked, word = found[1].lower().startswith(ZOO), found[1].lower().removeprefix(ZOO)
    names = (*zoo.FAMILIES, *zoo.names()) if asked else zoo.FAMILIES
    models = [(name, zoo.entry(name)) for name in names if name.startswith(word)]
    return [
        Completion(f"{ZOO}{name}", "zoo", f"{model.text}\n", found.start(1), offset, model.source)
        for name, model in models
    ]


def _matching(found: Iterable[Completion], word: str) -> list[Completion]:
    """Those that a word may be the start of; by how well it fits, and as they came."""
    lower = word.lower()
    ours = {*meant(word)}

    def rank(each: Completion) -> int:
        label = each.label.lower()
        if label.startswith(lower):
            return 0 if each.label.startswith(word) else 1
        if each.label in ours or {f"attn_{each.label}", f"ff_{each.label}"} & ours:
            return 2
        return 3 if len(lower) > 1 and lower in label else 4

    return sorted((each for each in found if rank(each) < 4), key=rank)
