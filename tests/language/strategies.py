"""Random patterns as text, with what they mean worked out here and not by the package.

A pattern is made as a small tree of its own (`Program`), written as text with odd spacing and comments, and
expanded by the few lines of `meaning`: the language's rules once more, told as simply as they can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

# The tree ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A block: its kind, and its options as (name, how it is written, value)."""

    kind: str
    options: tuple[tuple[str, str, Any], ...] = ()


@dataclass(frozen=True)
class Call:
    """A macro call, as written, and the blocks it stands for as (kind, divisor)."""

    text: tuple[str, ...]
    blocks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Use:
    """A definition's name."""

    name: str


@dataclass(frozen=True)
class Parens:
    stages: tuple[Section, ...]


@dataclass(frozen=True)
class Marked:
    """An item with suffixes; each is a number as written, or a label."""

    item: Item
    shift: str | None = None
    divide: str | None = None
    tie: str | None = None


@dataclass(frozen=True)
class Times:
    item: Item
    count: int


@dataclass(frozen=True)
class Both:
    """Parallel branches."""

    branches: tuple[Item, ...]


Item = Word | Call | Use | Parens | Marked | Times | Both


@dataclass(frozen=True)
class Section:
    """A stage."""

    name: str | None
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Program:
    settings: tuple[tuple[str, str, Any], ...]
    definitions: tuple[tuple[str, tuple[Section, ...]], ...]
    stages: tuple[Section, ...]


# What it means -----------------------------------------------------------------------------------------------------


@dataclass
class Block:
    kind: str
    given: dict[str, Any]
    shift: int | None
    divide: float
    tied_as: list[tuple[str, int]]  # for each tie around it: label, and which block of the tied item it is
    stage: int


@dataclass
class Meaning:
    blocks: list[Block] = field(default_factory=list)  # left to right, branches one after another
    stages: list[str | None] = field(default_factory=lambda: [None])
    forks: int = 0

    @property
    def layer_types(self) -> tuple[str, ...]:
        return tuple(block.kind for block in self.blocks)

    def classes(self) -> list[int | None]:
        """For each block the first block that shares its parameters, or None where it is tied to no label."""
        owner = list(range(len(self.blocks)))
        for i, block in enumerate(self.blocks):
            for j, other in enumerate(self.blocks[:i]):
                if set(block.tied_as) & set(other.tied_as) and owner[i] != owner[j]:
                    low, high = sorted((owner[i], owner[j]))
                    owner = [low if o == high else o for o in owner]
        return [owner[i] if block.tied_as else None for i, block in enumerate(self.blocks)]


def meaning(program: Program) -> Meaning:
    """Every block the program stands for."""
    definitions = dict(program.definitions)
    out = Meaning()
    empty = True  # whether the newest stage has no block yet

    def section(each: Section, boundary: bool, *around: Any) -> None:
        nonlocal empty
        if boundary or (each.name is not None and not empty):
            out.stages.append(each.name)
            empty = True
        elif each.name is not None:
            out.stages[-1] = each.name
        for item in each.items:
            walk(item, *around)

    def sections(stages: tuple[Section, ...], *around: Any) -> None:
        for i, each in enumerate(stages):
            section(each, i > 0, *around)

    def block(kind: str, given: dict[str, Any], shift: int | None, divide: float, ties: list[Any]) -> None:
        nonlocal empty
        empty = False
        places = []
        for tie in ties:
            places.append((tie[0], tie[1]))
            tie[1] += 1
        out.blocks.append(Block(kind, given, shift, divide, places, len(out.stages) - 1))

    def walk(item: Item, shift: int | None, divide: float, ties: list[Any]) -> None:
        if isinstance(item, Word):
            block(item.kind, {name: value for name, _, value in item.options}, shift, divide, ties)
        elif isinstance(item, Call):
            for kind, by in item.blocks:
                block(kind, {}, shift, divide * by, ties)
        elif isinstance(item, Use):
            sections(definitions[item.name], shift, divide, ties)
        elif isinstance(item, Parens):
            sections(item.stages, shift, divide, ties)
        elif isinstance(item, Times):
            for _ in range(item.count):
                walk(item.item, shift, divide, ties)
        elif isinstance(item, Both):
            out.forks += 1
            for branch in item.branches:
                walk(branch, shift, divide, ties)
        else:
            inner = shift if item.shift is None else int(item.shift)
            by = 1 if item.divide is None else float(item.divide)
            walk(item.item, inner, divide * by, ties if item.tie is None else [*ties, [item.tie, 0]])

    sections(program.stages, None, 1, [])
    return out


