"""Whether an error of torch.distributed says that another rank hangs, or has ended."""

from __future__ import annotations

SIGNS = ("Timed out", "timed out", "timeout", "Connection closed by peer", "Connection reset", "Broken pipe")
"""What gloo's and NCCL's errors say then."""


def no_answer(error: BaseException) -> bool:
    """Whether the error is what a rank sees of another's, and has no cause of its own."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
