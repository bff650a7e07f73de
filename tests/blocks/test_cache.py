"""Decoding with a cache gives the numbers of a pass over the whole, for every option, however it is cut up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl.graph import state as graph_state

from ..thorough import part_of
from .variants import SIZES, VARIANTS, inputs, language_model, stack, tokens

CUTS = [[1] * 9, [5, 1, 1, 1, 1], [3, 4, 2], [9]]


def decoded(model: xt_blocks.Stack, x: Tensor, cuts: list[int], **kwargs: Tensor) -> tuple[Tensor, xt_blocks.Cache]:
    cache = model.new_cache(x.shape[0], x.shape[1])
    mask = kwargs.pop("mask", None)
    out, start = [], 0
    for i, size in enumerate(cuts):
        part = slice(start, start + size)
        now = kwargs if i == 0 else {}  # a context is read once
        out.append(model(x[:, part], mask=None if mask is None else mask[:, part], cache=cache, **now))
        start += size
    return torch.cat(out, dim=1), cache


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_cached_is_uncached(name: str, cuts: list[int]) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    out, _ = decoded(model, x, cuts, **extra)
    torch.testing.assert_close(out, model(x, **extra), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_is_uncached_under_padding_and_a_context_mask(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :3] = False
    if extra:
        extra["context_mask"] = torch.tensor([[True] * 5, [True, False, True, False, False]])
    out, _ = decoded(model, x, [5, 1, 1, 2], mask=mask, **extra)
    torch.testing.assert_close(out[mask], model(x, mask=mask, **extra)[mask], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_left_padding_changes_nothing_while_decoding(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, batch=1, seq=6)
    padded = torch.cat((torch.randn(1, 3, SIZES["dim"]), x), dim=1)
    mask = torch.arange(9)[None] >= 3
    out, _ = decoded(model, padded, [5, 1, 1, 2], mask=mask, **extra)
    torch.testing.assert_close(out[:, 3:], model(x, **extra), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_node_has_room_of_its_own_allocated_once() -> None:
    model = stack("ties")
    x, _ = inputs(model, seq=9)
    cache = model.new_cache(2, 20)
    model(x[:, :1], cache=cache)
    before = {node: cache.nodes[node].buffers["keys"].data_ptr() for node in ("a0", "a2", "a4")}
    assert len(set(before.values())) == 3
    for i in range(1, 9):
        model(x[:, i : i + 1], cache=cache)
    assert {node: cache.nodes[node].buffers["keys"].data_ptr() for node in before} == before
    assert cache.nodes["a0"].buffers["keys"].shape == (2, 3, 20, 8)
    assert cache.bytes() == model.graph.kv_cache_bytes(20, batch=2)


def test_a_contexts_keys_are_computed_once() -> None:
    model = stack("cross")
    x, extra = inputs(model, seq=4)
    cache = model.new_cache(2, 4)
    model(x[:, :2], cache=cache, **extra)
    calls = []
    layer = model.blocks["c1"].layer
    layer.to_kv.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr,operator]
    model(x[:, 2:], cache=cache)
    assert not calls


def test_what_a_cache_has_no_room_for_is_refused() -> None:
    model = stack("plain")
    x, _ = inputs(model, seq=4)
    cache = model.new_cache(2, 5)
    model(x, cache=cache)
    with pytest.raises(ValueError, match="is for 5 tokens and holds 4; 2 more do not fit"):
        model(x[:, :2], cache=cache)
    with pytest.raises(ValueError, match="holds 2 rows, not 1"):
        model(x[:1, :1], cache=cache)


@pytest.mark.parametrize(
    ("pattern", "causal", "reason"),
    [
        ("a f", False, "a0 .self-attention. is not causal"),
        ("f>>1", False, "shifts tokens from both sides"),
        ("a a(causal=false)", True, "a1 .self-attention. is not causal"),
    ],
)
def test_a_stack_that_sees_later_tokens_has_no_cache(pattern: str, causal: bool, reason: str) -> None:
    model = xt_blocks.lower(blockdsl.compile(pattern, causal=causal, **SIZES))
    with pytest.raises(ValueError, match=reason):
        model.new_cache(1, 4)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["plain", "rotary", "shift 1"])
@pytest.mark.parametrize("cuts", [[2, 2, 2, 2], [1] * 8, [5, 3]], ids=str)
def test_left_padding_may_end_in_any_step(name: str, cuts: list[int]) -> None:
    model = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=stack(name)).eval()
    x = torch.randint(0, 17, (3, 8))
    mask = torch.arange(8) >= torch.tensor([[0], [3], [6]])
    cache, out = model.new_cache(3), []
    for part, seen in zip(x.split(cuts, 1), mask.split(cuts, 1), strict=True):
        out.append(model(part, mask=seen, cache=cache))
    torch.testing.assert_close(torch.cat(out, 1)[mask], model(x, mask=mask)[mask], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("given", [(True, False, True), (False, True, False), (False, False, True)])
def test_a_mask_may_be_given_in_some_steps_only(given: tuple[bool, ...]) -> None:
    model = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=9, attn_layers=stack("plain")).eval()
    x = torch.randint(0, 17, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, [0, 3, 6]] = False  # the first token of each step, where that step has a mask
    mask |= ~torch.tensor(given).repeat_interleave(3)
    cache, out = model.new_cache(2), []
    for part, seen, has in zip(x.split(3, 1), mask.split(3, 1), given, strict=True):
        out.append(model(part, mask=seen if has else None, cache=cache))
    torch.testing.assert_close(torch.cat(out, 1)[mask], model(x, mask=mask)[mask], rtol=1e-5, atol=2e-6)


def test_a_step_that_failed_leaves_the_masks_of_the_cache_alone() -> None:
    model = stack("plain")
    x, _ = inputs(model, seq=6)
    mask = torch.arange(6) >= torch.tensor([[0], [2]])
    cache = model.new_cache(2, 6)
    model(x[:, :3], mask=mask[:, :3], cache=cache)
    broken = model.blocks["f1"].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(x[:, 3:], mask=mask[:, 3:], cache=cache)
    broken.remove()
    out = model(x[:, 3:], mask=mask[:, 3:], cache=cache)
    torch.testing.assert_close(out, model(x, mask=mask)[:, 3:], rtol=1e-5, atol=2e-6)


def test_a_step_that_failed_can_be_run_again() -> None:
    model = stack("shift 2")
    x, _ = inputs(model, seq=6)
    cache = model.new_cache(2, 6)
    first = model(x[:, :3], cache=cache)
    last = model.plan[-1].block
    hook = model.blocks[last].register_forward_pre_hook(lambda *_: 1 / 0)  # type: ignore[index]
    with pytest.raises(ZeroDivisionError):
        model(x[:, 3:], cache=cache)
    hook.remove()
    out = torch.cat((first, model(x[:, 3:], cache=cache)), dim=1)
    torch.testing.assert_close(out, model(x), rtol=1e-5, atol=2e-6)


def test_a_context_is_given_once() -> None:
    model = stack("cross")
    x, extra = inputs(model, seq=4)
    cache = model.new_cache(2, 4)
    model(x[:, :2], cache=cache, **extra)
    with pytest.raises(ValueError, match="the cache holds the context of its first step; later steps take none"):
        model(x[:, 2:], cache=cache, **extra)


def in_front(pattern: str, settings: dict[str, Any], **options: Any) -> xt_blocks.TransformerWrapper:
    """A model with memory tokens."""
    decoder = xt_blocks.Decoder(pattern=pattern, **(SIZES | settings))
    options = {"num_memory_tokens": 2} | options
    return xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=40, attn_layers=decoder, **options).eval()


# Windows ----------------------------------------------------------------------------------------------------------

WINDOWED = [name for name in VARIANTS if "window" in name or name == "ALiBi on some heads"]


@pytest.fixture
def little_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows move within their room every few steps."""
    monkeypatch.setattr(graph_state, "SLACK", 3)


