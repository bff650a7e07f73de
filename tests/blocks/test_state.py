"""The state of a kind: what it declares, the cache, segments and costs follow; with two kinds registered here."""

from __future__ import annotations

import copy
import gc
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import GraphError, Kind, PatternError, State, UserError
from xt_blocks.kernels.masks import AttentionMask, Masks
from xt_blocks.runtime.intermediates import Intermediates
from xt_blocks.runtime.memories import Memories
from xt_blocks.runtime.state import NodeState, SegmentState

from .own_kinds import GATED_CONVOLUTION, RUNNING_SUM, registered
from .variants import SIZES, inputs, language_model, tokens

PATTERNS = {
    "convolution": "(gconv f)*2",
    "sum": "(ema f)*2",
    "among attention": "a gconv(kernel=4) f a ema f",
    "token shift": "gconv>>1 ema>>2 f>>1 gconv>>3",
    "ties": "gconv@x f gconv@x ema@y>>1 f ema@y/2",
    "parallel": "(gconv & ema>>1 & a) f (gconv@x f & gconv@x)",
    "cross": "gconv c ema f",
    "window": "a(max_attend_past=2) gconv(kernel=1) ema a f",
}
AROUND: dict[str, dict[str, Any]] = {"parallel": {"pre_norm": False}, "window": {"rotary_pos_emb": True}}


@pytest.fixture(autouse=True)
def own_kinds() -> Iterator[None]:
    with registered(GATED_CONVOLUTION, RUNNING_SUM):
        yield


def stack(name: str, **settings: Any) -> xt_blocks.Stack:
    built = xt_blocks.lower(blockdsl.compile(PATTERNS[name], **(SIZES | AROUND.get(name, {}) | settings), causal=True))
    assert isinstance(built, xt_blocks.Stack)
    return built.eval()


def decoded(model: xt_blocks.Stack, x: Tensor, cuts: list[int], mask: Tensor | None = None, **first: Any) -> Tensor:
    cache, out = model.new_cache(x.shape[0], 20), []
    for i, part in enumerate(x.split(cuts, dim=1)):
        seen = None if mask is None else mask.split(cuts, dim=1)[i]
        out.append(model(part, mask=seen, cache=cache, **({} if i else first)))
    return torch.cat(out, dim=1)


def close(out: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(out, want, rtol=1e-5, atol=3e-6)


# Cached steps ------------------------------------------------------------------------------------------------------


def test_a_running_sum_by_hand() -> None:
    model = stack("sum").blocks["ema0"].layer
    x, total, want = torch.randn(2, 5, SIZES["dim"]), torch.zeros(2, 2), []
    for t in range(5):
        total = 0.75 * total + model.to_in(x[:, t])  # type: ignore[operator,union-attr]
        want.append(model.to_out(total))  # type: ignore[operator,union-attr]
    close(model(x), torch.stack(want, dim=1))  # type: ignore[operator]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("cuts", [[1] * 9, [5, 1, 1, 2], [3, 4, 2], [9]], ids=str)
def test_cached_is_uncached(name: str, cuts: list[int]) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    close(decoded(model, x, cuts, **extra), model(x, **extra))


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_cached_is_uncached_under_padding(name: str, side: str) -> None:
    model = stack(name)
    x, extra = inputs(model, batch=3, seq=9)
    mask = torch.ones(3, 9, dtype=torch.bool)
    if side != "right":
        mask[1, :2] = mask[2, :4] = False
    if side != "left":
        mask[0, 3:5] = mask[1, 4:5] = False  # the end of the prompt, after which tokens go on
    close(decoded(model, x, [5, 1, 1, 2], mask, **extra)[mask], model(x, mask=mask, **extra)[mask])


@pytest.mark.parametrize("name", PATTERNS)
def test_left_padding_changes_nothing(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, batch=1, seq=6)
    padded, mask = torch.cat((torch.randn(1, 3, SIZES["dim"]), x), dim=1), torch.arange(9)[None] >= 3
    close(decoded(model, padded, [5, 1, 1, 2], mask, **extra)[:, 3:], model(x, **extra))


@pytest.mark.parametrize("name", [name for name in PATTERNS if name != "cross"])
def test_prompts_of_several_lengths_go_on_as_each_alone(name: str) -> None:
    model = language_model(pattern=PATTERNS[name], **AROUND.get(name, {}))
    generator = xt_blocks.AutoregressiveWrapper(model)
    prompts = [torch.randint(0, 17, (n,)) for n in (6, 2, 4)]
    out = generator.generate(prompts, 5, temperature=0.0)
    for i, prompt in enumerate(prompts):
        assert torch.equal(out[i], generator.generate(prompt, 5, temperature=0.0, cache_kv=False))


# Fixed shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("prompt", [1, 4, 5])
def test_fixed_shapes_change_no_number(name: str, prompt: int) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=11)
    mask = torch.arange(11) >= torch.tensor([[0], [prompt - 1]])
    with torch.no_grad():
        cache = model.new_cache(2, 14)
        out = [model(x[:, :prompt], mask=mask[:, :prompt], cache=cache, **extra)]
        cache.fix_shapes()
        out += [model(token, cache=cache) for token in x[:, prompt:].split(1, dim=1)]
        close(torch.cat(out, dim=1)[mask], model(x, mask=mask, **extra)[mask])


