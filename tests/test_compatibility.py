"""Every pair of options: it trains, or the error at construction says why not. The page lists those that do not.

A new option is paired with all others by itself, at the value of its example in the reference; SAMPLES has the values
that small models need. A kind with a state, or of experts, is paired with all options, and its own ones with each other. After a change on purpose, `python tests/test_compatibility.py` writes the page anew.
"""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from blockdsl import PatternError, UserError  # noqa: E402
from blockdsl.language.ordering import ORDERING_KEYWORDS, pattern_of  # noqa: E402
from blockdsl.reference import needs, telling  # noqa: E402
from blockdsl.registry.kinds import kinds  # noqa: E402
from blockdsl.registry.settings import table  # noqa: E402
from blockdsl.registry.tokens import MODEL_OPTIONS, TOKEN_OPTIONS  # noqa: E402
from tests.built_in import BUILT_IN, HYBRID, SMALL  # noqa: E402
from xt_blocks import TransformerWrapper  # noqa: E402
from xt_blocks.models.layers import AttentionLayers  # noqa: E402

PAGE = ROOT / "docs" / "compatibility.md"
BASE: dict[str, Any] = {
    "num_tokens": 7,
    "max_seq_len": 12,
    "dim": 24,
    "depth": 1,
    "heads": 4,
    "attn_dim_head": 8,
}
EACH = object()  # a list of as many values as the model has blocks

# Of options whose example in the reference is not of this size, or that are no setting; with what goes with them.
SAMPLES: dict[str, dict[str, Any]] = {
    "dim": {"dim": 32},
    "heads": {"heads": 2},
    "attn_dim_head": {"attn_dim_head": 16},
    "attn_value_dim_head": {"attn_value_dim_head": 6},
    "attn_shared_key_dim": {"attn_kv_rank": 16, "attn_shared_key_dim": 2},
    "attn_qk_norm_groups": {"attn_qk_norm": True, "attn_qk_norm_groups": 2},
    "attn_sparse_topk": {"attn_sparse_topk": 2},
    "attn_max_attend_past": {"attn_max_attend_past": 2},
    "attn_max_attend_future": {"attn_max_attend_future": 2},
    "shared_norm": {"shared_norm": True, "pattern": "(a & f)*2"},
    "ff_inner": {"ff_inner": 20},
    "num_tokens": {"num_tokens": 9},
    "max_seq_len": {"max_seq_len": 10},
    "emb_dim": {"emb_dim": 16},
    "context": {"context": True, "cross_attend": True},
    "attn_kv_rank": {"attn_kv_rank": 64, "attn_dim_head": 16, "attn_shared_key_dim": 8},
    "attn_q_rank": {"attn_q_rank": 96, "attn_kv_rank": 64, "attn_dim_head": 16, "attn_shared_key_dim": 8},
    "residual_attn": {"residual_attn": True, "depth": 2},
    "cross_residual_attn": {"cross_residual_attn": True, "cross_attend": True, "depth": 2},
    "cross_attn_dim_context": {"cross_attn_dim_context": 20, "cross_attend": True},
    "cross_attn_rotary": {"cross_attn_rotary": True, "cross_attend": True},
    "cross_attn_tokens_dropout": {"cross_attn_tokens_dropout": 0.1, "cross_attend": True},
    "pooler": {"pooler": True, "pool": "mean"},
    "end_token": {"end_token": 2, "pool": "end"},
    "alibi_num_heads": {"alibi_num_heads": 2, "alibi_pos_bias": True},
    "rel_pos_num_buckets": {"rel_pos_num_buckets": 4, "rel_pos_bias": True},
    "rel_pos_max_distance": {"rel_pos_max_distance": 64, "rel_pos_bias": True},
    "moe_top": {"moe_top": 1},
    "moe_mult": {"moe_mult": 2, "moe_inner": None},
    "moe_gate_first": {"moe_gate_first": True, "moe_glu": True},
    "moe_glu_limit": {"moe_glu_limit": 2, "moe_glu": True},
    "moe_glu_offset": {"moe_glu_offset": 2, "moe_glu": True},
    "moe_groups": {"moe_groups": 3, "moe_experts": 6, "moe_top_groups": 2},
    "moe_top_groups": {"moe_top_groups": 2, "moe_groups": 3, "moe_experts": 6},
    "moe_shared_gate": {"moe_shared_gate": True, "moe_shared_inner": 8},
    "ssm_dim_head": {"ssm_dim_head": 12},
    "ssm_groups": {"ssm_groups": 2},
    "ssm_expand": {"ssm_expand": 1},
    "ssm_dt_min": {"ssm_dt_min": 0.01},
    "ssm_in_scales": {"ssm_in_scales": (1, 2, 1, 0.5, 1)},
    "rglru_heads": {"rglru_heads": 3},
    "depth": {"depth": 2},
    "cross_attend": {"cross_attend": True},
    "only_cross": {"only_cross": True, "cross_attend": True},
    "macaron": {"macaron": True},
    "sandwich_coef": {"sandwich_coef": 1},
    "par_ratio": {"par_ratio": 3, "depth": 2},
    "custom_layers": {"custom_layers": ("a", "c", "f")},
    "unet_skips": {"unet_skips": True, "depth": 2},
    "add_value_residual": {"add_value_residual": True, "depth": 2},
    "learned_value_residual_mix": {"learned_value_residual_mix": False, "add_value_residual": True, "depth": 2},
    "shift_tokens of each block": {"shift_tokens": EACH},
    "layer_dropout of each block": {"layer_dropout": EACH},
}
SAMPLES["bidirectional"] = {"bidirectional": True, "custom_layers": ("a", "conv", "f")}
VALUES_OF_EACH = {"shift_tokens": 1, "layer_dropout": 0.1}


