"""attn_mask, self_attn_context_mask and pos of a model over tokens, with whatever stands in front of the tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from xt_blocks import Decoder, Encoder, TransformerWrapper

from .variants import SIZES, tokens

AROUND: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary": {"rotary_pos_emb": True},
    "T5": {"rel_pos_bias": True, "rel_pos_num_buckets": 8, "rel_pos_max_distance": 6},
    "ALiBi": {"alibi_pos_bias": True},
    "memory kv, talking heads": {"attn_num_mem_kv": 2, "attn_talking_heads": True},
    "window, shift": {"attn_max_attend_past": 3, "shift_tokens": 1},
}


def model(name: str = "plain", causal: bool = True, **options: Any) -> TransformerWrapper:
    layers = (Decoder if causal else Encoder)(depth=2, **(SIZES | AROUND[name]))
    around = {"num_tokens": 17, "max_seq_len": 16, "max_mem_len": 16} | options
    return TransformerWrapper(attn_layers=layers, **around).eval()


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def pairs_of(*shape: int) -> Tensor:
    """Random, where each token sees itself."""
    return (torch.rand(shape) < 0.6) | torch.eye(shape[-2], shape[-1]).bool()


RANKS = [(8, 8), (3, 8, 8), (1, 3, 8, 8), (2, 1, 8, 8), (2, 3, 8, 8)]


# attn_mask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", RANKS, ids=str)
@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("prepended", [0, 3])
def test_a_mask_of_pairs_is_what_the_weights_show(shape: tuple[int, ...], memory_tokens: int, prepended: int) -> None:
    net, x, pairs = model(num_memory_tokens=memory_tokens, causal=False), tokens(2, 8), pairs_of(*shape)
    front = {"prepend_embeds": torch.randn(2, prepended, 24)} if prepended else {}
    _, attn = net(x, attn_mask=pairs, return_attn=True, **front)
    length = memory_tokens + prepended
    for weights in attn:
        assert weights.shape == (2, 3, 8 + length, 8 + length)
        assert torch.equal(weights[:, :, length:, length:] > 0, pairs.expand(2, 3, 8, 8))
        assert (weights[:, :, :length] > 0).all()
        assert (weights[..., :length] > 0).all()


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("shape", RANKS, ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_a_padded_row_has_the_pairs_of_the_row_alone(name: str, shape: tuple[int, ...], causal: bool) -> None:
    net, x, pairs = model(name, causal, num_memory_tokens=2), tokens(2, 8), pairs_of(*shape)
    mask, shown = torch.ones(2, 8, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    mask[1, :3], shown[1, :1] = False, False
    front = torch.randn(2, 3, 24)
    out = net(x, mask=mask, attn_mask=pairs, prepend_embeds=front, prepend_mask=shown)
    of_row = pairs[1:] if pairs.ndim == 4 and len(pairs) == 2 else pairs
    alone = net(x[1:, 3:], attn_mask=of_row[..., 3:, 3:], prepend_embeds=front[1:, 1:])
    close(out[1:, 1:3], alone[:, :2])
    close(out[1:, 6:], alone[:, 2:])


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("shape", RANKS, ids=str)
@pytest.mark.parametrize("past_keys", [True, False])
def test_a_mask_of_pairs_with_a_cache(name: str, shape: tuple[int, ...], past_keys: bool) -> None:
    net, x, pairs = model(name, num_memory_tokens=2), tokens(2, 8), pairs_of(*shape)
    if not past_keys:  # what a mask leaves out is seen
        pairs[..., 4:7, :4], pairs[..., 7:, :7] = True, True
    mask, shown = torch.ones(2, 8, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    mask[1, :3], shown[0, 1:] = False, False
    front = {"prepend_embeds": torch.randn(2, 3, 24), "prepend_mask": shown}
    want = net(x, mask=mask, attn_mask=pairs, **front)[:, 3:]
    cache, out = net.new_cache(2, prepended=3), []
    for start, end in ((0, 4), (4, 7), (7, 8)):
        own = pairs[..., start:end, 0 if past_keys else start : end]
        step = net(x[:, start:end], mask=mask[:, start:end], attn_mask=own, cache=cache, **(front if not start else {}))
        out.append(step[:, -(end - start) :])
    close(torch.cat(out, dim=1)[mask], want[mask])


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("shape", RANKS, ids=str)
def test_a_mask_of_pairs_with_memories(name: str, shape: tuple[int, ...]) -> None:
    net, x, pairs = model(name, num_memory_tokens=2, use_abs_pos_emb=False), tokens(2, 8), pairs_of(*shape)
    want = net(x, attn_mask=pairs)
    first, mems = net(x[:, :5], attn_mask=pairs[..., :5, :5], return_mems=True)
    pinned = torch.ones(*shape[:-2], 3, 2, dtype=torch.bool)
    second = net(x[:, 5:], attn_mask=torch.cat((pinned, pairs[..., 5:, :]), dim=-1), mems=mems)
    close(torch.cat((first, second), dim=1), want)
    pairs[..., 5:, :5] = True
    close(net(x[:, 5:], attn_mask=pairs[..., 5:, 5:], mems=mems), net(x[:, 5:], attn_mask=_wide(pairs), mems=mems))


def _wide(pairs: Tensor) -> Tensor:
    return torch.nn.functional.pad(pairs[..., 5:, :], (2, 0), value=True)


@pytest.mark.parametrize(
    ("attn_mask", "message"),
    [
        (torch.ones(5, 5), "attn_mask must be boolean, True = attend, not torch.float32"),
        (torch.ones(4, 5).bool(), r"attn_mask must be \(5, 5\), \(heads, 5, 5\) or \(2, heads, 5, 5\), not \(4, 5\)"),
        (torch.ones(5).bool(), r"attn_mask must be \(5, 5\)"),
        (torch.ones(3, 3, 5, 5).bool(), r"attn_mask must be \(5, 5\)"),
        (torch.ones(2, 5, 5).bool(), "attn_mask is for 2 heads, and the stack's self-attention has 3"),
    ],
)
def test_a_mask_of_pairs_that_does_not_fit(attn_mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(num_memory_tokens=2)(tokens(2, 5), attn_mask=attn_mask)


# self_attn_context_mask --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "rotary", "T5", "ALiBi", "memory kv, talking heads"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("prepended", [0, 3])
def test_a_hidden_token_is_one_that_is_not_there(name: str, causal: bool, memory_tokens: int, prepended: int) -> None:
    net, x = model(name, causal, num_memory_tokens=memory_tokens), tokens(2, 8)
    front = {"prepend_embeds": torch.randn(2, prepended, 24)} if prepended else {}
    stays = torch.tensor([0, 1, 3, 4, 6, 7])
    seen = torch.zeros(2, 8, dtype=torch.bool)
    seen[:, stays] = True
    out = net(x, self_attn_context_mask=seen, **front)
    close(out[:, prepended:][:, stays], net(x[:, stays], pos=stays, **front)[:, prepended:])


@pytest.mark.parametrize("name", AROUND)
def test_hidden_tokens_of_a_padded_row(name: str) -> None:
    net, x = model(name, num_memory_tokens=2), tokens(2, 8)
    mask, seen = torch.ones(2, 8, dtype=torch.bool), torch.rand(2, 8) < 0.5
    mask[1, :3], seen[:, 3] = False, True
    front = torch.randn(2, 3, 24)
    out = net(x, mask=mask, self_attn_context_mask=seen, prepend_embeds=front)
    close(out[1:, 6:], net(x[1:, 3:], self_attn_context_mask=seen[1:, 3:], prepend_embeds=front[1:])[:, 3:])


def test_hidden_tokens_with_memories_and_in_a_caches_first_step() -> None:
    net, x = model("rotary", num_memory_tokens=2), tokens(2, 8)
    seen = torch.tensor([[True, False, True, True]] * 2)
    _, mems = net(x[:, :4], return_mems=True)
    out, attn = net(x[:, 4:], self_attn_context_mask=seen, mems=mems, return_attn=True)
    for weights in attn:
        assert (weights[..., 7] == 0).all()
        assert (weights[..., :7] > 0).all()
    cache = net.new_cache(2, 20)
    close(net(x[:, 4:], self_attn_context_mask=seen, mems=mems, cache=cache), out)
    with pytest.raises(ValueError, match="self_attn_context_mask is for a first step"):
        net(x[:, :1], self_attn_context_mask=seen[:, :1], cache=cache)
    with pytest.raises(ValueError, match=r"self_attn_context_mask must be \(2, 4\), not \(2, 3\)"):
        net(x[:, :4], self_attn_context_mask=seen[:, :3])


# pos ---------------------------------------------------------------------------------------------------------------

POSITIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "absolute": ({}, {}),
    "sinusoidal": ({}, {"scaled_sinu_pos_emb": True}),
    "rotary": ({"rotary_pos_emb": True}, {}),
    "xpos": ({"rotary_xpos": True, "rotary_xpos_scale_base": 3}, {}),
    "T5": ({"rel_pos_bias": True, "rel_pos_num_buckets": 8, "rel_pos_max_distance": 6}, {}),
    "dynamic, absolute": ({"dynamic_pos_bias": True}, {}),
    "ALiBi": ({"alibi_pos_bias": True}, {"use_abs_pos_emb": False}),
    "all": ({"rotary_pos_emb": True, "alibi_pos_bias": True, "rel_pos_bias": True, "attn_num_mem_kv": 1}, {}),
}


def positioned(name: str, **more: Any) -> TransformerWrapper:
    settings, options = POSITIONS[name]
    around: dict[str, Any] = {"num_tokens": 17, "max_seq_len": 16} | options | more
    return TransformerWrapper(attn_layers=Decoder(depth=2, **(SIZES | settings)), **around).eval()


@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("prepended", [0, 2])
@pytest.mark.parametrize("name", POSITIONS)
def test_positions_given(name: str, memory_tokens: int, prepended: int) -> None:
    net, x = positioned(name, num_memory_tokens=memory_tokens), tokens(2, 7)
    front = {"prepend_embeds": torch.randn(2, prepended, 24)} if prepended else {}
    close(net(x, pos=torch.arange(7), **front), net(x, **front))
    rows = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [4, 5, 8, 9, 10, 12, 15]])
    out = net(x, pos=rows, **front)
    for row in range(2):
        own = {key: value[row : row + 1] for key, value in front.items()}
        close(out[row : row + 1], net(x[row : row + 1], pos=rows[row], **own))
    assert not torch.allclose(out[1], net(x, **front)[1], atol=1e-4)


@pytest.mark.parametrize("name", POSITIONS)
def test_texts_packed_into_one_row_have_positions_that_start_anew(name: str) -> None:
    net, x = positioned(name), tokens(2, 9)
    pos = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4])
    pairs = torch.block_diag(torch.ones(4, 4), torch.ones(5, 5)).bool()
    out = net(x, pos=pos, attn_mask=pairs)
    close(out, torch.cat((net(x[:, :4]), net(x[:, 4:])), dim=1))


@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("name", POSITIONS)
def test_positions_given_with_a_cache(name: str, by_row: bool, memory_tokens: int) -> None:
    net, x = positioned(name, num_memory_tokens=memory_tokens), tokens(2, 8)
    pos = torch.tensor([[1, 2, 4, 5, 7, 0, 1, 2], [3, 4, 5, 6, 9, 10, 11, 12]])
    pos = pos if by_row else pos[0]
    front = torch.randn(2, 2, 24)
    want = net(x, pos=pos, prepend_embeds=front)
    cache = net.new_cache(2, prepended=2)
    out = [net(x[:, :4], pos=pos[..., :4], prepend_embeds=front, cache=cache)]
    out.append(net(x[:, 4:6], pos=pos[..., 4:6], cache=cache))
    out += [net(x[:, i : i + 1], cache=cache) for i in (6, 7)]  # they go on from the last
    close(torch.cat(out, dim=1), want)


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_given_are_of_the_segment(name: str) -> None:
    net, x = positioned(name, num_memory_tokens=2, max_mem_len=9), tokens(2, 8)
    _, mems = net(x[:, :4], return_mems=True)
    close(net(x[:, 4:], mems=mems, pos=torch.arange(4)), net(x[:, 4:], mems=mems))
    cache = net.new_cache(2, 20)
    want = net(x[:, 4:], mems=mems, pos=torch.tensor([1, 2, 5, 6]))
    out = net(x[:, 4:7], mems=mems, pos=torch.tensor([1, 2, 5]), cache=cache)
    close(torch.cat((out, net(x[:, 7:], cache=cache)), dim=1), want)


@pytest.mark.parametrize("pos", [[0, 1, 12], [-1, 0, 1]])
def test_learned_positions_have_an_end(pos: list[int]) -> None:
    model = TransformerWrapper(num_tokens=9, max_seq_len=12, attn_layers=Decoder(dim=24, depth=1, heads=3))
    with pytest.raises(ValueError, match="learned positions are from 0 to 11; pos goes from"):
        model(torch.zeros(1, 3, dtype=torch.long), pos=torch.tensor(pos))
