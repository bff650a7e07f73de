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

from .agreement import Agreement, agreement
from .page import PAGE, page


def modules(names: list[str]) -> dict[str, ModuleType]:
    """The tests of families by name: those that have CASES and a peer."""
    found = names or sorted(path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py"))
    tests = {name: import_module(f".test_{name}", __package__) for name in found}
    return {name: test for name, test in tests.items() if hasattr(test, "peer")}


def main() -> None:
    torch.set_num_threads(1)
    measured: dict[str, list[Agreement]] = {}
    for name, test in modules(sys.argv[1:]).items():
        measured[name] = [agreement(test.peer(case)) for case in test.CASES]
        print(name, *measured[name], sep="\n  ")
    if not sys.argv[1:]:
        PAGE.write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
