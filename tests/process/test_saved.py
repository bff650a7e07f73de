"""Every public value can be written down and read back: pickled, copied, saved, and sent to a process of its own."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

import blockdsl
import xt_blocks
from blockdsl.errors import Fault, Span
from xt_blocks.generation.nonautoregressive import Losses
from xt_blocks.generation.sampling import Sampler
from xt_blocks.kernels.cross_entropy import Target
from xt_blocks.runtime import saved

from .models import CASES, DIM, POSITIONS, TOKENS, built, decoder, some_tokens, some_vectors, tokens_model


def of_error(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError


GRAPH = blockdsl.compile("(a f)*2 | a & f", dim=DIM, heads=2, causal=True, num_tokens=TOKENS, max_seq_len=9)


def caches() -> xt_blocks.Cache:
    model = tokens_model(decoder(cross_attend=True, shift_tokens=1, rotary_pos_emb=True)).eval()
    cache = model.new_cache(2)
    with torch.no_grad():
        model(some_tokens(), mask=some_tokens() != 1, context=some_vectors(2, 3), cache=cache)
    return cache


def memories() -> xt_blocks.Memories:
    model = tokens_model(decoder(shift_tokens=1), max_mem_len=5).eval()
    return model(some_tokens(), mask=some_tokens() > -1, return_mems=True)[1]


def intermediates() -> xt_blocks.Intermediates:
    with torch.no_grad():
        return tokens_model(max_mem_len=4)(some_tokens(), return_intermediates=True)[1]


# Public name → something of it. A name that is missing here fails.
VALUES: dict[str, Callable[[], Any]] = {
    "BlockGraph": lambda: GRAPH,
    "GraphDiff": lambda: GRAPH.diff(blockdsl.compile("a f", dim=8, heads=2)),
    "GraphError": lambda: of_error(lambda: blockdsl.BlockGraph.from_json("{}")),
    "Kind": lambda: blockdsl.kinds()["a"],
    "Cut": lambda: blockdsl.Cut(axis=1, parts=(4, 2)),
    "Measurement": lambda: blockdsl.Measurement("time", "ms", {"a0": 1.5, "f1": 2.0}),
    "Mesh": lambda: blockdsl.Mesh(pp=2, tp=2),
    "Option": lambda: blockdsl.kinds()["a"].options[0],
    "Split": lambda: blockdsl.Split({"heads": 2}, {"to_out.weight": blockdsl.Cut(axis=1)}, once=("to_out.bias",)),
    "Pattern": lambda: blockdsl.parse("set dim=8; x = a f; x*2 | a(heads=2)>>1 & f/2"),
    "PatternError": lambda: of_error(lambda: blockdsl.parse("a q")),
    "Sizes": lambda: blockdsl.Sizes(1, 2, 3),
    "State": lambda: blockdsl.State((2, 3), per="token", window=3),
    "UserError": lambda: of_error(lambda: blockdsl.compile("a", dim=0)),
    "Attention": lambda: xt_blocks.Attention(DIM, heads=2, num_mem_kv=1, talking_heads=True),
    "CrossAttention": lambda: xt_blocks.CrossAttention(DIM, heads=2),
    "FeedForward": lambda: xt_blocks.FeedForward(DIM, glu=True),
    "Experts": lambda: xt_blocks.Experts(DIM, experts=4, top=2, correction_rate=0.1),
    "LayerOutput": lambda: xt_blocks.LayerOutput(torch.ones(2), losses={"balance": torch.ones(())}),
    "Block": lambda: decoder().blocks["a0"],
    "Stack": lambda: xt_blocks.lower(blockdsl.compile("a f", dim=DIM, heads=2)),
    "AttentionLayers": lambda: xt_blocks.AttentionLayers(dim=DIM, depth=1, heads=2),
    "Encoder": lambda: xt_blocks.Encoder(dim=DIM, depth=1, heads=2),
    "Decoder": lambda: decoder(alibi_pos_bias=True, residual_attn=True),
    "CrossAttender": lambda: xt_blocks.CrossAttender(dim=DIM, depth=1, heads=2),
    "TransformerWrapper": tokens_model,
    "AutoregressiveWrapper": lambda: xt_blocks.AutoregressiveWrapper(tokens_model()),
    "XLAutoregressiveWrapper": lambda: xt_blocks.XLAutoregressiveWrapper(tokens_model(max_mem_len=2)),
    "NonAutoregressiveWrapper": lambda: xt_blocks.NonAutoregressiveWrapper(
        tokens_model(xt_blocks.Encoder(dim=DIM, depth=1, heads=2)), mask_id=1, schedule="cosine", self_cond=True
    ),
    "ContinuousTransformerWrapper": lambda: built("vectors"),
    "ContinuousAutoregressiveWrapper": lambda: xt_blocks.ContinuousAutoregressiveWrapper(built("vectors")),
    "XTransformer": lambda: built("seq2seq"),
    "ViTransformerWrapper": lambda: built("images"),
    "DualEncoder": lambda: xt_blocks.DualEncoder(
        xt_blocks.ViTransformerWrapper(
            image_size=4, patch_size=2, pool="mean", dim_out=3, attn_layers=xt_blocks.Encoder(dim=8, depth=1, heads=2)
        ),
        xt_blocks.TransformerWrapper(
            num_tokens=7,
            max_seq_len=9,
            pool="last",
            logits_dim=3,
            attn_layers=xt_blocks.Encoder(dim=8, depth=1, heads=2),
        ),
    ),
    "Cache": caches,
    "Memories": memories,
    "Intermediates": intermediates,
    "Target": lambda: Target(some_tokens()),
    # results of public functions
    "record": lambda: xt_blocks.record(tokens_model(), some_tokens()),
    "attention_map": lambda: xt_blocks.attention_map(tokens_model(), some_tokens(), "a0", 0),
    "why": lambda: xt_blocks.why(tokens_model(), some_tokens()),
    "pack": lambda: xt_blocks.pack(tokens_model()),
    "unpack": lambda: xt_blocks.unpack(xt_blocks.pack(tokens_model())),
    "with_loops": lambda: xt_blocks.with_loops(xt_blocks.lower(blockdsl.compile("a@x*2", dim=8, heads=2)), x=3),
    "EncoderDecoder": lambda: xt_blocks.lower(blockdsl.compile("a => a c", dim=8, heads=2)),
    "lower": lambda: xt_blocks.lower(GRAPH),
    "compile": lambda: blockdsl.compile("a", dim=8, heads=2),
    "parse": lambda: blockdsl.parse("a f"),
    "parse_settings": lambda: blockdsl.parse_settings("dim=8"),
    "from_megatron": lambda: blockdsl.from_megatron("M*-|E"),
    "format_text": lambda: blockdsl.format_text("a  f"),
    "kinds": blockdsl.kinds,
    # and values that they are made of
    "Fault": lambda: Fault(Span(1, 2), "a problem", "a hint"),
    "Sampler": lambda: Sampler(temperature=0.5, top_k=3),
    "Losses": lambda: Losses(torch.ones(2), None, None),
}
NOT_VALUES = {
    "importance",
    "profile",
    "recorded",
    "distribute",
    "register",
    "unregister",
    "to_hugging_face",
    "to_megatron",
    "auxiliary_losses",
    "hugging_face",
    "zoo",
    "from_pretrained",
    "from_hugging_face",
    "adapt",
    "mup",
    "parameter_groups",
    "parameters",
}
"""Functions that give back what they are given, its parameters, or nothing; modules; readers of folders, whose models
are above."""


def test_every_public_name_is_here() -> None:
    assert {*blockdsl.__all__, *xt_blocks.__all__} - NOT_VALUES <= {*VALUES}


def same(one: Any, other: Any) -> bool:
    """Whether two values say the same, tensors and modules by their numbers."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, nn.Module):
        return same(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, dict):
        return [*one] == [*other] and all(same(one[name], other[name]) for name in one)
    if isinstance(one, tuple | list) and not hasattr(one, "streams"):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, xt_blocks.Cache):
        return one.length == other.length and same(one.tensors(), other.tensors())
    if isinstance(one, xt_blocks.Memories | xt_blocks.Intermediates):
        return all(same(getattr(one, name), getattr(other, name)) for name in ("streams", "states"))
    if isinstance(one, BaseException):
        return str(one) == str(other) and vars(one) == vars(other)
    if isinstance(one, blockdsl.GraphDiff):
        return one.to_text() == other.to_text()
    return bool(one == other)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "old pickle": lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", VALUES)
