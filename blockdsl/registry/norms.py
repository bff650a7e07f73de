"""Norms: the options that say which one there is, and the parameters that it has.

A block has one of the stream, before its layer or after the add, or of its layer's output, or both, or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .content import by_content
from .options import Option, Value, in_digits

NORMS = {
    "layernorm": "LayerNorm",
    "rmsnorm": "RMSNorm",
    "scalenorm": "ScaleNorm",
    "simple_rmsnorm": "simple RMSNorm",
    "adaptive_layernorm": "adaptive LayerNorm",
    "adaptive_rmsnorm": "adaptive RMSNorm",
}
"""Each but the first has an option `use_...`."""

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
        "pre_and_post_norm",
        bool,
        False,
        "a second norm, of the stream after the residual add, and none after the last block (Keel, arXiv:2601.19895)",
        setting="pre_and_post_norm",
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
    Option(
        "use_simple_rmsnorm",
        bool,
        False,
        "RMSNorm without a gain in place of LayerNorm (TransNormer, arXiv:2307.14995)",
        setting="use_simple_rmsnorm",
    ),
    Option(
        "use_adaptive_layernorm",
        bool,
        False,
        "LayerNorm whose gain is 1 + W·condition, without bias (DiT, arXiv:2212.09748)",
        setting="use_adaptive_layernorm",
    ),
    Option(
        "use_adaptive_rmsnorm",
        bool,
        False,
        "RMSNorm whose gain is 1 + W·condition (DiT, arXiv:2212.09748)",
        setting="use_adaptive_rmsnorm",
    ),
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
        eps = (1e-5 if name.endswith("layernorm") else 1e-8) if eps is None else float(eps)
        gains = gain and not name.startswith(("simple_", "adaptive_"))
        return cls(name, eps, gains, bias and name == "layernorm", offset and gains)

    @property
    def adaptive(self) -> bool:
        """Whether its gain is 1 + W·condition."""
        return self.name.startswith("adaptive_")

    def parameters(self, dim: int) -> int:
        """How many there are for `dim` features, without those that a condition is multiplied by."""
        return (dim if self.name != "scalenorm" else 1) * self.gain + dim * self.bias

    def saved(self, dim: int) -> int:
        """Numbers that it saves of a token for the backward pass, beside its input of `dim` features."""
        statistics = 2 if self.name.endswith("layernorm") else 1
        by_gain = self.adaptive or (self.name == "scalenorm" and self.gain)  # multiplies what is normed by itself
        return statistics + dim * by_gain

    def in_words(self, eps: bool = False) -> str:
        """`LayerNorm`, `LayerNorm without bias`, `RMSNorm × (1 + gain)`; with `eps`, that too where it is not usual."""
        usual = Norm.of(self.name, {})
        lacks = [what for what in ("gain", "bias") if getattr(usual, what) and not getattr(self, what)]
        words = NORMS[self.name] + (f" without {' or '.join(lacks)}" if lacks else "")
        words += " × (1 + gain)" if self.unit_offset else ""
        return words + (f", eps {in_digits(self.eps)}" if eps and self.eps != usual.eps else "")


class BlockNorms(NamedTuple):
    """Those of a block.

    Attributes:
        stream: of the stream, before the layer or after the add.
        output: of the layer's output.
        sum: of the stream after the add, beside that before the layer.
    """

    stream: Norm | None
    output: Norm | None
    sum: Norm | None


def norm_of(options: Mapping[str, Any]) -> Norm:
    """The norm of a block by its options, or of a stack by its settings."""
    return Norm.of(next((name for name in NORMS if options.get(f"use_{name}")), "layernorm"), options)


def norms_of(options: Mapping[str, Any]) -> BlockNorms:
    """The norms that a block has by its options."""
    own = norm_of(options)
    of_stream = options["norm"] and not options["output_norm"] and not options["shared_norm"]
    of_output = options["sandwich_norm"] or options["output_norm"]
    return BlockNorms(*(own if has else None for has in (of_stream, of_output, options["pre_and_post_norm"])))


def widths(o: Any) -> tuple[int, int, int]:
    """Features that each of a block's norms reads, by its completed options: before the layer, those of the layer."""
    return o.dim_in if o.pre_norm else o.dim, o.dim, o.dim


@by_content
def reads_condition(options: Mapping[str, Any]) -> bool:
    """Whether a block reads a condition by its options."""
    adaptive = any(norm is not None and norm.adaptive for norm in norms_of(options))
    return adaptive or bool(options["use_adaptive_layerscale"])


@by_content
def shares(options: Mapping[str, Any]) -> bool:
    """Whether a block norms the stream alone before its layer, which another block may read."""
    return bool(options["pre_norm"]) and norms_of(options).stream is not None and not options.get("concat")


def final_norm(output: Mapping[str, Any]) -> Norm | None:
    """The norm that an output node says."""
    return None if output["norm"] is None else Norm.of(output["norm"], output)


def embedding_norm(output: Mapping[str, Any]) -> Norm:
    """That of post_emb_norm: always a LayerNorm, otherwise like the stack's final one."""
    return Norm.of("layernorm", output)


def pool_norm(output: Mapping[str, Any]) -> Norm:
    """That of pool=attention: like the final one, where that reads no condition."""
    own = final_norm(output)
    return embedding_norm(output) if own is None or own.adaptive else own


def norm_clash(options: Mapping[str, Value]) -> tuple[str, str, str] | None:
    """What is wrong with options that are each in range, after the names of the two that clash; or None."""
    named = [f"use_{name}" for name in NORMS if options.get(f"use_{name}")]
    if len(named) > 1:
        return named[1], named[0], f"{named[0]} and {named[1]} are both set; give one"
    own = norm_of(options)
    if options.get("norm_unit_offset") and not Norm.of(own.name, {}).gain:
        return "norm_unit_offset", named[0], f"norm_unit_offset is set, but {named[0]} has no gain of its own"
    if own.adaptive and not options.get("norm_gain", True):
        return "norm_gain", named[0], f"norm_gain is false, but the gain of {named[0]} is what the condition says"
    if options.get("norm_unit_offset") and not options.get("norm_gain", True):
        return "norm_unit_offset", "norm_gain", "norm_unit_offset is set, but norm_gain=false leaves no gain"
    return None


def misplaced_norm(o: Any) -> str | None:
    """What is wrong with where a block has norms, or None."""
    for name in ("sandwich_norm", "output_norm", "pre_and_post_norm", "shared_norm"):
        if getattr(o, name) and not o.pre_norm:
            return f"{name} is set, but it needs pre_norm"
        if getattr(o, name) and not o.norm:
            return f"{name} is set, but norm=false leaves the block no norm"
    for name in ("sandwich_norm", "shared_norm"):
        if getattr(o, name) and o.output_norm:
            return f"{name} and output_norm are both set; give one"
    return None
