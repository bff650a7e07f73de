"""Norms: the options that say which one there is, and the parameters that it has.

A block has one of the stream, before its layer or after the add, or of its layer's output, or both, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .options import Option, Value

NORMS = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm", "scalenorm": "ScaleNorm"}

NORM_PLACES = (
    Option("pre_norm", bool, True, "norm before the branch (else after the residual add)", setting="pre_norm"),
    Option("norm", bool, True, "the block has a norm; ModernBERT's first has none (arXiv:2412.13663)", setting="norm"),
    Option(
        "sandwich_norm",
        bool,
        False,
        "a second norm, of the branch's output (CogView, arXiv:2105.13290)",
        setting="sandwich_norm",
    ),
    Option(
        "output_norm",
        bool,
        False,
        "norm of the branch's output in place of that before it (OLMo 2, arXiv:2501.00656)",
        setting="output_norm",
    ),
    Option(
        "shared_norm",
        bool,
        False,
        "a later parallel branch starts from what the first branch's first block has normed (Falcon, arXiv:2311.16867)",
        setting="shared_norm",
    ),
)
"""Where a block has norms."""

NORM_UNIT_OFFSET = Option(
    "norm_unit_offset",
    bool,
    False,
    "a norm's gain is kept as its difference from one (Gemma, arXiv:2403.08295)",
    setting="norm_unit_offset",
)
NORM_DETAILS = (
    Option(
        "norm_eps",
        float,
        None,
        "what is added to a norm's variance or mean square; none: 1e-5 of LayerNorm, 1e-8 of others",
        setting="norm_eps",
        above=0,
        optional=True,
    ),
    Option("norm_bias", bool, True, "LayerNorm has a bias; the others have none", setting="norm_bias"),
    Option("norm_gain", bool, True, "norms have a learned gain (OLMo has none, arXiv:2402.00838)", setting="norm_gain"),
    NORM_UNIT_OFFSET,
)
"""What else there is to say of a norm than its name; an output node says these of the final norm."""

NORM_OPTIONS = (
    Option("use_rmsnorm", bool, False, "RMSNorm in place of LayerNorm (arXiv:1910.07467)", setting="use_rmsnorm"),
    Option("use_scalenorm", bool, False, "ScaleNorm in place of LayerNorm (arXiv:1910.05895)", setting="use_scalenorm"),
    *NORM_DETAILS,
)


@dataclass(frozen=True)
class Norm:
    """A norm over the features of a token.

    Attributes:
        name: one of NORMS.
        eps: added to the variance, or to the mean square.
        gain: one of each feature, or of ScaleNorm a single one.
        bias: one of each feature.
        unit_offset: the gain is one plus the parameter.
    """

    name: str
    eps: float
    gain: bool = True
    bias: bool = False
    unit_offset: bool = False

    @classmethod
    def of(cls, name: str, details: Mapping[str, Any]) -> Norm:
        """The norm of this name with NORM_DETAILS, of which those that are left out have their defaults."""
        eps, bias, gain, offset = (details.get(option.name, option.default) for option in NORM_DETAILS)
        eps = (1e-5 if name == "layernorm" else 1e-8) if eps is None else float(eps)
        return cls(name, eps, gain, bias and name == "layernorm", offset)

    def parameters(self, dim: int) -> int:
        """How many there are for `dim` features."""
        return (dim if self.name != "scalenorm" else 1) * self.gain + dim * self.bias

    def in_words(self) -> str:
        """`LayerNorm`, `LayerNorm without bias`, `RMSNorm × (1 + gain)`."""
        usual = Norm.of(self.name, {})
        lacks = [what for what in ("gain", "bias") if getattr(usual, what) and not getattr(self, what)]
        words = NORMS[self.name] + (f" without {' or '.join(lacks)}" if lacks else "")
        return words + (" × (1 + gain)" if self.unit_offset else "")


def norm_of(options: Mapping[str, Any]) -> Norm:
    """The norm of a block by its options, or of a stack by its settings."""
    name = "scalenorm" if options.get("use_scalenorm") else "rmsnorm" if options.get("use_rmsnorm") else "layernorm"
    return Norm.of(name, options)


def norms_of(options: Mapping[str, Any]) -> tuple[Norm | None, Norm | None]:
    """Those of a block: of the stream, before the layer or after the add, and of the layer's output."""
    own = norm_of(options)
    of_stream = options["norm"] and not options["output_norm"] and not options["shared_norm"]
    return own if of_stream else None, own if options["sandwich_norm"] or options["output_norm"] else None


def shares(options: Mapping[str, Any]) -> bool:
    """Whether a block norms the stream before its layer, which another block may read."""
    return bool(options["pre_norm"]) and norms_of(options)[0] is not None


def final_norm(output: Mapping[str, Any]) -> Norm | None:
    """The norm that an output node says."""
    return None if output["norm"] is None else Norm.of(output["norm"], output)


def embedding_norm(output: Mapping[str, Any]) -> Norm:
    """That of post_emb_norm: always a LayerNorm, otherwise like the stack's final one."""
    return Norm.of("layernorm", output)


def norm_clash(options: Mapping[str, Value]) -> tuple[str, str, str] | None:
    """What is wrong with options that are each in range, after the names of the two that clash; or None."""
    if options.get("use_rmsnorm") and options.get("use_scalenorm"):
        return "use_scalenorm", "use_rmsnorm", "use_rmsnorm and use_scalenorm are both set; give one"
    if options.get("norm_unit_offset") and not options.get("norm_gain", True):
        return "norm_unit_offset", "norm_gain", "norm_unit_offset is set, but norm_gain=false leaves no gain"
    return None


def misplaced_norm(o: Any) -> str | None:
    """What is wrong with where a block has norms, or None."""
    for name in ("sandwich_norm", "output_norm", "shared_norm"):
        if getattr(o, name) and not o.pre_norm:
            return f"{name} is set, but it needs pre_norm"
        if getattr(o, name) and not o.norm:
            return f"{name} is set, but norm=false leaves the block no norm"
    for name in ("sandwich_norm", "shared_norm"):
        if getattr(o, name) and o.output_norm:
            return f"{name} and output_norm are both set; give one"
    return None