@pytest.mark.usefixtures("little_slack")
@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("cuts", [[1] * 30, [17, *[1] * 13], [2, 20, 1, 1, 6], [3] * 10], ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_far_beyond_the_window_cached_is_uncached(name: str, cuts: list[int], padded: bool) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=30)
    mask = torch.arange(30) >= torch.tensor([[0], [2]]) if padded else None
    seen = torch.ones(2, 30, dtype=torch.bool) if mask is None else mask
    out, cache = decoded(model, x, cuts, **({} if mask is None else {"mask": mask}), **extra)
    torch.testing.assert_close(out[seen], model(x, mask=mask, **extra)[seen], rtol=1e-5, atol=5e-6)
    assert cache.bytes() == model.graph.kv_cache_bytes(30, batch=2)


def test_a_window_has_room_for_itself_and_some_slack() -> None:
    model = stack("window")
    cache = model.new_cache(2, 5000)
    x = torch.randn(2, 300, SIZES["dim"])
    whole = model(x)
    out = torch.cat([model(part, cache=cache) for part in (x[:, :100], *x[:, 100:].split(1, dim=1))], dim=1)
    torch.testing.assert_close(out, whole, rtol=1e-5, atol=5e-6)
    keys, values = cache.nodes["a0"].tensors()
    assert keys.shape == values.shape == (2, 3, 2 + 64, 8)
    assert cache.bytes() == model.graph.kv_cache_bytes(5000, batch=2) == 2 * 2 * (2 * 3 * 66 * 8) * 4
    assert model.graph.kv_cache_bytes(50, batch=2) == 2 * 2 * (2 * 3 * 50 * 8) * 4


