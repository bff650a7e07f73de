"""What blocks read of earlier ones, where x-transformers has it: skips of a U-Net, values of the first self-attention.

x-transformers keeps the layer of a skip with the block that it comes before, and its names do not say what is read:
skips are told from how the stack is wired.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..runtime.plan import Step
from ..runtime.stack import Stack
from .reader import Reader


def check_wiring(stack: Stack, state: Reader) -> None:
    """Refuse what x-transformers wires otherwise."""
    before = stack.start
    for step in stack.plan:
        if step.reads != (before,) or step.takes.keys() - {"scores", "values"}:
            state.refuse(f"{step.node}: x-transformers runs blocks one after another, and these are wired otherwise")
        before = step.node
    reads = [step for step in stack.plan if step.join is not None]
    if reads and (state.old or not _are_skips(stack, reads)):
        state.refuse(f"{reads[0].node}: x-transformers reads what entered earlier blocks as unet_skips has it, or not")
    _check_values(stack, state)


def warn_of_memories(model: Any, stack: Stack, state: Reader) -> None:
    """What a model around the stack computes otherwise with memories of earlier segments."""
    segments = bool(getattr(model, "max_mem_len", 0))
    if stack.injection is not None and segments:
        state.warn(
            "reinject_input: x-transformers injects nothing into memories, and this model what entered with them"
        )


def load_entering(stack: Stack, state: Reader) -> None:
    """What the stack makes of its input, for several streams or for branches."""
    if stack.residual_streams is not None:
        state.fill(stack.residual_streams.weight, "stream_emb")
    if (injection := stack.injection) is not None:
        state.fill(injection.project.weight, "reinject_input_proj.weight")
        if injection.gate is not None:
            state.fill(injection.gate.weight, "learned_reinject_input_gate.weight")
        if state.old:
            state.refuse("reinject_input: 1.x does not have it")


def load_skips(stack: Stack, owners: Sequence[str], state: Reader) -> None:
    """The linear layers of skips; `owners` are the blocks as x-transformers numbers them."""
    for step, after in pairwise(stack.plan):
        combine = getattr(stack.joins[step.join], "combine", None) if step.join is not None else None
        if combine is not None and after.block is not None:
            state.fill(combine.weight, f"skip_combines.{owners.index(after.block)}.combine.weight")


def _are_skips(stack: Stack, reads: Sequence[Step]) -> bool:
    """Whether they go from the starts of the first repeats, counted down to the first, to those of the last ones."""
    if any(step.join != step.node or step.use.scale != 1 or len(step.earlier) != 1 for step in reads):
        return False
    if any(stack.graph.nx.nodes[step.node]["join"] != "cat" for step in reads):
        return False
    steps = [step for step in stack.plan if step.join is None]
    enters = {step.reads[0]: i for i, step in enumerate(steps)}  # what a block reads → its number
    targets, sources = ([enters.get(node, -1) for node in nodes] for nodes in _ends(reads))
    size = (targets[1] - targets[0]) if len(targets) > 1 else len(steps) - targets[0]
    first = len(steps) - size * len(targets)
    expected = [size * i for i in range(len(targets))]
    return targets == [first + i for i in expected] and sources == expected[::-1] and first >= size * len(targets)


def _ends(reads: Sequence[Step]) -> tuple[list[str], list[str]]:
    return [step.node for step in reads], [step.earlier[0] for step in reads]


def _check_values(stack: Stack, state: Reader) -> None:
    """All attentions after the first of their kind read its values, or none do."""
    steps = [step for step in stack.plan if step.block is not None]
    if not any("values" in step.takes for step in steps):
        return
    for kind in ("a", "c"):
        first, *later = [step for step in steps if stack.graph.nx.nodes[step.node]["kind"] == kind] or steps[:1]
        for step in [first] * (first.takes.get("values") is not None) + [
            step for step in later if step.takes.get("values") != f"{first.node}.values"
        ]:
            state.refuse(f"{step.node}: x-transformers mixes the values of the first attention into all later ones")
    if state.old:
        state.refuse("add_value_residual: 1.x does not have it")
