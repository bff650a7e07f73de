"""Places and reads while a pattern is expanded: which places a name stands for, and what a read says.

A place is a point of the stream between blocks. It is known by the index of its label, counted from the text's start;
the compiler knows which node has reached it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import Fault, Span, did_you_mean, listing, shortened
from ..registry.options import Option, spell
from ..registry.reads import JOINS, WHICH, Join
from .syntax import Label, Read


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """A name for the place that the stream has reached; `index` counts the labels from the text's start."""

    name: str
    index: int
    stage: int
    span: Span


def read_arguments(read: Read) -> tuple[str | int, Join, float | None]:
    """Which places it reads, how they join the stream, and from which number on.

    Raises:
        Fault: an argument is wrong.
    """
    which: str | int | None = None
    join: Join | None = None
    init: float | None = None
    for argument in read.arguments:
        name, value = argument.name, argument.value
        if name is None or (name in (*WHICH, *JOINS) and value is True):
            said = name if name is not None else value
            if name is None and (not isinstance(said, int) or isinstance(said, bool) or said < 0):
                problem = f"a read takes a whole number of at least 0, not {shortened(spell(value))}"
                raise Fault(argument.span, problem, "it counts the places with this label from 0, as in <u(0)")
            if name in JOINS:
                if join is not None:
                    raise Fault(argument.span, f"a read joins the stream by '{join.name}' or by '{name}'", "write one")
                join = JOINS[name]
            elif which is not None:
                raise Fault(argument.span, f"a read says '{which}' and '{said}'", "write which places it reads once")
            else:
                assert isinstance(said, str | int)
                which = said
        elif name == "init":
            if fault := Option("init", float, 0.0, "").fault(value):
                raise Fault(argument.span, f"init {fault}", "what the learned numbers are at first: <u(gain, init=0.5)")
            assert isinstance(value, int | float)
            init = value
        else:
            known = (*WHICH, *JOINS, "init")
            hint = did_you_mean(name, known) or listing("words", known)
            raise Fault(argument.span, f"a read has no '{shortened(name)}'", hint)
    join = join or JOINS["add"]
    if init is not None and join.init is None:
        learned = " and ".join(f"'{each.name}'" for each in JOINS.values() if each.init is not None)
        raise Fault(read.span, f"init is given, and '{join.name}' has no number to start from", f"it is for {learned}")
    return "latest" if which is None else which, join, join.init if init is None else init


READ_EACH = 100
"""So many places may be read for each block that a text may have, by all reads together: `all` is quadratic."""


class Places:
    """The places that labels name, while the text is expanded.

    Args:
        known: all labels that the text writes, above or below.
        max_blocks: how many blocks the text may have.
        elsewhere: labels on the left side of '=>', where this is the right one.
    """

    def __init__(self, known: Collection[str], max_blocks: int, elsewhere: Collection[str] = ()) -> None:
        self.known, self.elsewhere = known, elsewhere
        self.limit = self.left = READ_EACH * max_blocks
        self.count = 0
        self.written: dict[str, list[int]] = {}
        self.live: dict[str, list[int]] = {}  # less those that were popped
        self.here: set[str] = set()  # names of the place that the stream has reached

    def write(self, label: Label, stage: int) -> LabelSpec:
        name = label.name
        if name in self.here:
            raise Fault(label.span, f"the label '{shortened(name)}' names this place already", "remove one of them")
        self.here.add(name)
        spec = LabelSpec(name, self.count, stage, label.span)
        self.count += 1
        self.written.setdefault(name, []).append(spec.index)
        self.live.setdefault(name, []).append(spec.index)
        return spec

    def find(self, name: str, which: str | int, span: Span) -> tuple[int, ...]:
        """The indices that a read of this name finds."""
        if name not in self.written:
            if name in self.known:
                hint = f"a read comes after its label: write ^{shortened(name)} above"
                raise Fault(span, f"the label '{shortened(name)}' is read before it is written", hint)
            if name in self.elsewhere:
                name = shortened(name)
                problem = f"the label '{name}' is on the left side of '=>', which is another sequence"
                hint = f"'c' reads what the left side gives; <{name} at the end of that adds what is at the label"
                raise Fault(span, problem, hint)
            hint = did_you_mean(name, self.written) or f"a label is written ^{shortened(name)}, before what reads it"
            raise Fault(span, f"there is no label '{shortened(name)}'", hint)
        live, total = self.live[name], len(self.written[name])
        if not live:
            times = "once" if total == 1 else f"{total} times"
            problem = f"nothing is left of the label '{shortened(name)}': it is written {times} before this"
            raise Fault(span, f"{problem} and popped as often", "as many reads may pop it as labels were written")
        if isinstance(which, int):
            if which >= len(live):
                problem = f"the label '{shortened(name)}' names {len(live)} place{'s' * (len(live) > 1)} here"
                raise Fault(
                    span, f"{problem}, and {which} is none of them", f"they are counted from 0 to {len(live) - 1}"
                )
            return (live[which],)
        if which == "all":
            self.left -= len(live)
            if self.left < 0:
                problem = f"up to here reads by 'all' read more than {self.limit:,} places"
                raise Fault(span, problem, "in Python, parse(text, max_blocks=...) raises the limit")
            return tuple(live)
        if which == "pop":
            return (live.pop(),)
        return (live[0 if which == "first" else -1],)
