"""What every block with a state along the sequence is held to, whatever its kind."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper

SEQ = 19


def model(pattern: str, dtype: torch.dtype = torch.float64, **settings: Any) -> TransformerWrapper:
    """A small model without positions, its gains and biases not as they are at first."""
    torch.manual_seed(0)
    stack = Decoder(dim=16, heads=2, attn_dim_head=8, pattern=pattern, **settings)
    around = {"num_tokens": 11, "max_seq_len": 64, "max_mem_len": 64, "use_abs_pos_emb": False}
    net = TransformerWrapper(attn_layers=stack, **around).to(dtype).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def hold(pattern: str, **settings: Any) -> None:
    """Counts, cached steps, pieces, padding anywhere, segments, fixed shapes and generation, in float64 and bfloat16."""
    net = model(pattern, **settings)
    graph, text = net.graph, torch.randint(0, 11, (3, SEQ))
    assert sum(p.numel() for p in net.parameters()) == graph.parameters()
    with torch.no_grad():
        whole = net(text)
        _steps(net, text, whole)
        _padding(net, text)
        _segments(net, text, whole)
        _fixed_shapes(net, text, whole)
        _bfloat16(net, text)
    _generation(net)


def counted(pattern: str, seq: int, **settings: Any) -> tuple[int, int]:
    """Operations of the stack: as the graph says, and as torch counts them."""
    net = model(pattern, **settings)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.attn_layers(torch.randn(2, seq, 16, dtype=torch.float64))
    return net.attn_layers.graph.flops(seq, batch=2), counter.get_total_flops()


def _steps(net: TransformerWrapper, text: Tensor, whole: Tensor) -> None:
    for sizes in [1] * SEQ, [8, 1, 10], [SEQ]:
        cache, out = net.new_cache(batch=3), []
        for part in text.split(sizes, dim=1):
            out.append(net(part, cache=cache))
        torch.testing.assert_close(torch.cat(out, 1), whole, rtol=1e-6, atol=1e-8)
    assert cache.bytes() == net.graph.kv_cache_bytes(64, batch=3, dtype="float64")


def _padding(net: TransformerWrapper, text: Tensor) -> None:
    """On the left, on the right, in between, and of a whole row; in one pass and in pieces of a prompt."""
    mask = torch.ones(3, SEQ, dtype=torch.bool)
    mask[0, :5], mask[1, 12:], mask[2, 3:9:2] = False, False, False
    out, cache = net(text, mask=mask), net.new_cache(batch=3)
    pieces = [net(text[:, a:b], mask=mask[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, SEQ))]
    for row in range(3):
        alone = net(text[row, mask[row]][None])[0]
        torch.testing.assert_close(out[row, mask[row]], alone, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(torch.cat(pieces, 1)[row, mask[row]], alone, rtol=1e-6, atol=1e-8)
    assert net(text, mask=torch.zeros_like(mask)).isfinite().all()


def _segments(net: TransformerWrapper, text: Tensor, whole: Tensor) -> None:
    out, mems = [], None
    for part in text.split([7, 12], dim=1):
        logits, mems = net(part, mems=mems, return_mems=True)
        out.append(logits)
    torch.testing.assert_close(torch.cat(out, 1), whole, rtol=1e-6, atol=1e-8)


def _fixed_shapes(net: TransformerWrapper, text: Tensor, whole: Tensor) -> None:
    cache = net.new_cache(batch=3)
    out = [net(text[:, :15], cache=cache)]
    cache.fix_shapes()
    out += [net(token, cache=cache) for token in text[:, 15:].split(1, dim=1)]
    torch.testing.assert_close(torch.cat(out, 1), whole, rtol=1e-6, atol=1e-8)


def _bfloat16(net: TransformerWrapper, text: Tensor) -> None:
    net = deepcopy(net).bfloat16()
    whole, cache = net(text), net.new_cache(batch=3)
    steps = torch.cat([net(part, cache=cache) for part in text.split(1, dim=1)], 1)
    assert cache.bytes() == net.graph.kv_cache_bytes(64, batch=3, dtype="bfloat16")
    assert (steps - whole).abs().max() < 0.1 * whole.abs().max()


def _generation(net: TransformerWrapper) -> None:
    prompts = [torch.randint(0, 11, (n,)) for n in (3, 8)]
    wrapped = AutoregressiveWrapper(net)
    together = wrapped.generate(prompts, 6, temperature=0.0)
    assert torch.equal(together, torch.stack([wrapped.generate(p, 6, temperature=0.0) for p in prompts]))
