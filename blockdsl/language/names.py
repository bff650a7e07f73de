"""The names in a text: which are written and used, and what one that nothing has was probably meant to be."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from ..errors import Fault, Span, nearest, shortened
from ..registry.kinds import kinds
from ..registry.options import by_name
from ..registry.settings import STACK_SETTINGS
from ..synonyms import absent, meant
from .macros import MACROS
from .syntax import Body, Definition, Group, Item, Label, Parallel, Read, Ref, Statement

_SHORT = 20  # names in a list, letters in a word


def leaves_of(body: Body) -> Iterator[Ref | Label | Read]:
    """What is written in a body, in order."""
    for stage in body:
        for item in stage.items:
            yield from _leaves_in(item)


def _leaves_in(item: Item) -> Iterator[Ref | Label | Read]:
    if isinstance(item, Ref | Label | Read):
        yield item
    elif isinstance(item, Group):
        yield from leaves_of(item.body)
    elif isinstance(item, Parallel):
        for branch in item.branches:
            yield from _leaves_in(branch)
    else:
        yield from _leaves_in(item.item)


def written_labels(definitions: list[Definition], body: Body) -> Iterator[str]:
    """All that the text writes."""
    bodies = [*(definition.body for definition in definitions), body]
    return (leaf.name for each in bodies for leaf in leaves_of(each) if isinstance(leaf, Label))


def unused(statements: tuple[Statement, ...], body: Body) -> list[Definition]:
    """Definitions that nothing uses."""
    bodies = [statement.body for statement in statements if isinstance(statement, Definition)]
    used = {leaf.name for each in [*bodies, body] for leaf in leaves_of(each) if isinstance(leaf, Ref)}
    return [s for s in statements if isinstance(s, Definition) and s.name not in used]


def used(statements: tuple[Statement, ...], body: Body) -> set[str]:
    """What a body refers to, itself and by the definitions that it uses."""
    bodies = {statement.name: statement.body for statement in statements if isinstance(statement, Definition)}
    names, waiting = set[str](), [body]
    while waiting:
        new = {leaf.name for leaf in leaves_of(waiting.pop()) if isinstance(leaf, Ref)} - names
        names |= new
        waiting += [bodies[name] for name in new & bodies.keys()]
    return names


def unknown_block(ref: Ref, definitions: Collection[str]) -> Fault:
    """The fault of a block that there is not; `definitions`: those above it."""
    where = Span(ref.span.start, ref.span.start + len(ref.name))
    listed = f"kinds: {', '.join(sorted(kinds()))}; macros: {', '.join(sorted(MACROS))}"
    if definitions:
        names = sorted(definitions)
        listed += f"; defined above: {', '.join(map(shortened, names[:_SHORT]))}{', …' * (len(names) > _SHORT)}"
    hint = _meant(ref, definitions)
    return Fault(where, f"unknown block '{shortened(ref.name)}'", f"{hint}\n{listed}" if hint else listed)


def _meant(ref: Ref, definitions: Collection[str]) -> str:
    """What was probably meant, or nothing."""
    words = {word: kind.name for kind in kinds().values() for word in (kind.name, *kind.also)}
    words |= {name: name for name in (*MACROS, *definitions)}
    if ref.name.lower() not in words and (sentence := _written_otherwise(ref, words)):
        return sentence
    if (found := nearest(ref.name, words)) is None:
        return ""
    name = words[found]
    return f"did you mean '{name}'{f' ({kinds()[name].title})' if name in kinds() else ''}?"


def _written_otherwise(ref: Ref, words: Mapping[str, str]) -> str:
    """How a repeat, a setting, an option or a read is written that was put in a block's place; or nothing."""
    word, inside = ref.name, [argument.name or argument.value for argument in ref.arguments]
    if set(word) <= kinds().keys() and len(word) <= _SHORT:
        return f"put spaces between blocks: {' '.join(word)}"
    letters = word.rstrip("0123456789")
    if letters in words and letters != word and letters not in MACROS:
        return f"a count goes after '*': {words[letters]}*{word[len(letters) :]}"
    if times := re.fullmatch(r"[xX](\d+)", word):
        return f"a repeat is written with '*': a*{times[1]}"
    name = (*meant(word), word)[0]
    if name in by_name(STACK_SETTINGS) and name != word:
        return f"settings come first, without parentheses: set {name}; a f"
    for kind in sorted(kinds().values(), key=lambda kind: kind.name not in inside):  # bi(m) is of m
        own = {option.setting: option for option in kind.written_options()} | kind.written_by_name
        if option := own.get(name):
            example = f"{kind.name}({option.name}{'' if option.type is bool else '=...'})"
            return f"options go in parentheses right after the block: {example}"
    if word == "read":
        return "a read is written <u, after a label ^u"
    if word in ("set", "true", "false", "none") or word in by_name(STACK_SETTINGS):
        return "settings come first, without parentheses: set dim=512, pre_norm=false; a f"
    return absent(word)
