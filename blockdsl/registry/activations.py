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

SAVED_BY_ACTIVATIONS = {
    "gelu": 1,
    "gelu_tanh": 1,
    "quick_gelu": 2,
    "relu": 0,
    "relu_squared": 1,
    "silu": 1,
    "tanh": 0,
    "sigmoid": 0,
}
"""Activation → how many numbers it saves for the backward pass beside what it gives, its input among them."""
