"""A Hugging Face configuration to be named on the command line."""

from __future__ import annotations

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaModel"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 19,
}
