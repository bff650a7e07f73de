"""AdamW, set up for small language models.

Owns the parameter groups and the choice of the fused kernel. Leaves the learning rate to `schedule`.
"""

from __future__ import annotations

import torch
from torch import nn

BETAS = (0.9, 0.99)
"""The second is longer than large batches want: a step here sees few bytes."""

WEIGHT_DECAY = 0.1


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW over the trained parameters; weight decay on matrices only, as pulling a gain or a bias
    towards zero does not simplify what the model computes."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    try:
        return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)
    except RuntimeError:  # this device has no fused kernel
        return torch.optim.AdamW(groups, lr=lr, betas=BETAS)
