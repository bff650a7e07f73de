"""From a resolved pattern to the block graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx

from ..errors import PatternError
from ..language.expand import ReadSpec
from ..language.labels import LabelSpec
from ..registry.kinds import CONCAT, SCORE_SIZES, kinds
from ..registry.norms import NORM_DETAILS, norm_of, reads_condition, shares
from ..registry.options import Option
from ..registry.positions import Scheme
from ..registry.settings import block_default
from ..registry.tokens import input_attributes
from .given import misread, over_context
from .graph import Graph
from .nodes import output_attributes
from .resolve import ResolvedBlock, ResolvedBranches, ResolvedPattern, ResolvedStep


def build(resolved: ResolvedPattern) -> nx.DiGraph:
    """The graph of a resolved pattern, without the model around the stack.

    Raises:
        PatternError: residual attention joins blocks whose scores do not fit, or there is no norm to share.
    """
    return _Builder(resolved).build()


class _Builder:
    def __init__(self, resolved: ResolvedPattern) -> None:
        self.resolved = resolved
        self.settings = resolved.settings
        self.kinds = kinds()
        self.count = self.sums = self.reads = 0
        self.labelled: dict[int, str] = {}  # index of a label → the node it names
        self.first: dict[str, str] = {}  # node → the first block that reads its stream
        self.positions: dict[tuple[Any, ...], str] = {}
        self.graph = nx.DiGraph(
            dim=resolved.dim,
            causal=self.settings["causal"],
            stages=list(resolved.pattern.expansion.stages),
        )

    def build(self) -> nx.DiGraph:
        self.graph.add_node("input", type="input", **input_attributes())
        end, _ = self._chain(self.resolved.steps, "input", {})
        last = self.settings["final_norm"]
        given = self.resolved.given
        last = given.get("pre_norm", True) and not given.get("pre_and_post_norm") if last is None else last
        details = {option.name: block_default(option, given) for option in NORM_DETAILS}
        norm = norm_of(given) if last else None
        name = None if norm is None else norm.name
        own = {"softcap": self.settings["output_softcap"], "norm": name}
        self.graph.add_node("output", type="output", **own, **details, **output_attributes())
        self._edge(end, "output", "stream")
        if norm is not None and norm.adaptive:
            self._edge(self._condition(), "output", "condition")
        self.graph.graph["pattern"] = str(self.resolved.pattern)
        return self.graph

    def _chain(self, steps: Sequence[ResolvedStep], start: str, scores: dict[str, str]) -> tuple[str, dict[str, str]]:
        """Steps one after another from `start`; returns the last node and the newest scores of each kind."""
        at = start
        for step in steps:
            if isinstance(step, LabelSpec):
                self.labelled[step.index] = at
                self.graph.nodes[at]["labels"] = (*self.graph.nodes[at].get("labels", ()), step.name)
            elif isinstance(step, ReadSpec):
                at = self._read(step, at)
            elif isinstance(step, ResolvedBranches):
                at, scores = self._branches(step, at, scores)
            else:
                at, scores = self._block(step, at, scores)
        return at, scores

    def _branches(self, step: ResolvedBranches, start: str, scores: dict[str, str]) -> tuple[str, dict[str, str]]:
        newest = dict(scores)
        ends = []
        for branch in step.branches:
            end, after = self._chain(branch, start, dict(scores))
            newest |= {kind: node for kind, node in after.items() if node != scores.get(kind)}
            ends.append(end)
        node, self.sums = f"sum{self.sums}", self.sums + 1
        self.graph.add_node(node, type="sum", stage=self.graph.nodes[ends[-1]]["stage"])
        self._edge(start, node, "base")
        for end in ends:
            self._edge(end, node, "stream")
        return node, newest

    def _read(self, read: ReadSpec, start: str) -> str:
        node, self.reads = f"read{self.reads}", self.reads + 1
        self.graph.add_node(
            node, type="read", join=read.join, init=read.init, scale=read.scale, tie=read.tie, stage=read.stage
        )
        for index in read.sources:  # before the stream's edge, so that they stay in order
            self._edge(self.labelled[index], node, "read")
        self._edge(start, node, "stream")
        return node

    def _block(self, block: ResolvedBlock, start: str, scores: dict[str, str]) -> tuple[str, dict[str, str]]:
        kind = self.kinds[block.kind]
        node, self.count = f"{block.kind}{self.count}", self.count + 1
        self.graph.add_node(
            node,
            type="block",
            kind=block.kind,
            options=block.options.copy(),
            given=block.given.copy(),
            shift=block.shift,
            scale=block.scale,
            tie=block.tie,
            stage=block.stage,
        )
        self.graph.add_edge(start, node, carries=("stream",))
        if block.options["shared_norm"]:
            self._normed(self.first[start], node, block)
        self.first.setdefault(start, node)
        if "context" in kind.inputs and "context" not in block.reads:
            if "context" not in self.graph:
                self.graph.add_node("context", type="context")
            self._edge("context", node, "context")
        if reads_condition(block.options):
            self._edge(self._condition(), node, "condition")
        for scheme, attributes in block.positions:
            self._edge(self._position(scheme, attributes), node, "position")
        for option in kind.options if block.reads else ():
            if option.name in block.reads:
                self._labelled(option, block, node)
        if "scores" in kind.inputs:
            if block.options.get("residual_attn") and block.kind in scores and "scores" not in block.reads:
                self._scores(scores[block.kind], node, block)
            scores = scores | {block.kind: node}
        return node, scores

    def _labelled(self, option: Option, block: ResolvedBlock, node: str) -> None:
        """The edge of an option that takes a label."""
        source = self.labelled[block.reads[option.name]]
        if problem := misread(Graph(self.graph), source, node, option.reads):
            hint = f"write the label right after the block that {option.name} is of"
            raise PatternError(self.resolved.pattern.source, block.span, f"{option.name} reads {problem}", hint)
        if option.reads == "scores":
            self._scores(source, node, block)
        else:
            self._edge(source, node, option.reads)

    def _condition(self) -> str:
        """The node of the condition, which is there once something reads it."""
        if "condition" not in self.graph:
            dim, expansion = self.settings["dim_condition"], self.settings["adaptive_condition_mlp_expansion"]
            dim, mlp = dim or self.resolved.dim, self.settings["adaptive_condition_mlp"]
            self.graph.add_node("condition", type="condition", dim=dim, expansion=expansion if mlp else None)
        return "condition"

    def _position(self, scheme: Scheme, attributes: dict[str, Any]) -> str:
        """The node of a scheme with these attributes; blocks that ask for the same share it."""
        key = (scheme.name, *attributes.values())
        if key not in self.positions:
            name = f"{scheme.node}{attributes[scheme.size]}"
            while name in self.graph:
                name += "x"
            self.graph.add_node(name, type="position", scheme=scheme.name, **attributes)
            self.positions[key] = name
        return self.positions[key]

    def _scores(self, source: str, node: str, block: ResolvedBlock) -> None:
        for name, what in SCORE_SIZES.items():
            theirs, ours = self.graph.nodes[source]["options"].get(name), block.options.get(name)
            if theirs != ours:
                problem = f"residual attention adds the scores of {theirs} {what} to those of {ours}"
                own = "read those of another block" if "scores" in block.reads else "write residual_attn=false here"
                hint = f"give both blocks the same number of {what}, or {own}"
                raise PatternError(self.resolved.pattern.source, block.span, problem, hint)
        earlier = self.graph.nodes[source]
        giving, reading = self.kinds[earlier["kind"]], self.kinds[block.kind]
        if over_context(giving, earlier["options"]) != over_context(reading, block.options):
            problem = f"reads {source} ({giving.title}), and scores over tokens do not fit scores over the context"
            hint = "read those of self-attention in self-attention, and those of cross-attention in cross-attention"
            raise PatternError(self.resolved.pattern.source, block.span, problem, hint)
        self._edge(source, node, "scores")

    def _normed(self, source: str, node: str, block: ResolvedBlock) -> None:
        if not shares(self.graph.nodes[source]["options"]):
            more = self.graph.nodes[source]["options"].get(CONCAT)
            lacks = "norms more than it" if more else "has no norm before its branch"
            problem = f"shared_norm reads the stream as {source} norms it, and {source} {lacks}"
            raise PatternError(self.resolved.pattern.source, block.span, problem, "write shared_norm=false here")
        self._edge(source, node, "normed")

    def _edge(self, source: str, target: str, carries: str) -> None:
        before = self.graph.edges[source, target]["carries"] if self.graph.has_edge(source, target) else ()
        self.graph.add_edge(source, target, carries=(*before, carries))
