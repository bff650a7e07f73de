"""Layer patterns as strings: parsed, checked, compiled to a graph of blocks, costed and drawn. No torch.

    p = blockdsl.parse("f a f | a*6 f*6 | sandwich(6)")
    g = blockdsl.compile(p, dim=512, heads=8, causal=True)

`xt_blocks.lower(g)` makes the torch module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import GraphError, PatternError, UserError
from .language.format import format_text
from .language.megatron import from_megatron, to_megatron
from .language.pattern import Pattern, parse, parse_settings
from .measurement import Measurement
from .plan.mesh import Mesh
from .registry import builtin as builtin  # registers the built-in kinds
from .registry.kinds import Kind, Sizes, kinds
from .registry.options import Option
from .registry.register import register, unregister
from .registry.split import Cut, Split
from .registry.state import State

if TYPE_CHECKING:
    from . import hugging_face, zoo
    from .api import BlockGraph, GraphDiff, compile

__version__ = "0.2.0.dev0"  # of both packages; the one place that says it

__all__ = [
    "BlockGraph",
    "Cut",
    "GraphDiff",
    "GraphError",
    "Kind",
    "Measurement",
    "Mesh",
    "Option",
    "Pattern",
    "PatternError",
    "Sizes",
    "Split",
    "State",
    "UserError",
    "compile",
    "format_text",
    "from_megatron",
    "hugging_face",
    "kinds",
    "parse",
    "parse_settings",
    "register",
    "to_megatron",
    "unregister",
    "zoo",
]

# networkx takes longer to import than the rest together and is loaded when a graph is first asked for.
_NEED_NETWORKX = ("BlockGraph", "GraphDiff", "compile")
_MODULES = ("hugging_face", "zoo")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _NEED_NETWORKX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    value = globals()[name] = getattr(api, name)
    return value


def __dir__() -> list[str]:
    return __all__


def _picture(pattern: Pattern) -> str | None:
    """For notebooks: the picture, of width 512 where the text sets none; none where it cannot be compiled."""
    from .api import compile

    try:
        return compile(pattern, **({} if "dim" in pattern.settings else {"dim": 512})).to_svg()
    except UserError:
        return None


Pattern._repr_svg_ = _picture  # type: ignore[attr-defined]  # the language does not know that graphs are drawn