def test_a_copy_says_the_same(name: str, way: str) -> None:
    value = VALUES[name]()
    assert same(WAYS[way](value), value)


@pytest.mark.parametrize("make", [caches, memories, intermediates, lambda: Target(some_tokens())])
def test_what_passes_leave_behind_loads_as_weights(make: Callable[[], Any]) -> None:
    value, file = make(), io.BytesIO()
    torch.save({"value": value}, file)
    file.seek(0)
    assert same(torch.load(file, weights_only=True)["value"], value)


def test_what_is_loaded_goes_on_as_it_was() -> None:
    for name, own in POSITIONS.items():
        model = tokens_model(decoder(shift_tokens=1, **own), max_mem_len=5, num_memory_tokens=1).eval()
        x = some_tokens(seq=9)
        with torch.no_grad():
            cache = model.new_cache(2)
            model(x[:, :5], mask=x[:, :5] > -1, cache=cache)
            _, mems = model(x[:, :5], return_mems=True)
            file = io.BytesIO()
            torch.save((cache, mems), file)
            file.seek(0)
            cache2, mems2 = torch.load(file, weights_only=True)
            assert torch.equal(model(x[:, 5:], cache=cache2), model(x[:, 5:], cache=cache)), name
            assert torch.equal(model(x[:, 5:], mems=mems2), model(x[:, 5:], mems=mems)), name


def test_only_plain_values_are_allowed() -> None:
    """A file under `weights_only` may make these and nothing else, and making them runs nothing."""
    for kind in saved.CLASSES:
        assert not hasattr(kind, "__setstate__") or kind.__setstate__ is getattr(object, "__setstate__", None)
        assert not issubclass(kind, nn.Module)


