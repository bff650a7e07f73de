"""What a drawing says of the input and the output: what the model around the stack reads, and what it gives."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ...registry.activations import ACTIVATIONS
from ...registry.kinds import Words, kinds
from ...registry.norms import final_norm
from ...registry.options import Option
from ...registry.positions import SCHEMES
from ...registry.tokens import INPUT_OPTIONS, OUTPUT_OPTIONS, pair
from .said import as_set, silent_value, worded

if TYPE_CHECKING:
    from ...graph.graph import Graph

MODEL_WORDS: dict[str, Words] = {
    "emb_dim": "embedding of {} features",
    "num_token_types": "{} token types",
    "pos_offset": "positions from {} on",
    "embed_scale": "embedding × {}",
    "l2norm_embed": "embedding of unit length",
    "post_emb_norm": "LayerNorm after it",
    "emb_frac_gradient": "{} of the embedding's gradient",
    "emb_dropout": "embedding dropout {}",
    "num_memory_tokens": "{} memory tokens",
    "max_mem_len": "memories of {} tokens",
    "shift_mem_down": "memories {} layers down",
    "conv_stem": "two convolutions",
    "crop": "cropped to whole patches",
    "patch_norm": "no patch norm",
    "patch_bias": "no patch bias",
    "class_token": "class token",
    "mask_token": "mask token",
    "pos_antialias": "positions interpolated with antialiasing",
    "num_register_tokens": "{} register tokens",
    "logits_scale": {1: "", None: "logits × 1/√dim", ...: "logits × {}"},
    "logits_bias": {False: "", True: "bias of the logits"},
    "logits_softcap": "logits softcap {}",
    "logits_transform": {name: f"linear, {said}, LayerNorm before the logits" for name, said in ACTIVATIONS.items()},
    "logits_transform_bias": "no bias of that linear layer",
    "squeeze_out_last_dim": "a number each",
    "pool": "pooled: {}",
    "end_token": "at token {}",
    "num_cls_tokens": "{} class tokens",
    "pooler": "linear, tanh of the pooled",
    "dim_out_bias": "no bias",
    "num_pooled_tokens": "{} pooled vectors",
    "pool_heads": "{} pooling heads",
    "pool_dim_head": "pooling heads of {}",
    "pool_bias": "no biases of pooling",
    "pool_inner": "feedforward of {} after it",
    "pool_activation": {name: f"its activation {said}" for name, said in ACTIVATIONS.items()},
}

SOURCE_WORDS: dict[str, Words] = {
    "original_len": "trained on {} tokens",
    "low_freq_factor": "low frequencies up to {}",
    "high_freq_factor": "high frequencies from {}",
    "beta_fast": "fast from {}",
    "beta_slow": "slow up to {}",
    "truncate": "limits not rounded",
    "attention_factor": {1: "q, k unscaled", ...: "q, k × {}"},
    "short_factors": "factors of short texts {}",
    "long_factors": "factors of long texts {}",
    "xpos_scale_base": "xPos scale base {}",
    "causal": {True: "of the past", False: "of both sides"},
    "buckets": "{} buckets",
    "max_distance": "up to {} tokens away",
    "scale": {1: "", ...: "× {}"},
    "hidden": "{} hidden features",
    "depth": "{} hidden layers",
    "log_distance": "of the logarithm of the distance",
    "norm": "LayerNorm",
}
"""What is said of the attributes of positions that their titles do not tell."""

_SAID = {"num_tokens", "max_seq_len", "dim_in", "image_size", "patch_size", "channels", "num_classes", "dim_out"}


def model_input(graph: Graph) -> str:
    """`256 tokens`, `vectors of 7`, `images 32 × 32 × 3`; empty: a stack alone."""
    start = graph.nx.nodes[graph.start]
    if graph.reads == "tokens":
        return f"{start['num_tokens']:,} tokens"
    if graph.reads == "images":
        return f"images {_sides(start['image_size'])} × {start['channels']}"
    if graph.reads == "vectors":
        return f"vectors of {graph.emb_dim if start['dim_in'] is None else start['dim_in']:,}"
    return ""


def length(graph: Graph, title: str) -> str:
    """How long a row is: of `title` and the number, or an image's patches."""
    start = graph.nx.nodes[graph.start]
    if graph.reads == "images":
        return f"{graph.patches:,} patches of {_sides(start['patch_size'] or 1)}"
    if start["max_seq_len"] == 0:
        return "any length"
    return "" if start["max_seq_len"] is None else title.format(f"{start['max_seq_len']:,}")


