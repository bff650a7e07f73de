"""Time and memory by block: of layers that take a known time by a clock of ours and keep known bytes, and of the whole
pass."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import blockdsl
from blockdsl import UserError
from xt_blocks import lower, profile
from xt_blocks.measure import clock, example_call
from xt_blocks.measure.inputs import Call

FORWARD, BACKWARD, KEPT = 0.02, 0.04, 12_345
SIZES: dict[str, Any] = {"dim": 8, "heads": 1, "attn_dim_head": 8}
QUICK: dict[str, Any] = {"batch": 2, "seq_len": 4, "repeats": 3, "warmup": 1}


class Clock:
    """Goes on where a layer says so, and hardly elsewhere, so that no test depends on the machine."""

    now = 0.0

    @classmethod
    def read(cls) -> float:
        cls.now += 1e-12
        return cls.now


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=Clock.read))


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, times: int) -> torch.Tensor:
        ctx.times = times
        ctx.save_for_backward(torch.zeros(KEPT, dtype=torch.uint8))
        Clock.now += times * FORWARD
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        Clock.now += ctx.times * BACKWARD
        return grad, None


def slow(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
    """A hook that takes as long as a Sleeper."""
    return _Sleep.apply(out, 1)


class Sleeper(nn.Module):
    """A layer that takes a known time and keeps known bytes."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: torch.Tensor, **inputs: Any) -> torch.Tensor:
        return _Sleep.apply(x, self.times)


def sleeping(pattern: str, **times: int) -> Any:
    """The stack of a pattern in which some blocks sleep, so many times as long as others."""
    stack = lower(blockdsl.compile(pattern, **SIZES))
    for node, each in times.items():
        stack.blocks[node].layer = Sleeper(each)
    return stack


@pytest.mark.usefixtures("_clock")
@pytest.mark.parametrize("pattern", ["a f a f", "a & f & (a f)", "a f(checkpoint=block) a f"])
def test_a_block_takes_as_long_as_it_sleeps_and_keeps_what_it_saves(pattern: str) -> None:
    stack = sleeping(pattern, f1=1, f3=2)
    checkpointed = "checkpoint" in pattern
    found = profile(stack, **QUICK)
    for node, times in (("f1", 1), ("f3", 2)):
        forward, backward = found["forward"].values[node], found["backward"].values[node]
        assert forward == pytest.approx(times * FORWARD)
        again = FORWARD if checkpointed and node == "f1" else 0  # it is computed again
        assert backward == pytest.approx(times * BACKWARD + again)
        assert found["time"].values[node] == forward + backward
    others = [node for node in found["time"].values if node not in ("f1", "f3")]
    assert {"a0", "a2", "input", "output"} <= {*others}
    assert all(found["time"].values[node] < FORWARD for node in others)
    whole = found.facts["whole"]
    assert whole["forward"] == pytest.approx(3 * FORWARD)
    assert whole["explained"] == pytest.approx(1)
    if checkpointed:
        assert found["saved"].values["f1"] == 2 * 4 * 8 * 4, "the stream alone, float32"
    else:
        assert KEPT <= found["saved"].values["f1"] < KEPT + 2_000


def test_saved_bytes_are_counted_once_and_without_weights() -> None:
    """By hand: LayerNorm keeps x, the mean and the inverse deviation of each token; Linear keeps what it reads, GELU
    too, (2, 4, features) float32 each."""
    stack = lower(blockdsl.compile("f f", dim=8, ff_mult=2))
    found = profile(stack, **QUICK)
    tokens = 2 * 4
    layer_norm, hidden = 4 * tokens * (8 + 1 + 1), 4 * tokens * 16
    assert found["saved"].values["f0"] == layer_norm + 4 * tokens * 8 + 2 * hidden
    assert found["saved"].values["f1"] == found["saved"].values["f0"]


