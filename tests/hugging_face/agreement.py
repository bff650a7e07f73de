"""How far our model of a Hugging Face configuration is from `transformers`' own.

A family's test is a table of configurations, and what makes the peer of one; the page of the documentation reads both:

    CASES = {"grouped": {"num_key_value_heads": 2}, ...}

    def peer(case: str) -> LlamaForCausalLM:
        return LlamaForCausalLM(LlamaConfig(**SMALL | CASES[case]))

    @pytest.mark.parametrize("case", CASES)
    def test_agrees(case: str) -> None:
        check(agreement(peer(case)))

The peer is a model with small random weights, none at its initial value. It is saved by `transformers`, read by us,
compared in what it gives, in its gradient and in what it generates, and written back. How both are called is a class
for what they read: `Tokens` is here, encoder-decoders are in `pairs`; others are added to `_called`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import signature
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

import xt_blocks
from blockdsl.hugging_face import Reading, read
from xt_blocks.interop.hugging_face import their_tensors

from .both import Both
from .images import Images
from .pairs import Pair
from .texts import Texts

BATCH, SEQ, NEW = 2, 11, 20

AFTER_LAYERS = {"mamba", "falcon_mamba", "mamba2"}
"""Families that give the streams after each layer; the others give those before each."""

READ_PADDING = {"recurrent_gemma"}
"""Families whose convolutions in `transformers` read padding as they read tokens; ours is held to the row alone."""


@dataclass
class Agreement:
    """The largest differences, absolute, and what must be equal.

    Attributes:
        outputs: logits, or embeddings of a model without a head.
        padded: the same with padding on the left, at real tokens.
        hidden: streams before each layer, and the normed output.
        gradient: of a loss, by every weight of theirs.
        tokens: of the greedy tokens, how many are not theirs; with our cache and without, with padding.
        parameters: theirs, those of our module, and by our costs.
        written: the names of tensors that are not bit-equal after having been read and written.
        reading: of the configuration.
    """

    outputs: float
    padded: float
    hidden: float
    gradient: float
    tokens: int | None
    parameters: tuple[int, int, int]
    written: list[str]
    reading: Reading = field(repr=False)


def check(found: Agreement, atol: float = 1e-5) -> None:
    """Fail unless they agree: float32 to 1e-5."""
    for name in ("outputs", "padded", "hidden", "gradient"):
        assert getattr(found, name) <= atol, (name, found)
    assert not found.tokens, found
    assert len({*found.parameters}) == 1, found
    assert found.written == [], found


def agreement(theirs: Any, *, dtype: torch.dtype = torch.float32, attention: str = "eager") -> Agreement:
    """Compare a model of transformers, whose weights are drawn anew, with ours.

    Args:
        attention: their implementation; some families' eager one takes its softmax in float32, whatever the dtype.
    """
    theirs = randomised(theirs).to(dtype).eval()
    theirs.set_attn_implementation(attention)
    with tempfile.TemporaryDirectory() as folder:
        ours = ours_of(theirs, Path(folder))
        written = not_equal(ours, Path(folder))
    reading = read(ours.hugging_face)
    called = _called(ours, theirs)
    with torch.no_grad():
        outputs, padded = (difference(called.ours(pad), called.theirs(pad)) for pad in (False, True))
        hidden = max(difference(one, other) for one, other in called.hidden())
    gradient = gradient_difference(called, reading)
    costs = sum(graph.parameters() for graph in ours.graphs.values()) - shared_parameters(ours)
    if isinstance(called, Both):  # what is around the two
        costs += sum(parameter.numel() for parameter in ours.parameters(recurse=False))
    counts = (theirs.num_parameters(), sum(p.numel() for p in ours.parameters()), costs)
    return Agreement(outputs, padded, hidden, gradient, called.tokens_missed(), counts, written, reading)


def _called(ours: Any, theirs: Any) -> Tokens | Pair | Images | Texts | Both:
    if hasattr(ours, "logit_scale"):
        return Both(ours, theirs)
    if theirs.main_input_name == "pixel_values":
        return Images(ours, theirs)
    if getattr(ours, "pool", None) is not None:
        return Texts(ours, theirs)
    return (Pair if hasattr(ours, "encode") else Tokens)(ours, theirs)


class Tokens:
    """Models that read tokens. Padding is on the left where no token sees later ones, and else on either side."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.models = ours, theirs
        embeddings = getattr(theirs.base_model, "embeddings", None)
        # RoBERTa counts its positions from the tokens: those that are not the padding token
        self.padding = getattr(embeddings, "padding_idx", None)
        self.tokens = torch.randint((self.padding or 0) + 1, theirs.config.vocab_size, (BATCH, SEQ))
        self.causal = ours.graph.sees_later() is None
        self.mask = torch.ones_like(self.tokens, dtype=torch.bool)
        self.mask[0, : 0 if theirs.config.model_type in READ_PADDING else 3] = False
        if not self.causal:
            self.mask[1, -2:] = False

    def ours(self, padded: bool = False) -> Tensor:
        """What ours gives: (batch, seq, ...), or with padding (real tokens, ...)."""
        out = self.models[0](self.tokens, mask=self.mask if padded else None)
        return out[self.mask] if padded else out

    def theirs(self, padded: bool = False) -> Tensor:
        """The same of theirs: logits, or the normed stream of a model without a head."""
        given = {}
        if padded:
            given["attention_mask"] = self.mask.long()
            if self.padding is None and "position_ids" in signature(self.models[1].forward).parameters:
                given["position_ids"] = (self.mask.long().cumsum(-1) - 1).clamp(min=0)
        tokens = self.tokens if self.padding is None else self.tokens.where(self.mask | (not padded), self.padding)
        out = self.models[1](input_ids=tokens, **given)
        found = out.logits if hasattr(out, "logits") else out.last_hidden_state
        return found[self.mask] if padded else found

    def hidden(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Ours and theirs: the stream before each layer, and after the last norm."""
        ours, theirs = self.models
        streams = theirs(input_ids=self.tokens, output_hidden_states=True).hidden_states
        if theirs.config.model_type in AFTER_LAYERS:
            streams = (theirs.get_input_embeddings()(self.tokens), *streams[:-2], streams[-1])
        out, seen = ours(self.tokens, return_embeddings=True, return_intermediates=True)
        blocks = ours.graph.nodes("block")
        layers = read(ours.hugging_face).parts[""].layers
        if isinstance(layers, int):
            first = blocks[:: len(blocks) // (len(streams) - 1)]
        else:
            sizes = [len(layer.split()) for layer in layers]
            first = [blocks[start] for start in accumulate(sizes[:-1], initial=0)]
        dim = ours.graph.dim  # of what a block reads concatenated, the stream comes first
        yield from zip([*(seen.streams[node][..., :dim] for node in first), out], streams, strict=True)

    def tokens_missed(self) -> int | None:
        """Of NEW greedy tokens for each row, how many are not theirs: with a cache and without, padded and not."""
        ours, theirs = self.models
        if not self.causal or ours.return_only_embed:
            return None
        wrapper, missed = xt_blocks.AutoregressiveWrapper(ours), 0
        for mask in (torch.ones_like(self.mask), self.mask):
            options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
            expected = theirs.generate(self.tokens, attention_mask=mask.long(), **options)[:, SEQ:]
            for cache_kv in (True, False):
                found = wrapper.generate(self.tokens, NEW, temperature=0.0, mask=mask, cache_kv=cache_kv)
                missed += int((found != expected).sum())
        return missed


def randomised(model: nn.Module, std: float = 0.2) -> Any:
    """The model with every parameter drawn: what starts at zero or one as well."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            start = parameter.mean() if parameter.ndim == 1 else 0.0
            parameter.copy_(start + std * torch.randn(parameter.shape, dtype=torch.float64))
    return model


def ours_of(theirs: Any, folder: Path) -> Any:
    """Our model, read from the folder that theirs was saved in."""
    theirs.save_pretrained(folder / "theirs")
    return xt_blocks.from_hugging_face(folder / "theirs")


def not_equal(ours: Any, folder: Path) -> list[str]:
    """The tensors that differ between their folder and ours, written from what was read of theirs."""
    xt_blocks.to_hugging_face(ours, folder / "ours")
    before, after = (load_file(folder / name / "model.safetensors") for name in ("theirs", "ours"))
    both = before.keys() & after.keys()
    return sorted((before.keys() ^ after.keys()) | {name for name in both if not equal(before[name], after[name])})


def equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def gradient_difference(called: Tokens | Pair | Images | Texts | Both, reading: Reading) -> float:
    """Of the gradients of one loss, under their names."""
    ours, theirs = called.models
    for model, run in ((ours, called.ours), (theirs, called.theirs)):
        model.zero_grad()
        out = run()
        scores = out.flatten(0, -2)
        F.cross_entropy(scores, torch.arange(len(scores)) % out.shape[-1]).backward()
    values = {parameter: parameter.data for parameter in ours.parameters()}
    for parameter in values:  # the gradients in place of the weights, to be read under the names of theirs
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    found = {name: tensor.clone() for name, tensor in their_tensors(ours, reading)}
    for parameter, value in values.items():
        parameter.data = value
    expected = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in theirs.named_parameters()}
    expected = revert_weight_conversion(theirs, expected)  # under the names of files
    buffers = revert_weight_conversion(theirs, dict(theirs.named_buffers()))
    assert found.keys() - buffers.keys() == expected.keys()
    return max(difference(found[name], expected[name]) for name in expected)


def shared_parameters(ours: Any) -> int:
    """Those that two graphs of a model both count."""
    alone = [p.numel() for _, p in ours.named_parameters()]
    return (
        sum(p.numel() for _, p in ours.named_parameters(remove_duplicate=False)) - sum(alone)
        if "" not in ours.graphs
        else 0
    )


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape, (one.shape, other.shape)
    found = float((one - other).abs().max())
    assert found == found, "not a number"  # which `max` of several would lose
    return found
