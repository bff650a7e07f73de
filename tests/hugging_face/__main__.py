"""Write docs/hugging-face.md: what is measured of every family against `transformers`, and what stays out.

python -m tests.hugging_face                # all families, in a minute or two
python -m tests.hugging_face llama gpt2     # print these rows alone
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import torch
from transformers.utils import logging

from blockdsl.hugging_face import families

from .agreement import Agreement, agreement, check
from .page import PAGE, page


def modules(names: list[str]) -> dict[str, ModuleType]:
    """The tests of families, by the names of the families' modules."""
    found = names or sorted({family.read.__module__.rpartition(".")[2] for family in families().values()})
    return {name: import_module(f".test_{name}", __package__) for name in found}


def main() -> int:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    measured: dict[str, list[Agreement]] = {}
    failed = []
    for name, test in modules(sys.argv[1:]).items():
        try:
            measured[name] = [agreement(test.peer(case)) for case in test.CASES]
            print(name, *measured[name], sep="\n  ", flush=True)
            for found in measured[name]:
                check(found)
        except Exception as error:  # the others are still measured
            failed.append(name)
            print(f"{name} failed: {error!r}", file=sys.stderr, flush=True)
    if not sys.argv[1:] and not failed:
        PAGE.write_text(page(measured), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
