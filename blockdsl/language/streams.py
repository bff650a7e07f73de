"""Two streams in one text, `p => q`: what each of them is alone, and what joins them.

Owns which statements are of which stream. The settings' names are `registry.streams`' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..errors import PatternError, Span, shortened
from ..registry.kinds import kinds
from ..registry.streams import implied, names_for, refusal
from .expand import BlockSpec, Expansion
from .names import used
from .syntax import Argument, Body, Settings, Statement

_EXAMPLE = "(a f)*6 => (a c f)*6"


def of_side(statements: tuple[Statement, ...], side: str, body: Body) -> tuple[Statement, ...]:
    """The statements of one stream: its settings by their own names, and the definitions that it uses."""
    arguments = {a.name: a for s in statements if isinstance(s, Settings) for a in s.arguments if a.name is not None}
    names = {written: own for own, written in names_for(side, arguments).items()}
    more = implied(side, {own: arguments[written].value for written, own in names.items()})
    needed, out = used(statements, body), []  # type: set[str], list[Statement]
    for statement in statements:
        if not isinstance(statement, Settings):
            out += [statement] if statement.name in needed else []
        elif kept := tuple(replace(a, name=names[a.name]) for a in statement.arguments if a.name in names):
            out.append(replace(statement, arguments=kept))
    return (*([Settings(tuple(Argument(name, value) for name, value in more.items()))] if more else []), *out)


def check_settings(text: str, statements: tuple[Statement, ...]) -> None:
    """Raise PatternError at a setting that two streams cannot have."""
    for argument in (a for s in statements if isinstance(s, Settings) for a in s.arguments):
        if reason := refusal(argument.name or "", argument.value):
            raise PatternError(text, argument.span, f"two streams take no {argument.name}", reason)


def check_pair(text: str, encoder: Expansion, decoder: Expansion, max_blocks: int) -> None:
    """Judge what two streams are together.

    Raises:
        PatternError: the left one attends to a context, the right one does not, both have a stage or a tie of one name,
            or there are more than `max_blocks` blocks.
    """
    ours, theirs = [*encoder.blocks()], [*decoder.blocks()]
    if block := next(attending(ours), None):
        hint = f"leave '{block.kind}' out, or move it to the right side: {_EXAMPLE}"
        raise PatternError(text, block.span, "the left side of '=>' has no context to attend to", hint)
    if not any(attending(theirs)):
        hint = f"'c' attends to it, as in {_EXAMPLE}; stages of one stream are separated by '|'"
        raise PatternError(text, _whole(theirs), "nothing on the right side of '=>' reads the left side", hint)
    if total := (len(ours) + len(theirs)) * (len(ours) + len(theirs) > max_blocks):
        problem = f"both sides together have {total:,} blocks; the limit is {max_blocks:,}"
        raise PatternError(text, _whole(theirs), problem, "in Python, parse(text, max_blocks=...) raises it")
    ties = {_label(block) for block in ours} - {""}
    if block := next((block for block in theirs if _label(block) in ties), None):
        problem = f"the tie '{shortened(_label(block))}' is on both sides of '=>'"
        raise PatternError(
            text, block.span, problem, "each side has weights of its own; give the tie another name here"
        )
    if names := {*encoder.stages} & {*decoder.stages} - {None}:
        name = sorted(filter(None, names))[0]
        raise PatternError(text, _whole(theirs), f"two stages are named '{shortened(name)}'", "choose another name")


def attending(blocks: Iterable[BlockSpec]) -> Iterator[BlockSpec]:
    """Those that attend to a context that is not a place of their own stream, as c(context=u) is."""
    known = kinds()
    return (block for block in blocks if "context" in known[block.kind].inputs and "context" not in block.reads)


def _label(block: BlockSpec) -> str:
    return "" if block.tie is None else block.tie.partition(".")[0]


def _whole(blocks: list[BlockSpec]) -> Span:
    return Span(min(block.span.start for block in blocks), max(block.span.end for block in blocks))
