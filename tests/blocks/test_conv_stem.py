"""The convolutional front end of a model over vectors: by hand, with padding, and what a model with it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from xt_blocks import ContinuousAutoregressiveWrapper, ContinuousTransformerWrapper, Decoder, Encoder

SIZES: dict[str, Any] = {"dim": 12, "heads": 2, "attn_dim_head": 6, "depth": 2}


def model(**kwargs: Any) -> ContinuousTransformerWrapper:
    sizes: dict[str, Any] = {"max_seq_len": 8, "dim_in": 5, "conv_stem": True}
    return ContinuousTransformerWrapper(attn_layers=Encoder(**SIZES), **(sizes | kwargs)).double().eval()


def convolved(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """`x: (seq, features)`, one place and one tap at a time, with the Gaussian's own error function."""
    out = []
    for place in range(0, len(x), stride):
        total = bias.clone()
        for tap in range(3):
            if 0 <= place + tap - 1 < len(x):
                total = total + weight[:, :, tap] @ x[place + tap - 1]
        out.append(torch.tensor([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in total.tolist()], dtype=x.dtype))
    return torch.stack(out)


@pytest.mark.parametrize("frames", [1, 2, 7, 8])
@pytest.mark.parametrize("kwargs", [{}, {"emb_dim": 6, "scaled_sinu_pos_emb": True}, {"dim_in": None}])
def test_a_sequence_is_convolved_twice_and_then_has_positions(frames: int, kwargs: dict[str, Any]) -> None:
    m = model(**kwargs)
    assert m.conv_stem is not None
    x = torch.randn(2, frames, m.dim_in, dtype=torch.float64)
    places = (frames + 1) // 2
    first, second = m.conv_stem.conv1, m.conv_stem.conv2
    rows = []
    for row in x:
        hidden = convolved(row, first.weight, first.bias, 1)  # type: ignore[arg-type]
        rows.append(convolved(hidden, second.weight, second.bias, 2))  # type: ignore[arg-type]
    assert m.pos_emb is not None
    embedded = torch.stack(rows) + m.pos_emb(torch.arange(places))
    assert embedded.shape == (2, places, m.emb_dim)
    torch.testing.assert_close(m(x), m.attn_layers(m.project_emb(embedded)))


def test_padding_changes_nothing() -> None:
    m = model()
    x, junk = torch.randn(1, 5, 5).double(), 50 * torch.randn(1, 9, 5).double()
    alone = m(x)
    for left, right in ((0, 4), (2, 2), (4, 0), (0, 1)):
        padded = torch.cat((junk[:, :left], x, junk[:, :right]), dim=1)
        mask = torch.zeros(padded.shape[:2], dtype=torch.bool)
        mask[:, left : left + 5] = True
        torch.testing.assert_close(m(padded, mask=mask)[:, left // 2 : left // 2 + 3], alone)
    with pytest.raises(ValueError, match="pad on the right, or an even number on the left"):
        m(torch.randn(1, 6, 5), mask=torch.arange(6)[None] > 0)
    with pytest.raises(ValueError, match=r"mask must be \(1, 6\), not \(1, 3\)"):
        m(torch.randn(1, 6, 5), mask=torch.ones(1, 3, dtype=torch.bool))


def test_arguments_are_of_the_places() -> None:
    m = model()
    x, more = torch.randn(2, 6, 5).double(), torch.randn(2, 3, 12).double()
    pairs = torch.ones(3, 3, dtype=torch.bool).tril()
    out = m(x, sum_embeds=more, attn_mask=pairs, pos=torch.tensor([2, 1, 0]))
    assert m.conv_stem is not None
    assert m.pos_emb is not None
    embedded = m.conv_stem(x) + more + m.pos_emb(torch.tensor([2, 1, 0]))
    torch.testing.assert_close(out, m.attn_layers(embedded, attn_mask=pairs))
    assert m(torch.randn(1, 16, 5)).shape == (1, 8, 12)
    with pytest.raises(ValueError, match="the sequence has 9 tokens; max_seq_len is 8"):
        m(torch.randn(1, 17, 5))


def test_every_parameter_trains() -> None:
    m = model().train()
    out = m(torch.randn(2, 16, 5), mask=torch.arange(16) < torch.tensor([[16], [9]]))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in m.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_it_sees_later_frames_and_takes_no_cache() -> None:
    m = ContinuousTransformerWrapper(max_seq_len=8, dim_in=5, dim_out=5, conv_stem=True, attn_layers=Decoder(**SIZES))
    reason = "the input's conv_stem reads the frames around each"
    assert m.graph.sees_later() == m.graph.why_not_cached() == reason
    with pytest.raises(ValueError, match=f"the model sees later vectors: {reason}"):
        ContinuousAutoregressiveWrapper(m)
    with pytest.raises(ValueError, match="the model has conv_stem, which reads a whole sequence: it takes no cache"):
        m(torch.randn(1, 4, 5), cache=m.new_cache(1))
