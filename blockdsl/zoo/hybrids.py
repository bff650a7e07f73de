"""Language models whose blocks carry a state along the sequence, alone or among attention."""

from __future__ import annotations

from .decoders import OWN, TIED
from .family import ModelFamily

lfm2 = ModelFamily(
    "arXiv:2511.23404",
    "dim heads inner",
    {"1.2b": (2048, 32, 8192), "350m": (1024, 16, 4608), "700m": (1536, 24, 6912)},
    f"""
    set dim={{dim}}, heads={{heads}}, attn_kv_heads=8, attn_qk_rmsnorm=head, attn_qk_rmsnorm_eps=1e-5, causal;
    set rotary_pos_emb, rotary_emb_dim=64, rotary_theta=1000000, use_rmsnorm, norm_eps=1e-5;
    set ff_inner={{inner}}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=65536, max_seq_len=128000, {TIED};
    ((conv f)*2 a f)*3 (conv f a f)*3 conv f
    """,
)

kimi_linear = ModelFamily(
    "arXiv:2510.26692",
    "",
    {"48b-a3b": ()},
    """
    set dim=2304, heads=32, attn_dim_head=192, attn_value_dim_head=128, attn_kv_rank=512, attn_shared_key_dim=64;
    set causal, use_abs_pos_emb=false, kda_heads=32, kda_dim_head=128, use_rmsnorm, norm_eps=1e-5;
    set ff_inner=9216, ff_glu, ff_swish, ff_no_bias, moe_experts=256, moe_top=8, moe_inner=1024, moe_glu;
    set moe_activation=silu, moe_no_bias, moe_router=sigmoid, moe_weight_scale=2.446, moe_correction_rate=0;
    set moe_balance_loss=0, moe_shared_inner=1024, num_tokens=163840, max_seq_len=1048576, logits_bias=false;
    kda f (kda e)*2 a e ((kda e)*3 a e)*5 (kda e)*2 a e
    """,
)

olmo_hybrid = ModelFamily(
    "Ai2, 2026",
    "",
    {"7b": ()},
    """
    set dim=3840, heads=30, attn_dim_head=128, attn_qk_rmsnorm=all, causal, use_abs_pos_emb=false;
    set gdn_heads=30, gdn_dim_head=96, gdn_value_dim_head=192, gdn_neg_eigval, use_rmsnorm, norm_eps=1e-6;
    set ff_inner=11008, ff_glu, ff_swish, ff_no_bias, num_tokens=100352, max_seq_len=65536, logits_bias=false;
    ((gdn f)*3 a(output_norm) f(output_norm))*8
    """,
)

qwen3_next = ModelFamily(
    "Qwen, 2025",
    "",
    {"80b-a3b": ()},
    """
    set dim=2048, heads=16, attn_dim_head=256, attn_kv_heads=2, attn_gate_values, attn_gate_bias=false, causal;
    set attn_qk_rmsnorm=head, rotary_pos_emb, rotary_emb_dim=64, rotary_theta=10000000;
    set gdn_heads=16, gdn_value_heads=32, gdn_dim_head=128, gdn_out_norm_eps=1e-6;
    set use_rmsnorm, norm_eps=1e-6, norm_unit_offset, moe_experts=512, moe_top=10, moe_inner=512, moe_glu;
    set moe_activation=silu, moe_no_bias, moe_shared_inner=512, moe_shared_gate, moe_balance_loss=0;
    set num_tokens=151936, max_seq_len=262144, logits_bias=false;
    ((gdn e)*3 a e)*12
    """,
)

recurrentgemma = ModelFamily(
    "arXiv:2404.07839",
    "dim heads inner repeats scale",
    {"2b": (2560, 10, 7680, 8, 50.5), "9b": (4096, 16, 12288, 12, 64)},
    f"""
    set dim={{dim}}, heads={{heads}}, attn_dim_head=256, attn_kv_heads=1, attn_out_bias, attn_max_attend_past=2047;
    set causal, rglru_heads={{heads}}, rotary_pos_emb, rotary_emb_dim=128;
    set use_rmsnorm, norm_eps=1e-6, norm_unit_offset, ff_inner={{inner}}, ff_glu, ff_activation=gelu_tanh;
    set num_tokens=256000, max_seq_len=8192, embed_scale={{scale}}, {TIED}, logits_softcap=30;
    ((rglru f)*2 a f)*{{repeats}} (rglru f)*2
    """,
)

