"""What fails because a graph is at fault says the fault, not where the code happened to notice it.

A graph may be edited into anything, and not every figure of it needs all of it. So its methods do not judge it first:
where one fails, `lint` is asked why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import isfunction
from typing import Any, TypeVar

from ..errors import GraphError, UserError
from .graph import Graph
from .lint import check

T = TypeVar("T", bound=type[Graph])

_READING = {"nodes", "node_type", "block", "sources", "labels", "completed", "uses", "state"}
"""Of one node, and called for each of many."""


def faults_in_words(graph_type: T) -> T:
    """A class whose public methods raise what `lint` finds in place of an error that is not in words."""
    for name in dir(graph_type):
        method = getattr(graph_type, name)
        own = isfunction(method) and not isinstance(vars(graph_type).get(name), staticmethod)
        if own and name not in _READING and (name == "__str__" or not name.startswith("_")):
            setattr(graph_type, name, _in_words(method))
    return graph_type


def _in_words(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def wrapped(self: Graph, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except UserError:
            raise
        except Exception:
            for graph in (self, *(each for each in (*args, *kwargs.values()) if isinstance(each, Graph))):
                try:
                    check(graph)
                except GraphError as fault:
                    raise fault from None
            raise

    return wrapped
