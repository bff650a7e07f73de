"""Checkpoints: numbered folders that are either whole or not there.

Owns how one is written, found, read and pruned. A damaged one gives way to the one before. Each
`checkpoints/000200` holds the weights (safetensors), the optimiser's state and `state.json`; or what many ranks wrote
in the place of the first two. It is written under another name, forced to the
disk, and renamed in one step, so a kill at any moment leaves the last good one. Leaves when to save, and
what else is in the run folder, to others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.files import sync

from ..distributed.reasons import reason
from .optimizer import Optimizer, optimizers_of

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.pt", "state.json"
SHARDED = ".metadata"
"""In place of the first two, what torch.distributed.checkpoint writes last."""
KEPT = 2
"""Checkpoints that stay: the last, and the one before in case the disk damages it."""


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    state: dict[str, Any],
    keep: Collection[int] = (),
) -> Path:
    """Write the checkpoint of `step` into `folder` and prune older ones but those of the steps `keep`; returns where it
    is.

    Raises UserError when the disk refuses; those before are as they were.
    """
    final = at(folder, step)
    if not is_complete(final):
        try:
            partial = _write(folder, final.name, model, optimizer, {**state, "step": step})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(f"checkpoint {final} cannot be written: {reason(error)}") from error
        if final.exists():  # damaged, or it would have been complete
            shutil.rmtree(final)
        os.rename(partial, final)
        sync(folder)
    prune(folder, keep)
    return final


def at(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is."""
    return folder / f"{step:06d}"


def _write(
    folder: Path,
    name: str,
    model: nn.Module,
    optimizer: Optimizer,
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


class Restored(NamedTuple):
    """What a model was read from.

    Attributes:
        path: the newest checkpoint that can be read.
        state: what was saved beside the weights, with "step".
        damaged: the newer ones, and what is wrong with each.
    """

    path: Path
    state: dict[str, Any]
    damaged: dict[Path, str]

    def notes(self) -> list[str]:
        """A line for each that is damaged."""
        used = f"{self.path.name}, the one before, is used"
        return [f"{problem}; {used}" for problem in self.damaged.values()]


def restore(folder: Path, model: nn.Module, optimizer: Optimizer | None = None) -> Restored | None:
    """Read the newest checkpoint of `folder` that is whole, as `load` does; None when there is none at all.

    Raises UserError when there are some and none can be read.
    """
    return newest(checkpoints_in(folder), lambda path: load(path, model, optimizer))


def newest(paths: list[Path], read: Callable[[Path], dict[str, Any]]) -> Restored | None:
    """The last of `paths`, oldest first, of which `read` does not raise UserError; None when there are none.

    Raises UserError when none can be read.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(paths):
        try:
            return Restored(path, read(path), damaged)
        except UserError as error:
            damaged[path] = str(error)
    if damaged:
        raise UserError("\n  ".join([*damaged.values(), "no checkpoint is left: the run has to be started again"]))
    return None


def load(checkpoint: Path, model: nn.Module, optimizer: Optimizer | None = None) -> dict[str, Any]:
    """Read weights, and the optimiser's state when one is given; returns the saved state (with "step").

    Raises UserError when the files are damaged or belong to another model; it then holds some of them.
    """
    try:
        state = state_of(checkpoint)
        if is_sharded(checkpoint):
            _load_sharded(checkpoint, model, optimizer)
        else:
            load_model(model, str(checkpoint / WEIGHTS))
        if not all(weight.isfinite().all() for weight in model.parameters()):
            raise ValueError("its weights are not finite")
        if optimizer is not None and not is_sharded(checkpoint):
            saved = torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(saved)
    except Exception as error:  # bytes that are anything at all make their readers raise anything
        raise UserError(f"checkpoint {checkpoint} cannot be read: {reason(error)}") from error
    return state


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What was saved beside the weights, with "step".

    Raises an error of any kind when it cannot be read, ValueError when a file is missing.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise ValueError(f"{STATE} names no step")
    if not is_sharded(checkpoint) and not (checkpoint / WEIGHTS).is_file():
        raise ValueError(f"{SHARDED if [*checkpoint.glob('*.distcp')] else WEIGHTS} is missing")
    if is_sharded(checkpoint):
        from ..distributed.checkpoint import shapes

        shapes(checkpoint)
    return state


def states_by_name(saved: dict[str, Any]) -> dict[str, Tensor]:
    """From an optimiser's `state_dict`, or several's: NAME.exp_avg and so on → what it keeps of a parameter."""
    out: dict[str, Tensor] = {}
    for each in saved.get("each", [saved]):
        for group in each["param_groups"]:
            if "param_names" not in group:
                raise ValueError("it names no parameters, as before 0.2; go on in one process to its next checkpoint")
            for index, name in zip(group["params"], group["param_names"], strict=True):
                out |= {f"{name}.{key}": value for key, value in each["state"].get(index, {}).items()}
    return out


def is_sharded(checkpoint: Path) -> bool:
    """Whether many ranks wrote it, and wrote all of it; `xt_blocks.distributed.checkpoint` reads it."""
    return (checkpoint / SHARDED).is_file()


def _load_sharded(checkpoint: Path, model: nn.Module, optimizer: Optimizer | None) -> None:
    from ..distributed import checkpoint as sharded  # loads much of torch that one process needs only here

    each = () if optimizer is None else optimizers_of(optimizer)
    sharded.make_states([model], each, sharded.shapes(checkpoint))
    sharded.read(checkpoint, sharded.contents([model], each), alone=True)


def set_aside(checkpoint: Path) -> None:
    """Rename a damaged checkpoint, so that the one of its step can be written again."""
    aside = checkpoint.with_name(checkpoint.name + ".damaged")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(checkpoint, aside)


def prune(folder: Path, keep: Collection[int] = ()) -> None:
    """Remove all but the last complete checkpoints and those of the steps `keep`, and what a kill left half written."""
    for path in [path for path in checkpoints_in(folder) if is_complete(path)][:-KEPT]:
        if int(path.name) not in keep:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob("*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    found = [path for path in folder.glob("*") if re.fullmatch(r"\d{6,}", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def is_complete(path: Path) -> bool:
    """Whether nothing of it is missing."""
    parts = () if is_sharded(path) else (WEIGHTS, OPTIMIZER)
    return all((path / file).is_file() for file in (*parts, STATE))
