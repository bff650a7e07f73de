"""The command line in a rank that is killed, finds a fault or is late, at a chosen call.

    python struck.py [[1, "module.function", 2, "kill"], ...] train ...

Each start of a job takes the next of the list: on rank 1, at the second call from then on.
"""

from __future__ import annotations

import functools
import json
import os
import pkgutil
import signal
import sys
import time
from pathlib import Path
from typing import Any


def strike(what: str) -> None:
    """Kill this process, wait, or raise."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "late":
        time.sleep(5)
        return
    if what == "full":
        raise OSError(28, "No space left on device")
    raise ValueError("what no one foresaw")


def struck(place: str, calls: int, what: str, file: str | None) -> None:
    """Replace a function by one that strikes at its `calls`th call, when `file` is there."""
    owner, name = place.rsplit(".", 1)
    target = pkgutil.resolve_name(owner)
    original, left = getattr(target, name), [calls]

    @functools.wraps(original)
    def counted(*arguments: Any, **keywords: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            while file is not None and not [*Path(sys.argv[sys.argv.index("--out") + 1]).glob(file)]:
                time.sleep(0.01)
            strike(what)
        return original(*arguments, **keywords)

    setattr(target, name, counted)


if __name__ == "__main__":
    from xt_blocks.cli import main

    strikes, start = json.loads(sys.argv.pop(1)), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if start < len(strikes) and strikes[start][0] == int(os.environ["RANK"]):
        _, where, number, kind, *file = strikes[start]
        struck(where, number, kind, file[0] if file else None)
    sys.exit(main(sys.argv[1:]))
