"""Stack and wrappers are one graph for torch.compile, and export with a dynamic length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

import blockdsl
import xt_blocks

from ..thorough import part_of
from .variants import SIZES, inputs, stack

NAMES = [
    *("rotary", "shift 2", "parallel chains", "ties that differ in use", "residual attention, parallel", "cross"),
    *("xpos", "T5 bias", "dynamic bias", "dynamic bias, log", "ALiBi", "ALiBi, learned", "memory kv, rotary"),
    *("sandwich norm, scalenorm, cross", "gated residual, parallel", "deepnorm"),
    *("kv heads", "value heads", "qk norm", "sparse", "window, memory kv", "on attention"),
]


@pytest.mark.parametrize("name", part_of(NAMES, 4))
def test_compiles_without_a_graph_break(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, mask=mask, **extra), model(x, mask=mask, **extra))
    assert torch.equal(compiled(x, **extra), model(x, **extra))


@pytest.mark.parametrize("name", part_of(NAMES, 4, first=1))
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
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for seq in (5, 7, 9, 12):
        x, mask = torch.randint(0, 17, (2, seq)), torch.arange(seq) < torch.tensor([[seq], [3]])
        torch.testing.assert_close(compiled(x, mask=mask), model(x, mask=mask))
    assert counter.frame_count <= 2  # the first length, and every other


@pytest.mark.parametrize(
    "name", part_of([*NAMES, "plain", "checkpoint", "residual attention", "talking heads"], 8, first=4)
)
def test_a_train_step_compiles_once(name: str) -> None:
    """One graph, and no other at the next steps; dropout and stochastic depth are drawn inside it."""
    model = stack(name, ff_dropout=0.1, attn_dropout=0.1, layer_dropout=0.1).train()
    x, extra = inputs(model)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        compiled(torch.randn_like(x), **extra).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert counter.frame_count == 1


def test_gradients_of_a_scan_are_those_without_a_compiler() -> None:
    """With aot_eager, which fails where an operation has other strides than were traced."""
    graph = blockdsl.compile("kda", dim=16, causal=True, kda_heads=2)
    model, x = xt_blocks.lower(graph), torch.randn(2, 3, 16)
    expected = torch.autograd.grad(model(x).pow(3).mean(), [*model.parameters()])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(x).pow(3).mean(), [*model.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"num_memory_tokens": 2, "scaled_sinu_pos_emb": True}])
def test_decoding_compiles_once_for_all_steps(options: dict[str, Any]) -> None:
    model = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack("plain"), **options).eval()
    torch._dynamo.reset()
    counter = CompileCounter()
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


def wrapped(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """A small model of each other kind, and what it is called with."""
    sizes = {"dim": 12, "heads": 2, "attn_dim_head": 6, "depth": 1}
    tokens, vectors = torch.randint(0, 8, (2, 8)), torch.randn(2, 8, 5)
    if name == "vision":
        encoder = xt_blocks.Encoder(**sizes)
        image = torch.randn(2, 3, 8, 8)
        return xt_blocks.ViTransformerWrapper(
            image_size=8, patch_size=4, num_classes=5, num_register_tokens=1, attn_layers=encoder
        ), (image,)
    if name == "vision with a class token":
        own = {"class_token": True, "num_register_tokens": 2, "pool": "first_mean", "patch_norm": False}
        encoder = xt_blocks.Encoder(**sizes, layer_scale=0.1)
        net = xt_blocks.ViTransformerWrapper(image_size=8, patch_size=4, mask_token=True, attn_layers=encoder, **own)
        return net, (torch.randn(2, 3, 8, 8), False, False, torch.ones(2, 4, dtype=torch.bool))
    if name == "vectors":
        decoder = xt_blocks.Decoder(**sizes)
        net = xt_blocks.ContinuousTransformerWrapper(
            max_seq_len=8, dim_in=5, dim_out=5, num_memory_tokens=1, attn_layers=decoder
        )
        return xt_blocks.ContinuousAutoregressiveWrapper(net), (vectors, torch.ones(2, 8, dtype=torch.bool))
    if name == "encoder-decoder":
        side = sizes | {"num_tokens": 9, "max_seq_len": 8}
        del side["dim"]
        keywords = {f"{prefix}_{key}": value for prefix in ("enc", "dec") for key, value in side.items()}
        return xt_blocks.XTransformer(dim=12, **keywords), (tokens, tokens, torch.ones(2, 8, dtype=torch.bool))
    net = xt_blocks.TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=xt_blocks.Encoder(**sizes))
    return xt_blocks.NonAutoregressiveWrapper(net, mask_id=8, self_cond=True, self_token_critic=True), (tokens,)


@pytest.mark.parametrize("name", ["vision", "vision with a class token", "vectors", "encoder-decoder", "masked"])
def test_every_kind_of_model_compiles_without_a_graph_break(name: str) -> None:
    model, args = wrapped(name)
    torch._dynamo.reset()
    compiled = torch.compile(model.eval(), backend="eager", fullgraph=True)
    torch.manual_seed(5)
    ours = compiled(*args)
    torch.manual_seed(5)
    torch.testing.assert_close(ours, model(*args))


@pytest.mark.parametrize("name", ["vision", "encoder-decoder"])
def test_every_kind_of_model_exports_with_a_dynamic_batch(name: str) -> None:
    model, args = wrapped(name)
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = tuple({0: batch} for _ in args)
    exported = torch.export.export(model.eval(), args, dynamic_shapes=shapes, strict=False).module()
    more = tuple(torch.cat((arg, arg.flip(0), arg)) for arg in args)
    torch.testing.assert_close(exported(*more), model(*more))
