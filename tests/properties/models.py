"""Random models out of the whole option table: a stack of any shape, and the model over tokens around it.

What options there are, and values that say something, are read from where they are declared. A combination that
construction refuses is left out, one option at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import UserError
from blockdsl.reference import needs
from blockdsl.registry.kinds import kinds
from blockdsl.registry.options import Option, spell
from blockdsl.registry.settings import table
from blockdsl.registry.tokens import MODEL_OPTIONS, TOKEN_OPTIONS

from ..built_in import BUILT_IN, HYBRID, SMALL

SIZES: dict[str, Any] = {"dim": 24, "heads": 3, "attn_dim_head": 8}
TOKENS: dict[str, Any] = {"num_tokens": 11, "max_seq_len": 24}

# Values that fit these sizes, where a small number of the option's type would say nothing or be refused.
VALUES: dict[str, tuple[Any, ...]] = {
    "heads": (1, 2, 6),
    "dim_head": (4, 6, 5, None),
    "kv_heads": (1, 3, 2),
    "value_dim_head": (5, 8, 16),
    "dim_context": (10, 40),
    "kv_rank": (6, 16),
    "q_rank": (5, 12),
    "shared_key_dim": (2, 3, 4, 0),
    "mult": (1, 0.5, 2.5),
    "inner": (7, 30),
    "qk_scale": (1, 0.2),
    "scale_residual_constant": (0.5, 1.5, 0),
    "lora_rank": (2, 3),
    "branch_scale": (0.22, 1.5),
    "qk_norm_groups": (2, 4),
    "norm_eps": (0.1, 1e-6),
    "qk_rmsnorm_eps": (0.1, 1e-4),
    "qk_layernorm_eps": (0.1, 1e-4),
    "rotary_emb_dim": (2, 4, 8, 6),
    "rotary_theta": (50, 1e6),
    "rotary_factor": (2, 1.5),
    "rotary_original_len": (128,),  # beyond any text here: cached values stay exact where frequencies follow the length
    "rotary_high_freq_factor": (5,),
    "rotary_beta_fast": (8,),
    "rotary_attention_factor": (1.2,),
    "rotary_short_factors": ((1, 3.5),),
    "rotary_long_factors": ((2, 5),),
    "rotary_xpos_scale_base": (2, 16),
    "rel_pos_num_buckets": (4, 8, 5),
    "rel_pos_max_distance": (17, 40),
    "emb_dim": (10, 7, 24),
    "max_mem_len": (3, 64),
    "layer_dropout": (0.1, 0.5),
    "dropout": (0.1, 0.5),
    "emb_dropout": (0.1, 0.5),
}


KINDS = ("a", "c", "f", *HYBRID)


def values(option: Option) -> tuple[Any, ...]:
    """Allowed values of an option other than its default.

    None of one that takes a label, see WIRED, nor of value embeddings, which a stack alone is given.
    """
    if option.reads or option.name in ("value_mix", "value_embed"):
        return ()
    if option.type is bool:
        return (True, False) if option.default is None else (not option.default,)
    candidates = VALUES.get(option.name, option.choices or ((1, 2, 3) if option.type is int else (0.5, 2.0)))
    return tuple(value for value in candidates if value != option.default and option.fault(value) is None)


_TOKEN_NAMES = {option.name for option in TOKEN_OPTIONS}
_OF_MODELS = {option.name for option in MODEL_OPTIONS}
# Those of the built-in kinds: other tests register kinds of their own.
_BUILT_IN = {option.setting for name in BUILT_IN for option in kinds()[name].all_options()}
_READERS = {
    setting: {name for name in BUILT_IN for option in kinds()[name].all_options() if option.setting == setting}
    for setting in _BUILT_IN
}
OF_STACK = {
    name: option
    for name, option in table().items()
    if name not in {"dim", "causal", "context"} | _OF_MODELS and (name in _BUILT_IN or option.setting is None)
    if values(option)
}
OF_HYBRID = {name for name, readers in _READERS.items() if name is not None and readers <= {*HYBRID}}
"""Settings that only those kinds read."""
# Without those that leave no output for each token.
POOLING = ("pool", "end_token", "pooler", "squeeze_out_last_dim", "num_cls_tokens", "num_pooled_tokens")
POOLING += tuple(option.name for option in TOKEN_OPTIONS if option.name.startswith("pool_"))
AROUND = {option.name: option for option in TOKEN_OPTIONS if option.name not in {*TOKENS, *POOLING}}


@dataclass(frozen=True)
class Model:
    """What a test builds: a pattern, settings of its stack, and of the model over tokens around it."""

    text: str
    settings: dict[str, Any]
    around: dict[str, Any]
    seed: int

    @property
    def graph(self) -> blockdsl.BlockGraph:
        """Of the stack alone."""
        return blockdsl.compile(self.text, **(SIZES | self.settings))

    @property
    def kinds(self) -> set[str]:
        """Of its blocks."""
        graph = self.graph
        return {graph.block(node)["kind"] for node in graph.nodes("block")}

    def without(self, *around: str) -> Model:
        """The same but for options of the model around the stack."""
        return replace(self, around={name: value for name, value in self.around.items() if name not in around})

    def stack(self, dtype: torch.dtype = torch.float64, **settings: Any) -> xt_blocks.Stack:
        torch.manual_seed(self.seed)
        built = xt_blocks.AttentionLayers(pattern=self.text, **(SIZES | self.settings | settings))
        return stirred(built).to(dtype).eval()

    def model(self, dtype: torch.dtype = torch.float64, **settings: Any) -> xt_blocks.TransformerWrapper:
        torch.manual_seed(self.seed)
        built = xt_blocks.AttentionLayers(pattern=self.text, **(SIZES | self.settings | settings))
        return stirred(xt_blocks.TransformerWrapper(attn_layers=built, **(TOKENS | self.around))).to(dtype).eval()


def stirred(module: Any) -> Any:
    """No parameter where it starts, so that none is a one or a zero that hides what it does."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


