"""Models over vectors and over images, said whole by their graphs: built, lowered, counted, drawn, judged, compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, GraphError, UserError
from xt_blocks import ContinuousTransformerWrapper, Encoder, ViTransformerWrapper

SIZES: dict[str, Any] = {"dim": 12, "heads": 2, "attn_dim_head": 6}
IMAGE: dict[str, Any] = {"image_size": (4, 6), "patch_size": (2, 3), "channels": 2}

VECTORS: dict[str, dict[str, Any]] = {
    "both": {"dim_in": 7, "dim_out": 5},
    "in": {"dim_in": 7},
    "out": {"dim_out": 5},
    "narrow": {"dim_in": 7, "emb_dim": 10, "post_emb_norm": True},
    "sinusoids": {"dim_in": 7, "scaled_sinu_pos_emb": True},
    "no positions": {"dim_in": 7, "use_abs_pos_emb": False},
    "memory tokens": {"dim_in": 7, "num_memory_tokens": 3, "emb_dropout": 0.1},
    "rotary": {"dim_in": 7, "rotary_pos_emb": True},
    "convolutions": {"dim_in": 7, "conv_stem": True, "emb_dim": 10},
    "convolutions of what is there": {"dim_out": 5, "conv_stem": True},
}
IMAGES: dict[str, dict[str, Any]] = {
    "classes": {"num_classes": 5},
    "embeddings": {},
    "registers": {"num_classes": 5, "num_register_tokens": 3},
    "norm": {"num_classes": 5, "post_emb_norm": True, "emb_dropout": 0.1},
    "class token": {"num_classes": 5, "class_token": True, "pool": "first", "post_emb_norm": True},
    "registers after a class token": {
        "class_token": True,
        "num_register_tokens": 2,
        "pool": "first_mean",
        "dim_out": 7,
    },
    "plain patches": {"patch_norm": False, "patch_bias": False, "dim_out": 5, "dim_out_bias": False},
    "pooler": {"class_token": True, "mask_token": True, "pool": "first", "pooler": True},
    "pooler of two vectors": {"pool": "first_mean", "pooler": True, "num_classes": 3, "pos_antialias": True},
    "the mean": {"pool": "mean"},
    "cropped": {"image_size": (5, 8), "crop": True, "num_classes": 5},
    "attention": {"pool": "attention", "pool_heads": 3, "pool_inner": 7, "pool_activation": "gelu_tanh"},
    "attention of a class token too": {"class_token": True, "pool": "attention", "pool_heads": 2, "num_classes": 3},
    "layer scale": {"class_token": True, "pool": "first", "layer_scale": 0.1},
    "square": {"image_size": 4, "patch_size": 2, "num_classes": 5},
    "rotary": {"num_classes": 5, "rotary_pos_emb": True},
}
STACK_ONLY = ("rotary_pos_emb", "layer_scale")


def built(options: dict[str, Any]) -> tuple[ContinuousTransformerWrapper | ViTransformerWrapper, BlockGraph, Tensor]:
    """The model by keywords, the graph of the same settings, and what it reads."""
    stack = Encoder(depth=2, **SIZES, **{name: value for name, value in options.items() if name in STACK_ONLY})
    own = {name: value for name, value in options.items() if name not in STACK_ONLY}
    if "image_size" in options:
        graph = blockdsl.compile("(a f)*2", **SIZES, **options)
        size = options["image_size"]
        img = torch.randn(3, 2, *((size, size) if isinstance(size, int) else size))
        return ViTransformerWrapper(attn_layers=stack, **own).eval(), graph, img
    graph = blockdsl.compile("(a f)*2", **SIZES, max_seq_len=9, **options)
    frames = 12 if "conv_stem" in options else 6  # of which 6 places are left
    x = torch.randn(3, frames, options.get("dim_in", 12))
    return ContinuousTransformerWrapper(max_seq_len=9, attn_layers=stack, **own).eval(), graph, x


CASES = [*VECTORS.values(), *(IMAGE | options for options in IMAGES.values())]


@pytest.mark.parametrize("options", CASES, ids=[*(f"vectors {n}" for n in VECTORS), *(f"images {n}" for n in IMAGES)])
def test_keywords_and_settings_say_one_graph_which_lowers_to_the_model_and_counts_it(options: dict[str, Any]) -> None:
    model, graph, x = built(options)
    assert graph == model.graph
    again = xt_blocks.lower(BlockGraph.from_json(graph.to_json())).eval()
    assert type(again) is type(model)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))
    assert graph.parameters() == sum(parameter.numel() for parameter in model.parameters())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x)
    assert graph.flops(6, batch=3) == counter.get_total_flops()
    assert graph.stack_alone() == model.attn_layers.graph
    assert not graph.diff(model.graph)


def test_vectors_may_be_taken_and_given_as_they_are() -> None:
    model = ContinuousTransformerWrapper(max_seq_len=9, attn_layers=Encoder(depth=1, **SIZES))
    again = xt_blocks.lower(model.graph)
    assert isinstance(again, ContinuousTransformerWrapper)
    assert again.graph == model.graph.with_vectors(9)
    assert (again.dim_in, again.dim_out) == (12, 12)


def test_a_text_says_the_whole_model() -> None:
    model = xt_blocks.lower(
        blockdsl.compile("set dim=12, heads=2, image_size=(4, 6), patch_size=2, num_classes=5; (a f)*2")
    )
    assert isinstance(model, ViTransformerWrapper)
    assert model(torch.randn(2, 3, 4, 6)).shape == (2, 5)


def test_the_first_token_of_a_causal_stack_is_no_vector_of_an_image() -> None:
    for options in ({"pool": "first", "class_token": True}, {"pool": "first_mean"}):
        with pytest.raises(
            GraphError, match="gives the first token's vector, and that of a causal stack sees no other"
        ):
            blockdsl.compile("a f", causal=True, **SIZES, **IMAGE, **options)
    causal = blockdsl.compile("a f", causal=True, num_register_tokens=1, class_token=True, **SIZES, **IMAGE)
    assert xt_blocks.lower(causal)(torch.randn(1, 2, 4, 6)).shape == (1, 5, 12)


def test_an_edited_graph_lowers_to_what_it_says() -> None:
    _, graph, img = built(IMAGE | {"num_classes": 5})
    graph.nx.nodes["output"]["num_classes"] = 7
    graph.nx.nodes["input"]["num_register_tokens"] = 2
    model = xt_blocks.lower(graph)
    assert model(img).shape == (3, 7)
    assert graph.parameters() == sum(parameter.numel() for parameter in model.parameters())
    _, graph, x = built({"dim_in": 7})
    graph.nx.nodes["input"]["dim_in"] = 3
    graph.nx.nodes["output"]["dim_out"] = 4
    assert xt_blocks.lower(graph)(x[..., :3]).shape == (3, 6, 4)


def test_what_is_read_and_given_is_drawn() -> None:
    _, graph, _ = built(IMAGE | {"num_classes": 5, "num_register_tokens": 3})
    lines = graph.to_text().splitlines()
    assert lines[1] == "input · images 4 × 6 × 2, 4 patches of 2 × 3 · 3 register tokens · learned positions"
    assert lines[-1] == "output · LayerNorm · 5 classes"
    for drawn in (graph.to_svg(), graph.to_dot(), graph.to_mermaid()):
        assert "images 4 × 6 × 2" in drawn
        assert "5 classes" in drawn
    assert "4 patches of 2 × 3" in graph.to_svg()
    masked = blockdsl.compile("a f", dim=16, heads=2, num_tokens=9, max_seq_len=8, logits_transform="gelu_tanh")
    assert "linear, GELU (tanh), LayerNorm before the logits" in masked.to_text()
    assert "at 4 tokens" in graph.to_svg()  # whatever length is asked for
    _, graph, _ = built({"dim_in": 7, "dim_out": 5, "emb_dim": 10})
    lines = graph.to_text().splitlines()
    assert lines[1] == "input · vectors of 7, up to 9 a row · embedding of 10 features · learned positions"
    assert lines[-1] == "output · LayerNorm · vectors of 5"


@pytest.mark.parametrize(
    ("options", "node", "edit", "message"),
    [
        ({"dim_in": 7}, "input", {"max_seq_len": None}, "input: reads vectors and needs max_seq_len"),
        ({"dim_in": 7}, "input", {"channels": 4}, "input: has channels, but reads vectors"),
        ({"dim_in": 7}, "input", {"max_mem_len": 4}, "input: has max_mem_len, but reads vectors"),
        ({"dim_in": 7}, "output", {"logits_dim": 4}, "output: gives logits, but the input embeds no tokens"),
        ({"dim_in": 7}, "output", {"num_classes": 4}, "output: gives classes, but the input reads no images"),
        ({"dim_in": 7}, "output", {"dim_out": 0}, "output: dim_out must be a whole number of at least 1 or none"),
        (IMAGE, "input", {"patch_size": None}, "input: reads images and needs patch_size"),
        (IMAGE, "input", {"patch_size": (3, 3)}, "input: patches of 3 x 3 do not tile an image of 4 x 6"),
        (IMAGE, "input", {"image_size": (4, 0)}, "input: image_size must be a whole number of at least 1, not 0"),
        (IMAGE, "input", {"dim_in": 7}, "input: has dim_in, but reads images"),
        (IMAGE, "output", {"dim_out": 7, "num_classes": 5}, "output: dim_out is set, but num_classes is set too"),
        (IMAGE, "output", {"dim_out_bias": False}, "output: has dim_out_bias, but no dim_out"),
        (IMAGE, "output", {"pool_heads": 2}, "output: pool_heads is set, but it needs pool=attention"),
        (
            IMAGE,
            "output",
            {"pool": "attention"},
            "output: pool_heads is set, but 8 heads do not divide the 12 features",
        ),
        (
            IMAGE,
            "output",
            {"pool": "last"},
            "output: pool is set, but the last patch of an image is none of its own kind",
        ),
        (IMAGE, "input", {"crop": True, "patch_size": 5}, "input: patches of 5 x 5 are larger than an image of 4 x 6"),
        ({"dim_in": 7}, "input", {"class_token": True}, "input: has class_token, but reads vectors"),
        ({"dim_in": 7}, "output", {"pooler": True}, "output: has pooler, but the input reads vectors"),
        (IMAGE, "absolute", {"scheme": "sinusoidal"}, "input: reads images, whose patches need absolute positions"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], node: str, edit: dict[str, Any], message: str) -> None:
    _, graph, _ = built(options)
    graph.nx.nodes[node].update(edit)
    with pytest.raises(GraphError) as error:
        graph.lint()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim_in": 7}, "dim_in is set, but it needs max_seq_len too"),
        ({"max_seq_len": 9}, "max_seq_len is set, but it needs num_tokens, which gives the stack its embedding"),
        ({"patch_size": 2}, "patch_size is set, but it needs image_size"),
        ({"image_size": 4}, "image_size is set, but it needs patch_size too"),
        ({"image_size": 4, "patch_size": 3}, "patch_size is set, but patches of 3 x 3 do not tile an image of 4 x 4"),
        ({"image_size": 4, "patch_size": 2, "dim_out_bias": False}, "dim_out_bias is set, but it needs dim_out"),
        ({"dim_out_bias": False}, "dim_out_bias is set, but it needs dim_out"),
        ({"pool": "first"}, "pool is set, but it needs num_tokens"),
        ({"image_size": 4, "patch_size": 2, "pool_inner": 4}, "pool_inner is set, but it needs pool=attention"),
        ({"num_tokens": 7, "max_seq_len": 9, "pool": "first_mean"}, "pool is set, but a model over tokens pools"),
        ({"image_size": 4, "patch_size": 2, "num_memory_tokens": 1}, "num_memory_tokens is set, but the model reads"),
        ({"num_tokens": 7, "max_seq_len": 9, "dim_in": 7}, "dim_in is set, but the model reads tokens"),
        ({"num_tokens": 7, "max_seq_len": 9, "conv_stem": True}, "conv_stem is set, but the model reads tokens"),
        ({"conv_stem": True}, "conv_stem is set, but it needs dim_in, the features of the vectors that it reads"),
        ({"num_tokens": 7, "max_seq_len": 9, "num_classes": 7}, "num_classes is set, but the model reads tokens"),
        ({"dim_in": 7, "max_seq_len": 9, "tie_embedding": True}, "tie_embedding is set, but the model reads vectors"),
    ],
)
def test_settings_that_clash_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        blockdsl.compile("a f", **SIZES, **settings)


def test_a_stack_takes_none_of_them() -> None:
    for name, wrapper in (("image_size", "ViTransformerWrapper"), ("dim_in", "ContinuousTransformerWrapper")):
        with pytest.raises(TypeError, match=rf"Encoder\(\) got '{name}', which belongs to {wrapper}"):
            Encoder(depth=1, **SIZES, **{name: 4})


def test_differences_of_models_are_seen() -> None:
    _, five, _ = built(IMAGE | {"num_classes": 5})
    _, seven, _ = built(IMAGE | {"num_classes": 7, "num_register_tokens": 1})
    text = str(five.diff(seven))
    assert "num_classes" in text
    assert "num_register_tokens" in text
    assert five.diff(five.stack_alone())
