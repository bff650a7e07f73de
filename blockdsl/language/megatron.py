"""Megatron's hybrid patterns, `M-M*-|M-M*E`, as patterns of this language, and back.

A letter is a layer, here a block, and `|` cuts the pipeline, here into stages. The letters are those of today and of
2024 (M * - E), and say kinds without sizes: those are settings here and flags of the command line there.
Source: NVIDIA Megatron-LM, megatron/core/models/hybrid.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Fault, PatternError, Span, listing
from ..registry.kinds import kind_of
from .bounds import MAX_BLOCKS
from .expand import BlockSpec, Expansion, ReadSpec, Spec
from .fold import shortest
from .labels import LabelSpec
from .parse import MAX_TEXT
from .pattern import Pattern, parse


class _Letter(NamedTuple):
    block: str
    means: str


_RANKS = {"kv_rank": 512, "q_rank": 512}  # of latent attention, where Megatron's command line gives none
_LATENT = f"a({', '.join(f'{name}={rank}' for name, rank in _RANKS.items())})"
_LETTERS = {
    "M": _Letter("m", "Mamba-2"),
    "G": _Letter("gdn", "gated delta net"),
    "*": _Letter("a", "attention"),
    "+": _Letter(_LATENT, "latent attention"),
    "-": _Letter("f", "feedforward"),
    "E": _Letter("e", "experts"),
}
_CUT = "|"
_LISTED = listing("letters", [*(f"{sign} {letter.means}" for sign, letter in _LETTERS.items()), f"{_CUT} pipeline cut"])

# What Megatron has and this language has not → what it is, and what to do.
_NO_EQUAL = {
    "/": ("multi-token prediction", "leave out what follows '/': the model itself is the same"),
    "[": ("a group that is one layer of a checkpoint", "leave the brackets out: the layers are the same"),
    "]": ("a group that is one layer of a checkpoint", "leave the brackets out: the layers are the same"),
    "D": ("DeepSeek's sparse attention", "the nearest is '+', latent attention"),
    "C": ("DeepSeek's compressed sparse attention", "the nearest is '+', latent attention"),
    "H": ("DeepSeek's heavily compressed attention", "the nearest is '+', latent attention"),
    "W": ("DeepSeek's attention with a window alone", "the nearest is '*', attention, and here a(max_attend_past=...)"),
}

# Signs and letters, in capitals, that are written for another → the right one.
_MEANT = {"A": "*", "×": "*", "F": "-", "_": "-", "–": "-", "—": "-", "L": "+"}


def from_megatron(text: str, max_blocks: int = MAX_BLOCKS) -> Pattern:
    """The pattern that a hybrid pattern of Megatron is, each stage as the shortest text: `M-M*-|M-M*E`.

    It is causal, as all of theirs are. A latent attention has the sizes that Megatron has by default.

    Args:
        text: letters, M Mamba-2, G gated delta net, * attention, + latent attention, - feedforward, E experts, and |
            where the pipeline is cut.
        max_blocks: how many blocks it may stand for.

    Raises:
        PatternError: a letter is unknown or has no equal here, or a stage is empty.
    """
    if not isinstance(text, str):
        raise TypeError(f"a pattern is a string, not {type(text).__name__}")
    letters = text.rstrip()
    if len(letters) > MAX_TEXT:
        problem = f"the text is {len(letters):,} characters long; the limit is {MAX_TEXT:,}"
        raise PatternError(text, Span(MAX_TEXT, MAX_TEXT + 1), problem)
    if not letters:
        raise PatternError(text, Span(0, 1), "the pattern is empty", "write layers in their order, as in M-M*-")
    start = len(letters) - len(letters.lstrip())
    for at in range(start, len(letters)):
        if letters[at] not in _LETTERS and letters[at] != _CUT:
            raise _unreadable(letters[at], at).within(text)
    at, stages = start, []
    for stage in letters[start:].split(_CUT):
        if not stage:
            raise PatternError(
                text, Span(at, at + 1), "a stage has no layers", f"write some here, or leave '{_CUT}' out"
            )
        stages.append(shortest([_LETTERS[letter].block for letter in stage]))
        at += len(stage) + 1
    return parse(f"set causal; {' | '.join(stages)}", max_blocks)


def to_megatron(pattern: Pattern | str) -> str:
    """A pattern as Megatron's letters. Settings are not part of them: those are flags of its command line.

    Raises:
        PatternError: a block, an option, a suffix or a stage's name has no equal there; or the text is at fault.
    """
    pattern = parse(pattern) if isinstance(pattern, str) else pattern
    try:
        for stage in pattern.body:
            if stage.name is not None:
                raise Fault(stage.name_span, "Megatron's stages have no names", "leave it out")
        return _written(pattern)
    except Fault as fault:
        raise fault.within(pattern.source) from None


def _written(pattern: Pattern) -> str:
    out, stage = "", 0
    latent = pattern.settings.get("attn_kv_rank") is not None
    for spec in pattern.expansion.specs:
        block = _single(spec)
        out += _CUT * (block.stage - stage) + _letter(block, latent)
        stage = block.stage
        if {"*", "+"} <= {*out}:
            raise Fault(block.span, "a model of Megatron has attention or latent attention, not both")
    return out


def _single(spec: Spec) -> BlockSpec:
    if isinstance(spec, BlockSpec):
        return spec
    if isinstance(spec, LabelSpec | ReadSpec):
        raise Fault(spec.span, "Megatron has no labels")
    first = next(Expansion((spec,), ()).blocks())
    raise Fault(first.span, "Megatron has no parallel branches")


def _letter(block: BlockSpec, latent: bool) -> str:
    """A block's letter.

    Args:
        latent: whether the settings make attention latent.

    Raises:
        Fault: it has none, or has more than a letter says.
    """
    for said, what in ((block.shift, "token shift"), (block.divide != 1, "branch scale"), (block.tie, "tie")):
        if said:
            raise Fault(block.span, f"Megatron's layers have no {what}")
    given = dict(block.given)
    if block.kind == "a" and given.get("kv_rank", latent):
        sign = "+"
        given = {} if given == _RANKS else given
    else:
        given = {} if given == {"kv_rank": None} else given
        sign = next((sign for sign, letter in _LETTERS.items() if letter.block == block.kind), "")
    if not sign:
        raise Fault(block.span, f"Megatron has no letter for '{block.kind}' ({kind_of(block.kind).title})", _LISTED)
    if given:
        names = " and ".join(given)
        raise Fault(block.span, f"a letter of Megatron says no options: {names}", "say it for all blocks by `set`")
    return sign


def _unreadable(letter: str, at: int) -> Fault:
    where = Span(at, at + 1)
    if letter in _NO_EQUAL:
        means, hint = _NO_EQUAL[letter]
        return Fault(where, f"'{letter}', {means}, has no equal here", hint)
    if letter.isspace():
        return Fault(where, "a pattern of Megatron has no spaces", _LISTED)
    meant = _MEANT.get(letter.upper(), letter.upper())
    hint = f"did you mean '{meant}' ({_LETTERS[meant].means})?\n" if meant in _LETTERS else ""
    return Fault(where, f"unknown letter '{letter}'", hint + _LISTED)
