"""Training and generation over segments with memories."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper, XLAutoregressiveWrapper

from ..thorough import part_of
from .variants import COUNTING, SIZES, VARIANTS, count_on, language_model, tokens


class Seen:
    """Tokens that were read: the memories, and the cache, of a Fading model."""

    def __init__(self, tokens: Tensor, max_len: int = 10**6) -> None:
        self.tokens, self.max_len = tokens, max_len

    @property
    def length(self) -> int:
        return self.tokens.shape[1]


class Fading(nn.Module):
    """Logits from the tokens seen so far, of which each counts half of the next; memories are the last of them."""

    num_tokens, return_only_embed = 17, False

    def __init__(self, max_seq_len: int = 5, max_mem_len: int = 100) -> None:
        super().__init__()
        self.max_seq_len, self.max_mem_len = max_seq_len, max_mem_len
        self.graph = language_model().graph
        self.to_logits = nn.Embedding(18, 17, padding_idx=17)  # what is masked is read as a token that says nothing
        self.calls: list[int] = []

    def new_cache(self, batch: int, max_len: int) -> Seen:
        return Seen(torch.zeros(batch, 0, dtype=torch.long), max_len)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        mems: Seen | None = None,
        return_mems: bool = False,
        cache: Seen | None = None,
        last_only: bool = False,
    ) -> Any:
        assert mems is None or cache is None or cache.length == 0
        self.calls.append(x.shape[1])
        x = x if mask is None else x.masked_fill(~mask, 17)
        before = [part.tokens for part in (mems, cache) if part is not None]
        seen = torch.cat((*before, x), dim=1)
        if cache is not None:
            cache.tokens = seen
            assert seen.shape[1] <= cache.max_len
        ages = torch.arange(seen.shape[1]).expand(seen.shape[1], -1)
        weights = (0.5 ** (ages.T - ages)).tril()
        logits = (weights @ self.to_logits(seen))[:, -(1 if last_only else x.shape[1]) :]
        return (logits, Seen(seen[:, -self.max_mem_len :])) if return_mems else logits


def remembering(name: str, max_mem_len: int = 64, **options: Any) -> tuple[TransformerWrapper, dict[str, Tensor]]:
    """A model of a variant, and what three rows of it read; no positions would start anew in each segment."""
    pattern, settings = VARIANTS[name]
    stack = Decoder(pattern=pattern, **(SIZES | settings))
    around = {"max_mem_len": max_mem_len, "use_abs_pos_emb": False} | options
    net = TransformerWrapper(num_tokens=17, max_seq_len=5, attn_layers=stack, **around).eval()
    read = {
        "context": torch.randn(3, 4, stack.graph.dim_context),
        "context_mask": torch.arange(4) < torch.tensor([[4], [2], [3]]),
    }
    return net, read if stack.reads_context else {}


def xl(net: Any, **kwargs: Any) -> XLAutoregressiveWrapper:
    return XLAutoregressiveWrapper(net, **kwargs)


def by_hand(net: Any, prompt: Tensor, new: int, mems: Any = None, **read: Tensor) -> Tensor:
    """Greedy: before each token, every segment is read again from the first one on."""
    out = prompt
    for _ in range(new):
        remembered = mems
        for segment in out.split(net.max_seq_len, dim=1):
            logits, remembered = net(segment, mems=remembered, return_mems=True, **read)
        out = torch.cat((out, logits[:, -1].argmax(-1, keepdim=True)), dim=1)
    return out[:, prompt.shape[1] :]


@pytest.mark.parametrize("seq", [1, 4, 5, 6, 10, 13])
def test_the_loss_over_segments_is_that_of_one_pass(seq: int) -> None:
    net, x = Fading(), tokens(3, seq + 1)
    torch.testing.assert_close(xl(net)(x), AutoregressiveWrapper(net)(x))  # type: ignore[arg-type]
    assert net.calls[:-1] == [5] * (seq // 5) + [seq % 5] * (seq % 5 > 0)


def test_short_memories_forget() -> None:
    net, x = Fading(max_mem_len=2), tokens(1, 12)
    losses = []
    for t in range(11):
        seen = x[:, max(0, t // 5 * 5 - 2) : t + 1]  # two of the segment before, and this one's
        logits = sum(0.5**age * net.to_logits.weight[seen[0, -1 - age]] for age in range(seen.shape[1]))
        losses.append(-logits.log_softmax(-1)[x[0, t + 1]])  # type: ignore[union-attr]
    torch.testing.assert_close(xl(net)(x), torch.stack(losses).mean())


def test_a_token_counts_the_same_in_every_segment() -> None:
    net, x = Fading(), tokens(2, 13)
    x[:, 7:11] = -100  # most of the second segment's targets
    x[1, 12] = -100
    logits = net(x[:, :-1].clamp(min=0))
    by_token = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none", ignore_index=-100)
    torch.testing.assert_close(xl(net)(x), by_token.sum() / (x[:, 1:] != -100).sum())


@pytest.mark.parametrize("left", [0, 2, 6])
def test_padding_changes_no_loss(left: int) -> None:
    model, x = xl(Fading()), tokens(1, 9)
    padded, mask = tokens(1, 15), torch.zeros(1, 15, dtype=torch.bool)
    padded[:, left : left + 9], mask[:, left : left + 9] = x, True
    torch.testing.assert_close(model(padded, mask=mask), model(x))
    with pytest.raises(ValueError, match=r"mask must be \(1, 15\), not"):
        model(padded, mask=mask[:, 1:])


def test_memories_go_on_from_one_text_to_the_next() -> None:
    net, x = Fading(), tokens(2, 21)
    model = xl(net)
    first, mems = model(x[:, :11], return_mems=True)
    second, _ = model(x[:, 10:], mems=mems, return_mems=True)
    torch.testing.assert_close((first + second) / 2, model(x))


@pytest.mark.parametrize("cache_kv", [True, False])
@pytest.mark.parametrize("max_mem_len", [3, 100])
@pytest.mark.parametrize("prompt_len", [1, 4, 5, 6, 10, 12])
def test_greedy_generation_reads_segments(prompt_len: int, max_mem_len: int, cache_kv: bool) -> None:
    net, prompt = Fading(max_mem_len=max_mem_len), tokens(3, prompt_len)
    out = xl(net).generate(prompt, 13, temperature=0, cache_kv=cache_kv)
    assert torch.equal(out, by_hand(net, prompt, 13))
    mems = Seen(tokens(3, 3))
    out = xl(net).generate(prompt, 13, temperature=0, cache_kv=cache_kv, mems=mems)  # type: ignore[arg-type]
    assert torch.equal(out, by_hand(net, prompt, 13, mems))


def test_a_segment_is_read_with_a_cache_and_once_more_when_full() -> None:
    net = Fading()
    xl(net).generate(tokens(1, 7), 10, temperature=0)
    assert net.calls == [5, 2, 1, 1, 5, 1, 1, 1, 1, 5, 1]


def test_prompts_of_different_lengths_generate_as_if_alone() -> None:
    net = Fading(max_mem_len=3)
    prompts = [tokens(1, n)[0] for n in (3, 7, 5, 7, 12)]
    out = xl(net).generate(prompts, 9, temperature=0)
    assert torch.equal(out, torch.cat([by_hand(net, prompt[None], 9) for prompt in prompts]))
    with pytest.raises(ValueError, match="mems are for prompts of one length: generate each length separately"):
        xl(net).generate(prompts, 9, mems=Seen(tokens(5, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kwargs", [{}, {"cache_kv": False}])
def test_generation_ends_with_the_last_row_in_whichever_segment(kwargs: dict[str, Any]) -> None:
    net = TransformerWrapper(
        num_tokens=17, max_seq_len=3, max_mem_len=3, attn_layers=Decoder(pattern="(a f)*2", **SIZES, **COUNTING)
    )
    model = xl(count_on(net.eval()), pad_value=16)
    prompts = [torch.tensor([1, 2, 3, 7]), torch.tensor([4])]
    assert model.generate(prompts, 12, temperature=0, eos_token=9, **kwargs).tolist() == [
        [8, 9, 16, 16, 16],
        [5, 6, 7, 8, 9],
    ]
    assert model.generate(torch.tensor([8]), 12, temperature=0, eos_token=9, **kwargs).tolist() == [9]


def test_eos_sampling_and_streams_are_as_without_memories() -> None:
    model, prompt = xl(Fading(), pad_value=16), tokens(6, 3)
    plain = model.generate(prompt, 12, temperature=0)
    eos = int(plain[0, 4])
    stops = [row.index(eos) + 1 if eos in row else 12 for row in plain.tolist()]
    assert model.generate(prompt, 12, temperature=0, eos_token=eos).tolist() == [
        row[:stop] + [16] * (max(stops) - stop) for row, stop in zip(plain.tolist(), stops, strict=True)
    ]
    assert torch.equal(model.generate(prompt[0], 12, top_k=1), plain[0])
    drawn = model.generate(prompt, 12, generator=torch.Generator().manual_seed(0))
    steps = [*model.stream(prompt, 12, generator=torch.Generator().manual_seed(0))]
    assert torch.equal(torch.stack(steps, dim=1), drawn)
    for kwargs, message in [({"top_a": 2}, "top_a must be"), ({"eos_token": 99}, "eos_token must be")]:
        with pytest.raises(ValueError, match=message):
            model.stream(prompt, 0, **kwargs)
    with pytest.raises(TypeError, match=r"stream\(\) got an unknown argument 'memss'; .*'mems'"):
        model.stream(prompt, 0, memss=None)


def test_a_model_without_memories_is_refused() -> None:
    with pytest.raises(ValueError, match="the model keeps no memories: give it max_mem_len= above 0"):
        xl(Fading(max_mem_len=0))
    with pytest.raises(ValueError, match="the model keeps no memories"):
        xl(language_model())
    with pytest.raises(TypeError, match="net must be a model over tokens"):
        xl(nn.Linear(2, 2))


def test_learned_positions_start_anew_in_each_segment() -> None:
    net, _ = remembering("plain", use_abs_pos_emb=True)
    x = tokens(2, 11)
    positions = torch.arange(10) % 5
    logits = net(x[:, :-1], pos=positions)
    want = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())
    torch.testing.assert_close(xl(net)(x), want, rtol=1e-5, atol=1e-6)


def test_a_missing_context_is_named_when_tokens_are_asked_for() -> None:
    net, _ = remembering("cross")
    with pytest.raises(ValueError, match="the model has cross-attention: give context="):
        xl(net).stream(tokens(1, 3), 2)
    net, _ = remembering("plain")
    with pytest.raises(ValueError, match="a context is given, but the model has no cross-attention"):
        xl(net).generate(tokens(1, 3), 2, context=torch.zeros(1, 2, 24))


# Every variant -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_models_loss_over_segments_is_that_of_one_pass(name: str, memory_tokens: int) -> None:
    net, read = remembering(name, num_memory_tokens=memory_tokens)
    x = tokens(3, 14)
    torch.testing.assert_close(xl(net)(x, **read), AutoregressiveWrapper(net)(x, **read), rtol=1e-5, atol=1e-6)
    for mask in (
        torch.arange(14) < torch.tensor([[14], [7], [11]]),
        torch.arange(14) >= torch.tensor([[0], [2], [4]]),
    ):
        loss = xl(net)(x, mask=mask, **read)
        torch.testing.assert_close(loss, AutoregressiveWrapper(net)(x, mask=mask, **read), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "max_mem_len", "memory_tokens"),
    [
        *part_of(((name, *memory) for name in VARIANTS for memory in ((64, 0), (3, 2))), 3),
        *((name, *memory) for name in ("rotary", "biases, heads", "parallel chains") for memory in ((3, 0), (64, 2))),
    ],
)
def test_a_model_generates_segment_by_segment(name: str, max_mem_len: int, memory_tokens: int) -> None:
    net, read = remembering(name, max_mem_len, num_memory_tokens=memory_tokens)
    prompts = [tokens(1, n)[0] for n in (2, 7, 5)]
    out = xl(net).generate(prompts, 9, temperature=0, **read)
    for i, prompt in enumerate(prompts):
        own = {name: value[i : i + 1] for name, value in read.items()}
        assert torch.equal(out[i : i + 1], by_hand(net, prompt[None], 9, **own))
    _, mems = net(tokens(3, 5), return_mems=True, **read)
    together = tokens(3, 4)
    out = xl(net).generate(together, 9, temperature=0, mems=mems, **read)
    assert torch.equal(out, by_hand(net, together, 9, mems, **read))
