"""State-dict keys that a module does not have itself and that load: of earlier releases, and of what was around it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn


def old_names(module: nn.Module, names: Mapping[str, str]) -> None:
    """Let `module.load_state_dict`, and that of any module around it, take old keys of its own.

    Args:
        names: old key → new key, relative to the module: `{"old": "new.weight"}`. A key that ends
            with a dot is a prefix: `{"memory.": "mem_kv."}`.
    """
    module.register_load_state_dict_pre_hook(partial(_rename, dict(names)))  # type: ignore[no-untyped-call]


def names_of_wrappers(module: nn.Module) -> None:
    """Let `module` load the state dict of DistributedDataParallel, torch.compile or a wrapper of ours around it."""
    old_names(module, {"module.": "", "_orig_mod.": "", "net.": ""})


def _rename(names: dict[str, str], module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for old, new in names.items():
        start = prefix + old
        for key in [key for key in state_dict if key == start or (old.endswith(".") and key.startswith(start))]:
            state_dict.setdefault(prefix + new + key.removeprefix(start), state_dict.pop(key))
