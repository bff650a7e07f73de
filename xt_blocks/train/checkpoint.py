"""Checkpoints: numbered folders that are either whole or not there.

Owns how one is written, found, read and pruned. Each `checkpoints/000200` holds the weights
(safetensors), the optimiser's state and `state.json`. It is written under another name, forced to the
disk, and renamed in one step, so a kill at any moment leaves the last good one. Leaves when to save, and
what else is in the run folder, to others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from blockdsl.errors import UserError

from .files import sync

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.pt", "state.json"
KEPT = 2
"""Checkpoints that stay: the last, and the one before in case the disk damages it."""


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> Path:
    """Write the checkpoint of `step` into `folder` and prune older ones; returns where it is."""
    final = folder / f"{step:06d}"
    if not _is_complete(final):
        partial = _write(folder, final.name, model, optimizer, {**state, "step": step})
        if final.exists():  # damaged, or it would have been complete
            shutil.rmtree(final)
        os.rename(partial, final)
        sync(folder)
    prune(folder)
    return final


def _write(
    folder: Path,
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> Path:
    partial = folder / f"{name}.tmp-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # save_model and load_model know tied weights: written once, read into every place.
    save_model(model, str(partial / WEIGHTS))
    torch.save(optimizer.state_dict(), partial / OPTIMIZER)
    (partial / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    for file in (WEIGHTS, OPTIMIZER, STATE):
        sync(partial / file)
    sync(partial)
    return partial


def latest(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None."""
    found = _numbered(folder)
    return found[-1] if found else None


def load(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Read weights, and the optimiser's state when one is given; returns the saved state (with "step").

    Raises UserError when the files are damaged or belong to another model.
    """
    try:
        load_model(model, str(checkpoint / WEIGHTS))
        if optimizer is not None:
            saved = torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(saved)
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (SafetensorError, RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"checkpoint {checkpoint} cannot be read: {reason}") from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise UserError(f"checkpoint {checkpoint} cannot be read: {STATE} names no step")
    return state


def prune(folder: Path, kept: int = KEPT) -> None:
    """Remove all but the last `kept` complete checkpoints, and what a kill left half written."""
    for path in _numbered(folder)[:-kept]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _numbered(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in folder.glob("*") if re.fullmatch(r"\d{6,}", path.name)]
    return sorted((path for path in found if _is_complete(path)), key=lambda path: int(path.name))


def _is_complete(path: Path) -> bool:
    return all((path / file).is_file() for file in (WEIGHTS, OPTIMIZER, STATE))
