"""The settings of a stack: those declared here and those that block options declare for themselves.

Owns their names and where each value comes from. `set` in a text, keywords of `compile` and the keyword API
all go through `Setting`s; what a setting does is decided where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .kinds import kinds
from .options import Option, Value, by_name, check_names, checked_values, in_area
from .positions import POSITION_SETTINGS
from .streams import STREAM_OPTIONS
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
        "deepnorm",
        bool,
        False,
        "DeepNorm: post-norm with scaled residuals and initial weights (arXiv:2203.00555)",
        area="norms and residuals",
    ),
    *in_area("norms and residuals", STREAM_OPTIONS),
    *in_area("positions", POSITION_SETTINGS),
    *in_area("embedding", TOKEN_OPTIONS),
    *in_area("vectors", tuple(o for o in VECTOR_OPTIONS if o not in TOKEN_OPTIONS)),
    *in_area("images", tuple(o for o in IMAGE_OPTIONS if o not in (*TOKEN_OPTIONS, *VECTOR_OPTIONS))),
)


def table() -> dict[str, Option]:
    """Every setting by name, each as the option that declares it."""
    known = by_name(STACK_SETTINGS)
    for kind in kinds().values():
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


def deepnorm_settings(blocks: int) -> dict[str, Value]:
    """What `deepnorm` sets for a stack of so many blocks (Wang et al., arXiv:2203.00555).

    The paper counts layers: N of two blocks in an encoder or decoder alone, α = (2N)^¼ and β = (8N)^-¼; M of three
    beside an encoder, α = (3M)^¼ and β = (12M)^-¼. In blocks, both are the same.
    """
    return {
        "pre_norm": False,
        "scale_residual": True,
        "scale_residual_constant": blocks**0.25,
        "init_gain": (4 * blocks) ** -0.25,
    }


def block_default(option: Option, given: Mapping[str, Value]) -> Value:
    """An option's value for a block that does not set it."""
    return given.get(option.setting, option.default) if option.setting is not None else option.default
