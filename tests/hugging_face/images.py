"""How an image encoder of ours and one of `transformers` are called. Both take images of another size."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from typing import Any

import torch
from torch import Tensor


class Images:
    """In the place of padding, an image of another size: the grid of its patches is one row less, one column more."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.models, dtype = (ours, theirs), next(theirs.parameters()).dtype
        (height, width), (high, wide) = ours.image, ours.patch
        sizes = (height, width), (height - high, width + wide)
        self.images = [torch.randn(2, ours.channels, *size, dtype=dtype) for size in sizes]

    def ours(self, padded: bool = False) -> Tensor:
        """Classes or projected vectors (batch, features); of others (batch, tokens, dim), a vector in front."""
        model, image = self.models[0], self.images[padded]
        if not model.pools:
            embedded: Tensor = model(image, interpolate_pos=padded)
            return embedded
        vector, embedded = model(image, return_logits_and_embeddings=True, interpolate_pos=padded)
        return torch.cat((vector[:, None], embedded), 1) if self._gives_tokens else vector

    def theirs(self, padded: bool = False) -> Tensor:
        """The same of theirs."""
        out = self._theirs(padded)
        for name in ("logits", "image_embeds"):
            if hasattr(out, name):
                found: Tensor = getattr(out, name)
                return found
        if not self._gives_tokens:
            vector: Tensor = out.pooler_output
            return vector
        registers = getattr(self.models[1].config, "num_register_tokens", 0)
        tokens = [out.last_hidden_state[:, :1], out.last_hidden_state[:, 1 + registers :]]
        vectors = [] if out.pooler_output is None else [out.pooler_output[:, None]]
        return torch.cat((*vectors, *tokens), 1)

    def hidden(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Ours and theirs: the stream before each layer, and after the last one."""
        ours, streams = self.models[0], self._theirs(False, output_hidden_states=True).hidden_states
        blocks, seen = [*ours.attn_layers.blocks.values()], []
        hooks = [block.register_forward_pre_hook(lambda block, given: seen.append(given[0])) for block in blocks[::2]]
        hooks.append(blocks[-1].register_forward_hook(lambda block, given, out: seen.append(out.stream)))
        ours(self.images[0])
        for hook in hooks:
            hook.remove()
        yield from zip(seen, streams, strict=True)

    def tokens_missed(self) -> None:
        return None

    @property
    def _gives_tokens(self) -> bool:
        """Whether what theirs gives is normed tokens and, it may be, their vector; CLIP's tokens are not normed."""
        theirs = self.models[1]
        return "Classification" not in type(theirs).__name__ and not type(theirs).__name__.startswith("CLIP")

    def _theirs(self, padded: bool, **options: Any) -> Any:
        if padded and "interpolate_pos_encoding" in signature(self.models[1].forward).parameters:
            options["interpolate_pos_encoding"] = True
        return self.models[1](pixel_values=self.images[padded], **options)
