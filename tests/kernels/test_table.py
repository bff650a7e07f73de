"""The table of attention's kernels: each equals the explicit one wherever it says that it can, and says why not else."""

from __future__ import annotations

import gc
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import xt_blocks
from xt_blocks.kernels import contract, flex, sdpa, table, tiles
from xt_blocks.kernels.masks import AttentionMask
from xt_blocks.kernels.request import Request
from xt_blocks.kernels.scores.dropout import Dropout
from xt_blocks.kernels.scores.softmax import Softmax
from xt_blocks.kernels.scores.spec import Modifier, ScoreSpec, ScoreStage, TileStep

from ..thorough import part_of
from .requests import CASES, OPTIONS, Case, combinations, module_of, request_of

COMBINATIONS = [*combinations()]


def gradients(name: str, request: Request, read: list[Tensor]) -> list[Tensor]:
    """The result and the gradients of all that is read."""
    out = table.run(name, request)[0]
    weights = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(0))
    return [out, *torch.autograd.grad(out, read, weights)]


def detached(request: Request) -> Request:
    return request._replace(q=request.q.detach(), k=request.k.detach(), v=request.v.detach())


@pytest.mark.parametrize("options", COMBINATIONS, ids=" ".join)
@pytest.mark.parametrize("case", CASES)
def test_every_kernel_equals_the_explicit_one(case: str, options: tuple[str, ...]) -> None:
    request, read = request_of(CASES[case], [module_of(name) for name in options])
    want = gradients("explicit", request, read)
    for kernel in table.KERNELS:
        if kernel.supports(request) is None:
            torch.testing.assert_close(
                gradients(kernel.name, request, read), want, msg=lambda m, k=kernel: f"{k.name}: {m}"
            )


