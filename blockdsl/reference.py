"""The reference of every option: its area, keyword, pattern spelling, values, default and paper.

Owns the areas and the values that its examples show. What there is to say of an option is read from where the option
is declared: the kinds, the stack's settings, the ordering keywords and the macros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from .language.macros import MACROS
from .language.ordering import ORDERING_KEYWORDS
from .registry.kinds import BIDIRECTIONAL, BLOCK_OPTIONS, kinds
from .registry.options import Option, Value, spell
from .registry.positions import POSITION_NEEDS
from .registry.rotary import NEEDED_BY_SCALING
from .registry.settings import STACK_SETTINGS
from .registry.streams import PAIR_OPTIONS, side_of
from .synonyms import meant

# The order of the areas. A registered kind comes after them, under its title.
AREAS = (
    "stack",
    "two streams",
    "embedding",
    "vectors",
    "images",
    "attention",
    "feedforward",
    "norms and residuals",
    "positions",
    "ordering",
    "regularisers",
    "recurrence",
    "memory in training",
)

# Values that say more than what `telling` finds.
_TELLING: dict[str, Value] = {
    "dim": 512,
    "num_tokens": 256,
    "max_seq_len": 1024,
    "emb_dim": 128,
    "num_token_types": 2,
    "logits_dim": 10,
    "dim_in": 7,
    "dim_out": 7,
    "image_size": 32,
    "patch_size": 4,
    "num_classes": 10,
    "num_register_tokens": 4,
    "pool_heads": 4,
    "pool_inner": 64,
    "max_mem_len": 512,
    "shift_mem_down": 1,
    "shift_tokens": 1,
    "dim_head": 32,
    "kv_heads": 2,
    "value_dim_head": 128,
    "dim_context": 48,
    "kv_rank": 64,
    "q_rank": 96,
    "qk_norm_groups": 4,
    "qk_scale": 1,
    "inner": 2048,
    "activation": "gelu_tanh",
    "init_gain": 0.5,
    "norm_eps": 1e-6,
    "qk_rmsnorm_eps": 1e-5,
    "qk_layernorm_eps": 1e-6,
    "alibi_num_heads": 4,
    "rel_pos_num_buckets": 16,
    "rel_pos_max_distance": 64,
    "rotary_theta": 500_000,
    "rotary_factor": 4,
    "rotary_original_len": 4096,
    "rotary_high_freq_factor": 8,
    "rotary_beta_fast": 16,
    "rotary_short_factors": (1, 1.5),
    "rotary_long_factors": (2, 8),
    "rotary_xpos_scale_base": 256,
    "dynamic_pos_bias_mlp_depth": 3,
    "n": 6,
    "k": 2,
    "ratio": 4,
    "groups": 2,
    "top_groups": 2,
    "dt_min": 0.01,
    "num_residual_streams": 4,
    "in_scales": (1, 1, 1, 1, 2),
}

_TOKENS: dict[str, Value] = {"num_tokens": 256, "max_seq_len": 1024}
_MODELS: dict[str, dict[str, Value]] = {
    "embedding": _TOKENS,
    "recurrence": _TOKENS,
    "vectors": {"max_seq_len": 1024},
    "images": {"image_size": 32, "patch_size": 4},
}


def _position_needs(needed: str) -> dict[str, Value]:
    """One that a setting of positions needs, with what that needs."""
    name, _, scaling = needed.partition("=")
    if not scaling:
        return {name: True}
    others = {other: _TELLING[other] for other in NEEDED_BY_SCALING[scaling]}
    features: dict[str, Value] = {"rotary_emb_dim": 4} if scaling == "longrope" else {}
    return {"rotary_pos_emb": True, **features, name: scaling, **others}


_NEEDS: dict[str, dict[str, Value]] = {
    **{name: _position_needs(needed[0]) for name, needed in POSITION_NEEDS.items()},
    "rotary_scaling": _position_needs("rotary_scaling=linear"),
    "attn_k_bias": {"attn_qkv_bias": True},
    "attn_q_rank": {"attn_kv_rank": 64},
    "attn_shared_key_dim": {"attn_kv_rank": 64},
    "attn_qk_norm_groups": {"attn_qk_norm": True},
    "attn_qk_norm_dim_scale": {"attn_qk_norm": True},
    "ff_gate_first": {"ff_glu": True},
    "ff_gate_scale": {"ff_glu": True},
    "attn_qk_rmsnorm_eps": {"attn_qk_rmsnorm": "head"},
    "attn_qk_layernorm_eps": {"attn_qk_layernorm": "head"},
    "attn_gate_bias": {"attn_gate_values": True},
    "attn_gate_values_headwise": {"attn_gate_values": True},
    "attn_gate_values_rank": {"attn_gate_values": True},
    "attn_output_gate_headwise": {"attn_output_gate": True},
    "attn_output_gate_rank": {"attn_output_gate": True},
    "attn_low_rank_silu_gates": {"attn_gate_values": True, "attn_gate_values_rank": 16},
    "attn_swiglu_values": {"attn_gate_values": True},
    "attn_sparse_topk_straight_through": {"attn_sparse_topk": 8},
    "attn_laser_softcap": {"attn_laser": True},
    "attn_forget_gate": {"causal": True},
    "ff_glu_mult_bias": {"ff_glu": True},
    **{f"moe_{name}": {"moe_glu": True} for name in ("gate_first", "glu_limit", "glu_offset")},
    "moe_top_groups": {"moe_groups": 4},
    "moe_shared_gate": {"moe_shared_inner": 64},
    "learned_reinject_input_gate": {"reinject_input": True},
    "hyper_conn_mix": {"num_residual_streams": 4},
    "hyper_conn_sinkhorn_iters": {"num_residual_streams": 4},
    "rotary_xpos": {"causal": True},
    "rotary_xpos_scale_base": {"rotary_xpos": True, "causal": True},
    "dim_condition": {"use_adaptive_layernorm": True},
    "adaptive_condition_mlp": {"use_adaptive_layernorm": True},
    "adaptive_condition_mlp_expansion": {"use_adaptive_layernorm": True, "adaptive_condition_mlp": True},
    "shift_mem_down": {"max_mem_len": 512},
    "conv_stem": {"dim_in": 7},
    "dim_out_bias": {"dim_out": 7},
    "end_token": {"pool": "end"},
    "num_cls_tokens": {"pool": "cls", "causal": False},
    "num_pooled_tokens": {"pool": "attention"},
    **{f"pool_{name}": {"pool": "attention"} for name in ("heads", "dim_head", "bias", "inner", "activation")},
    "squeeze_out_last_dim": {"logits_dim": 1},
    "logits_bias": {"tie_embedding": True},
    "logits_transform_bias": {"logits_transform": "gelu"},
}


def needs(keyword: str, area: str) -> dict[str, Value]:
    """Settings that go with one, without which it has no meaning."""
    both = _MODELS.get(area, {}) | _NEEDS.get(keyword, {})
    return {name: value for name, value in both.items() if name != keyword}


@dataclass(frozen=True)
class Entry:
    """What the reference says of one option.

    Attributes:
        area: one of AREAS, or a kind's title.
        name: as a block's parenthesis has it, `sparse_topk`.
        keyword: the keyword API's name, `attn_sparse_topk`; None where there is none.
        kinds: the kinds of block that have it.
        values: the allowed ones, in words.
        default: as a pattern writes it; empty where there is none.
        doc: one line.
        papers: each as `arXiv:...` or `doi:...`, with what it is called there.
        keyword_example: keyword arguments that use it; empty where there is no keyword.
        pattern: the shortest spelling in a pattern, `a(sparse_topk=8)`, `set rotary_pos_emb;`.
        setting: the same for every block, `set attn_sparse_topk=8;`; empty where only a block can say it.
        example: a whole pattern that uses it.
    """

    area: str
    name: str
    keyword: str | None
    kinds: tuple[str, ...]
    values: str
    default: str
    doc: str
    papers: tuple[str, ...]
    keyword_example: str
    pattern: str
    setting: str
    example: str


def entries() -> list[Entry]:
    """Every entry, by area."""
    found: dict[str, Entry] = {}
    for option in PAIR_OPTIONS:
        found[option.name] = _of_pair(option)
    by_block = {option.setting for kind in kinds().values() for option in kind.position_options()}
    for option in STACK_SETTINGS:
        if option.name not in by_block:
            found[option.name] = _of_stack(option)
    for kind in kinds().values():
        for option in kind.written_options():
            key = option.setting or f"{kind.name}({option.name})"
            if key in found:
                found[key] = replace(found[key], kinds=(*found[key].kinds, kind.name))
            else:
                area = "norms and residuals" if option in BLOCK_OPTIONS else kind.area or kind.title
                found[key] = _of_block(option, kind.name, area)
    everything = [*found.values(), *_of_ordering(), *_of_macros()]
    areas = [*AREAS, *dict.fromkeys(entry.area for entry in everything if entry.area not in AREAS)]
    return sorted(everything, key=lambda entry: areas.index(entry.area))


def find(name: str) -> list[Entry]:
    """The entries that have this name or keyword, or another name of it; `dropout` is an option of several kinds."""
    name = side_of(name)[1]  # enc_heads is heads, of one stream
    names = {name, *meant(name)}
    return [entry for entry in entries() if names & {entry.name, entry.keyword}]


def of_kind(name: str) -> list[Entry]:
    """The entries of a kind of block, by its name `a` or a word for it, `attention`; or those of an area.

    Those of one kind are spelled for it: `m(norm_eps=1e-06)`.
    """
    word = name.lower()
    named = {kind.name for kind in kinds().values() if word in (kind.name, kind.title, *kind.also)}
    found = [entry for entry in entries() if named & {*entry.kinds} or (not named and entry.area == word)]
    return [_spelled_for(next(iter(named)), entry) for entry in found] if len(named) == 1 else found


def _spelled_for(kind: str, entry: Entry) -> Entry:
    """The same with a pattern of that kind, in place of the first one that has the option."""
    if entry.pattern.startswith("set "):
        return entry
    return replace(entry, pattern=re.sub(rf"(?<!\S){entry.kinds[0]}(?=[( ])", kind, entry.pattern))


def telling(option: Option) -> Value:
    """An allowed value other than the default."""
    if option.name in _TELLING:
        return _TELLING[option.name]
    if option.type is bool:
        return not option.default
    candidates: Sequence[Value] = option.choices or ((8, 16, 2, 1, 0) if option.type is int else (2, 0.1, 1, 0))
    fitting = [value for value in candidates if value != option.default and option.fault(value) is None]
    return fitting[0] if fitting else option.default


_PAPER = re.compile(r"\s*\(([^()]*\b(?:arXiv|doi):[^()]*)\)")


def _sources(doc: str) -> tuple[str, tuple[str, ...]]:
    """The text without its papers, and they."""
    return _PAPER.sub("", doc), tuple(_PAPER.findall(doc))


def _given(name: str, value: Value) -> str:
    return name if value is True else f"{name}={spell(value)}"


def _of_stack(option: Option) -> Entry:
    setting = f"set {_given(option.name, telling(option))};"
    blocks = "(a c f)*6" if option.name == "context" else "(a f)*6"
    return _of_option(option, option.name, (), option.area or "stack", setting, setting, f"{setting} {blocks}")


def _of_pair(option: Option) -> Entry:
    """Of two streams together, over tokens."""
    setting = f"set {_given(option.name, telling(option))};"
    example = f"set num_tokens=256, max_seq_len=1024; {setting} (a f)*6 => (a c f)*6"
    entry = _of_option(option, option.name, (), "two streams", setting, setting, example)
    return replace(entry, keyword_example=f"{entry.keyword_example}, num_tokens=256, max_seq_len=1024")


def _of_block(option: Option, kind: str, area: str) -> Entry:
    value = "u" if option.reads else telling(option)
    beside = "values=u, " if option.name == "value_mix" else ""
    block = f"{kind}({beside}{_given(option.name, value)})"
    blocks = {"a": f"({block} f)*6", "f": f"(a {block})*6"}.get(kind, f"(a {block} f)*6")
    blocks = f"(f & {block})*6" if option.name == "shared_norm" else blocks  # it is for parallel ones
    if option.reads or beside:
        block = f"{kind if option.reads in kinds()[kind].gives else 'a'} ^u {block}"
        blocks = f"(f {block})*6"
    setting = f"set {_given(option.setting, telling(option))};" if option.setting else ""
    causal: dict[str, Value] = {"causal": True} if kinds()[kind].causal_only and option is not BIDIRECTIONAL else {}
    return _of_option(option, option.setting, (kind,), option.area or area, block, setting, blocks, causal)


def _of_option(
    option: Option,
    keyword: str | None,
    kinds: tuple[str, ...],
    area: str,
    pattern: str,
    setting: str,
    example: str,
    causal: Mapping[str, Value] = MappingProxyType({}),
) -> Entry:
    doc, papers = _sources(option.doc)
    others = {**causal, **(needs(keyword, area) if keyword else {})}
    required = option.default is None and not option.optional
    if others:
        example = f"set {', '.join(_given(*pair) for pair in others.items())}; {example}"
    arguments = {**others, keyword: telling(option)} if keyword else {}
    return Entry(
        area=area,
        name=option.name,
        keyword=keyword,
        kinds=kinds,
        values=option.wanted() + ("; must be given" if required else ""),
        default="" if required else spell(option.default),
        doc=doc,
        papers=papers,
        keyword_example=", ".join(f"{name}={value!r}" for name, value in arguments.items()),
        pattern=pattern,
        setting=setting,
        example=example,
    )


def _of_ordering() -> list[Entry]:
    out = []
    for row in ORDERING_KEYWORDS:
        doc, papers = _sources(row.doc)
        out.append(
            Entry(
                area="ordering",
                name=row.name,
                keyword=row.name,
                kinds=(),
                values=row.values,
                default=row.default,
                doc=doc,
                papers=papers,
                keyword_example=row.keyword,
                pattern=row.pattern,
                setting="",
                example=row.pattern,
            )
        )
    return out


def _of_macros() -> list[Entry]:
    out = []
    for macro in MACROS.values():
        doc, papers = _sources(macro.doc)
        numbers = [spell(telling(param)) for param in macro.params if param.type is not bool]
        call = f"{macro.name}({', '.join(numbers)})"
        out.append(
            Entry(
                area="ordering",
                name=macro.name,
                keyword=None,
                kinds=(),
                values="; ".join(f"{param.name}: {param.doc}" for param in macro.params),
                default="",
                doc=f"{macro.usage}: {doc}",
                papers=papers,
                keyword_example="",
                pattern=call,
                setting="",
                example=call,
            )
        )
    return out
