"""The linear map gives the numbers of F.linear by whichever kernel, and runs by oneDNN exactly where it should."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import xt_blocks
from xt_blocks import pack, unpack
from xt_blocks.blocks.linear import LARGE, MANY_PRODUCTS, apply, linear
from xt_blocks.kernels import onednn

pytestmark = pytest.mark.skipif(not onednn.HAS_ONEDNN, reason="torch without oneDNN takes the plain way always")

FEATURES, OUT = 512, 512
assert FEATURES * OUT == LARGE
ROWS = onednn.FEW // 2 + 1
assert ROWS > MANY_PRODUCTS // LARGE
"""The fewest whose training pays."""


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What oneDNN's kernel is given, of plain and of packed weights, on any processor."""
    seen: list[Tensor] = []
    kernel = onednn.RUN
    monkeypatch.setattr(onednn, "RUN", lambda x, *rest: (seen.append(x), kernel(x, *rest))[1])
    monkeypatch.setattr(onednn, "BEATS_MKL", True)
    return seen


def a_map(features: int = FEATURES, out: int = OUT, bias: bool = True) -> nn.Linear:
    return nn.Linear(features, out, bias)


class Around(nn.Module):
    """A module that runs a linear layer as blocks do."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return apply(self.layer, x)


def a_twin(module: nn.Linear) -> nn.Linear:
    """An nn.Linear of the same numbers."""
    twin = nn.Linear(module.in_features, module.out_features, module.bias is not None, dtype=module.weight.dtype)
    twin.load_state_dict(module.state_dict())
    return twin


def close(own: Any, exact: Any, tolerance: float = 1e-5) -> None:
    """Equal to float64 but for rounding in float32, measured by the largest number."""
    assert own is not None
    assert exact is not None
    scale = max(1.0, exact.detach().abs().max().item()) if exact.numel() else 1.0
    torch.testing.assert_close(own.double(), exact.double(), rtol=tolerance, atol=tolerance * scale)


X: dict[str, Callable[[], Tensor]] = {
    "2-d": lambda: torch.randn(ROWS, FEATURES),
    "3-d": lambda: torch.randn(3, ROWS, FEATURES),
    "4-d": lambda: torch.randn(2, 3, ROWS, FEATURES),
    "permuted": lambda: torch.randn(FEATURES, 5, ROWS).permute(2, 1, 0),
    "sliced": lambda: torch.randn(3, ROWS, FEATURES + 9)[..., 4:-5],
    "every other": lambda: torch.randn(ROWS, 2 * FEATURES)[:, ::2],
    "expanded": lambda: torch.randn(1, 1, FEATURES).expand(2, ROWS, FEATURES),
    "overlapping": lambda: torch.randn(FEATURES + 3 * ROWS).unfold(0, FEATURES, 3),
    "out of line": lambda: torch.randn(ROWS * FEATURES + 1)[1:].view(ROWS, FEATURES),
    "negated by a bit": lambda: torch._neg_view(torch.randn(ROWS, FEATURES)),
}
WEIGHTS: dict[str, Callable[[], Tensor]] = {
    "transposed": lambda: torch.randn(FEATURES, OUT).T,
    "sliced": lambda: torch.randn(OUT + 9, FEATURES + 9)[3:-6, 4:-5],
    "every other": lambda: torch.randn(OUT, 2 * FEATURES)[:, ::2],
    "expanded": lambda: torch.randn(1, FEATURES).expand(OUT, FEATURES),
    "negated by a bit": lambda: torch._neg_view(torch.randn(OUT, FEATURES)),
}


def compares(module: nn.Linear, x: Tensor) -> None:
    """Values and gradients, first and second, with float64."""
    exact, z = a_twin(module).double(), x.detach().double().requires_grad_(x.requires_grad)
    for parameter, own in zip(exact.parameters(), module.parameters(), strict=True):
        parameter.requires_grad_(own.requires_grad)
    out, expected = apply(module, x), exact(z)
    assert out.dtype == torch.float32
    close(out, expected)
    with torch.no_grad():
        close(apply(module, x), expected)
    if not out.requires_grad:
        return
    inputs = [t for t in (x, *module.parameters()) if t.requires_grad]
    exact_inputs = [t for t in (z, *exact.parameters()) if t.requires_grad]
    grad = torch.randn_like(out)
    own = torch.autograd.grad(out, inputs, grad, retain_graph=True)
    wanted = torch.autograd.grad(expected, exact_inputs, grad.double(), retain_graph=True)
    for one, other in zip(own, wanted, strict=True):
        close(one, other)
    again = torch.autograd.grad(apply(module, x).square().sum(), inputs, create_graph=True)
    wanted = torch.autograd.grad(exact(z).square().sum(), exact_inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in again), inputs)
    wanted = torch.autograd.grad(sum(g.square().sum() for g in wanted), exact_inputs)
    for one, other in zip(second, wanted, strict=True):
        close(one, other, 1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", X)
def test_values_and_gradients_whatever_the_shape_and_strides(name: str, bias: bool, ran: list[Tensor]) -> None:
    compares(a_map(bias=bias), X[name]().requires_grad_())
    assert ran


@pytest.mark.parametrize("wanted", [("x",), ("weight",), ("bias",), ("x", "bias"), ("weight", "bias"), ()])
def test_gradients_of_what_asks_for_them(wanted: tuple[str, ...], ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(onednn.MANY, FEATURES, requires_grad="x" in wanted)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in wanted)
    out = apply(module, x)
    assert out.requires_grad == bool(wanted)
    ran.clear()
    if wanted:
        out.sum().backward()
    assert len(ran) == len({"x", "weight"} & {*wanted})  # no product is made for nothing
    assert {name for name, p in module.named_parameters() if p.grad is not None} == {*wanted} - {"x"}
    compares(module, x)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_any_strides(name: str, ran: list[Tensor]) -> None:
    module = a_map()
    module.weight = nn.Parameter(WEIGHTS[name]())
    compares(module, torch.randn(ROWS, FEATURES, requires_grad=True))
    assert ran


def test_a_parameter_as_input(ran: list[Tensor]) -> None:
    compares(a_map(), nn.Parameter(torch.randn(ROWS, FEATURES)))
    assert ran


@pytest.mark.parametrize(
    ("rows", "features", "out", "with_gradients", "without"),
    [
        (ROWS, FEATURES, OUT, True, True),
        (ROWS - 1, FEATURES, OUT, False, True),  # training, one row less
        (1, FEATURES, OUT, False, True),
        (1, FEATURES - 1, OUT, False, False),
        (MANY_PRODUCTS // 64, 8, 8, True, True),  # a small weight of many rows
        (MANY_PRODUCTS // 64 - 1, 8, 8, False, False),
    ],
)
def test_it_runs_on_onednn_where_that_pays(
    rows: int, features: int, out: int, with_gradients: bool, without: bool, ran: list[Tensor]
) -> None:
    module, x = a_map(features, out), torch.randn(rows, features)
    y = apply(module, x)
    assert bool(ran) == with_gradients
    y.sum().backward()
    of_weight = with_gradients and rows >= onednn.MANY
    assert len(ran) == with_gradients + of_weight  # the layer, and the gradient of its weight
    ran.clear()
    with torch.no_grad():
        apply(module, x)
    assert bool(ran) == without
    ran.clear()
    with torch.inference_mode():
        apply(module, x)
    assert bool(ran) == without


def test_another_processor_takes_the_plain_way(ran: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", False)
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    assert torch.equal(apply(module, x), F.linear(x, module.weight, module.bias))
    with torch.no_grad():
        apply(module, x)
    assert not ran


# The plain way -----------------------------------------------------------------------------------------------------


class Doubled(Tensor):
    """Whose linear maps are doubled."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs or {})
        return out * 2 if func is F.linear else out


