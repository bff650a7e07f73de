"""One vector of a sequence or an image, as options of the model around a stack: what clashes, and what makes it."""

from __future__ import annotations

from collections.abc import Mapping

from .activations import ACTIVATIONS
from .options import Option, Value, plain, whole

POOL_ATTENTION = (
    Option("num_pooled_tokens", int, 1, "learned queries of attention that pools: so many vectors", least=1),
    Option("pool_heads", int, 8, "heads of attention that pools", least=1),
    Option("pool_dim_head", int, None, "features of its heads; none: dim / heads", least=1, optional=True),
    Option("pool_bias", bool, True, "biases of its linear layers"),
    Option(
        "pool_inner",
        int,
        None,
        "hidden features of the feedforward after it; none: 4 times dim, 0: no feedforward",
        least=0,
        optional=True,
    ),
    Option("pool_activation", str, "gelu", "activation of that feedforward", choices=tuple(ACTIVATIONS)),
)
"""Of pool=attention."""

POOL_OPTIONS = (
    Option(
        "pool",
        str,
        None,
        "one vector of a sequence or an image: the mean of its tokens or patches, the first, the last, that of "
        "end_token, learned class tokens (arXiv:1810.04805), both first and mean, or by attention (arXiv:2106.04560); "
        "none: all, and the mean of images that give classes or vectors",
        choices=("mean", "first", "last", "end", "cls", "first_mean", "attention"),
        optional=True,
    ),
    Option(
        "end_token",
        int,
        None,
        "token whose first place in a row pool=end takes (CLIP, arXiv:2103.00020); none: the row's highest token",
        least=0,
        optional=True,
    ),
    Option("num_cls_tokens", int, 1, "learned class tokens in front of the sequence, with pool=cls", least=1),
    Option(
        "pooler",
        bool,
        False,
        "a linear layer and tanh of that vector (arXiv:1810.04805); of tokens without pool, of the first one",
    ),
    *POOL_ATTENTION,
)

SEQUENCE_POOLS = ("mean", "first", "last", "end", "cls", "attention")
"""The ways in which a model over tokens pools."""

_OF_POOLS = {"num_cls_tokens": "cls", **{option.name: "attention" for option in POOL_ATTENTION}}
"""Options of one way to pool."""

_DEFAULTS = {option.name: option.default for option in POOL_OPTIONS}


def pool_of(output: Mapping[str, Value]) -> str | None:
    """How a model makes one vector of an image by its output's options; None: it does not."""
    pool, made = output["pool"], (output["num_classes"], output["dim_out"], output["pooler"] or None)
    return str(pool) if pool is not None else "mean" if any(value is not None for value in made) else None


def pool_attention(output: Mapping[str, Value], dim: int) -> dict[str, dict[str, Value]]:
    """The blocks of pool=attention by kind: attention of learned queries to the tokens, and a feedforward."""
    inner = 4 * dim if output["pool_inner"] is None else output["pool_inner"]
    heads, bias = {"heads": output["pool_heads"], "dim_head": output["pool_dim_head"]}, output["pool_bias"]
    attention = {"c": {**heads, "qkv_bias": bias, "out_bias": bias}}
    return attention | ({"f": {"inner": inner, "activation": output["pool_activation"]}} if inner else {})


def vectors_of(output: Mapping[str, Value]) -> int:
    """How many vectors a model that pools makes of a sequence or an image."""
    return whole("vectors", output[{"cls": "num_cls_tokens"}.get(str(output["pool"]), "num_pooled_tokens")])


def cls_tokens(output: Mapping[str, Value]) -> int:
    """How many class tokens are in front of the sequence."""
    return vectors_of(output) if output["pool"] == "cls" else 0


def pool_clash(options: Mapping[str, Value], dim: int) -> tuple[str, str] | None:
    """An option of the vector of an image or a sequence that does not go with the others, and why; as of `clash`."""
    for name, pool in _OF_POOLS.items():
        if options.get(name, _DEFAULTS[name]) != _DEFAULTS[name] and options["pool"] != pool:
            return name, f"it needs pool={pool}"
    if options["pool"] != "attention" or options["pool_dim_head"] is not None:
        return None
    heads = whole("pool_heads", options["pool_heads"])
    return ("pool_heads", f"{heads} heads do not divide the {dim} features") if dim % heads else None


def image_pool_clash(options: Mapping[str, Value], dim: int) -> tuple[str, str] | None:
    """The same of an image alone."""
    if options["pool"] in ("last", "end"):
        return "pool", f"the {options['pool']} patch of an image is none of its own kind: take 'mean' or 'first'"
    if options["pool"] == "cls":
        return "pool", "class tokens of images are class_token=true, and their vector is pool=first"
    if options["num_classes"] is not None and options["dim_out"] is not None:
        return "dim_out", "num_classes is set too; give one"
    return pool_clash(options, dim)


def end_clash(output: Mapping[str, Value], num_tokens: Value) -> str | None:
    """What is wrong with the end_token of a model over tokens; None: nothing."""
    end_token = plain(output["end_token"])
    if end_token is not None and output["pool"] != "end":
        return "it needs pool=end"
    if end_token is not None and end_token >= plain(num_tokens):
        return f"there are {num_tokens} tokens, and end_token={end_token} is none of them"
    return None
