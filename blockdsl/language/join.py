"""Two texts as one: the inverse of `Pattern.encoder` and `Pattern.decoder`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ..errors import PatternError
from ..registry.options import Value
from ..registry.streams import ANYWAY
from .parse import parse_tree
from .pattern import parse
from .syntax import (
    Argument,
    Body,
    Definition,
    Group,
    Item,
    Parallel,
    Read,
    Ref,
    Repeat,
    Settings,
    Statement,
    Suffixed,
    group,
    pattern_pieces,
    statement_pieces,
    suffixed,
    text_of,
)


def of_both(enc_causal: bool, dec_causal: bool, tie_token_emb: bool) -> dict[str, Value]:
    """What the text of two streams says of both, beside their own settings."""
    said = {"enc_causal": enc_causal, "dec_causal": dec_causal, "tie_token_emb": tie_token_emb}
    usual = {"enc_causal": False, "dec_causal": True, "tie_token_emb": False}
    return {name: value for name, value in said.items() if value != usual[name]}


def join(encoder: str, decoder: str, settings: Mapping[str, Value]) -> str:
    """Two texts as one, `p => q`: settings that both have are of both, and others get their prefix.

    Args:
        settings: further ones; whether the two are causal is said here alone.

    Returns:
        the text; canonical, unless both have a tie or a stage of one name, which is no pattern.
    """
    trees = {"enc_": parse_tree(encoder), "dec_": parse_tree(decoder)}
    given = {
        side: {a.name: a for s in tree.statements if isinstance(s, Settings) for a in s.arguments if a.name}
        for side, tree in trees.items()
    }
    theirs, ours = given["enc_"], given["dec_"]
    for own, name in ((theirs, "return_only_embed"), (theirs, "causal"), (ours, "causal")):
        own.pop(name, None)
    arguments = {name: a for name, a in ours.items() if theirs.get(name) == a or name in ANYWAY["enc_"]}
    for side, own in given.items():
        arguments |= {side + name: replace(a, name=side + name) for name, a in own.items() if arguments.get(name) != a}
    arguments |= {name: Argument(name, value) for name, value in settings.items()}
    statements: list[Statement] = [Settings(tuple(arguments.values()))] if arguments else []
    bodies = [tree.body for tree in trees.values()]
    defined = [[s for s in tree.statements if isinstance(s, Definition)] for tree in trees.values()]
    if {d.name for d in defined[0]} & {d.name for d in defined[1]} and defined[0] != defined[1]:
        bodies = [_inlined(body, own) for body, own in zip(bodies, defined, strict=True)]
    else:
        statements += dict.fromkeys([*defined[0], *defined[1]])
    parts = [text_of(statement_pieces(statement)) for statement in statements]
    text = " ".join([*parts, text_of(pattern_pieces(*bodies))])
    with suppress(PatternError):
        return str(parse(text))
    return text


def _inlined(body: Body, definitions: list[Definition]) -> Body:
    """A body with each definition's in the place of its name."""
    known: dict[str, Body] = {}

    def of(body: Body) -> Body:
        return tuple(replace(stage, items=tuple(map(item_of, stage.items))) for stage in body)

    def item_of(item: Item) -> Item:
        if isinstance(item, Ref):
            return group(known[item.name]) if item.name in known else item
        if isinstance(item, Group):
            return group(of(item.body))
        if isinstance(item, Parallel):
            return replace(item, branches=tuple(map(item_of, item.branches)))
        if isinstance(item, Suffixed):
            return suffixed(item_of(item.item), item.shift, item.divide, item.tie)
        if isinstance(item, Repeat):
            inner = item_of(item.item)
            assert isinstance(inner, Ref | Read | Group | Suffixed)
            return replace(item, item=inner)
        return item

    for definition in definitions:
        known[definition.name] = of(definition.body)
    return of(body)
