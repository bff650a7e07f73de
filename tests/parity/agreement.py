"""Whether loaded models give what x-transformers gives, over random models of the installed release.

    python -m tests.parity.agreement --seed 0 --models 300

Each model is built by both libraries with the same keywords. The other one's parameters are made random, all of them,
and loaded; then both are run in float64. A set of keywords for which the numbers differ without a word is shrunk to the
smallest that still does. Nothing here is timed, and nothing is compared but numbers of the release that is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

import xt_blocks
from blockdsl import UserError
from xt_blocks.interop import load_x_transformers, names

DIM, VOCABULARY, LONGEST, SEQ, CONTEXT = 32, 11, 12, 7, 9
STACK = {"dim": DIM, "depth": 2, "heads": 2, "attn_dim_head": 16}

Options = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """What is built, and what it is given.

    Attributes:
        stack: the class of the stack; for an XTransformer "".
        layers: its keywords; of an XTransformer those with a prefix.
        wrapper: the class around it; "" for a stack alone.
        around: its keywords.
        outer: the class around that, or "".
        inputs: "mask", "context_mask", "attn_mask" and "holes" where given; "segments" and "rows" are numbers.
    """

    stack: str
    layers: Options
    wrapper: str
    around: Options
    outer: str = ""
    inputs: Options = field(default_factory=dict)

    def __str__(self) -> str:
        own = ", ".join(f"{name}={value!r}" for name, value in self.layers.items() if STACK.get(name) != value)
        text = f"{self.stack or 'enc_, dec_'}({own})"
        if self.wrapper:
            around = "".join(f", {name}={value!r}" for name, value in self.around.items())
            text = f"{self.wrapper}({text}{around})"
        text = f"{self.outer}({text})" if self.outer else text
        given = ", ".join(name if value is True else f"{name}={value}" for name, value in self.inputs.items())
        return f"{text} given {given}"


# Random models -----------------------------------------------------------------------------------------------------

# Each entry: keywords that are drawn together, every list standing for one of its values.
ORDER: list[Options] = [
    {"depth": [1, 3]},
    {"macaron": True},
    {"sandwich_coef": [1, 2]},
    {"par_ratio": 3, "depth": 4},
    {"custom_layers": [("a", "f", "f"), ("a", "a"), ("f", "a", "f", "a")]},
    {"cross_attend": True},
    {"cross_attend": True, "custom_layers": [("a", "c", "f", "c"), ("c", "a", "f")]},
    {"cross_attend": True, "only_cross": True},
    {"shift_tokens": [1, 2]},
]
NORMS: list[Options] = [
    {"pre_norm": False},
    {"sandwich_norm": True},
    {"use_rmsnorm": True},
    {"use_scalenorm": True},
    {"scale_residual": True},
    {"scale_residual": True, "scale_residual_constant": 1.3},
    {"scale_residual_constant": 1.3},
    {"gate_residual": True},
    {"residual_attn": True},
    {"cross_residual_attn": True, "cross_attend": True},
    {"zero_init_branch_output": True},
    {"ff_glu": True, "ff_no_bias": [True, False]},
    {"ff_swish": True},
    {"ff_relu_squared": True},
    {"ff_post_act_ln": True},
    {"ff_no_bias": True},
    {"ff_mult": [2, 1.5]},
]
POSITIONS: list[Options] = [
    {"rotary_pos_emb": True},
    {"rotary_pos_emb": True, "rotary_emb_dim": [4, 8, 16]},
    {"rotary_pos_emb": True, "attn_dim_head": [32, 64]},
    {"rotary_pos_emb": True, "attn_dim_head": 64, "rotary_emb_dim": [16, 48]},
    {"rotary_xpos": True},
    {"rotary_xpos": True, "rotary_xpos_scale_base": 64},
    {"rel_pos_bias": True},
    {"rel_pos_bias": True, "rel_pos_num_buckets": 8, "rel_pos_max_distance": 16},
    {"dynamic_pos_bias": True},
    {"dynamic_pos_bias": True, "dynamic_pos_bias_log_distance": True, "dynamic_pos_bias_norm": True},
    {"dynamic_pos_bias": True, "dynamic_pos_bias_mlp_depth": 1},
    {"alibi_pos_bias": True},
    {"alibi_pos_bias": True, "alibi_num_heads": 1},
]
ATTENTION: list[Options] = [
    {"heads": [1, 4]},
    {"heads": 1, "attn_dim_head": 32},
    {"heads": 4, "attn_dim_head": 8},
    {"attn_dim_head": [8, 10, 32]},
    {"attn_value_dim_head": 8},
    {"attn_one_kv_head": True},
    {"attn_num_mem_kv": [1, 3]},
    {"attn_qk_norm": True, "attn_qk_norm_groups": [1, 2], "attn_qk_norm_scale": [10, 7]},
    {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True},
    {"attn_talking_heads": True},
    {"attn_sparse_topk": 3},
    {"attn_head_scale": True},
    {"attn_gate_values": True},
    {"attn_on_attn": True},
    {"attn_max_attend_past": [2, 5]},
    {"attn_dropout": 0.1, "ff_dropout": 0.1, "layer_dropout": 0.1},
]
OF_RELEASE: dict[int, list[Options]] = {
    1: [
        {"deepnorm": True},
        {"deepnorm": True},
        {"alibi_pos_bias": True, "alibi_learned": True},
        {"alibi_pos_bias": True, "dynamic_pos_bias": True},
        {"attn_shared_kv": True},
        {"attn_tensor_product": True},
    ],
    2: [
        {"attn_kv_heads": 2, "heads": 4, "attn_dim_head": 8},
        {"attn_flash": True},
        {"attn_softcap": [2.0, 5.0]},
        {"attn_sink": True},
        {"num_residual_streams": [2, 4]},
        {"unet_skips": True, "depth": [2, 3, 4]},
        {"reinject_input": True, "learned_reinject_input_gate": [True, False]},
        {"add_value_residual": True},
        {"add_value_residual": True, "learned_value_residual_mix": False},
        {"add_value_residual": True, "cross_attend": True},
        {"attn_add_zero_kv": True},
        {"attn_sigmoid": True},
        {"attn_l2_distance": True},
        {"attn_laser": True, "attn_laser_softcap": [15.0, 2.0]},
        {"attn_k_rmsnorm": True},
        {"attn_value_rmsnorm": True},
        {"attn_gate_values": True, "attn_gate_values_headwise": True},
        {"attn_gate_values": True, "attn_gate_values_rank": 3, "attn_output_gate": True, "attn_output_gate_rank": 5},
        {"attn_output_gate": True, "attn_output_gate_headwise": [True, False], "attn_swiglu_values": True},
        {"attn_gate_value_heads": True},
        {"attn_sparse_topk": 3, "attn_sparse_topk_straight_through": True},
        {"attn_cog_signed": True},
        {"ff_glu": True, "ff_glu_mult_bias": True},
    ],
}
TOKENS: list[Options] = [
    {"emb_dim": 24},
    {"post_emb_norm": True},
    {"num_memory_tokens": [1, 3]},
    {"use_abs_pos_emb": False},
    {"scaled_sinu_pos_emb": True},
    {"l2norm_embed": True},
    {"tie_embedding": True},
    {"logits_dim": 5},
    {"max_mem_len": [3, 20]},
    {"max_mem_len": 20, "shift_mem_down": 1},
]
SEQ2SEQ: list[Options] = [
    {"tie_token_emb": True},
    {"deepnorm": True},
    {"enc_num_memory_tokens": 2},
    {"enc_scaled_sinu_pos_emb": True, "dec_scaled_sinu_pos_emb": True},
    {"enc_use_abs_pos_emb": False, "dec_use_abs_pos_emb": False},
    {"dec_l2norm_embed": True},
    {"enc_emb_dim": 24},
]


def drawn(rng: random.Random, pool: list[Options], count: int) -> Options:
    """The keywords of some entries of a pool, each with one of its values."""
    out: Options = {}
    for entry in rng.sample(pool, min(count, len(pool))):
        out |= {name: rng.choice(value) if isinstance(value, list) else value for name, value in entry.items()}
    return out


def random_layers(rng: random.Random, release: int) -> Options:
    rare = [POSITIONS if rng.random() < 0.5 else NORMS, ORDER, OF_RELEASE[release], ATTENTION, NORMS]
    out = dict(STACK)
    for pool in rare:
        out |= drawn(rng, pool, rng.choice((0, 0, 1, 1, 2)) if pool is not OF_RELEASE[release] else rng.random() < 0.3)
    return out


def random_setup(rng: random.Random, release: int) -> Setup:
    wrapper = rng.choice(
        ("", *("TransformerWrapper",) * 5, "ContinuousTransformerWrapper", "ViTransformerWrapper", "X")
    )
    inputs: Options = {"rows": rng.choice((1, 2, 3))}
    for name in ("mask", "holes", "context_mask", "attn_mask"):
        if rng.random() < 0.2:
            inputs[name] = True
    if wrapper == "X":
        own = {p + n: v for p in ("enc_", "dec_") for n, v in random_layers(rng, release).items() if n != "dim"}
        crossed = "enc_cross_attend", "dec_cross_attend", "enc_only_cross", "enc_cross_residual_attn"
        own = without(own, *crossed, "enc_custom_layers", "dec_custom_layers")
        own |= {"dim": DIM} | drawn(rng, SEQ2SEQ, rng.choice((0, 1, 2)))
        sizes = {f"{p}{n}": v for p in ("enc_", "dec_") for n, v in token_sizes().items()}
        return Setup("", own, "XTransformer", sizes, "", inputs)
    stack = rng.choice(("Encoder", "Decoder", "Decoder", "Decoder", "CrossAttender"))
    if wrapper == "ViTransformerWrapper":
        stack = "Encoder"
    layers = random_layers(rng, release)
    if stack == "CrossAttender":
        layers = without(layers, "cross_attend", "only_cross", "custom_layers")
        inputs = without(inputs, "attn_mask")
    elif wrapper == "ViTransformerWrapper":
        layers = without(layers, "cross_attend", "only_cross")
    elif layers.get("only_cross"):
        inputs = without(inputs, "attn_mask")
    if wrapper == "TransformerWrapper":
        around = token_sizes() | drawn(rng, TOKENS, rng.choice((0, 0, 1, 2)))
        if around.get("max_mem_len"):
            inputs = {"rows": inputs["rows"], "segments": 3}  # masks of segments are given in other ways
        outer = rng.choice(("", "", "AutoregressiveWrapper")) if stack == "Decoder" else ""
        if outer and "segments" in inputs:
            outer = "XLAutoregressiveWrapper"
        return Setup(stack, layers, wrapper, around, outer, inputs)
    around = {}
    if wrapper == "ContinuousTransformerWrapper":
        pool = [entry for entry in TOKENS if {*entry} <= {"post_emb_norm", "use_abs_pos_emb", "scaled_sinu_pos_emb"}]
        pool += [{"dim_in": 5}, {"dim_out": 6}, {"num_memory_tokens": 2}, {"emb_dim": 24}]
        around = {"max_seq_len": LONGEST} | drawn(rng, pool, rng.choice((0, 1, 2)))
        outer = rng.choice(("", "ContinuousAutoregressiveWrapper")) if stack == "Decoder" else ""
        return Setup(stack, layers, wrapper, around, outer, inputs)
    if wrapper == "ViTransformerWrapper":
        around = {"image_size": 8, "patch_size": 4} | drawn(
            rng, [{"num_classes": 5}, {"post_emb_norm": True}, {"num_register_tokens": 2}], rng.choice((0, 1, 2))
        )
    return Setup(stack, layers, wrapper, around, "", inputs)


def without(options: Options, *names: str) -> Options:
    return {name: value for name, value in options.items() if name not in names}


def token_sizes() -> Options:
    return {"num_tokens": VOCABULARY, "max_seq_len": LONGEST}


# Building --------------------------------------------------------------------------------------------------------------


def build(library: Any, setup: Setup) -> nn.Module:
    """A model of either library, in float64 where both have that."""
    layers = setup.layers if library is xt_blocks else spelled_there(setup.layers)
    model: nn.Module
    if setup.stack:
        model = getattr(library, setup.stack)(**layers)
        if setup.wrapper:
            model = getattr(library, setup.wrapper)(attn_layers=model, **setup.around)
    else:
        model = getattr(library, setup.wrapper)(**layers, **setup.around)
    if setup.outer:
        model = getattr(library, setup.outer)(model)
    return model.to(dtype_of(setup)).eval()


def dtype_of(setup: Setup) -> torch.dtype:
    """2.x computes its dynamic bias in float32."""
    return torch.float32 if any("dynamic_pos_bias" in name for name in setup.layers) else torch.float64


def spelled_there(layers: Options) -> Options:
    """Our keywords as the installed release has them."""
    from x_transformers.x_transformers import Attention, AttentionLayers

    attention, stack = ({*signature(one.__init__).parameters} for one in (Attention, AttentionLayers))
    out: Options = {}
    for name, value in layers.items():
        prefix = name[:4] if name.startswith(("enc_", "dec_")) else ""
        match name.removeprefix(prefix):
            case "attn_talking_heads" if "pre_talking_heads" in attention:
                out |= {f"{prefix}attn_{place}_talking_heads": value for place in ("pre", "post")}
            case "attn_softcap" if "softclamp_logits" in attention:
                out |= {f"{prefix}attn_softclamp_logits": True, f"{prefix}attn_logit_softclamp_value": value}
            case "attn_sink" if "head_learned_sink" in attention:
                out[f"{prefix}attn_head_learned_sink"] = value
            case "attn_laser_softcap":
                out[f"{prefix}attn_laser_softclamp_value"] = value
            case "heads" if "verbose" in stack:  # it logs what is unusual
                out |= {name: value, f"{prefix}verbose": False}
            case _:
                out[name] = value
    return out


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """All parameters, the gains and those that start at zero too."""
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim <= 1 or "scale" in name:
            parameter.copy_(parameter * (1 + 0.3 * noise) + 0.3 * torch.randn_like(parameter) * parameter.abs().max())
            if not parameter.any():
                parameter.copy_(0.3 * noise)
        elif ".emb." in name or "mem" in name:
            parameter.copy_(noise)
        else:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)


# Running --------------------------------------------------------------------------------------------------------------


class Inputs:
    """What a model is given, the same for both."""

    def __init__(self, setup: Setup) -> None:
        torch.manual_seed(1)
        self.rows, given = setup.inputs["rows"], setup.inputs
        self.mask = mask_of(self.rows, SEQ, "holes" in given) if {"mask", "holes"} & {*given} else None
        self.context = torch.randn(self.rows, CONTEXT, DIM, dtype=dtype_of(setup))
        self.context_mask = (
            mask_of(self.rows, CONTEXT, False) if "context_mask" in given or self.mask is not None else None
        )
        self.attn_mask = (torch.rand(SEQ, SEQ) < 0.7) | torch.eye(SEQ, dtype=torch.bool)
        self.attn_mask = self.attn_mask if "attn_mask" in given else None
        self.segments = given.get("segments", 1)
        self.tokens = torch.randint(0, VOCABULARY, (self.segments, self.rows, SEQ))
        self.source = torch.randint(0, VOCABULARY, (self.rows, CONTEXT))
        self.vectors = torch.randn(self.rows, SEQ, setup.around.get("dim_in", DIM), dtype=dtype_of(setup))
        self.image = torch.randn(self.rows, 3, 8, 8, dtype=dtype_of(setup))


def mask_of(rows: int, seq: int, holes: bool) -> Tensor:
    """Padding at the end, each row's own; with holes before it."""
    mask = torch.arange(seq)[None] < torch.arange(seq, seq - rows, -1)[:, None]
    if holes:
        mask &= torch.rand(rows, seq) < 0.8
        mask[:, 0] = True
    return mask


