"""Each line of wiring against plain torch, outputs and gradients in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks

from .lines import FURTHER, LINES, SIZES
from .plain import Plain


def u_net(m: Plain, x: Tensor) -> Tensor:
    skips = []
    for i in (0, 2):
        skips.append(x)
        x = m.f(f"f{i + 1}", m.a(f"a{i}", x))
    for i in (0, 1):
        x = torch.cat((skips.pop(), x), dim=-1) @ m.p[f"joins.read{i}.combine.weight"].T
        x = m.f(f"f{2 * i + 5}", m.a(f"a{2 * i + 4}", x))
    return x


def input_injected(m: Plain, x: Tensor) -> Tensor:
    first = x
    for i in (0, 1):
        x = x + m.p[f"joins.read{i}.gain"] * first
        x = m.f(f"f{2 * i + 1}", m.a(f"a{2 * i}", x))
    return x


def value_residual(m: Plain, x: Tensor) -> Tensor:
    x = m.f("f1", m.a("a0", x))
    x = m.f("f3", m.a("a2", x, values="a0"))
    return m.f("f5", m.a("a4", x, values="a0"))


def shared_keys(m: Plain, x: Tensor) -> Tensor:
    for i in (0, 4):
        x = m.f(f"f{i + 1}", m.a(f"a{i}", x))
        x = m.f(f"f{i + 3}", m.a(f"a{i + 2}", x, kv=f"a{i}"))
    return x


def yoco(m: Plain, x: Tensor) -> Tensor:
    x = m.f("f1", m.a("a0", x, window=2))
    x = m.f("f3", m.a("a2", x))
    x = m.f("f5", m.a("a4", x, kv="a2"))
    return m.f("f7", m.a("a6", x, kv="a2"))


def denseformer(m: Plain, x: Tensor) -> Tensor:
    earlier = [x]
    for i in (0, 1):
        x = m.f(f"f{2 * i + 1}", m.a(f"a{2 * i}", x))
        gains = m.p[f"joins.read{i}.gain"]
        x = x + sum(gain * u for gain, u in zip(gains, earlier, strict=True))
        earlier.append(x)
    return x


def integrated_layers(m: Plain, x: Tensor) -> Tensor:
    earlier = [x]
    for i, block in enumerate((m.a, m.f, m.a, m.f)):
        powers = m.p[f"joins.read{i}.logits"].exp()
        mean = sum(power * u for power, u in zip(powers / powers.sum(), earlier, strict=True))
        earlier.append(block(f"{'af'[i % 2]}{i}", mean))  # type: ignore[operator]
    return earlier[-1]


def realformer(m: Plain, x: Tensor) -> Tensor:
    x = m.f("f1", m.a("a0", x))
    x = m.f("f3", m.a("a2", x, scores="a0"))
    return m.f("f5", m.a("a4", x, scores="a2"))


def recurrent_depth(m: Plain, x: Tensor) -> Tensor:
    x = first = m.f("f1", m.a("a0", x))
    for i in range(3):
        x = torch.cat((first, x), dim=-1) @ m.p[f"joins.read{i}.combine.weight"].T
        x = m.f("f3", m.a("a2", x))
    return m.f("f9", m.a("a8", x))


def backout(m: Plain, x: Tensor) -> Tensor:
    early = m.f("f1", m.a("a0", x))
    return m.f("f3", m.a("a2", early)) + m.p["joins.read0.gain"] * early


def earlier_layer(m: Plain, x: Tensor) -> Tensor:
    mid = m.f("f1", m.a("a0", x))
    return m.f("f4", m.c("c3", m.a("a2", mid), mid))


def branches(m: Plain, x: Tensor) -> Tensor:
    first = x
    x = m.f("f1", m.a("a0", x))
    after = m.f("f3", x)
    joined = torch.cat((first, after), dim=-1) @ m.p["joins.read1.combine.weight"].T
    x = m.a("a2", x) + first / 2 + (after - x + (joined - after) / 2) + (first - x)
    x = m.f("f4", x)
    gate = 1 / (1 + (-(x @ m.p["joins.read3.gate.weight"].T + m.p["joins.read3.gate.bias"])).exp())
    return m.a("a5", x + gate * first / 3)


def windows(m: Plain, x: Tensor) -> Tensor:
    x = m.f("f1", m.a("a0", x, window=2))
    return m.a("a3", m.a("a2", x, kv="a0", window=4), kv="a0", window=1)


def routed(m: Plain, x: Tensor) -> Tensor:
    earlier: list[Tensor] = []
    for i, node in ((0, "a0"), (2, "f1")):
        earlier.append(x)
        unit = x / (x**2).mean(-1, keepdim=True).add(1e-8).sqrt() * m.p[f"joins.read{i}.norm.weight"]
        powers = (unit @ m.p[f"joins.read{i}.route.weight"].T + m.p[f"joins.read{i}.route.bias"]).exp()
        weights = powers / powers.sum(-1, keepdim=True)
        mean = sum(weights[..., n : n + 1] * u for n, u in enumerate(earlier))
        x = x + getattr(m, node[0])(node, mean, alone=True)
    return x


def gains(m: Plain, x: Tensor) -> Tensor:
    return m.a("a2", m.f("f1", m.a("a0", x)), values="a0")


def shared_block(m: Plain, x: Tensor) -> Tensor:
    embedding, x = x, m.f("f0", x)
    for use, last in enumerate(("f3", "f6")):
        made = m.a(f"a{3 * use + 1}", x, owner="a1", concat=embedding, use=use, alone=True)
        made = m.f("f2", made, use=use, alone=True)
        x = x + m.f(last, x + made @ m.p[f"joins.read{2 * use}.linear.weight"].T, alone=True)
    return x


PLAIN: dict[str, Callable[[Plain, Tensor], Tensor]] = {
    "u-net": u_net,
    "input injected": input_injected,
    "value residual": value_residual,
    "shared keys": shared_keys,
    "yoco": yoco,
    "denseformer": denseformer,
    "integrated layers": integrated_layers,
    "realformer": realformer,
    "recurrent depth": recurrent_depth,
    "backout": backout,
    "earlier layer": earlier_layer,
    "branches": branches,
    "gains": gains,
    "routed": routed,
    "shared block": shared_block,
    "windows": windows,
}


@pytest.mark.parametrize("name", PLAIN)
def test_outputs_and_gradients_are_those_of_plain_torch(name: str) -> None:
    text, settings = {**LINES, **FURTHER}[name]
    torch.manual_seed(0)
    stack = xt_blocks.lower(blockdsl.compile(text, **SIZES, **settings)).double()
    with torch.no_grad():
        for parameter in stack.parameters():  # none where it starts
            parameter += 0.2 * torch.randn_like(parameter)
    x = torch.randn(2, 6, 16, dtype=torch.float64, requires_grad=True)
    m = Plain(stack, heads=2, rotary=settings.get("rotary_emb_dim", 0))
    expected, out = m.out(PLAIN[name](m, x)), stack(x)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if m.rotary else {"rtol": 1e-9, "atol": 1e-10}  # rotations are float32
    torch.testing.assert_close(out, expected, **tolerance)
    weights = torch.randn_like(out)
    over = [x, *stack.parameters()]
    ours, theirs = (
        torch.autograd.grad((weights * each).sum(), over, materialize_grads=True) for each in (out, expected)
    )
    torch.testing.assert_close(ours, theirs, **tolerance)


def test_every_line_is_tested() -> None:
    assert {*LINES} <= {*PLAIN}
