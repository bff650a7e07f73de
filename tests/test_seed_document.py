"""The models of the document that this project was made from, each as its users write it, in small sizes."""

from __future__ import annotations

import torch

from xt_blocks import (
    AutoregressiveWrapper,
    ContinuousAutoregressiveWrapper,
    ContinuousTransformerWrapper,
    CrossAttender,
    Decoder,
    Encoder,
    TransformerWrapper,
    ViTransformerWrapper,
    XTransformer,
)


def test_an_encoder_and_a_decoder_with_tied_token_embeddings() -> None:
    model = XTransformer(
        dim=32,
        enc_num_tokens=64,
        enc_depth=6,
        enc_heads=8,
        enc_max_seq_len=16,
        dec_num_tokens=64,
        dec_depth=6,
        dec_heads=8,
        dec_max_seq_len=16,
        tie_token_emb=True,
    )
    src = torch.randint(0, 64, (1, 16))
    src_mask = torch.ones_like(src).bool()
    tgt = torch.randint(0, 64, (1, 16))
    loss = model(src, tgt, mask=src_mask)
    loss.backward()
    assert loss.ndim == 0


def test_a_decoder_alone() -> None:
    model = TransformerWrapper(num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=12, heads=8))
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_gpt_3_on_the_meta_device() -> None:
    with torch.device("meta"):
        gpt3 = TransformerWrapper(
            num_tokens=50000, max_seq_len=2048, attn_layers=Decoder(dim=12288, depth=96, heads=96, attn_dim_head=128)
        )
    blocks = 96 * (4 * 12288**2 + 8 * 12288**2 + 5 * 12288 + 4 * 12288)  # maps, biases and norms
    around = 2 * 12288 + (2048 + 2 * 50000) * 12288 + 50000
    assert sum(parameter.numel() for parameter in gpt3.parameters()) == blocks + around == gpt3.graph.parameters()


def test_an_encoder_with_a_mask() -> None:
    model = TransformerWrapper(num_tokens=64, max_seq_len=16, attn_layers=Encoder(dim=32, depth=12, heads=8))
    x = torch.randint(0, 64, (1, 16))
    mask = torch.ones_like(x).bool()
    assert model(x, mask=mask).shape == (1, 16, 64)


def test_an_image_classifier() -> None:
    model = ViTransformerWrapper(
        image_size=256, patch_size=32, num_classes=1000, attn_layers=Encoder(dim=32, depth=6, heads=8)
    )
    img = torch.randn(1, 3, 256, 256)
    assert model(img).shape == (1, 1000)


def test_image_to_caption() -> None:
    encoder = ViTransformerWrapper(image_size=256, patch_size=32, attn_layers=Encoder(dim=32, depth=6, heads=8))
    decoder = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, cross_attend=True)
    )
    img = torch.randn(1, 3, 256, 256)
    caption = torch.randint(0, 64, (1, 16))
    encoded = encoder(img, return_embeddings=True)
    assert decoder(caption, context=encoded).shape == (1, 16, 64)


def test_images_in_front_of_a_prompt_as_in_pali() -> None:
    vit = ViTransformerWrapper(image_size=256, patch_size=32, attn_layers=Encoder(dim=32, depth=6, heads=8))
    pali = XTransformer(
        dim=32,
        enc_num_tokens=256,
        enc_depth=6,
        enc_heads=8,
        enc_max_seq_len=16,
        dec_num_tokens=256,
        dec_depth=6,
        dec_heads=8,
        dec_max_seq_len=16,
    )
    img = torch.randn(1, 3, 256, 256)
    prompt = torch.randint(0, 256, (1, 16))
    prompt_mask = torch.ones(1, 16).bool()
    output_text = torch.randint(0, 256, (1, 16))
    img_embeds = vit(img, return_embeddings=True)
    loss = pali(prompt, output_text, mask=prompt_mask, src_prepend_embeds=img_embeds)
    loss.backward()
    assert loss.ndim == 0


