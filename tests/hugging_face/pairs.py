"""How an encoder-decoder of ours and one of `transformers` are called. The source is tokens, or frames (Whisper)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BATCH, SOURCE, TARGET, NEW = 2, 9, 7, 20


class Pair:
    """Padding is at the end of a source; models of frames know none. They start and force as each is configured."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.models, config = (ours, theirs), theirs.config
        self.tokens = torch.randint(3, config.vocab_size, (BATCH, TARGET))  # their padding's row has no gradient
        self.frames = ours.encoder.graph.reads == "vectors"
        self.mask = torch.ones(BATCH, SOURCE, dtype=torch.bool)
        if self.frames:
            self.source = torch.randn(BATCH, 2 * config.max_source_positions, config.num_mel_bins)
            self.named = {"input_features": self.source.transpose(1, 2)}
            ours.encoder.pos_emb.requires_grad_(False)  # as theirs
        else:
            self.source = torch.randint(3, config.vocab_size, (BATCH, SOURCE))
            self.named = {"input_ids": self.source}
            self.mask[0, 6:] = False

    def ours(self, padded: bool = False) -> Tensor:
        """(batch, target, logits), or (batch, target, dim) of a model without a head."""
        context, context_mask = self.models[0].encode(self.source, self.mask if padded and not self.frames else None)
        net, base = self.models[0].decoder.net, not hasattr(self.models[1], "lm_head") and not self.frames
        out: Tensor = net(self.tokens, context=context, context_mask=context_mask, return_embeddings=base)
        return out

    def theirs(self, padded: bool = False) -> Tensor:
        """The same of theirs."""
        out = self._theirs(self.mask if padded else None)
        found: Tensor = out.logits if hasattr(out, "logits") else out.last_hidden_state
        return found

    def hidden(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Ours and theirs: the streams before each layer of either side, and after its last norm."""
        ours, theirs = self.models[0], self._theirs(None, output_hidden_states=True)
        context, encoder = ours.encoder(self.source, return_intermediates=True)
        net = ours.decoder.net
        out, decoder = net(self.tokens, context=context, return_embeddings=True, return_intermediates=True)
        for graph, seen, last, streams in (
            (ours.encoder.graph, encoder, context, theirs.encoder_hidden_states),
            (net.graph, decoder, out, theirs.decoder_hidden_states),
        ):
            blocks = graph.nodes("block")
            first = blocks[:: len(blocks) // (len(streams) - 1)]
            yield from zip([*(seen.streams[node] for node in first), last], streams, strict=True)

    def tokens_missed(self) -> int | None:
        """Of NEW greedy tokens for each row, how many are not theirs: with a cache and without, padded and not."""
        from transformers import GenerationMixin

        ours, theirs = self.models
        if not isinstance(theirs, GenerationMixin):
            return None
        missed = 0
        for mask in (None,) if self.frames else (None, self.mask):
            for cached in (True, False):
                given = self.named if mask is None else self.named | {"attention_mask": mask.long()}
                options = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 1, "eos_token_id": None}
                expected = GenerationMixin.generate(theirs, **given, **options, use_cache=cached)[:, 1:]
                own = {"mask": mask, "cache_kv": cached, "temperature": 0.0, "eos_token": None}
                missed += int((ours.generate(self.source, seq_len=NEW, **own) != expected).sum())
        return missed

    def _theirs(self, mask: Tensor | None, **options: Any) -> Any:
        if mask is not None and not self.frames:
            options["attention_mask"] = mask.long()
        return self.models[1](**self.named, decoder_input_ids=self.tokens, **options)
