"""The forward context: what all blocks of a pass share, computed once, and the inputs of each layer.

A layer gets the inputs that its kind declares, by name:

mask      (batch, seq) bool, True = a real token; None: all are
attend    masks.Masks: every mask of this forward pass
context   (batch, context, dim); None when the cache has what the block needs from it
rotary    positions.Rotation of the tokens of this pass, those of earlier segments first, or None
context_rotary  that of the context, or None; None when the cache has what the block needs from it
bias      masks.Bias: position bias of the scores, or None
scores    (batch, heads, seq, keys) of an earlier block, or None; along with keep_scores: bool. If that is
          True the module returns (update, its request.Scores)
gives     names of what else later blocks read of it, only where there are any. It returns them in its LayerOutput
memory    (batch, tokens, dim), its x for the tokens of earlier segments, or None
cache     blocks.state.LayerState, this node's state while decoding or, for pieces per row, between segments; or None
kv, ...   what an option that takes a label reads, under the option's name; only where it is on
value_embed  (batch, mems + seq, features), embeddings of the tokens, for a block with this option
use       int, which of the blocks that share its parameters, only where each has some of its own
observed  bool, whether someone looks at the pass: the layer returns its statistics, `blocks.layer_output.LayerOutput`
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blocks.block import BlockOutput
from ..kernels.documents import Documents
from ..kernels.masks import Bias, Masks, full_attn_mask, joined_masks
from ..positions.relative import Positions, RelativeBias, consecutive, positions_at
from ..positions.rotary import Rotation
from .inputs import ForwardInputs
from .intermediates import Intermediates
from .plan import Step, given_by
from .state import NodeState, RowState, SegmentState


@dataclass
class ForwardContext:
    """What one forward pass knows and has computed.

    Attributes:
        inputs: the arguments of the pass.
        seen: (batch, past + seq) bool, which of all tokens are real; None: all. With fixed shapes (batch, max_len).
        masks: of all blocks.
        tokens_mask: (batch, mems + seq) bool, for the token shift; None: all are real.
        intermediates: filled as blocks run, or None.
        rotations, biases: of all blocks, by position node.
        context_rotations: of the context's tokens, by position node.
        values: the stream after each node, and what blocks give to later ones.
        added: for nodes inside a branch, the stream minus its value at the fork.
        losses: what blocks add to the loss in training, by node and name.
        value_embeds: of each table that blocks read by number, (batch, mems + seq, features).
        documents: several in a row; None: each is one.
        condition: (batch, 1, features) of a row, or (batch, mems + seq, features), as norms and layer scales read it.
    """

    inputs: ForwardInputs
    seen: Tensor | None
    masks: Masks
    tokens_mask: Tensor | None
    intermediates: Intermediates | None
    rotations: dict[str, Rotation] = field(default_factory=dict)
    biases: dict[str, RelativeBias] = field(default_factory=dict)
    context_rotations: dict[str, Rotation] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    added: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    condition: Tensor | None = None
    value_embeds: Mapping[int, Tensor] = field(default_factory=dict)
    documents: Documents | None = None

    @classmethod
    def of(cls, inputs: ForwardInputs, intermediates: Intermediates | None, causal: bool) -> ForwardContext:
        """From checked inputs; the stack adds rotations and biases."""
        before = None if inputs.mems is None else inputs.mems.mask
        batch, device = inputs.x.shape[0], inputs.x.device
        tokens_mask = joined_masks(before, inputs.mem_len, inputs.mask, inputs.seq, batch, device)
        seen = _seen(inputs, tokens_mask)
        documents = None if inputs.doc_ids is None else Documents.of(inputs.doc_ids)
        masks = _masks(inputs, seen, causal, documents)
        return cls(inputs, seen, masks, tokens_mask, intermediates, documents=documents)

    def layer_inputs(self, step: Step) -> dict[str, Any]:
        """The inputs of a block's layer; the block itself adds `memory`, after its norm."""
        out = dict.fromkeys(step.inputs)
        for name in step.gets:
            out[name] = _HANDED[name](self, step)
        for name, place in step.takes.items():
            value = self.values[place]
            value = value.sum(dim=-2) if name in step.sums else value
            own = name == "context" and step.own_context is not None
            out[name] = self._with_earlier(step.own_context or "", value) if own else value
        if "scores" in out:
            seen = self.intermediates
            out["keep_scores"] = step.keep_scores or (seen is not None and seen.keep_attention)
        if step.gives:
            out["gives"] = step.gives
        return out

    def _with_earlier(self, place: str, context: Tensor) -> Tensor:
        """(batch, mems + seq, dim), the stream at an earlier node after that of earlier segments; and note it."""
        if self.intermediates is not None:
            self.intermediates.contexts[place] = context
        earlier = None if self.inputs.mems is None else self.inputs.mems.streams.get(place)
        return context if earlier is None else torch.cat((earlier.to(context.dtype), context), dim=1)

    def state(self, step: Step) -> NodeState | SegmentState | None:
        """The state its layer continues from: the node's in the cache or, if it has any, of earlier segments."""
        cache, mems = self.inputs.cache, self.inputs.mems
        if cache is not None:
            return cache.nodes.get(step.node)
        if step.carries is None or self.documents is not None or (mems is None and self.intermediates is None):
            return None
        return SegmentState(step.carries, {} if mems is None else mems.states.get(step.node, {}), self.inputs.x)

    def shift_state(self, step: Step) -> RowState | None:
        """The state of the step's token shift while decoding."""
        return None if self.inputs.cache is None else self.inputs.cache.shifts[step.node]

    def memory(self, step: Step) -> Tensor | None:
        """(batch, tokens, dim), the stream that the step read in earlier segments."""
        return None if self.inputs.mems is None else self.inputs.mems.streams.get(step.node)

    def mask(self, memory: Tensor | None) -> Tensor | None:
        """(batch, memory + seq) bool, for the token shift."""
        if memory is None:
            return self.inputs.mask
        tokens = memory.shape[1] + self.inputs.seq
        return None if self.tokens_mask is None else self.tokens_mask[:, self.tokens_mask.shape[1] - tokens :]

    def forget(self, nodes: tuple[str, ...]) -> None:
        """Drop what no later step reads."""
        for node in nodes:
            self.values.pop(node, None)
            if self.added:
                self.added.pop(node, None)

    def record(self, step: Step, x: Tensor, out: BlockOutput, state: NodeState | SegmentState | None) -> None:
        """Keep what a block read, its scores and statistics, and the state it continues from later."""
        scores = out.scores
        if self.intermediates is None:
            return
        self.intermediates.streams[step.node] = x
        if out.statistics:
            self.intermediates.statistics[step.node] = dict(out.statistics)
        if step.carries is not None and state is not None:
            self.intermediates.states[step.node] = state.after()
        if scores is not None and self.intermediates.keep_attention:
            self.intermediates.attention[step.node] = scores

    def give(self, step: Step, out: BlockOutput) -> None:
        """Keep what later blocks read of a block beside its stream."""
        if step.keep_scores:  # a registered kind may return a plain tensor
            self.values[given_by(step.node, "scores")] = getattr(out.scores, "before", out.scores)
        for what in step.gives:
            if out.gives is None or what not in out.gives:
                raise ValueError(f"{step.node} returned no {what}, which a later block reads: see LayerOutput.gives")
            self.values[given_by(step.node, what)] = out.gives[what]

    def context_rotation(self, step: Step) -> Rotation | None:
        """The rotation of the tokens of a step's context, which may be the stack's own."""
        rotations = self.context_rotations if step.own_context is None else self.rotations
        return rotations.get(step.rotary or "")

    def bias(self, step: Step) -> Bias:
        """The position bias of a step that reads any."""
        values = [self.biases[node] for node in step.biases]
        return Bias(step.biases, reduce(operator.add, values))