def test_a_step_of_fixed_shapes_compiles_whole_and_once() -> None:
    model = language_model(pattern="gconv>>1 (ema & a) gconv@x gconv@x")
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    step = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    x = tokens(2, 10)
    with torch.no_grad():
        want = model(x)
        for prompt in (4, 7):
            cache = model.new_cache(2, 16)
            out = [model(x[:, :prompt], cache=cache)]
            cache.fix_shapes()
            out += [step(token, cache=cache) for token in x[:, prompt:].split(1, dim=1)]
            close(torch.cat(out, dim=1), want)
    assert counter.frame_count == 1


# A step that failed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("fixed", [False, True])
def test_steps_that_failed_can_be_run_again(name: str, fixed: bool) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    last = model.blocks[model.plan[-1].block or model.plan[-2].block]  # type: ignore[index]
    parts = x.split([3, *[1] * 6] if fixed else [3, 1, 4, 1], dim=1)
    cache, out = model.new_cache(2, 9), []
    with torch.no_grad():
        for i, part in enumerate(parts):
            first = {} if i else extra
            hook = last.register_forward_hook(lambda *_: 1 / 0)
            wrong = first if i else {name: value + 1 for name, value in first.items()}  # another context, say
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    model(part + 1, cache=cache, **wrong)
            hook.remove()
            out.append(model(part, cache=cache, **first))
            if fixed:
                cache.fix_shapes()
        close(torch.cat(out, dim=1), model(x, **extra))


# Copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("fixed", [False, True])
def test_a_copy_of_a_cache_goes_on_by_itself(name: str, fixed: bool) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=7)
    y = torch.cat((x[:, :4], torch.randn(2, 3, SIZES["dim"])), dim=1)
    mask = torch.arange(7) >= torch.tensor([[0], [2]])
    first = model.new_cache(2, 9)
    model(x[:, :4], mask=mask[:, :4], cache=first, **extra)  # with gradients, which deepcopy of a tensor refuses
    if fixed:
        first.fix_shapes()
    second = copy.deepcopy(first)
    third = first.select(torch.tensor([1, 1, 0]))
    ways = ((first, x), (second, y), (third, y[[1, 1, 0]]))
    outs: list[list[Tensor]] = [[], [], []]
    for t in range(4, 7):
        for out, (cache, whole) in zip(outs, ways, strict=True):
            out.append(model(whole[:, t : t + 1], cache=cache))
    for out, (_, whole) in zip(outs, ways, strict=True):
        rows = [0, 1] if len(whole) == 2 else [1, 1, 0]
        beside = {name: value[rows] for name, value in extra.items()}
        close(torch.cat(out, dim=1), model(whole, mask=mask[rows], **beside)[:, 4:])
    assert second.bytes() == first.bytes() == third.bytes() * 2 // 3


# Segments ----------------------------------------------------------------------------------------------------------


