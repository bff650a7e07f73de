"""Encoders of text and of images."""

from __future__ import annotations

from .family import ModelFamily

bert = ModelFamily(
    "arXiv:1810.04805",
    "dim heads dim_head depth",
    {"base": (768, 12, 64, 12), "large": (1024, 16, 64, 24), "minilm-l6": (384, 12, 32, 6)},
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_qkv_bias, attn_out_bias;
    set pre_norm=false, norm_eps=1e-12;
    set num_tokens=30522, num_token_types=2, max_seq_len=512, post_emb_norm, return_only_embed, pooler;
    (a f)*{depth}
    """,
)

distilbert = ModelFamily(
    "arXiv:1910.01108",
    "",
    {"base": ()},
    """
    set dim=768, heads=12, attn_qkv_bias, attn_out_bias, pre_norm=false, norm_eps=1e-12;
    set num_tokens=30522, max_seq_len=512, post_emb_norm, return_only_embed;
    (a f)*6
    """,
)

roberta = ModelFamily(
    "arXiv:1907.11692",
    "dim heads depth",
    {"base": (768, 12, 12), "large": (1024, 16, 24)},
    """
    set dim={dim}, heads={heads}, attn_qkv_bias, attn_out_bias, pre_norm=false;
    set num_tokens=50265, num_token_types=1, max_seq_len=512, pos_offset=2, post_emb_norm, return_only_embed, pooler;
    (a f)*{depth}
    """,
)

albert = ModelFamily(
    "arXiv:1909.11942",
    "dim heads depth",
    {"base": (768, 12, 12), "large": (1024, 16, 24), "xlarge": (2048, 16, 24), "xxlarge": (4096, 64, 12)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=none, attn_qkv_bias, attn_out_bias, pre_norm=false, norm_eps=1e-12;
    set ff_activation=gelu_tanh, num_tokens=30000, num_token_types=2, max_seq_len=512, emb_dim=128;
    set post_emb_norm, return_only_embed, pooler;
    (a@attention f@feedforward)*{depth}
    """,
)

electra = ModelFamily(
    "arXiv:2003.10555",
    "dim heads emb depth",
    {"small": (256, 4, 128, 12), "base": (768, 12, 768, 12), "large": (1024, 16, 1024, 24)},
    """
    set dim={dim}, heads={heads}, attn_qkv_bias, attn_out_bias, pre_norm=false, norm_eps=1e-12;
    set num_tokens=30522, num_token_types=2, max_seq_len=512, emb_dim={emb}, post_emb_norm, return_only_embed;
    (a f)*{depth}
    """,
)

modernbert = ModelFamily(
    "arXiv:2412.13663",
    "dim heads inner groups",
    {"base": (768, 12, 1152, 7), "large": (1024, 16, 2624, 9)},
    """
    set dim={dim}, heads={heads}, rotary_pos_emb, rotary_emb_dim=64, norm_bias=false;
    set ff_inner={inner}, ff_glu, ff_no_bias;
    set num_tokens=50368, max_seq_len=8192, post_emb_norm, tie_embedding, logits_scale=1, logits_bias;
    set logits_transform=gelu, logits_transform_bias=false;
    local = a(max_attend_past=64, max_attend_future=64) f;
    global = a(rotary_theta=160000) f;
    a(norm=false, rotary_theta=160000) f (local*2 global)*{groups}
    """,
)

vit = ModelFamily(
    "arXiv:2010.11929",
    "dim heads dim_head patch depth",
    {"base-16": (768, 12, 64, 16, 12), "large-16": (1024, 16, 64, 16, 24), "huge-14": (1280, 16, 80, 14, 32)},
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_qkv_bias, attn_out_bias, norm_eps=1e-6;
    set image_size=224, patch_size={patch}, patch_norm=false, class_token, pool=first, num_classes=1000;
    (a f)*{depth}
    """,
)

dinov2 = ModelFamily(
    "arXiv:2304.07193",
    "dim heads ff depth",
    {
        "small": (384, 6, "", 12),
        "base": (768, 12, "", 12),
        "large": (1024, 16, "", 24),
        "giant": (1536, 24, ", ff_inner=4096, ff_glu, ff_swish", 40),
    },
    """
    set dim={dim}, heads={heads}, attn_qkv_bias, attn_out_bias, norm_eps=1e-6, layer_scale=1{ff};
    set image_size=518, patch_size=14, patch_norm=false, class_token, mask_token;
    (a f)*{depth}
    """,
)

clip_vision = ModelFamily(
    "arXiv:2103.00020",
    "dim heads patch depth out",
    {"base-32": (768, 12, 32, 12, 512), "base-16": (768, 12, 16, 12, 512), "large-14": (1024, 16, 14, 24, 768)},
    """
    set dim={dim}, heads={heads}, attn_qkv_bias, attn_out_bias, ff_activation=quick_gelu;
    set image_size=224, patch_size={patch}, patch_norm=false, patch_bias=false, class_token, post_emb_norm;
    set pool=first, dim_out={out}, dim_out_bias=false;
    (a f)*{depth}
    """,
)

siglip_vision = ModelFamily(
    "arXiv:2303.15343",
    "dim heads size depth",
    {"base-224": (768, 12, 224, 12), "large-256": (1024, 16, 256, 24)},
    """
    set dim={dim}, heads={heads}, attn_qkv_bias, attn_out_bias, norm_eps=1e-6, ff_activation=gelu_tanh;
    set image_size={size}, patch_size=16, patch_norm=false;
    set pool=attention, pool_heads={heads}, pool_activation=gelu_tanh;
    (a f)*{depth}
    """,
)