mamba = ModelFamily(
    "arXiv:2312.00752",
    "dim depth",
    {"130m": (768, 24), "370m": (1024, 48), "790m": (1536, 48), "1.4b": (2048, 48), "2.8b": (2560, 64)},
    f"""
    set dim={{dim}}, causal, use_abs_pos_emb=false, use_rmsnorm, norm_eps=1e-5;
    set num_tokens=50280, max_seq_len=1048576, {TIED};
    mamba*{{depth}}
    """,
)

falcon_mamba = ModelFamily(
    "arXiv:2410.05355",
    "",
    {"7b": ()},
    f"""
    set dim=4096, mamba_rmsnorm=plain, causal, use_abs_pos_emb=false, use_rmsnorm, norm_eps=1e-5;
    set num_tokens=65024, max_seq_len=1048576, {OWN};
    mamba*64
    """,
)

jamba = ModelFamily(
    "arXiv:2403.19887",
    "",
    {"v0.1": ()},
    f"""
    set dim=4096, heads=32, attn_dim_head=128, attn_kv_heads=8, causal, mamba_rmsnorm=gain, use_abs_pos_emb=false;
    set use_rmsnorm, norm_eps=1e-6, ff_inner=14336, ff_glu, ff_swish, ff_no_bias;
    set moe_experts=16, moe_renormalise=false, moe_balance_loss=0.001;
    set moe_inner=14336, moe_glu, moe_activation=silu, moe_no_bias;
    set num_tokens=65536, max_seq_len=262144, {OWN};
    ((mamba f mamba e)*2 a f mamba e mamba f mamba e)*4
    """,
)

mamba2 = ModelFamily(
    "arXiv:2405.21060",
    "dim depth",
    {"130m": (768, 24), "370m": (1024, 48), "780m": (1536, 48), "1.3b": (2048, 48), "2.7b": (2560, 64)},
    f"""
    set dim={{dim}}, causal, use_abs_pos_emb=false, use_rmsnorm, norm_eps=1e-5;
    set num_tokens=50288, max_seq_len=1048576, {TIED};
    m*{{depth}}
    """,
)

nemotron_h = ModelFamily(
    "arXiv:2504.03624",
    "",
    {"8b": ()},
    f"""
    set dim=4096, heads=32, attn_dim_head=128, attn_kv_heads=8, causal, use_abs_pos_emb=false;
    set ssm_heads=128, ssm_groups=8, ssm_gated_norm=group, ssm_dt_limit_min=0.001, use_rmsnorm, norm_eps=1e-5;
    set ff_inner=21504, ff_relu_squared, ff_no_bias, num_tokens=131072, max_seq_len=8192, {OWN};
    (m f)*3 m a f ((m f)*4 m a f)*3 (m f)*5
    """,
)

bamba = ModelFamily(
    "IBM, 2024",
    "",
    {"9b": ()},
    f"""
    set dim=4096, heads=32, attn_dim_head=128, attn_kv_heads=8, causal, rotary_pos_emb, rotary_emb_dim=64;
    set ssm_heads=128, use_rmsnorm, norm_eps=1e-5, ff_inner=14336, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=128256, max_seq_len=262144, {OWN};
    (m f)*9 (a f (m f)*8)*2 a f (m f)*4
    """,
)

nemotron3 = ModelFamily(
    "arXiv:2512.20848",
    "",
    {"nano-30b-a3b": ()},
    f"""
    set dim=2688, heads=32, attn_dim_head=128, attn_kv_heads=2, causal, use_abs_pos_emb=false;
    set ssm_heads=64, ssm_inner=4096, ssm_groups=8, ssm_gated_norm=group, ssm_dt_limit_min=0.001;
    set use_rmsnorm, norm_eps=1e-5, moe_experts=128, moe_top=6, moe_inner=1856, moe_activation=relu_squared;
    set moe_no_bias, moe_router=sigmoid, moe_weight_scale=2.5, moe_correction_rate=0, moe_balance_loss=0;
    set moe_shared_inner=3712, num_tokens=131072, max_seq_len=262144, {OWN};
    ((m e)*2 m a e)*5 (m e)*3 m a e (m e)*4
    """,
)

