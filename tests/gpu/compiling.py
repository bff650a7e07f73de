"""What torch compiles, counted; in tiny mode graphs are recorded and then run as they are, which is quick.

Past a number of programs for one function torch gives up, and runs it as it is written: slowly, and holding all scores.
Here that is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch._dynamo import config
from torch._dynamo.utils import counters

from ..benchmarks.case import Options


@contextmanager
def compiling(options: Options) -> Iterator[None]:
    """Compile as above, and count from here."""
    compile_ = torch.compile

    def recorded(model: Any, **_: Any) -> Any:
        return compile_(model, dynamic=False, backend="eager")

    counters.clear()
    with (
        config.patch(fail_on_recompile_limit_hit=True),
        mock.patch.object(torch, "compile", recorded if options.quick else compile_),
    ):
        yield


def graphs() -> dict[str, int]:
    """How many were compiled, and how many of them are no CUDA graph though that was asked for."""
    return {"graphs": counters["stats"]["unique_graphs"], "left out": counters["inductor"]["cudagraph_skips"]}
