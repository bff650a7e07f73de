"""How a text encoder of CLIP or SigLIP and ours are called: one vector for each text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Texts:
    """Texts that end before the last place, where a token or their padding says so.

    SigLIP takes the last place, be it padding; ours takes the last real one, and is given none of it.
    """

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.models, config = (ours, theirs), theirs.config
        end = ours.graph.nx.nodes["output"]["end_token"] or config.vocab_size - 1
        self.tokens = torch.randint(3, end - 1, (2, 9))
        for row, place in enumerate((6, 4)):
            self.tokens[row, place:] = end
        self.mask = torch.arange(9) < torch.tensor([[9], [5]])
        self.padded = ours.pool == "end"

    def ours(self, padded: bool = False) -> Tensor:
        """(batch, features), and all tokens' normed vectors where both are as wide."""
        mask = self.mask if padded and self.padded else None
        vector, each = (self.models[0](self.tokens, mask=mask, return_embeddings=each) for each in (False, True))
        return _with(vector, each, self.mask if padded else None)

    def theirs(self, padded: bool = False) -> Tensor:
        """The same of theirs."""
        mask = self.mask.long() if padded and self.padded else None
        out = self.models[1](input_ids=self.tokens, attention_mask=mask)
        vector = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
        return _with(vector, out.last_hidden_state, self.mask if padded else None)

    def hidden(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Ours and theirs: the stream before each layer."""
        ours, theirs = self.models
        streams = theirs(input_ids=self.tokens, output_hidden_states=True).hidden_states
        _, seen = ours(self.tokens, return_intermediates=True)
        blocks = ours.graph.nodes("block")
        first = [seen.streams[node] for node in blocks[::2]]
        yield from zip(first, streams[:-1], strict=True)

    def tokens_missed(self) -> None:
        return None


def _with(vector: Tensor, each: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        each = each * mask[..., None]
    return torch.cat((vector[:, None], each), 1) if vector.shape[-1] == each.shape[-1] else vector
