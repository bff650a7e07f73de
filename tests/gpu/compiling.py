"""What torch compiles, counted; in tiny mode graphs are recorded and then run as they are, which is quick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from ..benchmarks.case import Options


@contextmanager
def compiling(options: Options) -> Iterator[Callable[[], dict[str, int]]]:
    """What is compiled inside is counted. In tiny mode graphs are recorded and run as they are, which is quick.

    Yields:
        what gives the number of graphs, and of those that were left out where CUDA graphs were asked for.
    """
    from torch._dynamo.utils import counters

    def recorded(model: Any, **_: Any) -> Any:
        return compile_(model, dynamic=False, backend="eager")

    compile_ = torch.compile
    counters.clear()
    with mock.patch.object(torch, "compile", recorded if options.quick else compile_):
        yield lambda: {
            "graphs": counters["stats"]["unique_graphs"],
            "left out": counters["inductor"]["cudagraph_skips"],
        }
