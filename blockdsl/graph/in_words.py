"""What fails because a graph is at fault says the fault, not where the code happened to notice it.

A graph may be edited into anything, and not every figure of it needs all of it. So its methods do not judge it first:
where one fails, `lint` is asked why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from ..errors import UserError
from .graph import Graph
from .lint import check

F = TypeVar("F", bound=Callable[..., Any])


def in_words(method: F) -> F:
    """Of a method of a graph: errors that are not in words are those of `lint`, where it finds any."""

    @wraps(method)
    def wrapped(self: Graph, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except UserError:
            raise
        except Exception:
            for graph in (self, *(arg for arg in args if isinstance(arg, Graph))):
                check(graph)
            raise

    return cast(F, wrapped)