# How it is written -------------------------------------------------------------------------------------------------


def tokens(program: Program) -> list[str]:
    """The program's words and signs; what takes options ends in its '('."""
    out: list[str] = []
    for setting in program.settings:
        out += ["set", *option(setting), ";"]
    for name, stages in program.definitions:
        out += [name, "=", *_sections(stages), ";"]
    return [*out, *_sections(program.stages)]


def option(written: tuple[str, str, Any]) -> list[str]:
    name, text, _ = written
    return [name] if text == "" else [name, "=", text]


def _sections(stages: tuple[Section, ...]) -> Iterator[str]:
    for i, stage in enumerate(stages):
        if i:
            yield "|"
        if stage.name is not None:
            yield from (stage.name, ":")
        for item in stage.items:
            yield from _item(item)


def _item(item: Item) -> Iterator[str]:
    if isinstance(item, Word):
        yield f"{item.kind}(" if item.options else item.kind
        for i, each in enumerate(item.options):
            yield from ([","] if i else [])
            yield from option(each)
        yield from ([")"] if item.options else [])
    elif isinstance(item, Call):
        yield from item.text
    elif isinstance(item, Use):
        yield item.name
    elif isinstance(item, Parens):
        yield from ("(", *_sections(item.stages), ")")
    elif isinstance(item, Times):
        yield from (*_item(item.item), "*", str(item.count))
    elif isinstance(item, Both):
        for i, branch in enumerate(item.branches):
            yield from (["&"] if i else [])
            yield from _item(branch)
    else:
        yield from _item(item.item)
        yield from ((">>", item.shift) if item.shift is not None else ())
        yield from (("/", item.divide) if item.divide is not None else ())
        yield from (("@", item.tie) if item.tie is not None else ())


def plain(program: Program) -> str:
    """The program with a space between any two tokens."""
    return " ".join(tokens(program))


_SPACES = ("", "", "", " ", " ", "  ", "\t", "\n", "\r\n", "\n\n", "\f")


@st.composite
def spaced(draw: st.DrawFn, program: Program) -> tuple[str, list[str]]:
    """The program with odd spacing and comments; also the comments in order."""
    words = tokens(program)
    gaps = draw(st.lists(st.sampled_from(_SPACES), min_size=len(words) + 1, max_size=len(words) + 1))
    commented = draw(st.sets(st.integers(0, len(words)), max_size=4))
    text, comments = "", []
    for i, word in enumerate([*words, ""]):
        gap = gaps[i]
        if i in commented:
            comment = draw(st.sampled_from(("#", "# note", "#a (", "# x = 1; ü", "##  two", "# |")))
            comments.append(comment)
            gap += comment + draw(st.sampled_from(("\n", "  \n", "\r\n", "\n\n  ")))
        if gap == "" and text and word and _touches(text[-1], word[0]):
            gap = " "
        text += gap + word
    return text, comments


def _touches(before: str, after: str) -> bool:
    """Whether two tokens written without a space would become one or change their meaning."""
    wordlike = before.isalnum() or before in "_."
    return wordlike and (after.isalnum() or after in "_.(")


# Random ones -------------------------------------------------------------------------------------------------------