@torch.no_grad()
def outputs(setup: Setup, model: Any, reads_context: bool) -> Tensor:
    """Its outputs at real tokens, in one line."""
    given = Inputs(setup)
    if setup.wrapper == "XTransformer":
        encoder, decoder = model.encoder, model.decoder.net
        context = encoder(given.source, mask=given.context_mask, return_embeddings=True)
        logits = decoder(given.tokens[0], context=context, context_mask=given.context_mask)
        seen = context if given.context_mask is None else context[given.context_mask]
        return torch.cat((seen.flatten(), logits.flatten()))
    if setup.wrapper == "ViTransformerWrapper":
        return model(given.image, return_embeddings="num_classes" not in setup.around).flatten()
    model = model.net if setup.outer else model
    inputs: Options = {"mask": given.mask, "attn_mask": given.attn_mask}
    if reads_context:
        inputs |= {"context": given.context, "context_mask": given.context_mask}
    inputs = {name: value for name, value in inputs.items() if value is not None}
    if setup.wrapper != "TransformerWrapper":
        return real(model(given.vectors, **inputs), given.mask)
    if given.segments == 1:
        return real(model(given.tokens[0], **inputs), given.mask)
    out, mems = [], None
    for tokens in given.tokens:
        logits, mems = model(tokens, mems=mems, return_mems=True, **inputs)
        out.append(real(logits, given.mask))
    return torch.cat(out)


