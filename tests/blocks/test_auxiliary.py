"""Losses and statistics that blocks return beside their update: to the loss of every wrapper, and to `record`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import Kind, Option
from xt_blocks import LayerOutput, auxiliary_losses, x_transformers

TOKENS = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(0))


class Gain(nn.Module):
    """A user's kind, whose loss is the square of its weight's first number, and which counts its tokens."""

    def __init__(self, dim: int, rate: float) -> None:
        super().__init__()
        self.weight, self.rate = nn.Parameter(torch.linspace(1, 2, dim)), rate

    def forward(self, x: Tensor, observed: bool) -> LayerOutput:
        counted = {"tokens": torch.tensor([x.shape[0] * x.shape[1]])} if observed else None
        losses = {"size": self.rate * self.weight[0] ** 2} if self.training else None
        return LayerOutput(x * self.weight, losses=losses, statistics=counted)


@pytest.fixture(autouse=True)
def gain() -> Iterator[None]:
    blockdsl.register(
        Kind(
            name="gain",
            title="a gain",
            options=(Option("rate", float, 1.0, "coefficient"),),
            inputs=("observed",),
            shapes=lambda o: {"weight": (o.dim,)},
            flops=lambda o, sizes: 0,
            state=lambda o: {},
            module=Gain,
        )
    )
    yield
    blockdsl.unregister("gain")


def stack(text: str = "gain a gain(rate=3)@x gain(rate=3)@x", **settings: Any) -> xt_blocks.Stack:
    torch.manual_seed(0)
    return xt_blocks.AttentionLayers(dim=8, heads=2, attn_dim_head=4, pattern=text, **{"causal": True} | settings)


def model(**settings: Any) -> xt_blocks.TransformerWrapper:
    return xt_blocks.TransformerWrapper(num_tokens=11, max_seq_len=8, max_mem_len=8, attn_layers=stack(**settings))


def owed(trained: nn.Module) -> Tensor:
    """1 + 3 + 3, of blocks that are as they start."""
    return next(trained.parameters()).new_tensor(7.0)


def test_a_stack_hands_them_out_by_node() -> None:
    layers, x = stack(), torch.randn(2, 5, 8)
    with auxiliary_losses() as outer:
        with auxiliary_losses() as losses:
            layers(x)
        layers.eval()(x)
        with torch.no_grad():
            layers.train()(x)
    ((ran, by_node),) = losses.passes
    assert ran is layers
    assert {node: {name: loss.item() for name, loss in of.items()} for node, of in by_node.items()} == {
        "gain0": {"size": 1.0},
        "gain2": {"size": 3.0},
        "gain3": {"size": 3.0},
    }
    assert losses.total() == outer.total() == 7
    with auxiliary_losses() as none:
        pass
    assert none.total() == 0
    layers(x)  # nobody asks
    assert len(outer.passes) == 1


@pytest.mark.parametrize("checkpoint", [None, "block", "stage"])
def test_gradients_through_checkpoints(checkpoint: str | None) -> None:
    layers, x = stack(checkpoint=checkpoint), torch.randn(2, 5, 8)
    with auxiliary_losses() as losses:
        out = layers(x)
    losses.added_to(0 * out.sum()).backward()
    gained = {name: p.grad for name, p in layers.named_parameters() if name.endswith("layer.weight")}
    assert [float(grad[0]) for grad in gained.values() if grad is not None] == [2.0, 12.0]


def losses_of(trained: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """In training and in evaluation; the models draw nothing."""
    state = torch.get_rng_state()
    one = trained.train()(*args, **kwargs)
    torch.set_rng_state(state)
    other = trained.eval()(*args, **kwargs)
    return one, other


def test_every_wrapper_adds_them() -> None:
    net = model()
    tokens, decoder = TOKENS, xt_blocks.AutoregressiveWrapper(net)
    one, other = losses_of(decoder, tokens)
    torch.testing.assert_close(one - other, owed(net))
    longer = torch.cat((tokens, tokens, tokens), dim=1)  # several segments, whose mean counts
    one, other = losses_of(xt_blocks.XLAutoregressiveWrapper(net), longer)
    torch.testing.assert_close(one - other, owed(net))
    vectors = xt_blocks.ContinuousTransformerWrapper(max_seq_len=9, attn_layers=stack())
    one, other = losses_of(xt_blocks.ContinuousAutoregressiveWrapper(vectors), torch.randn(2, 9, 8))
    torch.testing.assert_close(one - other, owed(net))
    for critic in (False, True):
        encoder = xt_blocks.TransformerWrapper(num_tokens=11, max_seq_len=9, attn_layers=stack(causal=False))
        filled = xt_blocks.NonAutoregressiveWrapper(encoder, mask_id=10, self_cond=True, self_token_critic=critic)
        of_training, of_evaluation = losses_of(filled, tokens.clamp(max=9))
        torch.testing.assert_close(of_training.loss - of_evaluation.loss, owed(net))
        torch.testing.assert_close(of_training.generator_loss, of_evaluation.generator_loss)
    both = xt_blocks.XTransformer(
        dim=8,
        **{"enc_num_tokens": 11, "enc_max_seq_len": 9, "enc_pattern": "a gain", "enc_heads": 2},
        **{"dec_num_tokens": 11, "dec_max_seq_len": 9, "dec_pattern": "a c gain(rate=5)", "dec_heads": 2},
    )
    one, other = losses_of(both, tokens, tokens)
    torch.testing.assert_close(one - other, one.new_tensor(6.0))
    with auxiliary_losses() as further:
        both.train()(tokens, tokens)
    assert {name: loss.item() for name, loss in further.by_name().items()} == {"size": 6.0}
    peer = x_transformers.AutoregressiveWrapper(net)
    one, other = losses_of(peer, tokens)
    torch.testing.assert_close(one - other, owed(net))
    (one, _), (other, _) = losses_of(peer, tokens, return_outputs=True)
    torch.testing.assert_close(one - other, owed(net))


@pytest.mark.parametrize("whole", [False, True])
def test_compiled(whole: bool) -> None:
    """The net alone, and with the wrapper around it, in one graph."""
    net = model()
    inner: Any = net if whole else torch.compile(net, fullgraph=True, backend="eager")
    wrapper: Any = xt_blocks.AutoregressiveWrapper(inner)
    run = torch.compile(wrapper, fullgraph=True, backend="eager") if whole else wrapper
    loss = run(TOKENS)
    torch.testing.assert_close(loss, xt_blocks.AutoregressiveWrapper(net)(TOKENS))
    loss.backward()
    assert float(net.attn_layers.blocks["gain0"].layer.weight.grad[0]) == pytest.approx(2, abs=0.5)


def test_record_has_the_statistics() -> None:
    seen = xt_blocks.record(model(text="gain e(experts=4, top=1) a"), TOKENS[:, :8])
    assert seen["gain0"]["statistics"] == {"tokens": [16]}
    assert seen["a2"]["statistics"] == {}
    load = seen["e1"]["statistics"]["expert_load"]
    assert len(load) == 4
    assert sum(load) == pytest.approx(1)
