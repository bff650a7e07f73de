"""Packed weights give the numbers of plain ones, whatever is done to the weights in between."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import Tensor, nn

from xt_blocks import AutoregressiveWrapper, Decoder, FeedForward, TransformerWrapper, XTransformer, pack, unpack
from xt_blocks.blocks import packed
from xt_blocks.blocks.linear import MANY_PRODUCTS
from xt_blocks.kernels import cross_entropy, onednn

from .variants import SIZES, VARIANTS, inputs, language_model, stack, tokens

HAS_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def layer(rows: int = 53, features: int = 37, bias: bool = True) -> nn.Linear:
    return pack(nn.Linear(features, rows, bias))


def is_right(linear: nn.Linear, x: Tensor | None = None, tolerance: float = 1e-5) -> None:
    x = torch.randn(4, 5, 37) if x is None else x
    with torch.no_grad():
        exact = F.linear(x.double(), linear.weight.double(), None if linear.bias is None else linear.bias.double())
        out = linear(x)
    assert out.dtype == x.dtype
    torch.testing.assert_close(out.double(), exact, rtol=tolerance, atol=tolerance)


def is_packed(linear: nn.Linear) -> bool:
    made = linear._packed.made  # type: ignore[union-attr]
    return made is not None and made.copy is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_packed_stack_gives_the_same(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)
    with torch.no_grad():
        plain = model(x, **extra)
        torch.testing.assert_close(pack(model)(x, **extra), plain, rtol=1e-5, atol=5e-6)
        assert torch.equal(unpack(model)(x, **extra), plain)


@pytest.mark.skipif(not HAS_ONEDNN, reason="torch without oneDNN packs nothing")
def test_every_linear_map_is_packed_at_its_first_use() -> None:
    model = pack(stack("kv heads"))
    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(maps) == 18
    assert not any(map(is_packed, maps))
    x, extra = inputs(model)
    with torch.no_grad():
        model(x, **extra)
    assert all(map(is_packed, maps))


@pytest.mark.skipif(not HAS_ONEDNN, reason="torch without oneDNN packs nothing")
@pytest.mark.parametrize("faster", [True, False])
def test_one_row_is_left_to_mkl_where_that_is_faster(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "MKL_READS_FASTER", faster)
    linear = layer()
    is_right(linear, torch.randn(1, 1, 37))
    assert is_packed(linear) == (not faster)
    is_right(linear, torch.randn(1, 2, 37))
    assert is_packed(linear)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(37),
        torch.randn(3, 37),
        torch.randn(2, 3, 2, 37),
        torch.randn(37, 5, 4).permute(2, 1, 0),
        torch.randn(4, 5, 80)[..., 3:40],
        torch.randn(1, 1, 37).expand(4, 5, 37),
        torch.randn(0, 5, 37),
    ],
    ids=lambda x: f"{tuple(x.shape)}{'' if x.is_contiguous() else ' strided'}",
)
def test_whatever_the_shape_and_strides(x: Tensor, bias: bool) -> None:
    is_right(layer(bias=bias), x)


def in_place(linear: nn.Linear) -> None:
    with torch.no_grad():
        linear.weight.mul_(2)


def in_inference_mode(linear: nn.Linear) -> None:
    with torch.inference_mode():
        linear.weight.mul_(2)


def a_step(**options: bool) -> Callable[[nn.Linear], None]:
    def change(linear: nn.Linear) -> None:
        optimizer = torch.optim.AdamW(linear.parameters(), lr=0.5, **options)  # type: ignore[arg-type]
        linear.weight.grad = torch.randn_like(linear.weight)  # no pass with gradients tells of the step
        optimizer.step()

    return change


def by_hand(linear: nn.Linear) -> None:
    """Past what torch counts, but behind a pass with gradients."""
    linear(torch.randn(3, 37)).sum().backward()
    assert linear.weight.grad is not None
    linear.weight.data -= linear.weight.grad


def there_and_back(linear: nn.Linear) -> None:
    """The rounded weight may come to lie where the exact one was."""
    for _ in range(5):
        linear.bfloat16().float()


def of_another_type(linear: nn.Linear) -> None:
    is_right(linear.bfloat16(), torch.randn(4, 37).bfloat16(), 3e-2)
    linear.float()


CHANGES: dict[str, Callable[[nn.Linear], object]] = {
    "in place": in_place,
    "in inference mode": in_inference_mode,
    "an optimiser": a_step(),
    "an optimiser over lists": a_step(foreach=True),
    "a fused optimiser": a_step(fused=True),
    "training by hand": by_hand,
    "load_state_dict": lambda linear: linear.load_state_dict(nn.Linear(37, 53).state_dict()),
    "load_state_dict, assigned": lambda linear: linear.load_state_dict(nn.Linear(37, 53).state_dict(), assign=True),
    "a new parameter": lambda linear: setattr(linear, "weight", nn.Parameter(torch.randn(53, 37))),
    "new data": lambda linear: setattr(linear.weight, "data", torch.randn(53, 37)),
    "to and back": there_and_back,
    "another type": of_another_type,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_numbers_of_a_weight_that_has_changed(change: Callable[[nn.Linear], object]) -> None:
    linear = layer()
    for _ in range(3):
        is_right(linear)
        change(linear)
        is_right(linear)
        assert is_packed(linear) or not HAS_ONEDNN


def test_weights_of_inference_mode_are_not_packed_since_their_changes_are_not_counted() -> None:
    with torch.inference_mode():
        linear, x = layer(), torch.randn(4, 37)
        linear(x)
        linear.weight.mul_(2)
        torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [(), ("x",), ("weight",), ("bias",)])
@pytest.mark.parametrize("shape", [(3, 37), (2, 3, 37), (2, 3, 2, 37), (1, 37)])
def test_gradients_are_those_of_the_product(bias: bool, frozen: tuple[str, ...], shape: tuple[int, ...]) -> None:
    linear, x = layer(bias=bias), torch.randn(*shape)
    read = {"x": x, "weight": linear.weight} | ({"bias": linear.bias} if bias else {})
    for name, tensor in read.items():
        tensor.requires_grad_(name not in frozen)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in read.items()}
    out, expected = linear(x), F.linear(*exact.values())
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(53).expand_as(out)  # without memory of its own
    out.backward(grad)
    expected.backward(grad.double())
    for name, tensor in read.items():
        if name in frozen:
            assert tensor.grad is None
        else:
            torch.testing.assert_close(tensor.grad.double(), exact[name].grad, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not HAS_ONEDNN, reason="torch without oneDNN trains the plain way")
def test_training_runs_on_onednn_and_its_gradients_can_be_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    run = onednn.RUN
    monkeypatch.setattr(onednn, "RUN", lambda *args: used.append(1) or run(*args))  # type: ignore[func-returns-value]
    monkeypatch.setattr(onednn, "BEATS_MKL", True)
    linear = layer()
    rows = -(-MANY_PRODUCTS // linear.weight.numel())  # the fewest whose training pays
    x = torch.randn(rows, 37, requires_grad=True)
    linear(x).square().mean().backward()
    assert len(used) == 5  # the layer and the gradient of its input in two pieces each, and that of its weight
    assert not is_packed(linear)
    linear(x[1:]).square().mean().backward()
    assert len(used) == 5  # of one row less, none
    for map_of in (linear, lambda x: onednn.linear(x, linear.weight, linear.bias)):
        y = torch.randn(4, 37, requires_grad=True)
        exact, z = copy.deepcopy(linear).double(), y.detach().double().requires_grad_()
        (first,) = torch.autograd.grad(map_of(y).square().sum(), y, create_graph=True)
        (expected,) = torch.autograd.grad(exact(z).square().sum(), z, create_graph=True)
        torch.testing.assert_close(first.double(), expected, rtol=1e-4, atol=1e-4)
        (second,) = torch.autograd.grad(first.square().sum(), y)
        (expected,) = torch.autograd.grad(expected.square().sum(), z)
        torch.testing.assert_close(second.double(), expected, rtol=1e-4, atol=1e-4)
    assert len(used) == 7  # the layer itself, and the last gradient of its input: what is differentiated again is plain


@pytest.mark.parametrize("name", VARIANTS)
def test_a_packed_stack_trains_the_same(name: str) -> None:
    model = stack(name)
    x, extra = inputs(model)

    def gradients() -> list[Tensor | None]:
        torch.manual_seed(0)
        model.zero_grad()
        model(x, **extra).square().mean().backward()
        return [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]

    plain = gradients()
    pack(model)
    for own, expected in zip(gradients(), plain, strict=True):
        assert (own is None) == (expected is None)
        if own is not None:
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_a_packed_head_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    net = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=stack("plain"))
    model, x = AutoregressiveWrapper(net), torch.randint(0, 17, (2, 9))
    plain = model(x)
    monkeypatch.setattr(cross_entropy, "FEWEST", 1)
    pack(net)
    made: list[int] = []
    by_parts = cross_entropy._by_parts
    monkeypatch.setattr(cross_entropy, "_by_parts", lambda *args: made.append(1) or by_parts(*args))  # type: ignore[func-returns-value]
    torch.testing.assert_close(model(x), plain)
    assert made


@pytest.mark.skipif(not HAS_ONEDNN, reason="torch without oneDNN packs nothing")
@pytest.mark.parametrize(
    ("options", "passes"),
    [({}, [("gelu", [], "none"), ("none", [], "")]), ({"swish": True}, [("swish", [], ""), ("none", [], "")])],
)
def test_a_packed_map_and_its_activation_are_one_pass(
    options: dict[str, Any], passes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = FeedForward(dim=24, **options), torch.randn(2, 5, 24)
    exact = copy.deepcopy(layer).double()(x.double())
    pack(layer)
    ran: list[Any] = []
    run = onednn.RUN
    monkeypatch.setattr(onednn, "RUN", lambda *args: ran.append(args[3:]) or run(*args))  # type: ignore[func-returns-value]
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), exact, rtol=1e-5, atol=1e-6)
    assert ran == passes


@pytest.mark.parametrize("pre", [False, True])
def test_a_hook_on_a_packed_map_sees_what_the_map_gives(pre: bool) -> None:
    layer, x, seen = pack(FeedForward(dim=24)), torch.randn(2, 5, 24), []
    with torch.no_grad():
        expected = layer(x)
        if pre:
            layer.to_hidden.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        else:
            layer.to_hidden.register_forward_hook(lambda module, args, out: seen.append(out))
        torch.testing.assert_close(layer(x), expected)
    plain = x if pre else F.linear(x, layer.to_hidden.weight, layer.to_hidden.bias)
    torch.testing.assert_close(seen, [plain])


def test_a_packed_map_with_a_forward_of_its_own_runs_it() -> None:
    layer, x = pack(FeedForward(dim=24)), torch.randn(2, 5, 24)
    with torch.no_grad():
        layer(x)
        forward = layer.to_hidden.forward
        layer.to_hidden.forward = lambda x: 0 * forward(x)  # type: ignore[method-assign]
        torch.testing.assert_close(layer(x), layer.to_out.bias.expand(2, 5, -1))


def test_forward_gradients_take_the_plain_way() -> None:
    linear, x = layer(), torch.randn(4, 37)
    is_right(linear)
    with torch.no_grad():
        _, tangent = torch.func.jvp(linear, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, linear.weight.detach().sum(1).expand(4, -1), rtol=1e-4, atol=1e-5)


def test_transforms_take_the_plain_way() -> None:
    linear, x = layer(), torch.randn(3, 4, 37)
    is_right(linear)
    with torch.no_grad():
        assert torch.equal(torch.vmap(linear)(x), torch.vmap(copy.deepcopy(unpack(linear)))(x))


def test_autocast_and_other_types_take_the_plain_way() -> None:
    linear = layer()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(4, 37)).dtype == torch.bfloat16
    is_right(linear.double(), torch.randn(4, 37, dtype=torch.float64), 1e-12)


def test_weights_that_stand_in_for_a_moment_are_used() -> None:
    linear, x = layer(), torch.randn(4, 37)
    is_right(linear)
    other = {"weight": torch.randn(53, 37), "bias": torch.randn(53)}
    with torch.no_grad():
        out = torch.func.functional_call(linear, other, (x,))
    torch.testing.assert_close(out, F.linear(x, **other))
    is_right(linear)


def test_the_model_is_what_it_was_but_for_its_speed() -> None:
    model = language_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    owned = [*model.parameters()]
    x = tokens()
    with torch.no_grad():
        plain = model(x)
        assert pack(model) is model
        assert pack(model)(x).shape == plain.shape  # twice is once
    assert all(one is other for one, other in zip(owned, model.parameters(), strict=True))
    assert [*before] == [*model.state_dict()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert unpack(model) is model
    assert {type(module).__name__ for module in model.modules()} >= {"Linear", "Embedding"}
    assert not any("acked" in type(module).__name__ + str(vars(module)) for module in model.modules())
    assert torch.equal(unpack(model)(x), plain)


def test_another_thread_never_runs_on_what_was_packed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, x, seen = pack(nn.Linear(8, 8, bias=False)), torch.randn(2, 8), []

    def packed_while_another_runs(weight: Tensor) -> Tensor | None:
        monkeypatch.undo()
        seen.append(linear(x))
        return packed._packed(weight)

    with torch.no_grad():
        linear(x)
        linear.weight.add_(1)
        monkeypatch.setattr(packed, "_packed", packed_while_another_runs)
        torch.testing.assert_close(linear(x), x @ linear.weight.T)
        torch.testing.assert_close(seen, [x @ linear.weight.T])


def test_copies_are_packed_and_apart() -> None:
    model, x = pack(language_model()), tokens()
    file = io.BytesIO()
    with torch.no_grad():
        out = model(x)
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
            assert torch.equal(other(x), out)
            for parameter in other.parameters():
                parameter.mul_(1.5)
            assert not torch.allclose(other(x), out)
            assert torch.equal(model(x), out)
            own = unpack(copy.deepcopy(other))
            torch.testing.assert_close(other(x), own(x), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("options", [{}, {"logits_bias": True, "logits_scale": 1.0}])
def test_a_tied_embedding_gives_packed_logits_and_stays_tied(options: dict[str, Any]) -> None:
    decoder = Decoder(pattern="(a@x f@y)*2", **SIZES)
    model = TransformerWrapper(num_tokens=17, max_seq_len=16, attn_layers=decoder, tie_embedding=True, **options).eval()
    if model.logits_bias is not None:
        torch.nn.init.normal_(model.logits_bias)
    x = tokens()
    with torch.no_grad():
        plain = model(x)
        torch.testing.assert_close(pack(model)(x), plain, rtol=1e-5, atol=5e-6)
        model.token_emb.weight.mul_(2)
        torch.testing.assert_close(model(x), copy.deepcopy(unpack(model))(x), rtol=1e-5, atol=2e-5)


def test_an_encoder_decoder_with_one_embedding() -> None:
    sizes = {f"{side}_{name}": 9 for side in ("enc", "dec") for name in ("num_tokens", "max_seq_len")}
    model = XTransformer(dim=12, tie_token_emb=True, enc_depth=1, dec_depth=1, enc_heads=2, dec_heads=2, **sizes).eval()
    source, start = torch.randint(0, 9, (2, 6)), torch.randint(0, 9, (2, 1))
    plain = model.generate(source, start, 6, temperature=0.0)
    assert torch.equal(pack(model).generate(source, start, 6, temperature=0.0), plain)
    assert model.encoder.token_emb is model.decoder.net.token_emb


@pytest.mark.parametrize("name", ["plain", "cross, rotary", "value heads", "window, memory kv"])
def test_a_packed_bfloat16_model(name: str) -> None:
    model = stack(name).bfloat16()
    x, extra = inputs(model)
    x, extra = x.bfloat16(), {key: value.bfloat16() for key, value in extra.items()}
    with torch.no_grad():
        plain = model(x, **extra)
        out = pack(model)(x, **extra)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_model_generates(dtype: torch.dtype) -> None:
    model = AutoregressiveWrapper(language_model(rotary_pos_emb=True).to(dtype))
    prompts = [torch.randint(0, 17, (n,)) for n in (5, 2, 3)]
    plain = model.generate(prompts, 9, temperature=0.0)
    packed = pack(model).generate(prompts, 9, temperature=0.0)
    assert packed.shape == plain.shape
    if dtype == torch.float32:
        assert torch.equal(packed, plain)


def test_a_packed_model_compiles_whole_and_sees_changes_without_compiling_again() -> None:
    model, x = pack(language_model()), tokens()
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(x), model(x))
            for parameter in model.parameters():
                parameter.mul_(1.1)
    assert counter.frame_count == 1
    torch.testing.assert_close(compiled(x), model(x))  # with gradients


def test_a_packed_model_exports_as_a_plain_one() -> None:
    model, x = pack(stack("plain")), torch.randn(2, 7, SIZES["dim"])
    with torch.no_grad():
        exported = torch.export.export(model, (x,), strict=False)
        assert not any("packed" in str(node.target) for node in exported.graph.nodes)
        torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-5, atol=5e-6)


def test_an_old_torch_or_another_machine_packs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xt_blocks.kernels.compat.reorder_linear_weight", None)
    linear = layer()
    is_right(linear)
    assert not is_packed(linear)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"pack\(\) takes a model, a torch module, not dict"):
        pack({})  # type: ignore[type-var]