def _disabled(module: nn.Linear, x: Tensor) -> Tensor:
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        return apply(module, x)


def _autocast(module: nn.Linear, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return apply(module, x)


def _exported(strict: bool) -> Callable[[nn.Linear, Tensor], Tensor]:
    def run(module: nn.Linear, x: Tensor) -> Tensor:
        rows = torch.export.Dim("rows", min=1, max=2**20)
        return torch.export.export(Around(module), (x,), dynamic_shapes=({0: rows},), strict=strict).module()(x)

    return run


def _counted(module: nn.Linear, x: Tensor) -> Tensor:
    with FlopCounterMode(display=False) as own:
        out = apply(module, x)
    with FlopCounterMode(display=False) as plain:
        nn.Linear.forward(module, x)
    assert own.get_total_flops() == plain.get_total_flops() == 2 * x.shape[0] * module.weight.numel()
    return out


def _by_mode(module: nn.Linear, x: Tensor) -> Tensor:
    class Mode(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen += func is F.linear
            return func(*args, **(kwargs or {}))

    with Mode() as mode:
        out = apply(module, x)
    assert mode.seen == 1
    return out


def _dual(module: nn.Linear, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(apply(module, forward_ad.make_dual(x, torch.ones_like(x))))
        close(out.tangent, module.weight.detach().double().sum(1).expand(out.primal.shape))
        return out.primal


def _jvp(module: nn.Linear, x: Tensor) -> Tensor:
    out, tangent = torch.func.jvp(partial(apply, module), (x,), (torch.ones_like(x),))
    close(tangent, module.weight.detach().double().sum(1).expand(out.shape))
    return out


def _grad(module: nn.Linear, x: Tensor) -> Tensor:
    def loss(y: Tensor) -> tuple[Tensor, Tensor]:
        out = apply(module, y)
        return out.sum(), out

    grad, out = torch.func.grad(loss, has_aux=True)(x)
    close(grad, module.weight.detach().double().sum(0).expand(x.shape))
    return out


def _traced(module: nn.Linear, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)  # the trace is of any length
        return torch.jit.trace(Around(module), x, check_trace=False)(x)  # type: ignore[no-any-return]


def _symbolic(module: nn.Linear, x: Tensor) -> Tensor:
    return torch.fx.symbolic_trace(Around(module))(x)  # type: ignore[no-any-return]


def _replaced(module: nn.Linear, x: Tensor) -> Tensor:
    around = Around(module)
    return torch.func.functional_call(around, {name: p.detach().clone() for name, p in around.named_parameters()}, (x,))


PLAIN: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "oneDNN off": _disabled,
    "autocast": _autocast,
    "export": _exported(strict=False),
    "export, strict": _exported(strict=True),
    "trace": _traced,
    "symbolic trace": _symbolic,
    "vmap": lambda module, x: torch.vmap(partial(apply, module))(x[:, None].expand(-1, 2, -1))[:, 0],
    "grad": _grad,
    "jvp": _jvp,
    "forward mode": _dual,
    "counter of FLOPs": _counted,
    "mode of functions": _by_mode,
    "weights that stand in": _replaced,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("way", "grad"), [(way, grad) for way in PLAIN for grad in (True, False) if way != "grad" or grad]
)
def test_what_watches_or_changes_operations_finds_the_plain_one(way: str, grad: bool, ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    with torch.set_grad_enabled(grad):
        out = PLAIN[way](module, x)
    assert not ran
    tolerance = 2e-2 if way == "autocast" else 1e-5
    assert out.dtype == (torch.bfloat16 if way == "autocast" else torch.float32)
    close(out, a_twin(module).double()(x.double()), tolerance)
    apply(module, x)
    assert ran  # behind it


@pytest.mark.parametrize("bias", [True, False])
def test_a_compiled_graph_runs_on_onednn_too_whatever_the_length(bias: bool, ran: list[Tensor]) -> None:
    module = a_map(bias=bias)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(Around(module), backend=counter, fullgraph=True, dynamic=True)
    exporting = torch.compile(lambda x: x + torch.compiler.is_exporting(), backend="eager")
    tells_export = exporting(torch.zeros(())) == 0  # torch 2.7 takes each graph for one that is exported
    for rows in (ROWS, 3 * ROWS + 1, 5 * ROWS):
        x = torch.randn(2, rows, FEATURES, requires_grad=True)
        exact, z = a_twin(module).double(), x.detach().double().requires_grad_()
        ran.clear()
        grads = torch.autograd.grad(compiled(x).square().sum(), (x, *module.parameters()))
        wanted = torch.autograd.grad(exact(z).square().sum(), (z, *exact.parameters()))
        assert len(ran) >= (3 if tells_export else 0)  # the layer, and the gradients of its input and its weight
        for own, other in zip(grads, wanted, strict=True):
            close(own, other)
    assert counter.frame_count == 1
    with torch.no_grad():
        ran.clear()
        close(compiled(x), exact(z))
        assert ran or not tells_export
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        ran.clear()
        close(compiled(x), exact(z))
        assert not ran
    small = torch.compile(Around(a_map(8, 8)), backend="aot_eager", fullgraph=True)
    small(torch.randn(ROWS, 8))
    assert not ran
    torch._dynamo.reset()


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 17, 40, 64, 65, 256, 300, 512, 600, 1000, 1024])
def test_any_number_of_rows_in_few_pieces(rows: int) -> None:
    sizes = onednn.pieces(rows)
    assert {*sizes} <= {1, 2, 4, 8, 16, 32, 64, 256, 512, 1024}
    assert sizes == sorted(sizes, reverse=True)
    assert rows <= sum(sizes) < rows + 64
    left, right = torch.randn(rows, 40), torch.randn(rows, 24)
    close(onednn.outer(left, right), left.double().T @ right.double())
    weight, bias = torch.randn(48, 40), torch.randn(48)
    exact = F.linear(left.double(), weight.double(), bias.double())
    close(onednn.run(left, weight, bias), exact)
    close(onednn.run(left, weight, bias, onednn.ACTIVATIONS["silu"]), F.silu(exact))


@pytest.mark.parametrize("packed", [False, True])
def test_shapes_given_to_onednn_are_few_for_any_number_of_lengths(packed: bool, ran: list[Tensor]) -> None:
    module, most = a_map(), 600
    if packed:
        pack(module)
    for rows in range(1, most, 7):
        x = torch.randn(rows, FEATURES, requires_grad=True)
        with torch.no_grad():
            apply(module, x)
        apply(module, x).sum().backward()
    by_layer = {len(x) for x in ran if x.shape[1] == FEATURES and len(x) != OUT} | {OUT}
    assert by_layer <= {1, 2, 4, 8, 16, 32, 64, 256, 512}
    assert {x.shape for x in ran if x.shape[1] != FEATURES} == {(OUT, 256)}  # of its weight's gradient
    assert len(ran) > most // 7


def test_fake_tensors(ran: list[Tensor]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert a_map()(torch.randn(ROWS, FEATURES)).shape == (ROWS, OUT)
    with torch.device("meta"), torch.no_grad():
        out = a_map()(torch.randn(ROWS, FEATURES))
        assert out.is_meta
        assert out.shape == (ROWS, OUT)
    assert not ran


def test_another_kind_of_tensor_goes_its_own_way(ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    with torch.no_grad():
        out = apply(module, x.as_subclass(Doubled))
        assert type(out) is Doubled
        assert not ran
        close(out.as_subclass(Tensor), 2 * a_twin(module).double()(x.double()))


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_parametrized(name: str, ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    exact = nn.utils.parametrize.register_parametrization(a_twin(module).double(), name, Twice())
    nn.utils.parametrize.register_parametrization(module, name, Twice())
    out, expected = apply(module, x), exact(x.double())
    close(out, expected)
    assert not ran
    out.square().sum().backward()
    expected.square().sum().backward()
    for own, parameter in zip(module.parameters(), exact.parameters(), strict=True):
        close(own.grad, parameter.grad)


def test_weight_norm() -> None:
    module, x = nn.utils.parametrizations.weight_norm(a_map()), torch.randn(ROWS, FEATURES)
    close(apply(module, x), F.linear(x.double(), module.weight.double(), module.bias.double()))


def test_gradients_through_weights_that_stand_in() -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    given = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    exact = {name: value.detach().double().requires_grad_() for name, value in given.items()}
    torch.func.functional_call(
        Around(module), {f"layer.{name}": p for name, p in given.items()}, (x,)
    ).square().sum().backward()
    F.linear(x.double(), **exact).square().sum().backward()
    for name in given:
        close(given[name].grad, exact[name].grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(dtype: torch.dtype, ran: list[Tensor]) -> None:
    module, x = a_map().to(dtype), torch.randn(ROWS, FEATURES).to(dtype)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.equal(apply(module, x), F.linear(x, module.weight, module.bias))
    assert not ran


@pytest.mark.parametrize("shape", [(0, FEATURES), (2, 0, FEATURES), (FEATURES,)])
def test_empty_and_single(shape: tuple[int, ...], ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(shape, requires_grad=True)
    out = apply(module, x)
    assert torch.equal(out, F.linear(x, module.weight, module.bias))
    out.sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.shape == module.weight.shape
    with torch.no_grad():
        assert torch.equal(apply(module, x), out)
    assert not ran


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(("features", "out"), [(0, 4), (4, 0)])
def test_no_features(features: int, out: int) -> None:
    module, x = a_map(features, out), torch.randn(MANY_PRODUCTS // 4, features)
    assert torch.equal(apply(module, x), F.linear(x, module.weight, module.bias))


# What the kernel would take in another sense than torch, or die of -------------------------------------------------

OUTSIDE: dict[str, Callable[[], tuple[Tensor, Tensor, Tensor | None]]] = {
    "a strided bias": lambda: (_x(), _weight(), torch.randn(OUT, 2)[:, 0]),
    "an expanded bias": lambda: (_x(), _weight(), torch.randn(1).expand(OUT)),
    "a bias for all": lambda: (_x(), _weight(), torch.randn(1)),
    "a bias of no dimension": lambda: (_x(), _weight(), torch.randn(())),
    "a bias for each row": lambda: (_x(), _weight(), torch.randn(ROWS, OUT)),
    "a bias of another size": lambda: (_x(), _weight(), torch.randn(OUT + 1)),
    "a bias of another type": lambda: (_x(), _weight(), torch.randn(OUT).double()),
    "a bias elsewhere": lambda: (_x(), _weight(), torch.randn(OUT, device="meta")),
    "other features": lambda: (torch.randn(ROWS, FEATURES + 1), _weight(), None),
    "twice the features": lambda: (torch.randn(ROWS, 2 * FEATURES), _weight(), None),
    "a weight of another type": lambda: (_x(), nn.Parameter(_weight().detach().bfloat16()), None),
    "a weight that is a row": lambda: (torch.randn(4, MANY_PRODUCTS), nn.Parameter(torch.randn(MANY_PRODUCTS)), None),
    "a weight of three dimensions": lambda: (_x(), nn.Parameter(torch.randn(2, OUT, FEATURES)), None),
    "a sparse weight": lambda: (_x(), nn.Parameter(_weight().detach().to_sparse()), None),
    "a nested input": lambda: (torch.nested.nested_tensor([_x(), _x()[1:]]), _weight(), torch.randn(OUT)),
}


def _x() -> Tensor:
    return torch.randn(ROWS, FEATURES)


def _weight() -> nn.Parameter:
    return nn.Parameter(torch.randn(OUT, FEATURES))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_torch_refuses_or_understands_otherwise_is_left_to_it(
    name: str, grad: bool, packed: bool, ran: list[Tensor]
) -> None:
    x, weight, bias = OUTSIDE[name]()
    module = pack(a_map()) if packed else a_map()
    module.weight, module.bias = weight, None if bias is None else nn.Parameter(bias)  # type: ignore[assignment]
    with torch.set_grad_enabled(grad):
        try:
            expected: Tensor | str = F.linear(x, module.weight, module.bias)
        except RuntimeError as error:
            expected = str(error)
        if isinstance(expected, str):
            with pytest.raises(RuntimeError) as raised:
                apply(module, x)
            assert str(raised.value) == expected
        else:
            out = apply(module, x)
            pairs = zip(out.unbind(), expected.unbind(), strict=True)
            assert all(torch.equal(*pair) for pair in pairs)
    assert not ran


def test_weights_of_inference_mode() -> None:
    with torch.inference_mode():
        module, x = a_map(), torch.randn(ROWS, FEATURES)
        close(apply(module, x), a_twin(module).double()(x.double()))
    with torch.no_grad():
        close(apply(module, x.clone()), a_twin(module).double()(x.double()))
    x = torch.randn(ROWS, FEATURES, requires_grad=True)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        apply(module, x)


# Training ----------------------------------------------------------------------------------------------------------


def test_the_flops_of_a_backward_pass_are_counted(ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES, requires_grad=True)
    out = apply(module, x).sum()
    ran.clear()
    with FlopCounterMode(display=False) as counter:
        out.backward()
    assert counter.get_total_flops() == 2 * 2 * ROWS * LARGE
    assert not ran


def test_forward_derivatives_of_a_backward_pass() -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES, requires_grad=True)
    out = apply(module, x).square().sum()
    with forward_ad.dual_level():
        scale = forward_ad.make_dual(torch.tensor(1.0), torch.tensor(2.0))
        for grad in torch.autograd.grad(out, (x, *module.parameters()), scale):
            own = forward_ad.unpack_dual(grad)
            close(own.tangent, 2 * own.primal)


def test_many_gradients_at_once() -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES, requires_grad=True)
    out, grads = apply(module, x), torch.randn(3, ROWS, OUT)
    inputs = (x, *module.parameters())
    batched = torch.autograd.grad(out, inputs, grads, is_grads_batched=True, retain_graph=True)
    for i in range(3):
        for own, one in zip(torch.autograd.grad(out, inputs, grads[i], retain_graph=True), batched, strict=True):
            close(one[i], own)


def test_gradients_add_up_over_passes_and_a_fused_step_is_seen() -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    exact = a_twin(module).double()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, fused=True) for m in (module, exact)]
    for _ in range(2):
        for _ in range(2):
            close(apply(module, x), exact(x.double()))
            for model, y in ((module, x), (exact, x.double())):
                model(y).square().mean().backward()
        for own, other in zip(module.parameters(), exact.parameters(), strict=True):
            close(own.grad, other.grad)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_one_weight_of_two_maps() -> None:
    one, two = a_map(), a_map()
    two.weight = one.weight
    x = torch.randn(ROWS, FEATURES)
    two(one(x)).square().mean().backward()
    own, exact = one.weight.grad, copy.deepcopy(nn.ModuleList([one, two])).double()
    assert exact[0].weight is exact[1].weight
    exact.zero_grad()
    exact[1](exact[0](x.double())).square().mean().backward()  # type: ignore[operator]
    close(own, exact[0].weight.grad)


def test_what_is_saved_can_be_kept_elsewhere_and_is_watched(ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES, requires_grad=True)
    packed: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t.clone(), lambda t: t):  # type: ignore
        out = apply(module, x)
    assert [tuple(t.shape) for t in packed] == [(ROWS, FEATURES), (OUT, FEATURES)]  # no more than F.linear keeps
    out.sum().backward(retain_graph=True)
    first = x.grad.clone()  # type: ignore[union-attr]
    out.sum().backward()
    close(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="a second time"):
        out.sum().backward()
    out = apply(module, x)
    with torch.no_grad():
        module.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES, requires_grad=True)
    inputs = (x, *module.parameters())
    apply(module, x).square().sum().backward()
    wanted = [t.grad for t in inputs]
    for t in inputs:
        t.grad = None
    checkpoint(module, x, use_reentrant=reentrant).square().sum().backward()
    for t, other in zip(inputs, wanted, strict=True):
        close(t.grad, other)


def test_a_stack_that_runs_its_blocks_again(ran: list[Tensor]) -> None:
    torch.manual_seed(0)
    model = xt_blocks.Decoder(pattern="a f", dim=128, heads=2, checkpoint="block")
    plain = xt_blocks.Decoder(pattern="a f", dim=128, heads=2)
    plain.load_state_dict(model.state_dict())
    x, weights = torch.randn(1, 256, 128), torch.randn(1, 256, 128)
    for stack in (model, plain):
        (stack(x) * weights).sum().backward()
    assert ran
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        close(own.grad, other.grad)


def test_a_compiled_step_of_training() -> None:
    torch._dynamo.reset()
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    exact = a_twin(module).double()
    torch.compile(Around(module), backend="aot_eager", fullgraph=True)(x).square().mean().backward()
    exact(x.double()).square().mean().backward()
    for own, other in zip(module.parameters(), exact.parameters(), strict=True):
        close(own.grad, other.grad)


# The module --------------------------------------------------------------------------------------------------------


def test_unpacked_it_is_of_its_own_class_again() -> None:
    model = nn.Sequential(a_map())
    assert type(pack(model)[0]) is not nn.Linear
    for other in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        unpack(other)
        assert type(other[0]) is nn.Linear
        assert vars(other[0]).keys() == vars(nn.Linear(1, 1)).keys()


def test_hooks_see_what_a_layer_takes_and_gives(ran: list[Tensor]) -> None:
    module, x = a_map(), torch.randn(ROWS, FEATURES)
    out = apply(module, x)
    assert ran
    seen: list[Tensor] = []
    module.register_forward_hook(lambda module, args, out: seen.append(out))
    gradients: list[Any] = []
    module.register_full_backward_hook(lambda module, inputs, outputs: gradients.append(outputs[0]))
    apply(module, x.requires_grad_()).sum().backward()
    torch.testing.assert_close(seen, [out])
    assert torch.equal(gradients[0], torch.ones_like(out))


def test_the_function_alone(ran: list[Tensor]) -> None:
    x, weight = _x(), _weight()
    close(linear(x, weight), F.linear(x.double(), weight.double()))
    assert len(ran) == 1
    linear(x, weight.detach())  # which is no module's own
    assert len(ran) == 1