_GRANITE4_EXPERTS = """
moe_experts={}, moe_top={}, moe_inner={}, moe_shared_inner={}, moe_glu, moe_gate_first;
    set moe_activation=silu, moe_no_bias, moe_balance_loss=0
""".strip()

granite4 = ModelFamily(
    "IBM, 2025",
    "dim heads dim_head kv scale ssm logits feedforward kind",
    {
        "h-micro": (
            *(2048, 32, 64, 8, 0.015625, 64, 0.125),
            *("ff_inner=8192, ff_glu, ff_gate_first, ff_swish, ff_no_bias", "f"),
        ),
        "h-tiny": (
            *(1536, 12, 128, 4, 0.0078125, 48, 0.16666666666666666),
            *(_GRANITE4_EXPERTS.format(64, 6, 512, 1024), "e"),
        ),
        "h-small": (
            *(4096, 32, 128, 8, 0.0078125, 128, 0.0625),
            *(_GRANITE4_EXPERTS.format(72, 10, 768, 1536), "e"),
        ),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_kv_heads={kv}, attn_qk_scale={scale};
    set causal, use_abs_pos_emb=false, ssm_heads={ssm}, branch_scale=0.22, use_rmsnorm, norm_eps=1e-5;
    set {feedforward};
    set num_tokens=100352, max_seq_len=131072, embed_scale=12, tie_embedding, logits_scale={logits};
    (m {kind})*5 a {kind} ((m {kind})*9 a {kind})*3 (m {kind})*4
    """,
)

falcon_h1 = ModelFamily(
    "arXiv:2507.22448",
    "",
    {"0.5b": ()},
    f"""
    set dim=1024, attn_kv_heads=2, attn_qk_scale=0.048828125, causal, rotary_pos_emb, rotary_emb_dim=64;
    set rotary_theta=1e11, ssm_inner=1536, ssm_gated_norm=none;
    set ssm_in_scales=(0.44194173824159, 0.3125, 0.44194173824159, 0.625, 0.44194173824159);
    set use_rmsnorm, norm_eps=1e-5, ff_inner=2048, ff_glu, ff_swish, ff_no_bias, ff_gate_scale=0.88388347648318;
    set num_tokens=32784, max_seq_len=16384, embed_scale=5.65685424949238, {OWN}, logits_scale=0.0390625;
    ((m(branch_scale=0.23570226039552) & a(shared_norm, branch_scale=0.9375)) f(branch_scale=0.5859375))*36
    """,
)


# A shared block reads the stream with the embedding beside it; the Mamba-2 after it reads what that gives, and x.
_ALONE = "scale_residual_constant=0"
_INTO = f"into = <x(linear) m({_ALONE}) <x;"
_SHARED = f"^x a(concat=e, {_ALONE})@a{{0}} f({_ALONE})@f{{0}} into;"

zamba2 = ModelFamily(
    "arXiv:2411.15242",
    "dim dim_head scale attention state shared layers",
    {
        "2.7b": (
            *(2560, 160, 0.11180339887498948, "use_abs_pos_emb=false", 64),
            f"one = {_SHARED.format(1)}\ntwo = {_SHARED.format(2)}",
            "m*6 (one m*5 two m*5)*3 one m*4 two m*3 one m*2",
        ),
        "1.2b": (
            *(2048, 128, 0.125, "attn_lora_rank=128, rotary_pos_emb, rotary_emb_dim=128", 128),
            f"one = {_SHARED.format('')}",
            "m*5 (one m*5)*5 one m*2",
        ),
    },
    f"""
    set dim={{dim}}, heads=32, attn_dim_head={{dim_head}}, attn_qk_scale={{scale}}, causal, {{attention}};
    set ssm_state={{state}}, ssm_dt_limit_min=0.001, use_rmsnorm, norm_eps=1e-5, ff_glu, ff_gate_first, ff_no_bias;
    set ff_lora_rank=128, num_tokens=32000, max_seq_len=4096, {TIED};
    {_INTO}
    {{shared}}
    ^e {{layers}}
    """,
)
