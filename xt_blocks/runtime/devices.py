"""Where a model is to be: a name is judged before anything is moved, in words."""

from __future__ import annotations

import torch

from blockdsl.errors import UserError, nearest

CALLED = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "rocm": "cuda",
    "amd": "cuda",
    "metal": "mps",
    "apple": "mps",
    "intel": "xpu",
}
"""Other words for a device → what torch calls it."""
KNOWN = ("cpu", "cuda", "mps", "xpu", "meta")


def device_of(name: str | torch.device, said: str | None = None) -> torch.device:
    """The device of a name, as "cuda" or "cuda:1".

    Args:
        said: how a message names what was given; None: as the argument `device`.

    Raises:
        UserError: torch knows no such device, with the nearest that it does, or cannot put a tensor on it here.
    """
    said = f"device={str(name) if isinstance(name, torch.device) else name!r}" if said is None else said
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        kind, _, index = str(name).lower().partition(":")
        near = CALLED.get(kind) or nearest(kind, KNOWN)
        hint = f"did you mean '{near}{index and ':'}{index}'?" if near else "try cpu or cuda"
        raise UserError(f"{said}: no such device; {hint}") from None
    try:
        torch.zeros(1, device=device, dtype=torch.float32)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{said}: not available here ({reason})") from None
    return device
