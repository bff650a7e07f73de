"""Generation and streaming: against whole forward passes, one token at a time."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from xt_blocks import AutoregressiveWrapper, TransformerWrapper, XLAutoregressiveWrapper, XTransformer
from xt_blocks.blocks.attention import AnyAttention
from xt_blocks.generation.options import Generation, GenerationOptions
from xt_blocks.generation.sampling import Sampler, Sampling
from xt_blocks.models.inputs import PlacedInputs

from .variants import COUNTING, SIZES, VARIANTS, count_on, language_model, tokens


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
    kwargs = {"context": torch.randn(2, 5, model.graph.dim_context)} if model.attn_layers.reads_context else {}
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


@pytest.mark.parametrize("name", VARIANTS)
def test_prompts_of_different_lengths_generate_as_if_alone(name: str) -> None:
    pattern, settings = VARIANTS[name]
    model = language_model(max_seq_len=8, pattern=pattern, **settings)
    prompts = [tokens(1, n)[0] for n in (3, 6, 1, 6)]
    context, kwargs = torch.randn(4, 5, model.graph.dim_context), {}
    if model.attn_layers.reads_context:
        kwargs = {"context": context, "context_mask": torch.arange(5) < torch.tensor([[5], [2], [4], [1]])}
    out = AutoregressiveWrapper(model).generate(prompts, 9, temperature=0, **kwargs)
    for i, prompt in enumerate(prompts):
        own = {name: value[i : i + 1] for name, value in kwargs.items()}
        assert torch.equal(out[i : i + 1], by_hand(model, prompt[None], 9, **own))


@pytest.mark.parametrize("cache_kv", [True, False])
def test_prompts_in_a_list_may_be_longer_than_the_window(cache_kv: bool) -> None:
    model = language_model(max_seq_len=8)
    prompts = [tokens(1, n)[0] for n in (2, 11, 8)]
    out = AutoregressiveWrapper(model).generate(prompts, 9, temperature=0, cache_kv=cache_kv)
    assert torch.equal(out, torch.cat([by_hand(model, prompt[None], 9) for prompt in prompts]))


def test_a_padded_batch_is_a_list_of_prompts() -> None:
    model = AutoregressiveWrapper(language_model(max_seq_len=8, shift_tokens=1))
    long, short = tokens(1, 6), tokens(1, 2)
    padded = torch.cat((torch.full((1, 4), 5), short), dim=1)
    mask = torch.tensor([[True] * 6, [False] * 4 + [True] * 2])
    out = model.generate(torch.cat((long, padded)), 14, temperature=0, mask=mask)
    assert torch.equal(out, model.generate([long[0], short[0].int()], 14, temperature=0))
    assert torch.equal(model.generate((long[0],), 14, temperature=0), model.generate(long, 14, temperature=0))


def test_a_one_dimensional_prompt_gives_a_one_dimensional_text() -> None:
    model = AutoregressiveWrapper(language_model())
    prompt = tokens(1, 3)
    assert torch.equal(model.generate(prompt[0], 5, temperature=0), model.generate(prompt, 5, temperature=0)[0])
    assert model.generate(prompt[0], 0).shape == (0,)
    assert model.generate(prompt, 0).shape == (1, 0)
    assert model.generate([prompt[0], prompt[0, :1]], 0).shape == (2, 0)


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        (torch.zeros(2, 0, dtype=torch.long), ValueError, "the prompt is empty: give at least one token"),
        (torch.zeros(0, dtype=torch.long), ValueError, "the prompt is empty: give at least one token"),
        ([], ValueError, "the list of prompts is empty: give at least one"),
        ([tokens(1, 2)[0], tokens(1, 0)[0]], ValueError, "prompt 1 of the list is empty: give at least one token"),
        ([tokens(1, 2)], ValueError, r"prompt 0 of the list must be \(n,\), not \(1, 2\)"),
        ([1, 2], TypeError, "prompts must be a tensor or a list of tensors, not a list of int"),
        ("text", TypeError, "prompts must be a tensor or a list of tensors, not str"),
        (torch.zeros(1, 2, 3).long(), ValueError, r"prompts must be .* or a list of \(n,\), not \(1, 2, 3\)"),
        (torch.zeros(1, 3), ValueError, "prompts must be whole numbers, not torch.float32"),
        ([torch.zeros(3)], ValueError, "prompts must be whole numbers, not torch.float32"),
    ],
)
def test_wrong_prompts_are_refused(prompts: Any, error: type[Exception], message: str) -> None:
    model = AutoregressiveWrapper(language_model())
    for method in (model.generate, model.stream):
        with pytest.raises(error, match=message):
            method(prompts, 3)


@pytest.mark.parametrize("wrapper", [AutoregressiveWrapper, XLAutoregressiveWrapper])
@pytest.mark.parametrize("cache_kv", [True, False])
def test_tokens_are_forced_and_suppressed_by_step(wrapper: Any, cache_kv: bool) -> None:
    around = {"max_mem_len": 8} if wrapper is XLAutoregressiveWrapper else {}
    stack = xt_blocks.Decoder(pattern="(a f)*2", rotary_pos_emb=True, **SIZES)
    net = TransformerWrapper(num_tokens=17, max_seq_len=32, attn_layers=stack, **around).eval()
    prompt, forced, banned, at_first = tokens(2, 4), {1: 3, 4: 0, -1: 5}, [1, 2], [6, 7, 8, 9]
    expected = prompt
    for step in range(9):
        logits = net(expected)[:, -1]
        for token in banned + (at_first if step == 0 else []):
            logits[:, token] = -torch.inf
        token = logits.argmax(-1, keepdim=True)
        token = torch.full_like(token, {1: 3, 4: 0, 8: 5}[step]) if step in (1, 4, 8) else token
        expected = torch.cat((expected, token), dim=1)
    options = {"suppress_tokens": banned, "begin_suppress_tokens": at_first, "forced_tokens": forced}
    out = wrapper(net).generate(prompt, 9, temperature=0, cache_kv=cache_kv, **options)
    assert torch.equal(out, expected[:, 4:])
    assert wrapper(net).generate(prompt, 1, forced_tokens={0: 4, -1: 5}).tolist() == [[5], [5]]
    ended = wrapper(net, pad_value=7).generate(prompt, 9, forced_tokens={2: 3}, eos_token=3, suppress_tokens=[3])
    assert ended.shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suppress_tokens": [50]}, "suppress_tokens are tokens from 0 to 16, and one of them is 50"),
        ({"begin_suppress_tokens": [50]}, "begin_suppress_tokens are tokens from 0 to 16, and one of them is 50"),
        ({"begin_suppress_tokens": 5}, r"begin_suppress_tokens must be tokens, as in \[1, 2\], not 5"),
        ({"forced_tokens": {0: 50}}, "forced_tokens are tokens from 0 to 16, and one of them is 50"),
        ({"forced_tokens": [(0, 5)]}, r"forced_tokens must be tokens by step, as in {0: 5, -1: 2}, not \[\(0, 5\)\]"),
        ({"forced_tokens": {0: -1}}, r"forced_tokens must be tokens by step, as in {0: 5, -1: 2}, not {0: -1}"),
    ],
)
def test_forced_and_suppressed_tokens_are_tokens(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoregressiveWrapper(language_model()).generate(tokens(1, 3), 3, **options)


def test_a_mistyped_keyword_names_the_nearest() -> None:
    model, prompt = AutoregressiveWrapper(language_model()), tokens(1, 3)
    with pytest.raises(TypeError, match=r"generate\(\) got an unknown argument 'topk'; .*'top_k'"):
        model.generate(prompt, 3, topk=4)
    assert inspect.signature(model.generate).parameters["temperature"].default == 1
    with pytest.raises(TypeError, match=r"stream\(\) got an unknown argument 'contextmask'; .*'context_mask'"):
        model.stream(prompt, 3, contextmask=None)  # type: ignore[call-arg]


def test_keywords_are_shown_whole_and_as_their_values_take_them() -> None:
    assert get_type_hints(Sampling) == get_type_hints(Sampler)
    assert get_type_hints(GenerationOptions) == get_type_hints(Generation)
    for wrapper in (AutoregressiveWrapper, XLAutoregressiveWrapper, XTransformer):
        shown = inspect.signature(wrapper.generate).parameters
        assert shown == inspect.signature(wrapper.stream).parameters
        for field in dataclasses.fields(Generation):
            assert shown[field.name].default == field.default
            assert shown[field.name].annotation == get_type_hints(Generation)[field.name]
        assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in shown.values())
    read = inspect.signature(AutoregressiveWrapper.forward).parameters
    assert {*PlacedInputs.__annotations__} < {*read} < {*inspect.signature(TransformerWrapper.forward).parameters}


def test_each_row_is_padded_after_its_own_eos() -> None:
    model = AutoregressiveWrapper(language_model(), pad_value=16)
    prompt = tokens(6, 3)
    plain = model.generate(prompt, 12, temperature=0)
    eos = int(plain[0, 4])
    ended = model.generate(prompt, 12, temperature=0, eos_token=eos)
    stops = [row.index(eos) + 1 if eos in row else 12 for row in plain.tolist()]
    assert ended.tolist() == [
        row[:stop] + [16] * (max(stops) - stop) for row, stop in zip(plain.tolist(), stops, strict=True)
    ]


@pytest.mark.parametrize("kwargs", [{}, {"cache_kv": False}, {"compile": True}])
def test_generation_ends_with_the_last_row(kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **options: run(net, backend="eager", **options))
    model = AutoregressiveWrapper(count_on(language_model(**COUNTING)), pad_value=16)  # 9 ends a row
    out = model.generate(torch.tensor([[0, 6], [0, 3]]), 12, temperature=0, eos_token=9, **kwargs)
    assert out.tolist() == [[7, 8, 9, 16, 16, 16], [4, 5, 6, 7, 8, 9]]
    prompts = [torch.tensor([1, 2, 7]), torch.tensor([8])]
    assert model.generate(prompts, 12, temperature=0, eos_token=9, **kwargs).tolist() == [[8, 9], [9, 16]]
    assert model.generate(torch.tensor([6]), 12, temperature=0, eos_token=9, **kwargs).tolist() == [7, 8, 9]
    assert model.generate(torch.tensor([[8], [8]]), 12, temperature=0, eos_token=9, **kwargs).tolist() == [[9], [9]]
    assert model.generate(torch.tensor([[6]]), 2, temperature=0, eos_token=9, **kwargs).tolist() == [[7, 8]]
    assert model.generate(torch.tensor([[6]]), 0, temperature=0, eos_token=9, **kwargs).shape == (1, 0)


def test_a_generator_makes_sampling_reproducible() -> None:
    model = AutoregressiveWrapper(language_model())
    draws = [model.generate(tokens(1, 3) * 0, 10, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_thread_that_finishes_first_leaves_the_model_in_evaluation_mode_for_the_other() -> None:
    model = AutoregressiveWrapper(language_model().train())
    inside, go_on, modes = threading.Event(), threading.Event(), []

    def meet(net: nn.Module, *_: object) -> None:
        if threading.current_thread() is second:
            inside.set()
            assert go_on.wait(60)
            modes.append(net.training)
        else:
            second.start()
            assert inside.wait(60)

    model.net.register_forward_pre_hook(meet)
    second = threading.Thread(target=model.generate, args=(tokens(1, 3), 1))
    model.generate(tokens(1, 3), 1)
    go_on.set()
    second.join()
    assert modes == [False]
    assert all(module.training for module in model.modules())


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
    with pytest.raises(ValueError, match="seq_len must be a whole number of at least 0, not -1"):
        model.generate(prompt, -1)
    with pytest.raises(ValueError, match=r"seq_len must be a whole number of at least 0, not 2\.5"):
        model.generate(prompt, 2.5)  # type: ignore[arg-type]
    one = torch.tensor([False, True, True, True, True, True])
    assert torch.equal(
        model.generate(prompt[0], 3, temperature=0, mask=one),
        model.generate(prompt[:1], 3, temperature=0, mask=one[None])[0],
    )


def test_a_list_takes_no_mask() -> None:
    model, prompt = AutoregressiveWrapper(language_model()), tokens(1, 3)
    with pytest.raises(ValueError, match="a list of prompts gets its padding and mask here: give no mask"):
        model.generate([prompt[0]], 3, mask=torch.ones(1, 3).bool())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"context": torch.zeros(3, 5, 24)}, r"context must be \(2, seq, 24\), not \(3, 5, 24\)"),
        ({"context": torch.zeros(5, 24)}, r"context must be \(2, seq, 24\), not \(5, 24\)"),
        ({"context": torch.zeros(2, 5, 23)}, r"context must be \(2, seq, 24\), not \(2, 5, 23\)"),
        ({}, "the model has cross-attention: give context="),
        ({"context_mask": torch.ones(2, 5).bool()}, "context_mask is given, but no context"),
        (
            {"context": torch.zeros(2, 5, 24), "context_mask": torch.ones(2, 4).bool()},
            r"context_mask must be \(2, 5\), not \(2, 4\)",
        ),
        ({"prepend_embeds": torch.zeros(1, 5, 24)}, r"prepend_embeds must be \(2, seq, 24\), not \(1, 5, 24\)"),
        ({"prepend_mask": torch.ones(2, 5).bool()}, "prepend_mask is given, but no prepend_embeds"),
        (
            {"prepend_embeds": torch.zeros(2, 5, 24), "prepend_mask": torch.ones(2, 5)},
            "prepend_mask must be boolean, True = attend, not torch.float32",
        ),
        ({"eos_token": 17}, "eos_token must be a token, from 0 to 16, not 17"),
        ({"eos_token": 1.5}, "eos_token must be a token, from 0 to 16, not 1.5"),
        ({"eos_token": -1}, "eos_token must be a token, from 0 to 16, not -1"),
    ],
)
def test_what_is_read_beside_the_prompt_is_checked_at_the_call(kwargs: dict[str, Any], message: str) -> None:
    model = AutoregressiveWrapper(language_model(pattern="a c f"))
    with pytest.raises(ValueError, match=message):
        model.stream(tokens(2, 3), 3, **kwargs)


def test_an_eos_in_the_prompt_ends_no_row() -> None:
    model = AutoregressiveWrapper(language_model(), pad_value=16)
    prompt = tokens(1, 5)
    plain = model.generate(prompt, 9, temperature=0)
    never = next(token for token in range(17) if token not in plain)
    prompt = torch.cat((torch.full((1, 1), never), prompt), dim=1)
    plain = model.generate(prompt, 9, temperature=0)
    stop = plain[0].tolist().index(never) + 1 if never in plain else 9
    ended = model.generate(prompt, 9, temperature=0, eos_token=never)
    assert ended[0].tolist() == plain[0, :stop].tolist()
    assert stop > 1


def test_a_pad_value_that_is_no_token_never_reaches_the_model() -> None:
    model = AutoregressiveWrapper(language_model(), pad_value=-1)
    prompt = tokens(6, 3)
    first = model.generate(prompt, 1, temperature=0)
    assert len(first.unique()) > 1
    out = model.generate(prompt, 12, temperature=0, eos_token=int(first[0]))
    assert out[0].tolist() == [int(first[0])] + [-1] * (out.shape[1] - 1)
    assert out.shape[1] > 1


def test_nan_logits_are_an_error() -> None:
    model = AutoregressiveWrapper(language_model())
    nn.init.constant_(model.net.token_emb.weight, float("nan"))
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="the model's logits: row 0 has a NaN"):
            model.generate(tokens(1, 3), 2, temperature=temperature)


def sizes_read(module: nn.Module) -> list[int]:
    """How many tokens the module is shown at each call from now on."""
    sizes: list[int] = []
    module.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    return sizes


def test_with_a_cache_each_token_is_read_once() -> None:
    model = language_model(max_seq_len=8)
    sizes = sizes_read(model)
    AutoregressiveWrapper(model).generate(tokens(2, 3), 8)
    assert sizes == [3, 1, 1, 1, 1, 1, 8, 8]  # the window slides when a ninth token would be read


def test_the_contexts_keys_and_values_are_made_once() -> None:
    model = language_model(pattern="(a c f)*2")
    made = [sizes_read(model.attn_layers.blocks[node].layer.to_kv) for node in ("c1", "c4")]  # type: ignore[union-attr]
    AutoregressiveWrapper(model).generate(tokens(2, 3), 8, context=torch.randn(2, 5, 24))
    assert made == [[5], [5]]


def test_the_model_is_not_run_for_rows_that_have_all_ended() -> None:
    model = AutoregressiveWrapper(language_model(), pad_value=16)
    prompt = tokens(1, 3)
    eos = int(model.generate(prompt, 1, temperature=0))
    calls: list[int] = []
    model.net.register_forward_hook(lambda *_: calls.append(1))
    assert model.generate(prompt, 9, temperature=0, eos_token=eos).tolist() == [[eos]]
    assert len(calls) == 1


# Streaming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", [{}, {"temperature": 0}, {"top_p": 0.8, "temperature": 1.5}, {"min_p": 0.1}])
def test_a_stream_is_what_generate_returns(kwargs: dict[str, Any]) -> None:
    model, prompt = AutoregressiveWrapper(language_model(max_seq_len=8)), tokens(3, 4)
    whole = model.generate(prompt, 12, generator=torch.Generator().manual_seed(3), **kwargs)
    steps = [*model.stream(prompt, 12, generator=torch.Generator().manual_seed(3), **kwargs)]
    assert torch.equal(torch.stack(steps, dim=1), whole)
    assert {(step.shape, step.dtype) for step in steps} == {((3,), torch.int64)}
    assert [step.shape for step in model.stream(prompt[0], 2)] == [(1,), (1,)]


def test_a_stream_ends_when_all_rows_have() -> None:
    model = AutoregressiveWrapper(language_model(), pad_value=16)
    prompt = tokens(6, 3)
    eos = int(model.generate(prompt, 12, temperature=0)[0, 4])
    whole = model.generate(prompt, 12, temperature=0, eos_token=eos)
    steps = torch.stack([*model.stream(prompt, 12, temperature=0, eos_token=eos)], dim=1)
    assert torch.equal(steps, whole)
    alone = [*model.stream(prompt[0], 12, temperature=0, eos_token=eos)]
    assert int(alone[-1]) == eos
    assert all(int(step) != eos for step in alone[:-1])


def test_between_two_tokens_the_model_is_the_callers() -> None:
    model = AutoregressiveWrapper(language_model(attn_dropout=0.5)).train()
    model.net.attn_layers.blocks["a0"].eval()
    modes = [module.training for module in model.modules()]
    seen: list[tuple[bool, bool]] = []
    model.net.register_forward_hook(lambda net, *_: seen.append((net.training, torch.is_grad_enabled())))
    prompt = tokens(1, 3)
    expected = model.generate(prompt, 6, temperature=0)
    drawn = []
    for step, token in enumerate(model.stream(prompt, 6, temperature=0)):
        assert [module.training for module in model.modules()] == modes
        assert torch.is_grad_enabled()
        drawn.append(int(token))
        model.train(step % 2 == 0)  # what the caller sets stays set
        modes = [module.training for module in model.modules()]
    assert drawn == expected[0].tolist()
    assert set(seen) == {(False, False)}


def captured(model: TransformerWrapper, how: str) -> list[Tensor]:
    """What code that is not the model's own sees while it generates."""
    seen: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    wrapper, block = AutoregressiveWrapper(model), next(iter(model.attn_layers.blocks.values()))
    if how == "hook":
        block.register_forward_hook(lambda module, args, out: seen.append(out.stream))
    elif how == "pre-hook":
        block.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    elif how == "forward":
        forward = block.forward
        block.forward = lambda x, *args: forward(keep(x), *args)  # type: ignore[method-assign]
    elif how == "module":
        model.post_emb_norm = Kept(keep)
    wrapper.generate(tokens(1, 3), 2, **({"filter_logits_fn": keep} if how == "filter" else {}))
    return seen


