"""What is around a stack: the input and the output of a model over tokens, vectors or images."""

from __future__ import annotations

from collections.abc import Iterator

from ...registry.pools import SEQUENCE_POOLS, end_clash, image_pool_clash, pool_clash, pool_of
from ...registry.positions import REPLACE_ABSOLUTE, SCHEMES
from ...registry.tokens import (
    INPUT_OPTIONS,
    INPUT_SCHEMES,
    LOGITS_OPTIONS,
    MODELS,
    OUTPUT_OPTIONS,
    not_tiled,
    odd_sinusoid,
)
from ..graph import Graph
from .finding import Finding, disconnect, set_attribute


def ends(graph: Graph) -> Iterator[Finding]:
    yield from _of_another_model(graph)
    if graph.reads in ("tokens", "vectors"):
        yield from _sequences(graph)
    elif graph.reads == "images":
        yield from _images(graph)
    elif graph.sources(graph.start, "position"):
        yield Finding(
            f"{graph.start}: reads positions, but embeds no tokens",
            disconnect(graph, graph.sources(graph.start, "position")[0], graph.start, "position"),
        )
    schemes = [graph.nx.nodes[position]["scheme"] for position in graph.sources(graph.start, "position")]
    if len(schemes) > 1:
        yield Finding(
            f"{graph.start}: reads more than one position",
            disconnect(graph, graph.sources(graph.start, "position")[-1], graph.start, "position"),
        )
    if inner := sorted(SCHEMES.keys() & {*schemes}):
        yield Finding(f"{graph.start}: reads {SCHEMES[inner[0]].title}, which belong to blocks")


def _of_another_model(graph: Graph) -> Iterator[Finding]:
    """What the input or the output has, and the model that the graph says has not."""
    start, end, reads = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end], graph.reads
    own = {option.name for option in MODELS.get(reads or "", ())}
    lacks = "embeds no tokens" if reads is None else f"reads {reads}"
    for option in INPUT_OPTIONS:
        if option.name not in own and start[option.name] != option.default:
            yield Finding(
                f"{graph.start}: has {option.name}, but {lacks}",
                set_attribute(graph.start, option.name, option.default),
            )
    for option in OUTPUT_OPTIONS:
        if option.name not in {*own, "num_classes", "dim_out"} and end[option.name] != option.default:
            yield Finding(
                f"{graph.end}: has {option.name}, but the input {lacks}",
                set_attribute(graph.end, option.name, option.default),
            )
    if end["logits_dim"] is not None and reads != "tokens":
        yield Finding(
            f"{graph.end}: gives logits, but the input embeds no tokens", set_attribute(graph.end, "logits_dim", None)
        )
    if end["tied"] and reads != "tokens":
        yield Finding(
            f"{graph.end}: is tied to an embedding, but the input has none", set_attribute(graph.end, "tied", False)
        )
    if end["num_classes"] is not None and reads != "images":
        yield Finding(
            f"{graph.end}: gives classes, but the input reads no images", set_attribute(graph.end, "num_classes", None)
        )
    if end["dim_out"] is not None and reads not in ("vectors", "images"):
        yield Finding(
            f"{graph.end}: gives vectors, but the input reads {reads}", set_attribute(graph.end, "dim_out", None)
        )
    if not end["dim_out_bias"] and end["dim_out"] is None:
        yield Finding(f"{graph.end}: has dim_out_bias, but no dim_out", set_attribute(graph.end, "dim_out_bias", True))


