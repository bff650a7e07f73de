"""Tensors of other types than the model's: cast where that is harmless, else refused in words where they were handed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import xt_blocks
from xt_blocks.kernels.cross_entropy import Target
from xt_blocks.kernels.tensors import WHOLE

from .models import DIM, LONGEST, POSITIONS, TOKENS, decoder, some_tokens, some_vectors, tokens_model

LOW = (torch.bfloat16, torch.float16)


def seq2seq() -> xt_blocks.XTransformer:
    own = {"num_tokens": TOKENS, "max_seq_len": LONGEST, "depth": 1, "heads": 2, "attn_dim_head": 8}
    return xt_blocks.XTransformer(
        dim=DIM, **{f"{side}_{name}": value for side in ("enc", "dec") for name, value in own.items()}
    ).eval()


def vectors_model(**options: Any) -> xt_blocks.ContinuousTransformerWrapper:
    return xt_blocks.ContinuousTransformerWrapper(
        max_seq_len=LONGEST, attn_layers=decoder(rotary_pos_emb=True), **options
    ).eval()


def images_model() -> xt_blocks.ViTransformerWrapper:
    stack = xt_blocks.Encoder(dim=DIM, depth=1, heads=2)
    return xt_blocks.ViTransformerWrapper(image_size=8, patch_size=4, num_classes=3, attn_layers=stack).eval()


# Arrays and lists ---------------------------------------------------------------------------------------------------

A, B = "an array", "a list"
TOKEN_ARGUMENTS: dict[str, Callable[[Any, Callable[[Tensor], Any]], Any]] = {
    "tokens": lambda m, as_: m(as_(some_tokens())),
    "mask": lambda m, as_: m(some_tokens(), mask=as_(some_tokens() > 1)),
    "attn_mask": lambda m, as_: m(some_tokens(), attn_mask=as_(torch.ones(7, 7).bool())),
    "self_attn_context_mask": lambda m, as_: m(some_tokens(), self_attn_context_mask=as_(some_tokens() > 1)),
    "pos": lambda m, as_: m(some_tokens(), pos=as_(torch.arange(7))),
    "prepend_embeds": lambda m, as_: m(some_tokens(), prepend_embeds=as_(some_vectors(2, 2))),
    "prepend_mask": lambda m, as_: m(
        some_tokens(), prepend_embeds=some_vectors(2, 2), prepend_mask=as_(torch.ones(2, 2).bool())
    ),
    "sum_embeds": lambda m, as_: m(some_tokens(), sum_embeds=as_(some_vectors())),
    "context": lambda m, as_: m(some_tokens(), context=as_(some_vectors(2, 3))),
    "context_mask": lambda m, as_: m(
        some_tokens(), context=some_vectors(2, 3), context_mask=as_(torch.ones(2, 3).bool())
    ),
    "the target's tokens": lambda m, as_: m(some_tokens(), target=Target(as_(some_tokens()))),
}


def array(t: Tensor) -> Any:
    return t.numpy()


def nested(t: Tensor) -> Any:
    return t.tolist()


@pytest.mark.parametrize("name", TOKEN_ARGUMENTS)
@pytest.mark.parametrize(("as_", "named"), [(array, r"numpy\.ndarray"), (nested, "list")], ids=["array", "list"])
def test_an_array_or_a_list_is_named(name: str, as_: Callable[[Tensor], Any], named: str) -> None:
    stack = decoder(cross_attend=True) if name.startswith("context") else decoder(rotary_pos_emb=True)
    with pytest.raises(TypeError, match=rf"^{name} must be a tensor, not {named}; torch.tensor\({name}\) makes one"):
        TOKEN_ARGUMENTS[name](tokens_model(stack), as_)


ELSEWHERE: list[tuple[str, Callable[[Callable[[Tensor], Any]], Any]]] = [
    ("tokens", lambda as_: xt_blocks.AutoregressiveWrapper(tokens_model())(as_(some_tokens()))),
    ("mask", lambda as_: xt_blocks.AutoregressiveWrapper(tokens_model())(some_tokens(), mask=as_(some_tokens() > 1))),
    (
        "mask",
        lambda as_: xt_blocks.AutoregressiveWrapper(tokens_model()).generate(
            some_tokens(), 2, mask=as_(some_tokens() > 1)
        ),
    ),
    ("context", lambda as_: _crossing().generate(some_tokens(), 2, context=as_(some_vectors()))),
    (
        "prepend_embeds",
        lambda as_: xt_blocks.AutoregressiveWrapper(tokens_model()).generate(
            some_tokens(), 2, prepend_embeds=as_(some_vectors())
        ),
    ),
    ("tokens", lambda as_: xt_blocks.XLAutoregressiveWrapper(tokens_model(max_mem_len=2))(as_(some_tokens()))),
    ("src", lambda as_: seq2seq()(as_(some_tokens()), some_tokens())),
    ("tokens", lambda as_: seq2seq()(some_tokens(), as_(some_tokens()))),
    ("src", lambda as_: seq2seq().generate(as_(some_tokens()), some_tokens(), 2)),
    ("x", lambda as_: vectors_model()(as_(some_vectors()))),
    ("x", lambda as_: xt_blocks.ContinuousAutoregressiveWrapper(vectors_model())(as_(some_vectors()))),
    ("start", lambda as_: xt_blocks.ContinuousAutoregressiveWrapper(vectors_model()).generate(as_(some_vectors()), 2)),
    ("img", lambda as_: images_model()(as_(torch.zeros(1, 3, 8, 8)))),
    ("x", lambda as_: decoder()(as_(some_vectors()))),
    ("context", lambda as_: decoder(cross_attend=True)(some_vectors(), context=as_(some_vectors()))),
    ("context", lambda as_: xt_blocks.CrossAttention(DIM)(some_vectors(), as_(some_vectors()))),
    ("tokens", lambda as_: xt_blocks.record(tokens_model(), as_(some_tokens()))),
    ("tokens", lambda as_: xt_blocks.attention_map(tokens_model(), as_(some_tokens()), "a0", 0)),
    ("tokens", lambda as_: _masked()(as_(some_tokens(seq=LONGEST)))),
]


def _crossing() -> xt_blocks.AutoregressiveWrapper:
    return xt_blocks.AutoregressiveWrapper(tokens_model(decoder(cross_attend=True)))


def _masked() -> xt_blocks.NonAutoregressiveWrapper:
    return xt_blocks.NonAutoregressiveWrapper(tokens_model(xt_blocks.Encoder(dim=DIM, depth=1)), mask_id=1)


@pytest.mark.parametrize(("name", "call"), ELSEWHERE, ids=[f"{i}-{name}" for i, (name, _) in enumerate(ELSEWHERE)])
@pytest.mark.parametrize(("as_", "named"), [(array, r"numpy\.ndarray"), (nested, "list")], ids=["array", "list"])
def test_so_it_is_in_wrappers_and_blocks(name: str, call: Any, as_: Any, named: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a tensor, not {named}"):
        call(as_)


@pytest.mark.parametrize("prompts", [some_tokens().numpy(), [[1, 2], [3]], [np.array([1, 2])]])
def test_prompts_that_are_no_tensors_are_named(prompts: Any) -> None:
    with pytest.raises(TypeError, match="prompts must be a tensor or a list of tensors, not"):
        xt_blocks.AutoregressiveWrapper(tokens_model()).generate(prompts, 2)


# Whole numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(WHOLE, key=str), ids=str)
def test_tokens_and_positions_of_any_whole_type_are_the_same(dtype: torch.dtype) -> None:
    model = tokens_model(max_mem_len=2)
    x, pos, odd = some_tokens(), torch.arange(7) + 2, some_tokens().to(dtype)
    wrapper = xt_blocks.AutoregressiveWrapper(model)
    assert torch.equal(model(odd, pos=pos.to(dtype)), model(x, pos=pos))
    assert torch.equal(decoder_output(pos.to(dtype)), decoder_output(pos))
    assert torch.equal(wrapper(odd), wrapper(x))
    assert torch.equal(wrapper.generate(odd, 3, top_k=1), wrapper.generate(x, 3, top_k=1))
    assert torch.equal(
        wrapper.generate([odd[0], odd[1, :2]], 3, top_k=1), wrapper.generate([x[0], x[1, :2]], 3, top_k=1)
    )
    assert torch.equal(model(x, target=Target(odd)), model(x, target=Target(x)))
    segments = xt_blocks.XLAutoregressiveWrapper(model)
    assert torch.equal(segments(odd), segments(x))
    both = seq2seq()
    assert torch.equal(both(odd, odd), both(x, x))


def decoder_output(pos: Tensor) -> Tensor:
    torch.manual_seed(0)
    return decoder(rotary_pos_emb=True, alibi_pos_bias=True)(some_vectors(), pos=pos)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64], ids=str)
def test_others_are_refused_in_words(dtype: torch.dtype) -> None:
    model, odd = tokens_model(), some_tokens().to(dtype)
    for call in (
        lambda: model(odd),
        lambda: model(some_tokens(), pos=odd),
        lambda: xt_blocks.AutoregressiveWrapper(model)(odd),
        lambda: xt_blocks.AutoregressiveWrapper(model).generate(odd, 2),
        lambda: seq2seq()(odd, some_tokens()),
        lambda: _masked()(some_tokens(seq=LONGEST).to(dtype)),
        lambda: model(some_tokens(), target=Target(odd)),
    ):
        with pytest.raises(ValueError, match=f"must be whole numbers.*, not {dtype}"):
            call()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["mask", "attn_mask", "self_attn_context_mask"])
def test_masks_of_numbers_are_refused_in_words(name: str, dtype: torch.dtype) -> None:
    shape = (7, 7) if name == "attn_mask" else (2, 7)
    hint = f"; {name}.bool\\(\\) is, if 1 = attend" if dtype in WHOLE else "$"
    with pytest.raises(ValueError, match=f"{name} must be boolean, True = attend, not {dtype}{hint}"):
        tokens_model()(some_tokens(), **{name: torch.ones(shape, dtype=dtype)})


# Floating types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, *LOW], ids=str)
def test_models_take_vectors_and_images_of_another_type_as_their_own(dtype: torch.dtype) -> None:
    model, x = vectors_model(dim_in=5, dim_out=5), some_vectors(dim=5).to(dtype)
    assert torch.equal(model(x), model(x.float()))
    wrapper = xt_blocks.ContinuousAutoregressiveWrapper(model)
    assert torch.equal(wrapper(x), wrapper(x.float()))
    assert torch.equal(wrapper.generate(x, 9), wrapper.generate(x.float(), 9))
    images, img = images_model(), some_vectors(2, 3, 64).view(2, 3, 8, 8).to(dtype)
    assert torch.equal(images(img), images(img.float()))
    low = vectors_model(dim_in=5, dim_out=5).to(torch.bfloat16)
    assert torch.equal(low(x), low(x.to(torch.bfloat16)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW], ids=str)
@pytest.mark.parametrize("own", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_stands_beside_the_tokens_is_taken_in_the_streams_type(dtype: torch.dtype, own: torch.dtype) -> None:
    model = tokens_model(decoder(cross_attend=True)).to(own).eval()
    beside = {"context": some_vectors(2, 3), "prepend_embeds": some_vectors(2, 2), "sum_embeds": some_vectors()}
    beside = {name: value.to(dtype) for name, value in beside.items()}
    want = model(some_tokens(), **{name: value.to(own) for name, value in beside.items()})
    got = model(some_tokens(), **beside)
    assert got.dtype == own
    assert torch.equal(got, want)
    wrapper = xt_blocks.AutoregressiveWrapper(model)
    del beside["sum_embeds"]
    given = {name: value.to(own) for name, value in beside.items()}
    for cache_kv in (True, False):
        ours = wrapper.generate(some_tokens(), 3, top_k=1, cache_kv=cache_kv, **beside)
        assert torch.equal(ours, wrapper.generate(some_tokens(), 3, top_k=1, **given))


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("name", POSITIONS)
def test_a_prompt_under_autocast_and_steps_without_or_the_other_way_round(name: str, cross: bool) -> None:
    model = tokens_model(decoder(cross_attend=cross, shift_tokens=1, **POSITIONS[name])).eval()
    x = some_tokens(seq=9)
    beside = {"context": some_vectors(2, 3)} if cross else {}
    want = model(x, **beside)
    for first in (True, False):
        cache, parts = model.new_cache(2), []
        with torch.no_grad():
            for i, part in enumerate(x.split(3, dim=1)):
                with torch.autocast("cpu", torch.bfloat16, enabled=(i == 0) == first):
                    parts.append(model(part, cache=cache, **(beside if i == 0 else {})).float())
        torch.testing.assert_close(torch.cat(parts, dim=1), want, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_memories_of_another_type_are_taken(dtype: torch.dtype) -> None:
    model = tokens_model(max_mem_len=4).eval()
    x = some_tokens()
    _, mems = model(x[:, :4], return_mems=True)
    other = tokens_model(max_mem_len=4).to(dtype).eval()
    other.load_state_dict(model.state_dict())
    out, after = other(x[:, 4:], mems=mems, return_mems=True)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), model(x[:, 4:], mems=mems), rtol=0.1, atol=0.1)
    assert {stream.dtype for stream in after.streams.values()} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float64, *LOW], ids=str)
@pytest.mark.parametrize("own", [{}, {"use_rmsnorm": True}, {"use_scalenorm": True}, {"pre_norm": False}], ids=str)
def test_a_stack_refuses_another_type_in_words_or_gives_the_same(own: dict[str, bool], dtype: torch.dtype) -> None:
    stack, x = decoder(**own), some_vectors().to(dtype)
    message = f"x is {dtype} and the weights are torch.float32: convert one of them, as in x.to(torch.float32)"
    try:
        out = stack(x)
    except ValueError as error:
        assert str(error) == message  # noqa: PT017
    else:
        assert dtype in LOW
        torch.testing.assert_close(out, stack(x.float()), rtol=0.01, atol=0.01)
    if not own:
        with pytest.raises(ValueError, match="convert one of them"):
            stack(x)
    with pytest.raises(ValueError, match=r"x must be floating point, not torch\.int64"):
        stack(x.long())


def test_an_error_of_another_kind_stays_what_it_is() -> None:
    stack = decoder()
    stack.blocks["f1"].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("mine")))
    with pytest.raises(RuntimeError, match="mine"):
        stack(some_vectors())


# Devices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TOKEN_ARGUMENTS if name != "tokens"])
def test_a_tensor_on_another_device_is_named(name: str) -> None:
    stack = decoder(cross_attend=True) if name.startswith("context") else decoder(rotary_pos_emb=True)
    with pytest.raises(ValueError, match=f"^{name} is on meta and the sequence on cpu: move one of them"):
        TOKEN_ARGUMENTS[name](tokens_model(stack), lambda t: t.to("meta"))


def test_a_sequence_on_another_device_than_the_weights_is_named() -> None:
    model, stack = tokens_model(), decoder()
    for module in (model.token_emb, stack.blocks["a0"]):  # meta tensors do not stop at it, as those of a GPU do
        module.register_forward_pre_hook(_as_on_a_gpu)
    for name, call in (
        ("tokens", lambda: model.to("meta")(some_tokens())),
        ("x", lambda: stack.to("meta")(some_vectors())),
    ):
        with pytest.raises(ValueError, match=f"^{name} is on cpu and the model on meta: move one of them"):
            call()


def _as_on_a_gpu(*_: Any) -> None:
    raise RuntimeError("Expected all tensors to be on the same device")


# Memories, rows and targets -----------------------------------------------------------------------------------------


def test_memories_that_are_none_or_elsewhere_are_named() -> None:
    model = tokens_model(max_mem_len=3)
    wrapper = xt_blocks.XLAutoregressiveWrapper(model)
    for call in (
        lambda: model(some_tokens(), mems=3),
        lambda: wrapper(some_tokens(), mems=3),
        lambda: wrapper.generate(some_tokens(), 2, mems=3),
        lambda: model.attn_layers(some_vectors(), mems=some_vectors()),
    ):
        with pytest.raises(TypeError, match=r"mems must be the Memories of an earlier segment, not (int|Tensor)"):
            call()
    with pytest.raises(ValueError, match="mems is on meta and the sequence on cpu"):
        model(some_tokens(), mems=[some_vectors().to("meta")] * 2)


def test_rows_of_a_cache_are_whole_numbers_of_any_type() -> None:
    model = tokens_model().eval()
    cache = model.new_cache(2)
    with torch.no_grad():
        model(some_tokens(), cache=cache)
    rows = torch.tensor([1, 0, 1], dtype=torch.uint8)
    for ours, theirs in zip(cache.select(rows).tensors(), cache.select(rows.long()).tensors(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(TypeError, match="rows must be a tensor, not list"):
        cache.select([1, 0])


def test_a_targets_ignored_index_is_a_whole_number() -> None:
    model, x = tokens_model().eval(), some_tokens()
    assert torch.equal(model(x, target=Target(x, np.int64(3))), model(x, target=Target(x, 3)))
    with pytest.raises(ValueError, match=r"ignore_index must be a whole number, not 3\.5"):
        model(x, target=Target(x, 3.5))


def test_what_is_no_graph_and_no_generator_is_named() -> None:
    with pytest.raises(TypeError, match=r"lower takes a BlockGraph, as blockdsl\.compile gives, not str"):
        xt_blocks.lower("a f")
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, not int"):
        xt_blocks.AutoregressiveWrapper(tokens_model()).generate(some_tokens(), 2, generator=3)
