"""State-dict keys that had another name in an earlier release, so that what was saved then loads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn


def old_names(module: nn.Module, names: Mapping[str, str]) -> None:
    """Let `module.load_state_dict`, and that of any module around it, take old keys of its own.

    Args:
        names: old key → today's, each as the module itself has it, `{"behind": "after.weight"}`. A key that ends with
            a dot stands for all that start with it: `{"memory.": "mem_kv."}`.
    """
    module.register_load_state_dict_pre_hook(partial(_rename, dict(names)))  # type: ignore[no-untyped-call]


def _rename(names: dict[str, str], module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for old, new in names.items():
        start = prefix + old
        for key in [key for key in state_dict if key == start or (old.endswith(".") and key.startswith(start))]:
            state_dict.setdefault(prefix + new + key.removeprefix(start), state_dict.pop(key))