class Sample(NamedTuple):
    name: str
    keywords: dict[str, Any]

    @property
    def keyword(self) -> str:
        return self.name.partition(" ")[0]


def samples() -> list[Sample]:
    """A telling value of every option of the tables, ordering included."""
    others = {option.name for option in MODEL_OPTIONS if option not in TOKEN_OPTIONS}  # of models over something else
    settings = {name: option for name, option in table().items() if name not in others}
    orderings = [f"{row.name} of each block" if row.name in settings else row.name for row in ORDERING_KEYWORDS]
    built_in = {option.setting for name in BUILT_IN for option in kinds()[name].all_options()}
    own = {option.setting for kind in kinds().values() for option in kind.options} - built_in  # of tests' own kinds
    own |= {name for kind in HYBRID for name in own_options(kind)}

    def sample(name: str) -> dict[str, Any]:
        needed = {need: value for need, value in needs(name, settings[name].area).items() if need not in BASE}
        return needed | {name: telling(settings[name])}

    whole = [Sample(f"custom_layers with {kind}", among_others(kind)) for kind in HYBRID]
    return whole + [
        Sample(name, SAMPLES[name] if name in SAMPLES else sample(name))
        for name in [*settings, *orderings]
        if name not in own
    ]


def own_options(kind: str) -> list[str]:
    """The settings that blocks of a kind read, of HYBRID, and those of attention and feedforward do not."""
    others = {option.setting for name in ("a", "c", "f") for option in kinds()[name].all_options()}
    return [o.setting for o in kinds()[kind].options if o.setting is not None and o.setting not in others]


def among_others(kind: str) -> dict[str, Any]:
    """A block of the kind between attention and feedforward."""
    return {"custom_layers": ("a", kind, "f")} | ({"causal": True} if kinds()[kind].causal_only else {})


def sizes_of(layers: tuple[str, ...]) -> dict[str, Any]:
    """Settings that make blocks of these kinds small."""
    named = [(option, kind) for kind in {*layers} & {*HYBRID} for option in kinds()[kind].options]
    return {str(o.setting): SMALL[kind][o.name] for o, kind in named if o.name in SMALL.get(kind, {})}


def samples_of(kind: str) -> list[Sample]:
    """Those of a kind's own options."""
    known = table()
    return [
        Sample(
            name, among_others(kind) | SAMPLES.get(name, needs(name, known[name].area) | {name: telling(known[name])})
        )
        for name in own_options(kind)
    ]


EVERY = [*samples(), *(sample for kind in HYBRID for sample in samples_of(kind))] if __name__ != "__main__" else []


def merged(one: Sample, other: Sample) -> dict[str, Any]:
    """The keywords of both; what an option says of itself wins over what goes along with the other."""
    ordered = any("pattern" in sample.keywords for sample in (one, other))  # it has the depth
    base = {name: value for name, value in BASE.items() if not (ordered and name == "depth")}
    base |= sizes_of(one.keywords.get("custom_layers", ()) + other.keywords.get("custom_layers", ()))
    out = base | one.keywords | other.keywords
    return out | {sample.keyword: sample.keywords[sample.keyword] for sample in (one, other)}