def real(out: Tensor, mask: Tensor | None) -> Tensor:
    return out.flatten() if mask is None else out[mask].flatten()


# Comparing ------------------------------------------------------------------------------------------------------------

OUTCOMES = (
    "equal",
    "warned of by name",
    "refused when loading",
    "refused when built",
    "there: fails",
    "DIFFERS IN SILENCE",
    "DIFFERS WHEN LOWERED AGAIN",
    "WARNED OF WITHOUT A NAME",
    "CHANGED BY A REFUSAL",
    "FAILS HERE",
    "TOLD TO BE OF ANOTHER RELEASE",
)
FAULTS = OUTCOMES[5:]


@dataclass(frozen=True)
class Outcome:
    kind: str
    words: str = ""


def told_of(weights: dict[str, Tensor]) -> names.Release:
    """The release that names tell; (0, 0): none."""
    try:
        return names.release_of(names.tensors(weights))
    except UserError:
        return 0, 0


def peer_release() -> int:
    return int(version("x-transformers").split(".")[0])


def agreement(setup: Setup, seed: int = 0) -> Outcome:
    """What becomes of a model of these keywords."""
    import x_transformers

    torch.manual_seed(seed)
    reads_context = bool({"cross_attend", "only_cross"} & {*setup.layers}) or setup.stack == "CrossAttender"
    try:
        theirs = build(x_transformers, setup)
        randomise(theirs)
        wanted = outputs(setup, theirs, reads_context)
        if not wanted.isfinite().all():
            raise ValueError("its outputs are not finite")
    except Exception as error:
        return Outcome("there: fails", f"{type(error).__name__}: {error}")
    try:
        model = build(xt_blocks, setup)
    except (ValueError, TypeError) as error:
        return Outcome("refused when built", str(error))
    weights = theirs.state_dict()
    real, told = names.version_of(version("x-transformers")), told_of(weights)
    if told != (names.LAST_OF_1 if real <= names.LAST_OF_1 else names.NEWEST):
        return Outcome("TOLD TO BE OF ANOTHER RELEASE", str(told))
    before, close = snapshot(model), 1e-5 if dtype_of(setup) == torch.float64 else 2e-4
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_x_transformers(model, weights, release=version("x-transformers"))
    except UserError as error:
        same = snapshot(model) == before
        return Outcome("refused when loading" if same else "CHANGED BY A REFUSAL", str(error))
    said = "; ".join(str(warning.message) for warning in caught)
    try:
        found = outputs(setup, model, reads_context)
    except ValueError as error:
        return Outcome("FAILS HERE", str(error))
    with contextlib.suppress(AttributeError):
        again = outputs(setup, lowered_again(setup, model), reads_context)
        if apart(again, found) > close / 10:
            return Outcome("DIFFERS WHEN LOWERED AGAIN", f"{apart(again, found):.1e}")
    differs = apart(found, wanted) > close
    if said and (not differs or any(expected(setup, str(warning.message)) for warning in caught)):
        given = {name.removeprefix("enc_").removeprefix("dec_") for name in {**setup.layers, **setup.around}}
        return Outcome("warned of by name" if any(name in said for name in given) else "WARNED OF WITHOUT A NAME", said)
    return Outcome("DIFFERS IN SILENCE", f"{apart(found, wanted):.1e} {said}") if differs else Outcome("equal")


