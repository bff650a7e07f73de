"""Tokens in, logits out; the training loss; generation."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from xt_blocks import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper
from xt_blocks.wrappers.sampling import keep_top_k, keep_top_p, sample

from .variants import SIZES, VARIANTS


def language_model(max_seq_len: int = 16, pattern: str = "(a f)*2", **settings: Any) -> TransformerWrapper:
    stack = Decoder(pattern=pattern, **(SIZES | settings))
    return TransformerWrapper(num_tokens=17, max_seq_len=max_seq_len, attn_layers=stack).eval()


def tokens(batch: int = 2, seq: int = 7) -> torch.Tensor:
    return torch.randint(0, 17, (batch, seq))


def test_logits_are_the_parts_put_together() -> None:
    model = language_model()
    x = tokens()
    assert model.pos_emb is not None
    assert model.to_logits is not None
    embedded = model.token_emb.weight[x] + model.pos_emb.embedding.weight[:7]
    hidden = model.attn_layers(embedded)
    torch.testing.assert_close(model(x), hidden @ model.to_logits.weight.T + model.to_logits.bias)
    torch.testing.assert_close(model(x, return_embeddings=True), hidden)


def test_tied_logits_use_the_embeddings_matrix() -> None:
    model = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=Decoder(depth=1, **SIZES), tie_embedding=True)
    x = tokens(seq=5)
    torch.testing.assert_close(model(x), model(x, return_embeddings=True) @ model.token_emb.weight.T / 24**0.5)
    assert sum(p.numel() for p in model.parameters()) == model.graph.parameters()


@pytest.mark.parametrize("how", [{"rotary_pos_emb": True}, {}])
def test_absolute_positions_give_way_to_rotary_ones(how: dict[str, bool]) -> None:
    model = language_model(**how)
    assert (model.pos_emb is None) == bool(how)
    assert (
        TransformerWrapper(
            num_tokens=17, max_seq_len=8, attn_layers=Decoder(depth=1, **SIZES), use_abs_pos_emb=False
        ).pos_emb
        is None
    )


def test_a_graph_with_tokens_lowers_to_the_same_model() -> None:
    settings = SIZES | {"num_tokens": 17, "max_seq_len": 16, "causal": True, "emb_dropout": 0.25, "tie_embedding": True}
    lowered = xt_blocks.lower(blockdsl.compile("(a f)*2", **settings))
    stack = Decoder(depth=2, **SIZES)
    built = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack, emb_dropout=0.25, tie_embedding=True)
    assert isinstance(lowered, TransformerWrapper)
    assert lowered.graph == built.graph
    assert [*lowered.state_dict()] == [*built.state_dict()]
    assert lowered.emb_dropout.p == 0.25
    again = xt_blocks.lower(blockdsl.BlockGraph.from_json(lowered.graph.to_json()))
    again.load_state_dict(lowered.state_dict())
    x = tokens()
    assert torch.equal(again.eval()(x), lowered.eval()(x))


@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True}, {"shift_tokens": 1}])
@pytest.mark.parametrize("causal", [True, False])
def test_left_and_right_padding_change_nothing(settings: dict[str, Any], causal: bool) -> None:
    stack = (Decoder if causal else Encoder)(depth=2, **SIZES, **settings)
    model = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack).eval()
    x, junk = tokens(1, 6), tokens(1, 8)
    alone = model(x)
    for left in (0, 3, 8):
        padded = torch.cat((junk[:, :left], x, junk[:, left:]), dim=1)
        mask = torch.zeros(1, 14, dtype=torch.bool)
        mask[:, left : left + 6] = True
        out = model(padded, mask=mask)[:, left : left + 6]
        torch.testing.assert_close(out, alone, rtol=1e-4, atol=1e-5)


def test_a_hole_in_the_mask_moves_no_position() -> None:
    model = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=Encoder(depth=1, **SIZES)).eval()
    x = tokens(1, 6)
    mask = torch.tensor([[True, True, False, True, True, True]])
    assert model._positions(x, mask, None).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_wrong_tokens_are_refused() -> None:
    model = language_model(max_seq_len=8)
    with pytest.raises(ValueError, match="the sequence has 9 tokens; max_seq_len is 8"):
        model(tokens(1, 9))
    with pytest.raises(ValueError, match=r"tokens must be int64 or int32 \(batch, seq\), not torch.float32 \(1, 3\)"):
        model(torch.randn(1, 3))
    with pytest.raises(ValueError, match=r"tokens must be int64 or int32 \(batch, seq\), not torch.uint8 \(1, 3\)"):
        model(tokens(1, 3).byte())
    with pytest.raises(TypeError, match="attn_layers must be a stack"):
        TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    assert language_model(max_seq_len=8, rotary_pos_emb=True)(tokens(1, 9)).shape == (1, 9, 17)


def test_embeddings_start_as_the_seed_documents_users_expect() -> None:
    stack = Decoder(dim=64, depth=1, heads=1)
    model = TransformerWrapper(num_tokens=3000, max_seq_len=2000, attn_layers=stack)
    assert model.token_emb.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert model.pos_emb is not None
    assert model.pos_emb.embedding.weight.std().item() == pytest.approx(64**-0.5, rel=0.02)


# Training ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_cross_entropy_of_the_next_token() -> None:
    model = language_model()
    x = tokens()
    logp = model(x[:, :-1]).log_softmax(-1)
    by_hand = -torch.stack([logp[b, t, x[b, t + 1]] for b in range(2) for t in range(6)]).mean()
    torch.testing.assert_close(AutoregressiveWrapper(model)(x), by_hand)


def test_ignored_targets_count_for_nothing_and_never_reach_the_embedding() -> None:
    model = language_model()
    x = tokens(1, 7)
    ignored = x.clone()
    ignored[0, 4:] = -100
    torch.testing.assert_close(AutoregressiveWrapper(model)(ignored), AutoregressiveWrapper(model)(x[:, :4]))


@pytest.mark.parametrize("left", [0, 3])
def test_padding_changes_no_loss(left: int) -> None:
    model = AutoregressiveWrapper(language_model())
    x = tokens(1, 6)
    padded = torch.full((1, 9), 3)
    padded[:, left : left + 6] = x
    mask = torch.zeros(1, 9, dtype=torch.bool)
    mask[:, left : left + 6] = True
    torch.testing.assert_close(model(padded, mask=mask), model(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"mask must be \(1, 9\) like the tokens"):
        model(padded, mask=mask[:, 1:])


def test_only_a_causal_model_is_trained_on_the_next_token() -> None:
    encoder = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=Encoder(depth=1, **SIZES))
    with pytest.raises(
        ValueError, match=r"the model sees later tokens: a0 \(self-attention\) is not causal; a Decoder is causal"
    ):
        AutoregressiveWrapper(encoder)
    with pytest.raises(ValueError, match=r"the model sees later tokens: a2 \(self-attention\) is not causal"):
        AutoregressiveWrapper(language_model(pattern="a f a(causal=false) f"))
    with pytest.raises(TypeError, match="net must be a model over tokens, as TransformerWrapper is, not Decoder"):
        AutoregressiveWrapper(Decoder(depth=1, **SIZES))  # type: ignore[arg-type]


def test_a_loss_needs_a_token_to_see_and_one_to_predict() -> None:
    with pytest.raises(ValueError, match=r"tokens must be \(batch, 2 or more\), .* not \(2, 1\)"):
        AutoregressiveWrapper(language_model())(tokens(2, 1))


def test_tokens_may_be_int32() -> None:
    model, x = AutoregressiveWrapper(language_model()), tokens()
    assert torch.equal(model(x.int()), model(x))
    assert torch.equal(model.generate(x.int(), 4, temperature=0), model.generate(x, 4, temperature=0))


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_of_the_model_is_trained(name: str, tie: bool) -> None:
    pattern, settings = VARIANTS[name]
    stack = Decoder(pattern=pattern, **(SIZES | {"layer_dropout": 0.1} | settings))
    net = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=stack, emb_dropout=0.1, tie_embedding=tie)
    model = AutoregressiveWrapper(net).train()
    kwargs = {"context": torch.randn(4, 5, 24)} if stack.reads_context else {}
    model(tokens(4, 9), mask=torch.arange(9) < torch.tensor([[9], [9], [3], [0]]), **kwargs).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True, "use_rmsnorm": True}, {"residual_attn": True}])
def test_a_model_trains_and_generates_in_its_own_type(settings: dict[str, Any], dtype: torch.dtype) -> None:
    net = language_model(**settings).to(dtype)
    model, x = AutoregressiveWrapper(net), tokens()
    assert net(x).dtype == dtype
    loss = model(x)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert loss.item() == pytest.approx(copy.deepcopy(model).double()(x).item(), rel=0.01)
    assert torch.equal(model.generate(x, 12, temperature=0), model.generate(x, 12, temperature=0))


def test_copies_of_a_trainer_are_equal_and_independent() -> None:
    stack = Decoder(pattern="(a@x f@y)*2", **SIZES)
    net = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack, tie_embedding=True)
    model, x = AutoregressiveWrapper(net), tokens()
    loss = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), loss)
        assert len([*other.parameters()]) == len([*model.parameters()])  # what was tied still is
        torch.nn.init.zeros_(other.net.token_emb.weight)
    assert torch.equal(model(x), loss)


# Generation --------------------------------------------------------------------------------------------------------


class RunningMean(nn.Module):
    """The mean of the tokens so far: causal, and with no state for a next step."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """`x: (batch, seq, dim)` → (batch, seq, dim)."""
        return x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1)[:, None]


def by_hand(model: TransformerWrapper, prompt: torch.Tensor, new: int, **kwargs: Any) -> torch.Tensor:
    """Greedy, one whole forward pass a token, the last max_seq_len tokens at a time."""
    out = prompt
    for _ in range(new):
        logits = model(out[:, -model.max_seq_len :], **kwargs)[:, -1]
        out = torch.cat((out, logits.argmax(-1, keepdim=True)), dim=1)
    return out[:, prompt.shape[1] :]


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_generation_is_argmax_over_whole_passes(name: str) -> None:
    pattern, settings = VARIANTS[name]
    model = language_model(pattern=pattern, **settings)
    prompt = tokens(2, 4)
    kwargs = {"context": torch.randn(2, 5, 24)} if model.attn_layers.reads_context else {}
    out = AutoregressiveWrapper(model).generate(prompt, 9, temperature=0, **kwargs)
    assert torch.equal(out, by_hand(model, prompt, 9, **kwargs))


@pytest.mark.parametrize("prompt_len", [1, 6, 8, 11])
@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True}])
def test_past_the_window_generation_is_windowed_decoding(prompt_len: int, settings: dict[str, Any]) -> None:
    model = language_model(max_seq_len=8, **settings)
    prompt = tokens(2, prompt_len)
    expected = by_hand(model, prompt, 12)
    for cache_kv in (True, False):
        out = AutoregressiveWrapper(model).generate(prompt, 12, temperature=0, cache_kv=cache_kv)
        assert torch.equal(out, expected)


def test_a_stack_without_a_cache_generates_all_the_same() -> None:
    blockdsl.register(
        blockdsl.Kind("mean", "mean of the tokens so far", (), lambda o: {}, lambda o, sizes: 0, module=RunningMean)
    )
    try:
        model = language_model(pattern="a f mean f")
        prompt = tokens(2, 3)
        assert model.graph.why_not_cached() is not None
        assert torch.equal(AutoregressiveWrapper(model).generate(prompt, 5, temperature=0), by_hand(model, prompt, 5))
    finally:
        blockdsl.unregister("mean")


def test_prompts_of_different_lengths_generate_as_if_alone() -> None:
    model = AutoregressiveWrapper(language_model(shift_tokens=1))
    long, short = tokens(1, 6), tokens(1, 2)
    padded = torch.cat((torch.zeros(1, 4, dtype=torch.long), short), dim=1)
    mask = torch.tensor([[True] * 6, [False] * 4 + [True] * 2])
    out = model.generate(torch.cat((long, padded)), 8, temperature=0, mask=mask)
    assert torch.equal(out[:1], model.generate(long, 8, temperature=0))
    assert torch.equal(out[1:], model.generate(short, 8, temperature=0))


def test_a_one_dimensional_prompt_gives_a_one_dimensional_text() -> None:
    model = AutoregressiveWrapper(language_model())
    prompt = tokens(1, 3)
    assert torch.equal(model.generate(prompt[0], 5, temperature=0), model.generate(prompt, 5, temperature=0)[0])
    with pytest.raises(ValueError, match="the prompt is empty"):
        model.generate(prompt[:, :0], 5)


def test_each_row_is_padded_after_its_own_eos() -> None:
    model = AutoregressiveWrapper(language_model(), pad_value=16)
    prompt = tokens(6, 3)
    plain = model.generate(prompt, 12, temperature=0)
    eos = int(plain[0, 4])
    ended = model.generate(prompt, 12, temperature=0, eos_token=eos)
    for row, whole in zip(ended.tolist(), plain.tolist(), strict=True):
        stop = whole.index(eos) + 1 if eos in whole else len(whole)
        assert row == whole[:stop] + [16] * (12 - stop)


def test_a_generator_makes_sampling_reproducible() -> None:
    model = AutoregressiveWrapper(language_model())
    draws = [model.generate(tokens(1, 3) * 0, 10, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_generation_leaves_the_training_mode_as_it_was() -> None:
    model = AutoregressiveWrapper(language_model(attn_dropout=0.5))
    model.train()
    greedy = [model.generate(tokens(1, 3) * 0, 8, temperature=0) for _ in range(3)]
    assert torch.equal(greedy[0], greedy[1])
    assert model.net.training
    model.eval()
    model.generate(tokens(1, 3), 2)
    assert not model.net.training


def test_generation_leaves_a_part_that_was_frozen_frozen() -> None:
    model = AutoregressiveWrapper(language_model(attn_dropout=0.5)).train()
    model.net.attn_layers.blocks["a0"].eval()
    before = [module.training for module in model.modules()]
    model.generate(tokens(1, 3), 2)
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("prompt_len", [4, 8, 11])
def test_past_the_window_a_context_and_its_mask_are_still_read(prompt_len: int) -> None:
    model = language_model(max_seq_len=8, pattern="(a c f)*2")
    context_mask = torch.tensor([[True] * 5, [True, False, True, False, False]])
    kwargs = {"context": torch.randn(2, 5, 24), "context_mask": context_mask}
    prompt = tokens(2, prompt_len)
    out = AutoregressiveWrapper(model).generate(prompt, 12, temperature=0, **kwargs)
    assert torch.equal(out, by_hand(model, prompt, 12, **kwargs))


def test_past_the_window_prompts_of_different_lengths_generate_as_if_alone() -> None:
    model = AutoregressiveWrapper(language_model(max_seq_len=8))
    long, short = tokens(1, 6), tokens(1, 2)
    padded = torch.cat((torch.zeros(1, 4, dtype=torch.long), short), dim=1)
    mask = torch.tensor([[True] * 6, [False] * 4 + [True] * 2])
    out = model.generate(torch.cat((long, padded)), 14, temperature=0, mask=mask)
    assert torch.equal(out[:1], model.generate(long, 14, temperature=0))
    assert torch.equal(out[1:], model.generate(short, 14, temperature=0))


def test_a_prompt_that_is_masked_whole_generates_tokens() -> None:
    model = AutoregressiveWrapper(language_model())
    mask = torch.tensor([[True] * 4, [False] * 4])
    prompt = tokens(2, 4)
    out = model.generate(prompt, 6, mask=mask)
    assert ((out >= 0) & (out < 17)).all()
    greedy = model.generate(prompt, 6, temperature=0, mask=mask)
    assert torch.equal(greedy[:1], model.generate(prompt[:1], 6, temperature=0))


def test_the_mask_of_a_prompt_is_checked() -> None:
    model, prompt = AutoregressiveWrapper(language_model(max_seq_len=4)), tokens(2, 6)
    with pytest.raises(ValueError, match="the mask hides the end of a prompt: pad shorter prompts on the left"):
        model.generate(prompt, 3, mask=torch.arange(6) < torch.tensor([[6], [4]]))
    with pytest.raises(ValueError, match=r"mask must be \(2, 6\), not \(2, 9\)"):
        model.generate(prompt, 3, mask=torch.ones(2, 9).bool())
    with pytest.raises(ValueError, match="seq_len must be at least 0, not -1"):
        model.generate(prompt, -1)
    one = torch.tensor([False, True, True, True, True, True])
    assert torch.equal(
        model.generate(prompt[0], 3, temperature=0, mask=one),
        model.generate(prompt[:1], 3, temperature=0, mask=one[None])[0],
    )


def test_the_model_is_not_run_for_rows_that_have_all_ended() -> None:
    model = AutoregressiveWrapper(language_model(), pad_value=16)
    prompt = tokens(1, 3)
    eos = int(model.generate(prompt, 1, temperature=0))
    calls: list[int] = []
    model.net.register_forward_hook(lambda *_: calls.append(1))
    assert model.generate(prompt, 9, temperature=0, eos_token=eos).tolist() == [[eos] + [16] * 8]
    assert len(calls) == 1


def test_a_tiny_temperature_is_the_most_likely_token() -> None:
    logits = torch.tensor([[1.0, 300.0, 299.0], [5.0, 4.0, -7.0]])
    assert sample(logits, temperature=1e-38).tolist() == [1, 0]
    assert sample(logits, temperature=1e-38, top_p=0.5).tolist() == [1, 0]


def test_top_k_keeps_k_of_equals() -> None:
    assert keep_top_k(torch.zeros(3, 5), 2).isfinite().sum(dim=-1).tolist() == [2, 2, 2]


def test_top_k_keeps_the_k_largest() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 1.0, 2.0, 3.0]])
    assert keep_top_k(logits, 2).isfinite().tolist() == [[False, True, False, True], [True, False, False, True]]
    assert torch.equal(keep_top_k(logits, 99), logits)


def test_top_p_keeps_the_smallest_set_with_the_mass() -> None:
    probabilities = torch.tensor([[0.1, 0.4, 0.3, 0.2]])
    logits = probabilities.log()
    for p, kept in [(0.3, [1]), (0.41, [1, 2]), (0.69, [1, 2]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])]:
        out = keep_top_p(logits, p)
        assert out.isfinite().nonzero()[:, 1].tolist() == kept
        assert torch.equal(out[0, kept], logits[0, kept])  # those kept stay in proportion


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log().expand(20_000, 3)
    drawn = torch.bincount(sample(logits, generator=torch.Generator().manual_seed(0)), minlength=3) / 20_000
    assert drawn.tolist() == pytest.approx([0.1, 0.6, 0.3], abs=0.015)
    sharp = torch.bincount(sample(logits, temperature=0.5), minlength=3) / 20_000
    assert sharp.tolist() == pytest.approx([0.01 / 0.46, 0.36 / 0.46, 0.09 / 0.46], abs=0.015)
    assert sample(logits, temperature=0).unique().tolist() == [1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0"),
    ],
)
def test_wrong_sampling_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoregressiveWrapper(language_model()).generate(tokens(1, 3), 2, **kwargs)
