"""The contract of score modifiers, and the one value that kernels receive, `ScoreSpec`.

A modifier is an option of attention that changes scores or weights. It has its own file here, with all that kernels
need of it: the plain form, the tile form with its gradient, and the FlexAttention form. The option's row in
`blockdsl.registry.builtin` names it.

What a kernel does, by stage, with the modifiers of one stage in the order of their options' rows:

    scores    q·k · scale, an earlier block's scores added      SCORES modifiers
              position biases added; masked scores at -inf      MASKED modifiers
    weights   the softmax, or the modifier in its place         SOFTMAX
              zeros where a query sees nothing                  WEIGHTS modifiers
    output    the weighted sum of values

So position biases are added after SCORES modifiers. The scores that are recorded, and that a block hands to a later
one, include the biases and not the mask.

Axes: b batch, h heads, i queries, j keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from torch import Tensor

from .. import compat


class ScoreStage(IntEnum):
    """When a modifier acts."""

    SCORES = 0
    MASKED = 1
    SOFTMAX = 2
    WEIGHTS = 3


class FlexForm(NamedTuple):
    """A modifier's form in FlexAttention.

    Attributes:
        score: (score, head) → score, each a scalar tensor; a SCORES modifier's.
        output: `out: (b, h, i, d)` and its softmax's `logsumexp: (b, h, i)` → out; a SOFTMAX modifier's.
    """

    score: Callable[[Tensor, Tensor], Tensor] | None = None
    output: Callable[[Tensor, Tensor], Tensor] | None = None


class Modifier(ABC):
    """One change of scores or weights. Immutable.

    Attributes:
        name: for messages.
        stage: when it acts.
        mixes_heads: it reads all heads of a row at once, which are then in one tile.
        scales: of a WEIGHTS modifier, that it multiplies each weight by a number that doesn't depend on the weights.
        in_flex: it has a form in FlexAttention.
    """

    name: str
    stage: ScoreStage
    mixes_heads: bool = False
    scales: bool = False
    in_flex: bool = False

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """`x: (b, h, i, j)` → the same shape, by operations that autograd follows."""

    @abstractmethod
    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        """The same for a tile, `x: (h', i', j')`, outside of autograd.

        x may be overwritten unless a gradient follows (`step.has_gradient`). Whatever is returned is the next step's
        buffer, and the bias and the mask are written into it: what `tile_gradient` reads is saved by `step.save`,
        which notices that a buffer was overwritten.
        """

    @abstractmethod
    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        """From the gradient of `tile`'s result to that of x, (h', i', j'); adds those of `tensors` to `step.gradients`.

        It owns grad, and may overwrite and return it.
        """

    def tensors(self) -> tuple[Tensor, ...]:
        """Its learned tensors, which `tile` reads from `step.tensors`."""
        return ()

    def unreadable(self) -> str | None:
        """Why a kernel that computes part by part cannot have it, as `tensors` that must not be read outside of their
        module's call; None: it can."""
        return None

    def flex(self, q: Tensor) -> FlexForm:
        """Its form in FlexAttention, if it is `in_flex`.

        A number that it reads is a tensor with the dtype and device of `q: (b, h, i, d)`, one value per head: for a
        Python number FlexAttention would be compiled anew for each value.
        """
        raise NotImplementedError


class TileStep:
    """A modifier at one tile: what it reads there, and what it keeps for the gradient.

    Args:
        modifier: whose step it is.
        heads: of the tile.
        tensors: the modifier's, in the type of the tile.
        gradients: of these, to add to; None where none is wanted. Empty if no gradient follows.
        drawn: what `once` made in the forward pass, in order.
        has_gradient: `tile_gradient` follows.

    Attributes:
        empty: (h', i', 1) bool, the rows that see nothing; None: there is none.
        row_sums: (h', i', 1), Σ_j of each weight times its gradient, where that is known without reading the tile.
    """

    def __init__(
        self,
        modifier: Modifier,
        heads: slice,
        tensors: tuple[Tensor, ...],
        gradients: tuple[Tensor | None, ...],
        drawn: list[Tensor] | Iterator[Tensor],
        has_gradient: bool,
    ) -> None:
        self.modifier, self.heads = modifier, heads
        self.tensors, self.gradients = tensors, gradients
        self.has_gradient = has_gradient
        self.empty: Tensor | None = None
        self.row_sums: Tensor | None = None
        self._drawn = drawn
        self._saved: list[tuple[Tensor, int]] = []

    def once(self, make: Callable[[], Tensor]) -> Tensor:
        """A value that the backward pass cannot or need not recompute: made in the forward pass, and reused there."""
        if not isinstance(self._drawn, list):
            return next(self._drawn)
        self._drawn.append(make())
        return self._drawn[-1]

    def save(self, *tensors: Tensor) -> None:
        """Keep tensors for `tile_gradient`. None of them may be written to before it has read them."""
        if self.has_gradient:
            self._saved = [(t, compat.version(t)) for t in tensors]

    @property
    def saved(self) -> tuple[Tensor, ...]:
        """
        Raises:
            RuntimeError: one of them was overwritten.
        """
        for t, version in self._saved:
            if compat.version(t) != version:
                raise RuntimeError(
                    f"{self.modifier.name}: a buffer that it saved for its gradient was overwritten by a later step "
                    "of the tile; save another tensor than the one that is returned"
                )
        return tuple(t for t, _ in self._saved)


class ScoreSpec(NamedTuple):
    """Everything between q·k and the weighted sum except position biases and the mask, as one immutable value.

    Attributes:
        scale: factor of q·k.
        modifiers: in the order in which those of one stage act.
        residual: (b, h, i, j) scores of an earlier block, added to these (RealFormer, arXiv:2012.11747).
    """

    scale: float
    modifiers: tuple[Modifier, ...] = ()
    residual: Tensor | None = None

    def at(self, *stages: ScoreStage) -> tuple[Modifier, ...]:
        """The modifiers of these stages, in the order in which they act."""
        if not self.modifiers:
            return ()
        return tuple(modifier for stage in stages for modifier in self.modifiers if modifier.stage == stage)
