"""Stack and wrappers are one graph for torch.compile, and export with a dynamic length."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import xt_blocks

from .variants import SIZES, inputs, stack

NAMES = [
    *("rotary", "shift 2", "parallel chains", "ties that differ in use", "residual attention, parallel", "cross"),
    *("xpos", "T5 bias", "dynamic bias", "dynamic bias, log", "ALiBi", "ALiBi, learned", "memory kv, rotary"),
    *("sandwich norm, scalenorm, cross", "gated residual, parallel", "deepnorm"),
    *("kv heads", "value heads", "qk norm", "sparse", "window, memory kv", "on attention"),
]


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, mask=mask, **extra), model(x, mask=mask, **extra))
    assert torch.equal(compiled(x, **extra), model(x, **extra))


@pytest.mark.parametrize("name", NAMES)
def test_exports_with_a_dynamic_length(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    seq = torch.export.Dim("seq", min=2, max=64)
    kwargs = {"mask": torch.ones(2, 7, dtype=torch.bool), **extra}
    shapes = {"x": {1: seq}, "mask": {1: seq}, **dict.fromkeys(extra)}
    exported = torch.export.export(model, (x,), kwargs, dynamic_shapes=shapes, strict=False).module()
    longer = torch.randn(2, 11, SIZES["dim"])
    mask = torch.arange(11) < torch.tensor([[11], [4]])
    torch.testing.assert_close(exported(longer, mask=mask, **extra), model(longer, mask=mask, **extra))


@pytest.mark.parametrize("options", [{}, {"num_memory_tokens": 2, "l2norm_embed": True, "emb_frac_gradient": 0.1}])
def test_the_loss_compiles_once_for_all_lengths(options: dict[str, Any]) -> None:
    net = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack("plain"), **options)
    model = xt_blocks.AutoregressiveWrapper(net)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for seq in (5, 7, 9, 12):
        x, mask = torch.randint(0, 17, (2, seq)), torch.arange(seq) < torch.tensor([[seq], [3]])
        torch.testing.assert_close(compiled(x, mask=mask), model(x, mask=mask))
    assert counter.frame_count <= 2  # the first length, and every other


@pytest.mark.parametrize("options", [{}, {"num_memory_tokens": 2, "scaled_sinu_pos_emb": True}])
def test_decoding_compiles_once_for_all_steps(options: dict[str, Any]) -> None:
    model = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack("plain"), **options).eval()
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    x, cache = torch.randint(0, 17, (2, 12)), model.new_cache(2)
    with torch.no_grad():
        out = [compiled(part, cache=cache) for part in (x[:, :4], *x[:, 4:].split(1, dim=1))]
        torch.testing.assert_close(torch.cat(out, dim=1), model(x), rtol=1e-5, atol=2e-6)
    assert counter.frame_count <= 4


def test_a_model_over_tokens_exports_with_dynamic_batch_and_length() -> None:
    model = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack("shift 2")).eval()
    batch, seq = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("seq", min=2, max=16)
    shapes = {"x": {0: batch, 1: seq}, "mask": {0: batch, 1: seq}}
    args = (torch.randint(0, 17, (2, 7)), torch.ones(2, 7, dtype=torch.bool))
    exported = torch.export.export(model, args, dynamic_shapes=shapes, strict=False).module()
    x, mask = torch.randint(0, 17, (3, 11)), torch.arange(11) < torch.tensor([[11], [4], [2]])
    torch.testing.assert_close(exported(x, mask), model(x, mask))