def _sequences(graph: Graph) -> Iterator[Finding]:
    """Of models over tokens and over vectors."""
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    if start["max_seq_len"] is None:
        yield Finding(
            f"{graph.start}: {'embeds tokens' if graph.reads == 'tokens' else 'reads vectors'} and needs max_seq_len",
            set_attribute(graph.start, "max_seq_len", 1024),
        )
    if start["shift_mem_down"] and not start["max_mem_len"]:
        yield Finding(
            f"{graph.start}: has shift_mem_down, but no max_mem_len keeps memories",
            set_attribute(graph.start, "shift_mem_down", 0),
        )
    if start["max_mem_len"] and (reason := graph.why_not_segmented()):
        yield Finding(
            f"{graph.start}: has max_mem_len, but the stack cannot read a text in segments: {reason}",
            set_attribute(graph.start, "max_mem_len", 0),
        )
    if end["tied"] and end["logits_dim"] != start["num_tokens"]:
        tokens = start["num_tokens"]
        yield Finding(
            f"{graph.end}: is tied to an embedding of {tokens} tokens, but has logits_dim={end['logits_dim']}",
            set_attribute(graph.end, "logits_dim", tokens),
        )
    if graph.reads == "tokens" and (found := pool_clash(end, graph.dim)):
        yield Finding(f"{graph.end}: {found[0]} is set, but {found[1]}")
    if end["pool"] == "cls" and graph.sees_later() is None:
        yield Finding(
            f"{graph.end}: class tokens are in front, and in a causal stack they see nothing: pool=last",
            set_attribute(graph.end, "pool", "last"),
        )
    if end["pool"] == "cls" and start["max_mem_len"]:
        yield Finding(f"{graph.end}: class tokens see one segment alone, and {graph.start} has max_mem_len")
    if end["squeeze_out_last_dim"] and end["logits_dim"] != 1:
        yield Finding(
            f"{graph.end}: has squeeze_out_last_dim, and logits_dim={end['logits_dim']}",
            set_attribute(graph.end, "squeeze_out_last_dim", False),
        )
    if end["pool"] not in (None, *SEQUENCE_POOLS):
        yield Finding(
            f"{graph.end}: pools by {end['pool']}, and a model over {graph.reads} by {', '.join(SEQUENCE_POOLS)}",
            set_attribute(graph.end, "pool", None),
        )
    if graph.reads == "tokens" and (problem := end_clash(end, start["num_tokens"])):
        yield Finding(f"{graph.end}: end_token is set, but {problem}")
    for option in OUTPUT_OPTIONS:
        if option in LOGITS_OPTIONS and end[option.name] != option.default and end["logits_dim"] is None:
            yield Finding(
                f"{graph.end}: has {option.name}, but gives no logits",
                set_attribute(graph.end, option.name, option.default),
            )
    if not end["logits_transform_bias"] and end["logits_transform"] is None:
        yield Finding(
            f"{graph.end}: has logits_transform_bias=false, but no logits_transform",
            set_attribute(graph.end, "logits_transform_bias", True),
        )
    if end["tied"] and graph.emb_dim != graph.dim and end["logits_transform"] is None:
        yield Finding(
            f"{graph.end}: is tied to an embedding of {graph.emb_dim} features, but the stream has {graph.dim}"
        )
    own = {graph.nx.nodes[position]["scheme"]: position for position in graph.sources(graph.start, "position")}
    if "sinusoidal" in own and odd_sinusoid(graph.emb_dim):
        yield Finding(f"{own['sinusoidal']}: sinusoids come in pairs, but the embedding has {graph.emb_dim} features")
    if start["pos_offset"] and "absolute" not in own:
        yield Finding(
            f"{graph.start}: has pos_offset, but reads no learned positions",
            set_attribute(graph.start, "pos_offset", 0),
        )
    if "absolute" in own and start["max_seq_len"] == 0:
        yield Finding(
            f"{own['absolute']}: positions are learned up to a max_seq_len, and {graph.start} has 0, any length",
            set_attribute(graph.start, "max_seq_len", 1024),
        )
    read = {graph.nx.nodes[position]["scheme"] for position in graph.nodes("position")}
    if (added := sorted({*own} & {*INPUT_SCHEMES})) and (instead := sorted(read & REPLACE_ABSOLUTE)):
        title = SCHEMES[instead[0]].title
        yield Finding(
            f"{graph.start}: reads {added[0]} positions while blocks read {title}; a model has one or the other"
        )


def _images(graph: Graph) -> Iterator[Finding]:
    start, end = graph.nx.nodes[graph.start], graph.nx.nodes[graph.end]
    if start["patch_size"] is None:
        yield Finding(f"{graph.start}: reads images and needs patch_size")
    elif problem := not_tiled(start["image_size"], start["patch_size"], start["crop"]):
        yield Finding(f"{graph.start}: {problem}")
    if [graph.nx.nodes[position]["scheme"] for position in graph.sources(graph.start, "position")] != ["absolute"]:
        yield Finding(f"{graph.start}: reads images, whose patches need absolute positions")
    if graph.nodes("context"):
        yield Finding(f"{graph.start}: reads images, and has no context to give to cross-attention")
    if found := image_pool_clash(end, graph.dim):
        yield Finding(f"{graph.end}: {found[0]} is set, but {found[1]}")
    if graph.sees_later() is not None:
        return
    if start["num_register_tokens"] and not start["class_token"]:
        yield Finding(
            f"{graph.start}: register tokens come after the patches, and no patch of a causal stack sees them"
        )
    if pool_of(end) in ("first", "first_mean"):
        yield Finding(f"{graph.end}: gives the first token's vector, and that of a causal stack sees no other")
