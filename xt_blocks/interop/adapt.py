"""Low-rank adapters on what a selector selects, by `peft`.

peft, because it is what the field trains, saves and merges adapters with. It is the extra `adapt`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from blockdsl.errors import UserError
from blockdsl.registry.options import whole

from ..runtime.select import modules

M = TypeVar("M", bound=nn.Module)


def adapt(model: M, selector: str, lora: int = 8, **config: Any) -> M:
    """Give the linear layers of selected blocks adapters of rank `lora`, in place, and freeze everything else.

    LoRA (Hu et al., arXiv:2106.09685). The model gives what it gave, as adapters start at zero.

    Args:
        selector: of blocks, as for `parameters`: `a`, `f(glu)`, `dec: a[0:6]`, `a:even`.
        config: more of `peft.LoraConfig`: lora_alpha, lora_dropout, use_dora, ...

    Returns:
        the model; `peft.get_peft_model_state_dict(model)` has the adapters alone.

    Raises:
        UserError: peft is not installed, or the blocks have no linear layer.
        TypeError, PatternError: as of `parameters`.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("adapters need peft: pip install 'xt-blocks[adapt]'") from None
    layers = [
        f"{name}.{inner}" if inner else name
        for name, module in modules(model, selector).items()
        for inner, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    if not layers:
        raise UserError(f"the blocks of '{selector}' have no linear layer to adapt")
    settings = LoraConfig(r=whole("lora", lora, 1), target_modules=layers, **config)
    adapted: M = inject_adapter_in_model(settings, model)
    return adapted