# A process of its own ----------------------------------------------------------------------------------------------


def in_another_process(payload: tuple[Any, ...]) -> tuple[Any, ...]:
    torch.set_num_threads(1)
    model, graph, pattern, kind = payload
    with torch.no_grad():
        return model(some_tokens()), graph.to_json(), str(pattern), kind.title


def test_models_graphs_and_kinds_are_sent_to_a_spawned_process() -> None:
    model = tokens_model().eval()
    payload = (model, GRAPH, blockdsl.parse("a f"), blockdsl.kinds()["f"])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.apply(in_another_process, (payload,))
    want = in_another_process(payload)
    assert all(map(same, got, want))


# torch.func ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_functional_call_is_the_call(name: str) -> None:
    model = built(name)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.zero_()
    inputs = {
        "images": lambda: (torch.ones(1, 3, 8, 8),),
        "vectors": lambda: (some_vectors(),),
        "seq2seq": lambda: (some_tokens(seq=5), some_tokens()),
        "segments": lambda: (some_tokens(seq=4),),
    }.get(name, lambda: (some_tokens(),))()
    weights = dict(model.named_parameters())
    assert torch.equal(functional_call(other, weights, inputs), model(*inputs))


@pytest.mark.parametrize("name", POSITIONS)
def test_an_ensemble_is_one_vmapped_call(name: str) -> None:
    models = [tokens_model(decoder(**POSITIONS[name])).eval() for _ in range(3)]
    weights, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")
    out = vmap(lambda w, b, x: functional_call(base, (w, b), (x,)), in_dims=(0, 0, None))(
        weights, buffers, some_tokens()
    )
    torch.testing.assert_close(out, torch.stack([model(some_tokens()) for model in models]), rtol=1e-4, atol=1e-5)


def test_gradients_of_a_functional_loss_are_those_of_backward() -> None:
    wrapper = xt_blocks.AutoregressiveWrapper(tokens_model()).eval()
    weights = {name: weight.detach() for name, weight in wrapper.named_parameters()}
    got = grad(lambda own: functional_call(wrapper, own, (some_tokens(),)))(weights)
    wrapper(some_tokens()).backward()
    for name, weight in wrapper.named_parameters():
        torch.testing.assert_close(got[name], weight.grad, rtol=1e-4, atol=1e-6)


def test_gradients_of_each_example() -> None:
    model = tokens_model().eval()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(own: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, own, (x[None],)).square().mean()

    each = vmap(grad(loss), in_dims=(None, 0))(weights, some_tokens())
    for i, row in enumerate(some_tokens()):
        for name, want in zip(
            weights, torch.autograd.grad(model(row[None]).square().mean(), [*model.parameters()]), strict=True
        ):
            torch.testing.assert_close(each[name][i], want, rtol=1e-3, atol=1e-5)


# Gradients through a cache ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(5, 4), (3, 3, 3), (6, 1, 1, 1)], ids=str)
@pytest.mark.parametrize(
    "own",
    [
        *POSITIONS.values(),
        {"shift_tokens": 2},
        {"attn_max_attend_past": 2},
        {"cross_attend": True},
        {"attn_num_mem_kv": 1},
    ],
    ids=str,
)
def test_steps_of_a_cache_have_the_gradients_of_one_pass(own: dict[str, Any], sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = tokens_model(decoder(**own)).double().eval()
    x, beside = some_tokens(seq=9), {}
    if own.get("cross_attend"):
        beside = {"context": some_vectors(2, 3).double().requires_grad_()}
    wanted = [*model.parameters(), *beside.values()]
    full = model(x, **beside)
    want = torch.autograd.grad(full.square().sum(), wanted)
    cache, parts = model.new_cache(2), []
    for i, part in enumerate(x.split(list(sizes), dim=1)):
        parts.append(model(part, cache=cache, **(beside if i == 0 else {})))
    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=1e-6, atol=1e-6)
    got = torch.autograd.grad(torch.cat(parts, dim=1).square().sum(), wanted)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_prompt_with_gradients_and_steps_without_keep_those_of_the_prompt() -> None:
    model = tokens_model().double().eval()
    x, cache = some_tokens(), model.new_cache(2)
    out = model(x[:, :4], cache=cache)
    with torch.no_grad():
        model(x[:, 4:], cache=cache)
    got = torch.autograd.grad(out.square().sum(), [*model.parameters()])
    want = torch.autograd.grad(model(x[:, :4]).square().sum(), [*model.parameters()])
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_cache_with_fixed_shapes_says_that_it_has_none() -> None:
    model = tokens_model().eval()
    x, cache = some_tokens(), model.new_cache(2)
    with torch.no_grad():
        model(x[:, :5], cache=cache)
    cache.fix_shapes()
    out = model(x[:, 5:6], cache=cache)
    with pytest.raises(RuntimeError, match=r"a cache with fixed shapes is written in place: for backward\(\)"):
        out.sum().backward()
