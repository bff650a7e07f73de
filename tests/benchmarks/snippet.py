"""A piece of Python timed in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .contestants.base import LeftOut

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Snippet:
    """
    Attributes:
        before: run before the clock starts.
        timed: run under it.
        needs: a module that it imports and may not find.
    """

    before: str
    timed: str
    needs: str | None = None

    def check(self) -> None:
        """Raise LeftOut if its module is not installed."""
        if self.needs is not None and importlib.util.find_spec(self.needs) is None:
            raise LeftOut(f"{self.needs.replace('_', '-')} is not installed")

    def seconds(self) -> float:
        script = (
            f"import time\n{self.before}\nstart = time.perf_counter()\n{self.timed}\nprint(time.perf_counter() - start)"
        )
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        return float(run.stdout.split()[-1])
