"""Stacks with labels and reads in every way to run them: cached steps, segments, checkpoints, compiled, packed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl.graph.state import why_not_rolling
from xt_blocks.runtime.context import ForwardContext

from .lines import FURTHER, LINES, SIZES

ALL = {**LINES, **FURTHER}
BATCH, SEQ = 2, 9


def lowered(name: str, **settings: Any) -> xt_blocks.Stack:
    text, own = ALL[name]
    torch.manual_seed(1)
    stack = xt_blocks.lower(blockdsl.compile(text, **{**SIZES, **own, **settings}))
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return stack.double().eval()


def embedded(seq: int = SEQ) -> torch.Tensor:
    return torch.randn(BATCH, seq, 16, dtype=torch.float64)


@pytest.mark.parametrize("name", ALL)
def test_cached_steps_are_whole_passes(name: str) -> None:
    stack, x = lowered(name), embedded()
    mask = torch.arange(SEQ) >= torch.tensor([[0], [3]])  # padding in front
    with torch.no_grad():
        whole = stack(x, mask=mask)
        cache = stack.new_cache(BATCH, SEQ)
        out = [stack(x[:, :4], mask=mask[:, :4], cache=cache), stack(x[:, 4:6], cache=cache)]
        fixed = cache.copy().fix_shapes()
        swapped = cache.select(torch.tensor([1, 0]))
        for t in range(6, SEQ):
            token = x[:, t : t + 1]
            out.append(stack(token, cache=cache))
            torch.testing.assert_close(stack(token, cache=fixed), out[-1], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(stack(token.flip(0), cache=swapped).flip(0), out[-1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.cat(out, dim=1)[mask], whole[mask], rtol=1e-6, atol=1e-6)
    assert cache.bytes() == stack.graph.kv_cache_bytes(SEQ, BATCH, dtype="float64")


def test_who_reads_keys_and_values_keeps_none() -> None:
    one, alone = lowered("shared keys"), lowered("value residual")
    keys = 2 * SIZES["heads"] * SIZES["attn_dim_head"] * BATCH * SEQ * 8
    assert one.graph.kv_cache_bytes(SEQ, BATCH, dtype="float64") == 2 * keys  # of four attentions
    assert alone.graph.kv_cache_bytes(SEQ, BATCH, dtype="float64") == 3 * keys  # values are kept as they are mixed
    assert {*one.new_cache(BATCH, SEQ).nodes} == {"a0", "a4"}
    assert {*dict(one.blocks["a2"].named_parameters())} == {  # type: ignore[index]
        *("norm.weight", "norm.bias", "layer.to_qkv.weight", "layer.output.to_out.weight"),
    }
    assert one.blocks["a2"].layer.to_qkv.weight.shape == (16, 16)  # type: ignore[index,union-attr]


def test_a_cache_keeps_as_much_as_its_readers_see() -> None:
    kept = lowered("windows").kept
    assert {node: own.window for node, own in kept.items()} == {"a0": 4}
    graph = blockdsl.compile("a(max_attend_past=2) ^k f a(kv=k)", **SIZES)
    assert xt_blocks.lower(graph).kept["a0"].window is None
    assert why_not_rolling(graph) == "a0 (self-attention) attends to all earlier tokens"


@pytest.mark.parametrize("name", ALL)
def test_segments_are_one_long_pass(name: str) -> None:
    stack, x = lowered(name), embedded()
    mems, out = None, []
    with torch.no_grad():
        for part in x.split((4, 2, 3), dim=1):
            seen = xt_blocks.Intermediates()
            out.append(stack(part, mems=mems, intermediates=seen))
            mems = stack.remember(mems, seen, None, 99)
        torch.testing.assert_close(torch.cat(out, dim=1), stack(x), rtol=1e-6, atol=1e-6)
    assert mems is not None
    readers = {node for node in stack.graph.nodes("block") if stack.graph.block(node)["options"].get("kv")}
    assert {*mems.streams} & readers == ({"a2"} if name == "shifted" else set())  # a token shift needs its last tokens


def test_values_of_a_context_are_averaged() -> None:
    text = "c ^v f c(values=v) ^w f c(values=w, kv_heads=2)"
    stack = xt_blocks.lower(blockdsl.compile(text, **SIZES)).double().eval()
    x, context = embedded(), embedded(5)
    p = dict(stack.named_parameters())

    def plain(node: str, x: torch.Tensor, earlier: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.nn.functional.layer_norm(x, (16,), p[f"blocks.{node}.norm.weight"], p[f"blocks.{node}.norm.bias"])
        q, kv = h @ p[f"blocks.{node}.layer.to_q.weight"].T, context @ p[f"blocks.{node}.layer.to_kv.weight"].T
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in (q, *kv.chunk(2, dim=-1)))
        v = v if earlier is None else v / 2 + earlier / 2
        out = ((q @ k.mT / 8**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return x + out @ p[f"blocks.{node}.layer.output.to_out.weight"].T, v

    y, v = plain("c0", x, None)
    y, v = plain("c2", stack.blocks["f1"](y).stream, v)
    y, _ = plain("c4", stack.blocks["f3"](y).stream, v)
    whole = stack(x, context=context)
    torch.testing.assert_close(whole, stack.norm(y))
    cache = stack.new_cache(BATCH, SEQ)
    steps = [stack(x[:, :5], context=context, cache=cache), stack(x[:, 5:], cache=cache)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


@pytest.mark.parametrize("name", ALL)
def test_documents_of_one_row_and_several_residual_streams(name: str) -> None:
    stack, x = lowered(name), embedded()
    with torch.no_grad():
        apart = torch.cat([stack(part) for part in x.split((4, 5), dim=1)], dim=1)
        together = stack(x, doc_ids=torch.tensor([0] * 4 + [1] * 5))
        torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)
        if name in ("shared block", "routed"):  # of several streams, a block takes the place of none
            return
        stack = lowered(name, num_residual_streams=3)
        cache = stack.new_cache(BATCH, SEQ)
        steps = torch.cat([stack(part, cache=cache) for part in x.split((5, 1, 3), dim=1)], dim=1)
        torch.testing.assert_close(steps, stack(x), rtol=1e-6, atol=1e-6)
    assert stack.graph.parameters() == sum(parameter.numel() for parameter in stack.parameters())


def test_an_earlier_layer_is_kept_of_earlier_segments() -> None:
    rotary = {"rotary_pos_emb": True, "rotary_emb_dim": 4, "cross_attn_rotary": True}
    text = "a f ^mid | a c(context=mid) f c(context=mid)>>1"
    stack, x = xt_blocks.lower(blockdsl.compile(text, **SIZES, **rotary)).double().eval(), embedded()
    seen, mask = xt_blocks.Intermediates(), torch.tensor([[False, True, True], [True] * 3])
    with torch.no_grad():
        stack(x[:, :3], mask=mask, intermediates=seen)
        mems = stack.remember(None, seen, mask, 2)
        assert {*mems.streams} == {"a0", "a2", "f1.stream", "c5"}  # one for both, and what is shifted
        last = stack(x[:, 3:], mems=mems)
        cache = stack.new_cache(BATCH, SEQ)
        steps = [stack(x[:, 3:5], mems=mems, cache=cache), stack(x[:, 5:], cache=cache)]
    torch.testing.assert_close(torch.cat(steps, dim=1), last)
    with pytest.raises(ValueError, match=r"a list of mems has nothing of c5: hand on the Memories"):
        stack(x, mems=[mems.streams["a0"], mems.streams["a2"]])


def test_no_token_of_an_earlier_layer_sees_a_later_one_unless_the_stack_does() -> None:
    stack, x = lowered("earlier layer"), embedded()
    other = x.clone()
    other[:, 5:] += 1
    torch.testing.assert_close(stack(other)[:, :5], stack(x)[:, :5])
    allowed = torch.ones(SEQ, SEQ, dtype=torch.bool)
    allowed[5:, 2] = False
    assert not torch.allclose(stack(x, attn_mask=allowed)[:, 5:], stack(x)[:, 5:])
    both = lowered("earlier layer", causal=False)
    assert not torch.allclose(both(other)[:, :5], both(x)[:, :5])
    assert both.graph.sees_later() is not None


@pytest.mark.parametrize("checkpoint", ["block", "stage"])
def test_recomputed_passes_have_the_same_gradients(checkpoint: str) -> None:
    for name in ALL:
        x, both = embedded(), []
        for stack in (lowered(name), lowered(name, checkpoint=checkpoint)):
            stack.train()
            loss = stack(x).square().sum()
            both.append(torch.autograd.grad(loss, [*stack.parameters()]))
        torch.testing.assert_close(both[0], both[1])


@pytest.mark.parametrize("name", ALL)
def test_costs_are_those_of_the_stack(name: str) -> None:
    stack, x = lowered(name), embedded()
    assert stack.graph.parameters() == sum(parameter.numel() for parameter in stack.parameters())
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        stack(x)
    assert stack.graph.flops(SEQ, BATCH) == counter.get_total_flops()


def test_what_no_later_read_needs_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of values of a pass after each step."""
    alive: list[set[str]] = []
    forget = ForwardContext.forget

    def counted(ctx: ForwardContext, nodes: tuple[str, ...]) -> None:
        forget(ctx, nodes)
        alive.append({*ctx.values})

    monkeypatch.setattr(ForwardContext, "forget", counted)
    lowered("u-net")(embedded())
    assert [len(values) for values in alive] == [2, 2, 3, 3, 2, 2, 2, 1, 1, 1]
    alive.clear()
    lowered("yoco")(embedded())  # keys and values stay, and not the stream that they were made of
    assert [values - {step} for values, step in zip(alive, lowered("yoco").graph.nodes("block"), strict=True)] == [
        *(set(), set(), {"a2.kv"}, {"a2.kv"}, {"a2.kv"}, {"a2.kv"}, set(), set()),
    ]
    alive.clear()
    lowered("denseformer")(embedded())
    assert [len(values) for values in alive] == [2, 2, 2, 3, 3, 1]


