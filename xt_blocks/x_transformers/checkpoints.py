"""Weights of x-transformers in `load_state_dict`: `interop.load_x_transformers` reads them, and checks that they fit.

Their names are told from ours, so that a client's own `load_state_dict`, with `strict=False` too, loads them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..interop import load_x_transformers


def reads_checkpoints(model: nn.Module) -> None:
    """Let `model.load_state_dict`, and that of any module around it, take the names of x-transformers."""
    model.register_load_state_dict_pre_hook(_read)  # type: ignore[no-untyped-call]


def _read(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    own = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    if not any(_is_theirs(name) for name in own):
        return
    load_x_transformers(module, own)
    for name in own:
        del state_dict[prefix + name]
    state_dict.update({prefix + name: value for name, value in module.state_dict().items()})


def _is_theirs(name: str) -> bool:
    """Whether it names a layer by its number, as `attn_layers.layers.0.1.to_q.weight` does."""
    before, found, after = name.rpartition("layers.")
    return bool(found) and (before == "" or before.endswith("attn_layers.")) and after.split(".", 1)[0].isdigit()
