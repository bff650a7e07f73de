"""Layer patterns as strings: parsed, checked, compiled to a graph of blocks, costed and drawn. No torch.

    p = blockdsl.parse("f a f | a*6 f*6 | sandwich(6)")
    g = blockdsl.compile(p, dim=512, heads=8, causal=True)

`xt_blocks.lower(g)` makes the torch module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import builtin as builtin  # registers a, c and f
from .errors import GraphError, PatternError, UserError
from .format import format_text
from .kinds import Kind, Sizes, kinds, register, unregister
from .options import Option
from .pattern import Pattern, parse, parse_settings

if TYPE_CHECKING:
    from .compiler import compile
    from .diff import GraphDiff
    from .graph import BlockGraph

__all__ = [
    "BlockGraph",
    "GraphDiff",
    "GraphError",
    "Kind",
    "Option",
    "Pattern",
    "PatternError",
    "Sizes",
    "UserError",
    "compile",
    "format_text",
    "kinds",
    "parse",
    "parse_settings",
    "register",
    "unregister",
]

_NEED_NETWORKX = {"BlockGraph": "graph", "GraphDiff": "diff", "compile": "compiler"}


def __getattr__(name: str) -> Any:
    # networkx takes longer to import than the rest together and is loaded when a graph is first asked for.
    if name in _NEED_NETWORKX:
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_NEED_NETWORKX[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
