"""Other libraries' GPU kernels as far as a CPU can show: what they are called with, and why they are not taken.

Each call is computed by the recurrence in the layout that the library documents, and, where flash-linear-attention is
installed, by its own plain functions and against the signatures of its kernels.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks.blocks.causal_conv import causal_conv
from xt_blocks.kernels.scans import gpu
from xt_blocks.kernels.scans.delta import delta_rule
from xt_blocks.kernels.scans.gla import gated_linear_attention
from xt_blocks.kernels.scans.ssd import plain_ssd, ssd

D, E, HEADS, SEQ = 5, 3, 4, 11
NAIVE = {
    "chunk_gated_delta_rule": ("gated_delta_rule", "naive_recurrent_gated_delta_rule"),
    "chunk_kda": ("kda", "naive_recurrent_kda"),
    "chunk_gla": ("gla", "naive_recurrent_gla"),
    "chunk_simple_gla": ("simple_gla", "naive_recurrent_simple_gla"),
}


def drawn(features: int, delta: bool) -> gpu.ScanRequest:
    torch.manual_seed(features)
    q, k = (F.normalize(torch.randn(2, HEADS, SEQ, D), dim=-1) for _ in "qk")
    v, state = torch.randn(2, HEADS, SEQ, E), torch.randn(2, HEADS, D, E)
    g, beta = -torch.rand(2, HEADS, SEQ, features), torch.rand(2, HEADS, SEQ) if delta else None
    return gpu.ScanRequest(q, k, v, g, beta, state)


def recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor,
    output_final_state: bool,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As a kernel is documented: (batch, seq, heads, features), and a state (batch, heads, d, e)."""
    assert output_final_state
    assert q.shape == k.shape == (2, SEQ, HEADS, D)
    assert v.shape == (2, SEQ, HEADS, E)
    assert all(t.is_contiguous() for t in (q, k, v, g, initial_state))
    state, out = initial_state, []
    for t in range(SEQ):
        decay = g[:, t].exp()
        state = state * (decay[..., None, None] if decay.ndim == 2 else decay[..., None])
        new = v[:, t]
        if beta is not None:
            new = beta[:, t, :, None] * (new - torch.einsum("bhd,bhde->bhe", k[:, t], state))
        state = state + k[:, t, :, :, None] * new[:, :, None]
        out.append(scale * torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return torch.stack(out, 1), state


def taken(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> list[tuple[str, str]]:
    """The kernels are there, and all of them are this function; which were asked for."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(gpu, "_refuses", lambda *_: None)
    monkeypatch.setattr(gpu, "found", lambda module, name: asked.append((module, name)) or function)
    return asked


SCANS = pytest.mark.parametrize(
    ("features", "delta", "kernel"),
    [
        (1, True, "fla.ops.gated_delta_rule chunk_gated_delta_rule"),
        (D, True, "fla.ops.kda chunk_kda"),
        (D, False, "fla.ops.gla chunk_gla"),
        (1, False, "fla.ops.simple_gla chunk_simple_gla"),
    ],
)


@SCANS
def test_scans_call_the_kernel_as_it_is_documented(
    features: int, delta: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = drawn(features, delta)
    inputs: list[Any] = [t for t in scan if t is not None]
    run: Any = delta_rule if delta else gated_linear_attention
    want, none = run(*inputs), run(*inputs[:-1])
    asked = taken(monkeypatch, recurrence)
    torch.testing.assert_close(run(*inputs), want)
    assert asked == [tuple(kernel.split())]
    zeros = lambda initial_state, **given: recurrence(initial_state=torch.zeros(2, HEADS, D, E), **given)  # noqa: E731
    taken(monkeypatch, zeros)
    torch.testing.assert_close(run(*inputs[:-1]), none)
    one = [t[:, :, :1] for t in inputs[:-1]]
    assert gpu.refuses(gpu.ScanRequest(*one, *() if delta else (None,))) == "a single token is the recurrence itself"


@SCANS
def test_signatures_and_plain_functions_of_flash_linear_attention(features: int, delta: bool, kernel: str) -> None:
    pytest.importorskip("fla")
    scan = drawn(features, delta)
    module, name = kernel.split()
    given: dict[str, Any] = {}
    gpu_found, naive = gpu.found, getattr(importlib.import_module(f"{module}.naive"), NAIVE[name][1])

    def plain(**call: Any) -> Any:
        given.update(call)
        if name == "chunk_gla":  # whose plain function has another name for g, and a fixed scale
            call["gk"] = call.pop("g")
            call["q"] = call["q"] * call.pop("scale") * D**0.5
        return naive(**call)

    try:
        gpu.found = lambda *_: plain  # type: ignore[assignment]
        out, state = gpu.run(scan)
    finally:
        gpu.found = gpu_found
    inspect.signature(getattr(importlib.import_module(module), name)).bind(**given)
    inputs: list[Any] = [t for t in scan if t is not None]
    want: Any = (delta_rule if delta else gated_linear_attention)(*inputs)
    torch.testing.assert_close((out, state.float()), want, rtol=1e-4, atol=1e-5)


def test_mamba_2_is_gated_linear_attention_by_head(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, a, state = torch.randn(2, SEQ, HEADS, E), -torch.rand(2, SEQ, HEADS), torch.randn(2, HEADS, E, D)
    b, c = torch.randn(2, SEQ, 2, D), torch.randn(2, SEQ, 2, D)
    want = plain_ssd(x, a, b, c, state, 4)
    asked = taken(monkeypatch, recurrence)
    monkeypatch.setattr(Tensor, "is_cpu", False)
    torch.testing.assert_close(ssd(x, a, b, c, state), want)
    assert asked == [("fla.ops.simple_gla", "chunk_simple_gla")]


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, initial_states: Tensor) -> Tensor:
    """As causal-conv1d documents it: (batch, features, seq), features next to each other in memory."""
    assert x.stride(1) == initial_states.stride(1) == 1
    assert weight.ndim == 2
    return F.conv1d(torch.cat((initial_states, x), -1), weight[:, None], bias, groups=x.shape[1])


@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_calls_its_kernel(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, tail, weight = torch.randn(2, 7, 24)[..., :16], torch.randn(2, 3, 16), torch.randn(16, 1, 4)
    given = x, tail, weight, torch.randn(16) if bias else None
    want = causal_conv(*given)
    asked = taken(monkeypatch, convolution)
    monkeypatch.setattr(Tensor, "is_cpu", False)
    torch.testing.assert_close(causal_conv(*given), want)
    assert asked == [gpu.CONVOLUTION]
    assert gpu.refuses_convolution(x[..., :15], weight[:15]) is not None
    assert gpu.refuses_convolution(x, torch.randn(16, 1, 5)) is not None
    assert gpu.refuses_convolution(x.bfloat16(), weight) == "weights of another type"


def test_why(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fla.ops.kda.chunk_kda"
    assert gpu.why(drawn(D, True)) == f"ours is taken\n  {name}: tensors on cpu"
    monkeypatch.setattr(Tensor, "is_cuda", True)
    assert gpu.why(drawn(D, True)) == f"ours is taken\n  {name}: float32 is computed exactly by ours"
    halves = drawn(D, True)._replace(v=torch.randn(2, HEADS, SEQ, E).bfloat16())
    monkeypatch.setattr(gpu, "found", lambda *_: None)
    assert gpu.why(halves) == f"ours is taken\n  {name}: fla.ops.kda is not installed, or does not load"
    monkeypatch.setattr(gpu, "found", lambda *_: recurrence)
    assert gpu.why(halves) == f"{name} is taken"
    monkeypatch.setattr(gpu, "ENABLED", False)
    assert gpu.why(halves) == f"ours is taken\n  {name}: it is turned off"


def test_what_is_not_there_is_looked_up_once() -> None:
    assert gpu.found("no_such_library", "function") is None
    assert gpu.found("math", "no_such_function") is None
