"""The options of the model around a stack: its embedding, positions and logits.

Each is declared once, in `TOKEN_OPTIONS`. How a graph says them is in `graph.tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import Option, Value, by_name, check_names, check_values
from .positions import REPLACE_ABSOLUTE, SCHEMES

TOKEN_OPTIONS = (
    Option("num_tokens", int, None, "vocabulary: adds token embedding and logits", least=1, optional=True),
    Option("max_seq_len", int, None, "longest sequence of an embedded model", least=1, optional=True),
    Option(
        "emb_dim",
        int,
        None,
        "features of the embedding, projected to dim (arXiv:1909.11942); none: dim",
        least=1,
        optional=True,
    ),
    Option("use_abs_pos_emb", bool, True, "absolute positions; off where rotary ones or T5's bias are on"),
    Option(
        "scaled_sinu_pos_emb",
        bool,
        False,
        "absolute positions are sinusoids (arXiv:1706.03762) with a learned scale, not learned vectors",
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
        "how many layers down memories are read (arXiv:2012.15688)",
        least=0,
        area="recurrence",
    ),
    Option("tie_embedding", bool, False, "logits use the token embedding's matrix (arXiv:1608.05859)"),
    Option("logits_dim", int, None, "how many logits there are; none: num_tokens", least=1, optional=True),
    Option("return_only_embed", bool, False, "no logits: the model gives the stack's output"),
)

_AT_INPUT = {
    *("num_tokens", "max_seq_len", "emb_dim", "l2norm_embed", "post_emb_norm", "emb_frac_gradient", "emb_dropout"),
    *("num_memory_tokens", "max_mem_len", "shift_mem_down"),
}
INPUT_OPTIONS = tuple(option for option in TOKEN_OPTIONS if option.name in _AT_INPUT)
"""Those that are attributes of the input node."""

INPUT_SCHEMES = ("absolute", "sinusoidal")
"""Schemes of positions that are added to the embedded tokens; the others belong to blocks."""


def checked(given: Mapping[str, Any], caller: str) -> dict[str, Value]:
    """All options, with defaults for those not given.

    Raises:
        TypeError: an unknown name; the message has the nearest one.
        UserError: a value out of range.
    """
    known = by_name(TOKEN_OPTIONS)
    check_names(given, known, f"{caller}() got an unknown argument")
    check_values(given, known)
    return {name: given.get(name, option.default) for name, option in known.items()}


def clash(options: Mapping[str, Value], dim: int, schemes: set[str]) -> tuple[str, str] | None:
    """An option that does not go with the others, and why: the end of a sentence that starts with its name.

    Args:
        options: all of TOKEN_OPTIONS.
        dim: features of the stream.
        schemes: of the blocks' positions.
    """
    if options["num_tokens"] is None:
        for option in TOKEN_OPTIONS:
            if options[option.name] != option.default:
                return option.name, "it needs num_tokens, which gives the stack its embedding"
        return None
    if options["max_seq_len"] is None:
        return "num_tokens", "it needs max_seq_len too"
    emb_dim = dim if options["emb_dim"] is None else options["emb_dim"]
    if options["scaled_sinu_pos_emb"]:
        for scheme in sorted(schemes & REPLACE_ABSOLUTE):
            return "scaled_sinu_pos_emb", f"a model with {SCHEMES[scheme].title} has no absolute positions"
        if not options["use_abs_pos_emb"]:
            return "scaled_sinu_pos_emb", "use_abs_pos_emb=false takes absolute positions away"
        if odd_sinusoid(emb_dim):
            return "scaled_sinu_pos_emb", f"the embedding's {emb_dim} features are no pairs of a sine and a cosine"
    if options["shift_mem_down"] and not options["max_mem_len"]:
        return "shift_mem_down", "it needs max_mem_len, which keeps memories"
    if options["return_only_embed"]:
        for name in ("tie_embedding", "logits_dim"):
            if options[name]:
                return name, "return_only_embed leaves the logits out"
    if options["tie_embedding"]:
        if emb_dim != dim:
            return "tie_embedding", f"the embedding has emb_dim={emb_dim} features and the stack dim={dim}"
        if options["logits_dim"] is not None:
            return "tie_embedding", "it gives a logit for each token, and logits_dim is set too"
    return None


def odd_sinusoid(features: Value) -> bool:
    return not isinstance(features, int) or features % 2 == 1


def input_attributes() -> dict[str, Value]:
    """Of an input that embeds no tokens."""
    return {option.name: option.default for option in INPUT_OPTIONS}