def in_segments(model: xt_blocks.Stack, x: Tensor, cuts: list[int], mask: Tensor, **extra: Any) -> tuple[Tensor, Any]:
    out, mems = [], None
    for part, seen in zip(x.split(cuts, dim=1), mask.split(cuts, dim=1), strict=True):
        record = Intermediates()
        out.append(model(part, mems=mems, mask=seen, intermediates=record, **extra))
        mems = model.remember(mems, record, seen, 99)
    return torch.cat(out, dim=1), mems


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("cuts", [[4, 4, 1], [1] * 9, [3, 6]], ids=str)
def test_segments_are_one_long_pass(name: str, cuts: list[int]) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    mask = torch.arange(9) >= torch.tensor([[0], [3]])
    out, _ = in_segments(model, x, cuts, mask, **extra)
    close(out[mask], model(x, mask=mask, **extra)[mask])


@pytest.mark.parametrize("name", PATTERNS)
def test_memories_stand_in_front_of_a_cache(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    _, mems = in_segments(model, x[:, :4], [2, 2], torch.ones(2, 4, dtype=torch.bool), **extra)
    cache, record = model.new_cache(2, 9), Intermediates()
    parts = [model(x[:, 4:7], mems=mems, cache=cache, intermediates=record, **extra)]
    further = model.remember(mems, record, None, 99)
    parts += [model(x[:, i : i + 1], cache=cache) for i in (7, 8)]
    close(torch.cat(parts, dim=1), model(x, **extra)[:, 4:])
    close(model(x[:, 7:], mems=further, **extra), model(x, **extra)[:, 7:])


def test_a_first_step_that_is_run_again_forgets_the_memories_it_had() -> None:
    model = stack("among attention")
    x = torch.randn(2, 6, SIZES["dim"])
    _, mems = in_segments(model, torch.randn(2, 4, SIZES["dim"]), [4], torch.ones(2, 4, dtype=torch.bool))
    cache = model.new_cache(2, 10)
    hook = model.blocks["f5"].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(x, mems=mems, cache=cache)
    hook.remove()
    close(model(x, cache=cache), model(x))


def test_no_gradient_flows_into_an_earlier_segment_and_checkpointing_changes_nothing() -> None:
    whole = {name: stack("parallel", checkpoint=name).train() for name in (None, "block", "stage")}
    x, grads = torch.randn(2, 8, SIZES["dim"], requires_grad=True), []
    for model in whole.values():
        model.load_state_dict(whole[None].state_dict())
        x.grad = None
        record = Intermediates()
        model(x[:, :4], intermediates=record)
        model(x[:, 4:], mems=model.remember(None, record, None, 9)).sum().backward()
        assert x.grad is not None
        assert (x.grad[:, :4] == 0).all()
        grads.append(x.grad)
    close(grads[1], grads[0])
    close(grads[2], grads[0])


def test_text_is_generated_in_segments() -> None:
    decoder = xt_blocks.Decoder(pattern="gconv>>1 a ema f", rotary_pos_emb=True, **SIZES)
    net = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=4, max_mem_len=99, attn_layers=decoder).eval()
    generator = xt_blocks.XLAutoregressiveWrapper(net)
    prompt = torch.randint(0, 17, (2, 6))
    out = generator.generate(prompt, 9, temperature=0.0)
    assert torch.equal(out, generator.generate(prompt, 9, temperature=0.0, cache_kv=False))
    whole = xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=15, attn_layers=decoder)
    whole.load_state_dict(net.state_dict())
    want = xt_blocks.AutoregressiveWrapper(whole.eval()).generate(prompt, 9, temperature=0.0)
    assert torch.equal(out, want)


def test_memories_of_other_kinds_are_refused() -> None:
    x = torch.randn(2, 4, SIZES["dim"])
    _, mems = in_segments(stack("sum"), x, [4], torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="mems come from a model with other blocks"):
        stack("convolution")(x, mems=mems)
    with pytest.raises(ValueError, match="mems have 2 rows, not 1"):
        stack("sum")(x[:1], mems=mems)
    assert isinstance(copy.deepcopy(mems), Memories)


# Bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_bytes_are_those_that_the_cache_holds(name: str, dtype: str) -> None:
    model = stack(name).to(getattr(torch, dtype))
    x, extra = inputs(model, seq=3)
    cache = model.new_cache(2, 100)
    model(x.to(getattr(torch, dtype)), cache=cache, **{name: t.to(getattr(torch, dtype)) for name, t in extra.items()})
    assert cache.bytes() == model.graph.kv_cache_bytes(100, batch=2, dtype=dtype, context_len=5) > 0


def test_bytes_by_hand() -> None:
    g = blockdsl.compile("gconv(kernel=4)>>2 ema f>>1 a", dim=6, heads=2, attn_dim_head=4, causal=True)
    tails, sums, shifts, keys = 2 * 3 * 6, 2 * 2, 2 * (2 + 1) * 6, 2 * (2 * 4)  # of a row; keys and values of a token
    assert g.kv_cache_bytes(7, batch=5, dtype="bfloat16") == 5 * (2 * (tails + shifts + 7 * keys) + 4 * sums)
    assert blockdsl.compile("f>>1", dim=6).kv_cache_bytes(7) == 0  # it cannot be decoded


# Kinds that say no -------------------------------------------------------------------------------------------------


def test_a_kind_that_runs_causally_alone() -> None:
    with pytest.raises(PatternError) as error:
        blockdsl.compile("f ema", dim=12)
    assert str(error.value).startswith("1:3: 'ema' (running sum) in a stack that is not causal")
    g = blockdsl.compile("f gconv", dim=12, causal=True)
    g.nx.graph["causal"] = False
    with pytest.raises(GraphError, match="gconv1: gated convolution runs only in a causal stack"):
        g.lint()


class Identity(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        return x


def kind(**changes: Any) -> Kind:
    plain = Kind(name="own", title="of my own", options=(), shapes=lambda o: {}, flops=lambda o, s: 0, module=Identity)
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"segments": False, "state": lambda o: {}}, "own0 (of my own) does not run in segments"),
        ({}, "own0 (of my own) keeps nothing of earlier segments"),
        (
            {"state": lambda o: {"keys": State((3,), per="token")}, "inputs": ("cache",)},
            "own0 (of my own) keeps nothing of earlier segments",
        ),
    ],
)
def test_a_kind_that_does_not_run_in_segments(changes: dict[str, Any], reason: str) -> None:
    with registered(kind(**changes)):
        g = blockdsl.compile("own f", dim=12, causal=True)
        assert g.why_not_segmented() == reason
        with pytest.raises(GraphError) as error:
            g.with_tokens(num_tokens=9, max_seq_len=5, max_mem_len=3)
        assert f"has max_mem_len, but the stack cannot read a text in segments: {reason}" in str(error.value)
        model, record, x = xt_blocks.lower(g), Intermediates(), torch.randn(2, 3, 12)
        model(x, intermediates=record)
        for call in (lambda: model(x, mems=Memories({}, 0)), lambda: model.remember(None, record, None, 9)):  # type: ignore[operator]
            with pytest.raises(ValueError, match=f"the stack cannot read a text in segments: {re.escape(reason)}"):
                call()


def test_a_kind_that_needs_no_state_or_none_with_some_options() -> None:
    with registered(kind(state=lambda o: {})):
        g = blockdsl.compile("own", dim=12, causal=True)
        assert g.why_not_cached() is g.why_not_segmented() is None
        assert g.kv_cache_bytes(9) == 0
    with registered(kind(state=lambda o: None)):
        assert blockdsl.compile("own", dim=12, causal=True).why_not_cached() == (
            "own0 (of my own) keeps no state between steps"
        )


def test_a_state_is_declared_rightly() -> None:
    with pytest.raises(UserError, match="a state is per row, token or context, not per 'step'"):
        State((3,), per="step")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown dtype 'float31'"):
        State((3,), dtype="float31")
    with (
        registered(kind(state=lambda o: {"sum": State((3,))})),
        pytest.raises(UserError, match="kind 'own' declares state, so it needs the input cache"),
    ):
        blockdsl.compile("own", dim=12, causal=True).why_not_cached()


