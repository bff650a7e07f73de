"""Programs in the manner of public ones that use x-transformers: each is a function of the package and of torch.

Run as a script, it says which of them a package runs:

    python -m tests.clients.programs xt_blocks.x_transformers
    python -m tests.clients.programs x_transformers
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

Program = Callable[[Any], Any]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


TOKENS = torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(0))
SIZES = {"dim": 32, "depth": 2, "heads": 2}


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def language_model(x: Any, decoder: dict[str, Any] | None = None, **wrapper: Any) -> Any:
    stack = x.Decoder(**SIZES, **(decoder or {}))
    return x.TransformerWrapper(**{"num_tokens": 32, "max_seq_len": 24, **wrapper}, attn_layers=stack)


def outcome(run: Program, package: Any) -> str | None:
    """What went wrong; None: it ran."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(package)
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


if __name__ == "__main__":
    from . import everything

    chosen = import_module(sys.argv[1])
    outcomes = {name: outcome(run, chosen) for name, run in everything.PROGRAMS.items()}
    for name, wrong in outcomes.items():
        print(f"{'ok  ' if wrong is None else 'FAIL'} {name} {wrong or ''}")
    print(f"{sum(wrong is None for wrong in outcomes.values())} of {len(outcomes)} run")
