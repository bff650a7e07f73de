"""Beam search: against all texts of a tiny vocabulary, and its scores against whole passes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import xt_blocks
from xt_blocks import AutoregressiveWrapper, TransformerWrapper, XLAutoregressiveWrapper, XTransformer
from xt_blocks import x_transformers as compat

from ..built_in import HYBRID, small

TOKENS, END = 5, 2
SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8}


def model_of(pattern: str = "(a f)*2", settings: dict[str, Any] | None = None, **around: Any) -> TransformerWrapper:
    """A model whose next tokens differ much in probability."""
    torch.manual_seed(0)
    stack = xt_blocks.Decoder(pattern=pattern, **SIZES, **(settings or {}))
    model = TransformerWrapper(attn_layers=stack, **{"num_tokens": TOKENS, "max_seq_len": 16} | around).double().eval()
    nn.init.normal_(model.to_logits.weight, std=0.7)
    return model


def score(net: nn.Module, prompt: Tensor, text: Tensor, **read: Any) -> tuple[Tensor, int]:
    """The sum of the log-probabilities of a text, up to its end token, by one pass; and its length."""
    length = text.tolist().index(END) + 1 if END in text else len(text)
    with torch.no_grad():
        logits = net(torch.cat((prompt, text[: length - 1]))[None], **read)[0, len(prompt) - 1 :]
    return logits.log_softmax(dim=-1).gather(-1, text[:length, None]).sum(), length


def all_texts(net: nn.Module, prompt: Tensor, steps: int, penalty: float) -> list[tuple[float, float, list[int]]]:
    """Every text that ends, or has so many tokens: rank, score and tokens, the best first."""
    found = {}
    for tokens in itertools.product(range(TOKENS), repeat=steps):
        text = torch.tensor(tokens)
        total, length = score(net, prompt, text)
        found[tokens[:length]] = (float(total) / length**penalty, float(total))
    return sorted(((*found[text], [*text]) for text in found), reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
def test_with_as_many_beams_as_texts_it_finds_the_best_ones(penalty: float) -> None:
    model = model_of()
    prompts = [torch.tensor([3, 1, 4]), torch.tensor([0])]
    search = AutoregressiveWrapper(model, pad_value=7).beam_search
    for beams, same in ((TOKENS**3, 40), (6, 1)):
        texts, scores = search(prompts, 3, beams, True, eos_token=END, length_penalty=penalty)
        for row, prompt in enumerate(prompts):
            every = all_texts(model, prompt, 3, penalty)[:same]
            assert [[t for t in text.tolist() if t != 7] for text in texts[:same, row]] == [text for *_, text in every]
            torch.testing.assert_close(scores[:same, row], torch.tensor([total for _, total, _ in every]).double())
    best = search(prompts, 3, 6, eos_token=END, length_penalty=penalty)
    assert torch.equal(best, texts[0, :, : best.shape[1]])


def test_it_takes_the_best_texts_and_not_the_likeliest_tokens() -> None:
    model = model_of()
    nn.init.normal_(model.to_logits.weight, std=0.2)
    writer, prompts = AutoregressiveWrapper(model), torch.randint(0, TOKENS, (8, 3))
    greedy, scores = writer.beam_search(prompts, 6, 1, True)
    _found, best = writer.beam_search(prompts, 6, 30, True)
    assert torch.equal(greedy[0], writer.generate(prompts, 6, temperature=0.0))
    assert (best[0] >= scores[0]).all()
    assert (best[0] > scores[0] + 0.1).any()
    assert (best.sort(dim=0, descending=True).values == best).all()


PATTERNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "learned positions": ("(a f)*2", {}, {}),
    "rotary, shift, grouped": ("(a>>1 f)*2", {"rotary_pos_emb": True, "attn_one_kv_head": True}, {}),
    "windows and states": (
        f"{' '.join(small(kind) for kind in HYBRID)} a(max_attend_past=3)",
        {"rotary_pos_emb": True},
        {"use_abs_pos_emb": False, "max_seq_len": 5},
    ),
    "past max_seq_len": ("(a f)*2", {"rotary_pos_emb": True}, {"max_seq_len": 6}),
    "a condition": ("(a f)*2", {"use_adaptive_layernorm": True, "dim_condition": 3}, {}),
    "memory tokens and a context": ("a c f", {"rel_pos_bias": True}, {"num_memory_tokens": 2}),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_scores_are_those_of_whole_passes(name: str) -> None:
    model = model_of(*PATTERNS[name][:2], **PATTERNS[name][2])
    prompts = [torch.randint(0, TOKENS, (n,)) for n in (4, 1, 3)]
    read: dict[str, Any] = {"context": torch.randn(3, 5, 16).double()} if model.attn_layers.reads_context else {}
    if read:
        read["context_mask"] = torch.arange(5) < torch.tensor([[5], [2], [3]])
    if name == "a condition":
        read["condition"] = torch.randn(3, 3).double()
    writer = AutoregressiveWrapper(model)
    texts, scores = writer.beam_search(prompts, 6, 4, True, eos_token=END, length_penalty=0.8, **read)
    uncached = writer.beam_search(prompts, 6, 4, True, eos_token=END, length_penalty=0.8, cache_kv=False, **read)
    assert torch.equal(texts, uncached[0])
    torch.testing.assert_close(scores, uncached[1])
    if name == "past max_seq_len":
        return  # no single pass has these windows
    for row, prompt in enumerate(prompts):
        own = {key: value[row : row + 1] for key, value in read.items()}
        for beam in range(4):
            torch.testing.assert_close(scores[beam, row], score(model, prompt, texts[beam, row], **own)[0])


def test_segments_of_several_lengths() -> None:
    model = model_of("a f m(state=4, dim_head=8)", {"rotary_pos_emb": True}, max_seq_len=4, max_mem_len=30)
    long = model_of("a f m(state=4, dim_head=8)", {"rotary_pos_emb": True}, max_seq_len=30)
    long.load_state_dict(model.state_dict())
    prompts = [torch.randint(0, TOKENS, (n,)) for n in (5, 2, 5)]
    found = [
        writer.beam_search(prompts, 7, 3, True, eos_token=END)
        for writer in (XLAutoregressiveWrapper(model), AutoregressiveWrapper(long))
    ]
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_a_target_with_forced_and_suppressed_tokens() -> None:
    torch.manual_seed(0)
    model = XTransformer(
        dim=16, enc_num_tokens=9, enc_max_seq_len=8, enc_depth=1, enc_heads=2, dec_num_tokens=TOKENS,
        dec_max_seq_len=8, dec_depth=1, dec_heads=2, start_token=1,
        generation={"eos_token": END, "forced_tokens": {0: 4}, "suppress_tokens": [3], "temperature": 0.0},
    ).double().eval()  # fmt: skip
    source = torch.randint(0, 9, (2, 6))
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    texts, scores = model.beam_search(source, mask=mask, beams=3, return_beams_and_scores=True)
    assert (texts[:, :, 0] == 4).all()
    assert not (texts == 3).any()
    context, context_mask = model.encode(source, mask)
    for beam, row in itertools.product(range(3), range(2)):
        read = {"context": context[row : row + 1], "context_mask": context_mask[row : row + 1]}
        forced, _ = score(model.decoder.net, torch.tensor([1]), torch.tensor([4]), **read)
        total, _ = score(model.decoder.net, torch.tensor([1]), texts[beam, row], **read)
        torch.testing.assert_close(scores[beam, row], total - forced)


@torch.no_grad()
def test_draws_differ_and_keep_their_scores() -> None:
    model, prompt = model_of(), torch.tensor([1, 2])
    nn.init.normal_(model.to_logits.weight, std=0.2)
    writer = AutoregressiveWrapper(model)
    draw = [
        writer.beam_search(
            prompt, 5, 3, True, stochastic=True, temperature=2.0, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, *range(2, 9))
    ]
    assert torch.equal(draw[0][0], draw[1][0])
    assert any(not torch.equal(draw[0][0], texts) for texts, _ in draw)
    for texts, scores in draw:
        assert len({tuple(text) for text in texts.tolist()}) == 3
        for text, own in zip(texts, scores, strict=True):
            logits = model(torch.cat((prompt, text[:-1]))[None])[0, 1:]
            torch.testing.assert_close(own, logits.log_softmax(-1).gather(-1, text[:, None]).sum())


def test_fewer_texts_than_beams_several_ends_and_no_steps() -> None:
    writer = AutoregressiveWrapper(model_of())
    texts, scores = writer.beam_search(torch.tensor([1]), 1, 9, True)
    assert sorted(texts[:5, 0].tolist()) == [*range(5)]
    assert scores[:5].exp().sum().isclose(torch.tensor(1.0).double())
    assert scores[5:].isneginf().all()
    texts, _ = writer.beam_search(torch.tensor([1]), 4, 40, True, eos_token=[0, 1, 2, 3])
    for text in texts[:8].tolist():
        first = next((place for place, token in enumerate(text) if token != 4), 4)
        assert not any(text[first + 1 :])  # padding
    assert writer.beam_search(torch.tensor([[1], [2]]), 0).shape == (2, 0)


def test_the_other_form_of_calls() -> None:
    model = compat.TransformerWrapper(
        num_tokens=TOKENS, max_seq_len=16, attn_layers=compat.Decoder(dim=16, depth=1, heads=2)
    ).eval()
    prompts, lens = torch.randint(0, TOKENS, (2, 4)), torch.tensor([4, 2])
    ours = AutoregressiveWrapper(model).beam_search([prompts[0], prompts[1, :2]], 5, return_beams_and_scores=True)
    theirs = compat.AutoregressiveWrapper(model).beam_search(
        prompts, 5, beams=4, return_beams_and_scores=True, prompt_lens=lens, temperature=0.7
    )
    assert ours[0].shape == (4, 2, 5)
    assert torch.equal(ours[0], theirs[0])

    class Net(nn.Module):
        max_seq_len = 16

        def forward(self, x: Tensor, extra: Tensor) -> Tensor:
            assert len(extra) == len(x)
            return model(x) + extra[:, None, None] * 0

    client = compat.AutoregressiveWrapper(Net()).beam_search(prompts, 5, extra=torch.zeros(2))
    assert torch.equal(client, AutoregressiveWrapper(model).beam_search(prompts, 5))


def test_a_cache_of_fixed_shapes_is_reordered_in_place() -> None:
    model = model_of("a>>1 m(state=4, dim_head=8) f")
    mask = torch.arange(4) >= torch.tensor([[0], [2]])
    text, rows = torch.randint(0, TOKENS, (2, 6)), torch.tensor([1, 1])
    cache = model.new_cache(2, 8)
    with torch.no_grad():
        model(text[:, :4], mask=mask, cache=cache)
        cache.fix_shapes()
        model(text[:, 4:5], cache=cache)
        pointers = [t.data_ptr() for t in cache.tensors()]
        assert cache.reorder(rows) is cache
        assert [t.data_ptr() for t in cache.tensors()] == pointers
        expected = model(text[1:, 2:])[0, -1]
        torch.testing.assert_close(model(text[rows, 5:6], cache=cache)[:, 0], expected.expand(2, -1))


def test_what_a_search_does_not_take() -> None:
    writer, prompt = AutoregressiveWrapper(model_of()), torch.tensor([1])
    with pytest.raises(ValueError, match="top_k is given, but a beam search takes the likeliest: set stochastic=True"):
        writer.beam_search(prompt, 3, top_k=2)
    with pytest.raises(ValueError, match="beams must be"):
        writer.beam_search(prompt, 3, beams=0)
    with pytest.raises(TypeError, match="did you mean 'length_penalty'"):
        writer.beam_search(prompt, 3, length_penaltie=1)
    assert writer.beam_search(prompt, 3, temperature=0).shape == (3,)
