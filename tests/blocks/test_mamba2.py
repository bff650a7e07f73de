"""Mamba-2 `m`, held to the recurrence of its paper token by token, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, PatternError, UserError
from xt_blocks.blocks import mamba2
from xt_blocks.blocks.mamba2 import Mamba2
from xt_blocks.kernels.scans.ssd import plain_ssd, ssd

from .stateful import SEQ, counted, hold


def graph_of(pattern: str, **settings: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **{"dim": 16, "heads": 2, "attn_dim_head": 8, "causal": True, **settings})


def layer_of(pattern: str, **settings: Any) -> Mamba2:
    """In float64, no parameter at its initial value."""
    torch.manual_seed(0)
    layer = xt_blocks.lower(graph_of(pattern, **settings)).double().blocks["m0"].layer
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    assert isinstance(layer, Mamba2)
    return layer


def recurrence(x: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S[t] = exp(a[t]) S[t-1] + x[t] ⊗ B[t] and y[t] = S[t] C[t], head by head (arXiv:2405.21060)."""
    outs, share, heads = [], x.shape[2] // b.shape[2], range(x.shape[2])
    for t in range(x.shape[1]):
        writes, reads = ([of[:, t, h // share] for h in heads] for of in (b, c))
        new = torch.stack([torch.einsum("bp,bn->bpn", x[:, t, h], writes[h]) for h in heads], dim=1)
        state = a[:, t].exp()[..., None, None] * state + new
        outs.append(torch.stack([torch.einsum("bpn,bn->bp", state[:, h], reads[h]) for h in heads], dim=1))
    return torch.stack(outs, dim=1), state


@pytest.mark.parametrize("scan", [ssd, plain_ssd])
@pytest.mark.parametrize("chunk", [4, 19, 64])
def test_chunks_are_the_recurrence(scan: Any, chunk: int) -> None:
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 19, 4, 3),
        -3 * torch.rand(2, 19, 4),
        *torch.randn(2, 2, 19, 2, 5),
        torch.randn(2, 4, 3, 5),
    ]
    inputs = [t.double().requires_grad_() for t in inputs]
    ours, want = scan(*inputs, chunk), recurrence(*inputs)
    torch.testing.assert_close(ours, want, rtol=1e-10, atol=1e-10)
    factors = [torch.randn_like(t) for t in want]
    gradients = [torch.autograd.grad(outs, inputs, factors) for outs in (ours, want)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_a_strong_decay_neither_overflows_nor_loses_the_last_token() -> None:
    x, b, c = torch.ones(1, 64, 1, 1), torch.ones(1, 64, 1, 1), torch.ones(1, 64, 1, 1)
    a = torch.full((1, 64, 1), -50.0, requires_grad=True)
    y, state = ssd(x, a, b, c, torch.zeros(1, 1, 1, 1), 64)
    y.sum().backward()
    torch.testing.assert_close(y, torch.ones_like(y))
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert state.item() == 1


def by_hand(layer: Mamba2, x: Tensor, *, group: bool, gate_first: bool, scales: Tensor, limit: float) -> Tensor:
    """`x: (seq, dim)`, a layer of 2 groups of 2 heads of 4 features, state 3, kernel 4."""
    given = F.linear(x, layer.to_in.weight, layer.to_in.bias).split((16, 16, 6, 6, 4), dim=-1)
    z, values, b, c, dt = (part * scale for part, scale in zip(given, scales, strict=True))
    mixed = torch.cat((values, b, c), dim=-1)
    taps, outs = layer.conv.weight[:, 0], []
    for t in range(len(x)):
        total = sum(taps[:, 3 - k] * mixed[t - k] for k in range(min(4, t + 1)))
        outs.append(F.silu(total if layer.conv.bias is None else total + layer.conv.bias))
    values, b, c = torch.stack(outs).split((16, 6, 6), dim=-1)
    states, rows = [torch.zeros(4, 3, dtype=x.dtype)] * 4, []
    for t in range(len(x)):
        steps = (1 + (dt[t] + layer.dt_bias).exp()).log().clamp(max=limit)
        decays, of_heads = math.e ** (-layer.A_log.exp() * steps), values[t].view(4, 4)
        writes, reads = b[t].view(2, 3), c[t].view(2, 3)
        states = [decays[h] * states[h] + steps[h] * torch.outer(of_heads[h], writes[h // 2]) for h in range(4)]
        rows.append(torch.cat([states[h] @ reads[h // 2] + layer.D[h] * of_heads[h] for h in range(4)]))
    y, gate = torch.stack(rows), z * z.sigmoid()
    if layer.norm is not None:
        y = y * gate if gate_first else y
        parts = y.view(len(x), 2 if group else 1, -1)
        y = (parts / (parts.square().mean(-1, keepdim=True) + 1e-5).sqrt()).view(len(x), 16) * layer.norm.weight
        y = y if gate_first else y * gate
    else:
        y = y * gate
    return F.linear(y, layer.to_out.weight, layer.to_out.bias)


@pytest.mark.parametrize(
    ("norm", "gate_first", "bias", "scales"),
    [
        ("all", True, False, None),
        ("group", True, True, (0.5, 2.0, 1.5, 0.25, 3.0)),
        ("group", False, False, None),
        (None, True, False, None),
    ],
)
def test_the_layer_by_hand(norm: str | None, gate_first: bool, bias: bool, scales: tuple[float, ...] | None) -> None:
    given = {"gated_norm": norm, "gate_first": gate_first, "bias": bias, "conv_bias": not bias, "in_scales": scales}
    settings = {f"ssm_{name}": value for name, value in given.items()}
    pattern = "m(state=3, heads=4, groups=2, chunk=4, dt_limit_max=0.9, norm=false)"
    layer, x = layer_of(pattern, dim=8, **settings), torch.randn(2, 7, 8, dtype=torch.float64)
    factors = torch.tensor(scales or (1,) * 5)
    hand = [by_hand(layer, row, group=norm == "group", gate_first=gate_first, scales=factors, limit=0.9) for row in x]
    ours, want = layer(x), torch.stack(hand)
    torch.testing.assert_close(ours, want)
    sums = [(out * torch.linspace(0, 1, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in (ours, want)]
    torch.testing.assert_close(*(torch.autograd.grad(total, [*layer.parameters()]) for total in sums))


def test_every_way_of_running_it_is_the_same() -> None:
    shared = "m(state=4, groups=2, heads=8, gated_norm=group)@x"
    hold(f"m(state=3, chunk=4) (m(heads=2, kernel=1) & a) {shared} f {shared}/2")


def test_costs() -> None:
    graph = graph_of("m(state=5, heads=4, groups=2, chunk=4)", dim=32)
    widths = 64 + 64 + 2 * 10 + 4
    around = 2 * 2 * 32  # the norms before it and at the end
    assert graph.parameters() == 32 * widths + (64 + 20) * 5 + 3 * 4 + 64 + 64 * 32 + around
    assert graph.kv_cache_bytes(1000, batch=2) == 2 * 2 * 4 * (3 * 84 + 64 * 5)
    said, found = counted("m(state=5, heads=4, groups=2, chunk=4)", SEQ)
    assert abs(said - found) <= 0.02 * found


def test_it_starts_as_in_the_paper() -> None:
    layer = Mamba2(64, heads=64, dt_min=0.01, dt_max=0.2)
    steps, rates = F.softplus(layer.dt_bias), layer.A_log.exp()
    assert steps.min() >= 0.0099
    assert steps.max() <= 0.201
    assert steps.std() > 0.03
    assert rates.min() >= 0.999
    assert rates.max() <= 16.001
    assert rates.std() > 3
    assert (layer.D == 1).all()


@pytest.mark.parametrize(
    ("dim", "options", "sizes"),
    [(7, {}, (7, 2)), (96, {}, (3, 64)), (512, {"heads": 64}, (64, 16)), (16, {"heads": 3, "dim_head": 5}, (3, 5))],
)
def test_any_dim_has_heads(dim: int, options: dict[str, int], sizes: tuple[int, int]) -> None:
    layer = Mamba2(dim, **options)
    assert (layer.heads, layer.parts[0]) == (sizes[0], sizes[0] * sizes[1])
    assert layer(torch.randn(1, 3, dim)).shape == (1, 3, dim)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("heads=5", "32 features .expand=2 of dim=16. do not divide by heads=5"),
        ("inner=24, dim_head=16", "24 features .inner=24. do not divide by dim_head=16"),
        ("heads=4, groups=3", "4 heads do not divide by groups=3"),
        ("heads=4, dim_head=4, inner=8", "are 16 features, and inner=8 says otherwise"),
        ("inner=8, expand=3", "give one"),
        ("in_scales=(1, 2)", "in_scales are 5 numbers, of z, x, B, C, dt, not 2"),
        ("gated_norm=none, gate_first=false", "leaves no norm"),
        ("dt_limit_min=1, dt_limit_max=0.5", "dt_limit_min=1 is above"),
    ],
)
def test_what_does_not_fit_is_refused(options: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        graph_of(f"m({options})")


def test_it_runs_in_causal_stacks_alone() -> None:
    with pytest.raises(PatternError, match=r"'m' .Mamba-2. in a stack that is not causal"):
        graph_of("a m", causal=False)


def test_in_pieces_is_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of("m(state=3, heads=4, groups=2, chunk=4, gated_norm=group, bias)")
    x = torch.randn(3, 11, 16, dtype=torch.float64)
    mask = torch.tensor([[1] * 11, [0] * 4 + [1] * 7, [1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0]]) == 1
    found = []
    for pieces in (True, False):
        monkeypatch.setattr(mamba2, "pays", lambda given, size, pieces=pieces: pieces)
        for given, seq in ((None, 11), (mask, 11), (None, 9)):  # of 9, the last piece is a single token
            inputs = [x[:, :seq].clone().requires_grad_(), *layer.parameters()]
            out = layer(inputs[0], given)
            found.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    torch.testing.assert_close(found[:3], found[3:], rtol=1e-10, atol=1e-10)
    assert not torch.equal(found[0][1], found[3][1])  # else the one was the other


def test_autocast_is_the_same_in_pieces() -> None:
    layer, x = layer_of("m(state=4, chunk=4)").float(), torch.randn(2, 9, 16, requires_grad=True)
    want = torch.autograd.grad(layer(x).sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x), want, rtol=0.1, atol=0.3)


def test_hooked_modules_are_called() -> None:
    layer, seen = layer_of("m(chunk=4)"), []
    layer.conv.register_forward_hook(lambda *_: seen.append("conv"))
    layer(torch.randn(1, 9, 16, dtype=torch.float64))
    assert seen == ["conv"]
