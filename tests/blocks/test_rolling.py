"""Texts of any length from a cache of constant size: what is forgotten is what no block attends to any more."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import xt_blocks
from blockdsl.graph.state import SLACK, why_not_rolling
from xt_blocks.generation.prompts import read_prompts
from xt_blocks.generation.steps import RollingDecoding, WindowDecoding, decoding_of

from .own_kinds import GATED_CONVOLUTION, RUNNING_SUM, registered
from .variants import SIZES, tokens

WINDOW: dict[str, Any] = {"attn_max_attend_past": 3}
# name → pattern, settings of the stack, how many tokens back its widest window goes
ROLLING: dict[str, tuple[str, dict[str, Any], int]] = {
    "state alone": ("(gconv>>1 & ema) f", {}, 0),
    "rotary": ("a gconv(kernel=4) f a(max_attend_past=5)@x ema a(max_attend_past=5)@x", {"rotary_pos_emb": True}, 5),
    "xPos": ("a ema>>2 f", {"rotary_xpos": True, "rotary_xpos_scale_base": 16}, 3),
    "wide": ("ema a(max_attend_past=70) f", {"alibi_pos_bias": True}, 70),
    "T5's bias": ("a f a ema", {"rel_pos_bias": True, "residual_attn": True}, 3),
}


@pytest.fixture(autouse=True)
def own_kinds() -> Iterator[None]:
    with registered(GATED_CONVOLUTION, RUNNING_SUM):
        yield


def model_of(pattern: str, settings: dict[str, Any], **around: Any) -> xt_blocks.TransformerWrapper:
    torch.manual_seed(0)
    settings = (WINDOW if "a" in pattern.replace("ema", "") else {}) | settings
    stack = xt_blocks.Decoder(pattern=pattern, **SIZES, **settings)
    given = {"num_tokens": 17, "max_seq_len": 8, "use_abs_pos_emb": False, **around}
    return xt_blocks.TransformerWrapper(attn_layers=stack, **given).double().eval()


def close(out: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(out, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ["cached", "uncached", "compiled"])
@pytest.mark.parametrize("name", ROLLING)
@torch.no_grad()
def test_outputs_are_those_of_a_pass_over_the_whole_text(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts, of which one is longer than max_seq_len, and more tokens than two caches hold."""
    monkeypatch.setattr(torch, "compile", lambda net, **_: net)  # what is compiled is tried elsewhere
    pattern, settings, window = ROLLING[name]
    model = model_of(pattern, settings)
    new = 6 if how == "uncached" else 2 * (window + SLACK) + 9
    prompts = [torch.randint(0, 17, (n,)) for n in (19, 6)]
    decoding = decoding_of(model, read_prompts(prompts), new, how != "uncached", how == "compiled", {})
    assert isinstance(decoding, RollingDecoding)
    text = torch.randint(0, 17, (2, new))
    outs = []
    for t in range(new):
        outs.append(decoding.next_output())
        decoding.append(text[:, t])
    for row, prompt in enumerate(prompts):
        want = model(torch.cat((prompt, text[row, :-1]))[None])[:, len(prompt) - 1 :]
        close(torch.stack(outs, dim=1)[row : row + 1], want)


def test_each_token_is_read_once_into_a_cache_that_does_not_grow() -> None:
    pattern, settings, window = ROLLING["rotary"]
    model = model_of(pattern, settings)
    read: list[int] = []
    model.attn_layers.register_forward_pre_hook(lambda stack, args: read.append(args[0].shape[1]))
    prompt, new = read_prompts(tokens(2, 12)), 300
    decoding = decoding_of(model, prompt, new, True, False, {})
    assert isinstance(decoding, RollingDecoding)
    held = []
    with torch.no_grad():
        for token in tokens(new, 2):
            decoding.next_output()
            decoding.append(token)
            assert decoding.cache is not None
            held.append((decoding.cache.bytes(), decoding.cache.length))
    assert read == [8, 4, *[1] * (new - 1)]
    assert {size for size, _ in held} == {model.graph.kv_cache_bytes(12 + new, batch=2, dtype="float64")}
    assert max(length for _, length in held) <= window + SLACK + 1


