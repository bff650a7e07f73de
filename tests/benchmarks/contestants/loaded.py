"""One LLaMA, loaded both ways: by transformers, and from there by `from_hugging_face`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import xt_blocks
from blockdsl.hugging_face import read
from xt_blocks import AutoregressiveWrapper

from ..setting import Setting
from .base import Contestant, LeftOut, imported
from .hugging_face import NAME, HuggingFace


def configuration(setting: Setting) -> dict[str, Any]:
    """As LLaMA 3.2: four query heads for each of keys and values, and a gated feedforward 2.75 times as wide."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": setting.vocabulary,
        "max_position_embeddings": setting.length,
        "hidden_size": setting.dim,
        "intermediate_size": 11 * setting.dim // 4,
        "num_hidden_layers": setting.depth,
        "num_attention_heads": setting.heads,
        "num_key_value_heads": max(1, setting.heads // 4),
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def theirs(library: Any, setting: Setting) -> Any:
    values = {name: value for name, value in configuration(setting).items() if name != "model_type"}
    return library.LlamaForCausalLM(library.LlamaConfig(**values))


class Loaded(Contestant):
    """Ours, with the weights of theirs; where transformers is not installed, with weights of its own."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        try:
            net = xt_blocks.from_hugging_face(theirs(imported("transformers", NAME), setting))
        except LeftOut:
            net = xt_blocks.lower(read(configuration(setting)).graphs()[""])
        self.net = self.placed(net)
        self.graph = self.net.graph
        self.wrapper = AutoregressiveWrapper(self.net)

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        return self.wrapper.generate(prompt, new, temperature=0.0)


class LoadedPacked(Loaded):
    """On the kernels that `pack` chooses for the CPU."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        xt_blocks.pack(self.net)


class Theirs(HuggingFace):
    """Theirs, with the cache that it has by default."""

    def model(self, library: Any) -> Any:
        return theirs(library, self.setting)


class StaticCache(Theirs):
    """Theirs, with a cache of fixed size."""

    def model(self, library: Any) -> Any:
        model = super().model(library)
        model.generation_config.cache_implementation = "static"
        return model