# Shapes of a stack -------------------------------------------------------------------------------------------------

Shape = Callable[[dict[str, str]], str]  # what stands in each block's parenthesis → the text


@st.composite
def _block(draw: st.DrawFn, kinds: Sequence[str], places: dict[str, str]) -> Shape:
    plain = [kind for kind in kinds if kind not in HYBRID]
    kind = draw(st.sampled_from(plain if draw(st.booleans()) else kinds))
    tie = draw(st.sampled_from(["", "", "", "@x", "@y"]))
    place = f"{kind}{tie}" if tie else f"{kind}{len(places)}"
    places[place] = kind
    suffix = draw(st.sampled_from(["", "", "", ">>1", ">>2"])) + draw(st.sampled_from(["", "", "", "/2"]))
    label = f"{tie}{kind}" if tie else ""
    return lambda options: kind + (f"({options[place]})" if options.get(place) else "") + suffix + label


@st.composite
def _chain(draw: st.DrawFn, kinds: Sequence[str], places: dict[str, str], depth: int, most: int) -> Shape:
    items: list[Shape] = []
    for _ in range(draw(st.integers(1, most))):
        what = draw(st.sampled_from(["block", "block", "twice", "parallel"])) if depth else "block"
        if what == "block":
            items.append(draw(_block(kinds, places)))
        elif what == "twice":
            inner = draw(_chain(kinds, places, depth - 1, 2))
            items.append(lambda options, inner=inner: f"({inner(options)})*2")
        else:
            count = draw(st.integers(2, 3))
            branches = [draw(_chain(kinds, places, depth - 1, 2)) for _ in range(count)]
            items.append(lambda options, branches=branches: "(" + " & ".join(f"({b(options)})" for b in branches) + ")")
    return lambda options: " ".join(item(options) for item in items)


# Options of a block that say nothing without another one.
_NEEDED = (
    ("k_bias", "qkv_bias"),
    ("gate_first", "glu"),
    ("gate_scale", "glu"),
    ("glu_mult_bias", "glu"),
    ("gate_values_headwise", "gate_values"),
    ("gate_values_rank", "gate_values"),
    ("output_gate_rank", "output_gate"),
    ("output_gate_headwise", "output_gate"),
    ("swiglu_values", "output_gate"),
    ("laser_softcap", "laser"),
)

ORDERINGS = ("macaron(2)", "sandwich(1, 2)", "par(3, 2)", "(a c f)*2", "(a f)*2")
WIRED = (
    "(^u a f)*2 (<u(pop, cat) a f)*2",
    "^x a f (a & <x/2 & (f <x(soft)/2))",
    "^h (a f>>1 <h(all, gain, init=0.3) ^h)*2",
    "a f ^e (<e(gate)@g (a f)@core)*2",
    "a(max_attend_past=2) ^k f a(kv=k, max_attend_past=4)>>1 ^j a(kv=j)",
    "a ^v f (a(values=v, value_mix=learned) ^v f)*2",
    "a ^s f a(scores=s) ^r a(scores=s) <r",
    "^u a f ^x a(concat=u, lora_rank=2)@a f@f <x(linear) a(concat=u, lora_rank=2)@a (f@f & <x(linear)/2)",
)
"""With labels and reads."""


