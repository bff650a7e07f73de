"""Language models whose feedforwards are mixtures of experts."""

from __future__ import annotations

from .decoders import OWN
from .family import ModelFamily

_LATENT = """
    set attn_dim_head=192, attn_value_dim_head=128, attn_kv_rank=512, attn_shared_key_dim=64, causal, use_rmsnorm;
    set rotary_pos_emb, rotary_interleaved, rotary_emb_dim=64, rotary_scaling=yarn, rotary_factor=40;
    set rotary_original_len=4096, rotary_attention_factor=1, max_seq_len=163840, norm_eps=1e-6;
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias, moe_glu, moe_activation=silu, moe_no_bias;
""".strip()

deepseek_v2 = ModelFamily(
    "arXiv:2405.04434",
    "dim heads rank depth inner experts expert shared weighted",
    {
        "236b": (
            *(5120, 128, ", attn_q_rank=1536", 59, 12288, 160, 1536, 3072),
            ", moe_weight_scale=16, moe_groups=8, moe_top_groups=3, moe_group_best=1",
        ),
        "lite": (2048, 16, "", 26, 10944, 64, 1408, 2816, ""),
    },
    f"""
    set dim={{dim}}, heads={{heads}}{{rank}}, attn_qk_scale=0.11472138679292611;
    {_LATENT}
    set moe_experts={{experts}}, moe_top=6, moe_inner={{expert}}, moe_shared_inner={{shared}}, moe_renormalise=false;
    set moe_balance_loss=0.001{{weighted}};
    set num_tokens=102400, {OWN};
    a f (a e)*{{depth}}
    """,
)

deepseek_v3 = ModelFamily(
    "arXiv:2412.19437",
    "inner",
    {"671b": (18432,)},
    f"""
    set dim=7168, heads=128, attn_q_rank=1536, attn_qk_scale=0.1352337788608801;
    {_LATENT}
    set moe_experts=256, moe_top=8, moe_inner=2048, moe_shared_inner=2048, moe_router=sigmoid, moe_weight_scale=2.5;
    set moe_correction_rate=0, moe_balance_loss=0, moe_groups=8, moe_top_groups=4;
    set num_tokens=129280, {OWN};
    (a f)*3 (a e)*58
    """,
)

mixtral = ModelFamily(
    "arXiv:2401.04088",
    "dim heads inner length depth",
    {"8x7b": (4096, 32, 14336, 32768, 32), "8x22b": (6144, 48, 16384, 65536, 56)},
    f"""
    set dim={{dim}}, heads={{heads}}, attn_dim_head=128, attn_kv_heads=8, causal, use_rmsnorm, norm_eps=1e-5;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_theta=1000000, max_seq_len={{length}};
    set moe_inner={{inner}}, moe_glu, moe_activation=silu, moe_no_bias, moe_balance_loss=0;
    set num_tokens=32000, {OWN};
    (a e)*{{depth}}
    """,
)

qwen3_moe = ModelFamily(
    "arXiv:2505.09388",
    "dim heads inner depth",
    {"30b_a3b": (2048, 32, 768, 48), "235b_a22b": (4096, 64, 1536, 94)},
    f"""
    set dim={{dim}}, heads={{heads}}, attn_dim_head=128, attn_kv_heads=4, attn_qk_rmsnorm=head, causal;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_theta=1000000, use_rmsnorm, norm_eps=1e-6;
    set moe_experts=128, moe_top=8, moe_inner={{inner}}, moe_glu, moe_activation=silu, moe_no_bias, moe_balance_loss=0;
    set num_tokens=151936, max_seq_len=40960, {OWN};
    (a e)*{{depth}}
    """,
)

gpt_oss = ModelFamily(
    "arXiv:2508.10925",
    "experts depth",
    {"20b": (32, 12), "120b": (128, 18)},
    f"""
    set dim=2880, heads=64, attn_kv_heads=8, attn_sink, attn_qkv_bias, attn_out_bias, causal;
    set rotary_pos_emb, rotary_emb_dim=64, rotary_theta=150000, rotary_scaling=yarn, rotary_factor=32;
    set rotary_original_len=4096, rotary_truncate=false, max_seq_len=131072, use_rmsnorm, norm_eps=1e-5;
    set moe_experts={{experts}}, moe_top=4, moe_inner=2880, moe_glu, moe_gate_first, moe_activation=quick_gelu;
    set moe_glu_limit=7, moe_glu_offset=1, moe_router_bias, moe_balance_loss=0, num_tokens=201088, {OWN};
    (a(max_attend_past=127) e a e)*{{depth}}
    """,
)
