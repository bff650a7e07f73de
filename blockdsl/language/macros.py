"""Macros: names that stand for a longer pattern.

A macro is a row of a table: its parameters and the text it stands for. Its expansion goes through the parser
like anything a user types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import Fault, did_you_mean, shortened
from ..registry.options import Option, Value, spell
from ..registry.register import reserve
from .syntax import Ref


@dataclass(frozen=True)
class Macro:
    """A macro.

    Args:
        name: as a pattern calls it.
        params: its parameters in the order bare values fill them; a bool is a flag, given by name.
        text: parameter values → the pattern's text.
        size: parameter values → how many blocks that is, known without expanding.
        check: parameter values → what is wrong with them together, or None.
        doc: one line for the reference.
    """

    name: str
    params: tuple[Option, ...]
    text: Callable[..., str]
    size: Callable[..., int]
    doc: str
    check: Callable[..., str | None] = lambda **values: None

    @property
    def usage(self) -> str:
        return f"{self.name}({', '.join(p.name for p in self.params)})"

    @property
    def example(self) -> str:
        """A call with what must be given."""
        return f"{self.name}({', '.join('6' for p in self.params if p.default == _REQUIRED)})"


_REQUIRED = -1  # a default that no caller can type: the parameter must be given
_DEPTH = Option("n", int, _REQUIRED, "the depth, how many attentions", least=1)


def _macaron(n: int, cross: bool) -> str:
    return f"(f/2 a c f/2)*{n}" if cross else f"(f/2 a f/2)*{n}"


def _sandwich(k: int, n: int | None) -> str:
    n = k if n is None else n
    return f"a*{k} f*{k}" if n == k else f"a*{k} (a f)*{n - k} f*{k}"


def _sandwich_check(k: int, n: int | None) -> str | None:
    return f"the coefficient {k} is above the depth {n}" if n is not None and k > n else None


def par_layout(n: int, ratio: int, block: Sequence[str] = ("a", "f")) -> tuple[str, ...]:
    """The PAR ordering, block by block (Mandava et al., arXiv:2009.04534).

    One block in `ratio` starts a group: `block` without its feedforwards, filled up with feedforwards. The
    groups take two thirds of the depth, and feedforwards follow.

    Raises:
        ValueError: the ratio is out of range, or leaves no space for a group's attentions.
    """
    total, groups, width = _par_sizes(n, ratio, block)
    head = tuple(kind for kind in block if kind != "f")
    layout = (head + ("f",) * (width - len(head))) * groups
    return layout + ("f",) * (total - len(layout))


def _par_sizes(n: int, ratio: int, block: Sequence[str] = ("a", "f")) -> tuple[int, int, int]:
    """Blocks in all, groups, and blocks a group."""
    total = n * len(block)
    if not 1 < ratio <= total:
        raise ValueError(f"the ratio must be from 2 to {total}, the number of blocks at depth {n}, not {ratio}")
    groups = total // ratio
    cut = total * 2 // 3
    width = (cut + cut // groups) // groups
    head = [kind for kind in block if kind != "f"]
    if len(head) > width:
        raise ValueError(f"the ratio {ratio} at depth {n} leaves no space for '{' '.join(head)}' in a group")
    return total, groups, width


def _par(n: int, ratio: int) -> str:
    total, groups, width = _par_sizes(n, ratio)
    head = f"(a f*{width - 1})*{groups}" if width > 1 else f"a*{groups}"
    rest = total - groups * width
    return f"{head} f*{rest}" if rest > 0 else head


def _par_size(n: int, ratio: int) -> int:
    total, groups, width = _par_sizes(n, ratio)
    return max(total, groups * width)


def _par_check(n: int, ratio: int) -> str | None:
    try:
        _par_sizes(n, ratio)
    except ValueError as error:
        return str(error)
    return None


MACROS: dict[str, Macro] = {
    macro.name: macro
    for macro in (
        Macro(
            "macaron",
            (_DEPTH, Option("cross", bool, False, "with cross-attention")),
            text=_macaron,
            size=lambda n, cross: n * (4 if cross else 3),
            doc="half-step feedforwards around attention: (f/2 a f/2)*n (arXiv:1906.02762)",
        ),
        Macro(
            "par",
            (_DEPTH, Option("ratio", int, _REQUIRED, "how many blocks there are for each attention", least=1)),
            text=_par,
            size=_par_size,
            check=_par_check,
            doc="attention early and sparse, then feedforwards (arXiv:2009.04534)",
        ),
        Macro(
            "sandwich",
            (
                Option("k", int, _REQUIRED, "how many attentions start it and feedforwards end it", least=1),
                Option("n", int, None, "the depth; k if it is left out", least=1, optional=True),
            ),
            text=_sandwich,
            size=lambda k, n: 2 * (k if n is None else n),
            check=_sandwich_check,
            doc="a*k (a f)*(n-k) f*k (arXiv:1911.03864)",
        ),
    )
}
reserve(*MACROS)


def values_of(macro: Macro, ref: Ref) -> dict[str, Value]:
    """The parameters of a call by name.

    Raises:
        Fault: too many, unknown, repeated, missing or wrong ones; it points into the call.
    """
    params = {param.name: param for param in macro.params}
    positional = [param for param in macro.params if param.type is not bool]
    out: dict[str, Value] = {}
    for i, argument in enumerate(ref.arguments):
        if argument.name is None and i >= len(positional):
            numbers = f"{len(positional)} number{'s' * (len(positional) != 1)}"
            raise Fault(argument.span, f"{macro.name} takes {numbers} at most", f"write {macro.usage}")
        name = argument.name or positional[i].name
        if name not in params:
            hint = did_you_mean(name, params)
            unknown = f"{macro.name} has no parameter '{shortened(name)}'"
            raise Fault(argument.span, unknown, hint or f"write {macro.usage}")
        if name in out:
            raise Fault(argument.span, f"{name} is given twice", f"write {macro.usage}")
        if fault := params[name].fault(argument.value):
            raise Fault(argument.span, f"{name} {fault}", f"write {macro.usage}; {name}: {params[name].doc}")
        out[name] = argument.value
    for param in macro.params:
        if param.name not in out:
            if param.default == _REQUIRED and param.type is not bool:
                raise Fault(ref.span, f"{macro.name} needs {param.name}: {param.doc}", f"write {macro.usage}")
            out[param.name] = param.default
    if problem := macro.check(**out):
        call = f"{macro.name}({', '.join(spell(value) for value in out.values() if value is not None)})"
        raise Fault(ref.span, f"{call}: {problem}", f"{macro.usage} is {macro.doc}")
    return out
