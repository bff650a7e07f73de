"""What the nodes and edges of a block graph say.

Node kinds (attribute `kind`), and the other attributes each has:

    input     where the stream starts, and its token embedding: `tokens.INPUT_OPTIONS`; num_tokens is None without
    context   the sequence that cross-attention reads
    position  scheme: "absolute" or "sinusoidal", which are added to the embedded tokens, or one of `positions.SCHEMES`
              ("rotary", "t5", "dynamic", "alibi") with its attributes
    block     block: its kind in the registry; options: all of them; given: those its own text set;
              shift: token shift; scale: of the branch; tie: class of shared parameters or None; stage: index
    sum       where parallel branches meet; stage
    output    norm: "layernorm", "rmsnorm", "scalenorm" or None; logits_dim: how many logits, or None; tied: to the
              embedding

Edges say what they carry (attribute `carries`, a tuple or one name; a missing one means the stream). An edge that
is there already keeps what it carries when it is added again without saying.

    stream    the residual stream. A node reads the sum of what its stream edges bring
    base      of a sum: the stream its branches started from. The sum is base + what each branch added to it
    context   from the context to a block that attends to it
    position  from a position to a block, or from one that is added to the tokens to the input
    scores    attention scores of one block, added to those of a later one (residual attention)

Graph attributes: dim, causal, stages (names or None), pattern (the text it was made from; information only).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry.options import Option
from ..registry.positions import SCHEMES
from ..registry.tokens import INPUT_OPTIONS, INPUT_SCHEMES

EDGES = ("stream", "base", "context", "position", "scores")

# The attributes that the graph and each kind of node have. A block's `options` and `given` are dicts, beside these.
_STAGE = Option("stage", int, 0, "index of the stage", least=0)
GRAPH_ATTRIBUTES = (
    Option("dim", int, None, "features of the stream", least=1),
    Option("causal", bool, False, "no token sees a later one"),
    Option("pattern", str, "", "the text it was made from"),
)
NODE_ATTRIBUTES = {
    "input": INPUT_OPTIONS,
    "context": (),
    "position": (Option("scheme", str, "rotary", "how positions enter", choices=(*SCHEMES, *INPUT_SCHEMES)),),
    "block": (
        Option("block", str, "", "its kind"),
        Option("shift", int, 0, "token shift", least=0),
        Option("scale", float, 1.0, "of the branch"),
        Option("tie", str, None, "class of shared parameters", optional=True),
        _STAGE,
    ),
    "sum": (_STAGE,),
    "output": (
        Option("norm", str, None, "the final norm", choices=("layernorm", "rmsnorm", "scalenorm"), optional=True),
        Option("logits_dim", int, None, "how many logits", least=1, optional=True),
        Option("tied", bool, False, "logits by the embedding's matrix"),
    ),
}


def carried(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """What an edge carries; one added without saying is the stream."""
    carries = attrs.get("carries", ("stream",))
    return (carries,) if isinstance(carries, str) else tuple(carries)
