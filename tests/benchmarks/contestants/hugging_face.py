"""Hugging Face's transformers: random weights from a configuration, nothing from the network."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from ..setting import Setting
from .base import Contestant, imported

NAME = "transformers"


class HuggingFace(Contestant):
    """A causal model of its library; a subclass says which."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        self.net = self.placed(self.model(imported("transformers", NAME)))

    def model(self, library: Any) -> Any:
        raise NotImplementedError

    def logits(self, tokens: Tensor) -> Tensor:
        return self.net(tokens, use_cache=False).logits

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        net: Any = self.net
        out = net.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
        return out[:, prompt.shape[1] :]


class GPT2(HuggingFace):
    """Learned positions, LayerNorm, GELU in one kernel."""

    def model(self, library: Any) -> Any:
        setting = self.setting
        config = library.GPT2Config(
            vocab_size=setting.vocabulary,
            n_positions=setting.length,
            n_embd=setting.dim,
            n_layer=setting.depth,
            n_head=setting.heads,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
        return library.GPT2LMHeadModel(config)


class Llama(HuggingFace):
    """Rotary positions, RMSNorm, a gated feedforward."""

    def model(self, library: Any) -> Any:
        setting = self.setting
        config = library.LlamaConfig(
            vocab_size=setting.vocabulary,
            max_position_embeddings=setting.length,
            hidden_size=setting.dim,
            intermediate_size=4 * setting.dim,
            num_hidden_layers=setting.depth,
            num_attention_heads=setting.heads,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
        return library.LlamaForCausalLM(config)


class Mamba2(HuggingFace):
    """State space blocks alone, with the sizes that ours have by default; without kernels of other packages."""

    def model(self, library: Any) -> Any:
        setting = self.setting
        config = library.Mamba2Config(
            vocab_size=setting.vocabulary,
            hidden_size=setting.dim,
            num_hidden_layers=setting.depth,
            num_heads=2 * setting.dim // 64,
            head_dim=64,
            n_groups=1,
            state_size=128,
            tie_word_embeddings=False,
        )
        return library.Mamba2ForCausalLM(config)
