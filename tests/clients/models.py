"""Encoder-decoders, models of vectors and of images, and copies of any."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from .programs import SIZES, TOKENS, language_model, program, vectors


@program
def translates(x: Any) -> None:
    model = x.XTransformer(
        dim=32,
        tie_token_emb=True,
        enc_num_tokens=32,
        enc_depth=1,
        enc_heads=2,
        enc_max_seq_len=16,
        dec_num_tokens=32,
        dec_depth=1,
        dec_heads=2,
        dec_max_seq_len=16,
    )
    mask = torch.ones(2, 12, dtype=torch.bool)
    model(TOKENS, TOKENS, mask=mask).backward()
    assert model.generate(TOKENS, TOKENS[:, :1], 5, mask=mask).shape == (2, 5)
    encoded = model.encoder(TOKENS, mask=mask, return_embeddings=True)
    assert model.decoder.net(TOKENS[:, :3], context=encoded, context_mask=mask).shape == (2, 3, 32)


@program
def translates_with_many_options(x: Any) -> None:
    model = x.XTransformer(
        dim=32,
        return_tgt_loss=True,
        enc_num_tokens=32,
        enc_depth=1,
        enc_heads=2,
        enc_max_seq_len=16,
        enc_cross_attend=False,
        enc_num_memory_tokens=2,
        dec_num_tokens=32,
        dec_depth=1,
        dec_heads=2,
        dec_max_seq_len=16,
        dec_rotary_pos_emb=True,
        cross_attn_tokens_dropout=0.1,
    )
    model(TOKENS, TOKENS).backward()


@program
def maps_vectors(x: Any) -> None:
    stack = x.Encoder(**SIZES)
    model = x.ContinuousTransformerWrapper(dim_in=3, dim_out=5, max_seq_len=16, attn_layers=stack)
    mask = torch.ones(2, 7, dtype=torch.bool)
    assert model(vectors(2, 7, 3), mask=mask).shape == (2, 7, 5)
    free = x.ContinuousTransformerWrapper(
        dim_in=3, max_seq_len=None, use_abs_pos_emb=False, attn_layers=x.Encoder(**SIZES)
    )
    assert free(vectors(2, 40, 3)).shape == (2, 40, 32)


@program
def forecasts_vectors(x: Any) -> None:
    net = x.ContinuousTransformerWrapper(dim_in=3, dim_out=3, max_seq_len=16, attn_layers=x.Decoder(**SIZES))
    wrapper = import_module(f"{x.__name__}.continuous").ContinuousAutoregressiveWrapper(net)
    wrapper(vectors(2, 8, 3)).backward()
    assert wrapper.generate(vectors(2, 4, 3), 3).shape == (2, 3, 3)


@program
def classifies_images(x: Any) -> None:
    model = x.ViTransformerWrapper(
        image_size=16, patch_size=8, num_classes=10, attn_layers=x.Encoder(**SIZES), emb_dropout=0.1
    )
    assert model(vectors(2, 3, 16, 16)).shape == (2, 10)
    assert model(vectors(2, 3, 16, 16), return_embeddings=True).shape[0] == 2


@program
def captions_images(x: Any) -> None:
    encoder = x.ViTransformerWrapper(image_size=16, patch_size=8, attn_layers=x.Encoder(**SIZES))
    decoder = language_model(x, {"cross_attend": True})
    encoded = encoder(vectors(2, 3, 16, 16), return_embeddings=True)
    assert decoder(TOKENS, context=encoded).shape == (2, 12, 32)
    trainer = x.AutoregressiveWrapper(decoder)
    assert trainer.generate(TOKENS[:, :1], 4, context=encoded).shape == (2, 4)


@program
def fills_masked_tokens(x: Any) -> None:
    net = x.TransformerWrapper(num_tokens=33, max_seq_len=12, logits_dim=32, attn_layers=x.Encoder(**SIZES))
    model = x.NonAutoregressiveWrapper(net, mask_id=32, steps=3)
    model(TOKENS).loss.backward()
    assert model.generate(batch_size=2).shape == (2, 12)


@program
def keeps_a_copy(x: Any) -> None:
    import copy
    import io

    model = language_model(x)
    twin = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(twin.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file))
    assert torch.equal(model.eval()(TOKENS), twin.eval()(TOKENS))
