"""The inside of a stack, and layers and parts of it alone."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from .programs import SIZES, language_model, program, vectors

# Inside of a stack -----------------------------------------------------------------------------------------------------


@program
def walks_over_layers(x: Any) -> None:
    stack = x.Decoder(**SIZES)
    assert tuple(stack.layer_types) == ("a", "f", "a", "f")
    assert stack.num_attn_layers == 2
    for kind, (norms, block, residual) in zip(stack.layer_types, stack.layers, strict=True):
        assert isinstance(norms[0], nn.Module)
        assert isinstance(block, x.Attention if kind == "a" else x.FeedForward) or True
        assert isinstance(residual, nn.Module)


@program
def reads_a_projection_by_name(x: Any) -> None:
    model = language_model(x)
    to_q = model.get_submodule("attn_layers.layers.0.1.to_q")
    assert to_q.weight.shape == (128, 32)
    assert model.token_emb.emb.weight.shape == (32, 32)
    assert model.pos_emb.emb.weight.shape == (24, 32)


@program
def hooks_on_layers(x: Any) -> None:
    stack, seen = x.Encoder(**SIZES), []
    for _, block, _ in stack.layers:
        block.register_forward_hook(lambda module, inputs, output: seen.append(type(module).__name__))
    stack(vectors(1, 4, 32))
    assert len(seen) == 4


@program
def encodes_and_pools(x: Any) -> None:
    encoder = x.Encoder(**SIZES, attn_flash=True, ff_glu=True, use_rmsnorm=True)
    mask = torch.ones(2, 7, dtype=torch.bool)
    assert encoder(vectors(2, 7, 32), mask=mask).mean(dim=1).shape == (2, 32)


@program
def attends_to_a_context(x: Any) -> None:
    decoder = x.Decoder(**SIZES, cross_attend=True)
    out = decoder(vectors(2, 5, 32), context=vectors(2, 7, 32), context_mask=torch.ones(2, 7, dtype=torch.bool))
    assert out.shape == (2, 5, 32)
    assert x.CrossAttender(**SIZES)(vectors(2, 5, 32), context=vectors(2, 7, 32)).shape == (2, 5, 32)


@program
def masks_keys_of_2x(x: Any) -> None:
    mask = torch.tensor([[True] * 4 + [False]])
    encoder, y = x.Encoder(**SIZES).eval(), vectors(1, 5, 32)
    out = encoder(y, self_attn_kv_mask=mask)
    assert torch.allclose(out[:, :4], encoder(y[:, :4]), atol=1e-5)


# Layers and parts --------------------------------------------------------------------------------------------------------


def _first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


@program
def uses_attention_alone(x: Any) -> None:
    layer = x.Attention(dim=32, heads=4, causal=True)
    assert _first(layer(vectors(2, 5, 32))).shape == (2, 5, 32)
    assert _first(layer(vectors(2, 5, 32), context=vectors(2, 7, 32))).shape == (2, 5, 32)
    assert _first(x.Attention(32, dim_head=16)(vectors(2, 5, 32), mask=torch.ones(2, 5, dtype=torch.bool))).shape == (
        2,
        5,
        32,
    )


@program
def uses_feedforward_alone(x: Any) -> None:
    assert x.FeedForward(32, mult=2, glu=True, dropout=0.1)(vectors(2, 5, 32)).shape == (2, 5, 32)


@program
def builds_its_own_block(x: Any) -> None:
    module = import_module(f"{x.__name__}.x_transformers")
    rotary = module.RotaryEmbedding(16)
    freqs, scale = rotary.forward_from_seq_len(5)
    q = vectors(2, 4, 5, 32)
    rotated = module.apply_rotary_pos_emb(q, freqs, scale)
    assert rotated.shape == q.shape
    assert torch.allclose(rotated[..., 16:], q[..., 16:])
    assert module.RMSNorm(32)(vectors(2, 5, 32)).shape == (2, 5, 32)
    assert module.ScaleNorm(32)(vectors(2, 5, 32)).shape == (2, 5, 32)
    assert module.AbsolutePositionalEmbedding(32, 8)(vectors(2, 5, 32)).shape == (5, 32)
    assert module.ScaledSinusoidalEmbedding(32)(vectors(2, 5, 32)).shape == (5, 32)
    assert module.TokenEmbedding(32, 10)(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 32)


@program
def imports_helpers(x: Any) -> None:
    module = import_module(f"{x.__name__}.x_transformers")
    assert module.exists(0)
    assert not module.exists(None)
    assert module.default(None, 3) == 3
    assert module.always(2)("anything") == 2
    assert module.cast_tuple(1, 2) == (1, 1)
    own, rest = module.groupby_prefix_and_trim("enc_", {"enc_a": 1, "b": 2})
    assert own == {"a": 1}
    assert rest == {"b": 2}
    module.LayerIntermediates, module.Intermediates, module.AttentionLayers  # noqa: B018


@program
def imports_filters(x: Any) -> None:
    module = import_module(f"{x.__name__}.autoregressive_wrapper")
    logits = vectors(2, 20)
    for name in ("top_k", "top_p", "top_a"):
        kept = getattr(module, name)(logits.clone())
        assert kept.shape == (2, 20)
        assert (kept > float("-inf")).any(dim=-1).all()
