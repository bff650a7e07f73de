"""How far our model of a Hugging Face configuration is from `transformers`' own.

    check(agreement(LlamaForCausalLM(LlamaConfig(...))))

The peer is a model with small random weights, none at its initial value. It is saved by `transformers`, read by us,
compared in what it gives, in its gradient and in what it generates, and written back.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import xt_blocks
from blockdsl.hugging_face import read
from xt_blocks.interop.hugging_face import their_tensors

BATCH, SEQ, NEW = 2, 11, 20


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
    """

    outputs: float
    padded: float
    hidden: float
    gradient: float
    tokens: int | None
    parameters: tuple[int, int, int]
    written: list[str]


def check(found: Agreement, atol: float = 1e-5) -> None:
    """Fail unless they agree: float32 to 1e-5."""
    for name in ("outputs", "padded", "hidden", "gradient"):
        assert getattr(found, name) <= atol, (name, found)
    assert not found.tokens, found
    assert len({*found.parameters}) == 1, found
    assert found.written == [], found


def agreement(theirs: Any, *, dtype: torch.dtype = torch.float32) -> Agreement:
    """Compare a model of transformers, whose weights are drawn anew, with ours."""
    theirs = randomised(theirs).to(dtype).eval()
    theirs.set_attn_implementation("eager")
    with tempfile.TemporaryDirectory() as folder:
        ours = ours_of(theirs, Path(folder))
        written = not_equal(ours, Path(folder))
    tokens = torch.randint(1, theirs.config.vocab_size, (BATCH, SEQ))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :3] = False
    causal = ours.graph.sees_later() is None
    with torch.no_grad():
        outputs = difference(ours(tokens), outputs_of(theirs, tokens))
        padded = difference(ours(tokens, mask=mask)[mask], outputs_of(theirs, tokens, mask)[mask])
        hidden = hidden_difference(ours, theirs, tokens)
    gradient = gradient_difference(ours, theirs, tokens)
    missed = None
    if causal and not ours.return_only_embed:
        missed = sum(
            tokens_missed(ours, theirs, tokens, prompt_mask, cached)
            for prompt_mask in (None, mask)
            for cached in (True, False)
        )
    counts = (theirs.num_parameters(), sum(p.numel() for p in ours.parameters()), ours.graph.parameters())
    return Agreement(outputs, padded, hidden, gradient, missed, counts, written)


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


def outputs_of(theirs: Any, tokens: Tensor, mask: Tensor | None = None, **keywords: Any) -> Tensor:
    """Logits, or the normed stream of a model without a head."""
    if mask is not None:
        keywords["attention_mask"] = mask.long()
        if "position_ids" in theirs.forward.__code__.co_varnames:
            keywords["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
    out = theirs(input_ids=tokens, **keywords)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state


def hidden_difference(ours: Any, theirs: Any, tokens: Tensor) -> float:
    """Of the stream before each layer, and after the last norm."""
    streams = theirs(input_ids=tokens, output_hidden_states=True).hidden_states
    out, seen = ours(tokens, return_embeddings=True, return_intermediates=True)
    blocks = ours.graph.nodes("block")
    first = blocks[:: len(blocks) // (len(streams) - 1)]
    found = [seen.streams[node] for node in first] + [out]
    return max(difference(one, other) for one, other in zip(found, streams, strict=True))


def gradient_difference(ours: Any, theirs: Any, tokens: Tensor) -> float:
    """Of the gradients of one loss, under their names."""
    with torch.enable_grad():
        for model, out in ((ours, ours(tokens)), (theirs, outputs_of(theirs, tokens))):
            model.zero_grad()
            target = torch.arange(tokens.numel()) % out.shape[-1]
            F.cross_entropy(out.flatten(0, 1), target).backward()
    reading = read(ours.hugging_face)
    with torch.no_grad():
        for parameter in ours.parameters():
            kept, parameter.data = parameter.data, parameter.grad
            parameter.kept = kept
        found = {name: tensor.clone() for name, tensor in their_tensors(ours, reading)}
        for parameter in ours.parameters():
            parameter.data = parameter.kept
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert found.keys() == expected.keys()
    return max(difference(found[name], expected[name]) for name in expected)


def tokens_missed(ours: Any, theirs: Any, tokens: Tensor, mask: Tensor | None, cached: bool) -> int:
    """Of NEW greedy tokens for each row, how many are not theirs."""
    expected = theirs.generate(
        tokens,
        attention_mask=torch.ones_like(tokens) if mask is None else mask.long(),
        max_new_tokens=NEW,
        do_sample=False,
        use_cache=cached,
        eos_token_id=None,
        pad_token_id=0,
    )[:, SEQ:]
    wrapper = xt_blocks.AutoregressiveWrapper(ours)
    found = wrapper.generate(tokens, NEW, temperature=0.0, mask=mask, cache_kv=cached)
    return int((found != expected).sum())


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape, (one.shape, other.shape)
    return float((one - other).abs().max())