def test_blocks_that_add_scores_keep_as_many_keys_as_the_widest() -> None:
    kept = {node: attrs["options"]["max_attend_past"] for node, attrs in stack("window").graph.nx.nodes(data=True)
            if attrs["type"] == "block" and attrs["kind"] == "a"}  # fmt: skip
    assert windows("window") == kept == {"a0": 2, "a2": 2}
    assert windows("window, residual attention") == {"a0": 4, "a2": 4, "a4": 4}
    assert windows("windows of some, residual attention") == {"a0": None, "a1": None, "a2": None}
    assert windows("plain") == {"a0": None, "a2": None}


def windows(name: str) -> dict[str, int | None]:
    return {node: state.window for node, state in graph_state.kept(stack(name).graph).items()}


@pytest.mark.usefixtures("little_slack")
@pytest.mark.parametrize("size", [1, 4, 20], ids=["in its room", "moved", "in a new room"])
def test_a_step_over_a_window_that_failed_can_be_run_again(size: int) -> None:
    model = stack("window")
    x, _ = inputs(model, seq=32)
    cache = model.new_cache(2, 32)
    out = [model(part, cache=cache) for part in x[:, :11].split(1, dim=1)]
    hook = model.blocks["f3"].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(x[:, 11 : 11 + size], cache=cache)
    hook.remove()
    out += [model(x[:, 11 : 11 + size], cache=cache), model(x[:, 11 + size :], cache=cache)]
    torch.testing.assert_close(torch.cat(out, dim=1), model(x), rtol=1e-5, atol=5e-6)


@pytest.mark.usefixtures("little_slack")
@pytest.mark.parametrize("prompt", [1, 2, 4, 9])
def test_memories_and_memory_tokens_in_front_of_a_window(prompt: int) -> None:
    model = in_front("(a>>1 f)*2", {"attn_max_attend_past": 3, "rotary_pos_emb": True}, max_mem_len=12)
    x = tokens(2, 30)
    with torch.no_grad():
        _, mems = model(tokens(2, 11), return_mems=True)
        for remembered in (None, mems):
            cache = model.new_cache(2, 60)
            parts = (x[:, :prompt], *x[:, prompt:20].split(1, dim=1), x[:, 20:])
            out = [model(part, cache=cache, mems=None if i else remembered) for i, part in enumerate(parts)]
            torch.testing.assert_close(torch.cat(out, dim=1), model(x, mems=remembered), rtol=1e-5, atol=5e-6)


# Fixed shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("prompt", [1, 4])
def test_fixed_shapes_change_no_number(name: str, prompt: int) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=12)
    mask = torch.arange(12) >= torch.tensor([[0], [prompt - 1]])
    if extra:
        extra["context_mask"] = torch.tensor([[True] * 5, [True, False, True, False, False]])
    with torch.no_grad():
        cache = model.new_cache(2, 17)
        out = [model(x[:, :prompt], mask=mask[:, :prompt], cache=cache, **extra)]
        cache.fix_shapes()
        room = cache.bytes()
        out += [model(token, cache=cache) for token in x[:, prompt:].split(1, dim=1)]
        want = model(x, mask=mask, **extra)
    torch.testing.assert_close(torch.cat(out, dim=1)[mask], want[mask], rtol=1e-5, atol=5e-6)
    assert cache.bytes() == room


@pytest.mark.parametrize("name", ["plain", "rotary", "ALiBi", "xpos", "shift 2"])
@pytest.mark.parametrize("given", [False, True])
def test_fixed_shapes_keep_positions_padding_and_what_stands_in_front(name: str, given: bool) -> None:
    pattern, settings = VARIANTS[name]
    model = in_front(pattern, settings)
    x, prepended = tokens(3, 12), torch.randn(3, 2, SIZES["dim"])
    mask = torch.arange(12) >= torch.tensor([[0], [2], [3]])
    pos = {"pos": torch.tensor([[3], [0], [7]]) + torch.arange(12)} if given else {}
    first = {name: value[..., :5] for name, value in pos.items()}
    with torch.no_grad():
        cache = model.new_cache(3, prepended=2)
        out = [model(x[:, :5], mask=mask[:, :5], prepend_embeds=prepended, cache=cache, **first)]
        cache.fix_shapes()
        out += [model(token, cache=cache) for token in x[:, 5:].split(1, dim=1)]
        want = model(x, mask=mask, prepend_embeds=prepended, **pos)
    torch.testing.assert_close(torch.cat(out, dim=1)[:, 2:][mask], want[:, 2:][mask], rtol=1e-5, atol=5e-6)


