"""The activations by name, with what drawings call them. Their functions are in `xt_blocks.kernels.activations`."""

from __future__ import annotations

ACTIVATIONS: dict[str, str] = {
    "gelu": "GELU",
    "gelu_tanh": "GELU (tanh)",
    "quick_gelu": "quick GELU",
    "relu": "ReLU",
    "relu_squared": "ReLU²",
    "silu": "SiLU",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