def test_a_model_of_any_length_rolls_too() -> None:
    model = model_of("a f ema", {"rotary_pos_emb": True}, max_seq_len=None)
    prompt, generator = tokens(1, 20), xt_blocks.AutoregressiveWrapper(model)
    out = generator.generate(prompt, 120, temperature=0.0)
    assert torch.equal(out, generator.generate(prompt, 120, temperature=0.0, cache_kv=False))
    assert isinstance(decoding_of(model, read_prompts(prompt), 9, True, False, {}), RollingDecoding)


@pytest.mark.parametrize(
    ("pattern", "settings", "around", "reason"),
    [
        ("a(max_attend_past=none) ema", {}, {}, "a0 (self-attention) attends to all earlier tokens"),
        ("a ema", {}, {"use_abs_pos_emb": True}, "absolute: positions are added to the tokens, as many as max_seq_len"),
        (
            "a f",
            {"rotary_pos_emb": True, "rotary_scaling": "dynamic", "rotary_factor": 2, "rotary_original_len": 8},
            {},
            "rotary4: its frequencies change with the length of the text",
        ),
        (
            "a f",
            {"rotary_pos_emb": True, "attn_num_mem_kv": 2},
            {},
            "a0: rotary positions count from its memory key-values, at the start of the text",
        ),
        ("a ema", {}, {"num_memory_tokens": 2}, None),
    ],
)
def test_where_it_cannot_the_window_slides(
    pattern: str, settings: dict[str, Any], around: dict[str, Any], reason: str | None
) -> None:
    model = model_of(pattern, settings, **around)
    assert why_not_rolling(model.graph) == reason
    assert isinstance(decoding_of(model, read_prompts(tokens(2, 5)), 9, True, False, {}), WindowDecoding)


def test_a_context_is_read_once() -> None:
    model = model_of("a c ema", {"rotary_pos_emb": True})
    context, prompt = torch.randn(2, 5, SIZES["dim"], dtype=torch.float64), tokens(2, 10)
    generator = xt_blocks.AutoregressiveWrapper(model)
    out = generator.generate(prompt, 90, temperature=0.0, context=context)
    assert torch.equal(out, generator.generate(prompt, 90, temperature=0.0, context=context, cache_kv=False))


@pytest.mark.parametrize("fixed", [False, True])
@torch.no_grad()
def test_copies_and_steps_that_failed_after_places_are_forgotten(fixed: bool) -> None:
    model = model_of(*ROLLING["rotary"][:2])
    x, pos = tokens(2, 20), torch.arange(3, 23)
    for given in (None, pos):
        want = model(x, pos=given)
        cache = model.new_cache(2, 14)
        model(x[:, :12], pos=None if given is None else given[:12], cache=cache)
        if fixed:
            cache.fix_shapes()
        cache.forget(6)
        hook = model.attn_layers.blocks["ema4"].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(x[:, :1], cache=cache)
        hook.remove()
        ways = {0: cache, 1: copy.deepcopy(cache), 2: cache.select(torch.tensor([1, 0]))}
        for way, own in ways.items():
            rows = [1, 0] if way == 2 else [0, 1]
            out = [model(x[rows, t : t + 1], cache=own) for t in range(12, 20)]
            close(torch.cat(out, dim=1), want[rows, 12:])


def test_what_is_still_attended_to_is_not_forgotten() -> None:
    model = model_of(*ROLLING["rotary"][:2])
    cache = model.new_cache(1, 12)
    with torch.no_grad():
        model(tokens(1, 9), cache=cache)
    with pytest.raises(ValueError, match=r"^6 places cannot be forgotten: 4 of 9 are out of every block's reach$"):
        cache.forget(6)
    with pytest.raises(ValueError, match=r"^places are forgotten by twos, not 3: "):
        cache.forget(3)
    cache.forget(0)
    assert cache.length == 9
    cache.forget(4)
    assert cache.length == 5
    everything = model_of("a(max_attend_past=none)", {}).new_cache(1, 9)
    with pytest.raises(ValueError, match=r"^2 places cannot be forgotten: 0 of 0 are out of every block's reach$"):
        everything.forget(2)
    front = model_of("ema", {}, num_memory_tokens=2)
    cache = front.new_cache(1, 12)
    with torch.no_grad():
        front(tokens(1, 6), cache=cache)
    with pytest.raises(ValueError, match=r"^places cannot be forgotten: memory tokens or prepended embeddings"):
        cache.forget(2)
