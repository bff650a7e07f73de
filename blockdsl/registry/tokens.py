"""The options of the model around a stack, which reads tokens, vectors or images: embedding, positions, outputs.

Each is declared once, and `MODELS` says which model has which. Those that make one vector of all are in `pools`; how
a graph says them is in `graph.tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .activations import ACTIVATIONS
from .options import Option, Value, by_name, check_names, checked_values, plain
from .pools import POOL_ATTENTION, POOL_OPTIONS, SEQUENCE_POOLS, end_clash, image_pool_clash, pool_clash
from .positions import REPLACE_ABSOLUTE, SCHEMES

TOKEN_OPTIONS = (
    Option(
        "num_tokens", int, None, "size of the vocabulary; adds a token embedding and logits", least=1, optional=True
    ),
    Option(
        "max_seq_len",
        int,
        None,
        "longest sequence that the model takes; 0: any, without learned positions",
        least=0,
        optional=True,
    ),
    Option(
        "emb_dim",
        int,
        None,
        "features of the embedding, projected to dim (arXiv:1909.11942); none: dim",
        least=1,
        optional=True,
    ),
    Option(
        "num_token_types",
        int,
        0,
        "learned vectors, one of which is added to each token by its type (BERT's segments, arXiv:1810.04805)",
        least=0,
    ),
    Option("use_abs_pos_emb", bool, True, "absolute positions; off where rotary ones or T5's bias are on"),
    Option(
        "scaled_sinu_pos_emb",
        bool,
        False,
        "absolute positions are sinusoids (arXiv:1706.03762) with a learned scale, not learned vectors",
    ),
    Option("pos_offset", int, 0, "rows of the learned positions before the first one's: 2 in OPT and BART", least=0),
    Option(
        "embed_scale",
        float,
        1.0,
        "factor of the embedded tokens, before positions; the square root of dim in Gemma (arXiv:2403.08295)",
        above=0,
    ),
    Option("l2norm_embed", bool, False, "embedded tokens of unit length: FixNorm (arXiv:1910.05895)"),
    Option("post_emb_norm", bool, False, "LayerNorm after tokens and positions (BLOOM, arXiv:2211.05100)"),
    Option(
        "emb_frac_gradient",
        float,
        1.0,
        "share of the gradient that reaches the embedding (CogView, arXiv:2105.13290)",
        above=0,
        most=1,
    ),
    Option("emb_dropout", float, 0.0, "dropout of the embedded sequence", least=0, below=1),
    Option("num_memory_tokens", int, 0, "learned tokens in front of the sequence (arXiv:2006.11527)", least=0),
    Option(
        "max_mem_len",
        int,
        0,
        "tokens of earlier segments that are kept (Transformer-XL, arXiv:1901.02860)",
        least=0,
        area="recurrence",
    ),
    Option(
        "shift_mem_down",
        int,
        0,
        "how many layers down memories move before they are read (arXiv:2012.15688)",
        least=0,
        area="recurrence",
    ),
    Option("tie_embedding", bool, False, "logits use the token embedding's matrix (arXiv:1608.05859)"),
    Option("logits_dim", int, None, "how many logits there are; none: num_tokens", least=1, optional=True),
    Option(
        "logits_scale",
        float,
        None,
        "factor of the logits, but of their bias (Cohere, Granite); none: 1, of tied ones dim**-0.5 (arXiv:1910.10683)",
        above=0,
        optional=True,
    ),
    Option(
        "logits_bias",
        bool,
        None,
        "whether logits have a learned bias (BERT's tied ones, arXiv:1810.04805); none: unless they are tied",
        optional=True,
    ),
    Option(
        "logits_softcap",
        float,
        None,
        "logits bounded by c, as c·tanh(logit / c) (Gemma 2, arXiv:2408.00118); none: unbounded",
        above=0,
        optional=True,
    ),
    Option(
        "logits_transform",
        str,
        None,
        "a linear layer, this activation and a LayerNorm before the logits (arXiv:1810.04805); none: without",
        choices=tuple(ACTIVATIONS),
        optional=True,
    ),
    Option("logits_transform_bias", bool, True, "a bias of that linear layer; ModernBERT (arXiv:2412.13663) has none"),
    Option("squeeze_out_last_dim", bool, False, "a single logit is a number, without an axis of its own"),
    Option("return_only_embed", bool, False, "no logits: the model returns the stack's output"),
    *POOL_OPTIONS,
)

_DIM_IN = Option(
    "dim_in",
    int,
    None,
    "features of input vectors, in place of tokens; none: emb_dim, without a projection",
    least=1,
    optional=True,
)
_DIM_OUT = Option(
    "dim_out", int, None, "features of output vectors; none: dim, without a projection", least=1, optional=True
)

_CONV_STEM = Option(
    "conv_stem",
    bool,
    False,
    "two convolutions of the input vectors, which halve their number, in place of the projection "
    "(Whisper, arXiv:2212.04356)",
)

_IMAGE = (
    Option(
        "image_size",
        int,
        None,
        "height and width of input images in pixels, in place of tokens",
        least=1,
        optional=True,
        pair=True,
    ),
    Option(
        "patch_size",
        int,
        None,
        "height and width of a patch, one token of the stream (arXiv:2010.11929)",
        least=1,
        optional=True,
        pair=True,
    ),
    Option("channels", int, 3, "colour channels of an image", least=1),
    Option("crop", bool, False, "pixels at the right and the bottom that fill no patch are left out"),
    Option(
        "patch_norm",
        bool,
        True,
        "LayerNorm before and after the linear layer that embeds patches (arXiv:2302.01327)",
    ),
    Option("patch_bias", bool, True, "a bias of that linear layer"),
    Option(
        "class_token",
        bool,
        False,
        "a learned token in front of the patches, with a position of its own (arXiv:2010.11929)",
    ),
    Option("mask_token", bool, False, "a learned vector in place of masked patches (arXiv:2106.08254)"),
    Option(
        "pos_antialias",
        bool,
        False,
        "positions of images of another size are interpolated with antialiasing (arXiv:2309.16588)",
    ),
    Option(
        "num_register_tokens",
        int,
        0,
        "learned tokens that patches attend to (arXiv:2309.16588): after the class token, or after the patches",
        least=0,
    ),
    Option("num_classes", int, None, "classes, scored from that vector; none: no scores", least=1, optional=True),
)

_DIM_OUT_BIAS = Option("dim_out_bias", bool, True, "a bias of the linear layer to dim_out")


def _among(options: tuple[Option, ...], *names: str) -> tuple[Option, ...]:
    return tuple(option for option in options if option.name in names)


VECTOR_OPTIONS = (
    *_among(TOKEN_OPTIONS, "max_seq_len"),
    *(_DIM_IN, _DIM_OUT, _DIM_OUT_BIAS, _CONV_STEM),
    *_among(TOKEN_OPTIONS, "emb_dim", "use_abs_pos_emb", "scaled_sinu_pos_emb", "pos_offset"),
    *_among(TOKEN_OPTIONS, "post_emb_norm", "emb_dropout"),
    *_among(TOKEN_OPTIONS, "num_memory_tokens"),
)
IMAGE_OPTIONS = (
    *_IMAGE,
    *POOL_ATTENTION,
    _DIM_OUT,
    _DIM_OUT_BIAS,
    *_among(TOKEN_OPTIONS, "post_emb_norm", "emb_dropout", "pool", "pooler"),
)

MODELS = {"tokens": TOKEN_OPTIONS, "vectors": VECTOR_OPTIONS, "images": IMAGE_OPTIONS}
"""What a model reads → the options that it has."""

MODEL_OPTIONS = (*TOKEN_OPTIONS, _DIM_IN, _DIM_OUT, _DIM_OUT_BIAS, _CONV_STEM, *_IMAGE)
"""All of them."""

LOGITS_OPTIONS = _among(
    TOKEN_OPTIONS,
    "tie_embedding",
    "logits_dim",
    "logits_scale",
    "logits_bias",
    "logits_softcap",
    "logits_transform",
    "logits_transform_bias",
    "squeeze_out_last_dim",
)
"""Those that have no meaning without logits."""

OUTPUT_OPTIONS = (
    *LOGITS_OPTIONS[2:],
    *_among(MODEL_OPTIONS, "num_classes", "dim_out", "dim_out_bias", "pool", "end_token", "num_cls_tokens", "pooler"),
    *POOL_ATTENTION,
)
"""Those that are attributes of the output node."""

AT_OUTPUT = (*(option.name for option in OUTPUT_OPTIONS), "logits_dim", "tie_embedding", "return_only_embed")
"""Those that the output node says, in attributes of these or of other names."""

_SAID_BY_POSITIONS = ("use_abs_pos_emb", "scaled_sinu_pos_emb")
INPUT_OPTIONS = tuple(o for o in MODEL_OPTIONS if o.name not in (*AT_OUTPUT, *_SAID_BY_POSITIONS))
"""Those that are attributes of the input node."""

INPUT_SCHEMES = {"absolute": "learned positions", "sinusoidal": "sinusoidal positions"}
"""Schemes of positions that are added to the embedded tokens, in words; the others belong to blocks."""


def model_of(options: Mapping[str, Any]) -> str | None:
    """What the model reads that these options say, one of MODELS; None: there is a stack alone."""
    if options["num_tokens"] is not None:
        return "tokens"
    if options["image_size"] is not None:
        return "images"
    return None if options["dim_in"] is None and options["dim_out"] is None else "vectors"


def checked(model: str, given: Mapping[str, Any], caller: str) -> dict[str, Value]:
    """All options of a model, with defaults for those not given; a max_seq_len of none is 0, any length.

    Raises:
        TypeError: an unknown name; the message has the nearest one.
        UserError: a value out of range.
    """
    known = by_name(MODELS[model])
    check_names(given, known, f"{caller}() got an unknown argument")
    given = checked_values(given, known)
    if "max_seq_len" in given and given["max_seq_len"] is None:
        given = {**given, "max_seq_len": 0}
    return with_defaults(known.values(), given)


def with_defaults(options: Iterable[Option], given: Mapping[str, Any]) -> dict[str, Value]:
    """All of these options. A model of any length has no learned positions, which are so many vectors."""
    full = {option.name: given.get(option.name, option.default) for option in options}
    if full.get("max_seq_len") == 0:
        full["use_abs_pos_emb"] = given.get("use_abs_pos_emb", full["scaled_sinu_pos_emb"])
    return full


def clash(model: str | None, options: Mapping[str, Value], dim: int, schemes: set[str]) -> tuple[str, str] | None:
    """An option that does not go with the others, and why: the end of a sentence that starts with its name.

    Args:
        model: what it reads, one of MODELS; None: there is a stack alone.
        options: all that the model has; others are at their defaults, or clash.
        dim: features of the stream.
        schemes: of the blocks' positions.
    """
    own = by_name(MODELS[model]) if model else {}
    for option in MODEL_OPTIONS:
        if option.name not in own and options.get(option.name, option.default) != option.default:
            return option.name, f"the model reads {model}" if model else _needed(option)
    if model is None:
        return None
    if not options.get("dim_out_bias", True) and options["dim_out"] is None:
        return "dim_out_bias", "it needs dim_out"
    if model == "images":
        return _image_clash(options) or image_pool_clash(options, dim)
    if options["max_seq_len"] is None:
        return next(
            name for name in ("num_tokens", "dim_in", "dim_out") if options.get(name)
        ), "it needs max_seq_len too, or max_seq_len=0 for any length"
    emb_dim = dim if options["emb_dim"] is None else options["emb_dim"]
    return _position_clash(options, emb_dim, schemes) or (
        _logits_clash(options, dim, emb_dim) if model == "tokens" else None
    )


def _needed(option: Option) -> str:
    if option is _CONV_STEM:
        return "it needs dim_in, the features of the vectors that it reads"
    if option is _DIM_OUT_BIAS:
        return "it needs dim_out"
    return "it needs image_size" if option in _IMAGE else "it needs num_tokens, which gives the stack its embedding"


def _image_clash(options: Mapping[str, Value]) -> tuple[str, str] | None:
    if options["patch_size"] is None:
        return "image_size", "it needs patch_size too"
    problem = not_tiled(options["image_size"], options["patch_size"], bool(options["crop"]))
    return ("patch_size", problem) if problem else None


def _position_clash(options: Mapping[str, Value], emb_dim: Value, schemes: set[str]) -> tuple[str, str] | None:
    learned = options["use_abs_pos_emb"] and not options["scaled_sinu_pos_emb"] and not schemes & REPLACE_ABSOLUTE
    if options["pos_offset"] and not learned:
        return "pos_offset", "the model has no learned positions"
    if not options["scaled_sinu_pos_emb"]:
        if options["max_seq_len"] == 0 and options["use_abs_pos_emb"] and not schemes & REPLACE_ABSOLUTE:
            return "use_abs_pos_emb", "there is no max_seq_len, which says how many learned positions there are"
        return None
    for scheme in sorted(schemes & REPLACE_ABSOLUTE):
        return "scaled_sinu_pos_emb", f"a model with {SCHEMES[scheme].title} has no absolute positions"
    if not options["use_abs_pos_emb"]:
        return "scaled_sinu_pos_emb", "use_abs_pos_emb=false turns absolute positions off"
    if odd_sinusoid(emb_dim):
        return "scaled_sinu_pos_emb", f"the embedding's {emb_dim} features do not pair up as sines and cosines"
    return None


def _logits_clash(options: Mapping[str, Value], dim: int, emb_dim: Value) -> tuple[str, str] | None:
    if options["pool"] not in (None, *SEQUENCE_POOLS):
        return "pool", f"a model over tokens pools by {', '.join(SEQUENCE_POOLS)}"
    if found := pool_clash(options, dim):
        return found
    if problem := end_clash(options, options["num_tokens"]):
        return "end_token", problem
    if options["pool"] == "cls" and options["max_mem_len"]:
        return "max_mem_len", "class tokens see one segment alone, and pool=cls gives their vectors"
    if options["squeeze_out_last_dim"] and options["logits_dim"] != 1:
        return "squeeze_out_last_dim", "it needs logits_dim=1"
    if options["shift_mem_down"] and not options["max_mem_len"]:
        return "shift_mem_down", "it needs max_mem_len, which keeps memories"
    if options["return_only_embed"]:
        for option in LOGITS_OPTIONS:
            if options[option.name] != option.default:
                return option.name, "return_only_embed leaves the logits out"
    if not options["logits_transform_bias"] and options["logits_transform"] is None:
        return "logits_transform_bias", "there is no logits_transform, whose bias it is"
    if options["tie_embedding"]:
        if emb_dim != dim and options["logits_transform"] is None:
            return "tie_embedding", f"the embedding has emb_dim={emb_dim} features and the stack dim={dim}"
        if options["logits_dim"] is not None:
            return "tie_embedding", "it gives a logit for each token, and logits_dim is set too"
    return None


def pair(size: Value) -> tuple[int, int]:
    """(height, width) of a size that may be one number for both."""
    size = plain(size)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    assert isinstance(height, int)
    assert isinstance(width, int)
    return height, width


def not_tiled(image_size: Value, patch_size: Value, crop: bool = False) -> str | None:
    """That patches do not fit an image, or that none does where it is cropped; None: they do."""
    image, patch = pair(image_size), pair(patch_size)
    sizes = f"patches of {patch[0]} x {patch[1]}", f"an image of {image[0]} x {image[1]}"
    if crop and (image[0] < patch[0] or image[1] < patch[1]):
        return f"{sizes[0]} are larger than {sizes[1]}"
    if not crop and (image[0] % patch[0] or image[1] % patch[1]):
        return f"{sizes[0]} do not tile {sizes[1]}"
    return None


def odd_sinusoid(features: Value) -> bool:
    features = plain(features)
    return not isinstance(features, int) or features % 2 == 1


def input_attributes() -> dict[str, Value]:
    """Of a stack's input, which no model is around."""
    return {option.name: option.default for option in INPUT_OPTIONS}


def logits_defaults(tied: bool, dim: int) -> dict[str, Value]:
    """What the options of logits are where they are none."""
    return {"logits_scale": dim**-0.5 if tied else 1.0, "logits_bias": not tied}