def test_what_two_operations_keep_is_counted_once() -> None:
    """GLU keeps views of what one layer made, attention keeps what it reads of one product."""
    graph = blockdsl.compile("a(talking_heads) f(glu) a", dim=8, heads=2)
    stack, x = lower(graph).train(), torch.randn(2, 4, 8, requires_grad=True)
    weights, kept = {p.untyped_storage().data_ptr() for p in stack.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = stack(x).square().mean()  # what is trained by where a pass gives no number
    expected = sum(size for place, size in kept.items() if place not in weights)
    assert loss.requires_grad
    assert sum(profile(stack, x)["saved"].values.values()) == expected


@pytest.mark.usefixtures("_clock")
def test_tied_blocks_count_for_each_call_in_the_order_of_the_plan() -> None:
    found = profile(sleeping("f@x a f@x", f0=1), **QUICK)
    assert [*found["forward"].values] == ["input", "f0", "a1", "f2", "output"]
    assert found["forward"].values["f0"] == pytest.approx(FORWARD)
    assert found["forward"].values["f2"] == pytest.approx(FORWARD)
    assert found["forward"].values["a1"] < FORWARD / 2


@pytest.mark.usefixtures("_clock")
def test_the_embedding_and_the_head_have_their_own_time() -> None:
    model = lower(blockdsl.compile("a f", **SIZES, causal=True, num_tokens=20, max_seq_len=8))
    table, head = model.token_emb, model.to_logits
    table.register_forward_hook(slow)
    found = profile(model, **QUICK)
    assert found["forward"].values["input"] == pytest.approx(FORWARD)
    assert found["backward"].values["input"] == pytest.approx(BACKWARD)
    head.register_forward_hook(slow)
    found = profile(model, **QUICK)
    assert found["backward"].values["output"] == pytest.approx(BACKWARD)
    assert found["time"].values["a0"] < FORWARD


@pytest.mark.usefixtures("_clock")
def test_two_streams() -> None:
    graph = blockdsl.compile("a f => a c", dim=8, num_tokens=20, max_seq_len=12)
    model = lower(graph)
    model.encoder.attn_layers.blocks["f1"].layer = Sleeper()
    model.encoder.attn_layers.norm.register_forward_hook(slow)
    model.decoder.net.token_emb.register_forward_hook(slow)
    found = profile(model, **QUICK, context_len=6)
    for node in ("encoder.f1", "encoder.output", "decoder.input"):
        assert found["forward"].values[node] == pytest.approx(FORWARD)
        assert found["backward"].values[node] == pytest.approx(BACKWARD)
    names = [f"encoder.{node}" for node in ("input", "a0", "f1", "output")]
    assert [*found["forward"].values] == [*names, *(f"decoder.{node}" for node in ("input", "a0", "c1", "output"))]
    assert found.facts["context_len"] == 6
    assert sum(found["flops"].values.values()) == graph.flops(4, 2, context_len=6)


@pytest.mark.usefixtures("_clock")
def test_the_median_counts_and_what_is_before_does_not() -> None:
    stack = sleeping("a f", f1=1)
    layer, lasts = stack.blocks["f1"].layer, iter([1000, 1, 1, 50, 50, 1, 1, 1])
    layer.register_forward_pre_hook(lambda layer, args: setattr(layer, "times", next(lasts)))
    found = profile(stack, **{**QUICK, "warmup": 1, "repeats": 3})
    assert [*lasts] == [], "a pass before, three of two kinds by turns, and one for what is saved"
    assert found.facts["whole"]["forward"] == pytest.approx(FORWARD)
    assert found["forward"].values["f1"] == pytest.approx(FORWARD)
    assert found["backward"].values["f1"] == pytest.approx(BACKWARD)


@pytest.mark.parametrize(("precision", "weights", "computes"), [
    ("fp32", torch.float32, "fp32"),
    ("bf16", torch.float32, "bf16"),
    ("fp32", torch.bfloat16, "bf16"),
    ("fp32", torch.float64, "float64"),
])  # fmt: skip
def test_it_is_said_in_which_type_blocks_compute(precision: str, weights: torch.dtype, computes: str) -> None:
    stack = lower(blockdsl.compile("a f", **SIZES)).to(weights)
    linear = next(each for each in stack.blocks["f1"].modules() if isinstance(each, nn.Linear))
    seen: list[tuple[torch.dtype, bool]] = []
    linear.register_forward_hook(lambda layer, args, out: seen.append((out.dtype, layer.weight.grad is None)))
    found = profile(stack, torch.randn(2, 4, 8, dtype=weights), repeats=2, warmup=1, precision=precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(computes, weights)
    assert {*seen} == {(dtype, True)}, "each pass starts without gradients"
    assert found.facts["precision"] == computes
    assert f"{computes} on cpu" in found["time"].note


def test_rates_are_held_against_the_peak_of_a_known_device(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"fp32": (2e9, "Abacus, as published"), "bf16": (4e9, "Abacus, as published")}
    module = import_module("xt_blocks.measure.profile")  # the function has the same name
    monkeypatch.setattr(module, "published_peak", lambda device, precision: known[precision])
    for precision, (peak, _) in known.items():
        found = profile(blockdsl.compile("a f", **SIZES), **QUICK, precision=precision)
        for node, rate in found["rate"].values.items():
            assert found["of_peak"].values[node] == pytest.approx(100 * rate / peak)
        assert found["of_peak"].note == f"of {peak / 1e12} TFLOP/s, Abacus, as published"


@pytest.mark.usefixtures("_clock")
def test_what_is_between_blocks_is_of_none() -> None:
    """A hook that was there before runs before the block begins."""
    stack = sleeping("a f a")
    stack.blocks["f1"].register_forward_pre_hook(lambda block, args: (_Sleep.apply(args[0], 1), *args[1:]))
    found = profile(stack, **QUICK)
    assert found.facts["whole"]["between"] == pytest.approx(FORWARD + BACKWARD)
    assert found.facts["whole"]["explained"] < 0.01
    assert all(seconds < FORWARD / 2 for seconds in found["time"].values.values())


def test_reads_take_time_too() -> None:
    reads = profile(lower(blockdsl.compile("^u a f <u(gain) a", **SIZES)), **QUICK)
    assert reads["time"].values["read0"] > 0


def test_flops_are_those_of_the_costs_and_rates_follow() -> None:
    graph = blockdsl.compile("a f", **SIZES, causal=True, num_tokens=20, max_seq_len=8)
    found = profile(graph, **QUICK)
    assert sum(found["flops"].values.values()) == graph.flops(4, 2)
    for node in ("a0", "f1"):
        expected = 3 * found["flops"].values[node] / found["time"].values[node]
        assert found["rate"].values[node] == pytest.approx(expected)
    assert "of_peak" not in found.by_name, "a CPU is in no table"
    forward = profile(graph, **QUICK, backward=False)
    assert [*forward.by_name] == ["time", "flops", "rate"]
    assert forward["rate"].values["f1"] == pytest.approx(forward["flops"].values["f1"] / forward["time"].values["f1"])
    assert forward.facts["whole"]["backward"] == 0


def test_the_model_is_as_it_was_before() -> None:
    model = lower(blockdsl.compile("a f", **SIZES, causal=True, num_tokens=20, max_seq_len=8, ff_dropout=0.5)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad = torch.ones_like(model.token_emb.weight)
    model.token_emb.weight.grad = grad
    state = torch.get_rng_state()
    profile(model, **QUICK)
    assert model.token_emb.weight.grad is grad
    assert all(w.grad is None for name, w in model.named_parameters() if name != "token_emb.weight")
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    profile(model.graph, **QUICK)
    assert torch.equal(torch.get_rng_state(), state), "weights of a graph's model are drawn from the seed"


def test_the_pass_computes_what_it_does_without_being_watched() -> None:
    from xt_blocks.measure.owners import Owners
    from xt_blocks.measure.stacks import stacks_of

    for pattern in ("a & f | a>>1 f/2", "^u a f <u(cat) a", "a@x f a@x", "a f(checkpoint=stage) a"):
        torch.manual_seed(0)
        stack = lower(blockdsl.compile(pattern, **SIZES, num_residual_streams=1))
        x = torch.randn(2, 4, 8)
        grads = []
        for watched in (False, True):
            stack.zero_grad()
            owners = Owners(stacks_of(stack), lambda owner: None)
            if watched:
                with owners.hooked():
                    loss = stack(x).square().mean()
                    owners.begin_backward(lambda owner: None)
                    loss.backward()
            else:
                stack(x).square().mean().backward()
            grads.append([weight.grad.clone() for weight in stack.parameters()])
        assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True)), pattern


@pytest.mark.parametrize(
    ("pattern", "settings", "kinds"),
    [
        ("a f", {"num_tokens": 20, "max_seq_len": 8, "causal": True}, ["int64"]),
        ("a f", {"num_tokens": 20, "max_seq_len": 8}, ["int64"]),
        ("a f", {"num_tokens": 20, "max_seq_len": 8, "pool": "mean"}, ["int64"]),
        ("a f", {"dim_in": 3, "dim_out": 5, "max_seq_len": 8}, ["float32"]),
        ("a f", {"image_size": 16, "patch_size": 4, "num_classes": 3}, ["float32"]),
        ("a c f", {}, ["float32"]),
        ("a f", {"dim_condition": 6, "use_adaptive_layernorm": True}, ["float32"]),
        ("a f => a c f", {}, ["float32", "float32"]),
        ("a f => a c f", {"num_tokens": 20, "max_seq_len": 8}, ["int64", "int64"]),
    ],
)
def test_random_inputs_are_what_the_model_reads(pattern: str, settings: dict[str, Any], kinds: list[str]) -> None:
    call = example_call(lower(blockdsl.compile(pattern, **SIZES, **settings)), batch=2, seq_len=4)
    assert isinstance(call, Call)
    assert [str(x.dtype).removeprefix("torch.") for x in call.args] == kinds
    assert call.loss().ndim == 0


def test_what_writes_text_reads_one_token_more_than_it_predicts() -> None:
    tokens = {"num_tokens": 20, "max_seq_len": 8}
    for pattern, length in (("set causal; a f", 5), ("a f", 4), ("a f => a c", 5)):
        model = lower(blockdsl.compile(pattern, dim=8, **tokens))
        assert example_call(model, batch=2, seq_len=4).args[-1].shape == (2, length)


@pytest.mark.usefixtures("_clock")
def test_a_call_of_ones_own_is_measured_as_it_is() -> None:
    stack = sleeping("a f", f1=1)
    found = profile(stack, torch.randn(2, 4, 8), repeats=2, warmup=0)
    assert found["forward"].values["f1"] == pytest.approx(FORWARD)
    assert profile(stack, torch.randn(2, 4, 8), return_hiddens=True, repeats=1)["time"].values.keys() == {
        *found["time"].values
    }, "of several results the first counts"
    assert "flops" not in found.by_name
    assert "seq_len" not in found.facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats must be a whole number of at least 1, not 0"),
        ({"batch": 0}, "batch must be a whole number of at least 1, not 0"),
        ({"precision": "fp8"}, "precision must be 'fp32' or 'bf16', not 'fp8'"),
        ({"seq_len": 9}, "seq_len=9 is more than max_seq_len=8"),
    ],
)
def test_what_cannot_be_measured(options: dict[str, Any], message: str) -> None:
    graph = blockdsl.compile("a f", **SIZES, num_tokens=20, max_seq_len=8)
    with pytest.raises(UserError, match=message):
        profile(graph, **options)


def test_the_seed_is_of_the_weights_and_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watched(graph: blockdsl.BlockGraph) -> Any:
        model = lower(graph)
        weight = next(each for each in model.parameters() if each.ndim == 2).detach().clone()
        model.register_forward_pre_hook(lambda model, args: seen.append((weight, args[0].detach().clone())))
        return model

    monkeypatch.setattr(import_module("xt_blocks.measure.profile"), "lower", watched)
    for seed in (1, 1, 2):
        profile(blockdsl.compile("f", **SIZES), batch=1, seq_len=4, repeats=1, warmup=0, backward=False, seed=seed)
    first, again, other = seen[0], seen[len(seen) // 3], seen[-1]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_a_mistyped_argument_and_what_is_no_model_of_blocks_are_refused() -> None:
    with pytest.raises(TypeError, match=r"profile\(\) got an unknown argument 'repeat'; did you mean 'repeats'\?"):
        profile(blockdsl.compile("a f", **SIZES), repeat=3)
    with pytest.raises(UserError, match="Identity has no stack of blocks: give a model that lower or a wrapper made"):
        profile(nn.Identity())
