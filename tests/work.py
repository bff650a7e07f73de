"""Work counted, not timed: lines of Python that are run, as many on a busy machine as on a quiet one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

LINEAR = 2.1  # growth of work that is linear in the size, and a little; a part that is quadratic takes it beyond


def lines(call: Callable[[], Any]) -> int:
    """How many lines a call runs, those of all that it calls included."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def growth(call: Callable[[int], Any], size: int) -> float:
    """How many times the lines of `call(size)` a call of twice the size runs: about 2 where work grows with size."""
    call(size)  # what is made once, such as the parser's tables, is made by now
    return lines(lambda: call(2 * size)) / lines(lambda: call(size))