def expected(setup: Setup, warning: str) -> bool:
    """Whether what a warning says makes a difference with these inputs."""
    if warning.startswith("shift_tokens: given a mask"):
        return bool({"mask", "holes"} & {*setup.inputs})
    if warning.startswith("attn_sparse_topk: x-transformers keeps all"):  # tokens at the same position, or without one
        return "segments" in setup.inputs or any("abs_pos_emb" in name for name in {**setup.layers, **setup.around})
    return True


def apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).norm() / other.norm())


def snapshot(model: nn.Module) -> tuple[Any, ...]:
    """All that a load may change: the modules, their parameters and the graphs."""
    graphs = [module.graph.to_json() for module in model.modules() if hasattr(module, "graph")]
    return (
        [(name, value.double().sum().item()) for name, value in model.state_dict().items()],
        str(model),
        graphs,
    )


def lowered_again(setup: Setup, model: Any) -> Any:
    """A model of its graph with its parameters; AttributeError: it has more than one."""
    net = model.net if setup.outer else model
    again: Any = xt_blocks.lower(net.graph).to(dtype_of(setup))
    again.load_state_dict(net.state_dict())
    again.eval()
    if setup.outer:
        again.net = again
    return again


def shrunk(setup: Setup, kind: str) -> Setup:
    """The fewest keywords and inputs with the same outcome."""
    for smaller in smaller_than(setup):
        if agreement(smaller).kind == kind:
            return shrunk(smaller, kind)
    return setup


