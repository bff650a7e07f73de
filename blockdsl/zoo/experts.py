"""Language models whose feedforwards are mixtures of experts."""

from __future__ import annotations

from .decoders import OWN
from .family import ModelFamily

_LATENT = "attn_dim_head=192, attn_value_dim_head=128, attn_kv_rank=512, attn_shared_key_dim=64, causal"
_YARN = "rotary_scaling=yarn, rotary_factor=40, rotary_original_len=4096, rotary_attention_factor=1, max_seq_len=163840"

deepseek_v2 = ModelFamily(
    "arXiv:2405.04434",
    "dim heads q_rank depth inner experts expert groups top_groups scale",
    {
        "236b": (5120, 128, 1536, 59, 12288, 160, 1536, 8, 3, 16),
        "lite": (2048, 16, "none", 26, 10944, 64, 1408, 1, 1, 1),
    },
    f"""
    set dim={{dim}}, heads={{heads}}, {_LATENT}, attn_q_rank={{q_rank}}, attn_qk_scale=0.11472150;
    set rotary_pos_emb, rotary_interleaved, rotary_emb_dim=64, {_YARN};
    set use_rmsnorm, norm_eps=1e-6, ff_inner={{inner}}, ff_glu, ff_swish, ff_no_bias;
    set moe_experts={{experts}}, moe_top=6, moe_inner={{expert}}, moe_shared_inner={{shared}};
    set moe_glu, moe_activation=silu, moe_no_bias, moe_renormalise=false, moe_weight_scale={{scale}};
    set moe_balance_loss=0.001, moe_groups={{groups}}, moe_top_groups={{top_groups}}, moe_group_best=1;
    set num_tokens=102400, {OWN};
    a f (a e)*{{depth}}
    """,
)