FLAG = [("", True), ("true", True), ("false", False)]
SHARE = [("0.1", 0.1), (".25", 0.25), ("1e-2", 0.01), ("0", 0)]
COMMON = {
    "pre_norm": FLAG,
    "use_rmsnorm": FLAG,
    "use_scalenorm": FLAG,
    "sandwich_norm": FLAG,
    "use_simple_rmsnorm": FLAG,
    "use_adaptive_layernorm": FLAG,
    "use_adaptive_rmsnorm": FLAG,
    "use_adaptive_layerscale": FLAG,
    "pre_and_post_norm": FLAG,
    "layer_scale": [("0.1", 0.1), ("none", None)],
    "layer_dropout": SHARE,
    "scale_residual": FLAG,
    "scale_residual_constant": [("2", 2), (".75", 0.75), ("0", 0)],
    "branch_scale": [("0.22", 0.22)],
    "gate_residual": FLAG,
    "orthog_residual": FLAG,
    "init_gain": [("0.5", 0.5), ("none", None)],
    "checkpoint": [("block", "block"), ("stage", "stage"), ("none", None)],
}
FACTORS: list[tuple[str, Any]] = [("(1, 2.5)", (1, 2.5)), ("(4.0)", (4,)), ("none", None)]
ATTENTION = {
    "heads": [("1", 1), ("16", 16), ("007", 7)],
    "dim_head": [("32", 32), ("none", None)],
    "dropout": SHARE,
    "qk_scale": [("1", 1), ("0.125", 0.125), ("none", None)],
    "qkv_bias": FLAG,
    "out_bias": FLAG,
    "residual_attn": FLAG,
}
OPTIONS: dict[str, dict[str, list[tuple[str, Any]]]] = {
    "a": ATTENTION | {"causal": FLAG, "rotary": FLAG, "rotary_long_factors": FACTORS} | COMMON,
    "c": ATTENTION | COMMON,
    "f": {
        "mult": [("4", 4), ("2.5", 2.5), ("1e1", 10.0)],
        "inner": [("8960", 8960), ("none", None)],
        "activation": [("relu", "relu"), ("gelu_tanh", "gelu_tanh"), ("none", None)],
        "glu": FLAG,
        "swish": FLAG,
        "relu_squared": FLAG,
        "no_bias": FLAG,
        "dropout": SHARE,
    }
    | COMMON,
}
SETTINGS: dict[str, list[tuple[str, Any]]] = {
    "dim": [("512", 512), ("64", 64)],
    "heads": [("4", 4)],
    "causal": FLAG,
    "rotary_pos_emb": FLAG,
    "ff_mult": [("2", 2), ("1.5", 1.5)],
    "attn_dim_head": [("none", None), ("8", 8)],
    "num_tokens": [("256", 256)],
    "emb_dropout": SHARE,
}
DIVISORS = ("2", "3", "0.5", "1.25", "7", "4.0", "1e1")


def written(name: str, choices: list[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, str, Any]]:
    return st.sampled_from(choices).map(lambda choice: (name, *choice))


@st.composite
def options(draw: st.DrawFn, table: dict[str, list[tuple[str, Any]]], most: int) -> tuple[tuple[str, str, Any], ...]:
    names = draw(st.lists(st.sampled_from(sorted(table)), unique=True, max_size=most))
    return tuple(draw(written(name, table[name])) for name in names)


@st.composite
def words(draw: st.DrawFn) -> Word:
    kind = draw(st.sampled_from("aaccff"))
    return Word(kind, draw(options(OPTIONS[kind], 3)) if draw(st.integers(0, 3)) == 0 else ())


@st.composite
def calls(draw: st.DrawFn) -> Call:
    n = draw(st.integers(1, 4))
    macro = draw(st.sampled_from(("macaron", "cross", "sandwich", "par")))
    if macro == "macaron":
        return Call(("macaron(", str(n), ")"), (("f", 2), ("a", 1), ("f", 2)) * n)
    if macro == "cross":
        return Call(("macaron(", "n", "=", str(n), ",", "cross", ")"), (("f", 2), ("a", 1), ("c", 1), ("f", 2)) * n)
    if macro == "par":  # at depth 6 with ratio 4: 12 blocks, 3 groups, cut 8, width (8 + 8 // 3) // 3 = 3
        return Call(("par(", "6", ",", "4", ")"), (("a", 1), ("f", 1), ("f", 1)) * 3 + (("f", 1),) * 3)
    k = draw(st.integers(1, n))
    text = ("sandwich(", str(k), ",", str(n), ")") if k < n or draw(st.booleans()) else ("sandwich(", str(k), ")")
    return Call(text, (("a", 1),) * k + (("a", 1), ("f", 1)) * (n - k) + (("f", 1),) * k)


