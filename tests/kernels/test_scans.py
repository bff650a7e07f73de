"""Chunked scans against the recurrence written out token by token: outputs, last states, and gradients, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockdsl.registry.scan import delta_flops, linear_attention_flops
from xt_blocks.kernels.scans import decay
from xt_blocks.kernels.scans.delta import delta_rule
from xt_blocks.kernels.scans.gla import gated_linear_attention

D, E = 6, 5
Scan = Callable[..., tuple[Tensor, Tensor]]


def by_hand(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 10 of arXiv:2412.06464, the state transposed; without β, each value is added as it is."""
    out = []
    for t in range(q.shape[2]):
        state = state * g[:, :, t, :, None].exp()
        new = v[:, :, t]
        if beta is not None:
            new = beta[:, :, t, None] * (new - torch.einsum("bhde,bhd->bhe", state, k[:, :, t]))
        state = state + torch.einsum("bhd,bhe->bhde", k[:, :, t], new)
        out.append(torch.einsum("bhde,bhd->bhe", state, q[:, :, t]))
    return torch.stack(out, 2), state


def drawn(seq: int, features: int, strength: float, delta: bool) -> list[Tensor]:
    """q, k, v, g, with `delta` β, and the state before."""
    torch.manual_seed(seq)
    q, k = (F.normalize(torch.randn(2, 3, seq, D, dtype=torch.float64), dim=-1) for _ in "qk")
    v, state = torch.randn(2, 3, seq, E, dtype=torch.float64), torch.randn(2, 3, D, E, dtype=torch.float64)
    g = -strength * torch.rand(2, 3, seq, features, dtype=torch.float64)
    g[:, :, ::3] *= 1e-3  # weak decays beside strong ones
    beta = [2 * torch.rand(2, 3, seq, dtype=torch.float64)] if delta else []
    return [q, k, v, g, *beta, state]


def recurrence(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v, g, *beta, state = inputs
    return by_hand(q, k, v, g, beta[0] if beta else None, state)


SCANS = pytest.mark.parametrize("scan", [delta_rule, gated_linear_attention])
FEATURES = pytest.mark.parametrize("features", [1, D], ids=["by head", "by channel"])


@SCANS
@FEATURES
@pytest.mark.parametrize("segment", [1, 2 * 3 * D * 24, 2**18])
@pytest.mark.parametrize(("seq", "chunk"), [(1, 64), (2, 64), (7, 2), (19, 8), (33, 8), (70, 64)])
def test_a_scan_is_its_recurrence(
    scan: Scan, features: int, seq: int, chunk: int, segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decay, "SEGMENT", segment)
    for strength in 0.3, 25.0:
        given = drawn(seq, features, strength, scan is delta_rule)
        results = []
        for run in recurrence, lambda *inputs: scan(*inputs, chunk=chunk):
            leaves = [t.clone().requires_grad_() for t in given]
            out, state = run(*leaves)
            results.append([out, state, *torch.autograd.grad(out.sin().sum() + state.cos().sum(), leaves)])
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-11)


@SCANS
@FEATURES
def test_strong_decays_are_exact_in_float32(scan: Scan, features: int) -> None:
    given = [t.float() for t in drawn(150, features, 40.0, scan is delta_rule)]
    want = recurrence(*(t.double() for t in given))
    for got, exact in zip(scan(*given), want, strict=True):
        torch.testing.assert_close(got.double(), exact, rtol=2e-5, atol=2e-6)
    forgets = [*given[:3], torch.full_like(given[3], -torch.inf), *given[4:]]  # nothing before a token counts
    leaves = [t.requires_grad_() for t in forgets]
    out, state = scan(*leaves)
    torch.testing.assert_close(state[:, :, 0, 0], (leaves[1][:, :, -1, 0] * added(leaves)[:, :, -1, 0]))
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum() + state.sum(), leaves[:3]))


def added(inputs: list[Tensor]) -> Tensor:
    """What tokens add to an empty state beside their keys."""
    v, beta = inputs[2], inputs[4:-1]
    return v * beta[0][..., None] if beta else v


@SCANS
@FEATURES
def test_a_scan_goes_on_from_a_state_and_past_padding(scan: Scan, features: int) -> None:
    q, k, v, g, *rest = drawn(23, features, 3.0, scan is delta_rule)
    *beta, state = rest
    tokens = [q, k, v, g, *beta]
    whole, last = scan(*tokens, state)
    parts = []
    for start, stop in (0, 9), (9, 10), (10, 23):
        part = [t[:, :, start:stop] for t in tokens]
        out, state = scan(*part, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 2), whole)
    torch.testing.assert_close(state, last)
    for i in (3, 4) if beta else (1, 3):  # padding: no decay, and nothing is added
        tokens[i] = F.pad(tokens[i][:, :, :11], (0, 12) if tokens[i].ndim == 3 else (0, 0, 0, 12))
    torch.testing.assert_close(scan(*tokens, rest[-1])[1], scan(*(t[:, :, :11] for t in tokens), rest[-1])[1])


@SCANS
@FEATURES
def test_states_and_decays_are_float32_at_least(scan: Scan, features: int) -> None:
    given = drawn(20, features, 1.0, scan is delta_rule)
    halves = [t.bfloat16() for t in given]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = scan(*halves)
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    want = scan(*(t.float() for t in halves))
    torch.testing.assert_close(state, want[1])
    torch.testing.assert_close(out, want[0].bfloat16())
    assert scan(*given)[1].dtype == torch.float64


@SCANS
@FEATURES
@pytest.mark.parametrize("seq", [5, 70])
def test_counted_operations(scan: Scan, features: int, seq: int) -> None:
    """The counter leaves out the triangular solve, d + e right sides a chunk, and the decays' sums."""
    given = drawn(seq, features, 1.0, scan is delta_rule)
    with FlopCounterMode(display=False) as counter:
        scan(*given)
    size = 8 if seq == 5 else 64
    solved = -(-seq // size) * size**2 * (D + E) if scan is delta_rule else 0
    flops = delta_flops if scan is delta_rule else linear_attention_flops
    assert 2 * 3 * (flops(seq, D, E, features > 1) - solved) == counter.get_total_flops()


@SCANS
@FEATURES
def test_memory_is_linear_in_the_tokens(scan: Scan, features: int) -> None:
    def kept(seq: int) -> int:
        sizes = []
        leaves = [t.requires_grad_() for t in drawn(seq, features, 1.0, scan is delta_rule)]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            scan(*leaves)
        return sum(sizes)

    assert kept(512) <= 2.02 * kept(256)
