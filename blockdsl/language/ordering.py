"""The keyword API's ordering options, as a pattern.

`depth`, `cross_attend`, `only_cross`, `macaron`, `sandwich_coef`, `par_ratio`, `custom_layers`, those that say what a
block reads of earlier ones, and the per-block tuples of `shift_tokens` and `layer_dropout` say which blocks there are,
in which order and how they are wired, and that is what a pattern says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from ..errors import UserError
from ..registry.kinds import kinds
from ..registry.options import plain, whole
from .bounds import MAX_BLOCKS
from .macros import par_layout
from .pattern import Pattern, parse


class OrderingKeyword(NamedTuple):
    """A keyword that says which blocks there are, for the reference.

    `keyword` is an example's arguments, and `pattern` what they stand for.
    """

    name: str
    values: str
    default: str
    doc: str
    keyword: str
    pattern: str


ORDERING_KEYWORDS = (
    OrderingKeyword(
        "depth",
        "a whole number of at least 1",
        "none",
        "how many times the default block, a f, is run",
        "depth=6",
        "(a f)*6",
    ),
    OrderingKeyword(
        "cross_attend",
        "true or false",
        "false",
        "the default block is a c f, with cross-attention (arXiv:1706.03762)",
        "depth=6, cross_attend=True",
        "(a c f)*6",
    ),
    OrderingKeyword(
        "only_cross",
        "true or false",
        "false",
        "the default block is c f; with cross_attend",
        "depth=6, cross_attend=True, only_cross=True",
        "(c f)*6",
    ),
    OrderingKeyword(
        "macaron",
        "true or false",
        "false",
        "a feedforward before each block too, and every feedforward a half step (arXiv:1906.02762)",
        "depth=6, macaron=True",
        "macaron(6)",
    ),
    OrderingKeyword(
        "sandwich_coef",
        "a whole number from 1 to depth",
        "none",
        "so many attentions first, and as many feedforwards last (arXiv:1911.03864)",
        "depth=6, sandwich_coef=2",
        "sandwich(2, 6)",
    ),
    OrderingKeyword(
        "par_ratio",
        "a whole number from 2 to the number of blocks",
        "none",
        "one attention for every so many blocks, early in the stack, then feedforwards (arXiv:2009.04534)",
        "depth=6, par_ratio=4",
        "par(6, 4)",
    ),
    OrderingKeyword(
        "custom_layers",
        "a list of block kinds",
        "none",
        "the kind of each block; depth, which x-transformers asks for as well, then has no effect",
        "custom_layers=('a', 'f', 'f')",
        "a f f",
    ),
    OrderingKeyword(
        "unet_skips",
        "true or false",
        "false",
        "later repeats of the default block read what entered earlier ones, as in a U-Net (arXiv:2209.12152)",
        "depth=6, unet_skips=True",
        "(^u a f)*3 (<u(pop, cat) a f)*3",
    ),
    OrderingKeyword(
        "add_value_residual",
        "true or false",
        "false",
        "attentions mix the values of the first of their kind with their own (arXiv:2410.17897)",
        "depth=6, add_value_residual=True, learned_value_residual_mix=False",
        "a ^v f (a(values=v) f)*5",
    ),
    OrderingKeyword(
        "learned_value_residual_mix",
        "true or false",
        "true with add_value_residual",
        "they do in a share that is learned for each token and head; else half of each",
        "depth=6, add_value_residual=True, learned_value_residual_mix=True",
        "a ^v f (a(values=v, value_mix=learned) f)*5",
    ),
    OrderingKeyword(
        "shift_tokens",
        "a list of whole numbers of at least 0, one for each block",
        "none",
        "token shift of each block (RWKV-LM)",
        "depth=1, shift_tokens=(1, 0)",
        "a>>1 f>>0",
    ),
    OrderingKeyword(
        "layer_dropout",
        "a list of numbers of at least 0 and below 1, one for each block",
        "none",
        "stochastic depth of each block (arXiv:1603.09382)",
        "depth=1, layer_dropout=(0.1, 0.2)",
        "a(layer_dropout=0.1) f(layer_dropout=0.2)",
    ),
)


def pattern_of(depth: int | None = None, **ordering: Any) -> Pattern:
    """The pattern that these options stand for; arguments and errors are those of `words_of`."""
    words = words_of(depth, **ordering)
    for macro, name in (("sandwich({1}, {0})", "sandwich_coef"), ("par({0}, {1})", "par_ratio")):
        if {key for key, value in ordering.items() if plain(value) not in (None, False)} == {name}:
            return parse(macro.format(depth, ordering[name]))
    return Pattern.from_layers([word for block in words for word in block])


def words_of(
    depth: int | None = None,
    *,
    cross_attend: bool = False,
    only_cross: bool = False,
    macaron: bool = False,
    sandwich_coef: int | None = None,
    par_ratio: int | None = None,
    custom_layers: Sequence[str] | None = None,
    unet_skips: bool = False,
    add_value_residual: bool = False,
    learned_value_residual_mix: bool | None = None,
    shift_tokens: Sequence[int] | None = None,
    layer_dropout: Sequence[float] | None = None,
) -> list[list[str]]:
    """The text of each block that these options stand for, between the label or read before it and the label after it.

    Args:
        depth: how many times the default block, `a f`, is run. x-transformers asks for it beside custom_layers, too,
            and does not read it then; nor is it read here.
        cross_attend: the default block is `a c f`; with only_cross, `c f`.
        macaron: a feedforward before each block too, and every feedforward a half step (arXiv:1906.02762).
        sandwich_coef: attentions first, feedforwards last (arXiv:1911.03864).
        par_ratio: one attention to so many blocks (arXiv:2009.04534).
        custom_layers: the kind of each block. The other arguments must fit it: cross_attend a list with `c`,
            only_cross one without `a`, macaron one with `f`, each of which is then a half step.
        unet_skips: each of the later repeats of the default block reads what entered one of the earlier ones, the last
            that of the first, as the skips of a U-Net (arXiv:2209.12152).
        add_value_residual: self-attentions mix the values of the first with their own (arXiv:2410.17897), and so do
            cross-attentions.
        learned_value_residual_mix: self-attentions in a share that is learned for each token and head, else half of
            each, as cross-attentions do; by default it is learned.
        shift_tokens: token shift of each block.
        layer_dropout: stochastic depth of each block.

    Raises:
        TypeError: two of custom_layers, par_ratio and sandwich_coef, or no depth; or one without what it belongs to.
        UserError: a value that does not fit the others.
    """
    depth, sandwich_coef, par_ratio = (
        None if value is None else whole(name, value, 1)
        for name, value in (("depth", depth), ("sandwich_coef", sandwich_coef), ("par_ratio", par_ratio))
    )
    custom_layers, shift_tokens, layer_dropout = map(plain, (custom_layers, shift_tokens, layer_dropout))
    ways = {"custom_layers": custom_layers, "par_ratio": par_ratio, "sandwich_coef": sandwich_coef}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise TypeError(f"{' and '.join(given)} each decide the order of the blocks; give one")
    if only_cross and not cross_attend:
        raise TypeError("only_cross needs cross_attend=True")
    if custom_layers is not None:
        _check_custom(custom_layers, cross_attend, only_cross, macaron)
    if unet_skips and given:
        raise TypeError(f"unet_skips joins repeats of the default block, and {given[0]} has none")
    if learned_value_residual_mix and not add_value_residual:
        raise TypeError("learned_value_residual_mix needs add_value_residual=True")
    block = _default_block(cross_attend, only_cross, macaron)
    layers = _layers(depth, block, sandwich_coef, par_ratio, custom_layers)
    if cross_attend and "c" not in layers:
        problem = f"cross_attend is set, but sandwich_coef={sandwich_coef} at depth={depth} makes no block with a 'c'"
        raise UserError(f"{problem}: take a larger depth or a smaller sandwich_coef")
    texts = [f"{kind}/2" if macaron and kind == "f" else kind for kind in layers]
    if add_value_residual:
        if max(layers.count("a"), layers.count("c")) < 2:
            raise UserError("add_value_residual is set, but there is no second attention to read the first's values")
        mix = "" if learned_value_residual_mix is False else ", value_mix=learned"
        reads = {"a": f"values=v{mix}", "c": "values=w"}
        texts = [
            with_option(text, reads[kind]) if kind in reads and kind in layers[:i] else text
            for i, (text, kind) in enumerate(zip(texts, layers, strict=True))
        ]
    if layer_dropout is not None:
        each = _each(layer_dropout, layers, "layer_dropout")
        texts = [with_option(t, f"layer_dropout={p}") for t, p in zip(texts, each, strict=True)]
    if shift_tokens is not None:
        texts = [_with_shift(t, s) for t, s in zip(texts, _each(shift_tokens, layers, "shift_tokens"), strict=True)]
    words = [[text] for text in texts]
    if add_value_residual:
        for kind, label in (("a", "^v"), ("c", "^w")):
            if layers.count(kind) > 1:
                words[layers.index(kind)].append(label)
    for i, mark in enumerate(_skips(len(layers) // len(block)) if unet_skips else ()):
        words[i * len(block)][:0] = mark
    return words


# The default block, by itself and with the keyword of that name.
_DEFAULT, _CROSS_ATTEND, _ONLY_CROSS = ("a", "f"), ("a", "c", "f"), ("c", "f")


def _default_block(cross_attend: bool, only_cross: bool, macaron: bool) -> tuple[str, ...]:
    block = _ONLY_CROSS if only_cross else _CROSS_ATTEND if cross_attend else _DEFAULT
    return ("f", *block) if macaron else block


def _layers(
    depth: int | None,
    block: tuple[str, ...],
    sandwich_coef: int | None,
    par_ratio: int | None,
    custom_layers: Sequence[str] | None,
) -> tuple[str, ...]:
    if custom_layers is not None:
        return tuple(custom_layers)
    if depth is None:
        raise TypeError("give depth=, or the whole order as pattern=")
    if depth * len(block) > MAX_BLOCKS:
        raise UserError(f"depth={depth} makes {depth * len(block):,} blocks; the limit is {MAX_BLOCKS:,}")
    if par_ratio is not None:
        try:
            return par_layout(depth, par_ratio, block)
        except ValueError as error:
            raise UserError(f"par_ratio={par_ratio}: {error}") from None
    if sandwich_coef is not None:
        if sandwich_coef > depth:
            raise UserError(f"sandwich_coef must be from 1 to the depth, {depth}, not {sandwich_coef}")
        return ("a",) * sandwich_coef + block * (depth - sandwich_coef) + ("f",) * sandwich_coef
    return block * depth


def _check_custom(custom_layers: Sequence[str], cross_attend: bool, only_cross: bool, macaron: bool) -> None:
    named = isinstance(custom_layers, Collection) and len(custom_layers) > 0
    if not named or unknown_in(custom_layers):
        raise UserError(f"custom_layers is a list of block kinds ({', '.join(kinds())}), not {custom_layers!r}")
    if cross_attend and "c" not in custom_layers:
        raise UserError("cross_attend is set, but custom_layers has no 'c'")
    if only_cross and "a" in custom_layers:
        raise UserError("only_cross is set, but custom_layers has an 'a'")
    if macaron and "f" not in custom_layers:
        raise UserError("macaron is set, but custom_layers has no 'f' to make a half step")


def unknown_in(layers: Sequence[str]) -> list[str]:
    return [layer for layer in layers if not isinstance(layer, str) or layer not in kinds()]


def _each(values: Sequence[float], layers: Sequence[str], name: str) -> Sequence[float]:
    if len(values) != len(layers):
        raise UserError(f"{name} has {len(values)} values for {len(layers)} blocks")
    return values


def _with_shift(text: str, shift: float) -> str:
    # the suffix belongs before the half step's, where canonical text has it
    kind, slash, half = text.partition("/")
    return f"{kind}>>{shift}{slash}{half}"


def with_option(text: str, option: str) -> str:
    """A block's text with one more option in its parentheses, which come before its suffixes and what follows it."""
    kind, rest = re.fullmatch(r"(\w+)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{kind}({option}, {rest[1:]}" if rest.startswith("(") else f"{kind}({option}){rest}"


def _skips(depth: int) -> list[list[str]]:
    """What stands before each repeat: a label in the first half, and a read in the second."""
    if depth < 2:
        raise UserError("unet_skips joins the first half of the stack to the second: depth is at least 2")
    return [["^u"]] * (depth // 2) + [[]] * (depth % 2) + [["<u(pop, cat)"]] * (depth // 2)
