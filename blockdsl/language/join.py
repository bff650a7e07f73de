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
from .syntax import Argument, Definition, Settings, pattern_pieces, statement_pieces, text_of


def joined(encoder: str, decoder: str, settings: Mapping[str, Value]) -> str:
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
    statements = [Settings(tuple(arguments.values()))] if arguments else []
    defined = {s.name: s for tree in reversed(trees.values()) for s in tree.statements if isinstance(s, Definition)}
    parts = [text_of(statement_pieces(statement)) for statement in (*statements, *defined.values())]
    text = " ".join([*parts, text_of(pattern_pieces(trees["enc_"].body, trees["dec_"].body))])
    with suppress(PatternError):
        return str(parse(text))
    return text