class Wrong(nn.Module):
    """Uses its state otherwise than it was declared."""

    how = "read"

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        if cache is not None and self.how == "read":
            cache.read("sums")
        elif cache is not None and self.how == "write":
            cache.write("sum", x)
        elif cache is not None and self.how == "append":
            cache.append(keys=x)
        elif cache is not None:
            cache.read("sum")
            if self.how == "forget":
                cache.write("sum", x[:, -1])
                self.how = "forgot"
        return x


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("read", "no state 'sums' is declared; declared: sum; did you mean 'sum'?"),
        ("write", "a state must be (2, 12), not (2, 3, 12)"),
        ("append", "the state 'keys' of a token must be (13,), not (12,)"),
        ("forget", "a state is read or written that the previous call did not write"),
    ],
)
def test_a_state_used_otherwise_than_declared_is_refused(how: str, problem: str) -> None:
    pieces = {"sum": State((12,)), "keys": State((13,), per="token")}
    with registered(kind(state=lambda o: pieces, inputs=("cache",), module=Wrong)):
        model = xt_blocks.lower(blockdsl.compile("own", dim=12, causal=True))
        model.blocks["own0"].layer.how = how  # type: ignore[index,union-attr]
        cache, x = model.new_cache(2, 9), torch.randn(2, 3, 12)  # type: ignore[operator]
        if how == "forget":
            model(x, cache=cache)
            model(x, cache=cache)
        with pytest.raises(UserError, match=f"^{re.escape(problem)}$"):
            model(x, cache=cache)


class Attended(nn.Module):
    """Pieces per token of a fixed type, with a window: the mean of what is kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        (seen,) = (x,) if cache is None else cache.append(keys=x)
        return torch.stack([seen[:, : seen.shape[1] - i].mean(dim=1) for i in reversed(range(x.shape[1]))], dim=1).to(
            x.dtype
        )


def test_a_kind_may_keep_tokens_in_a_type_of_its_own() -> None:
    piece = State((12,), per="token", dtype="float64")
    with registered(kind(state=lambda o: {"keys": piece}, inputs=("cache",), module=Attended)):
        g = blockdsl.compile("own", dim=12, causal=True)
        model, x = xt_blocks.lower(g), torch.randn(2, 5, 12)
        assert isinstance(model, xt_blocks.Stack)
        cache = model.new_cache(2, 7)
        out = torch.cat([model(part, cache=cache) for part in x.split(2, dim=1)], dim=1)
        close(out, model(x))
        assert cache.bytes() == g.kv_cache_bytes(7, batch=2) == 8 * 2 * 7 * 12


# Nothing grows -----------------------------------------------------------------------------------------------------


def sizes_of_tables() -> dict[str, int]:
    """The lengths of all containers that modules of ours hold."""
    return {
        f"{name}.{key}": len(value)
        for name, module in [*sys.modules.items()]
        if name.partition(".")[0] in ("blockdsl", "xt_blocks")
        for key, value in vars(module).items()
        if isinstance(value, dict | list | set) and not key.startswith("__")
    }


def test_nothing_of_a_pass_outlives_it() -> None:
    model = stack("among attention", rotary_pos_emb=True, rel_pos_bias=True)

    def passes(length: int) -> None:
        x = torch.randn(2, length, SIZES["dim"])
        _, mems = in_segments(model, x, [length], torch.ones(2, length, dtype=torch.bool))
        cache = model.new_cache(2, 2 * length + 1)
        model(x, mems=mems, cache=cache)
        model(x[:, :1], cache=cache.fix_shapes())

    passes(3)
    before = sizes_of_tables()
    attributes = {name: len(vars(module)) for name, module in model.named_modules()}
    for length in range(4, 12):
        passes(length)
    gc.collect()
    left = [o for o in gc.get_objects() if type(o) in (Masks, AttentionMask, xt_blocks.Cache, NodeState, SegmentState)]
    assert left == []
    assert sizes_of_tables() == before
    assert {name: len(vars(module)) for name, module in model.named_modules()} == attributes
