"""What holds for every stack: the two spellings are one model, causality, padding, independence of rows.

The expected order of blocks is spelled out here from the keyword options by the test's own rule, never asked of
the library.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xt_blocks import AttentionLayers

from .variants import EITHER_WAY, SIZES, VARIANTS, inputs, stack, still_at_first

orderings = st.one_of(
    st.fixed_dictionaries({"depth": st.integers(1, 4)}),
    st.integers(1, 4).flatmap(
        lambda d: st.fixed_dictionaries({"depth": st.just(d), "sandwich_coef": st.integers(1, d)})
    ),
    st.builds(lambda layers: {"custom_layers": layers}, st.lists(st.sampled_from("acf"), min_size=1, max_size=6)),
    st.integers(2, 5).flatmap(lambda d: st.fixed_dictionaries({"depth": st.just(d), "par_ratio": st.integers(2, d)})),
)
switches = st.fixed_dictionaries(
    {},
    optional={
        "cross_attend": st.booleans(),
        "macaron": st.booleans(),
        "causal": st.booleans(),
        "pre_norm": st.booleans(),
        "use_rmsnorm": st.booleans(),
        "scale_residual": st.booleans(),
        "gate_residual": st.booleans(),
        "rotary_pos_emb": st.booleans(),
        "residual_attn": st.booleans(),
        "cross_residual_attn": st.booleans(),
        "ff_glu": st.booleans(),
        "ff_no_bias": st.booleans(),
        "ff_swish": st.booleans(),
        "ff_mult": st.sampled_from([1, 2, 2.5]),
        "heads": st.sampled_from([1, 2, 3]),
        "shift_tokens": st.integers(0, 2),
    },
)


def spelled(options: dict[str, Any]) -> list[str]:
    """x-transformers' rule for the order of blocks."""
    block = ["a", "c", "f"] if options.get("cross_attend") else ["a", "f"]
    block = ["f", *block] if options.get("macaron") else block
    depth = options.get("depth", 0)
    if "custom_layers" in options:
        return list(options["custom_layers"])
    if "sandwich_coef" in options:
        k = options["sandwich_coef"]
        return ["a"] * k + block * (depth - k) + ["f"] * k
    if "par_ratio" in options:
        total = depth * len(block)
        head = [kind for kind in block if kind != "f"]
        groups = total // options["par_ratio"]
        two_thirds = total * 2 // 3
        width = (two_thirds + two_thirds // groups) // groups
        layers = (head + ["f"] * (width - len(head))) * groups
        return layers + ["f"] * (total - len(layers))
    return block * depth


def fits(options: dict[str, Any]) -> bool:
    """Leave out what has an error of its own: no room in a PAR group, no `c` that was asked for, what no block reads."""
    if "par_ratio" in options and len(options) and "f" not in spelled(options)[:2] and options.get("cross_attend"):
        return False
    layers = spelled(options)
    if options.get("cross_attend") and "c" not in layers:
        return False
    needs = {"a": ("rotary_pos_emb", "residual_attn"), "c": ("cross_residual_attn",)}
    needs["f"] = ("macaron", "ff_glu", "ff_no_bias", "ff_swish")
    return not any(options.get(name) and kind not in layers for kind, names in needs.items() for name in names)


@settings(max_examples=150)
@given(orderings, switches)
def test_keywords_and_the_pattern_they_stand_for_are_one_model(order: dict[str, Any], switch: dict[str, Any]) -> None:
    options = order | switch
    if not fits(options):
        return
    ordering = {"depth", "sandwich_coef", "custom_layers", "par_ratio", "cross_attend", "macaron"}
    rest = {name: value for name, value in options.items() if name not in ordering}
    layers = spelled(options)
    text = " ".join(f"{kind}/2" if kind == "f" and options.get("macaron") else kind for kind in layers)
    sizes = {"dim": 12, "attn_dim_head": 4, "heads": 2}
    torch.manual_seed(3)
    ours = AttentionLayers(**(sizes | options))
    torch.manual_seed(3)
    theirs = AttentionLayers(pattern=text, **(sizes | rest))
    kinds = [ours.graph.block(node)["kind"] for node in ours.graph.nodes("block")]
    assert kinds == layers
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    x = torch.randn(2, 5, 12)
    context = {"context": torch.randn(2, 3, 12)} if "c" in layers else {}
    assert torch.equal(ours(x, **context), theirs(x, **context))
    assert ours.graph.parameters() == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize("name", VARIANTS)
@given(st.integers(1, 6), st.integers(0, 2**31))
@settings(max_examples=3)
def test_a_later_token_never_changes_an_earlier_output(name: str, cut: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = stack(name)
    x, extra = inputs(model)
    changed = x.clone()
    changed[:, cut:] = torch.randn_like(changed[:, cut:])
    # equal to the last bit, but for the kernel's blocking, which may depend on all of a row
    torch.testing.assert_close(model(x, **extra)[:, :cut], model(changed, **extra)[:, :cut], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "causal"), EITHER_WAY)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**31))
@settings(max_examples=3)
def test_padding_on_either_side_never_changes_real_tokens(
    name: str, causal: bool, left: int, right: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = stack(name, causal=causal)
    x, extra = inputs(model, batch=1)
    junk = 100 * torch.randn(1, left + right, SIZES["dim"])
    padded = torch.cat((junk[:, :left], x, junk[:, left:]), dim=1)
    mask = torch.zeros(1, padded.shape[1], dtype=torch.bool)
    mask[:, left : left + x.shape[1]] = True
    out = model(padded, mask=mask, **extra)[:, left : left + x.shape[1]]
    torch.testing.assert_close(out, model(x, **extra), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", [name for name in VARIANTS if "cross" in name])
def test_padding_of_the_context_never_changes_an_output(name: str, causal: bool) -> None:
    model = stack(name, causal=causal)
    x, extra = inputs(model)
    longer = torch.cat((extra["context"], 100 * torch.randn(2, 3, SIZES["dim"])), dim=1)
    mask = (torch.arange(8) < 5).expand(2, 8)
    torch.testing.assert_close(model(x, context=longer, context_mask=mask), model(x, **extra), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "causal"), EITHER_WAY)
def test_rows_of_a_batch_do_not_affect_each_other(name: str, causal: bool) -> None:
    model = stack(name, causal=causal)
    x, extra = inputs(model, batch=3)
    mask = torch.arange(7) < torch.tensor([[7], [4], [0]])
    together = model(x, mask=mask, **extra)
    assert together.isfinite().all()  # the last row is masked whole
    for row in range(3):
        one = slice(row, row + 1)
        alone = model(x[one], mask=mask[one], **{k: v[one] for k, v in extra.items()})
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    model = stack(name).train()
    x, extra = inputs(model)
    mask = torch.arange(7) < torch.tensor([[7], [0]])
    (model(x, mask=mask, **extra) * torch.randn(2, 7, SIZES["dim"])).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0 or still_at_first(name, parameter_name), parameter_name


@pytest.mark.parametrize(
    "name", [name for name in VARIANTS if "straight through" not in name]
)  # not the same by design
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Of the input and of every parameter, in float64."""
    model = stack(name).double()
    x, extra = inputs(model, batch=1, seq=3, context=2)
    extra = {key: value.double() for key, value in extra.items()}
    names, parameters = zip(*model.named_parameters(), strict=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,), extra)

    own = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    assert torch.autograd.gradcheck(run, (x.double().requires_grad_(), *own), fast_mode=True)
