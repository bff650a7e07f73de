"""Whether something follows each operation that only torch's own operations let themselves be followed by."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def active() -> bool:
    """Under torch.func's transforms, derivatives in forward mode and torch.jit's tracing, take the plain way."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or torch._C._is_tracing()
