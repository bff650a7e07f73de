"""The time and the memory of each block, forward and backward, in passes of the whole model.

    print(profile(blockdsl.compile("(a f)*12", dim=512, causal=True, num_tokens=256, max_seq_len=512)))

Blocks are timed where they run and not by themselves, so that their times and what is between them add up to the pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from blockdsl.errors import UserError
from blockdsl.graph.costs import node_costs, sizes
from blockdsl.measurement import Measurement
from blockdsl.measurements import Measurements
from blockdsl.registry.options import check_names, whole

from .. import lower
from ..runtime.devices import device_of
from ..train.device import published_peak
from .clock import Stopwatch, timed
from .inputs import Call, example_call
from .memory import Peaks, SavedBytes
from .owners import BETWEEN, Owners
from .seeded import seeded
from .stacks import OneStack, stacks_of

if TYPE_CHECKING:
    from blockdsl import BlockGraph

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def profile(
    model: nn.Module | BlockGraph,
    *args: Any,
    batch: int = 8,
    seq_len: int | None = None,
    context_len: int | None = None,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    backward: bool = True,
    repeats: int = 10,
    warmup: int = 3,
    seed: int = 0,
    **kwargs: Any,
) -> Measurements:
    """The time and the memory of each block and read, of the embedding and of the head, in training.

    Tied blocks count for each call. What is `model(*args, **kwargs)` is one pass, and if that is no number, the mean of
    its squares is its loss. Without them inputs are random, of the given sizes; a language model then predicts each
    next token. Weights, their gradients, the model's mode and torch's random numbers are as before afterwards.

    Args:
        model: a model with stacks; or a graph, of which one with random weights is made.
        batch, seq_len, context_len: rows, tokens in each (None: 256, or as many as the model reads), and tokens of the
            context or the source (None: as many).
        device: where a graph's model runs; a model stays where it is.
        precision: "fp32" for the weights' own type; "bf16": passes compute in bfloat16 where that is safe
            (torch.autocast).
        backward: the backward pass too, in training mode; without it, in evaluation mode and without gradients.
        repeats, warmup: passes that are measured, of which the median counts, and passes before them.
        seed: of the weights of a graph's model, of the inputs and of dropout.

    Returns:
        by node, in seconds `time`, the sum of `forward` and `backward`; in bytes `saved`, what autograd keeps from the
        forward pass to the backward pass, and on a GPU `peak`, the most memory in use while it ran; `flops` of the
        forward pass, `rate`, FLOP/s of both passes, and on a GPU that is known `of_peak`, their share of its best, in
        percent. Facts of the `whole`, in seconds: `forward` and `backward` of passes in which nothing is measured, what
        is `between` blocks, and `explained`, the share of the former that the nodes add up to.

    Raises:
        TypeError: an unknown argument; the message has the nearest.
        UserError: an argument is out of range, there is no such device, or the model has no stack.
    """
    whole("repeats", repeats, 1)
    whole("warmup", warmup)
    if precision not in PRECISIONS:
        raise UserError(f"precision must be 'fp32' or 'bf16', not {precision!r}")
    if not isinstance(model, nn.Module):
        place = device_of("cpu" if device is None else device)
        with seeded(seed):
            model = lower(model).to(place)
    elif device is not None:
        raise UserError("device= is of a graph's model; this one stays where it is")
    stacks = stacks_of(model)
    _check_keywords(model, kwargs)
    given = Call(model, args, kwargs) if args or kwargs else example_call(model, batch, seq_len, context_len, seed)
    weight = next(model.parameters())
    place, dtype = weight.device, weight.dtype if precision == "fp32" else PRECISIONS[precision]
    found = _Passes(given, stacks, place, dtype, dtype != weight.dtype, backward)
    with _trained(model, backward), seeded(seed, place):
        for _ in range(warmup):
            found.whole_pass()
        found.measure(repeats)
        saved, peaks = found.memory(model) if backward else ({}, {})
    return _measurements(found, saved, peaks, counted=not (args or kwargs))


def _check_keywords(model: nn.Module, given: Mapping[str, Any]) -> None:
    """Raise TypeError for a keyword that neither this module's function nor the model has: it was mistyped."""
    taken = inspect.signature(model.forward).parameters.values()
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in taken):
        own = inspect.signature(profile).parameters
        check_names(given, [*own, *(each.name for each in taken)], "profile() got an unknown argument")


