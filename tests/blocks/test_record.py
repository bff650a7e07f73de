"""What a pass went through, in numbers that can be worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import UserError
from xt_blocks import Decoder, Encoder, Stack, TransformerWrapper, XTransformer, attention_map, record

from .variants import VARIANTS, inputs, stack

SIZES = {"dim": 8, "heads": 2, "attn_dim_head": 4}


def built(pattern: str, **settings: Any) -> Stack:
    """A stack in which every query is zero, so that a token attends alike to all it sees, and each map to the
    stream gives zero, with a bias of 2 in each feedforward."""
    model = xt_blocks.lower(blockdsl.compile(pattern, **(SIZES | settings)))
    assert isinstance(model, Stack)
    return plain(model)


def plain(model: Any) -> Any:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("to_qkv.weight", "to_q.weight", "to_out.weight")):
                parameter.zero_()
            if name.endswith("to_out.bias"):
                parameter.fill_(2.0)
    return model


def norms(found: dict[str, Any]) -> dict[str, tuple[float, float]]:
    return {node: (row["stream_norm"], row["branch_norm"]) for node, row in found.items()}


def mean_log(*counts: int) -> float:
    """The mean entropy of queries that attend alike to so many keys each."""
    return sum(map(math.log, counts)) / len(counts)


def test_norms_of_the_stream_and_of_each_branch() -> None:
    found = record(built("a f f/2 a"), torch.full((2, 5, 8), 3.0))
    assert norms(found) == {"a0": (3, 0), "f1": (3, 2), "f2": (5, 1), "a3": (6, 0)}
    assert json.loads(json.dumps(found)) == found
    assert found["f1"]["attention_entropy"] is None


def test_the_norm_is_a_root_mean_square_over_features_and_a_mean_over_tokens() -> None:
    x = torch.tensor([[[4.0, 0, 0, 0, 0, 0, 0, 0], [8.0, -8, 8, 8, -8, 8, 8, 8]]])
    assert record(built("f"), x)["f0"]["stream_norm"] == pytest.approx((math.sqrt(2) + 8) / 2)


def test_tied_blocks_have_each_their_own() -> None:
    found = record(built("f@x f@x/2 f@y f@x/4"), torch.full((1, 3, 8), 3.0))
    assert norms(found) == {"f0": (3, 2), "f1": (5, 1), "f2": (6, 2), "f3": (8, 0.5)}


def test_branches_side_by_side_read_one_stream() -> None:
    found = record(built("(f & (f/2 f)) f"), torch.full((1, 3, 8), 3.0))
    assert norms(found) == {"f0": (3, 2), "f1": (3, 1), "f2": (4, 2), "f3": (8, 2)}


def test_a_branch_is_measured_before_the_residual_does_more_than_add() -> None:
    found = record(built("f f", pre_norm=False), torch.full((1, 3, 8), 3.0))
    assert norms(found)["f0"] == (3, 2)
    assert norms(found)["f1"] == (0, 2), "the norm of a constant is 0"
    found = record(built("f f", scale_residual_constant=2.0), torch.full((1, 3, 8), 3.0))
    assert norms(found) == {"f0": (3, 2), "f1": (8, 2)}


def test_entropy_of_queries_that_attend_alike_to_all_they_see() -> None:
    x = torch.randn(2, 4, 8)

    def entropy(pattern: str, **settings: Any) -> Any:
        return record(built(pattern, **settings), x)["a0"]["attention_entropy"]

    assert entropy("a") == pytest.approx([math.log(4)] * 2)
    assert entropy("a", causal=True) == pytest.approx([mean_log(1, 2, 3, 4)] * 2)
    assert entropy("a", causal=True, attn_num_mem_kv=3) == pytest.approx([mean_log(4, 5, 6, 7)] * 2)
    assert entropy("a", causal=True, attn_max_attend_past=1) == pytest.approx([mean_log(1, 2, 2, 2)] * 2)
    assert entropy("a(heads=3)") == pytest.approx([math.log(4)] * 3)


def test_entropy_of_two_keys_by_hand() -> None:
    model = built("a", heads=1, attn_dim_head=1, pre_norm=False)
    with torch.no_grad():  # the query and the key are the first feature
        model.blocks["a0"].layer.to_qkv.weight[:2, 0] = 1.0  # type: ignore[union-attr, index, operator]
    x = torch.zeros(1, 2, 8)
    x[0, :, 0] = torch.tensor([1.0, 2.0])
    expected = 0.0
    for query in (1, 2):
        odds = [math.exp(query * key) for key in (1, 2)]
        expected -= sum(w / sum(odds) * math.log(w / sum(odds)) for w in odds) / 2
    found = record(model, x)["a0"]
    assert found["attention_entropy"] == pytest.approx([expected])
    weights = attention_map(model, x, "a0", 0)
    assert weights[0].tolist() == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)])


def test_padding_counts_for_nothing() -> None:
    x = torch.full((2, 4, 8), 3.0)
    x[1, 2:] = 1000.0
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    found = record(built("a f"), x, mask=mask)
    assert norms(found) == {"a0": (3, 0), "f1": (3, 2)}
    assert found["a0"]["attention_entropy"] == pytest.approx([mean_log(4, 4, 4, 4, 2, 2)] * 2)


def test_queries_that_see_nothing_count_for_nothing() -> None:
    model, x = built("a c"), torch.ones(2, 3, 8)
    context_mask = torch.tensor([[True] * 5, [False] * 5])
    found = record(model, x, context=torch.ones(2, 5, 8), context_mask=context_mask)
    assert found["c1"]["attention_entropy"] == pytest.approx([math.log(5)] * 2)
    nothing = record(model, x, context=torch.ones(2, 5, 8), context_mask=torch.zeros(2, 5, dtype=torch.bool))
    assert nothing["c1"]["attention_entropy"] == [0.0, 0.0]
    empty = record(model, x, context=torch.ones(2, 5, 8), mask=torch.zeros(2, 3, dtype=torch.bool))
    assert empty["a0"] == {"stream_norm": 0.0, "branch_norm": 0.0, "attention_entropy": [0.0, 0.0], "statistics": {}}


# Models around stacks ------------------------------------------------------------------------------------------------


def test_a_model_over_tokens_with_memory_tokens() -> None:
    model = plain(
        TransformerWrapper(
            num_tokens=9,
            max_seq_len=8,
            num_memory_tokens=2,
            attn_layers=Decoder(pattern="a f", **SIZES),
        )
    )
    found = record(model, torch.randint(0, 9, (1, 3)))
    assert found["a0"]["attention_entropy"] == pytest.approx([mean_log(1, 2, 3, 4, 5)] * 2)
    assert found["f1"]["branch_norm"] == 2
    assert attention_map(model, torch.randint(0, 9, (1, 3)), "a0", 1).shape == (5, 5)


def test_both_sides_of_an_encoder_and_decoder() -> None:
    model = plain(
        XTransformer(
            dim=8,
            enc_num_tokens=9,
            enc_max_seq_len=8,
            enc_pattern="a f",
            enc_heads=2,
            dec_num_tokens=9,
            dec_max_seq_len=8,
            dec_pattern="a c f",
            dec_heads=2,
        )
    )
    src, tgt = torch.randint(0, 9, (2, 6)), torch.randint(0, 9, (2, 4))
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 3:] = False
    found = record(model, src, tgt, mask=mask)
    assert [*found] == ["encoder.a0", "encoder.f1", "decoder.a0", "decoder.c1", "decoder.f2"]
    entropies = {node: row["attention_entropy"] for node, row in found.items()}
    assert entropies["encoder.a0"] == pytest.approx([mean_log(*[3] * 3, *[6] * 6)] * 2)
    assert entropies["decoder.a0"] == pytest.approx([mean_log(1, 2, 3)] * 2)
    assert entropies["decoder.c1"] == pytest.approx([mean_log(3, 6)] * 2)
    assert attention_map(model, src, "decoder.c1", 0, tgt=tgt).shape == (3, 6)


def test_wrappers_around_a_model_and_several_passes() -> None:
    def model(**tokens: Any) -> TransformerWrapper:
        layers = Decoder(pattern="a f", **SIZES)
        return plain(TransformerWrapper(num_tokens=9, max_seq_len=4, attn_layers=layers, **tokens))

    tokens = torch.randint(0, 9, (2, 5))
    found = record(xt_blocks.AutoregressiveWrapper(model()), tokens)
    assert found["a0"]["attention_entropy"] == pytest.approx([mean_log(1, 2, 3, 4)] * 2)
    # Two segments of 4 and 3 tokens; the second sees the first, and is the last pass.
    found = record(xt_blocks.XLAutoregressiveWrapper(model(max_mem_len=4)), torch.randint(0, 9, (2, 8)))
    assert found["a0"]["attention_entropy"] == pytest.approx([mean_log(5, 6, 7)] * 2)
    assert norms(found)["f1"][1] == 2


def test_a_model_of_ones_own_with_stacks_deep_inside() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"one": built("f"), "two": built("f/2")})

        def forward(self, x: Tensor) -> Tensor:
            return self.parts["two"](self.parts["one"](x, mask=None), None, None)

    found = record(Own(), torch.full((1, 2, 8), 3.0))
    assert {node: row["branch_norm"] for node, row in found.items()} == {"parts.one.f0": 2, "parts.two.f0": 1}


def test_the_model_is_left_as_it_was() -> None:
    model = built("a f(dropout=0.9)", layer_dropout=0.5).train()
    model.blocks["f1"].eval()
    modes = [module.training for module in model.modules()]
    found = record(model, torch.full((1, 2, 8), 3.0))
    assert norms(found)["f1"] == (3, 2), "nothing is dropped"
    assert modes == [module.training for module in model.modules()]
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="x must be"):
        record(model, torch.ones(1, 2, 7))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert modes == [module.training for module in model.modules()]


def test_what_runs_no_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="no stack of blocks ran in Linear"):
        record(nn.Linear(2, 2), torch.ones(1, 2))


# Every option ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recorded(name: str) -> None:
    """Against the streams: where blocks only add and stand in a row, a branch is the difference of two streams."""
    torch.manual_seed(0)
    model = stack(name)
    x, more = inputs(model)
    found = record(model, x, **more)
    assert [*found] == [step.node for step in model.plan if step.block is not None]
    for node, row in found.items():
        options = model.graph.nx.nodes[node]["options"]
        assert math.isfinite(row["stream_norm"])
        assert row["branch_norm"] >= 0
        heads = options.get("heads")
        assert len(row["attention_entropy"] or []) == (heads or 0)
        most = math.log(12 + options.get("num_mem_kv", 0))
        assert all(0 <= entropy <= most for entropy in row["attention_entropy"] or [])
    rows = [model.graph.nx.nodes[node]["options"] for node in found]
    if (
        all(
            o["pre_norm"] and not o["pre_and_post_norm"] and not o["scale_residual"] and not o["gate_residual"]
            for o in rows
        )
        and rows[0]["num_residual_streams"] == 1
        and "&" not in VARIANTS[name][0]
    ):
        seen = xt_blocks.Intermediates()
        with torch.no_grad():
            model(x, intermediates=seen, **more)
        for before, after, row in zip(seen.layer_hiddens, seen.layer_hiddens[1:], found.values(), strict=False):
            expected = (after - before).square().mean(dim=-1).sqrt().mean().item()
            assert row["branch_norm"] == pytest.approx(expected, rel=1e-3, abs=1e-5)


# Maps ------------------------------------------------------------------------------------------------------------------


def test_a_map_is_the_rows_that_the_model_itself_returns() -> None:
    layers = Decoder(pattern="(a f)*2", rotary_pos_emb=True, attn_num_mem_kv=1, **SIZES)
    model = TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=layers).eval()
    tokens = torch.randint(0, 9, (2, 5))
    _, maps = model(tokens, return_attn=True)
    for row, head, place, node in ((0, 1, 0, "a0"), (1, 0, 1, "a2")):
        found = attention_map(model, tokens, node, head, row=row)
        torch.testing.assert_close(found, maps[place][row, head])
        assert found.shape == (5, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: attention_map(m, x, "f1", 0), "f1 has no attention; those with attention are a0, a2"),
        (lambda m, x: attention_map(m, x, "a1", 0), "a1 is not a block of the model; those with attention are a0, a2"),
        (lambda m, x: attention_map(m, x, "a0", 2), "head must be from 0 to 1, not 2"),
        (lambda m, x: attention_map(m, x, "a0", 0, row=-1), "row must be from 0 to 0, not -1"),
    ],
)
def test_a_map_that_there_is_not_is_refused(call: Callable[[Any, Tensor], Tensor], message: str) -> None:
    model = Encoder(pattern="a f a", **SIZES)
    with pytest.raises(UserError, match=message):
        call(model, torch.ones(1, 3, 8))


def test_a_read_has_the_sizes_and_factors_of_what_joins_the_stream() -> None:
    model = built("^u f ^u (<u(all, gain, init=0.5))@r <u(0, gate)/2 <u(all, soft) f <u(1) (<u(first, cat) & f)")
    found = record(model, torch.full((2, 3, 8), 3.0), mask=torch.tensor([[True] * 3, [False, True, True]]))
    # 3, f: 5, gain: 5 + (3 + 5) / 2 = 9, gate: 9 + 3 / 2 / 2 = 9.75, soft: (3 + 5) / 2 = 4, f: 6, + 5 = 11
    assert [*found] == ["f0", "read0", "read1", "read2", "f1", "read3", "read4", "f2"]
    assert {node: norms(found)[node] for node in ("read0", "read1", "read2", "read3")} == {
        "read0": (5, 4),
        "read1": (9, 0.75),
        "read2": (9.75, 5.75),
        "read3": (6, 5),
    }
    assert {node: row["statistics"] for node, row in found.items() if node in ("read0", "read1", "read2", "read3")} == {
        "read0": {"read_norm": [3, 5], "gain": [0.5, 0.5]},
        "read1": {"read_norm": [3], "gate": [0.5]},
        "read2": {"read_norm": [3, 5], "soft": [0.5, 0.5]},
        "read3": {"read_norm": [5]},
    }
    assert norms(found)["read4"][0] == norms(found)["f2"][0] == 11
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(UserError, match="read0 is not a block of the model"):
        attention_map(model, torch.full((1, 3, 8), 3.0), "read0", 0)
    several = record(built("^u f <u(gate)", num_residual_streams=2), torch.full((1, 3, 8), 3.0))
    assert several["read0"]["statistics"]["gate"] == [0.5]
