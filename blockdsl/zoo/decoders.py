"""Language models: decoders that give the next token."""

from __future__ import annotations

from .family import ModelFamily

TIED = "tie_embedding, logits_scale=1"  # logits by the embedding's vectors as they are
OWN = "logits_bias=false"  # logits by a matrix of their own

gpt2 = ModelFamily(
    "Radford et al., 2019",
    "dim heads depth",
    {"small": (768, 12, 12), "medium": (1024, 16, 24), "large": (1280, 20, 36), "xl": (1600, 25, 48)},
    """
    set dim={dim}, heads={heads}, causal, attn_qkv_bias, attn_out_bias, ff_activation=gelu_tanh;
    set num_tokens=50257, max_seq_len=1024, tie_embedding, logits_scale=1;
    (a f)*{depth}
    """,
)

gptj = ModelFamily(
    "Wang & Komatsuzaki, 2021",
    "",
    {"6b": ()},
    """
    set dim=4096, heads=16, attn_dim_head=256, causal, shared_norm, ff_activation=gelu_tanh;
    set rotary_pos_emb, rotary_emb_dim=64, rotary_interleaved, num_tokens=50400, max_seq_len=2048;
    (a & f)*28
    """,
)

pythia = ModelFamily(
    "arXiv:2304.01373",
    "dim heads dim_head rotary depth tokens",
    {
        "70m": (512, 8, 64, 16, 6, 50304),
        "160m": (768, 12, 64, 16, 12, 50304),
        "410m": (1024, 16, 64, 16, 24, 50304),
        "1b": (2048, 8, 256, 64, 16, 50304),
        "1.4b": (2048, 16, 128, 32, 24, 50304),
        "2.8b": (2560, 32, 80, 20, 32, 50304),
        "6.9b": (4096, 32, 128, 32, 32, 50432),
        "12b": (5120, 40, 128, 32, 36, 50688),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, causal, attn_qkv_bias, attn_out_bias;
    set rotary_pos_emb, rotary_emb_dim={rotary}, num_tokens={tokens}, max_seq_len=2048, logits_bias=false;
    (a & f)*{depth}
    """,
)

phi = ModelFamily(
    "arXiv:2309.05463",
    "dim dim_head depth",
    {"2": (2560, 80, 32), "1.5": (2048, 64, 24)},
    """
    set dim={dim}, heads=32, attn_dim_head={dim_head}, causal, shared_norm, attn_qkv_bias, attn_out_bias;
    set ff_activation=gelu_tanh, rotary_pos_emb, rotary_emb_dim=32, num_tokens=51200, max_seq_len=2048;
    (a & f)*{depth}
    """,
)

phi3 = ModelFamily(
    "arXiv:2404.14219",
    "dim heads kv dim_head inner depth",
    {"mini": (3072, 32, "none", 96, 8192, 32), "medium": (5120, 40, 10, 128, 17920, 40)},
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_kv_heads={kv}, attn_max_attend_past=2046, causal;
    set rotary_pos_emb, rotary_emb_dim={dim_head}, use_rmsnorm, norm_eps=1e-5;
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias, num_tokens=32064, max_seq_len=4096, logits_bias=false;
    (a f)*{depth}
    """,
)

bloom = ModelFamily(
    "arXiv:2211.05100",
    "dim heads dim_head depth",
    {
        "560m": (1024, 16, 64, 24),
        "1b1": (1536, 16, 96, 24),
        "1b7": (2048, 16, 128, 24),
        "3b": (2560, 32, 80, 30),
        "7b1": (4096, 32, 128, 30),
        "176b": (14336, 112, 128, 70),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, causal, attn_qkv_bias, attn_out_bias, alibi_pos_bias;
    set ff_activation=gelu_tanh, num_tokens=250880, max_seq_len=0, post_emb_norm, tie_embedding, logits_scale=1;
    (a f)*{depth}
    """,
)

opt = ModelFamily(
    "arXiv:2205.01068",
    "dim heads dim_head depth",
    {
        "125m": (768, 12, 64, 12),
        "1.3b": (2048, 32, 64, 24),
        "2.7b": (2560, 32, 80, 32),
        "6.7b": (4096, 32, 128, 32),
        "13b": (5120, 40, 128, 40),
        "30b": (7168, 56, 128, 48),
        "66b": (9216, 72, 128, 64),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, causal, attn_qkv_bias, attn_out_bias, ff_activation=relu;
    set num_tokens=50272, max_seq_len=2048, pos_offset=2, tie_embedding, logits_scale=1;
    (a f)*{depth}
    """,
)

mpt = ModelFamily(
    "MosaicML, 2023",
    "dim heads length depth",
    {"7b": (4096, 32, 2048, 32), "30b": (7168, 64, 8192, 48)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=none, causal, alibi_pos_bias, norm_bias=false, ff_no_bias;
    set num_tokens=50432, max_seq_len={length}, use_abs_pos_emb=false, tie_embedding, logits_scale=1;
    (a f)*{depth}
    """,
)

falcon = ModelFamily(
    "arXiv:2311.16867",
    "dim heads kv shared depth",
    {"7b": (4544, 71, 1, ", shared_norm", 32), "40b": (8192, 128, 8, "", 60)},
    """
    set dim={dim}, heads={heads}, attn_kv_heads={kv}, causal, rotary_pos_emb, rotary_emb_dim=64, ff_no_bias{shared};
    set num_tokens=65024, max_seq_len=2048, tie_embedding, logits_scale=1;
    (a & f)*{depth}
    """,
)

palm = ModelFamily(
    "arXiv:2204.02311",
    "dim heads depth",
    {"540b": (18432, 48, 118), "62b": (8192, 32, 64), "8b": (4096, 16, 32)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=256, attn_one_kv_head, causal, shared_norm, norm_bias=false;
    set rotary_pos_emb, rotary_emb_dim=256, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=256000, max_seq_len=2048, tie_embedding;
    (a & f)*{depth}
    """,
)

llama = ModelFamily(
    "arXiv:2302.13971",
    "dim heads inner depth",
    {
        "7b": (4096, 32, 11008, 32),
        "13b": (5120, 40, 13824, 40),
        "30b": (6656, 52, 17920, 60),
        "65b": (8192, 64, 22016, 80),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, causal, rotary_pos_emb, rotary_emb_dim=128;
    set use_rmsnorm, norm_eps=1e-6, ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=32000, max_seq_len=2048, logits_bias=false;
    (a f)*{depth}
    """,
)

llama2 = ModelFamily(
    "arXiv:2307.09288",
    "dim heads kv inner depth",
    {"7b": (4096, 32, "none", 11008, 32), "13b": (5120, 40, "none", 13824, 40), "70b": (8192, 64, 8, 28672, 80)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, attn_kv_heads={kv}, causal, rotary_pos_emb, rotary_emb_dim=128;
    set use_rmsnorm, norm_eps=1e-5, ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=32000, max_seq_len=4096, logits_bias=false;
    (a f)*{depth}
    """,
)

llama3 = ModelFamily(
    "arXiv:2407.21783",
    "dim heads inner depth",
    {"8b": (4096, 32, 14336, 32), "70b": (8192, 64, 28672, 80)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, attn_kv_heads=8, causal;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_theta=500000;
    set use_rmsnorm, norm_eps=1e-5, ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=128256, max_seq_len=8192, logits_bias=false;
    (a f)*{depth}
    """,
)

llama3_1 = ModelFamily(
    "arXiv:2407.21783",
    "dim heads inner depth",
    {"8b": (4096, 32, 14336, 32), "70b": (8192, 64, 28672, 80), "405b": (16384, 128, 53248, 126)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, attn_kv_heads=8, causal;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_theta=500000, rotary_scaling=llama3, rotary_factor=8;
    set rotary_original_len=8192, use_rmsnorm, norm_eps=1e-5, ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=128256, max_seq_len=131072, logits_bias=false;
    (a f)*{depth}
    """,
)

llama3_2 = ModelFamily(
    "arXiv:2407.21783",
    "dim heads dim_head depth",
    {"1b": (2048, 32, 64, 16), "3b": (3072, 24, 128, 28)},
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_kv_heads=8, causal;
    set rotary_pos_emb, rotary_emb_dim={dim_head}, rotary_theta=500000, rotary_scaling=llama3, rotary_factor=32;
    set rotary_original_len=8192, use_rmsnorm, norm_eps=1e-5, ff_inner=8192, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=128256, max_seq_len=131072, tie_embedding, logits_scale=1;
    (a f)*{depth}
    """,
)

mistral = ModelFamily(
    "arXiv:2310.06825",
    "",
    {"7b": ()},
    """
    set dim=4096, heads=32, attn_dim_head=128, attn_kv_heads=8, attn_max_attend_past=4095, causal;
    set rotary_pos_emb, rotary_emb_dim=128, use_rmsnorm, norm_eps=1e-5;
    set ff_inner=14336, ff_glu, ff_swish, ff_no_bias, num_tokens=32000, max_seq_len=32768, logits_bias=false;
    (a f)*32
    """,
)

qwen2 = ModelFamily(
    "arXiv:2407.10671",
    "dim heads dim_head kv inner eps tokens logits depth",
    {
        "0.5b": (896, 14, 64, 2, 4864, "1e-6", 151936, TIED, 24),
        "1.5b": (1536, 12, 128, 2, 8960, "1e-6", 151936, TIED, 28),
        "7b": (3584, 28, 128, 4, 18944, "1e-6", 152064, OWN, 28),
        "72b": (8192, 64, 128, 8, 29568, "1e-5", 152064, OWN, 80),
    },
    QWEN2 := """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_kv_heads={kv}, attn_qkv_bias, causal;
    set rotary_pos_emb, rotary_emb_dim={dim_head}, rotary_theta=1000000, use_rmsnorm, norm_eps={eps};
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias, num_tokens={tokens}, max_seq_len=32768, {logits};
    (a f)*{depth}
    """,
)

qwen2_5 = ModelFamily(
    "arXiv:2412.15115",
    "dim heads dim_head kv inner eps tokens logits depth",
    {
        "0.5b": (896, 14, 64, 2, 4864, "1e-6", 151936, TIED, 24),
        "1.5b": (1536, 12, 128, 2, 8960, "1e-6", 151936, TIED, 28),
        "3b": (2048, 16, 128, 2, 11008, "1e-6", 151936, TIED, 36),
        "7b": (3584, 28, 128, 4, 18944, "1e-6", 152064, OWN, 28),
        "14b": (5120, 40, 128, 8, 13824, "1e-5", 152064, OWN, 48),
        "32b": (5120, 40, 128, 8, 27648, "1e-5", 152064, OWN, 64),
        "72b": (8192, 64, 128, 8, 29568, "1e-5", 152064, OWN, 80),
    },
    QWEN2,
)

qwen3 = ModelFamily(
    "arXiv:2505.09388",
    "dim heads inner logits depth",
    {
        "0.6b": (1024, 16, 3072, TIED, 28),
        "1.7b": (2048, 16, 6144, TIED, 28),
        "4b": (2560, 32, 9728, TIED, 36),
        "8b": (4096, 32, 12288, OWN, 36),
        "14b": (5120, 40, 17408, OWN, 40),
        "32b": (5120, 64, 25600, OWN, 64),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, attn_kv_heads=8, attn_qk_rmsnorm=head, causal;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_theta=1000000, use_rmsnorm, norm_eps=1e-6;
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias, num_tokens=151936, max_seq_len=40960, {logits};
    (a f)*{depth}
    """,
)

gemma = ModelFamily(
    "arXiv:2403.08295",
    "dim heads kv inner depth",
    {"2b": (2048, 8, 1, 16384, 18), "7b": (3072, 16, "none", 24576, 28)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=256, attn_kv_heads={kv}, causal;
    set rotary_pos_emb, rotary_emb_dim=256, use_rmsnorm, norm_eps=1e-6, norm_unit_offset;
    set ff_inner={inner}, ff_glu, ff_activation=gelu_tanh, ff_no_bias;
    set num_tokens=256000, max_seq_len=8192, embed_scale={root}, tie_embedding, logits_scale=1;
    (a f)*{depth}
    """,
)

gemma2 = ModelFamily(
    "arXiv:2408.00118",
    "dim heads kv dim_head scale inner depth",
    {
        "2b": (2304, 8, 4, 256, 256**-0.5, 9216, 13),
        "9b": (3584, 16, 8, 256, 256**-0.5, 14336, 21),
        "27b": (4608, 32, 16, 128, 144**-0.5, 36864, 23),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_kv_heads={kv}, attn_qk_scale={scale}, causal;
    set attn_softcap=50, rotary_pos_emb, rotary_emb_dim={dim_head};
    set use_rmsnorm, norm_eps=1e-6, norm_unit_offset, sandwich_norm;
    set ff_inner={inner}, ff_glu, ff_activation=gelu_tanh, ff_no_bias;
    set num_tokens=256000, max_seq_len=8192, embed_scale={root}, tie_embedding, logits_scale=1, logits_softcap=30;
    (a(max_attend_past=4095) f a f)*{depth}
    """,
)

gemma3 = ModelFamily(
    "arXiv:2503.19786",
    "dim heads kv dim_head scale inner tokens window scaling length blocks",
    {
        "270m": (640, 4, 1, 256, 256**-0.5, 2048, 262144, 511, "", 32768, "(local*5 global)*3"),
        "1b": (1152, 4, 1, 256, 256**-0.5, 6912, 262144, 511, "", 32768, "(local*5 global)*4 local*2"),
        "4b": (
            2560,
            8,
            4,
            256,
            256**-0.5,
            10240,
            262208,
            1023,
            _8X := ", rotary_scaling=linear, rotary_factor=8",
            131072,
            "(local*5 global)*5 local*4",
        ),
        "12b": (3840, 16, 8, 256, 256**-0.5, 15360, 262208, 1023, _8X, 131072, "(local*5 global)*8"),
        "27b": (5376, 32, 16, 128, 168**-0.5, 21504, 262208, 1023, _8X, 131072, "(local*5 global)*10 local*2"),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, attn_kv_heads={kv}, attn_qk_scale={scale}, causal;
    set attn_qk_rmsnorm=head, rotary_pos_emb, rotary_emb_dim={dim_head};
    set use_rmsnorm, norm_eps=1e-6, norm_unit_offset, sandwich_norm;
    set ff_inner={inner}, ff_glu, ff_activation=gelu_tanh, ff_no_bias;
    set num_tokens={tokens}, max_seq_len={length}, embed_scale={root}, tie_embedding, logits_scale=1;
    local = a(max_attend_past={window}) f;
    global = a(rotary_theta=1000000{scaling}) f;
    {blocks}
    """,
)

olmo = ModelFamily(
    "arXiv:2402.00838",
    "dim heads inner logits depth",
    {"7b": (4096, 32, 11008, OWN, 32), "1b": (2048, 16, 8192, TIED, 16)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, causal, norm_gain=false, norm_bias=false;
    set rotary_pos_emb, rotary_emb_dim=128, ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=50304, max_seq_len=2048, {logits};
    (a f)*{depth}
    """,
)

olmo2 = ModelFamily(
    "arXiv:2501.00656",
    "dim heads kv inner depth",
    {
        "7b": (4096, 32, "none", 11008, 32),
        "1b": (2048, 16, "none", 8192, 16),
        "13b": (5120, 40, "none", 13824, 40),
        "32b": (5120, 40, 8, 27648, 64),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, attn_kv_heads={kv}, attn_qk_rmsnorm=all, causal;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_theta=500000, use_rmsnorm, norm_eps=1e-6, output_norm;
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias, num_tokens=100352, max_seq_len=4096, logits_bias=false;
    (a f)*{depth}
    """,
)

stablelm = ModelFamily(
    "arXiv:2402.17834",
    "dim heads dim_head rotary inner bias tokens depth",
    {
        "3b": (2560, 32, 80, 20, 6912, "", 50304, 32),
        "2-1.6b": (2048, 32, 64, 16, 5632, "attn_qkv_bias, ", 100352, 24),
    },
    """
    set dim={dim}, heads={heads}, attn_dim_head={dim_head}, {bias}causal, rotary_pos_emb, rotary_emb_dim={rotary};
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias, num_tokens={tokens}, max_seq_len=4096, logits_bias=false;
    (a f)*{depth}
    """,
)

smollm = ModelFamily(
    "arXiv:2502.02737",
    "dim heads kv inner depth",
    {"135m": (576, 9, 3, 1536, 30), "360m": (960, 15, 5, 2560, 32), "1.7b": (2048, 32, "none", 8192, 24)},
    """
    set dim={dim}, heads={heads}, attn_kv_heads={kv}, causal, rotary_pos_emb, rotary_emb_dim=64;
    set use_rmsnorm, norm_eps=1e-5, ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=49152, max_seq_len=2048, tie_embedding, logits_scale=1;
    (a f)*{depth}
    """,
)

smollm3 = ModelFamily(
    "Hugging Face, 2025",
    "",
    {"3b": ()},
    """
    set dim=2048, heads=16, attn_dim_head=128, attn_kv_heads=4, causal;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_theta=5000000, use_rmsnorm, norm_eps=1e-6;
    set ff_inner=11008, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=128256, max_seq_len=65536, tie_embedding, logits_scale=1;
    ((a f)*3 a(rotary=false) f)*9
    """,
)

granite = ModelFamily(
    "IBM, 2024",
    "dim dim_head scale inner logits",
    {"2b": (2048, 64, 1 / 64, 8192, 1 / 8), "8b": (4096, 128, 1 / 128, 12800, 1 / 16)},
    """
    set dim={dim}, heads=32, attn_dim_head={dim_head}, attn_kv_heads=8, attn_qk_scale={scale}, causal;
    set branch_scale=0.22, rotary_pos_emb, rotary_emb_dim={dim_head}, use_rmsnorm, norm_eps=1e-5;
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=49155, max_seq_len=4096, embed_scale=12, tie_embedding, logits_scale={logits};
    (a f)*40
    """,
)

command_r = ModelFamily(
    "Cohere, 2024",
    "dim heads kv inner theta logits depth",
    {"35b": (8192, 64, 64, 22528, 8000000, 0.0625, 40), "aya-8b": (4096, 32, 8, 14336, 10000, 0.0625, 32)},
    """
    set dim={dim}, heads={heads}, attn_dim_head=128, attn_kv_heads={kv}, causal, shared_norm, norm_bias=false;
    set rotary_pos_emb, rotary_emb_dim=128, rotary_interleaved, rotary_theta={theta};
    set ff_inner={inner}, ff_glu, ff_swish, ff_no_bias;
    set num_tokens=256000, max_seq_len=8192, tie_embedding, logits_scale={logits};
    (a & f)*{depth}
    """,
)
