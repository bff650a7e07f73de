"""What a forward pass hands to its blocks, by the names that their kinds declare in `inputs`:

mask      (batch, seq) bool, True = a real token; None: all are
attend    masks.Masks: every mask of this forward pass
context   (batch, context, dim); None when the cache has what the block needs of it
rotary    positions.Rotation of the tokens in this call, those of earlier segments first, or None
bias      masks.Bias: what positions add to the scores, or None
scores    (batch, heads, seq, keys) of an earlier block, or None; with it comes keep_scores: bool. When that is
          True the module returns (update, its request.Scores)
memory    (batch, tokens, dim), what it would have been called with in earlier segments, or None
cache     cache.Slot, this node's state while decoding, or None
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from torch import Tensor

from ..kernels.masks import Bias, Masks
from ..positions.relative import RelativeBias
from ..positions.rotary import Rotation
from .cache import Slot
from .call import Call
from .intermediates import Intermediates
from .plan import Step


@dataclass
class Run:
    """One forward pass.

    Attributes:
        call: its arguments.
        masks: made once for all blocks.
        tokens_mask: (batch, remembered + seq) bool, for the token shift; None: all are real.
        intermediates: filled as blocks run, or None.
        rotations, biases: made once for all blocks, by position node.
        values: the stream behind each node.
        added: of nodes inside a branch, the stream less what it was at the fork.
        scores: what blocks gave whose scores later ones read, by node.
    """

    call: Call
    masks: Masks
    tokens_mask: Tensor | None
    intermediates: Intermediates | None
    rotations: dict[str, Rotation] = field(default_factory=dict)
    biases: dict[str, RelativeBias] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    added: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)

    def inputs(self, step: Step) -> dict[str, Any]:
        """Of a block's module; its memory is set where it is normed, in the block."""
        out = dict.fromkeys(step.inputs)
        for name in step.gets:
            out[name] = _HANDED[name](self, step)
        if "scores" in out:
            seen = self.intermediates
            out["keep_scores"] = step.keep_scores or (seen is not None and seen.keep_attention)
        return out

    def slot(self, step: Step) -> Slot | None:
        """The step's state while decoding."""
        return None if self.call.cache is None else self.call.cache.slot(step.node)

    def memory(self, step: Step) -> Tensor | None:
        """(batch, tokens, dim), the stream that the step read in earlier segments."""
        return None if self.call.mems is None else self.call.mems.streams.get(step.node)

    def mask(self, memory: Tensor | None) -> Tensor | None:
        """(batch, memory + seq) bool, for the token shift."""
        if memory is None:
            return self.call.mask
        tokens = memory.shape[1] + self.call.seq
        return None if self.tokens_mask is None else self.tokens_mask[:, self.tokens_mask.shape[1] - tokens :]

    def forget(self, nodes: tuple[str, ...]) -> None:
        """What no later step reads."""
        for node in nodes:
            self.values.pop(node, None)
            if self.added:
                self.added.pop(node, None)
            if self.scores:
                self.scores.pop(node, None)

    def record(self, step: Step, x: Tensor, scores: Any) -> None:
        """What a block read and what it gave beside its update."""
        if step.keep_scores:
            self.scores[step.node] = getattr(scores, "before", scores)  # a registered kind may give them as they are
        if self.intermediates is None:
            return
        self.intermediates.streams[step.node] = x
        if scores is not None and self.intermediates.keep_attention:
            self.intermediates.attention[step.node] = scores

    def bias(self, step: Step) -> Bias:
        """What positions add to the scores of a step that reads any."""
        values = [self.biases[node] for node in step.biases]
        return Bias(step.biases, reduce(operator.add, values))


_HANDED: dict[str, Callable[[Run, Step], Any]] = {
    "mask": lambda run, step: run.call.mask,
    "attend": lambda run, step: run.masks,
    "context": lambda run, step: run.call.context,
    "rotary": lambda run, step: run.rotations[step.rotary or ""],
    "bias": lambda run, step: run.bias(step),
    "scores": lambda run, step: run.scores[step.scores_from or ""],
    "cache": lambda run, step: run.slot(step),
}
