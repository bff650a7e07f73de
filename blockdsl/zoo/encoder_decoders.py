"""Models of an encoder and a decoder."""

from __future__ import annotations

from .family import ModelFamily

_T5 = """
    set dim={dim}, heads={heads}, {wide}attn_qk_scale=1, rel_pos_bias, rel_pos_scale=1;
    set use_rmsnorm, norm_eps=1e-6, ff_inner={inner}, {ff}, ff_no_bias;
    set num_tokens=32128, max_seq_len=0, tie_token_emb, {logits};
    (a f)*{depth} => (a c f)*{depth}
    """


def _t5(wide: str, ff: str, logits: str) -> str:
    return _T5.replace("{wide}", wide).replace("{ff}", ff).replace("{logits}", logits)


t5 = ModelFamily(
    "arXiv:1910.10683",
    "dim heads dim_head inner depth",
    {
        "small": (512, 8, 64, 2048, 6),
        "base": (768, 12, 64, 3072, 12),
        "large": (1024, 16, 64, 4096, 24),
        "3b": (1024, 32, 128, 16384, 24),
        "11b": (1024, 128, 128, 65536, 24),
    },
    _t5("attn_dim_head={dim_head}, ", "ff_activation=relu", "tie_embedding"),
)

t5_1_1 = ModelFamily(
    "arXiv:2002.05202",
    "dim heads inner depth",
    {
        "small": (512, 6, 1024, 8),
        "base": (768, 12, 2048, 12),
        "large": (1024, 16, 2816, 24),
        "xl": (2048, 32, 5120, 24),
        "xxl": (4096, 64, 10240, 24),
    },
    _t5("", "ff_glu, ff_activation=gelu_tanh", "logits_bias=false"),
)

bart = ModelFamily(
    "arXiv:1910.13461",
    "dim heads depth",
    {"base": (768, 12, 6), "large": (1024, 16, 12)},
    """
    set dim={dim}, heads={heads}, attn_qkv_bias, attn_out_bias, pre_norm=false;
    set num_tokens=50265, max_seq_len=1024, pos_offset=2, post_emb_norm;
    set tie_token_emb, tie_embedding, logits_scale=1;
    (a f)*{depth} => (a c f)*{depth}
    """,
)

whisper = ModelFamily(
    "arXiv:2212.04356",
    "dim heads depth",
    {
        "tiny": (384, 6, 4),
        "base": (512, 8, 6),
        "small": (768, 12, 12),
        "medium": (1024, 16, 24),
        "large": (1280, 20, 32),
    },
    """
    set dim={dim}, heads={heads}, attn_qkv_bias, attn_k_bias=false, attn_out_bias;
    set enc_dim_in=80, enc_conv_stem, enc_max_seq_len=1500;
    set dec_num_tokens=51865, dec_max_seq_len=448, tie_embedding, logits_scale=1;
    (a f)*{depth} => (a c f)*{depth}
    """,
)