ORDER_NAMES = {row.name for row in ORDERING_KEYWORDS}
WRAPPER_NAMES = set(inspect.signature(TransformerWrapper.__init__).parameters)


def build(keywords: dict[str, Any]) -> TransformerWrapper:
    each = [name for name, value in keywords.items() if value is EACH]
    if each:
        order = {n: v for n, v in keywords.items() if n in ORDER_NAMES and not (n in table() or v is EACH)}
        count = len(pattern_of(**order).layer_types)
        keywords = keywords | {name: (VALUES_OF_EACH[name],) * count for name in each}
    stack = {name: value for name, value in keywords.items() if name not in WRAPPER_NAMES}
    wrapper = {name: value for name, value in keywords.items() if name in WRAPPER_NAMES}
    return TransformerWrapper(attn_layers=AttentionLayers(**stack), **wrapper)


def fault_in_training(model: TransformerWrapper) -> str | None:
    """What goes wrong in a forward and a backward pass, or None."""
    tokens = torch.randint(0, model.num_tokens, (2, 5))
    context = torch.randn(2, 4, model.attn_layers.graph.dim_context) if model.attn_layers.reads_context else None
    features = model.graph.condition[0]
    condition = torch.randn(2, features) if features else None
    try:
        logits = model(tokens, context=context, condition=condition)
        if not logits.isfinite().all():
            return "the logits are not finite"
        logits.pow(2).sum().backward()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            return f"{name} gets no gradient"
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name} is not finite"
    return None


def outcome(keywords: dict[str, Any]) -> tuple[str, str]:
    """("", ""), ("refused", the error's words) or ("wrong", what happened)."""
    try:
        model = build(keywords)
    except (UserError, TypeError) as error:
        words = (
            error.problem if isinstance(error, PatternError) else re.sub(r"\n    .*", "", str(error))
        )  # not what mends it
        return "refused", " ".join(words.split())
    except Exception as error:
        return "wrong", f"{type(error).__name__} at construction: {error}"
    fault = fault_in_training(model)
    return ("wrong", fault) if fault else ("", "")


def pairs() -> Iterator[tuple[Sample, Sample]]:
    both = itertools.combinations(samples(), 2)
    of_kinds = (pair for kind in HYBRID for pair in itertools.combinations(samples_of(kind), 2))
    apart = ((a, b) for a, b in both if a.keyword != b.keyword and not two_orders(a, b))
    return ((a, b) for a, b in itertools.chain(apart, of_kinds) if not of_two_scalings(a, b))


def two_orders(a: Sample, b: Sample) -> bool:
    """Whether a kind's blocks are among others here, and the other sample orders blocks too."""
    return any(" with " in one.name and other.keyword in ORDER_NAMES for one, other in ((a, b), (b, a)))


def of_two_scalings(a: Sample, b: Sample) -> bool:
    """Whether they are of two scalings of rotary positions, of which a block has one."""
    own = {sample.keywords.get("rotary_scaling") for sample in (a, b)} - {None}
    return len(own) > 1


# The page ----------------------------------------------------------------------------------------------------------


def spelled(sample: Sample) -> str:
    value = sample.keywords[sample.keyword]
    return f"`{sample.keyword}={'(...)' if value is EACH else repr(value)}`"


