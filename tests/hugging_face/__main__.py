"""Write docs/hugging-face.md: what is measured of every family against `transformers`, and what stays out.

python -m tests.hugging_face                # all families, in a minute or two
python -m tests.hugging_face llama gpt2     # print these rows alone
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from transformers.utils import logging

from .agreement import Agreement, agreement
from .page import PAGE, page


def modules(names: list[str]) -> dict[str, ModuleType]:
    """The tests of families by name: those that have CASES and a peer."""
    found = names or sorted(path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py"))
    tests = {name: import_module(f".test_{name}", __package__) for name in found}
    return {name: test for name, test in tests.items() if hasattr(test, "peer")}


def main() -> int:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    measured: dict[str, list[Agreement]] = {}
    failed = []
    for name, test in modules(sys.argv[1:]).items():
        try:
            measured[name] = [agreement(test.peer(case)) for case in test.CASES]
            print(name, *measured[name], sep="\n  ", flush=True)
        except Exception as error:  # the others are still measured
            failed.append(name)
            print(f"{name} failed: {error!r}", file=sys.stderr, flush=True)
    if not sys.argv[1:] and not failed:
        PAGE.write_text(page(measured), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
