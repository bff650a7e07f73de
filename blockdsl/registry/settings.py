"""The settings of a stack: those declared here and those that block options declare for themselves.

Owns their names and where each value comes from. `set` in a text, keywords of `compile` and the keyword API
all go through `Setting`s; what a setting does is decided where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .kinds import OF_ALL_BLOCKS, Kind, kinds
from .options import Option, Value, by_name, check_names, checked_values, in_area
from .positions import POSITION_SETTINGS
from .tokens import IMAGE_OPTIONS, TOKEN_OPTIONS, VECTOR_OPTIONS, with_defaults

# Settings that no block option declares.
STACK_SETTINGS = (
    Option("dim", int, None, "features of the stream", least=1),
    Option("causal", bool, False, "each token sees itself and those before it", setting="causal"),
    Option(
        "context",
        bool,
        None,
        "whether the stack is given a context to attend to; none: if a block attends to one",
        optional=True,
    ),
    Option("shift_tokens", int, 0, "token shift of every block that sets none (RWKV-LM)", least=0, area="ordering"),
    Option(
        "final_norm",
        bool,
        None,
        "a norm after the last block; none: where blocks have theirs before the branch, by pre_norm",
        optional=True,
        area="norms and residuals",
    ),
    Option(
        "output_softcap",
        float,
        None,
        "the last block's stream bounded by c, as c·tanh(x / c), before the final norm; none: unbounded",
        above=0,
        optional=True,
        area="norms and residuals",
    ),
    Option(
        "dim_condition",
        int,
        None,
        "features of the condition that adaptive norms and layer scales read; none: as many as the stream has",
        least=1,
        optional=True,
        area="norms and residuals",
    ),
    Option(
        "adaptive_condition_mlp",
        bool,
        False,
        "a linear layer and SiLU of the condition, for all of its readers (DiT, arXiv:2212.09748)",
        area="norms and residuals",
    ),
    Option(
        "adaptive_condition_mlp_expansion",
        int,
        4,
        "features of that layer's output, as a multiple of dim_condition",
        least=1,
        area="norms and residuals",
    ),
    Option(
        "deepnorm",
        bool,
        False,
        "DeepNorm: post-norm with scaled residuals and initial weights (arXiv:2203.00555)",
        area="norms and residuals",
    ),
    *in_area("norms and residuals", OF_ALL_BLOCKS),
    *in_area("positions", POSITION_SETTINGS),
    *in_area("embedding", TOKEN_OPTIONS),
    *in_area("vectors", tuple(o for o in VECTOR_OPTIONS if o not in TOKEN_OPTIONS)),
    *in_area("images", tuple(o for o in IMAGE_OPTIONS if o not in (*TOKEN_OPTIONS, *VECTOR_OPTIONS))),
)


def table() -> dict[str, Option]:
    """Every setting by name, each as the option that declares it."""
    return dict(_table(tuple(kinds().values())))


@lru_cache(maxsize=1)
def _table(there: tuple[Kind, ...]) -> dict[str, Option]:
    known = by_name(STACK_SETTINGS)
    for kind in there:
        for option in kind.all_options():
            if option.setting is not None:
                known.setdefault(option.setting, option)
    return known


def checked_keywords(given: Mapping[str, Any], caller: str = "compile") -> dict[str, Any]:
    """Settings given as Python keywords, their values in Python's own types.

    Raises:
        TypeError: an unknown name; the message has the nearest one.
        UserError: a value out of range.
    """
    known = table()
    check_names(given, known, f"{caller}() got an unknown setting")
    return checked_values(given, known)


def resolved(given: Mapping[str, Value]) -> dict[str, Value]:
    """The stack's own settings with their defaults filled in."""
    return with_defaults(STACK_SETTINGS, given)


def deepnorm_settings(blocks: int, decoder: int | None = None) -> dict[str, Value]:
    """What `deepnorm` sets for a stack of so many blocks (Wang et al., arXiv:2203.00555).

    Args:
        decoder: blocks of the decoder that reads this stack, if one does.

    The paper counts layers: N of two blocks in an encoder or decoder alone, α = (2N)^¼ and β = (8N)^-¼; M of three
    beside an encoder, α = (3M)^¼ and β = (12M)^-¼. In blocks, both are the same. An encoder that a decoder reads has
    α = 0.81 (N⁴M)^(1/16) and β = 0.87 (N⁴M)^(-1/16), by table 3.
    """
    alpha, beta = blocks**0.25, (4 * blocks) ** -0.25
    if decoder is not None:
        depth = ((blocks / 2) ** 4 * (decoder / 3)) ** (1 / 16)
        alpha, beta = 0.81 * depth, 0.87 / depth
    return {
        "pre_norm": False,
        "scale_residual": True,
        "scale_residual_constant": alpha,
        "init_gain": beta,
    }


def block_default(option: Option, given: Mapping[str, Value]) -> Value:
    """An option's value for a block that does not set it."""
    return given.get(option.setting, option.default) if option.setting is not None else option.default
