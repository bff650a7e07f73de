"""How far our encoder-decoder of a Hugging Face configuration is from `transformers`' own: `agreement`, for two stacks.

    check(agreement_of_pair(T5ForConditionalGeneration(T5Config(...))))

The source may be tokens, or vectors of frames where the encoder reads those.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from blockdsl.hugging_face import read
from blockdsl.hugging_face.family import Shared
from xt_blocks.interop.hugging_face import their_tensors

from .agreement import BATCH, NEW, Agreement, difference, not_equal, ours_of, randomised

SOURCE, TARGET = 9, 7


def agreement_of_pair(theirs: Any, *, generation: dict[str, Any] | None = None, std: float = 0.2) -> Agreement:
    """Compare an encoder-decoder of transformers, whose weights are drawn anew, with ours.

    Args:
        theirs: with a head.
        generation: what it generates with, of its GenerationConfig, where that is more than its configuration says.
        std: of the weights.
    """
    theirs = randomised(theirs, std).eval()
    theirs.set_attn_implementation("eager")
    with tempfile.TemporaryDirectory() as folder:
        ours = ours_of(theirs, Path(folder))
        written = not_equal(ours, Path(folder))
    pair = _Pair(ours, theirs)
    with torch.no_grad():
        outputs = max(difference(pair.logits(), pair.their_outputs().logits), pair.encoded_difference())
        padded = pair.padded_difference()
        hidden = pair.hidden_difference()
        missed = pair.tokens_missed(generation or {})
    parameters = theirs.num_parameters(), sum(p.numel() for p in ours.parameters()), pair.costs()
    return Agreement(outputs, padded, hidden, pair.gradient_difference(), missed, parameters, written)


class _Pair:
    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours, self.theirs = ours, theirs
        self.frames = ours.encoder.graph.reads == "vectors"
        self.tokens = torch.randint(3, theirs.config.vocab_size, (BATCH, TARGET))
        if self.frames:
            config = theirs.config
            self.source = torch.randn(BATCH, 2 * config.max_source_positions, config.num_mel_bins)
            self.named = {"input_features": self.source.transpose(1, 2)}
        else:
            self.source = torch.randint(3, theirs.config.vocab_size, (BATCH, SOURCE))
            self.named = {"input_ids": self.source}
        self.mask = torch.ones(BATCH, SOURCE, dtype=torch.bool)
        self.mask[0, 6:] = False

    def logits(self, mask: Tensor | None = None) -> Tensor:
        context, context_mask = self.ours.encode(self.source, mask)
        out: Tensor = self.ours.decoder.net(self.tokens, context=context, context_mask=context_mask)
        return out

    def their_outputs(self, mask: Tensor | None = None, **keywords: Any) -> Any:
        if mask is not None:
            keywords["attention_mask"] = mask.long()
        return self.theirs(**self.named, decoder_input_ids=self.tokens, **keywords)

    def encoded_difference(self) -> float:
        """Of what the decoder attends to."""
        encoded = self.theirs.get_encoder()(**self.named).last_hidden_state
        return difference(self.ours.encode(self.source)[0], encoded)

    def padded_difference(self) -> float:
        """Of logits where the end of a source is padding; a model of frames knows none."""
        if self.frames:
            return 0.0
        return difference(self.logits(self.mask), self.their_outputs(self.mask).logits)

    def hidden_difference(self) -> float:
        """Of the streams before each layer of either side, and after its last."""
        theirs = self.their_outputs(output_hidden_states=True)
        context, encoder = self.ours.encoder(self.source, return_intermediates=True)
        net = self.ours.decoder.net
        out, decoder = net(self.tokens, context=context, return_embeddings=True, return_intermediates=True)
        found = []
        for graph, seen, last, streams in (
            (self.ours.encoder.graph, encoder, context, theirs.encoder_hidden_states),
            (net.graph, decoder, out, theirs.decoder_hidden_states),
        ):
            blocks = graph.nodes("block")
            first = blocks[:: len(blocks) // (len(streams) - 1)]
            ours = [seen.streams[node] for node in first] + [last]
            found += [difference(one, other) for one, other in zip(ours, streams, strict=True)]
        return max(found)

    def gradient_difference(self) -> float:
        """Of the loss of target tokens, by every weight of theirs that is trained."""
        start = torch.cat((self.tokens[:, :1], self.tokens), dim=1)
        with torch.enable_grad():
            self.ours.zero_grad()
            self.theirs.zero_grad()
            self.ours(self.source, start).backward()
            logits = self.theirs(**self.named, decoder_input_ids=start[:, :-1]).logits
            F.cross_entropy(logits.flatten(0, 1), self.tokens.flatten()).backward()
        with torch.no_grad():
            for parameter in self.ours.parameters():
                parameter.kept, parameter.data = parameter.data, parameter.grad
            found = {name: t.clone() for name, t in their_tensors(self.ours, read(self.ours.hugging_face))}
            for parameter in self.ours.parameters():
                parameter.data = parameter.kept
        expected = {name: p.grad for name, p in self.theirs.named_parameters() if p.requires_grad}
        assert {*expected} <= {*found}
        return max(difference(found[name], expected[name]) for name in expected)

    def tokens_missed(self, generation: dict[str, Any]) -> int:
        """Of NEW greedy tokens a row by the models' own starts and forced tokens, how many are not theirs: with either
        cache, and with a padded source."""
        missed = 0
        for mask in (None,) if self.frames else (None, self.mask):
            for cached in (True, False):
                expected = self.their_tokens(mask, cached, generation)
                found = self.ours.generate(
                    self.source, seq_len=NEW, mask=mask, cache_kv=cached, temperature=0.0, eos_token=None
                )
                missed += int((found != expected).sum())
        return missed

    def their_tokens(self, mask: Tensor | None, cached: bool, generation: dict[str, Any]) -> Tensor:
        config = GenerationConfig.from_model_config(self.theirs.config)
        told = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 1, "use_cache": cached, "eos_token_id": None}
        config.update(**generation | told)
        named = self.named if mask is None else self.named | {"attention_mask": mask.long()}
        self.theirs.generation_config = config
        out = GenerationMixin.generate(self.theirs, **named, generation_config=config)
        return out[:, 1:]

    def costs(self) -> int:
        """Parameters of both graphs, an embedding that is shared once."""
        total = sum(graph.parameters() for graph in self.ours.graphs.values())
        for part in read(self.ours.hugging_face).parts.values():
            for row in part.weights:
                if isinstance(row, Shared):
                    graph = self.ours.graphs["decoder"]
                    total -= graph.nx.nodes[graph.start]["num_tokens"] * graph.emb_dim
        return total
