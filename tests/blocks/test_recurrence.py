"""Memories of a model over tokens: segments against one long pass, and against rules written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from xt_blocks import Decoder, TransformerWrapper
from xt_blocks.runtime.memories import Memories

from .variants import SIZES, VARIANTS, tokens


def model(name: str = "plain", **options: Any) -> TransformerWrapper:
    """Of a variant, without positions that would start anew in each segment."""
    pattern, settings = VARIANTS[name]
    return of_pattern(pattern, settings, **options)


def of_pattern(pattern: str, settings: dict[str, Any], **options: Any) -> TransformerWrapper:
    stack = Decoder(pattern=pattern, **(SIZES | settings))
    around = {"num_tokens": 17, "max_seq_len": 64, "use_abs_pos_emb": False, "max_mem_len": 64} | options
    net = TransformerWrapper(attn_layers=stack, **around).eval()
    with torch.no_grad():  # biases and gains are not what they would be at first
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def read_with(net: TransformerWrapper, batch: int) -> dict[str, Tensor]:
    return {"context": torch.randn(batch, 5, net.graph.dim_context)} if net.attn_layers.reads_context else {}


def in_segments(
    net: TransformerWrapper,
    x: Tensor,
    cuts: list[int],
    mask: Tensor | None = None,
    front: Tensor | None = None,
    **read: Any,
) -> tuple[Tensor, Memories | None]:
    out, mems = [], None
    for i, part in enumerate(x.split(cuts, dim=1)):
        given: dict[str, Any] = read | ({} if mask is None else {"mask": mask.split(cuts, dim=1)[i]})
        if i == 0 and front is not None:
            given["prepend_embeds"] = front
        logits, mems = net(part, mems=mems, return_mems=True, **given)
        out.append(logits)
    return torch.cat(out, dim=1), mems


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# One long pass -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_segments_are_one_long_pass(name: str, memory_tokens: int) -> None:
    net, x = model(name, num_memory_tokens=memory_tokens), tokens(3, 11)
    read, front = read_with(net, 3), torch.randn(3, 3, net.emb_dim)
    mask = torch.ones(3, 11, dtype=torch.bool)
    mask[1, :2], mask[2, 9:], mask[2, 5] = False, False, False
    for embeds in (None, front):
        prepended = {} if embeds is None else {"prepend_embeds": embeds}
        out, mems = in_segments(net, x, [4, 4, 3], front=embeds, **read)
        close(out, net(x, **prepended, **read))
        assert mems is not None
        assert (mems.length, mems.pinned) == (11 + memory_tokens + 3 * (embeds is not None), memory_tokens)
        out, _ = in_segments(net, x, [4, 4, 3], mask, embeds, **read)
        want = net(x, mask=mask, **prepended, **read)
        close(out[:, -11:][mask], want[:, -11:][mask])


@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_padded_row_remembers_what_it_would_alone(name: str, memory_tokens: int) -> None:
    net = model(name, num_memory_tokens=memory_tokens, max_mem_len=4)
    x, read = tokens(3, 16), read_with(net, 3)
    mask = torch.arange(16) >= torch.tensor([[0], [3], [1]])
    out, _ = in_segments(net, x, [5, 3, 4, 4], mask, **read)
    for row, left in enumerate((0, 3, 1)):
        own = {name: value[row : row + 1] for name, value in read.items()}
        alone, _ = in_segments(net, x[row : row + 1, left:], [5 - left, 3, 4, 4], **own)
        close(out[row : row + 1, left:], alone)


@pytest.mark.parametrize("memory_tokens", [0, 3])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_cache_on_top_of_memories(name: str, memory_tokens: int) -> None:
    net, x = model(name, num_memory_tokens=memory_tokens), tokens(3, 12)
    read, mask = read_with(net, 3), torch.arange(12) >= torch.tensor([[0], [3], [1]])
    want = net(x, mask=mask, **read)
    _, mems = net(x[:, :5], mask=mask[:, :5], return_mems=True, **read)
    cache = net.new_cache(3, mems.length + 7)
    steps = [net(x[:, 5:9], mems=mems, cache=cache, **read), *(net(x[:, i : i + 1], cache=cache) for i in (9, 10, 11))]
    close(torch.cat(steps, dim=1), want[:, 5:])


@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True}, {"alibi_pos_bias": True}, {"rel_pos_bias": True}])
def test_a_window_needs_no_more_than_it_reaches(settings: dict[str, Any]) -> None:
    net = of_pattern("(a f)*2", {"attn_max_attend_past": 3} | settings, num_memory_tokens=2, max_mem_len=3)
    x = tokens(2, 20)
    out, mems = in_segments(net, x, [4] * 5)
    close(out, net(x))
    assert mems is not None
    assert mems.length == 5
    net.max_mem_len = 2
    assert not torch.allclose(in_segments(net, x, [4] * 5)[0], net(x), atol=1e-3)


def test_learned_positions_count_from_the_segments_start() -> None:
    net, x = model(use_abs_pos_emb=True, max_seq_len=4), tokens(2, 10)
    out, _ = in_segments(net, x, [4, 4, 2])
    close(out, net(x, pos=torch.arange(10) % 4))


def test_the_embedding_of_another_width() -> None:
    net, x = model("rotary", emb_dim=20, num_memory_tokens=1), tokens(2, 9)
    out, mems = in_segments(net, x, [4, 5], front=torch.zeros(2, 2, 20))
    close(out, net(x, prepend_embeds=torch.zeros(2, 2, 20)))
    assert mems is not None
    assert {stream.shape for stream in mems.streams.values()} == {(2, 12, 24)}


def test_stochastic_depth_remembers_what_blocks_read() -> None:
    net, x = model("plain"), tokens(4, 6)
    dropped = of_pattern("(a f)*2", {"layer_dropout": 0.5}).train()
    dropped.load_state_dict(net.state_dict())
    torch.manual_seed(0)
    _, record, mems = dropped(x, return_intermediates=True, return_mems=True)
    for node, stream in mems.streams.items():
        assert torch.equal(stream, record.streams[node])
    assert not torch.equal(mems.streams["a2"], net(x, return_mems=True)[1].streams["a2"])


# Memory tokens -----------------------------------------------------------------------------------------------------


def test_memory_tokens_are_remembered_for_good() -> None:
    net = of_pattern("a", {}, num_memory_tokens=2, max_mem_len=3)
    x = tokens(2, 14)
    mask = torch.arange(14) >= torch.tensor([[0], [3]])
    mems: Memories | None = None
    stream = net.token_emb(x)  # what the only block reads
    done = 0
    for new in (5, 1, 4, 4):
        now = slice(done, done + new)
        _, mems = net(x[:, now], mask=mask[:, now], mems=mems, return_mems=True)
        done += new
        assert mems is not None
        (kept,) = mems.streams.values()
        for row, left in enumerate((0, 3)):
            real = kept[row] if mems.mask is None else kept[row][mems.mask[row]]
            last = stream[row, max(left, done - 3) : done]
            close(real, torch.cat((net.memory_tokens, last)))
            if mems.mask is not None:  # the padding is in front
                assert mems.mask[row].int().diff().min() >= 0


def test_memory_tokens_stand_in_front_of_the_first_segment_alone() -> None:
    net, x = model(num_memory_tokens=2), tokens(1, 6)
    _, mems, attn = net(x[:, :3], return_mems=True, return_attn=True)
    assert [weights.shape for weights in attn] == [(1, 3, 5, 5)] * 2
    _, attn = net(x[:, 3:], mems=mems, return_attn=True)
    assert [weights.shape for weights in attn] == [(1, 3, 3, 8)] * 2


# Memories read further down ----------------------------------------------------------------------------------------


def attention_by_hand(net: TransformerWrapper, node: str, x: Tensor, memory: Tensor) -> Tensor:
    """One pre-norm attention of the stack, added to x."""
    block = net.attn_layers.blocks[node]
    seen = block.norm(torch.cat((memory, x), dim=1))
    q, k, v = (t.unflatten(-1, (3, 8)).transpose(1, 2) for t in (seen @ block.layer.to_qkv.weight.T).chunk(3, dim=-1))
    past, seq = memory.shape[1], x.shape[1]
    later = torch.arange(past + seq) > torch.arange(past, past + seq)[:, None]
    scores = (q[:, :, past:] @ k.mT / 8**0.5).masked_fill(later, float("-inf"))
    out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return x + out @ block.layer.output.to_out.weight.T


@pytest.mark.parametrize("down", [0, 1, 2, 3, 5])
def test_memories_are_read_from_so_many_layers_further_up(down: int) -> None:
    net = of_pattern("a a a a", {}, max_mem_len=7, shift_mem_down=down)
    x, mems = tokens(2, 15), None
    nodes = ["a0", "a1", "a2", "a3"]
    kept = [torch.zeros(2, 0, 24)] * 4
    for part in x.split(3, dim=1):
        stream = net.token_emb(part)
        read = [kept[(layer + down) % 4] for layer in range(4)]  # the last layers read what the first remembered
        kept = []
        for node, memory in zip(nodes, read, strict=True):
            kept.append(torch.cat((memory, stream), dim=1)[:, -7:])  # on top of what it read
            stream = attention_by_hand(net, node, stream, memory)
        logits, mems = net(part, mems=mems, return_mems=True)
        close(logits, net.to_logits(net.attn_layers.norm(stream)))
        assert mems is not None
        for node, memory in zip(nodes, kept, strict=True):
            close(mems.streams[node], memory)


@pytest.mark.parametrize("name", ["plain", "shift 2", "residual attention", "cross", "ties", "T5 bias", "parallel"])
def test_memories_read_further_down_with_a_cache(name: str) -> None:
    net, x = model(name, shift_mem_down=1, num_memory_tokens=2), tokens(3, 12)
    read = read_with(net, 3)
    _, mems = net(x[:, :5], return_mems=True, **read)
    want = net(x[:, 5:], mems=mems, **read)
    cache = net.new_cache(3, mems.length + 7)
    steps = [net(x[:, 5:9], mems=mems, cache=cache, **read), *(net(x[:, i : i + 1], cache=cache) for i in (9, 10, 11))]
    close(torch.cat(steps, dim=1), want)
    if name != "shift 2":  # its two attentions would read alike
        straight = model(name, num_memory_tokens=2)
        straight.load_state_dict(net.state_dict())
        assert not torch.allclose(straight(x[:, 5:], mems=mems, **read), want, atol=1e-4)


# Errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [0, 1])
def test_wrong_memories_are_refused(down: int) -> None:
    net, x = model(shift_mem_down=down), tokens(2, 4)
    _, mems = net(x, return_mems=True)
    with pytest.raises(ValueError, match="a list of mems must be 2 tensors"):
        net(x, mems=[torch.randn(2, 3, 24)])
    with pytest.raises(ValueError, match="mems have 2 rows, not 3"):
        net(tokens(3, 4), mems=mems)
    with pytest.raises(ValueError, match="mems come from a model with other blocks"):
        of_pattern("a f a a", {}, shift_mem_down=down)(x, mems=mems)
    with pytest.raises(ValueError, match="return_mems is set, but the model keeps no memories: give it max_mem_len="):
        model(max_mem_len=0)(x, return_mems=True)
    cache = net.new_cache(2, 20)
    net(x, mems=mems, cache=cache)
    with pytest.raises(ValueError, match="mems come before the cache's first step; later steps take none"):
        net(x, mems=mems, cache=cache)
