"""The coordinate check of muP (Yang et al., arXiv:2203.03466, appendix D.1): are activations of one size at each width?

A few steps of Adam on one batch of random tokens, at each width: a learning rate that carries over from width to width
moves each block's output equally far in all of them, and one that does not moves that of a wide model further and
further. Owns the steps, the slopes and the picture; `xt_blocks.mup` owns the scales.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from blockdsl import BlockGraph

from ..models.transformer import TransformerWrapper
from ..runtime.mup import mup
from ..runtime.record import record
from ..runtime.seeds import seed_for
from .model import build_model
from .plot import new_figure

LOGITS = "logits"
FLAT = (-0.5, 0.2)
"""The slopes that count as flat. What random weights leave to chance, as the first logits, falls as width^-0.5 in muP
and adds to what stays; and a few widths and one seed leave some noise."""

Sizes = list[dict[str, float]]
"""At first and after each step: block → the root mean square of what it adds to the stream; and LOGITS → that of how
far the logits have moved, since those of new weights shrink with the width, as they should, and hide the rest."""


@dataclass(frozen=True)
class CoordinateCheck:
    """What was measured with one parametrisation.

    Attributes:
        name: "muP" or "standard".
        sizes: by width.
    """

    name: str
    sizes: dict[int, Sizes]

    def slopes(self) -> dict[str, float]:
        """Of log size after the last step against log width, by least squares; 0: the same at each width."""
        last = {width: steps[-1] for width, steps in self.sizes.items()}
        blocks = next(iter(last.values()))
        return {block: slope({width: sizes[block] for width, sizes in last.items()}) for block in blocks}

    def steep(self) -> dict[str, float]:
        """The slopes that are not flat."""
        return {block: value for block, value in self.slopes().items() if not FLAT[0] <= value <= FLAT[1]}

    def verdict(self) -> str:
        """One line in words."""
        if not (steep := self.steep()):
            return f"{self.name}: flat; what each block adds is of one size at all widths"
        worst = max(steep, key=lambda block: abs(steep[block]))
        grows = "grows" if steep[worst] > 0 else "shrinks"
        found = f"{len(steep)} of {len(self.slopes())} change with the width"
        return f"{self.name}: not flat; {found}, and {worst} {grows} most, as width^{steep[worst]:.2f}"


def slope(sizes: Mapping[int, float]) -> float:
    """Of log size against log width, by least squares. NaN where a size is not a positive number."""
    if not all(math.isfinite(size) and size > 0 for size in sizes.values()):
        return math.nan
    xs, ys = [math.log(width) for width in sizes], [math.log(size) for size in sizes.values()]
    middle, level = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / sum((x - middle) ** 2 for x in xs)


def check_coordinates(
    graphs: Mapping[int, BlockGraph],
    *,
    standard: bool = False,
    steps: int = 4,
    lr: float = 1e-2,
    batch: int = 4,
    seq_len: int = 32,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> CoordinateCheck:
    """Train each width for a few steps, and measure.

    Args:
        graphs: language models of one pattern by width; the narrowest is the base.
        standard: without muP: initial weights as they are, and one learning rate for all.
        lr: of the base.
    """
    base, sizes = graphs[min(graphs)], {}
    for width, graph in graphs.items():
        model = build_model(graph if standard else graph.with_mup(base), seed).to(dtype)
        groups = [{"params": [*model.parameters()]}] if standard else mup(model, base, lr=lr)
        generator = torch.Generator().manual_seed(seed_for("batch", seed))
        rows = torch.randint(
            model.num_tokens, (batch, seq_len + 1), device="cpu", dtype=torch.int64, generator=generator
        )
        sizes[width] = _steps(model, torch.optim.Adam(groups, lr=lr), rows, steps)
    return CoordinateCheck("standard" if standard else "muP", sizes)


def _steps(model: TransformerWrapper, optimizer: torch.optim.Optimizer, rows: Tensor, steps: int) -> Sizes:
    """`rows: (batch, seq + 1)`, of which each token but the first is predicted."""
    tokens, following = rows[:, :-1], rows[:, 1:]
    measured, first = [], None
    for step in range(steps + 1):
        sizes = {block: own["branch_norm"] for block, own in record(model, tokens).items()}
        optimizer.zero_grad()
        logits = model(tokens)
        now = logits.detach()
        first = now if first is None else first
        measured.append(sizes | {LOGITS: float((now - first).square().mean().sqrt())})
        if step < steps:
            torch.autograd.backward(F.cross_entropy(logits.transpose(1, 2), following))
            optimizer.step()
    return measured


def plot_coordinates(checks: list[CoordinateCheck], form: str) -> bytes:
    """Size over width after the last step, a line a block; one panel a parametrisation, on one scale.

    Args:
        form: one of FORMATS.
    """
    figure = new_figure(1.5 + 4 * len(checks), 4)
    panels = figure.subplots(1, len(checks), sharey=True, squeeze=False)[0]
    for axes, check in zip(panels, checks, strict=True):
        widths, blocks = [*check.sizes], [*check.slopes()]
        for i, block in enumerate(blocks):
            values = [steps[-1][block] for steps in check.sizes.values()]
            look = {"color": "black", "linestyle": "--"} if block == LOGITS else {"color": f"C{i % 10}"}
            axes.plot(widths, values, marker="o", markersize=3, label=block, **look)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.set(title=check.name, xlabel="width")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"root mean square after {len(next(iter(checks[0].sizes.values()))) - 1} steps")
    if len(checks[0].slopes()) <= 24:
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format=form[1:], dpi=150)
    return image.getvalue()
