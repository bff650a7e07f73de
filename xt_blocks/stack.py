"""The lowered graph: its modules, and the plan by which a forward pass runs them.

The plan is read off the graph once. Each step names the nodes it reads, so the forward pass is a walk over the
graph and state is keyed by node.

What a block's module is handed, by the names its kind declares in `inputs`:

    mask      (batch, seq) bool, True = a real token; None: all are
    attend    attention.Masks: every mask of this forward pass
    context   (batch, context, dim); None when the cache has what the block needs of it
    rotary    positions.Rotation of the tokens in this call, those of earlier segments first, or None
    bias      attention.Bias: what positions add to the scores, or None
    scores    (batch, heads, seq, keys) of an earlier block, or None; with it comes keep_scores: bool. When that is
              True the module returns (update, its attention.Scores)
    memory    (batch, tokens, dim), what it would have been called with in earlier segments, or None
    cache     cache.Slot, this node's state while decoding, or None
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockdsl.errors import GraphError
from blockdsl.kinds import BLOCK_OPTIONS, kinds, norm_of
from blockdsl.positions import SCHEMES

from .attention.masks import Bias, Masks, check_mask, check_pairs, pairs_of
from .block import Block, Residual, Use
from .cache import Cache
from .init import init_xavier
from .intermediates import Intermediates
from .memories import Memories, extended, remembered
from .norms import norm
from .positions.relative import Positions, consecutive, given, scores_bias
from .positions.rotary import Rotation, rotation
from .residual import ResidualConnection

if TYPE_CHECKING:
    from blockdsl import BlockGraph


@dataclass(frozen=True)
class Step:
    """One node of the plan.

    Attributes:
        node: its name in the graph.
        reads: the nodes whose streams are summed.
        block: the key of its module, the owner's where blocks are tied; None: a sum.
        base: of a sum, where its branches started.
        fork: of a node inside a branch, where the branch started; what it adds is counted from there.
        inputs: what its kind declares.
        counted: of a sum, the branches whose gain is known from their blocks; that of another is a difference.
        rotary, biases, scores_from: the nodes it reads these from.
        keep_scores: a later block reads its scores.
        done: nodes whose values no later step reads.
    """

    node: str
    reads: tuple[str, ...]
    block: str | None = None
    base: str | None = None
    fork: str | None = None
    use: Use = field(default_factory=Use)
    inputs: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    rotary: str | None = None
    biases: tuple[str, ...] = ()
    scores_from: str | None = None
    keep_scores: bool = False
    done: tuple[str, ...] = ()


class Stack(nn.Module):
    """A block graph as a torch module.

    Args:
        graph: linted; what it says of tokens is left to the wrapper around the stack.

    Attributes:
        graph: the graph it was lowered from.
    """

    def __init__(self, graph: BlockGraph) -> None:
        super().__init__()
        self.graph = graph.lint()
        self.dim = graph.dim
        if taken := [node for node in graph.tied() if hasattr(nn.ModuleDict, node)]:
            raise GraphError(f"{taken[0]}: torch's modules use this name themselves; give the node another")
        self.blocks = nn.ModuleDict({owner: _block(graph, owner) for owner in graph.tied()})
        self.positions, self.rotary = _positions(graph)
        self.norm = norm(graph.nx.nodes[graph.end]["norm"], graph.dim)
        self.plan = _plan(graph)
        self.start = graph.start
        self.reads_context = bool(graph.nodes("context"))
        options = (graph.nx.nodes[step.node]["options"] for step in self.plan if step.rotary)
        self.anchored = any(own.get("num_mem_kv") for own in options)
        self.reads_positions = bool(self.positions or self.rotary)
        seeing = [step.node for step in self.plan if "attend" in step.inputs and "context" not in step.inputs]
        self.attends = bool(seeing)
        self.heads = {self.graph.nx.nodes[node]["options"].get("heads", 1) for node in seeing}
        self.remembers = {step.node for step in self.plan if step.block is not None and remembered(step) != 0}

    @property
    def pattern(self) -> str:
        """The canonical text of the pattern it was made from."""
        return self.graph.pattern

    def new_cache(self, batch: int, max_len: int) -> Cache:
        """Room to decode `batch` sequences of up to `max_len` tokens.

        Raises:
            ValueError: the stack cannot be decoded one token at a time; the message says why.
        """
        if reason := self.graph.why_not_cached():
            raise ValueError(f"no cache can be kept: {reason}")
        return Cache(batch, max_len)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        self_attn_context_mask: Tensor | None = None,
        pos: Tensor | None = None,
        mems: Memories | None = None,
        cache: Cache | None = None,
        intermediates: Intermediates | None = None,
        return_hiddens: bool = False,
    ) -> Any:
        """
        Args:
            x: (batch, seq, dim)
            context: (batch, context, dim), for cross-attention.
            mask: (batch, seq) bool, True = a real token.
            context_mask: (batch, context) bool, True = a real token.
            attn_mask: bool, True = attend, for every self-attention: (seq, keys), (heads, seq, keys) or
                (batch, heads, seq, keys). keys: seq, or with those of mems and cache in front.
            self_attn_context_mask: (batch, seq) bool, tokens that self-attention may see; others keep their place.
            pos: (seq,) or (batch, seq) int, where the tokens stand; one behind the other when not given.
            mems: memories of earlier segments; with a cache, at its first step.
            cache: x goes on behind the tokens it holds.
            intermediates: filled with what the pass went through.
            return_hiddens: return such Intermediates too.

        Returns:
            (batch, seq, dim), and with return_hiddens the Intermediates.

        Raises:
            ValueError: a shape or type is wrong, or something is missing or nothing would read it.
        """
        self._check(x, context, mask, context_mask, cache)
        self._check_places(x, attn_mask, self_attn_context_mask, pos, mems, cache)
        if return_hiddens and intermediates is None:
            intermediates = Intermediates()
        seq = x.shape[1]
        behind, held = 0 if mems is None else mems.length, 0 if cache is None else cache.length
        past = behind + held
        tokens_mask = _with_memories(mask, mems, x)
        seen = tokens_mask
        if cache is not None:
            seen = cache.seen(tokens_mask, behind + seq, x.device)
            context_mask = cache.context_mask if held else context_mask
            cache.end = past + seq
        positions = _where(pos, seq, past, cache, x.device)
        run = _Run(
            masks=Masks(
                seq,
                past,
                _hidden_too(seen, self_attn_context_mask, past),
                context_mask,
                pairs_of(attn_mask, past),
                x.device,
            ),
            mask=mask,
            tokens_mask=tokens_mask,
            context=context,
            rotations=self._rotations(positions, behind + seq, seen if pos is None else None),
            biases={node: scores_bias(module, positions) for node, module in self.positions.items()},
            mems=mems,
            cache=cache,
            intermediates=intermediates,
        )
        out = self._walk(x, run)
        if cache is not None:
            cache.length, cache.mask, cache.context_mask = cache.end, seen, context_mask
            cache.positions = None if positions.consecutive else positions.keys
        if intermediates is not None:
            intermediates.last = out
        out = self.norm(out)
        return (out, intermediates) if return_hiddens else out

    def remember(
        self,
        mems: Memories | None,
        intermediates: Intermediates,
        mask: Tensor | None,
        max_mem_len: int,
        pinned: int = 0,
    ) -> Memories:
        """The memories behind a pass.

        Args:
            mems: those it started with.
            intermediates: what it went through.
            mask: (batch, seq) bool that it had.
            max_mem_len: tokens to remember.
            pinned: tokens at the front of a first segment that are remembered for good.
        """
        return extended(mems, self.plan, intermediates.streams, mask, max_mem_len, pinned)

    def _walk(self, x: Tensor, run: _Run) -> Tensor:
        values: dict[str, Tensor] = {self.start: x}  # the stream behind each node
        added: dict[str, Tensor] = {}  # inside a branch: the stream less what it was at the fork
        scores: dict[str, Any] = {}
        for step in self.plan:
            if step.block is None:
                self._sum(step, values, added)
            else:
                self._run_block(step, run, values, added, scores)
            for node in step.done:
                values.pop(node, None)
                added.pop(node, None)
                scores.pop(node, None)
        (last,) = values.values()
        return last

    def _run_block(
        self, step: Step, run: _Run, values: dict[str, Tensor], added: dict[str, Tensor], scores: dict[str, Any]
    ) -> None:
        x = _total(values, step.reads)
        slot = None if run.cache is None else run.cache.slot(step.node)
        memory = None if run.mems is None else run.mems.streams.get(step.node)
        mask = run.mask if memory is None else _last(run.tokens_mask, memory.shape[1] + x.shape[1])
        out: Residual = self.blocks[step.block](x, step.use, run.inputs(step, scores), mask, slot, memory)  # type: ignore[index]
        values[step.node] = out.stream
        run.record(step, x, out.scores)
        if step.keep_scores:
            scores[step.node] = out.scores
        if step.fork is not None:
            gained = out.stream - x if out.gain is None else out.gain
            before = added.get(step.reads[0]) if step.reads[0] != step.fork else None
            added[step.node] = gained if before is None else before + gained

    def _sum(self, step: Step, values: dict[str, Tensor], added: dict[str, Tensor]) -> None:
        if step.base is None:
            values[step.node] = _total(values, step.reads)
            return
        base = values[step.base]
        gains = [added[end] if end in step.counted else values[end] - base for end in step.reads]
        gained = sum(gains[1:], gains[0])
        values[step.node] = base + gained
        if step.fork is not None:
            before = added.get(step.base) if step.base != step.fork else None
            added[step.node] = gained if before is None else before + gained

    def _rotations(self, positions: Positions, tokens: int, seen: Tensor | None) -> dict[str, Rotation]:
        """Of this call's tokens; of all keys where they decay with distance."""
        keys = positions.keys
        if self.anchored and seen is not None:  # memories stand where a row starts, which is behind its padding
            padding = (seen.cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
            keys = (keys - padding).clamp(min=0)
        return {
            node: rotation(keys if base else keys[..., keys.shape[-1] - tokens :], dim, base)
            for node, (dim, base) in self.rotary.items()
        }

    def _check(
        self,
        x: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        context_mask: Tensor | None,
        cache: Cache | None,
    ) -> None:
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be (batch, seq, {self.dim}), not {tuple(x.shape)}")
        if context is None and self.reads_context and (cache is None or cache.length == 0):
            raise ValueError("the stack has cross-attention: give context=")
        if cache is not None and cache.length and (context is not None or context_mask is not None):
            raise ValueError("the cache holds the context of its first step; later steps take none")
        if context is not None and not self.reads_context:
            hint = "write 'c' in the pattern or cross_attend=True"
            raise ValueError(f"a context is given, but no block reads one: {hint}")
        if context is not None and (context.ndim != 3 or context.shape[::2] != x.shape[::2]):
            raise ValueError(f"context must be ({x.shape[0]}, seq, {self.dim}), not {tuple(context.shape)}")
        if context_mask is not None and context is None:
            raise ValueError("a context_mask is given, but no context")
        check_mask("mask", mask, x)
        check_mask("context_mask", context_mask, context)
        if cache is not None:
            cache.check_room(x.shape[0], x.shape[1])

    def _check_places(
        self,
        x: Tensor,
        attn_mask: Tensor | None,
        self_attn_context_mask: Tensor | None,
        pos: Tensor | None,
        mems: Memories | None,
        cache: Cache | None,
    ) -> None:
        held = 0 if cache is None else cache.length
        check_mask("self_attn_context_mask", self_attn_context_mask, x)
        for name, given_mask in (("attn_mask", attn_mask), ("self_attn_context_mask", self_attn_context_mask)):
            if given_mask is not None and not self.attends:
                raise ValueError(f"{name} is given, but the stack has no self-attention")
        if self_attn_context_mask is not None and held:
            raise ValueError("self_attn_context_mask is for a first step; later ones hide tokens by attn_mask")
        if mems is not None:
            if not isinstance(mems, Memories):
                raise TypeError(f"mems must be the Memories of an earlier segment, not {type(mems).__name__}")
            if mems.batch not in (0, x.shape[0]):
                raise ValueError(f"the memories are of {mems.batch} rows, not {x.shape[0]}")
            if held:
                raise ValueError("memories stand in front of the cache's first step; later steps take none")
            if mems.length and mems.streams.keys() != self.remembers:
                raise ValueError("the memories are of a model with other blocks")
        past = held + (0 if mems is None else mems.length)
        if attn_mask is not None:
            check_pairs(attn_mask, x, past)
            heads = attn_mask.shape[-3] if attn_mask.ndim > 2 else 1
            if heads != 1 and self.heads != {heads}:
                own = " and ".join(map(str, sorted(self.heads)))
                raise ValueError(f"attn_mask is for {heads} heads, and the stack's self-attention has {own}")
        if pos is not None:
            if not self.reads_positions:
                raise ValueError(
                    "pos is given, but no block reads positions: turn on rotary_pos_emb or a position bias"
                )
            if pos.is_floating_point() or pos.dtype == torch.bool or pos.shape not in (x.shape[1:2], x.shape[:2]):
                wanted = f"int ({x.shape[1]},) or {tuple(x.shape[:2])}"
                raise ValueError(f"pos must be {wanted}, not {pos.dtype} {tuple(pos.shape)}")
        if cache is not None:
            cache.check_room(x.shape[0], x.shape[1] + past - held)


def _with_memories(mask: Tensor | None, mems: Memories | None, x: Tensor) -> Tensor | None:
    """(batch, memories + seq) bool: the mask of the tokens and of those remembered; None: all are real."""
    if mems is None or (mask is None and mems.mask is None):
        return mask
    now = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    before = now.new_ones(x.shape[0], mems.length) if mems.mask is None else mems.mask
    return torch.cat((before, now), dim=1)


def _hidden_too(seen: Tensor | None, further: Tensor | None, past: int) -> Tensor | None:
    """(batch, past + seq) bool: the mask `seen`, and of this call's tokens (batch, seq) `further`; None: all."""
    if further is None:
        return seen
    further = F.pad(further, (past, 0), value=True)
    return further if seen is None else seen & further


def _where(pos: Tensor | None, seq: int, past: int, cache: Cache | None, device: torch.device) -> Positions:
    before = None if cache is None else cache.positions
    if pos is None and before is None:
        return consecutive(seq, past, device)
    if pos is None:
        assert before is not None
        pos = before[..., -1:] + torch.arange(1, seq + 1, device=device)
    elif before is None and cache is not None and cache.length:
        before = torch.arange(past, device=device)
    return given(pos, before, past)


def _last(mask: Tensor | None, tokens: int) -> Tensor | None:
    return None if mask is None else mask[:, mask.shape[1] - tokens :]


@dataclass
class _Run:
    """What one forward pass hands to its blocks."""

    masks: Masks
    mask: Tensor | None
    tokens_mask: Tensor | None
    context: Tensor | None
    rotations: dict[str, Rotation]
    biases: dict[str, Tensor]
    mems: Memories | None
    cache: Cache | None
    intermediates: Intermediates | None

    def inputs(self, step: Step, scores: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name in step.inputs:
            out[name] = _HANDED[name](self, step)
        if "scores" in out:
            out["scores"] = None if step.scores_from is None else _before(scores[step.scores_from])
            out["keep_scores"] = step.keep_scores or self.keeps_attention
        return out

    @property
    def keeps_attention(self) -> bool:
        return self.intermediates is not None and self.intermediates.keep_attention

    def bias(self, step: Step) -> Bias | None:
        if not step.biases:
            return None
        values = [self.biases[node] for node in step.biases]
        return Bias(step.biases, sum(values[1:], values[0]))

    def record(self, step: Step, x: Tensor, scores: Any) -> None:
        if self.intermediates is None:
            return
        self.intermediates.streams[step.node] = x
        if scores is not None and self.keeps_attention:
            self.intermediates.attention[step.node] = scores


# What a block is handed by the names of its inputs; its memory is set where it is normed, in the block.
_HANDED: dict[str, Callable[[_Run, Step], Any]] = {
    "mask": lambda run, step: run.mask,
    "attend": lambda run, step: run.masks,
    "context": lambda run, step: run.context,
    "rotary": lambda run, step: None if step.rotary is None else run.rotations[step.rotary],
    "bias": lambda run, step: run.bias(step),
    "scores": lambda run, step: None,
    "memory": lambda run, step: None,
    "cache": lambda run, step: None if run.cache is None else run.cache.slot(step.node),
}


def _before(scores: Any) -> Tensor:
    """The scores that a block hands on; a registered kind may give them as they are."""
    return scores if isinstance(scores, Tensor) else scores.before


def _total(values: dict[str, Tensor], nodes: tuple[str, ...]) -> Tensor:
    return sum((values[node] for node in nodes[1:]), values[nodes[0]])


# Lowering ----------------------------------------------------------------------------------------------------------


def _block(graph: BlockGraph, node: str) -> Block:
    """The module of a block's node."""
    attrs = graph.nx.nodes[node]
    kind, options = kinds()[attrs["block"]], dict(attrs["options"])
    around = {option.name: options.pop(option.name) for option in BLOCK_OPTIONS}
    make = pkgutil.resolve_name(kind.module) if isinstance(kind.module, str) else kind.module
    layer = make(dim=graph.dim, **options)
    if around["init_gain"] is not None:
        init_xavier(layer, around["init_gain"])
    return Block(
        layer,
        graph.dim,
        norm_of(around),
        around["pre_norm"],
        around["layer_dropout"],
        around["sandwich_norm"],
        ResidualConnection(
            graph.dim, around["scale_residual"], around["scale_residual_constant"], around["gate_residual"]
        ),
    )


def _positions(graph: BlockGraph) -> tuple[nn.ModuleDict, dict[str, tuple[int, int | None]]]:
    """The modules of biases by node, and by node what rotations need: features and xPos's base."""
    modules, rotary = {}, {}
    for node in graph.nodes("position"):
        attrs = graph.nx.nodes[node]
        scheme = SCHEMES[attrs["scheme"]]
        own = scheme.with_defaults(attrs)
        if scheme.module is None:
            rotary[node] = (own["dim"], own["xpos_scale_base"])
        else:
            modules[node] = pkgutil.resolve_name(scheme.module)(**own)
    return nn.ModuleDict(modules), rotary


def _plan(graph: BlockGraph) -> list[Step]:
    """The graph's blocks and sums in an order that has each behind what it reads."""
    owner = {node: first for first, nodes in graph.tied().items() for node in nodes}
    forks = _forks(graph)
    kept = {source for node in graph.nodes("block") for source in graph.sources(node, "scores")}
    steps = [
        _step(graph, node, owner, forks, node in kept)
        for node in graph.order()
        if graph.nx.nodes[node]["kind"] in ("block", "sum")
    ]
    ends = tuple(graph.sources(graph.end, "stream"))
    if len(ends) > 1 or not steps:
        steps.append(Step(graph.end, ends))
    return _with_lifetimes(steps, graph.start)


def _step(graph: BlockGraph, node: str, owner: dict[str, str], forks: dict[str, str], keep: bool) -> Step:
    attrs = graph.nx.nodes[node]
    reads = tuple(graph.sources(node, "stream"))
    if attrs["kind"] == "sum":
        base = graph.sources(node, "base")
        counted = tuple(end for end in reads if base and forks.get(end) == base[0])
        return Step(node, reads, base=base[0] if base else None, fork=forks.get(node), counted=counted)
    positions, scores = graph.sources(node, "position"), graph.sources(node, "scores")
    rotary = [position for position in positions if graph.nx.nodes[position]["scheme"] == "rotary"]
    return Step(
        node,
        reads,
        block=owner[node],
        fork=forks.get(node),
        use=Use(attrs["shift"], float(attrs["scale"]), graph.causal),
        inputs=kinds()[attrs["block"]].inputs,
        rotary=rotary[0] if rotary else None,
        biases=tuple(position for position in positions if position not in rotary),
        scores_from=scores[0] if scores else None,
        keep_scores=keep,
    )


def _forks(graph: BlockGraph) -> dict[str, str]:
    """Nodes inside a branch → where the innermost branch around them starts; simple chains only.

    What the end of any other branch gained is counted as its value less the base's.
    """
    out: dict[str, str] = {}
    for meet in graph.nodes("sum"):  # inner sums were added before those around them
        for base in graph.sources(meet, "base"):
            for end in graph.sources(meet, "stream"):
                branch = _simple_branch(graph, end, base)
                if all(out.get(node, base) == base for node in branch):
                    out |= dict.fromkeys(branch, base)
    return out


def _simple_branch(graph: BlockGraph, end: str, base: str) -> list[str]:
    """The nodes from `end` back to `base`; none when it is more than a chain of blocks and of sums with a base."""
    out: list[str] = []
    while end != base:
        out.append(end)
        is_sum = graph.nx.nodes[end]["kind"] == "sum"
        before = graph.sources(end, "base" if is_sum else "stream")
        if len(before) != 1:
            return []
        (end,) = before
    return out


def _with_lifetimes(steps: list[Step], start: str) -> list[Step]:
    last: dict[str, int] = {start: 0}
    for i, step in enumerate(steps):
        for node in (*step.reads, step.base, step.scores_from, step.node):
            if node is not None:
                last[node] = max(last.get(node, 0), i)
    done: list[list[str]] = [[] for _ in steps]
    for node, i in last.items():
        if node != steps[-1].node:
            done[i].append(node)
    return [replace(step, done=tuple(nodes)) for step, nodes in zip(steps, done, strict=True)]
