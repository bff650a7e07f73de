"""Other names of what there is, as papers and other libraries have them, and what there is not.

Owns the two tables. Errors and `blockdsl options` look a word up here when it is none of ours.
"""

from __future__ import annotations

# Our keyword: its other names, without `attn_` or `ff_` in front.
_SYNONYMS = {
    "dim": "d_model model_dim hidden_size n_embd embed_dim embedding_dim width",
    "depth": "n_layer n_layers num_layers num_hidden_layers layers",
    "heads": "n_head n_heads nhead num_heads num_attention_heads",
    "num_tokens": "vocab n_vocab vocab_size",
    "max_seq_len": "block_size context_length context_size n_ctx max_len max_length max_position_embeddings",
    "tie_embedding": "tied tie_embeddings tie_weights tie_word_embeddings weight_tying",
    "embed_scale": "embedding_multiplier embed_multiplier scale_embedding emb_scale",
    "logits_scale": "logit_scale logits_scaling tie_embedding_scale",
    "logits_softcap": "final_logit_softcapping final_softcap",
    "num_token_types": "type_vocab_size token_types token_type_embeddings segment_embeddings segments",
    "rotary_pos_emb": "rotary rope rotary_embedding rotary_embeddings rotary_positions",
    "rotary_theta": "rope_theta rope_base rotary_base rotary_emb_base",
    "rotary_emb_dim": "partial_rotary_factor rotary_dim rotary_pct rotary_ndims",
    "rotary_scaling": "rope_scaling yarn ntk longrope position_interpolation rotary_interpolation_factor",
    "rotary_original_len": "original_max_position_embeddings",
    "rotary_xpos": "xpos",
    "rel_pos_bias": "t5 t5_bias rpe relative_positions relative_position_bias",
    "alibi_pos_bias": "alibi",
    "scaled_sinu_pos_emb": "sinusoidal sinusoids",
    "use_abs_pos_emb": "abs_pos_emb absolute_positions learned_positions",
    "num_memory_tokens": "memory_tokens",
    "class_token": "cls_token cls",
    "pool": "pooling global_pool map_head attention_pooling average_pool_embed use_cls_token attn_pool",
    "num_classes": "num_labels",
    "dim_out": "projection_dim",
    "num_register_tokens": "registers register_tokens",
    "max_mem_len": "xl transformer_xl recurrence",
    "attn_dim_head": "head_dim head_size d_head",
    "attn_kv_heads": "gqa grouped_query grouped_query_attention kv_heads n_kv_heads num_kv_heads num_key_value_heads",
    "attn_one_kv_head": "mqa multi_query multi_query_attention",
    "attn_kv_rank": "mla latent latent_attention multi_head_latent_attention kv_lora_rank",
    "attn_q_rank": "q_lora_rank",
    "attn_shared_key_dim": "qk_rope_head_dim rope_dim rope_head_dim",
    "attn_value_dim_head": "v_head_dim",
    "attn_max_attend_past": "window window_size swa sliding_window sliding_window_attention local local_attention",
    "attn_qk_norm": "qknorm query_key_norm cosine_attention cosine_sim",
    "attn_qkv_bias": "attention_bias qkv_bias",
    "attn_qk_scale": "attention_multiplier softmax_scale",
    "attn_softcap": "soft_cap softcapping logit_cap logit_softcap logit_softcapping",
    "attn_sink": "sinks attention_sink attention_sinks",
    "attn_num_mem_kv": "mem_kv memory_kv persistent_memory",
    "attn_flash": "flash_attn flash_attention fused sdpa",
    "residual_attn": "realformer",
    "ff_mult": "expansion mlp_ratio",
    "ff_inner": "d_ff dim_feedforward ff_dim ffn_dim hidden_dim intermediate_size n_inner",
    "ff_activation": "act_fn activation_fn activation_function hidden_act",
    "ff_glu": "geglu",
    "ff_glu ff_swish": "swiglu",
    "ff_swish": "silu",
    "ff_relu_squared": "relu2 squared_relu",
    "moe_experts": "moe experts num_experts n_experts num_local_experts n_routed_experts mixture_of_experts",
    "moe_top": "num_experts_per_tok experts_per_token moe_top_k",
    "moe_router": "scoring_func",
    "moe_renormalise": "norm_topk_prob",
    "moe_weight_scale": "routed_scaling_factor",
    "moe_balance_loss": "router_aux_loss_coef aux_loss load_balancing_loss",
    "ssm_state": "ssm state_space d_state state_size ssm_state_size",
    "ssm_heads": "mamba_num_heads",
    "ssm_kernel": "d_conv mamba_d_conv",
    "ssm_chunk": "chunk_size",
    "pre_norm": "prenorm postnorm post_norm",
    "use_rmsnorm": "rmsnorm rms_norm",
    "use_scalenorm": "scalenorm scale_norm",
    "use_simple_rmsnorm": "simple_rmsnorm simple_rms_norm srmsnorm",
    "use_adaptive_layernorm": "adaln adaptive_layernorm adaptive_layer_norm ada_ln dit film conditional_layernorm",
    "use_adaptive_rmsnorm": "adaptive_rmsnorm adaptive_rms_norm ada_rms",
    "use_adaptive_layerscale": "adaln_zero adaptive_layerscale adaptive_layer_scale ada_ln_zero",
    "dim_condition": "cond_dim condition_dim dim_cond",
    "norm_unit_offset": "norm_add_unit_offset add_unit_offset",
    "pre_and_post_norm": "keel double_norm",
    "bidirectional": "bi bimamba bidi both_ways",
    "layer_scale": "layerscale use_layerscale layerscale_value layerscale_init_value",
    "layer_dropout": "drop_path droppath layerdrop stochastic_depth",
    "num_residual_streams": "hyper_connections hyper_connection mhc residual_streams",
    "checkpoint": "activation_checkpointing gradient_checkpointing recompute",
}
_MEANT = {word: tuple(ours.split()) for ours, words in _SYNONYMS.items() for word in words.split()}

# What there is not, in a sentence: its names.
_ABSENT = {
    "there is no attention by random features here": "performer favor",
}
_NOT_HERE = {word: sentence for sentence, words in _ABSENT.items() for word in words.split()}


def meant(word: str) -> tuple[str, ...]:
    """Our keywords for a word of the field: `rope` is `rotary_pos_emb`; none for a word that is none."""
    side = word[:4] if word.startswith(("enc_", "dec_")) else ""
    return tuple(side + name for name in _MEANT.get(_bare(word[len(side) :]), ()))


def absent(word: str) -> str:
    """That there is no such thing here, for a word of the field; empty for any other."""
    return _NOT_HERE.get(_bare(word), "")


def _bare(word: str) -> str:
    plain = word.lower().replace("-", "_")
    known = plain in _MEANT or plain in _NOT_HERE
    return plain if known else plain.removeprefix("attn_").removeprefix("ff_").removeprefix("use_")