def test_fixed_shapes_after_padded_memory_tokens_take_positions_of_all_rows() -> None:
    model = in_front("a f", {"rotary_pos_emb": True})
    x, mask, pos = tokens(2, 9), torch.arange(9) >= torch.tensor([[0], [2]]), torch.arange(9) * 2
    with torch.no_grad():
        cache = model.new_cache(2)
        out = [model(x[:, :5], mask=mask[:, :5], pos=pos[:5], cache=cache)]
        cache.fix_shapes()
        out += [model(x[:, i : i + 1], pos=pos[i : i + 1], cache=cache) for i in range(5, 9)]
        want = model(x, mask=mask, pos=pos)
    torch.testing.assert_close(torch.cat(out, dim=1)[mask], want[mask], rtol=1e-5, atol=5e-6)


def test_a_step_of_fixed_shapes_that_failed_can_be_run_again() -> None:
    model = stack("shift 2")
    x, _ = inputs(model, seq=9)
    cache = model.new_cache(2, 9)
    with torch.no_grad():
        out = [model(x[:, :3], cache=cache)]
        cache.fix_shapes()
        for token in x[:, 3:].split(1, dim=1):
            hook = model.blocks[model.plan[-1].block].register_forward_pre_hook(lambda *_: 1 / 0)  # type: ignore[index]
            with pytest.raises(ZeroDivisionError):
                model(token, cache=cache)
            hook.remove()
            out.append(model(token, cache=cache))
        torch.testing.assert_close(torch.cat(out, dim=1), model(x), rtol=1e-5, atol=5e-6)


def test_what_steps_of_fixed_shapes_do_not_take() -> None:
    model = stack("rotary")
    x, _ = inputs(model, seq=4)
    cache = model.new_cache(2, 9)
    with pytest.raises(ValueError, match="the cache is empty: its shapes are fixed after the first step"):
        cache.fix_shapes()
    model(x, cache=cache)
    assert cache.fix_shapes() is cache.fix_shapes()
    with pytest.raises(ValueError, match="fixed for steps of one token, not of 4"):
        model(x, cache=cache)
    one = torch.ones(2, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="mask is given, but a cache with fixed shapes takes none"):
        model(x[:, :1], mask=one, cache=cache)
    with pytest.raises(ValueError, match="attn_mask is given, but a cache with fixed shapes takes none"):
        model(x[:, :1], attn_mask=torch.ones(1, 1, dtype=torch.bool), cache=cache)
    with pytest.raises(ValueError, match="fixed after steps with no such pos"):
        model(x[:, :1], pos=torch.zeros(2, 1, dtype=torch.long), cache=cache)


COMPILED = [
    *("rotary", "shift 2", "cross, rotary", "residual attention, parallel", "window, memory kv"),
    *("xpos", "T5 bias", "every position", "sparse, residual", "value heads"),
]


@pytest.mark.parametrize("name", part_of(COMPILED, 3))
def test_a_step_of_fixed_shapes_compiles_whole_and_once(name: str) -> None:
    pattern, settings = VARIANTS[name]
    model = language_model(pattern=pattern, **settings)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    step = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    x, mask = tokens(2, 10), torch.arange(10) >= torch.tensor([[0], [2]])
    extra = {"context": torch.randn(2, 5, model.graph.dim_context)} if model.attn_layers.reads_context else {}
    with torch.no_grad():
        want = model(x, mask=mask, **extra)
        for prompt in (4, 7):  # a new cache of the same room, and prompts of another length
            cache = model.new_cache(2, 16)
            out = [model(x[:, :prompt], mask=mask[:, :prompt], cache=cache, **extra)]
            cache.fix_shapes()
            out += [step(token, cache=cache) for token in x[:, prompt:].split(1, dim=1)]
            torch.testing.assert_close(torch.cat(out, dim=1)[mask], want[mask], rtol=1e-5, atol=5e-6)
    assert counter.frame_count == 1
