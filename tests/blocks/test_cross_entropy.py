"""The loss of a large vocabulary: what the plain formula gives, without the logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from xt_blocks import (
    AutoregressiveWrapper,
    ContinuousTransformerWrapper,
    Decoder,
    Encoder,
    NonAutoregressiveWrapper,
    TransformerWrapper,
    XLAutoregressiveWrapper,
)
from xt_blocks.kernels import cross_entropy, onednn
from xt_blocks.kernels.cross_entropy import Target

CLASSES, DIM, TOKENS = 37, 12, (2, 50)


@pytest.fixture(autouse=True)
def always_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "FEWEST", 0)
    monkeypatch.setattr(cross_entropy, "ROWS", 7)  # does not divide the tokens


def inputs(dtype: torch.dtype = torch.float64, bias: bool = True) -> list[Tensor]:
    made = [torch.randn(*TOKENS, DIM), torch.randn(CLASSES, DIM), *([torch.randn(CLASSES)] if bias else [])]
    return [own.to(dtype).requires_grad_() for own in made]


def targets(ignored: int | None = None) -> Tensor:
    out = torch.randint(CLASSES, TOKENS)
    if ignored is not None:
        out[:, ::3] = ignored
    return out


def plain(target: Target, *made: Tensor) -> Tensor:
    return target.of_logits(F.linear(*made))


def gradients(loss: Tensor, made: list[Tensor]) -> list[Tensor]:
    return [loss, *torch.autograd.grad(loss, made)]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignored", [None, -100, 5, 1000])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_plain_formula(reduction: str, ignored: int | None, bias: bool) -> None:
    target = Target(targets(ignored), -100 if ignored is None else ignored, reduction)
    made = inputs(bias=bias)
    for own, wanted in zip(
        gradients(target.of_linear(*made), made), gradients(plain(target, *made), made), strict=True
    ):
        torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beats_mkl", [False, onednn.HAS_ONEDNN])
def test_the_squared_logarithm_of_the_sum_of_exponentials(beats_mkl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", beats_mkl)
    made = inputs(torch.float32 if beats_mkl else torch.float64)
    tight = {"rtol": 1e-4, "atol": 1e-5} if beats_mkl else {"rtol": 1e-11, "atol": 1e-11}
    for softcap in (None, 1.5):
        for reduction in ("mean", "sum"):
            target = Target(targets(-100), -100, reduction, z_loss=0.3)

            def capped(softcap: float | None = softcap) -> Tensor:
                logits = F.linear(*made)
                return logits if softcap is None else softcap * (logits / softcap).tanh()

            logits = capped()
            seen = target.tokens != -100
            log_z = logits.exp().sum(dim=-1).log()[seen]
            each = log_z - logits[seen].gather(-1, target.tokens[seen][:, None])[:, 0] + 0.3 * log_z**2
            wanted = gradients(each.mean() if reduction == "mean" else each.sum(), made)
            for found in (target.of_linear(*made, softcap=softcap), target.of_logits(capped())):
                for own, theirs in zip(gradients(found, made), wanted, strict=True):
                    torch.testing.assert_close(own, theirs, **tight)
    if not beats_mkl:
        few = [own[:, :3].detach().requires_grad_() if own.ndim == 3 else own[:5].detach() for own in made]
        of_few = Target(targets()[:, :3] % 5, z_loss=0.3)
        assert torch.autograd.gradgradcheck(lambda x: of_few.of_linear(x, *few[1:]), few[:1])


def test_the_wrapper_adds_it_in_training() -> None:
    net = TransformerWrapper(
        num_tokens=CLASSES, max_seq_len=12, attn_layers=Decoder(dim=DIM, depth=1, heads=2)
    ).double()
    x = torch.randint(CLASSES, (2, 9))
    plain, own = AutoregressiveWrapper(net), AutoregressiveWrapper(net, z_loss_weight=0.01)
    squares = net(x[:, :-1]).logsumexp(dim=-1).square().mean()
    torch.testing.assert_close(own(x), plain(x) + 0.01 * squares)
    assert torch.equal(own.eval()(x), plain.eval()(x))


@pytest.mark.skipif(not onednn.HAS_ONEDNN, reason="torch without oneDNN has one way")
@pytest.mark.parametrize("beats_mkl", [False, True])
def test_by_either_kernel_it_is_the_plain_formula(beats_mkl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", beats_mkl)
    ran: list[int] = []
    run = onednn.run
    monkeypatch.setattr(onednn, "run", lambda *args: ran.append(1) or run(*args))  # type: ignore[func-returns-value]
    target, (x, *own) = Target(targets(5), 5), inputs(torch.float32)
    made = [x, *map(nn.Parameter, own)]
    exact = [t.detach().double().requires_grad_() for t in made]
    for got, wanted in zip(
        gradients(target.of_linear(*made), made), gradients(plain(target, *exact), exact), strict=True
    ):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)
    assert len(ran) == (2 * 15 if beats_mkl else 0)  # logits and the gradient of x, seven tokens of a hundred at a time


@pytest.mark.parametrize("beats_mkl", [False, onednn.HAS_ONEDNN])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_logits(beats_mkl: bool, bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "BEATS_MKL", beats_mkl)
    target, made = Target(targets(5), 5), inputs(dtype, bias)
    exact = [own.detach().double().requires_grad_() for own in made]
    bounded = 3 * torch.tanh(F.linear(*exact) / 3)
    wanted = F.cross_entropy(bounded.flatten(0, 1), target.tokens.flatten(), ignore_index=5)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for own, other in zip(gradients(target.of_linear(*made, softcap=3.0), made), gradients(wanted, exact), strict=True):
        torch.testing.assert_close(own.double(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_derivatives_of_both_orders(softcap: float | None) -> None:
    target, made = Target(torch.tensor([[1, 4, -100, 0]])), [torch.randn(1, 4, 3), torch.randn(5, 3), torch.randn(5)]
    made = [own.double().requires_grad_() for own in made]
    loss = partial(target.of_linear, softcap=softcap)
    assert torch.autograd.gradcheck(loss, made, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(loss, made, nondet_tol=1e-12)


def test_nothing_to_count_is_no_number_and_teaches_nothing() -> None:
    target, made = Target(torch.full(TOKENS, -100)), inputs()
    loss, *found = gradients(target.of_linear(*made), made)
    assert loss.isnan()
    assert all((own == 0).all() for own in found)
    assert gradients(plain(target, *made), made)[0].isnan()


def test_scores_far_apart_do_not_overflow() -> None:
    x, weight, bias = (own.float().detach() for own in inputs())
    target = Target(targets())
    torch.testing.assert_close(target.of_linear(x * 1e4, weight, bias), plain(target, x * 1e4, weight, bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
def test_low_precision_is_as_exact_as_the_plain_formula(dtype: torch.dtype | None) -> None:
    """None: float32 under autocast. Errors are measured against float64."""
    target, low = Target(targets(-100)), inputs(dtype or torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is None):
        ours, theirs = (gradients(f(*low), low) for f in (target.of_linear, lambda *made: plain(target, *made)))
    exact = [own.detach().double().requires_grad_() for own in low]
    for own, other, wanted in zip(ours, theirs, gradients(plain(target, *exact), exact), strict=True):
        assert own.dtype == other.dtype
        worst = (other - wanted).abs().max().item()
        assert (own - wanted).abs().max().item() <= 2 * worst + torch.finfo(torch.bfloat16).eps * wanted.abs().max()


def test_small_gradients_survive_float16() -> None:
    """A loss that is scaled up has gradients that the mean alone would have rounded away."""
    target, made = Target(targets()), inputs(torch.float16)
    ours = torch.autograd.grad(target.of_linear(*made) * 2**10, made)
    for own, wanted in zip(ours, torch.autograd.grad(plain(target, *made) * 2**10, made), strict=True):
        torch.testing.assert_close(own, wanted, rtol=2e-2, atol=2e-2)


def test_the_graph_may_be_kept_and_gradients_add_up() -> None:
    target, made = Target(targets(-100)), inputs()
    wanted = gradients(plain(target, *made), made)[1:]
    loss = target.of_linear(*made)
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        for own, once in zip(made, wanted, strict=True):
            torch.testing.assert_close(own.grad, times * once)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient(frozen: int) -> None:
    target, made = Target(targets()), inputs()
    wanted = gradients(plain(target, *made), made)[1:]
    made[frozen].requires_grad_(False)
    target.of_linear(*made).backward()
    for i, own in enumerate(made):
        if i == frozen:
            assert own.grad is None
        else:
            torch.testing.assert_close(own.grad, wanted[i])


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for own in out if isinstance(out, tuple) else (out,):
            if isinstance(own, Tensor):
                self.numbers = max(self.numbers, own.numel())
        return out


@pytest.mark.parametrize("learns", [False, True])
def test_all_logits_are_never_there(learns: bool) -> None:
    target, made = Target(targets()), inputs()
    with Largest() as largest, torch.set_grad_enabled(learns):
        loss = target.of_linear(*made)
        if learns:
            loss.backward()
    assert largest.numbers < 50 * CLASSES
    with Largest() as largest:
        plain(target, *made)
    assert largest.numbers == 100 * CLASSES


def test_function_transforms_take_the_plain_formula() -> None:
    target, made = Target(targets()), inputs()
    wanted = torch.autograd.grad(plain(target, *made), made[0])[0]
    torch.testing.assert_close(torch.func.grad(target.of_linear)(*made), wanted)


def test_a_weight_behind_the_input_too_gets_each_gradient_once() -> None:
    _, weight, _ = inputs()
    target = Target(targets())
    x = weight[target.tokens.roll(1, dims=-1)].tanh()
    by_parts, whole = target.of_linear(x, weight), plain(target, x, weight)
    (want,) = torch.autograd.grad(whole, weight, create_graph=True)
    for create in (False, False, True):
        (found,) = torch.autograd.grad(by_parts, weight, retain_graph=True, create_graph=create)
        torch.testing.assert_close(found, want)
    torch.testing.assert_close(
        *(torch.autograd.grad(first.square().sum(), weight, retain_graph=True) for first in (found, want))
    )


def test_autocast_leaves_float64_alone() -> None:
    made, target = inputs(), Target(targets())
    want = target.of_linear(*made)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(target.of_linear(*made), want)


def test_there_is_nothing_to_save_on_the_meta_device() -> None:
    target = Target(targets().to("meta"))
    assert target.of_linear(*(own.detach().to("meta") for own in inputs())).is_meta


# Models --------------------------------------------------------------------------------------------------------------


def model(**options: Any) -> TransformerWrapper:
    stack = Decoder(dim=DIM, depth=1, heads=2, attn_dim_head=6)
    return TransformerWrapper(num_tokens=CLASSES, max_seq_len=60, attn_layers=stack, **options).double()


HEADS: list[dict[str, Any]] = [
    {"tie_embedding": True},
    {"tie_embedding": True, "logits_scale": 1, "logits_bias": True},
    {"logits_scale": 0.3},
    {"logits_bias": False},
    {"logits_softcap": 0.5, "logits_scale": 3.0},
    {"tie_embedding": True, "logits_softcap": 0.5, "logits_bias": True, "logits_transform": "gelu", "emb_dim": 5},
]


@pytest.mark.parametrize("options", [{}, *HEADS, {"num_memory_tokens": 3}, {"emb_dim": 5}])
def test_a_model_gives_the_loss_in_place_of_logits(options: dict[str, Any]) -> None:
    net, x, target = model(**options), targets(), Target(targets(-100)[:, 20:])
    loss = net(x, target=target)
    wanted = target.of_logits(net(x)[:, 20:])
    parameters = [own for own in net.parameters() if own.requires_grad]
    for own, other in zip(gradients(loss, parameters), gradients(wanted, parameters), strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("ignored", [None, 3])
def test_every_wrapper_has_the_loss_of_the_logits(ignored: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    around = {"ignore_index": -100 if ignored is None else ignored}
    encoder = Encoder(dim=DIM, depth=1, heads=2, attn_dim_head=6)
    unordered = TransformerWrapper(num_tokens=CLASSES, max_seq_len=50, attn_layers=encoder).double()
    wrappers = [
        AutoregressiveWrapper(model(num_memory_tokens=2), **around),
        XLAutoregressiveWrapper(model(max_mem_len=20), **around),
        NonAutoregressiveWrapper(net=unordered, mask_id=0, self_cond=True).double(),
    ]
    x, mask = targets(), torch.arange(50) < torch.tensor([[50], [31]])
    for wrapper in wrappers:
        found = []
        for fewest in (0, 10**9):
            monkeypatch.setattr(cross_entropy, "FEWEST", fewest)
            torch.manual_seed(1)
            loss = wrapper(x, mask=mask)
            loss = loss if isinstance(loss, Tensor) else loss.loss
            found.append([loss, *torch.autograd.grad(loss, [*wrapper.parameters()], allow_unused=True)])
        for own, other in zip(*found, strict=True):
            torch.testing.assert_close(own, other)


def hook_on_the_head(net: TransformerWrapper, hook: Callable[..., Any]) -> None:
    assert net.to_logits is not None
    net.to_logits.register_forward_hook(hook)


@pytest.mark.parametrize("add_hook", [hook_on_the_head, lambda net, hook: net.register_forward_hook(hook)])
def test_a_hook_sees_and_changes_the_logits(add_hook: Callable[..., None]) -> None:
    net, x = model(), targets()
    wanted = F.cross_entropy(2 * net(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    add_hook(net, lambda module, args, logits: 2 * logits)
    torch.testing.assert_close(AutoregressiveWrapper(net)(x), wanted)


def test_a_head_of_ones_own_is_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    net, x = model(), targets()
    net.to_logits = Doubled(DIM, CLASSES).double()
    wanted = F.cross_entropy(net(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    torch.testing.assert_close(AutoregressiveWrapper(net)(x), wanted)


def test_a_compiled_model_has_the_same_loss() -> None:
    wrapper, x = AutoregressiveWrapper(model()), targets()
    compiled = torch.compile(wrapper, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), wrapper(x))


def test_a_target_that_does_not_fit_is_named() -> None:
    net, x = model(), targets()
    for tokens in (x.float(), x[:1], x[0], torch.zeros(2, 51, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"the target's tokens must be.* \(2, 50 or fewer\), not"):
            net(x, target=Target(tokens))
    with pytest.raises(TypeError, match=r"target must be a cross_entropy\.Target of tokens, not Tensor"):
        net(x, target=x)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', not"):
        net(x, target=Target(x, reduction="none"))
    with pytest.raises(ValueError, match="a target asks for the loss, and embeddings are asked for too"):
        net(x, target=Target(x), return_embeddings=True)
    vectors = ContinuousTransformerWrapper(max_seq_len=60, attn_layers=Decoder(dim=DIM, depth=1, heads=2), dim_in=3)
    with pytest.raises(ValueError, match="a target is given, but the model gives no logits of tokens"):
        vectors(torch.randn(2, 5, 3), target=Target(x[:, :5]))