def test_dropout_of_embeddings_layers_attention_and_feedforwards() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        emb_dropout=0.1,
        attn_layers=Decoder(dim=32, depth=6, heads=8, layer_dropout=0.1, attn_dropout=0.1, ff_dropout=0.1),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_memory_keys_and_values() -> None:
    enc = Encoder(dim=32, depth=6, heads=8, attn_num_mem_kv=16)
    assert enc(torch.randn(1, 16, 32)).shape == (1, 16, 32)


def test_memory_tokens() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, num_memory_tokens=20, attn_layers=Encoder(dim=32, depth=6, heads=8)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_scalenorm() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, use_scalenorm=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_embeddings_of_unit_length() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, l2norm_embed=True, attn_layers=Decoder(dim=32, depth=6, heads=8)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_a_norm_behind_the_embedding() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, post_emb_norm=True, attn_layers=Decoder(dim=32, depth=6, heads=8)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_rmsnorm() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, use_rmsnorm=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_a_gated_feedforward() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, ff_glu=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_a_swish_gated_feedforward() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, ff_swish=True, ff_glu=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_feedforwards_without_bias() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, ff_no_bias=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_relu_squared() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, ff_relu_squared=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_sparse_attention() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, attn_sparse_topk=8)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_talking_heads() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, attn_talking_heads=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_one_head_of_keys_and_values() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, attn_one_kv_head=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_attention_on_attention() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Encoder(dim=32, depth=6, heads=8, attn_on_attn=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_gated_values() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Encoder(dim=32, depth=6, heads=8, attn_gate_values=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_the_sandwich_order() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Encoder(dim=32, depth=6, heads=8, sandwich_coef=6)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_macaron() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Encoder(dim=32, depth=6, heads=8, macaron=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_t5_bias() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, rel_pos_bias=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_residual_attention() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Encoder(dim=32, depth=6, heads=8, pre_norm=False, residual_attn=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_residual_cross_attention() -> None:
    model = XTransformer(
        dim=32,
        enc_num_tokens=64,
        enc_depth=6,
        enc_heads=8,
        enc_max_seq_len=16,
        dec_num_tokens=64,
        dec_depth=6,
        dec_heads=8,
        dec_max_seq_len=16,
        dec_cross_residual_attn=True,
    )
    src, tgt = torch.randint(0, 64, (1, 16)), torch.randint(0, 64, (1, 12))
    assert model(src, tgt).ndim == 0
    assert model.generate(src, tgt[:, :1], 5).shape == (1, 5)


def test_deepnorm() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(deepnorm=True, dim=32, depth=6, heads=8)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_memories_of_segments() -> None:
    model_xl = TransformerWrapper(
        num_tokens=64, max_seq_len=32, max_mem_len=24, attn_layers=Decoder(dim=32, depth=6, heads=8, rel_pos_bias=True)
    )
    seg1 = torch.randint(0, 64, (1, 32))
    seg2 = torch.randint(0, 64, (1, 32))
    seg3 = torch.randint(0, 64, (1, 32))
    _, mems1 = model_xl(seg1, return_mems=True)
    _, mems2 = model_xl(seg2, mems=mems1, return_mems=True)
    logits3, mems3 = model_xl(seg3, mems=mems2, return_mems=True)
    assert logits3.shape == (1, 32, 64)
    assert mems3.length == 24


def test_memories_read_one_layer_down() -> None:
    model_xl = TransformerWrapper(
        num_tokens=64,
        max_seq_len=32,
        max_mem_len=24,
        shift_mem_down=1,
        attn_layers=Decoder(dim=32, depth=6, heads=8, rotary_pos_emb=True),
    )
    seg1 = torch.randint(0, 64, (1, 32))
    seg2 = torch.randint(0, 64, (1, 32))
    _, mems1 = model_xl(seg1, return_mems=True)
    logits2, mems2 = model_xl(seg2, mems=mems1, return_mems=True)
    assert logits2.shape == (1, 32, 64)
    assert mems2.length == 24


def test_gated_residuals() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        max_mem_len=24,
        attn_layers=Decoder(dim=32, depth=6, heads=16, gate_residual=True),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_rotary_positions() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, rotary_pos_emb=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_xpos() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, rotary_xpos=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_dynamic_position_bias() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        attn_layers=Decoder(dim=32, depth=6, heads=8, dynamic_pos_bias=True, dynamic_pos_bias_log_distance=False),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_alibi_on_half_of_the_heads() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        attn_layers=Decoder(dim=32, depth=6, heads=8, alibi_pos_bias=True, alibi_num_heads=4),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_token_shift() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, shift_tokens=1)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_token_shift_of_each_block() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        attn_layers=Decoder(dim=32, depth=6, heads=8, shift_tokens=(1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0)),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_sandwich_norm() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, sandwich_norm=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_head_scale() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, attn_head_scale=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_a_norm_behind_the_activation() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, ff_post_act_ln=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_scaled_residuals() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=6, heads=8, scale_residual=True)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_qk_norm_in_groups() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        attn_layers=Decoder(dim=32, depth=6, heads=8, attn_qk_norm=True, attn_qk_norm_groups=8),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_qk_norm_with_a_fixed_scale() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        attn_layers=Decoder(dim=32, depth=6, heads=8, attn_qk_norm=True, attn_qk_norm_scale=10),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_qk_norm_with_a_learned_scale() -> None:
    model = TransformerWrapper(
        num_tokens=64,
        max_seq_len=16,
        attn_layers=Decoder(dim=32, depth=12, heads=8, attn_qk_norm=True, attn_qk_norm_dim_scale=True),
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_no_absolute_positions() -> None:
    model = TransformerWrapper(
        num_tokens=64, max_seq_len=16, use_abs_pos_emb=False, attn_layers=Decoder(dim=32, depth=6, heads=8)
    )
    x = torch.randint(0, 64, (1, 16))
    assert model(x).shape == (1, 16, 64)


def test_forgetful_causal_masking() -> None:
    model = TransformerWrapper(num_tokens=64, max_seq_len=16, attn_layers=Decoder(dim=32, depth=12, heads=8))
    model = AutoregressiveWrapper(model, mask_prob=0.15)
    x = torch.randint(0, 64, (1, 16))
    loss = model(x)
    loss.backward()
    assert loss.ndim == 0


def test_cross_attention_to_neighbours() -> None:
    enc = Encoder(dim=32, depth=6)
    model = CrossAttender(dim=32, depth=6)
    nodes = torch.randn(1, 1, 32)
    node_masks = torch.ones(1, 1).bool()
    neighbors = torch.randn(1, 5, 32)
    neighbor_masks = torch.ones(1, 5).bool()
    encoded_neighbors = enc(neighbors, mask=neighbor_masks)
    out = model(nodes, context=encoded_neighbors, mask=node_masks, context_mask=neighbor_masks)
    assert out.shape == (1, 1, 32)


def test_continuous_values() -> None:
    model = ContinuousTransformerWrapper(
        dim_in=32, dim_out=100, max_seq_len=16, attn_layers=Decoder(dim=32, depth=12, heads=8)
    )
    x = torch.randn((1, 16, 32))
    assert model(x).shape == (1, 16, 100)


def test_continuous_values_one_after_another() -> None:
    model = ContinuousTransformerWrapper(
        dim_in=7, dim_out=7, max_seq_len=16, attn_layers=Decoder(dim=32, depth=12, heads=8)
    )
    model = ContinuousAutoregressiveWrapper(model)
    x = torch.randn((1, 16, 7))
    mask = torch.ones(1, 16).bool()
    loss = model(x, mask=mask)
    loss.backward()
    start_emb = torch.randn(1, 7)
    generated = model.generate(start_emb, 17)
    assert generated.shape == (17, 7)
