"""Wrappers around what torch.compile makes of a model, or of its stack: against the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from xt_blocks import (
    AutoregressiveWrapper,
    ContinuousAutoregressiveWrapper,
    ContinuousTransformerWrapper,
    Decoder,
    Encoder,
    NonAutoregressiveWrapper,
    TransformerWrapper,
    ViTransformerWrapper,
    XLAutoregressiveWrapper,
)

from .variants import SIZES, language_model, tokens


def compiled(module: nn.Module) -> tuple[Any, CompileCounter]:
    """What torch.compile makes of it, and the count of its graphs."""
    torch._dynamo.reset()
    counter = CompileCounter()
    return torch.compile(module, backend=counter), counter


@pytest.mark.parametrize("kwargs", [{}, {"cache_kv": False}])
def test_next_tokens(kwargs: dict[str, Any]) -> None:
    net = language_model(rotary_pos_emb=True)
    other, counter = compiled(net)
    plain, wrapped = (AutoregressiveWrapper(own, ignore_index=3, pad_value=1) for own in (net, other))
    x = tokens(2, 9)
    torch.testing.assert_close(wrapped(x), plain(x))
    assert counter.frame_count > 0
    made = [own.generate(x[:, :3], 15, temperature=0, **kwargs) for own in (plain, wrapped)]
    assert torch.equal(*made)
    assert wrapped.max_seq_len == 16


def test_segments() -> None:
    net = TransformerWrapper(
        num_tokens=17, max_seq_len=4, max_mem_len=4, attn_layers=Decoder(depth=1, rel_pos_bias=True, **SIZES)
    ).eval()
    other, counter = compiled(net)
    plain, wrapped = XLAutoregressiveWrapper(net), XLAutoregressiveWrapper(other)
    x = tokens(2, 10)
    torch.testing.assert_close(wrapped(x), plain(x))
    assert counter.frame_count > 0
    assert torch.equal(plain.generate(x[:, :6], 5, temperature=0), wrapped.generate(x[:, :6], 5, temperature=0))


def test_masked_tokens() -> None:
    net = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=Encoder(depth=1, **SIZES)).eval()
    other, counter = compiled(net)
    made: list[Tensor] = []
    losses: list[Tensor] = []
    for own in (net, other):
        model = NonAutoregressiveWrapper(own, mask_id=16, steps=4)
        torch.manual_seed(3)
        losses.append(model(torch.arange(16).view(2, 8)).loss)
        made.append(model.generate(3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(*losses)
    assert torch.equal(*made)
    assert counter.frame_count > 0


def test_vectors() -> None:
    net = ContinuousTransformerWrapper(max_seq_len=16, attn_layers=Decoder(depth=1, **SIZES)).eval()
    other, counter = compiled(net)
    plain, wrapped = ContinuousAutoregressiveWrapper(net), ContinuousAutoregressiveWrapper(other)
    x = torch.randn(2, 6, 24)
    torch.testing.assert_close(wrapped(x), plain(x))
    torch.testing.assert_close(wrapped.generate(x, 5), plain.generate(x, 5))
    assert counter.frame_count > 0


def test_a_compiled_stack_is_a_stack() -> None:
    encoder = Encoder(depth=1, **SIZES).eval()
    stack, counter = compiled(encoder)
    makes = (
        lambda layers: TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=layers),
        lambda layers: ContinuousTransformerWrapper(dim_in=3, max_seq_len=8, attn_layers=layers),
        lambda layers: ViTransformerWrapper(image_size=8, patch_size=4, num_classes=3, attn_layers=layers),
    )
    for make, x in zip(makes, (tokens(2, 8), torch.randn(2, 8, 3), torch.randn(2, 3, 8, 8)), strict=True):
        model, plain = make(stack).eval(), make(encoder).eval()
        plain.load_state_dict({name.replace("_orig_mod.", ""): own for name, own in model.state_dict().items()})
        torch.testing.assert_close(model(x), plain(x))
    assert counter.frame_count > 0


def test_what_is_no_model_is_still_refused() -> None:
    other, _ = compiled(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="net must be a model over tokens, as TransformerWrapper is, not"):
        AutoregressiveWrapper(other)
    with pytest.raises(TypeError, match="net must be a TransformerWrapper, not"):
        NonAutoregressiveWrapper(other, mask_id=0)
    with pytest.raises(TypeError, match=r"attn_layers must be a stack, as Decoder\(...\) is, not"):
        TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=other)