class Kept(nn.Module):
    def __init__(self, keep: Any) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        return self.keep(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["hook", "pre-hook", "forward", "module", "filter"])
def test_what_others_see_during_generation_can_go_into_training(how: str) -> None:
    seen = captured(language_model(), how)
    assert seen
    weight = torch.ones(seen[0].shape[-1], requires_grad=True)
    (seen[0] * weight).sum().backward()  # torch refuses a tensor of inference mode here
    torch.testing.assert_close(weight.grad, seen[0].sum(dim=list(range(seen[0].ndim - 1))))


def test_a_stream_can_be_closed() -> None:
    stream = AutoregressiveWrapper(language_model()).stream(tokens(1, 3), 4)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert [*stream] == []


@pytest.mark.parametrize("hooked", [False, True])
def test_generation_is_in_inference_mode_where_nobody_looks_on(hooked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[bool] = []
    plain = AnyAttention.core

    def seen(request: Any) -> Any:
        modes.append(torch.is_inference_mode_enabled())
        return plain(request)

    monkeypatch.setattr(AnyAttention, "core", staticmethod(seen))
    model = language_model()
    if hooked:
        model.register_forward_hook(lambda module, args, out: None)
    wrapper = AutoregressiveWrapper(model)
    wrapper.generate(tokens(1, 3), 2)
    assert {*modes} == {not hooked}
    modes.clear()
    assert len([*wrapper.stream(tokens(1, 3), 2)]) == 2
    assert {*modes} == {False}  # between two tokens the caller has the model


def test_generated_tokens_can_be_trained_on() -> None:
    model = AutoregressiveWrapper(language_model())
    for out in (model.generate(tokens(2, 3), 4), torch.stack([*model.stream(tokens(2, 3), 4)], dim=1)):
        assert not out.is_inference()
        model(out).backward()


@pytest.mark.parametrize("how", ["stops", "raises", "the model raises"])
def test_a_stream_that_is_left_early_leaves_the_model_as_it_was(how: str) -> None:
    model = AutoregressiveWrapper(language_model(attn_dropout=0.5)).train()

    def use(stream: Iterator[Tensor]) -> None:
        for _ in stream:
            if how == "stops":
                break
            if how == "raises":
                raise KeyError
            nn.init.constant_(model.net.token_emb.weight, float("nan"))

    stream = model.stream(tokens(1, 3), 4)
    if how == "stops":
        use(stream)
    else:
        with pytest.raises(KeyError if how == "raises" else ValueError):
            use(stream)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_a_stream_changes_nothing_before_its_first_token() -> None:
    model = AutoregressiveWrapper(language_model()).train()
    model.stream(tokens(1, 3), 4)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_two_streams_of_one_model_do_not_meet() -> None:
    model = AutoregressiveWrapper(language_model())
    prompts = tokens(2, 3)
    both = zip(*(model.stream(prompt, 6, temperature=0) for prompt in prompts), strict=True)
    out = torch.stack([torch.cat(pair) for pair in both], dim=1)
    assert torch.equal(out, model.generate(prompts, 6, temperature=0))


@pytest.mark.parametrize(
    ("name", "read"),
    [("rotary", ()), ("cross, rotary", ("context",)), ("plain", ("prepend_embeds",)), ("shift 2", ())],
)
def test_compiled_steps_give_the_same_tokens(name: str, read: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    run = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: given.append(kwargs) or run(*args, backend="eager"))
    pattern, settings = VARIANTS[name]
    model = AutoregressiveWrapper(language_model(pattern=pattern, **settings))
    torch._dynamo.reset()
    prompts = [torch.randint(0, 17, (n,)) for n in (2, 5, 3)]
    kwargs = {key: torch.randn(3, 4, 24) for key in read}
    plain = model.generate(prompts, 14, temperature=0.0, **kwargs)  # the window slides at the end
    assert torch.equal(model.generate(prompts, 14, temperature=0.0, compile=True, **kwargs), plain)
    assert given == [{"dynamic": False, "mode": None}]


def test_what_cannot_be_compiled_is_said() -> None:
    model = AutoregressiveWrapper(language_model())
    with pytest.raises(ValueError, match="compile is set, but cache_kv is off"):
        model.generate(tokens(1, 3), 4, compile=True, cache_kv=False)
    kind = blockdsl.Kind("mean", "mean", (), lambda o: {}, lambda o, sizes: 0, module=RunningMean)
    blockdsl.register(kind)
    try:
        model = AutoregressiveWrapper(language_model(pattern="mean a"))
        with pytest.raises(ValueError, match="compile is set, but no cache can be kept: mean0"):
            model.generate(tokens(1, 3), 4, compile=True)
    finally:
        blockdsl.unregister("mean")


def test_only_the_last_place_has_logits_when_asked() -> None:
    stack = language_model().attn_layers
    model = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=stack, num_memory_tokens=2).eval()
    x = tokens()
    torch.testing.assert_close(model(x, last_only=True), model(x)[:, -1:])
    both = model(x, last_only=True, return_logits_and_embeddings=True, return_intermediates=True)
    assert both[0][0].shape == (2, 1, 17)
    assert both[0][1].shape == (2, 1, 24)