def page(refused: list[tuple[Sample, Sample, str]], tried: int) -> str:
    """The page's text, from every pair that was refused and the error's words."""
    together: dict[tuple[str, str], list[str]] = {}
    for a, b, reason in refused:
        together.setdefault((spelled(b), reason), []).append(spelled(a))
    rows = [f"| {', '.join(these)} | {this} | {reason} |" for (this, reason), these in together.items()]
    return "\n".join(
        [
            "# Which options go together",
            "",
            f"All of them, but for the {len(refused)} pairs below. Each of the {len(samples())} options was paired with every",
            f"other, {tried:,} pairs in all, in a model over tokens of one layer, or two for options that need them.",
            f"So was a block of each of the kinds {', '.join(HYBRID)}. Their own options were",
            "paired with each other.",
            "",
            "A pair either trains, with a finite gradient for every parameter, or is refused when the model is built. What a",
            "refusal says is the reason given here. `tests/test_compatibility.py` writes this",
            "page and fails when it is out of date; a run tries one in twenty, `pytest -m thorough` all.",
            "",
            "| these | with this | why not |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


class Tried(NamedTuple):
    refused: list[tuple[Sample, Sample, str]]
    wrong: list[str]
    """What went wrong with pairs that were not refused."""
    tried: int


def tried(every: int = 1) -> Tried:
    """What became of the pairs, or of one in `every`."""
    torch.manual_seed(0)
    chosen = [*pairs()][::every]
    out = Tried([], [], len(chosen))
    for a, b in chosen:
        kind, words = outcome(merged(a, b))
        if kind == "refused":
            out.refused.append((a, b, words))
        elif kind == "wrong":
            out.wrong.append(f"{spelled(a)} and {spelled(b)}: {words}")
    return out


# The tests ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("sample", EVERY, ids=lambda sample: sample.name)
def test_every_option_has_a_sample_that_trains_by_itself(sample: Sample) -> None:
    kind, words = outcome(merged(sample, sample))
    assert not kind, (
        f"{spelled(sample)} cannot be tried: {words}; give '{sample.name}' a value in SAMPLES, or what it needs in blockdsl.reference"
    )


@pytest.mark.parametrize("sample", EVERY, ids=lambda sample: sample.name)
def test_every_sample_differs_from_the_default(sample: Sample) -> None:
    if sample.keyword in table():
        assert sample.keywords[sample.keyword] != table()[sample.keyword].default
    assert sample.keywords[sample.keyword] != BASE.get(sample.keyword)


def test_every_option_of_the_tables_is_paired() -> None:
    tried = {sample.keyword for sample in EVERY}
    assert tried >= {row.name for row in ORDERING_KEYWORDS}
    for name in BUILT_IN:
        assert tried >= {option.setting for option in kinds()[name].all_options()} - {None}
    assert set(SAMPLES) <= {sample.name for sample in EVERY}, "SAMPLES has an option that there is not"


def test_a_pair_trains_or_is_refused_for_the_reason_that_the_page_gives(one_thread: None) -> None:
    refused, wrong, _ = tried(every=EVERY_NTH)
    said = listed(PAGE.read_text(encoding="utf-8"))
    assert not wrong, "\n".join(wrong)
    assert len(refused) > 14
    for a, b, words in refused:
        assert said.pop((spelled(a), spelled(b), words), None), f"{OUT_OF_DATE}: {spelled(a)} and {spelled(b)}: {words}"
    of_page = {row[:2] for row in said}
    for a, b in [*pairs()][::EVERY_NTH]:
        assert (spelled(a), spelled(b)) not in of_page, f"{OUT_OF_DATE}: {spelled(a)} and {spelled(b)} train"


@pytest.mark.thorough
def test_every_pair_trains_or_is_refused_for_a_reason_and_the_page_says_which(one_thread: None) -> None:
    refused, wrong, count = tried()
    assert not wrong, "\n".join(wrong)
    for a, b, words in refused:
        names = {bare(name) for sample in (a, b) for name in sample.keywords}
        assert any(name in words for name in names), f"{spelled(a)} and {spelled(b)}: neither is named in: {words}"
    assert page(refused, count) == PAGE.read_text(encoding="utf-8"), OUT_OF_DATE


EVERY_NTH = 20
"""Of all pairs, those that a run tries."""
OUT_OF_DATE = "python tests/test_compatibility.py writes the page anew"


def listed(text: str) -> dict[tuple[str, str, str], bool]:
    """The pairs of the page, each with its reason."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {(these, this, reason): True for many, this, reason in rows for these in re.findall(r"`[^`]*`", many)}


def bare(name: str) -> str:
    """A setting as a block has it."""
    prefixes = sorted((f"{kind.prefix}_" for kind in kinds().values() if kind.prefix), key=len, reverse=True)
    return next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)


def test_that_a_pair_which_does_not_train_is_found() -> None:
    model = build(BASE)
    model.unused = torch.nn.Parameter(torch.zeros(1))
    assert fault_in_training(model) == "unused gets no gradient"
    model = build(BASE)
    torch.nn.init.constant_(model.token_emb.weight, float("nan"))
    assert fault_in_training(model) == "the logits are not finite"
    model.num_tokens = 100
    assert (fault_in_training(model) or "").startswith("ValueError: tokens are from")


if __name__ == "__main__":
    torch.set_num_threads(1)
    refused, wrong, count = tried()
    PAGE.write_text(page(refused, count), encoding="utf-8")
    sys.exit("\n".join(wrong) or None)
