"""What the nodes and edges of a block graph say: one definition, which `lint` checks and all others read.

`graph.nx.nodes[n]` is a plain dict, to be edited at will; the classes below say what is in it for each node type
(attribute `type`). Each attribute is declared once, with its type, range and meaning.

Any other attribute is an error, since it may be a misspelt one, unless its name starts with `_`. Such an attribute is a
note of whoever set it: it says nothing of the model, copies of the graph keep it, and JSON, drawings and `diff` do not.

Edges say what they carry (attribute `carries`, a tuple or one name; a missing one means the stream). An edge that
is there already keeps what it carries when it is added again without saying.

    stream    the residual stream. A node reads the sum of what its stream edges bring
    base      of a sum: the stream its branches started from. The sum is base + what each branch added to it
    context   from the context to a block that attends to it
    condition from the condition to a block or the output, whose norm or layer scale it says
    position  from a position to a block, or from one that is added to the tokens to the input
    scores    attention scores of one block, added to those of a later one (residual attention)
    normed    the stream as one block has normed it, which another reads in place of a norm of its own
    read      from what a label names to a read, which adds it to the stream
    kv, ...   what an option that takes a label reads of an earlier node, `options.Option.reads`
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, get_args, get_origin, get_type_hints

from ..registry.norms import NORM_DETAILS, NORMS
from ..registry.options import Option
from ..registry.positions import SCHEMES
from ..registry.reads import JOINS
from ..registry.tokens import INPUT_OPTIONS, INPUT_SCHEMES, OUTPUT_OPTIONS

EDGES = ("stream", "base", "context", "condition", "position", "scores", "normed", "read")


class Field(NamedTuple):
    """What an attribute means, and which values of its type it can have."""

    doc: str
    least: float | None = None
    choices: tuple[str, ...] = ()
    above: float | None = None


class GraphAttributes(TypedDict):
    """Of the graph itself."""

    dim: Annotated[int, Field("features of the stream", least=1)]
    causal: Annotated[bool, Field("no token sees a later one")]
    stages: list[str | None]  # the name of each, or None
    pattern: Annotated[str, Field("the text it was made from; information only, see `written`")]


class InputNode(TypedDict):
    """Where the stream starts, and what is made into it: `tokens.INPUT_OPTIONS`, which have the ranges.

    With num_tokens these are tokens, with image_size the patches of images, else with a max_seq_len vectors; a stack
    alone has none of them.
    """

    type: Literal["input"]
    num_tokens: int | None
    max_seq_len: int | None
    emb_dim: int | None
    pos_offset: int
    embed_scale: float
    num_token_types: int
    l2norm_embed: bool
    post_emb_norm: bool
    emb_frac_gradient: float
    emb_dropout: float
    num_memory_tokens: int
    max_mem_len: int
    shift_mem_down: int
    dim_in: int | None
    conv_stem: bool
    image_size: int | tuple[int, int] | None
    patch_size: int | tuple[int, int] | None
    channels: int
    crop: bool
    patch_norm: bool
    patch_bias: bool
    class_token: bool
    mask_token: bool
    pos_antialias: bool
    num_register_tokens: int


class ContextNode(TypedDict, total=False):
    """The sequence that cross-attention reads: given from outside, or what an encoder gives, a graph of its own.

    Then it has `encoder`, that networkx graph, and `tie_token_emb`: whether its embedding of tokens serves both.
    """

    type: Literal["context"]
    encoder: Any
    tie_token_emb: bool


class ConditionNode(TypedDict):
    """The vector, of each row or of each token, that adaptive norms and layer scales read."""

    type: Literal["condition"]
    dim: Annotated[int, Field("its features", least=1)]
    expansion: Annotated[int | None, Field("a linear layer and SiLU make so many times its features of it", least=1)]


class PositionNode(TypedDict):
    """A position scheme: added to the embedded tokens, or read by blocks, with the attributes of its `Scheme`."""

    type: Literal["position"]
    scheme: Annotated[str, Field("how positions enter", choices=(*SCHEMES, *INPUT_SCHEMES))]


class BlockNode(TypedDict):
    """A residual block."""

    type: Literal["block"]
    kind: Annotated[str, Field("its kind in the registry")]
    options: dict[str, Any]  # all options of its kind
    given: dict[str, Any]  # those that its own text sets
    shift: Annotated[int, Field("token shift", least=0)]
    scale: Annotated[float, Field("of the branch, before the residual add")]
    tie: Annotated[str | None, Field("label of shared parameters")]
    stage: Annotated[int, Field("index of the stage", least=0)]


class SumNode(TypedDict):
    """Where parallel branches meet."""

    type: Literal["sum"]
    stage: Annotated[int, Field("index of the stage", least=0)]


class ReadNode(TypedDict):
    """Where earlier values of the stream, those its `read` edges bring, join it."""

    type: Literal["read"]
    join: Annotated[str, Field("how they join the stream", choices=(*JOINS,))]
    init: Annotated[float | None, Field("what its learned numbers are at first; None: it has none")]
    scale: Annotated[float, Field("of the branch, before the residual add")]
    tie: Annotated[str | None, Field("label of shared parameters")]
    stage: Annotated[int, Field("index of the stage", least=0)]


class OutputNode(TypedDict):
    """Where the stream ends: the final norm, and what is made of it, at most one of logits, classes and vectors.

    Beside these, `tokens.OUTPUT_OPTIONS`, which have the ranges.
    """

    type: Literal["output"]
    softcap: Annotated[float | None, Field("bound of the stream before the final norm; None: it has none", above=0)]
    norm: Annotated[str | None, Field("the final norm", choices=(*NORMS,))]
    norm_eps: float | None  # these of NORM_DETAILS, of the final norm and of that of the embedding
    norm_bias: bool
    norm_gain: bool
    norm_unit_offset: bool
    logits_dim: Annotated[int | None, Field("number of a token's logits; None: it has none", least=1)]
    tied: Annotated[bool, Field("the logits use the token embedding's matrix")]
    logits_scale: float | None
    logits_bias: bool | None
    logits_softcap: float | None
    logits_transform: str | None
    logits_transform_bias: bool
    squeeze_out_last_dim: bool
    num_classes: int | None
    dim_out: int | None
    dim_out_bias: bool
    pool: str | None
    end_token: int | None
    num_cls_tokens: int
    pooler: bool
    num_pooled_tokens: int
    pool_heads: int
    pool_dim_head: int | None
    pool_bias: bool
    pool_inner: int | None
    pool_activation: str


def declared(definition: type) -> tuple[Option, ...]:
    """The attributes of a class above that have a `Field`, as options to check values against."""
    out = []
    for name, hint in get_type_hints(definition, include_extras=True).items():
        if get_origin(hint) is Annotated:
            value, field = get_args(hint)
            optional = NoneType in get_args(value)
            (value,) = [each for each in get_args(value) if each is not NoneType] if optional else [value]
            limits = {"least": field.least, "above": field.above, "choices": field.choices}
            out.append(Option(name, value, None, field.doc, optional=optional, **limits))
    return tuple(out)


GRAPH_ATTRIBUTES = declared(GraphAttributes)
NODE_ATTRIBUTES = {
    "input": INPUT_OPTIONS,
    "context": declared(ContextNode),
    "condition": declared(ConditionNode),
    "position": declared(PositionNode),
    "block": declared(BlockNode),
    "sum": declared(SumNode),
    "read": declared(ReadNode),
    "output": (*declared(OutputNode), *NORM_DETAILS, *OUTPUT_OPTIONS),
}
"""Node type → its attributes. A block's `options` and `given` are dicts, beside these."""


LABELLED = ("input", "block", "sum", "read")
"""Types of nodes that may have an attribute `labels`, the names that the text gives them; it is information only."""


def output_attributes() -> dict[str, Any]:
    """Of a stack's output, which no model is around, beside its norm."""
    return {"logits_dim": None, "tied": False, **{option.name: option.default for option in OUTPUT_OPTIONS}}


def is_note(name: Any) -> bool:
    """Whether an attribute of this name is a note, which says nothing of the model."""
    return isinstance(name, str) and name.startswith("_")


def without_notes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What attributes say of the model."""
    return {name: value for name, value in attrs.items() if not is_note(name)}


def carried(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """What an edge carries; one added without saying is the stream."""
    carries = attrs.get("carries", ("stream",))
    if type(carries) is tuple:
        return carries
    return tuple(carries) if isinstance(carries, tuple | list | set | frozenset) else (carries,)