def smaller_than(setup: Setup) -> Iterator[Setup]:
    if setup.outer:
        yield replace(setup, outer="")
    for name in setup.inputs:
        if name != "rows":
            yield replace(setup, inputs={n: v for n, v in setup.inputs.items() if n != name})
    if setup.inputs["rows"] > 1:
        yield replace(setup, inputs=setup.inputs | {"rows": 1})
    sizes = ("num_tokens", "max_seq_len", "image_size", "patch_size")
    for name in setup.around:
        if not name.endswith(sizes):
            yield replace(setup, around={n: v for n, v in setup.around.items() if n != name})
    for name, value in setup.layers.items():
        plain = STACK.get(name.removeprefix("enc_").removeprefix("dec_"))
        if plain is None:
            yield replace(setup, layers={n: v for n, v in setup.layers.items() if n != name})
        elif value != plain:
            yield replace(setup, layers=setup.layers | {name: plain})
    if (
        setup.wrapper in ("TransformerWrapper", "ContinuousTransformerWrapper", "ViTransformerWrapper")
        and not setup.outer
    ):
        yield replace(setup, wrapper="", around={})


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity.agreement", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=int, default=300, help="how many that the other library can build and run")
    parser.add_argument("--show", choices=OUTCOMES, action="append", default=[], help="list these, and why")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rng, count, shown = random.Random(args.seed), Counter[str](), 0
    faults: dict[str, str] = {}
    while sum(count.values()) - count["there: fails"] < args.models:
        setup = random_setup(rng, peer_release())
        outcome = agreement(setup)
        count[outcome.kind] += 1
        if outcome.kind in args.show and (shown := shown + 1):
            print(f"{outcome.kind}: {setup}\n    {outcome.words}")
        if outcome.kind in FAULTS:
            least = shrunk(setup, outcome.kind)
            faults.setdefault(f"{outcome.kind}: {least}", agreement(least).words)
    print(f"x-transformers {version('x-transformers')}, seed {args.seed}")
    for kind in OUTCOMES:
        print(f"{count[kind]:6}  {kind}")
    for fault, words in faults.items():
        print(f"{fault}\n    {words}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
