"""This library, through its public names."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch import Tensor

import xt_blocks
from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper

from ..setting import Setting
from .base import Contestant, LeftOut


class Ours(Contestant):
    """Decoder and wrappers of the keyword API; `layer` is a pattern that repeats, `layers` are the Decoder's options."""

    def __init__(self, setting: Setting, layer: str | None = None, **layers: Any) -> None:
        super().__init__(setting)
        order = {"depth": setting.depth} if layer is None else {"pattern": f"({layer})*{setting.depth}"}
        stack = Decoder(dim=setting.dim, heads=setting.heads, attn_dim_head=setting.dim_head, **order, **layers)
        self.net = self.placed(
            TransformerWrapper(num_tokens=setting.vocabulary, max_seq_len=setting.length, attn_layers=stack)
        )
        self.graph = self.net.graph
        self.wrapper = AutoregressiveWrapper(self.net)

    def loss(self, tokens: Tensor) -> Tensor:
        return self.wrapper(tokens)

    def generate(self, prompt: Tensor, new: int) -> Tensor:
        return self.wrapper.generate(prompt, new, temperature=0.0)


class Packed(Ours):
    """On the kernels that `pack` chooses for the CPU."""

    def __init__(self, setting: Setting, **layers: Any) -> None:
        super().__init__(setting, **layers)
        xt_blocks.pack(self.net)


class Compiled(Ours):
    """Compiled whole: a training step, a pass, a step of decoding after a prompt that is read without."""

    def __init__(self, setting: Setting, **layers: Any) -> None:
        super().__init__(setting, **layers)
        on_cpu = torch.device(setting.device).type == "cpu"
        if on_cpu and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise LeftOut("torch.compile finds no C++ compiler")
        self.step = torch.compile(self.net, fullgraph=True, mode=None if on_cpu else "reduce-overhead")
        self.trained = torch.compile(self.wrapper, fullgraph=True)

    def logits(self, tokens: Tensor) -> Tensor:
        return self.step(tokens)

    def loss(self, tokens: Tensor) -> Tensor:
        return self.trained(tokens)

    @torch.no_grad()
    def generate(self, prompt: Tensor, new: int) -> Tensor:
        batch, seq = prompt.shape
        cache = self.net.new_cache(batch, seq + new)
        out = [self.net(prompt, cache=cache)[:, -1:].argmax(dim=-1)]
        cache.fix_shapes()
        for _ in range(new - 1):
            out.append(self.step(out[-1], cache=cache)[:, -1:].argmax(dim=-1))
        return torch.cat(out, dim=1)