def options(graph: Graph) -> list[str]:
    """What else is set at the input."""
    further = [f"{graph.residual_streams} residual streams"] if graph.residual_streams > 1 else []
    further += ["injected into each branch"] if graph.of_all_blocks("reinject_input") else []
    return further if graph.reads is None else further + _set(INPUT_OPTIONS, graph.nx.nodes[graph.start])


def output_options(graph: Graph) -> list[str]:
    """What else is set at the output."""
    return _set(OUTPUT_OPTIONS, graph.nx.nodes[graph.end])


def _set(declared: tuple[Option, ...], attrs: dict[str, Any]) -> list[str]:
    """The options of which there is something to say, as a reader would say it and not as a pattern does."""
    values = {option.name: attrs[option.name] for option in declared} | logits_in_effect(attrs)
    others = (o for o in declared if o.name not in _SAID and values[o.name] != silent_value(o, MODEL_WORDS[o.name]))
    return [worded(MODEL_WORDS[option.name], values[option.name]) for option in others]


def logits_in_effect(attrs: dict[str, Any]) -> dict[str, Any]:
    """What options of logits come to that are left open; a scale that stays none is 1/√dim, that of tied ones."""
    if attrs.get("logits_dim") is None:
        return {} if "logits_bias" not in attrs else {"logits_bias": False, "logits_scale": 1}
    found = {} if attrs["logits_bias"] is not None else {"logits_bias": not attrs["tied"]}
    return found if attrs["logits_scale"] is not None or attrs["tied"] else found | {"logits_scale": 1}


def input_lines(graph: Graph) -> list[str]:
    """What is read, how long a row is, and what else is set there."""
    return [*filter(None, (model_input(graph), length(graph, "up to {} a row"))), *options(graph)]


def output_lines(graph: Graph) -> list[str]:
    """The last norm, what is given, and what else is set there."""
    given = gives(graph) + (" (tied)" if graph.nx.nodes[graph.end]["tied"] else "")
    return [*filter(None, (last_norm(graph), given)), *output_options(graph)]


def last_norm(graph: Graph) -> str:
    """The final norm, `RMSNorm`, with its eps where that is set, after what bounds the stream; empty: there is none."""
    end = graph.nx.nodes[graph.end]
    last = final_norm(end)
    parts = [] if end["softcap"] is None else [f"softcap {end['softcap']:g}"]
    if last is not None:
        parts.append(last.in_words(eps=True))
    return ", ".join(parts)


def gives(graph: Graph) -> str:
    """`256 logits`, `5 classes`, `vectors of 7`; empty: the stream."""
    end = graph.nx.nodes[graph.end]
    if end["num_classes"] is not None:
        return f"{end['num_classes']:,} classes"
    if end["dim_out"] is not None:
        return f"vectors of {end['dim_out']:,}"
    return "" if end["logits_dim"] is None else f"{end['logits_dim']:,} logits"


def heads(graph: Graph) -> str:
    """`8 heads of 64`, those of most blocks that follow the stack's `heads`; empty where there is none."""
    follow = {kind.name for kind in kinds().values() for option in kind.options if option.setting == "heads"}
    sizes = Counter[Any]()
    for block, times in graph.distinct():
        options = block["options"]
        if block["kind"] in follow and {"heads", "dim_head"} <= options.keys():
            sizes[options["heads"], options["dim_head"]] += times
    if not sizes:
        return ""
    count, size = sizes.most_common(1)[0][0]
    return f"{count} head{'' if count == 1 else 's'} of {graph.dim // count if size is None else size}"


def _sides(size: int | tuple[int, int]) -> str:
    return " × ".join(map(str, pair(size)))


def of_source(graph: Graph, node: str) -> dict[str, str]:
    """What there is to say of a position, or of the condition, beside its title, in words → as a pattern has it."""
    attrs = graph.nx.nodes[node]
    if attrs["type"] == "condition":
        made = graph.condition[1]
        said = [f"{attrs['dim']:,} features"] + ([] if attrs["expansion"] is None else [f"linear → {made:,}, SiLU"])
        return dict(zip(said, said, strict=True))
    scheme = SCHEMES.get(attrs.get("scheme", ""))
    if scheme is None:
        return {}
    own, out = scheme.with_defaults(attrs), {}
    for option in scheme.attributes:
        name, value, words = option.name, own[option.name], SOURCE_WORDS.get(option.name)
        if option.fault(option.default) is not None:  # those without a default are as blocks have them
            continue
        silent = graph.causal if name == "causal" else silent_value(option, words)
        if value != silent and scheme.note(own | {name: option.default}) == scheme.note(own):
            out[as_set(name, value) if words is None else worded(words, value)] = as_set(name, value)
    return out
