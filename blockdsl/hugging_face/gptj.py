"""GPT-J (Wang & Komatsuzaki, 2021): attention and feedforward side by side after one norm, interleaved rotation."""

from __future__ import annotations

from .config import Config
from .decoder import logits_rows, logits_settings
from .family import Component, Family, Row, Weight

LAYER = "transformer.h.{i}."


def _read(config: Config) -> dict[str, Component]:
    dim, layers = config.integer("n_embd", 4096), config.integer("n_layer", 28)
    heads = config.integer("n_head", 16)
    config.ignore(
        *(f"summary_{name}" for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout"))
    )
    config.ignore("rotary", "scale_attn_weights")  # so anyway
    settings = {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "n_embd", "n_head"),
        "causal": True,
        "norm_eps": config.number("layer_norm_epsilon", 1e-5),
        "rotary_pos_emb": True,
        "rotary_emb_dim": config.optional("rotary_dim", 64) or dim,
        "rotary_interleaved": True,
        "ff_inner": config.integer("n_inner", 4 * dim),
        "ff_activation": config.activation("activation_function", "gelu_new"),
        "num_tokens": config.integer("vocab_size", 50400),
        "max_seq_len": config.integer("n_positions", 2048),
        **logits_settings(config, bias=True),
    }
    weights: list[Row] = [
        Weight("token_emb", "transformer.wte"),
        Weight("a.norm", LAYER + "ln_1"),
        Weight("a.layer.to_qkv", tuple(f"{LAYER}attn.{part}_proj" for part in "qkv")),
        Weight("a.layer.output.to_out", LAYER + "attn.out_proj"),
        Weight("f.layer.to_hidden", LAYER + "mlp.fc_in"),
        Weight("f.layer.to_out", LAYER + "mlp.fc_out"),
        Weight("attn_layers.norm", "transformer.ln_f"),
        *logits_rows(config, embedding="transformer.wte"),
    ]
    return {"": Component(f"(a & f(shared_norm))*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("gptj",),
    architectures=("GPTJForCausalLM",),
    base="GPTJModel",
    prefix="transformer.",
    source="github.com/kingoflolz/mesh-transformer-jax",
    read=_read,
    ignored=("attn.bias", "attn.masked_bias", "embed_positions"),  # the causal mask, sinusoids
)