def test_compiled_and_exported() -> None:
    stack, x = lowered("together"), embedded()
    torch._dynamo.reset()
    compiled = torch.compile(stack, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), stack(x))
    seq = torch.export.Dim("seq", min=2, max=64)
    exported = torch.export.export(stack, (x,), dynamic_shapes={"x": {1: seq}}, strict=False).module()
    longer = embedded(12)
    torch.testing.assert_close(exported(longer), stack(longer))


@pytest.mark.parametrize("name", ALL)
def test_every_module_is_called_and_may_be_packed(name: str) -> None:
    stack, x = lowered(name).float(), embedded().float()
    called: set[str] = set()
    leaves = {each: module for each, module in stack.named_modules() if [*module.parameters(recurse=False)]}
    packed = xt_blocks.pack(copy.deepcopy(stack))
    for each, module in leaves.items():
        if not isinstance(module, xt_blocks.Block):
            module.register_forward_hook(lambda *_, each=each: called.add(each))
    with torch.no_grad():
        torch.testing.assert_close(packed(x), stack(x))
    assert called == {each for each, module in leaves.items() if each in called or isinstance(module, nn.Linear)}
    assert called >= {f"joins.{node}" for node in stack.joins if [*stack.joins[node].parameters(recurse=False)]}


def test_a_read_in_a_loop_is_repeated_with_it() -> None:
    text = "a f ^e (<e(cat)@mix (a f)@core)*{} a f"
    stack, longer = (xt_blocks.lower(blockdsl.compile(text.format(count), **SIZES)) for count in (2, 4))
    names = {"a6": "a10", "f7": "f11"}
    longer.load_state_dict(
        {".".join(names.get(part, part) for part in name.split(".")): t for name, t in stack.state_dict().items()}
    )
    x = embedded().float()
    looped = xt_blocks.with_loops(stack, core=4)
    assert {*looped.joins.parameters()} == {*stack.joins.parameters()}
    torch.testing.assert_close(looped(x), longer(x))


def test_copies_and_records() -> None:
    stack, x = lowered("learned mix"), embedded()
    again = xt_blocks.lower(blockdsl.BlockGraph.from_json(stack.graph.to_json())).double().eval()
    again.load_state_dict(stack.state_dict())
    assert torch.equal(again(x), stack(x))
    assert torch.equal(copy.deepcopy(stack)(x), stack(x))
    stack = lowered("yoco")
    assert [*xt_blocks.record(stack, x)] == stack.graph.nodes("block")
    weights = xt_blocks.attention_map(stack, x, "a6", head=1)
    torch.testing.assert_close(weights.sum(-1), torch.ones(SEQ, dtype=torch.float64))
    assert weights.triu(1).abs().max() == 0


def test_autocast_and_other_types() -> None:
    for name in ALL:
        stack = lowered(name).float()
        x = embedded().float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cache = stack.new_cache(BATCH, SEQ)
            out = torch.cat([stack(part, cache=cache) for part in x.split((5, 3, 1), dim=1)], dim=1)
        assert (out - stack(x)).abs().max() < 0.3
        assert stack.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