class _Passes:
    """Passes of one call, with what they took by node."""

    def __init__(
        self,
        call: Call,
        stacks: list[OneStack],
        device: torch.device,
        dtype: torch.dtype,
        autocast: bool,
        backward: bool,
    ) -> None:
        self.call, self.stacks, self.device, self.backward = call, stacks, device, backward
        self.dtype, self.autocast = dtype, autocast
        self.forwards: list[dict[str, float]] = []
        self.backwards: list[dict[str, float]] = []
        self.whole: list[tuple[float, float]] = []

    def _loss(self) -> torch.Tensor:
        grad = nullcontext() if self.backward else torch.no_grad()
        with grad, torch.autocast(self.device.type, self.dtype, enabled=self.autocast):
            return self.call.loss()

    def _back(self, loss: torch.Tensor) -> None:
        if self.backward:
            torch.autograd.backward(loss)
            for weight in self.call.module.parameters():
                weight.grad = None

    def whole_pass(self) -> None:
        """A pass without hooks."""
        forward, loss = timed(self.device, self._loss)
        backward, _ = timed(self.device, lambda: self._back(loss))
        self.whole.append((forward, backward if self.backward else 0.0))

    def measure(self, repeats: int) -> None:
        """Passes without hooks and with them by turns, so that a device that becomes slower does for both."""
        self.whole.clear()
        for _ in range(repeats):
            self.whole_pass()
            forward, backward = Stopwatch(self.device), Stopwatch(self.device)
            owners = Owners(self.stacks, forward.begin)
            with owners.hooked():
                loss = self._loss()
                forward.begin(BETWEEN)
                if self.backward:
                    owners.begin_backward(backward.begin)
                    self._back(loss)
                    backward.begin(BETWEEN)
            self.forwards.append(forward.seconds())
            self.backwards.append(backward.seconds())

    def memory(self, model: nn.Module) -> tuple[dict[str, int], dict[str, int]]:
        """Bytes that each node keeps for the backward pass; and the most in use during each, on a GPU."""
        kept = SavedBytes(model, self.stacks)
        peaks = Peaks(self.device) if self.device.type == "cuda" else None

        def begin(owner: str) -> None:
            kept.begin(owner)
            if peaks is not None:
                peaks.begin(owner)

        owners = Owners(self.stacks, begin, kept.enters)
        with owners.hooked():
            with kept.counted():
                loss = self._loss()
            owners.begin_backward(begin)
            self._back(loss)
            begin(BETWEEN)
        return dict(kept.bytes), {} if peaks is None else peaks.bytes


@contextmanager
def _trained(model: nn.Module, training: bool) -> Iterator[None]:
    """Inside, a mode of the whole model and no gradients of its weights; both are as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    grads = [(weight, weight.grad) for weight in model.parameters()]
    model.train(training)
    for weight, _ in grads:
        weight.grad = None
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, grad in grads:
            weight.grad = grad


def _medians(passes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each owner; one that a pass does not have took no time in it."""
    owners = dict.fromkeys(owner for one in passes for owner in one)
    return {owner: median(one.get(owner, 0.0) for one in passes) for owner in owners}


