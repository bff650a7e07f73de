"""What Hugging Face models with experts share: their settings, and the names of their weights."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import LAYER
from .family import Row, Weight


def gated_experts(config: Config, inner: int, usual: tuple[int, int]) -> dict[str, Any]:
    """The settings of gated experts without biases, which are chosen by a softmax.

    Args:
        inner: hidden features of an expert.
        usual: how many, and how many a token reads, where the configuration does not say.
    """
    own: dict[str, Any] = {
        "moe_experts": config.integer("num_local_experts", config.integer("num_experts", usual[0])),
        "moe_top": config.integer("num_experts_per_tok", usual[1]),
        "moe_inner": inner,
        "moe_glu": True,
        "moe_activation": config.activation("hidden_act", "silu"),
        "moe_no_bias": True,
    }
    return own | balance_loss(config, own["moe_top"])


def balance_loss(config: Config, top: int) -> dict[str, Any]:
    """Its coefficient, where theirs is on, of a loss that is 1 where the load is even; theirs is `top` there."""
    coefficient = config.number("router_aux_loss_coef", 0.001, least=0) * top
    return {"moe_balance_loss": coefficient if config.flag("output_router_logits", False) else 0.0}


def expert_rows(
    experts: int, of: str = "mlp.", names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
) -> list[Row]:
    """The router, and of so many experts the gate, what is gated, and what leads out.

    Args:
        of: the module that has them, in a layer.
        names: of the three.
    """
    gate, up, down = (f"{LAYER}{of}experts.{{e}}.{name}" for name in names)
    return [
        Weight("e.layer.router", f"{LAYER}{of}gate"),
        Weight("e.layer.to_hidden", (up, gate), experts=experts),
        Weight("e.layer.to_out", down, experts=experts),
    ]


def sparse_layers(config: Config, layers: int) -> list[bool]:
    """Which layers have experts, in Qwen's models."""
    step, dense = config.integer("decoder_sparse_step", 1), config.many("mlp_only_layers", ())
    return [i not in dense and (i + 1) % step == 0 for i in range(layers)]
