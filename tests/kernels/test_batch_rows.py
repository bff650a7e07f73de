"""What is dropped of a row depends on the row, and not on the rows beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from xt_blocks.kernels.batch_rows import BatchRows, kept_by_row, rows_of_batch

DROPPED: dict[str, Any] = {
    "dim": 16,
    "heads": 2,
    "causal": True,
    "num_tokens": 32,
    "max_seq_len": 300,
    "emb_dropout": 0.2,
    "attn_dropout": 0.2,
    "attn_sublayer_dropout": 0.2,
    "ff_dropout": 0.2,
    "ff_sublayer_dropout": 0.2,
    "layer_dropout": 0.3,
    "moe_dropout": 0.2,
}

ONE_EACH = tuple(name for name in DROPPED if name.endswith("dropout"))


def model(pattern: str = "a f e(experts=4, inner=8) a f", **settings: Any) -> xt_blocks.TransformerWrapper:
    torch.manual_seed(0)
    return xt_blocks.lower(blockdsl.compile(pattern, **DROPPED | settings)).train()


def logits(net: xt_blocks.TransformerWrapper, tokens: Tensor, places: list[int], seed: int = 1) -> Tensor:
    with rows_of_batch(BatchRows(places, seed)):
        return net(tokens[places])


@pytest.mark.parametrize("length", [9, 300])
@pytest.mark.parametrize("settings", [{}, {"checkpoint": "block"}, {"attn_flash": False}], ids=str)
def test_a_row_alone(length: int, settings: dict[str, Any]) -> None:
    net, tokens = model(**settings), torch.randint(32, (4, length))
    whole = logits(net, tokens, [0, 1, 2, 3])
    torch.testing.assert_close(logits(net, tokens, [3, 1]), whole[[3, 1]], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(net, tokens, [3, 1], seed=2), whole[[3, 1]])


@pytest.mark.parametrize("option", ONE_EACH)
def test_each_dropout_drops_by_row(option: str) -> None:
    net = model(**dict.fromkeys(ONE_EACH, 0.0) | {option: 0.5})
    tokens = torch.randint(32, (1, 9)).expand(6, 9)
    rows = logits(net, tokens, [0, 1, 2, 3, 4, 5])
    assert not all(torch.allclose(rows[0], row) for row in rows[1:])  # alike but for their places
    torch.testing.assert_close(logits(net, tokens, [4]), rows[[4]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(net, tokens, [0, 1, 2, 3, 4, 5]), rows)


def test_gradients_of_recomputed_blocks() -> None:
    tokens, found = torch.randint(32, (2, 9)), []
    for settings in ({}, {"checkpoint": "block"}):
        net = model(**settings)
        first, second = (logits(net, tokens, [place]).square().sum() for place in (0, 1))
        first.backward()  # while the second's blocks are still to be recomputed
        second.backward()
        found.append([p.grad for p in net.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_how_much_is_kept() -> None:
    with rows_of_batch(BatchRows(range(50), 3)):
        kept = kept_by_row((50, 40, 30), 0.3, torch.device("cpu"))
    assert kept is not None
    share = kept.float().mean(dim=(1, 2))
    assert share.mean().item() == pytest.approx(0.7, abs=0.01)
    assert share.std().item() < 0.03
    rows = kept.float().flatten(1) - 0.7
    apart = (rows @ rows.T / (1200 * 0.21)).fill_diagonal_(0)
    assert apart.abs().max() < 0.2  # rows have nothing to do with each other


def test_some_of_a_rows_tokens() -> None:
    def kept(shape: tuple[int, ...], tokens: tuple[slice, int] | None) -> Tensor:
        with rows_of_batch(BatchRows([5, 7], 3, tokens=tokens)):
            drawn = kept_by_row(shape, 0.5, torch.device("cpu"), tokens=2, keys=3)
        assert drawn is not None
        return drawn

    whole = kept((2, 4, 12, 12), None)
    assert torch.equal(kept((2, 4, 6, 6), (slice(0, 6), 12)), whole[:, :, :6, :6])
    assert torch.equal(kept((2, 4, 6, 12), (slice(6, 12), 12)), whole[:, :, 6:])


def test_without_a_seed_torch_draws() -> None:
    net, tokens = model(), torch.randint(32, (2, 9))
    torch.manual_seed(4)
    plain = net(tokens)
    torch.manual_seed(4)
    with rows_of_batch(BatchRows([0, 1])):
        assert torch.equal(net(tokens), plain)


def test_counts_are_of_the_whole_batch() -> None:
    net = model("e(experts=4, inner=8, balance_loss=1)", **dict.fromkeys(ONE_EACH, 0.0))
    wrapper, tokens = xt_blocks.AutoregressiveWrapper(net), torch.randint(32, (2, 9))
    others = torch.tensor([1.0, 0.0, 30.0, 2.0])
    with xt_blocks.auxiliary_losses() as alone:
        wrapper(tokens)
    with rows_of_batch(BatchRows([0, 1], total=lambda load: load + others)), xt_blocks.auxiliary_losses() as whole:
        wrapper(tokens)
    (block,) = net.attn_layers.blocks.values()
    read: list[Tensor] = []
    block.layer.router.register_forward_hook(lambda module, inputs, choice: read.append(choice))
    wrapper(tokens)
    (choice,) = read
    for losses, further in ((alone, 0.0), (whole, others)):
        load = torch.bincount(choice.experts.flatten(), minlength=4).float() + further
        share = choice.logits.softmax(dim=-1).mean(dim=0)
        torch.testing.assert_close(losses.by_name()["balance"], 4 * (load / load.sum() * share).sum())


def test_each_block_and_each_call_draws_others() -> None:
    rows, cpu = BatchRows([0, 1], 3), torch.device("cpu")
    with rows_of_batch(rows):
        drawn = {}
        for block in ("a0", "f1", "a0 again"):
            rows.begin(block.removesuffix(" again"))
            for call in ("first", "second"):
                drawn[block, call] = kept_by_row((2, 9, 16), 0.5, cpu)
    for call in ("first", "second"):
        again = drawn.pop(("a0 again", call))
        assert again is not None
        assert torch.equal(again, drawn["a0", call])  # as when a backward pass recomputes it
    assert len({str(kept.flatten().tolist()) for kept in drawn.values() if kept is not None}) == 4
