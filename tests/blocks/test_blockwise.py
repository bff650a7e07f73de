"""Attention by tiles against the scores written out, in float64, and what it must never hold."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import xt_blocks
from xt_blocks.kernels import flex, table
from xt_blocks.kernels import tiles as blockwise
from xt_blocks.kernels.masks import AttentionMask, Bias, Masks, MaskSpec
from xt_blocks.kernels.request import AttentionKernel, Request
from xt_blocks.kernels.scores.dropout import Dropout
from xt_blocks.kernels.scores.sparse_topk import TopK
from xt_blocks.kernels.scores.spec import Modifier, ScoreSpec
from xt_blocks.kernels.scores.talking_heads import TalkingHeads
from xt_blocks.positions.relative import RelativeBias

from ..thorough import part_of
from .variants import VARIANTS, inputs, stack

HEADS, DIM, VALUES = 3, 5, 4


def by(
    name: str, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, *modifiers: Modifier, scale: float = 0.3
) -> Tensor:
    return table.run(name, Request(q, k, v, mask, ScoreSpec(scale, modifiers)))[0]


@given(
    seq=st.integers(1, 150),
    past=st.sampled_from([0, 0, 37]),
    causal=st.booleans(),
    window=st.none() | st.integers(0, 160),
    future=st.none() | st.integers(0, 160),
    mem_kv=st.sampled_from([0, 0, 3]),
    hidden=st.none() | st.integers(0, 150),
    masked=st.booleans(),
    biased=st.booleans(),
    talking=st.booleans(),
    topk=st.none() | st.sampled_from([1, 7, 300]),
    seed=st.integers(0, 2**16),
)
def test_tiles_are_the_written_out_attention(
    seq: int,
    past: int,
    causal: bool,
    window: int | None,
    future: int | None,
    mem_kv: int,
    hidden: int | None,
    masked: bool,
    biased: bool,
    talking: bool,
    topk: int | None,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    tokens, keys = past + seq, mem_kv + past + seq

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    q, k, v = drawn(2, HEADS, seq, DIM), drawn(2, HEADS, keys, DIM), drawn(2, HEADS, keys, VALUES)
    line = drawn(HEADS, seq + tokens - 1)
    mask = None if hidden is None else torch.arange(tokens) >= torch.tensor([[0], [hidden]])
    seen = torch.rand(1, HEADS, seq, tokens) > 0.5 if masked else None
    bias = Bias(("bias",), RelativeBias(line, seq, tokens)) if biased else None
    attend = Masks(seq, past, mask, attn_mask=seen).tokens(MaskSpec(causal, window, mem_kv, future=future), bias)
    mix = TalkingHeads(SimpleNamespace(heads=HEADS)).double()
    modifiers = [*(mix() if talking else ()), *([] if topk is None else [TopK(topk)])]
    read = [q, k, v, *([line] if biased else []), *(mix.parameters() if talking else ())]
    plain, tiled = by("explicit", q, k, v, attend, *modifiers), by("tiles", q, k, v, attend, *modifiers)
    torch.testing.assert_close(tiled, plain)
    grad = torch.randn_like(plain)
    torch.testing.assert_close(torch.autograd.grad(tiled, read, grad), torch.autograd.grad(plain, read, grad))


@pytest.mark.parametrize("sources", [0, 1, 40, 100, 200])
@pytest.mark.parametrize("mem_kv", [0, 3])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("topk", [None, 4])
def test_a_context_of_any_length_is_seen_by_tiles(sources: int, mem_kv: int, padded: bool, topk: int | None) -> None:
    def drawn(seq: int, dim: int) -> Tensor:
        return torch.randn(2, HEADS, seq, dim, dtype=torch.float64, requires_grad=True)

    read = q, k, v = drawn(100, DIM), drawn(mem_kv + sources, DIM), drawn(mem_kv + sources, VALUES)
    mask = torch.arange(sources) < torch.tensor([[sources // 2], [0]]) if padded else None
    attend = Masks(100, context_mask=mask).context(mem_kv)
    modifiers = [] if topk is None else [TopK(topk)]
    plain, tiled = by("explicit", q, k, v, attend, *modifiers), by("tiles", q, k, v, attend, *modifiers)
    torch.testing.assert_close(tiled, plain)
    grad = torch.randn_like(plain)
    torch.testing.assert_close(torch.autograd.grad(tiled, read, grad), torch.autograd.grad(plain, read, grad))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_option_is_the_same_by_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stack(name).double()
    x, extra = inputs(model)
    extra = {key: value.double() if value.is_floating_point() else value for key, value in extra.items()}
    mask = torch.arange(7) < torch.tensor([[7], [3]])

    def run() -> list[Tensor]:
        out = model(x.double(), mask=mask, **extra)[mask]
        out.square().sum().backward()  # type: ignore[no-untyped-call]
        grads = [parameter.grad for parameter in model.parameters()]
        model.zero_grad()
        return [out, *(grad for grad in grads if grad is not None)]

    plain = run()
    used: list[int] = []

    def noting(kernel: AttentionKernel) -> AttentionKernel:
        return replace(kernel, run=lambda request: used.append(1) or kernel.run(request))  # type: ignore[func-returns-value]

    monkeypatch.setattr(blockwise, "ROWS", 1)
    monkeypatch.setattr(blockwise, "FEWEST", 4)
    kernels = tuple(noting(kernel) if kernel.name == "tiles" else kernel for kernel in table.KERNELS)
    monkeypatch.setattr(table, "KERNELS", kernels)
    torch.testing.assert_close(run(), plain)
    assert used or not any(causal_attention(step.node, model) for step in model.plan)


SEEN = product([False, True], [None, 30], [None, 20], [0, 3], [False, True], [False, True])


@pytest.mark.parametrize(("causal", "window", "future", "mem_kv", "padded", "biased"), part_of(SEEN, 5))
def test_flex_attention_sees_and_adds_the_same(
    causal: bool, window: int | None, future: int | None, mem_kv: int, padded: bool, biased: bool
) -> None:
    seq, past = 150, 20
    tokens = seq + past
    q, k, v = (
        torch.randn(2, 3, seq, 16),
        torch.randn(2, 3, mem_kv + tokens, 16),
        torch.randn(2, 3, mem_kv + tokens, 16),
    )
    mask = torch.arange(tokens) >= torch.tensor([[0], [50]]) if padded else None
    bias = Bias(("bias",), RelativeBias(torch.randn(3, seq + tokens - 1), seq, tokens)) if biased else None
    attend = Masks(seq, past, mask).tokens(MaskSpec(causal, window, mem_kv, future=future), bias)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is slow when it is not compiled
        out = by("flex", q, k, v, attend)
    torch.testing.assert_close(out, by("explicit", q, k, v, attend))
    assert flex.block_mask(attend, q, k) is flex.block_mask(attend, q, k)


def causal_attention(node: str, model: xt_blocks.Stack) -> bool:
    attrs = model.graph.nx.nodes[node]
    options = attrs.get("options", {})
    explicit = options.get("residual_attn") or not options.get("flash", True)
    return attrs.get("kind") == "a" and bool(options["causal"]) and not explicit


def test_dropout_keeps_the_mean_and_its_gradient_is_of_the_same_draw() -> None:
    q, k, v = (torch.randn(2, 3, 130, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    attend = Masks(130).tokens(MaskSpec(True))

    def drawn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(0)
        return by("tiles", q, k, v, attend, Dropout(0.4), scale=0.5)

    out = drawn(q, k, v)
    steps = [torch.randn_like(x) * 1e-6 for x in (q, k, v)]
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    there = drawn(*(x + step for x, step in zip((q, k, v), steps, strict=True))).sum()
    back = drawn(*(x - step for x, step in zip((q, k, v), steps, strict=True))).sum()
    expected = sum((grad * step).sum() for grad, step in zip(grads, steps, strict=True))
    torch.testing.assert_close((there - back) / 2, expected, rtol=1e-6, atol=1e-12)
    ones = torch.ones(1, 1, 130, 1, dtype=torch.float64)
    first = q[:1, :1], k[:1, :1], ones, attend, Dropout(0.4)
    sums = torch.stack([by("tiles", *first, scale=0.5) for _ in range(200)])
    assert abs(sums.mean().item() - 1) < 0.02
    assert sums.std() > 0.1


def test_a_checkpointed_block_draws_and_computes_the_same() -> None:
    settings = {"attn_dropout": 0.2, "rel_pos_bias": True, "attn_sparse_topk": 9}
    model = xt_blocks.Decoder(dim=8, depth=1, heads=2, attn_dim_head=4, **settings)
    x = torch.randn(2, 270, 8, requires_grad=True)

    def run(again: bool) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        out = checkpoint(model, x, use_reentrant=False) if again else model(x)
        return out, *torch.autograd.grad(out.square().sum(), [x, *model.parameters()])

    torch.testing.assert_close(run(True), run(False))


@pytest.mark.parametrize("name", ["T5 bias", "window"])
def test_gradients_of_each_row_by_torch_func(name: str) -> None:
    model = xt_blocks.Decoder(dim=8, depth=1, heads=2, attn_dim_head=4, **LINEAR[name]).double()
    x, parameters = torch.randn(2, 270, 8, dtype=torch.float64), dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(model, parameters, (row[None],))
        return out.square().sum()

    by_row = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    model(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(by_row[key].sum(dim=0), parameter.grad)


def test_forward_derivatives_and_fake_tensors_go_the_plain_way() -> None:
    model = stack("talking heads").double()
    x, along, context = torch.randn(3, 1, 300, 24, dtype=torch.float64).unbind()
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(model(forward_ad.make_dual(x, along), context=context)).tangent
    step = 1e-6 * along
    want = (model(x + step, context=context) - model(x - step, context=context)) / 2e-6
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-7)
    with FakeTensorMode():
        made, x = stack("T5 bias", dim=24), torch.randn(2, 300, 24)
        assert made(x, mask=torch.ones(2, 300, dtype=torch.bool), context=x).shape == x.shape


def test_a_traced_model_hides_what_another_mask_hides() -> None:
    model = stack("window").requires_grad_(False)
    x, mask = torch.randn(2, 300, 24), torch.rand(2, 300) > 0.4
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda x, mask: model(x, mask=mask), (x, torch.ones_like(mask)), check_trace=False)
        torch.testing.assert_close(traced(x, mask)[mask], model(x, mask=mask)[mask])


@pytest.mark.parametrize("name", ["T5 bias", "window", "talking heads", "memory kv"])
@pytest.mark.parametrize("how", ["autocast", "half"])
def test_low_precision_by_tiles_is_near_the_exact_one(name: str, how: str) -> None:
    model = xt_blocks.Decoder(dim=16, depth=2, heads=2, attn_dim_head=8, **LINEAR[name])
    x = torch.randn(2, 270, 16)
    exact = model(x)
    if how == "half":
        out = model.bfloat16()(x.bfloat16())
        assert out.dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
    out.float().sum().backward()
    assert (out.float() - exact).abs().mean() < 0.02
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [x for x in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(x, Tensor)]
        for x in made:
            self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


LINEAR: dict[str, dict[str, Any]] = {
    "plain": {},
    "ALiBi": {"alibi_pos_bias": True},
    "ALiBi, learned": {"alibi_pos_bias": True, "alibi_learned": True},
    "T5 bias": {"rel_pos_bias": True},
    "dynamic bias": {"dynamic_pos_bias": True},
    "window": {"attn_max_attend_past": 9},
    "memory kv": {"attn_num_mem_kv": 3},
    "talking heads": {"attn_talking_heads": True},
    "sparse": {"attn_sparse_topk": 3},
    "dropout": {"attn_dropout": 0.1},
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("padded", [False, True])
def test_no_option_holds_the_scores_of_a_long_sequence(name: str, padded: bool) -> None:
    seq, heads = 1024, 2
    model = xt_blocks.Decoder(dim=8, depth=1, heads=heads, attn_dim_head=8, ff_mult=1, **LINEAR[name])
    mask = torch.arange(seq) < torch.tensor([[900]]) if padded else None
    with Largest() as made:
        model(torch.randn(1, seq, 8), mask=mask).sum().backward()
    assert made.numel < heads * seq * seq / 4  # a band of a bias has heads · 64 · 2 seq


def test_a_window_costs_its_width() -> None:
    def products(seq: int) -> int:
        attend, q = Masks(seq).tokens(MaskSpec(True, 20)), torch.randn(1, 1, seq, 4)
        with flop_counter.FlopCounterMode(display=False) as counter:
            by("tiles", q, q, q, attend, scale=0.5)
        return counter.get_total_flops()

    assert products(4096) - products(3072) == products(3072) - products(2048)
    assert products(4096) < 4096 * (64 + 20) * 2 * 4 * 2  # two products a query, with no more keys than a tile's


@pytest.mark.parametrize("name", [name for name in LINEAR if "bias" in name or "ALiBi" in name])
def test_a_bias_is_made_once_a_forward_pass(name: str) -> None:
    model = xt_blocks.Decoder(dim=8, depth=3, heads=2, attn_dim_head=4, **LINEAR[name])
    made: list[torch.Size] = []
    for module in model.positions.values():
        module.register_forward_hook(lambda module, args, out: made.append(out.shape))
    model(torch.randn(2, 270, 8))
    assert made == [(539, 2)]  # one value a distance and head