@st.composite
def models(draw: st.DrawFn, kinds: Sequence[str] = KINDS, causal: bool | None = None, around: bool = True) -> Model:
    """A model with up to four options of its stack, of all blocks or of one, and up to three around it.

    Args:
        kinds: of blocks.
        causal: of the stack; None: either.
        around: whether there are options around the stack.
    """
    places: dict[str, str] = {}
    shape: Shape
    if draw(st.integers(0, 4)) == 0:
        text = draw(st.sampled_from([*(text for text in ORDERINGS if "c " not in text or "c" in kinds), *WIRED]))
        shape = lambda options: text  # noqa: E731
    else:
        shape = draw(_chain(kinds, places, draw(st.integers(0, 2)), 3))
    settings: dict[str, Any] = {"causal": draw(st.booleans()) if causal is None else causal}
    options = {place: _own(kind, settings["causal"]) for place, kind in places.items()}
    of_stack = [
        name for name in OF_STACK if not (readers := _READERS.get(name)) or readers & {*places.values(), *"acf"}
    ]
    for _ in range(draw(st.integers(1, 4))):
        if places and draw(st.integers(0, 2)) == 0:
            place = draw(st.sampled_from(sorted(places)))
            of_kind = {option.name: option for option in kind_options(places[place])}
            name = draw(st.sampled_from(sorted(name for name, option in of_kind.items() if values(option))))
            own = options.get(place, {}) | {name: draw(st.sampled_from(values(of_kind[name])))}
            for norm in ("qk_norm", "qk_rmsnorm", "qk_layernorm"):
                if name.startswith(f"{norm}_"):
                    own[norm] = True if norm == "qk_norm" else draw(st.sampled_from(["head", "each"]))
            own |= {need: True for option, need in _NEEDED if option == name and need in of_kind}
            own |= {"kv_rank": 6} if name in ("q_rank", "shared_key_dim") else {}
            if of_kind[name].type is bool:  # a block may take back what is set for all
                own[name] = draw(st.booleans())
            tried = settings, options | {place: own}
        else:
            name = draw(st.sampled_from(sorted(of_stack)))
            value = draw(st.sampled_from(values(OF_STACK[name])))
            others = {n: v for n, v in needs(name, OF_STACK[name].area).items() if n not in _TOKEN_NAMES}
            tried = others | settings | {name: value}, options
            if causal is not None or name == "rotary_xpos":
                tried[0]["causal"] = causal is not False
        if compiles(shape, *tried):
            settings, options = tried
    given: dict[str, Any] = {}
    for _ in range(draw(st.integers(0, 3)) if around else 0):
        name = draw(st.sampled_from(sorted(AROUND)))
        others = {n: v for n, v in needs(name, "").items() if n in _TOKEN_NAMES and n not in TOKENS}
        further = others | given | {name: draw(st.sampled_from(values(AROUND[name])))}
        if compiles(shape, settings | TOKENS | further, options):
            given = further
    return Model(_text(shape, options), settings, given, draw(st.integers(0, 2**16)))


def _own(kind: str, causal: bool) -> dict[str, Any]:
    """What a block of a kind says in any case in such a stack."""
    both = {"bidirectional": True} if kinds()[kind].both_ways and not causal else {}
    return SMALL.get(kind, {}) | both


def kind_options(kind: str) -> tuple[Option, ...]:
    return kinds()[kind].written_options()


def _text(shape: Shape, options: dict[str, dict[str, Any]]) -> str:
    written = {
        place: ", ".join(f"{name}={spell(value)}" for name, value in own.items()) for place, own in options.items()
    }
    return shape(written)


def compiles(shape: Shape, settings: dict[str, Any], options: dict[str, dict[str, Any]]) -> bool:
    """Whether a text with these settings and options of its blocks is taken."""
    try:
        blockdsl.compile(_text(shape, options), **(SIZES | settings))
    except UserError:
        return False
    return True


# What a test feeds them --------------------------------------------------------------------------------------------


def examples(count: int) -> settings:
    """So many examples, or XT_EXAMPLES; each builds a model, which hypothesis thinks slow."""
    return settings(
        max_examples=int(os.environ.get("XT_EXAMPLES", count)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


def context_for(module: nn.Module, batch: int, tokens: int = 5) -> dict[str, Tensor]:
    """A context and a condition of rows where the stack reads one, in its type."""
    stack: Any = getattr(module, "attn_layers", module)
    dtype, (dim, _) = next(module.parameters()).dtype, stack.graph.condition
    given = {"context": torch.randn(batch, tokens, stack.graph.dim_context, dtype=dtype)} if stack.reads_context else {}
    return given | ({"condition": torch.randn(batch, dim, dtype=dtype)} if dim else {})


def tokens(batch: int, seq: int) -> Tensor:
    return torch.randint(0, TOKENS["num_tokens"], (batch, seq))


def cuts(total: int) -> st.SearchStrategy[list[int]]:
    """Sizes of parts that add up."""
    return st.lists(st.integers(1, total), min_size=1, max_size=total).map(lambda sizes: list(_up_to(sizes, total)))


def _up_to(sizes: list[int], total: int) -> Iterator[int]:
    for size in sizes:
        if total:
            yield min(size, total)
            total -= min(size, total)
    yield from [1] * total


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Equal but for rounding: positions are computed in float32, everything else in float64."""
    scale = max(1.0, theirs.detach().abs().max().item()) if theirs.numel() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * scale)