@dataclass
class _Scope:
    """What the part of a program that is being made may use."""

    labels: dict[str, Item]  # what is tied by this label; it is the same everywhere, which makes ties legal
    definitions: dict[str, bool]  # name → whether there are stages in it
    names: int = 0

    def new_name(self) -> str:
        self.names += 1
        return f"s{self.names}"


@st.composite
def items(draw: st.DrawFn, scope: _Scope, depth: int, staged: bool, named: bool) -> Item:
    """One item. `staged`: stages may start in it; `named`: it is the first of a stage that has a name."""
    sorts = ["word"] * 4 + ["call", "use", "tied"] + (["parens", "marked", "times", "both"] * 2 if depth else [])
    sort = draw(st.sampled_from(sorts))
    if sort == "word":
        return draw(words())
    if sort == "call":
        return draw(calls())
    if sort == "use":
        usable = [name for name, has_stages in scope.definitions.items() if staged or not has_stages]
        return Use(draw(st.sampled_from(usable))) if usable else draw(words())
    if sort == "tied":
        if not scope.labels:
            return draw(words())
        label = draw(st.sampled_from(sorted(scope.labels)))
        return Marked(scope.labels[label], draw(_maybe(("0", "1", "3"))), draw(_maybe(DIVISORS)), label)
    if sort == "both":
        branches = draw(st.lists(items(scope, depth - 1, False, False), min_size=2, max_size=3))
        return Both(tuple(Parens((Section(None, (b,)),)) if isinstance(b, Both) else b for b in branches))
    inner = draw(items(scope, depth - 1, staged, named)) if draw(st.booleans()) else None
    if inner is None or isinstance(inner, Both | Times | Marked):
        inner = Parens((Section(None, (inner,)),) if inner else draw(sections(scope, depth - 1, staged, named, 2)))
    if sort == "marked":
        marks = {"shift": draw(_maybe(("0", "1", "2"))), "divide": draw(_maybe(DIVISORS))}
        return Marked(inner, **marks) if any(marks.values()) else inner
    if sort == "times":
        # A stage's name at the start of what is repeated starts a stage anew each time, which is legal.
        return Times(inner, draw(st.integers(1, 3)))
    return inner


def _maybe(choices: tuple[str, ...]) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), st.sampled_from(choices))


@st.composite
def sections(draw: st.DrawFn, scope: _Scope, depth: int, staged: bool, named: bool, most: int) -> tuple[Section, ...]:
    """Stages, `most` at most, or only one where none may start."""
    out = []
    for i in range(draw(st.integers(1, most)) if staged else 1):
        may_name = staged and not (named and i == 0)
        name = scope.new_name() if may_name and draw(st.integers(0, 3)) == 0 else None
        # Two names of one stage clash; so do two where a group's first stage continues a named one.
        first = draw(items(scope, depth, staged, name is not None or (named and i == 0)))
        rest = draw(st.lists(items(scope, depth, staged, False), max_size=3))
        out.append(Section(name, (first, *rest)))
    return tuple(out)


@st.composite
def programs(draw: st.DrawFn, depth: int = 3) -> Program:
    """A legal program, of some ten blocks as a rule and of a few hundred at the most."""
    scope = _Scope({}, {})
    settings = draw(options(SETTINGS, 3)) if draw(st.integers(0, 3)) == 0 else ()
    if draw(st.booleans()):
        scope.labels["x"] = draw(words())
        pair = (Marked(scope.labels["x"], tie="x"), draw(words()))
        scope.labels["y"] = Parens((Section(None, pair if draw(st.booleans()) else (draw(words()), draw(words()))),))
    definitions = []
    for name in ("enc", "mid")[: draw(st.integers(0, 2))]:
        has_stages = draw(st.booleans())
        body = draw(sections(scope, 1, has_stages, True, 2))
        definitions.append((name, body))
        scope.definitions[name] = has_stages
    stages = draw(sections(scope, depth, True, False, 3))
    return Program(settings, tuple(definitions), stages)
