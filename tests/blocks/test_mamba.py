"""Mamba-1 `mamba`, held to the paper's recurrence token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import blockdsl
from blockdsl import UserError
from xt_blocks.blocks.mamba import Mamba
from xt_blocks.kernels.scans.selective import _by_piece, selective_scan

from .stateful import SEQ, counted, hold, model


def by_hand(layer: Mamba, x: Tensor) -> Tensor:
    """`x: (seq, dim)`: algorithm 2 of arXiv:2312.00752, token by token and feature by feature where it is one."""
    values, gates = layer.to_in(x).chunk(2, dim=-1)
    taps, out = layer.conv.weight[:, 0], []
    h = torch.zeros(*layer.A_log.shape, dtype=x.dtype)
    for t in range(len(x)):
        mixed = sum(taps[:, -1 - k] * values[t - k] for k in range(min(t + 1, taps.shape[1])))
        u = F.silu(mixed if layer.conv.bias is None else mixed + layer.conv.bias)
        dt, b, c = (layer.to_scan.weight @ u).split([*layer.parts])
        if isinstance(layer.dt_norm, torch.nn.RMSNorm):
            dt, b, c = (
                part / (part.square().mean() + 0.01).sqrt() * (1 if norm.weight is None else norm.weight)
                for part, norm in ((dt, layer.dt_norm), (b, layer.b_norm), (c, layer.c_norm))
            )
        step = torch.log1p(torch.exp(layer.to_dt.weight @ dt + layer.to_dt.bias))
        h = torch.exp(-torch.exp(layer.A_log) * step[:, None]) * h + torch.outer(step * u, b)
        out.append(layer.to_out((h @ c + layer.D * u) * F.silu(gates[t])))
    return torch.stack(out)


@pytest.mark.parametrize(
    "options",
    ["state=4", "inner=12, state=3, rmsnorm=gain, rmsnorm_eps=0.01, bias", "kernel=1, rmsnorm=plain, rmsnorm_eps=0.01"],
)
def test_the_layer_by_hand(options: str) -> None:
    layer = model(f"mamba({options}, conv_bias={'false' if 'state=4' in options else 'true'})")
    layer = layer.attn_layers.blocks["mamba0"].layer
    assert isinstance(layer, Mamba)
    x = torch.randn(2, SEQ, 16, dtype=torch.float64)
    ours, want = layer(x), torch.stack([by_hand(layer, row) for row in x])
    torch.testing.assert_close(ours, want)
    factors = torch.randn_like(ours)
    gradients = [torch.autograd.grad((out * factors).sum(), [*layer.parameters()]) for out in (ours, want)]
    torch.testing.assert_close(*gradients)


def test_the_scan_whatever_its_chunks() -> None:
    torch.manual_seed(0)
    sizes = {"x": (2, 7, 3), "dt": (2, 7, 3), "a": (3, 2), "b": (2, 7, 2), "c": (2, 7, 2), "start": (2, 2, 3)}
    given = [torch.randn(shape, dtype=torch.float64) for shape in sizes.values()]
    given[1], given[2] = given[1].abs(), -given[2].abs()
    given[1][0, 3:] = 0.0  # padding
    for tensor in given:
        tensor.requires_grad_()
    y, after = selective_scan(*given, 3)
    torch.testing.assert_close(after[0], selective_scan(*(t[:1, :3] if t.ndim == 3 else t for t in given))[1][0])
    for chunk in (1, 7, 16):
        torch.testing.assert_close(selective_scan(*given, chunk), (y, after))
    torch.testing.assert_close(_by_piece(*given[:2], given[2].T, *given[3:], piece=4), (y, after))
    by_step, h = [], given[-1]
    for t in range(7):
        x, dt, a, b, c = (tensor[:, t : t + 1] if tensor.ndim == 3 else tensor for tensor in given[:-1])
        out, h = selective_scan(x, dt, a, b, c, h)
        by_step.append(out)
    torch.testing.assert_close((torch.cat(by_step, dim=1), h), (y, after))
    assert torch.autograd.gradcheck(lambda *tensors: selective_scan(*tensors, 3), given)
    assert torch.autograd.gradcheck(lambda x, dt, a, *rest: _by_piece(x, dt, a.T, *rest, piece=4), given)
    followed = torch.func.vmap(selective_scan, in_dims=(0, 0, None, 0, 0, 0))  # by plain operations
    one = [t[:, None] if t.ndim == 3 else t for t in given]
    torch.testing.assert_close(tuple(t[:, 0] for t in followed(*one)), (y, after))


def test_every_way_of_running_it_is_the_same() -> None:
    hold("mamba(rmsnorm=gain)@x (mamba(kernel=1, bias) & a) f mamba(rmsnorm=gain)@x/2", mamba_state=4)


def test_memory_is_linear_in_the_length() -> None:
    """What is kept for the backward pass, 16 states of each feature and token not among it."""
    layer, kept = Mamba(8, inner=16, state=16), {}
    for seq in (64, 128):
        saved = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            layer(torch.randn(1, seq, 8))
        kept[seq] = saved
    assert kept[128] - kept[64] < 64 * 16 * 16
    assert kept[128] < 2 * kept[64]


def test_costs() -> None:
    graph = blockdsl.compile("mamba(state=8, rmsnorm=gain)", dim=32, causal=True)
    linear = 32 * 128 + 64 * (2 + 16) + 2 * 64 + 64 * 32
    # linear layers, the convolution, the steps' bias, A and D, three gains; a norm before it and at the end
    assert graph.parameters() == linear + 5 * 64 + 64 + 9 * 64 + (2 + 8 + 8) + 2 * 2 * 32
    assert graph.kv_cache_bytes(1000, batch=2, dtype="bfloat16") == 2 * 2 * (3 * 64 * 2 + 8 * 64 * 4)
    said, found = counted("mamba(state=4)", SEQ)
    entering = 2 * 2 * SEQ * 32 * 4 * 2  # what enters the states and their decay, which are no products to torch
    assert abs(said - entering - found) <= 0.02 * found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("inner=8, expand=3", "inner=8 and expand=3 are both set; give one"),
        ("expand=0.01", "expand=0.01 of dim=16 leaves no features"),
        ("dt_min=0.5", "dt_min=0.5 is above dt_max=0.1"),
    ],
)
def test_what_clashes(options: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        blockdsl.compile(f"mamba({options})", dim=16, causal=True)