_HANDED: dict[str, Callable[[ForwardContext, Step], Any]] = {
    "mask": lambda context, step: context.inputs.mask,
    "attend": lambda context, step: context.masks,
    "context": lambda context, step: context.inputs.context,
    "rotary": lambda context, step: context.rotations[step.rotary or ""],
    "context_rotary": ForwardContext.context_rotation,
    "bias": ForwardContext.bias,
    "cache": ForwardContext.state,
    "value_embed": lambda context, step: context.value_embeds[step.value_embed or 0],
    "use": lambda context, step: step.use.number,
    "observed": lambda context, step: context.intermediates is not None,
}


def _seen(inputs: ForwardInputs, tokens_mask: Tensor | None) -> Tensor | None:
    """See `ForwardContext.seen`."""
    cache = inputs.cache
    if cache is None:
        return tokens_mask
    if cache.fixed is not None:
        return cache.fixed.seen()
    return cache.seen(tokens_mask, inputs.mem_len + inputs.seq, inputs.x.device)


def _masks(inputs: ForwardInputs, seen: Tensor | None, causal: bool, documents: Documents | None) -> Masks:
    device, context_mask = inputs.x.device, context_seen(inputs)
    if inputs.cache is not None and inputs.cache.fixed is not None:
        return Masks(1, inputs.held - 1, seen, context_mask, None, device, inputs.cache.fixed.place, causal)
    if inputs.self_attn_context_mask is not None:
        further = F.pad(inputs.self_attn_context_mask, (inputs.past, 0), value=True)
        seen = further if seen is None else seen & further
    attn_mask = full_attn_mask(inputs.attn_mask, inputs.past)
    return Masks(inputs.seq, inputs.past, seen, context_mask, attn_mask, device, causal=causal, documents=documents)


def context_seen(inputs: ForwardInputs) -> Tensor | None:
    """(batch, context) bool: which tokens of the context, perhaps one in the cache, are real; None: all."""
    return inputs.cache.context_mask if inputs.cache is not None and inputs.held else inputs.context_mask


def context_positions(inputs: ForwardInputs) -> Tensor:
    """(context,) or (batch, context) int, of the context's tokens: counted from each row's first real one."""
    assert inputs.context is not None
    if inputs.context_pos is not None:
        return inputs.context_pos
    if inputs.context_mask is not None:
        return (inputs.context_mask.cumsum(dim=-1).cummax(dim=-1).values - 1).clamp(min=0)
    return torch.arange(inputs.context.shape[1], device=inputs.context.device, dtype=torch.int64)


def token_positions(inputs: ForwardInputs) -> Positions:
    """Positions of the tokens and of all before them."""
    cache, pos, device = inputs.cache, inputs.pos, inputs.x.device
    if cache is not None and cache.fixed is not None:
        return Positions(*cache.fixed.placed(pos), consecutive=False)
    before = None if cache is None else cache.positions
    first = 0 if cache is None else cache.first
    if pos is None and before is None:
        return consecutive(inputs.seq, inputs.past, device, first)
    if pos is None:
        assert before is not None
        pos = before[..., -1:] + torch.arange(1, inputs.seq + 1, device=device, dtype=torch.int64)
    elif before is None and inputs.held:
        before = torch.arange(first, first + inputs.past, device=device, dtype=torch.int64)
    return positions_at(pos, before, inputs.past)


def restarted(positions: Positions, ctx: ForwardContext) -> Positions:
    """Positions that are counted here, from the start of each document."""
    if ctx.documents is None:
        return positions
    places = ctx.documents.positions(ctx.inputs.mask)
    return Positions(places, places, consecutive=False)
