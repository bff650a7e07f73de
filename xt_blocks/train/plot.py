"""The picture of a run: loss over steps, as `loss.png`.

Owns the drawing. Imports matplotlib when called, since it takes longer to load than most commands take to
run, and uses figures directly (no pyplot), which needs no display and keeps no global state.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blockdsl.files import write_whole

from .metrics import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING_SHARE = 0.02
"""The share of the run that the smoothed curve averages over."""


def plot_losses(records: Sequence[Record], unigram: float | None, path: Path) -> None:
    """Draw training and validation losses, and the unigram baseline, into the PNG `path`.

    Where records have a val_loss they are in nats per token, else in bits per byte.
    """
    in_tokens = any("val_loss" in record for record in records)
    measure, unit = ("val_loss", "nats per token") if in_tokens else ("val_bits_per_byte", "bits per byte")
    training = [(record["step"], record["loss"]) for record in records if "loss" in record]
    validation = [(record["step"], record[measure]) for record in records if measure in record]
    figure = new_figure(8, 5)
    axes = figure.add_subplot(xlabel="step", ylabel=unit)
    if training:
        steps, losses = zip(*training, strict=True)
        axes.plot(steps, losses, color="C0", alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(losses), color="C0", label="training (smoothed)")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color="C1", label="validation")
    if unigram is not None:
        axes.axhline(unigram, color="grey", linestyle="--", label="byte unigram")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_whole(path, image.getvalue())


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches.

    matplotlib fails to import where the environment names a backend that is not installed, such as a notebook's;
    figures need none.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width, height), layout="constrained")


def smooth(values: Sequence[float]) -> list[float]:
    """An exponential moving average over about `SMOOTHING_SHARE` of the values, unbiased at the start."""
    keep = 1 - 1 / max(1.0, SMOOTHING_SHARE * len(values))
    total = weight = 0.0
    result = []
    for value in values:
        total = keep * total + value
        weight = keep * weight + 1
        result.append(total / weight)
    return result
