"""What an error of files and ranks says, in a line."""

from __future__ import annotations

from pickle import UnpicklingError


def reason(error: BaseException) -> str:
    """What went wrong, and where torch.distributed.checkpoint says it, on which rank."""
    if failed := getattr(error, "failures", None):
        rank, (why, _) = min(failed.items())
        return f"rank {rank}: {reason(why)}"
    if isinstance(error, UnpicklingError):  # torch's own words advise to trust the file
        return "its bytes are no tensors"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
