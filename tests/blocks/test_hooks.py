"""Every use of a module's weights goes through its call, unless the module is exactly what was built."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from xt_blocks.kernels.hooks import unhooked


class Own(nn.Linear):
    """Someone else's class."""


def with_(change: Callable[[nn.Linear], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = nn.Linear(3, 3)
        changed = change(module)
        return changed if isinstance(changed, nn.Module) else module

    return make


CHANGED: dict[str, Callable[[], nn.Module]] = {
    "another's class": lambda: Own(3, 3),
    "a hook": with_(lambda module: module.register_forward_hook(lambda *_: None)),
    "a hook before": with_(lambda module: module.register_forward_pre_hook(lambda *_: None)),
    "a backward hook": with_(lambda module: module.register_full_backward_hook(lambda *_: None)),
    "a backward hook before": with_(lambda module: module.register_full_backward_pre_hook(lambda *_: None)),
    "a forward of its own": with_(lambda module: setattr(module, "forward", lambda x: x)),
    "a parametrization": with_(nn.utils.parametrizations.weight_norm),
    "an int8 weight": with_(
        lambda module: torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {nn.Linear})[0]
    ),
}


def test_what_was_built_is_unhooked() -> None:
    assert unhooked(nn.Linear(3, 3))
    assert unhooked(nn.Linear(3, 3, bias=False).requires_grad_(False).bfloat16())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CHANGED)
def test_what_anybody_hooks_on_or_replaces_is_not(name: str) -> None:
    assert not unhooked(CHANGED[name]())


def test_a_hook_on_all_modules_counts() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not unhooked(nn.Linear(3, 3))
    finally:
        handle.remove()
    assert unhooked(nn.Linear(3, 3))
