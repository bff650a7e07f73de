"""An encoder with its decoder over ranks gives the losses, gradients, weights and texts of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
from blockdsl import UserError
from blockdsl.plan.mesh import Mesh
from xt_blocks import auxiliary_losses
from xt_blocks.distributed.init import encoder_of, initialised
from xt_blocks.distributed.job import distribute
from xt_blocks.generation.seq2seq import XTransformer
from xt_blocks.kernels.batch_rows import BatchRows, rows_of_batch
from xt_blocks.runtime.seeds import seed_for

from .processes import run
from .random_models import gathered, in_float64

SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8, "num_tokens": 32, "max_seq_len": 12}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2 => (a c f)*2", {"enc_rel_pos_bias": True}),
    "one embedding": ("a f => a c f", {"tie_token_emb": True, "dec_tie_embedding": True, "checkpoint": "block"}),
    "dropped, experts": (
        "a e(experts=4, inner=8, balance_loss=0.1, z_loss=0.1) => (a c e(experts=4, inner=8, balance_loss=0.2))@s*2",
        {"layer_dropout": 0.2, "attn_sublayer_dropout": 0.2, "emb_dropout": 0.1},
    ),
    "of vectors": ("a f => a c f", {"num_tokens": None, "dec_num_tokens": 32, "enc_dim_in": 5}),
}


def graph(name: str) -> Any:
    text, settings = CASES[name]
    given = {**SIZES, **settings}
    return blockdsl.compile(text, **{key: value for key, value in given.items() if value is not None})


def batches(name: str) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Tokens, their mask, the source, and its mask; rows of different lengths."""
    drawn, out = torch.Generator().manual_seed(5), []
    for _ in range(3):
        tokens = torch.randint(32, (4, 9), generator=drawn)
        source = torch.randint(32, (4, 7), generator=drawn)
        if name == "of vectors":
            source = torch.randn(4, 7, 5, generator=drawn, dtype=torch.float64)
        mask = torch.arange(9) < torch.tensor([9, 4, 9, 2])[:, None]
        out.append((tokens, mask, source, torch.arange(7) < torch.tensor([3, 7, 1, 6])[:, None]))
    return out


def trained(name: str, mesh: str, accumulate: int, folder: Path) -> dict[str, Any]:
    """Three steps of SGD, between which a checkpoint is written and read, and what is then generated."""
    with in_float64():
        job = distribute(graph(name), mesh, seed=3, accumulate=accumulate)
        losses, norms = [], []
        for step, batch in enumerate(batches(name)):
            if step == 1:
                job.save(folder / name)
                job = distribute(graph(name), mesh, seed=4, accumulate=accumulate)
                job.load(folder / name)
            optimizer = torch.optim.SGD(job.parameters(), lr=0.5)
            job.seed(step)
            found = job.backward(*batch)
            losses.append(found.cross_entropy + sum(found.added.values()))
            norms.append(job.clip(0.7))
            optimizer.step()
            optimizer.zero_grad()
        losses.append(job.loss(*batches(name)[0]).cross_entropy)
        source = batches(name)[0][2]
        start = torch.tensor([[1], [2], [3], [4]])
        tokens = job.generate(source, 5, seq_out_start=start, temperature=0.0)
        return {"losses": losses, "norms": norms, "weights": gathered(job), "tokens": tokens}


def all_cases(mesh: str, accumulate: int, folder: Path) -> dict[str, Any]:
    return {name: trained(name, mesh, accumulate, folder) for name in CASES}


def of_one_process(name: str, accumulate: int) -> dict[str, Any]:
    """The same in plain torch, but for the initial weights; the encoder's rows drop other numbers than the decoder's."""
    with in_float64():
        both = graph(name)
        net = XTransformer.from_models(
            encoder_of(both, 3), initialised(both.streams()["decoder"], 3), tie_token_emb=both.tie_token_emb
        )
        optimizer, losses, norms = torch.optim.SGD(net.parameters(), lr=0.5), [], []
        for step, (tokens, mask, source, source_mask) in enumerate(batches(name)):
            net.train()
            seed, total = seed_for("dropout", step), 0.0
            targets = (mask[:, 1:] & mask[:, :-1]).sum()
            for rows in torch.arange(4).tensor_split(accumulate):
                with (
                    auxiliary_losses() as of_source,
                    rows_of_batch(BatchRows(rows.tolist(), seed_for("encoder", seed))),
                ):
                    context, context_mask = net.encode(source[rows], source_mask[rows])
                with auxiliary_losses() as own, rows_of_batch(BatchRows(rows.tolist(), seed)):
                    read = {"context": context, "context_mask": context_mask}
                    loss = net.decoder(tokens[rows], mask=mask[rows], **read) - own.total()
                loss = loss * (mask[rows, 1:] & mask[rows, :-1]).sum() / targets
                loss = loss + own.total() * mask[rows, :-1].sum() / mask[:, :-1].sum()
                loss = loss + of_source.total() * source_mask[rows].sum() / source_mask.sum()
                loss.backward()
                total += loss.item()
            losses.append(total)
            norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), 0.7)))
            optimizer.step()
            optimizer.zero_grad()
        net.eval()
        tokens, mask, source, source_mask = batches(name)[0]
        losses.append(net(source, tokens, mask=source_mask, tgt_mask=mask).item())
        start = torch.tensor([[1], [2], [3], [4]])
        written = net.generate(source, start, 5, temperature=0.0)
    weights = {f"model.{key}": value for key, value in net.state_dict().items()}
    return {"losses": losses, "norms": norms, "weights": weights, "tokens": written}


@pytest.mark.parametrize(
    ("mesh", "accumulate"),
    [
        ("fsdp=2", 1),
        pytest.param("fsdp=2", 2, marks=pytest.mark.distributed),
        pytest.param("dp=2", 2, marks=pytest.mark.distributed),
        pytest.param("dp=2,fsdp=2", 1, marks=pytest.mark.distributed),
    ],
)
def test_equal_to_one_process(mesh: str, accumulate: int, tmp_path: Path) -> None:
    for found in run(all_cases, Mesh.parse(mesh).size, mesh, accumulate, tmp_path):
        for name, own in found.items():
            expected = of_one_process(name, accumulate)
            assert own["losses"] == pytest.approx(expected["losses"], abs=1e-9), name
            assert own["norms"] == pytest.approx(expected["norms"], abs=1e-9), name
            for key, tensor in own["weights"].items():
                torch.testing.assert_close(tensor, expected["weights"][key], atol=1e-9, rtol=0, msg=f"{name}: {key}")
            assert torch.equal(own["tokens"], expected["tokens"]), name


def refused(mesh: str) -> list[str]:
    found = []
    job = distribute(graph("plain"), "fsdp=2")
    tokens, mask, source, _ = batches("plain")[0]
    for ask in (
        lambda: distribute(graph("plain"), mesh),
        lambda: job.backward(tokens, mask),
        lambda: job.logits(source),
    ):
        with pytest.raises((UserError, ValueError)) as error:
            ask()
        found.append(str(error.value))
    return found


@pytest.mark.parametrize("mesh", ["tp=2", "pp=2", "cp=2"])
def test_what_is_refused_is_said_in_words(mesh: str) -> None:
    axes, source, logits = run(refused, 2, mesh)[0]
    assert axes == f"an encoder with its decoder is trained along dp and fsdp, not on {mesh}"
    assert "source= is what an encoder reads" in source
    assert "logits of one stream" in logits
