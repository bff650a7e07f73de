"""Steps by hand: intermediates as the cache of the next pass give the numbers of a pass over the whole."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import xt_blocks
from xt_blocks import Intermediates

from .variants import SIZES, VARIANTS, inputs, language_model, stack, tokens


def remembering(pattern: str = "(a f)*2", settings: dict[str, Any] | None = None, **wrapper: Any) -> Any:
    """A model with settings of the wrapper as well."""
    decoder = xt_blocks.Decoder(pattern=pattern, **SIZES, **(settings or {}))
    return xt_blocks.TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=decoder, **wrapper).eval()


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=3e-6)


def by_hand(model: nn.Module, x: Tensor, first: int, whole: bool, **read: Any) -> Tensor:
    """The outputs of x: a pass over its first tokens, then steps, each given all tokens so far or the new ones."""
    name = "return_hiddens" if isinstance(model, xt_blocks.Stack) else "return_intermediates"
    mask = read.pop("mask", None)

    def step(start: int, end: int, **further: Any) -> tuple[Tensor, Intermediates]:
        seen = {} if mask is None else {"mask": mask[:, start:end]}
        return model(x[:, start:end], **{name: True}, **seen, **further, **(read if whole or not start else {}))

    out, seen = step(0, first)
    outs = [out[:, out.shape[1] - first :]]
    for n in range(first, x.shape[1]):
        start = 0 if whole else n
        again, _ = step(start, n + 1, cache=seen)
        out, seen = step(start, n + 1, cache=seen)
        assert torch.equal(out, again), "the intermediates were changed by a step"
        outs.append(out)
    return torch.cat(outs, dim=1)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_stack_by_hand(name: str, whole: bool) -> None:
    model = stack(name)
    x, extra = inputs(model, seq=9)
    close(by_hand(model, x, 4, whole, **extra), model(x, **extra))


WIRED = {
    "a ^k f a(kv=k) ^v f a(values=k, value_mix=learned) <v(gate)": {"rotary_pos_emb": True},
    "^u a ^u f <u(pop, cat) a ^s <u(gain) f a(scores=s) c(context=u)": {},
    "^e (<e(cat) (a f)@core)*2": {"num_residual_streams": 2},
    "a f": {"use_adaptive_rmsnorm": True, "use_adaptive_layerscale": True, "dim_condition": 5},
}


@pytest.mark.parametrize("pattern", WIRED)
def test_a_stack_with_wires_by_hand(pattern: str) -> None:
    model = xt_blocks.Decoder(pattern=pattern, **SIZES, **WIRED[pattern]).eval()
    x, extra = inputs(model, seq=6)
    if "dim_condition" in WIRED[pattern]:
        extra = {"condition": torch.randn(2, 5)}
    for whole in (True, False):
        close(by_hand(model, x, 4, whole, **extra), model(x, **extra))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("memory", [0, 2])
@pytest.mark.parametrize("prepended", [0, 3])
@pytest.mark.parametrize("positions", [{}, {"rotary_pos_emb": True}, {"alibi_pos_bias": True, "shift_tokens": 1}])
def test_a_model_by_hand(positions: dict[str, Any], prepended: int, memory: int, whole: bool) -> None:
    model = remembering(settings=positions, num_memory_tokens=memory)
    x = tokens(2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :2] = False
    read = {"prepend_embeds": torch.randn(2, prepended, SIZES["dim"])} if prepended else {}
    expected = model(x, mask=mask, **read)[:, prepended:]
    out = by_hand(model, x, 4, whole, mask=mask, **read)
    close(out[mask], expected[mask])


def test_positions_embeddings_and_masks_of_a_step_are_of_the_whole() -> None:
    model = language_model(rotary_pos_emb=True).eval()
    x, pos, more = tokens(2, 6), torch.tensor([0, 2, 3, 5, 8, 9]), torch.randn(2, 6, SIZES["dim"])
    allowed = torch.ones(6, 6, dtype=torch.bool).tril()
    allowed[4:, 1] = False
    keys = torch.tensor([[True, False, True, True, True, True]]).expand(2, 6)
    for read in ({"attn_mask": allowed}, {"self_attn_context_mask": keys}):
        expected = model(x, pos=pos, sum_embeds=more, **read)
        first = {n: t[:4, :4] if n == "attn_mask" else t[:, :4] for n, t in read.items()}
        _, seen = model(x[:, :4], pos=pos[:4], sum_embeds=more[:, :4], return_intermediates=True, **first)
        out, seen = model(
            x[:, :5], pos=pos[:5], sum_embeds=more[:, :5], cache=seen, return_intermediates=True,
            **{n: t[:5, :5] if n == "attn_mask" else t[:, :5] for n, t in read.items()},
        )  # fmt: skip
        close(out, expected[:, 4:5])
        close(model(x, pos=pos, sum_embeds=more, cache=seen, **read), expected[:, 5:])


def test_several_new_tokens_and_memories_of_earlier_segments() -> None:
    model = remembering(settings={"rel_pos_bias": True}, max_mem_len=8)
    x = tokens(2, 14)
    _, mems = model(x[:, :6], return_mems=True)
    expected = model(x[:, 6:], mems=mems)
    _, seen = model(x[:, 6:9], mems=mems, return_intermediates=True)
    close(model(x[:, 6:], mems=mems, cache=seen), expected[:, 3:])


def test_more_tokens_than_a_first_capacity() -> None:
    torch.manual_seed(0)
    model = xt_blocks.Decoder(depth=2, attn_max_attend_past=20, shift_tokens=1, **SIZES).eval()
    x = torch.randn(1, 270, SIZES["dim"])
    _, seen = model(x[:, :120], return_hiddens=True)
    with torch.no_grad():
        for n in range(130, 271, 10):
            out, seen = model(x[:, :n], cache=seen, return_hiddens=True)
    close(out, model(x)[:, 260:])


def test_gradients_flow_through_a_first_step() -> None:
    model = xt_blocks.Decoder(depth=1, **SIZES)
    x = torch.randn(1, 5, SIZES["dim"])
    _, seen = model(x[:, :4], return_hiddens=True)
    model(x, cache=seen)[:, -1].sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x)[:, -1].sum().backward()
    close(gradients, [p.grad for p in model.parameters()])


def test_the_capacity_of_a_cache_grows() -> None:
    model = stack("rotary")
    x, _ = inputs(model, seq=9)
    cache = model.new_cache(2, 4)
    out = [model(x[:, :4], cache=cache)]
    cache.grow(9)
    out.append(model(x[:, 4:], cache=cache))
    close(torch.cat(out, dim=1), model(x))
    with pytest.raises(ValueError, match="is for 9 tokens, and can only become larger"):
        cache.grow(8)


def test_wrong_steps_are_refused() -> None:
    model, other = language_model().eval(), language_model(pattern="a f f").eval()
    x = tokens(2, 6)
    _, seen = model(x[:, :4], return_intermediates=True)
    with pytest.raises(
        ValueError, match="hold 4 tokens: give all of the sequence, more than 4 tokens, or one new token, not 3"
    ):
        model(x[:, :3], cache=seen)
    with pytest.raises(ValueError, match="that no pass of this model has filled"):
        other(x, cache=seen)
    with pytest.raises(ValueError, match="that no pass of this model has filled"):
        model.attn_layers(torch.randn(2, 6, SIZES["dim"]), cache=Intermediates())
    with pytest.raises(ValueError, match="of a stack alone"):
        model(x, cache=model.attn_layers(torch.randn(2, 4, SIZES["dim"]), return_hiddens=True)[1])
    cache = model.new_cache(2)
    _, of_a_cache = model(x[:, :4], cache=cache, return_intermediates=True)
    with pytest.raises(ValueError, match="hand on the Cache"):
        model(x, cache=of_a_cache)
    for wrong in ((seen,), "cache", {}):
        with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
            model(x, cache=wrong)
        with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
            model.attn_layers(torch.randn(2, 6, SIZES["dim"]), cache=wrong)
    encoder = stack("plain", causal=False)
    y, _ = inputs(encoder)
    _, seen = encoder(y, return_hiddens=True)
    with pytest.raises(ValueError, match="no cache can be kept"):
        encoder(torch.cat((y, y), dim=1), cache=seen)


def test_a_step_that_says_something_else_of_earlier_tokens_is_refused() -> None:
    model = remembering("a c f", num_memory_tokens=1, max_mem_len=4)
    x, context = tokens(2, 6), torch.randn(2, 3, SIZES["dim"])
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, :2] = False
    first: dict[str, Any] = {"context": context, "prepend_embeds": torch.randn(2, 2, SIZES["dim"])}
    _, seen = model(x[:, :4], mask=mask[:, :4], return_intermediates=True, **first)
    expected = model(x, mask=mask, cache=seen)
    same = {name: t.clone() for name, t in first.items()}
    assert torch.equal(model(x, mask=mask, cache=seen, **same), expected)
    _, later = model(x[:, :5], mask=mask[:, :5], cache=seen, return_intermediates=True)
    _, mems = model(x, context=context, return_mems=True)
    for earlier in (seen, later):
        for wrong in (
            {"context": context + 1}, {"context_mask": mask[:, :3]}, {"mems": mems}, {"mems": [*mems]},
            {"prepend_embeds": torch.zeros(2, 2, SIZES["dim"])}, {"prepend_mask": mask[:, :2]}, {"context": "words"},
        ):  # fmt: skip
            with pytest.raises(ValueError, match=f"{next(iter(wrong))} differs from that of the first pass"):
                model(x, mask=mask, cache=earlier, **wrong)
        with pytest.raises(ValueError, match="mask differs from that of an earlier pass"):
            model(x, mask=torch.ones_like(mask), cache=earlier)
    decoder, y = xt_blocks.Decoder(depth=1, cross_attend=True, **SIZES), torch.randn(2, 6, SIZES["dim"])
    _, seen = decoder(y[:, :4], context, return_hiddens=True)
    decoder(y, context, torch.ones_like(mask), cache=seen)
    with pytest.raises(ValueError, match="context differs"):
        decoder(y, context + 1, cache=seen)
    with pytest.raises(ValueError, match="mask differs"):
        decoder(y, mask=mask, cache=seen)


def test_memories_after_steps_by_hand_are_those_of_one_pass() -> None:
    model = remembering("a f>>1 a f", {"rel_pos_bias": True}, max_mem_len=9, num_memory_tokens=2)
    x, more = tokens(2, 14), tokens(2, 4)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, :2] = False
    _, before = model(x[:, :6], return_mems=True)
    for first in ({"mems": before}, {"mask": mask}):
        y, mask_of = x[:, 6:], first.get("mask")
        rest = [{} if mask_of is None else {"mask": mask_of[:, :n]} for n in (5, 6, 8)]
        start = {name: t for name, t in first.items() if name == "mems"}
        _, whole = model(y, return_mems=True, **first)
        for asked in (True, False):
            seen = model(y[:, :5], return_intermediates=True, return_mems=asked, **start, **rest[0])[1]
            _, seen, _ = model(y[:, :6], cache=seen, return_intermediates=True, return_mems=True, **rest[1])
            _, _, mems = model(y, cache=seen, return_intermediates=True, return_mems=True, **rest[2])
            assert mems.length == whole.length
            close(model(more, mems=mems), model(more, mems=whole))
    _, seen = model(x[:, :4], return_intermediates=True)
    _, seen = model(x[:, :5], cache=seen, return_intermediates=True)
    with pytest.raises(ValueError, match="return_mems is set at a step by hand, but was not at the one before"):
        model(x[:, :6], cache=seen, return_mems=True)


def test_an_interrupted_first_step_leaves_nothing_behind() -> None:
    model, x = language_model().eval(), tokens(2, 6)
    _, seen = model(x[:, :5], return_intermediates=True)

    def interrupts(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model.attn_layers.blocks["f1"].register_forward_pre_hook(interrupts)
    with pytest.raises(KeyboardInterrupt):
        model(x, cache=seen)
    handle.remove()
    close(model(x, cache=seen), model(x)[:, 5:])


def test_threads_go_on_from_the_same_intermediates() -> None:
    model, x = language_model().eval(), tokens(2, 6)
    _, seen = model(x[:, :5], return_intermediates=True)
    expected, outs = model(x)[:, 5:], []
    inside, go_on = threading.Event(), threading.Event()

    def waits(*_: Any) -> None:
        inside.set()
        assert go_on.wait(60)

    handle = model.attn_layers.blocks["f1"].register_forward_pre_hook(waits)
    slow = threading.Thread(target=lambda: outs.append(model(x, cache=seen)))
    slow.start()
    assert inside.wait(60)
    handle.remove()
    outs.append(model(x, cache=seen))  # while the other one is in the middle of its first step
    go_on.set()
    slow.join()
    assert len(outs) == 2
    for out in outs:
        close(out, expected)


def test_gradients_flow_after_a_step_without_them() -> None:
    model = xt_blocks.Decoder(depth=1, **SIZES)
    x = torch.randn(1, 5, SIZES["dim"], requires_grad=True)
    _, seen = model(x[:, :4], return_hiddens=True)
    with torch.no_grad():
        model(x, cache=seen)
    model(x, cache=seen).sum().backward()
    assert x.grad is not None
    assert x.grad[:, :4].abs().sum() > 0


def test_parts_of_attention_are_read_and_replaced() -> None:
    decoder = xt_blocks.Decoder(depth=1, cross_attend=True, attn_value_dim_head=5, **SIZES)
    x = torch.randn(2, 3, SIZES["dim"])
    for node, joint, names in (("a0", "to_qkv", ("to_q", "to_k", "to_v")), ("c1", "to_kv", ("to_k", "to_v"))):
        layer = decoder.blocks[node].layer
        whole = getattr(layer, joint)
        close(torch.cat([getattr(layer, name)(x) for name in names], dim=-1), whole(x))
        assert torch.equal(torch.cat([getattr(layer, name).weight for name in names]), whole.weight)
        assert layer.get_submodule("to_k").out_features == 24
        assert layer.to_v.in_features == 24
        assert layer.to_out is layer.output.to_out
        assert layer.to_k.bias is None
        with pytest.raises(AttributeError, match="no parameters of their own"):
            list(layer.to_k.parameters())
        with torch.no_grad():
            layer.to_v.weight.zero_()
        assert not whole.weight[-15:].any()
        assert whole.weight[:-15].all()
        layer.to_k = new = nn.Linear(24, 24, bias=False)
        assert layer.to_k is new
        close(getattr(layer, joint)(x)[..., -39:-15], new(x))
        layer.to_out = new
        assert layer.output.to_out is new
    shared = xt_blocks.Decoder(depth=1, attn_shared_kv=True, **SIZES)
    assert shared.blocks["a0"].layer.to_v is None


def test_memories_are_read_as_a_list() -> None:
    model = remembering("a f a f", {"rel_pos_bias": True}, max_mem_len=8)
    x = tokens(2, 9)
    _, mems = model(x[:, :4], return_mems=True)
    assert len(mems) == 2
    assert [t.shape for t in mems] == [(2, 4, SIZES["dim"])] * 2
    assert mems[1] is [*mems][1] is mems.streams["a2"]
    assert mems[-1] is mems[1]
    close(model(x[:, 4:], mems=[*mems]), model(x[:, 4:], mems=mems))
    with pytest.raises(IndexError):
        mems[2]
    shifted = remembering("a f>>1 a f", {"rel_pos_bias": True}, max_mem_len=8)
    _, mems = shifted(x[:, :4], return_mems=True)
    with pytest.raises(ValueError, match="a list of mems has nothing of f1: hand on the Memories"):
        shifted(x[:, 4:], mems=[*mems])
