"""Threads that share a model get what one thread gets, and leave it as it was."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import Kind, UserError
from xt_blocks.kernels import hooks

from .models import CASES, built, decoder, some_tokens, some_vectors, tokens_model

THREADS, ROUNDS = 4, 6


def together(work: Callable[[int], Any], rounds: int = ROUNDS) -> list[Any]:
    """What `work(thread)` gives in each thread and round, all threads at once."""
    start = Barrier(THREADS)

    def run(thread: int) -> list[Any]:
        torch.set_num_threads(1)
        start.wait(timeout=60)
        return [work(thread) for _ in range(rounds)]

    with ThreadPoolExecutor(THREADS) as pool:
        return [result for results in pool.map(run, range(THREADS)) for result in results]


def dropping(**options: Any) -> xt_blocks.TransformerWrapper:
    """In training mode, with dropout of every sort."""
    torch.manual_seed(0)
    stack = decoder(rotary_pos_emb=True, attn_dropout=0.5, ff_dropout=0.5, layer_dropout=0.5)
    return tokens_model(stack, emb_dropout=0.5, **options).train()


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


USES: dict[str, Callable[[Any], Any]] = {
    "generate": lambda m: xt_blocks.AutoregressiveWrapper(m).generate(some_tokens(), 4, top_k=1).tolist(),
    "stream": lambda m: [t.tolist() for t in xt_blocks.AutoregressiveWrapper(m).stream(some_tokens(), 4, top_k=1)],
    "record": lambda m: xt_blocks.record(m, some_tokens()),
    "attention_map": lambda m: xt_blocks.attention_map(m, some_tokens(), "a0", 1).tolist(),
    "segments": lambda m: xt_blocks.XLAutoregressiveWrapper(m).generate(some_tokens(), 4, top_k=1).tolist(),
}


@pytest.mark.parametrize("name", USES)
def test_a_model_in_training_mode_drops_nothing_and_returns_to_its_mode(name: str) -> None:
    model = dropping(max_mem_len=4)
    model.emb_dropout.eval()  # modes of their own come back too
    before, want = modes(model), USES[name](model)
    for got in together(lambda thread: USES[name](model)):
        assert got == want
    assert modes(model) == before


def test_all_of_them_at_once() -> None:
    model = dropping(max_mem_len=4)
    before, names = modes(model), [*USES][:THREADS]
    want = [USES[name](model) for name in names]
    results = together(lambda thread: (thread, USES[names[thread]](model)))
    for thread, got in results:
        if names[thread] == "record":
            assert {node: got[node]["stream_norm"] for node in got} == pytest.approx(
                {node: want[thread][node]["stream_norm"] for node in got}
            )
        else:
            assert torch.tensor(got).allclose(torch.tensor(want[thread]))
    assert modes(model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", CASES)
def test_every_model_gives_each_thread_the_same(name: str) -> None:
    if name in ("masked", "forgetful", "seq2seq"):
        pytest.skip("draws from the process's own random numbers in training")
    model = built(name)
    want = CASES[name][1](model)
    for got in together(lambda thread: CASES[name][1](model), rounds=1):
        assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(got, want, strict=True))


def test_losses_and_gradients() -> None:
    model = tokens_model().eval()
    wrapper = xt_blocks.AutoregressiveWrapper(model)

    def gradients(thread: int) -> tuple[Tensor, ...]:
        return torch.autograd.grad(wrapper(some_tokens()), [*model.parameters()])

    want = gradients(0)
    for got in together(gradients):
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(got, want, strict=True))


def test_why_tells_each_thread_of_its_own_call() -> None:
    model = tokens_model().eval()

    def lines(thread: int) -> bool:
        if thread % 2:
            model(some_tokens())
            return True
        return xt_blocks.why(model, some_tokens(1, 1 + thread)) == want[thread]

    want = {thread: xt_blocks.why(model, some_tokens(1, 1 + thread)) for thread in (0, 2)}
    assert all(together(lines, 20))
    assert not any("core" in vars(module) for module in model.modules())


def test_packing_while_others_run() -> None:
    model = tokens_model(decoder(ff_glu=True), tie_embedding=True).eval()
    with torch.no_grad():
        want = model(some_tokens())

    def use(thread: int) -> bool:
        if thread == 0:
            xt_blocks.pack(model)
            return True
        if thread == 1:
            xt_blocks.unpack(model)
            return True
        with torch.no_grad():
            return torch.allclose(model(some_tokens()), want, atol=1e-5)

    assert all(together(use, 30))


def test_a_function_within_a_hooked_module_is_that_of_its_thread() -> None:
    """Sharded weights are gathered by the module's hooks while a function runs in place of its forward."""
    layer = nn.Linear(4, 4)
    seen: list[Any] = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(module.weight))
    x = torch.ones(1, 4)
    want = layer(x)

    def use(thread: int) -> bool:
        if thread % 2:
            return torch.equal(layer(x), want)
        return hooks.within(layer, lambda x: x * thread, x).tolist() == [[float(thread)] * 4]

    assert all(together(use, 50))
    assert "forward" not in vars(layer)
    assert all(weight is layer.weight for weight in seen)


def test_texts_are_parsed_and_graphs_compiled_alike() -> None:
    def text(thread: int) -> str:
        return blockdsl.compile(f"(a f)*{thread + 1} | a & f", dim=8, heads=2).to_json()

    want = [text(thread) for thread in range(THREADS)]
    results = together(lambda thread: text(thread) == want[thread])
    assert all(results)


def test_one_of_two_kinds_of_a_name_is_registered() -> None:
    def register(thread: int) -> bool:
        kind = Kind("threaded", f"of thread {thread}", (), lambda o: {}, lambda o, sizes: 0, nn.Identity)
        try:
            return blockdsl.register(kind) is kind
        except UserError:
            return False

    try:
        assert sum(together(register, 1)) == 1
    finally:
        blockdsl.unregister("threaded")


def test_a_thread_that_fails_restores_the_modes() -> None:
    model = dropping()
    before = modes(model)

    def work(thread: int) -> None:
        wrapper = xt_blocks.AutoregressiveWrapper(model)
        if thread % 2:
            with pytest.raises(ValueError, match="mine"):
                wrapper.generate(some_tokens(), 3, filter_logits_fn=_failing)
        else:
            wrapper.generate(some_tokens(), 3)

    together(work)
    assert modes(model) == before


def _failing(logits: Tensor) -> Tensor:
    raise ValueError("mine")


def test_recording_leaves_the_calls_of_others_alone() -> None:
    stack, x = decoder().eval(), some_vectors()
    kept: list[bool] = []

    def use(thread: int) -> None:
        if thread == 0:
            xt_blocks.record(stack, x)
        else:
            seen = xt_blocks.Intermediates()
            stack(x, intermediates=seen)
            kept.append(bool(seen.attention))

    together(use, 20)
    assert not any(kept)
