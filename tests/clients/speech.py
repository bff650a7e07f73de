"""Programs about speech and sound: embedded inputs, lengths without limit, prepended conditions, classifier-free guidance."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .programs import SIZES, TOKENS, language_model, program, vectors


@program
def replaces_the_token_embedding_by_nothing(x: Any) -> None:
    """Gives vectors to a model of tokens, after it took the embedding and the logits away."""
    model = x.TransformerWrapper(num_tokens=1, max_seq_len=24, attn_layers=x.Encoder(**SIZES, layer_dropout=0.1))
    model.token_emb = nn.Identity()
    model.to_logits = nn.Identity()
    model.eval()
    assert model(vectors(2, 7, 32)).mean(dim=1).shape == (2, 32)
    assert model(vectors(2, 7, 32), mask=torch.ones(2, 7, dtype=torch.bool)).shape == (2, 7, 32)


@program
def has_no_limit_of_length(x: Any) -> None:
    model = x.TransformerWrapper(
        num_tokens=32,
        max_seq_len=-1,
        use_abs_pos_emb=False,
        attn_layers=x.Encoder(**SIZES, rotary_pos_emb=True, use_rmsnorm=True, ff_glu=True, ff_mult=1),
    )
    model.token_emb = nn.Identity()
    assert model(vectors(2, 40, 32), return_embeddings=True).shape == (2, 40, 32)


@program
def checkpoints_each_layer(x: Any) -> None:
    """Wraps each layer of a stack so that it is recomputed in the backward pass."""

    class Recomputed(nn.Module):
        def __init__(self, wrap: nn.Module) -> None:
            super().__init__()
            self.wrap = wrap
            self.calls = 0

        def forward(self, y: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return checkpoint(partial(self.wrap, **kwargs), y, *args, use_reentrant=False)

    model = x.ContinuousTransformerWrapper(dim_in=3, max_seq_len=16, attn_layers=x.Encoder(**SIZES))
    before = model(vectors(2, 7, 3))
    for i in range(len(model.attn_layers.layers)):
        norm, block, residual = model.attn_layers.layers[i]
        model.attn_layers.layers[i] = nn.ModuleList([norm, Recomputed(block), residual])
    out = model(vectors(2, 7, 3))
    assert torch.allclose(out, before, atol=1e-5)
    assert all(layer[1].calls == 1 for layer in model.attn_layers.layers)
    out.sum().backward()


@program
def checkpoints_the_stack(x: Any) -> None:
    stack, y = x.Encoder(**SIZES, attn_flash=True, ff_no_bias=True, rotary_pos_emb=True), vectors(2, 7, 32)
    y.requires_grad_()
    checkpoint(stack, y, None, torch.ones(2, 7, dtype=torch.bool), use_reentrant=False).sum().backward()
    assert y.grad is not None


@program
def conditions_a_diffusion_model(x: Any) -> None:
    """Prepends the time step and attends to a text, with masks for both."""
    model = x.ContinuousTransformerWrapper(
        dim_in=8,
        dim_out=8,
        max_seq_len=0,
        attn_layers=x.Encoder(**SIZES, cross_attend=True, attn_flash=True, rotary_pos_emb=True),
    )
    out = model(
        vectors(2, 9, 8),
        prepend_embeds=vectors(2, 2, 32),
        prepend_mask=torch.ones(2, 2, dtype=torch.bool),
        context=vectors(2, 5, 32),
        context_mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
        mask=torch.tensor([[True] * 9, [True] * 6 + [False] * 3]),
    )
    assert out[:, 2:].shape == (2, 9, 8)


@program
def predicts_codes_with_registers(x: Any) -> None:
    model = x.ContinuousTransformerWrapper(
        max_seq_len=16,
        attn_layers=x.Encoder(**SIZES, attn_flash=True, rotary_pos_emb=True, ff_glu=True, use_rmsnorm=True),
        emb_dropout=0.1,
        num_memory_tokens=4,
    )
    out, seen = model(vectors(2, 9, 32), return_intermediates=True)
    head = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(32, 5, 1)))
    assert head(out.transpose(1, 2)).shape == (2, 5, 9)
    assert len(seen.hiddens) == 2


@program
def guides_with_an_empty_condition(x: Any) -> None:
    decoder = language_model(
        x, {"cross_attend": True, "attn_flash": True, "ff_no_bias": True}, scaled_sinu_pos_emb=True
    )
    text, empty = vectors(2, 4, 32), torch.zeros(2, 4, 32)
    with torch.no_grad():
        conditioned, plain = decoder(TOKENS, context=text), decoder(TOKENS, context=empty)
    assert torch.isfinite(plain + 3.0 * (conditioned - plain)).all()


@program
def survives_a_context_of_padding(x: Any) -> None:
    decoder = language_model(x, {"cross_attend": True})
    decoder(TOKENS, context=vectors(2, 4, 32), context_mask=torch.zeros(2, 4, dtype=torch.bool))


@program
def pairs_two_encoders(x: Any) -> None:
    """Contrasts speech with text: a temperature parameter, pooled embeddings, masks of random tokens."""
    text = x.TransformerWrapper(num_tokens=32, max_seq_len=12, attn_layers=x.Encoder(**SIZES, use_rmsnorm=True))
    speech = x.ContinuousTransformerWrapper(dim_in=4, max_seq_len=16, attn_layers=x.Encoder(**SIZES, ff_glu=True))
    scale = nn.Parameter(torch.tensor(1.0))
    mask = torch.rand(2, 12) > 0.2
    mask[:, 0] = True
    a = F.normalize(text(TOKENS, mask=mask, return_embeddings=True).mean(dim=1), dim=-1)
    b = F.normalize(speech(vectors(2, 9, 4)).mean(dim=1), dim=-1)
    F.cross_entropy(a @ b.t() * scale.exp(), torch.arange(2)).backward()
    assert text.token_emb.emb.weight.grad is not None


@program
def reads_the_angles_of_positions(x: Any) -> None:
    stack = x.Encoder(**SIZES, rotary_pos_emb=True)
    assert stack.rotary_pos_emb.inv_freq.shape == (16,)
    assert x.Encoder(**SIZES).rotary_pos_emb is None


@program
def takes_the_final_norm_away(x: Any) -> None:
    model = x.TransformerWrapper(num_tokens=32, max_seq_len=12, attn_layers=x.Encoder(**SIZES))
    model.norm = nn.Identity()  # release 1 has the norm in the model
    model.to_logits = nn.Identity()
    assert model(TOKENS).shape == (2, 12, 32)


@program
def sums_codebooks_with_positions_of_its_own(x: Any) -> None:
    module = import_module(f"{x.__name__}.x_transformers")
    model = language_model(x, {"cross_attend": True})
    model.pos_emb = module.ScaledSinusoidalEmbedding(32)
    prepended = vectors(2, 2, 32)
    prepended = prepended + model.pos_emb(prepended)
    out = model(
        TOKENS,
        pos=torch.arange(12) + 2,
        prepend_embeds=prepended,
        prepend_mask=torch.ones(2, 2, dtype=torch.bool),
        context=vectors(2, 3, 32),
    )
    assert out[:, 2:].shape == (2, 12, 32)


@program
def continues_sound_by_vectors(x: Any) -> None:
    net = x.ContinuousTransformerWrapper(dim_in=4, dim_out=4, max_seq_len=8, attn_layers=x.Decoder(**SIZES))
    wrapper = x.ContinuousAutoregressiveWrapper(net)
    mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    wrapper(vectors(2, 8, 4), mask=mask).backward()
    assert wrapper.generate(vectors(3, 4), 5).shape == (5, 4)
    assert wrapper.generate(vectors(2, 3, 4), 10).shape == (2, 10, 4)


@program
def averages_the_weights(x: Any) -> None:
    from copy import deepcopy

    model = x.ContinuousAutoregressiveWrapper(
        x.ContinuousTransformerWrapper(dim_in=4, dim_out=4, max_seq_len=8, attn_layers=x.Decoder(**SIZES))
    )
    average = deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    model(vectors(2, 8, 4)).backward()
    optimizer.step()
    with torch.no_grad():
        for own, new in zip(average.parameters(), model.parameters(), strict=True):
            own.lerp_(new, 0.5)
        for own, new in zip(average.buffers(), model.buffers(), strict=True):
            own.copy_(new)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    assert averaged(vectors(2, 8, 4)).ndim == 0