@pytest.mark.parametrize("options", [o for o in COMBINATIONS if len(o) < 2], ids=" ".join)
@pytest.mark.parametrize("case", part_of(CASES, 3))
def test_flex_attention_equals_the_explicit_one(
    case: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradients too, which torch has for a CPU and does not give: a GPU's are the same formulas, compiled."""
    request, read = request_of(CASES[case], [module_of(name) for name in options])
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *args: None, raising=False)
    refused = flex.supports(detached(request))
    if refused is not None:
        assert "FlexAttention has no" in refused or "depend on distance alone" in refused
        return
    weights = torch.randn(request.q.shape, dtype=request.q.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is slow when it is not compiled
        out, plain = flex.run(request)[0], table.run("explicit", request)[0]
        torch.testing.assert_close(out, plain)
        torch.testing.assert_close(*(torch.autograd.grad(one, read, weights) for one in (out, plain)))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kernel", ["tiles", "explicit"])
def test_gradients_are_those_of_differences(option: str, kernel: str) -> None:
    case = Case(queries=9, past=2, mem_kv=1, window=4, padded=True, bias=True)
    request, read = request_of(case, [module_of(option)])

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return table.run(kernel, request._replace(q=q, k=k, v=v))[0]

    assert torch.autograd.gradcheck(run, read[:3], fast_mode=True)


def test_no_kernel_is_left_out_by_the_walk() -> None:
    served: dict[str, int] = {kernel.name: 0 for kernel in table.KERNELS}
    for case in CASES.values():
        for kernel in table.KERNELS:
            served[kernel.name] += kernel.supports(detached(request_of(case)[0])) is None
    several = len([case for case in CASES.values() if case.queries > 1])
    by_distance = len([case for case in CASES.values() if not case.attn_mask])
    assert served == {
        "tiles": len(CASES),
        "flex": by_distance,
        "sdpa": len(CASES),
        "single query": len(CASES) - several,
        "explicit": len(CASES),
    }


# Which is chosen ---------------------------------------------------------------------------------------------------

LONG = Case(queries=4 * tiles.ROWS)


@dataclass(frozen=True)
class Choice:
    """A request in other words, and the kernel that a CPU of one thread is to take for it."""

    case: Case
    kernel: str
    options: tuple[str, ...] = ()
    trains: bool = True
    flash: bool = True


CHOICES = {
    "few queries": Choice(Case(), "sdpa"),
    "plain causal training": Choice(LONG, "tiles"),
    "plain causal evaluation": Choice(LONG, "sdpa", trains=False),
    "plain causal training of many": Choice(replace(LONG, queries=tiles.MOST_PLAIN + 1), "sdpa"),
    "all keys": Choice(replace(LONG, causal=False), "sdpa"),
    "a window": Choice(replace(LONG, window=9), "tiles", trains=False),
    "padding": Choice(replace(LONG, padded=True), "tiles", trains=False),
    "padding, all keys": Choice(replace(LONG, padded=True, causal=False), "sdpa"),
    "a past": Choice(replace(LONG, past=9), "tiles", trains=False),
    "a bias": Choice(replace(LONG, bias=True), "tiles", trains=False),
    "a bias, all keys, learned": Choice(replace(LONG, bias=True, causal=False), "tiles"),
    "a bias, all keys, evaluated": Choice(replace(LONG, bias=True, causal=False), "sdpa", trains=False),
    "an option": Choice(LONG, "tiles", ("talking_heads",), trains=False),
    "an option, few queries": Choice(Case(), "explicit", ("talking_heads",)),
    "one query, few keys": Choice(CASES["one query"], "sdpa"),
    "one query, many keys": Choice(Case(queries=1, past=2000), "single query"),
    "one query, an option": Choice(CASES["one query"], "single query", ("sparse_topk",)),
    "no flash": Choice(LONG, "explicit", flash=False),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_choice(name: str) -> None:
    choice = CHOICES[name]
    request, _ = request_of(choice.case, [module_of(name, torch.float32) for name in choice.options], torch.float32)
    request = request._replace(flash=choice.flash)
    with torch.set_grad_enabled(choice.trains):
        told = table.why(request)
        assert told.startswith(f"{choice.kernel} is taken\n")
        assert len(told.splitlines()) == len(table.KERNELS)
        seen: list[str] = []
        noting = tuple(replace(k, run=lambda r, k=k: seen.append(k.name) or k.run(r)) for k in table.KERNELS)
        contract.choose(noting, request).run(request)
        assert seen == [choice.kernel]


def test_why_names_a_reason_of_each_kernel() -> None:
    request, _ = request_of(Case(), [module_of("talking_heads")])
    assert table.why(request).splitlines() == [
        "explicit is taken",
        "  tiles: tiles are fast on a CPU, from 256 queries on",
        "  flex: FlexAttention has no talking heads",
        "  sdpa: torch's kernel has no talking heads",
        "  single query: there is more than one query",
    ]
    request, _ = request_of(LONG, dtype=torch.float32)
    with torch.no_grad():
        assert table.why(detached(request)).splitlines() == [
            "sdpa is taken",
            "  tiles: torch's fused kernel is as fast where nothing but causality changes the scores",
            "  flex: it is fast on a GPU, from 512 queries on",
            "  single query: there is more than one query",
            "  explicit: would do, but sdpa comes first",
        ]


def test_scores_in_hand_are_the_explicit_kernels() -> None:
    request, _ = request_of(LONG)
    for asked, reason in (
        (request._replace(keep_scores=True), "the scores are to be kept"),
        (
            request._replace(spec=ScoreSpec(1.0, (), torch.zeros(2, 3, 256, 256))),
            "scores of an earlier block are added",
        ),
        (request._replace(flash=False), "flash=false asks for the scores in hand"),
    ):
        told = table.why(asked)
        assert told.startswith("explicit is taken")
        assert told.count(reason) == 3


def test_a_kernel_that_cannot_is_not_run() -> None:
    request, _ = request_of(Case(), [module_of("talking_heads")])
    with pytest.raises(ValueError, match="sdpa can't compute this: torch's kernel has no talking heads"):
        table.run("sdpa", request)
    with pytest.raises(ValueError, match="no kernel is called 'flash'; there are tiles, flex, sdpa"):
        table.run("flash", request)


def test_why_of_a_model_tells_of_each_attention() -> None:
    model = xt_blocks.Decoder(dim=24, heads=3, attn_dim_head=8, pattern="a f a(talking_heads)@x a(talking_heads)@x")
    told = xt_blocks.why(model, torch.randn(1, 7, 24)).splitlines()
    assert [line for line in told if not line.startswith(" ")] == [
        "blocks.a0.layer: sdpa is taken",
        "blocks.a2.layer: explicit is taken",
        "blocks.a2.layer: explicit is taken",
    ]
    assert xt_blocks.why(xt_blocks.Attention(dim=24), torch.randn(1, 7, 24)).startswith("sdpa is taken\n")
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="no attention ran in FeedForward"):
        xt_blocks.why(xt_blocks.FeedForward(dim=24), torch.randn(1, 7, 24))


# A modifier that is wrong ------------------------------------------------------------------------------------------


class Cubed(Modifier):
    """score³ / 8, whose gradient reads the scores."""

    name = "cubed"
    stage = ScoreStage.SCORES

    def apply(self, x: Tensor) -> Tensor:
        return x**3 / 8

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        step.save(x)
        return x**3 / 8

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        (x,) = step.saved
        return grad.mul_(x**2).mul_(3 / 8)


class GivesWhatItSaved(Cubed):
    """It saves the buffer that it gives, and the mask is written into that."""

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        step.save(x)
        return x.pow_(3).div_(8)


class KeepsABuffer(Cubed):
    """It keeps the buffer past `TileStep.save`, so that nobody notices but the comparison."""

    def tile(self, x: Tensor, step: TileStep) -> Tensor:
        self.kept = x
        return x.pow_(3).div_(8)

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        return grad.mul_(self.kept**2).mul_(3 / 8)


class Overwrites(Softmax):
    """Writes to the weights that it saved for its gradient."""

    def tile_gradient(self, grad: Tensor, step: TileStep) -> Tensor:
        step.saved[0].zero_()
        return super().tile_gradient(grad, step)


def compared(modifier: Modifier) -> None:
    request, read = request_of(CASES["a bias"])
    request = request._replace(spec=ScoreSpec(0.7, (modifier,)))
    torch.testing.assert_close(gradients("tiles", request, read), gradients("explicit", request, read))


def test_a_modifier_of_ones_own_is_the_same_by_tiles() -> None:
    compared(Cubed())


def test_a_buffer_that_was_saved_and_overwritten_is_told() -> None:
    with pytest.raises(RuntimeError, match="cubed: a buffer that it saved for its gradient was overwritten"):
        compared(GivesWhatItSaved())
    with pytest.raises(RuntimeError, match="softmax: a buffer that it saved for its gradient was overwritten"):
        compared(Overwrites())


def test_a_buffer_that_was_kept_in_secret_makes_a_difference() -> None:
    with pytest.raises(AssertionError, match="not close"):
        compared(KeepsABuffer())


def test_dropout_leaves_the_weights_that_the_softmax_saved() -> None:
    request, read = request_of(CASES["causal"])
    request = request._replace(spec=ScoreSpec(0.7, (Dropout(0.3),)))

    def result() -> Tensor:
        torch.manual_seed(3)
        return table.run("tiles", request)[0]

    out = result()
    grads = torch.autograd.grad(out.sum(), read)
    steps = [1e-6 * torch.randn_like(x) for x in read]

    def moved(sign: int) -> Any:
        with torch.no_grad():
            q, k, v = (x + sign * step for x, step in zip(read, steps, strict=True))
            torch.manual_seed(3)
            return table.run("tiles", request._replace(q=q, k=k, v=v))[0].sum()

    expected = sum((grad * step).sum() for grad, step in zip(grads, steps, strict=True))
    torch.testing.assert_close((moved(1) - moved(-1)) / 2, expected, rtol=1e-6, atol=1e-12)


# What stays after a pass ---------------------------------------------------------------------------------------------


def test_nothing_of_a_pass_stays_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of single queries, masks and blocks of FlexAttention go with the masks of their pass."""
    monkeypatch.setattr("xt_blocks.kernels.onednn.BEATS_MKL", True)
    eager = replace(sdpa.KERNEL, declines=lambda request: "one query" if request.mask.queries == 1 else None)
    monkeypatch.setattr(table, "KERNELS", tuple(eager if k is sdpa.KERNEL else k for k in table.KERNELS))
    made: list[int] = []
    init = AttentionMask.__init__
    monkeypatch.setattr(AttentionMask, "__init__", lambda self, *args, **kw: made.append(1) or init(self, *args, **kw))
    stack = xt_blocks.Decoder(dim=24, depth=2, heads=3, attn_dim_head=8, rel_pos_bias=True)
    model = xt_blocks.AutoregressiveWrapper(
        xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=64, attn_layers=stack)
    )
    model.generate(torch.zeros(2, 3, dtype=torch.long), 40)
    gc.collect()
    assert len(made) >= 40
    assert not [one for one in gc.get_objects() if type(one) is AttentionMask]


def test_the_model_is_left_as_it_was_found() -> None:
    model = xt_blocks.Decoder(dim=24, depth=2, heads=2)
    before = {name: {*vars(module)} for name, module in model.named_modules()}
    xt_blocks.why(model, torch.randn(1, 7, 24))
    with pytest.raises(ValueError, match="mask must be"):
        xt_blocks.why(model, torch.randn(1, 7, 24), mask=torch.ones(1, 6, dtype=torch.bool))
    assert {name: {*vars(module)} for name, module in model.named_modules()} == before