def _measurements(found: _Passes, saved: dict[str, int], peaks: dict[str, int], counted: bool) -> Measurements:
    forward, backward = _medians(found.forwards), _medians(found.backwards)
    both = {node: forward.get(node, 0.0) + backward.get(node, 0.0) for node in dict.fromkeys((*forward, *backward))}
    call, device, nodes = found.call, _name(found.device), [owner for owner in forward if owner != BETWEEN]
    size = f"{call.batch:,} × {call.seq_len:,} tokens · " if counted else ""
    names = {dtype: name for name, dtype in PRECISIONS.items()}
    precision = names.get(found.dtype, str(found.dtype).removeprefix("torch."))
    once = f"{size}{precision} on {device}"
    note = f"median of {len(found.whole)} passes · {once}"

    def of(name: str, unit: str, values: Mapping[str, float], how: str = note) -> Measurement:
        return Measurement(name, unit, {node: values[node] for node in nodes if node in values}, how)

    by_name = {"time": of("time, forward and backward" if found.backward else "forward time", "s", both)}
    if found.backward:
        by_name["forward"] = of("forward time", "s", forward)
        by_name["backward"] = of("backward time", "s", backward)
        by_name["saved"] = of("saved for backward", "B", {node: saved.get(node, 0) for node in nodes}, once)
    if peaks:
        by_name["peak"] = of("peak of memory in use", "B", peaks, once)
    facts: dict[str, Any] = {"device": device, "precision": precision, "repeats": len(found.whole)}
    if counted:
        facts |= {"batch": call.batch, "seq_len": call.seq_len, "context_len": call.context_len}
        by_name |= _rates(found, {node: both[node] for node in nodes}, size.removesuffix(" · "), precision)
    facts["whole"] = whole = _whole(found, forward, backward)
    graphs = {one.prefix.removesuffix("."): one.graph for one in found.stacks}
    return Measurements(graphs, by_name, facts, (note, *_summary(whole)))


def _rates(found: _Passes, times: Mapping[str, float], size: str, precision: str) -> dict[str, Measurement]:
    """FLOPs of the forward pass by node, and what all passes reached of them in a second; and of the device's best."""
    call, flops = found.call, {}
    for one in found.stacks:
        seq_len = call.context_len if one.prefix == "encoder." else call.seq_len
        for node, cost in node_costs(one.graph, sizes(seq_len, call.batch, call.context_len)):
            flops[one.prefix + node] = cost.flops
    passes = 3 if found.backward else 1  # the backward pass takes twice as many
    rates = {node: passes * flops[node] / time for node, time in times.items() if time > 0 and flops[node]}
    out = {
        "flops": Measurement("forward FLOPs", "", {node: flops[node] for node in times}, size),
        "rate": Measurement("FLOPs a second", "FLOP/s", rates, size),
    }
    if precision in PRECISIONS and (best := published_peak(str(found.device), precision)) is not None:
        peak, source = best
        shares = {node: 100 * rate / peak for node, rate in rates.items()}
        out["of_peak"] = Measurement("share of peak", "%", shares, f"of {peak / 1e12:,.4g} TFLOP/s, {source}")
    return out


def _whole(found: _Passes, forward: Mapping[str, float], backward: Mapping[str, float]) -> dict[str, float]:
    """Seconds of whole passes and between blocks, and the share of the former that nodes explain."""
    passes = dict(zip(("forward", "backward"), map(median, zip(*found.whole, strict=True)), strict=True))
    between = forward.get(BETWEEN, 0.0) + backward.get(BETWEEN, 0.0)
    explained = sum(forward.values()) + sum(backward.values()) - between
    return {**passes, "between": between, "explained": explained / sum(passes.values())}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _summary(whole: Mapping[str, float]) -> Iterator[str]:
    time = Measurement("", "s", {name: whole[name] for name in ("forward", "backward")})
    took = f"{time.said(whole['forward'])} forward"
    took += f" + {time.said(whole['backward'])} backward" if whole["backward"] else ""
    yield f"a whole pass in which nothing is measured takes {took}"
    between = time.said(whole["between"])
    yield f"blocks and both ends explain {whole['explained']:.1%} of that; {between} is between them"
