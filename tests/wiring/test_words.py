"""What a label cannot give is said; and a kind of one's own reads and gives as built-in ones do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockdsl
import xt_blocks
from blockdsl import Kind, Option
from xt_blocks.blocks.layer_output import LayerOutput

from .lines import SIZES


@pytest.mark.parametrize(
    ("text", "settings", "problem"),
    [
        ("a f ^k a(kv=k)", {}, "has no keys and values"),
        ("a ^k f a(kv=k, kv_heads=1)", {}, "2 heads of keys and values do not fit 1"),
        ("a ^k f a(kv=k, dim_head=4)", {}, "8 features of a value do not fit 4"),
        ("a ^k f a(kv=k, num_mem_kv=1)", {}, "0 memory key-values do not fit 1"),
        ("a ^v f a(values=v, value_dim_head=4)", {}, "8 features of a value do not fit 4"),
        ("a ^v f c(values=v)", {}, "whose this sequence's tokens do not fit the context's"),
        ("a(kv_rank=4) ^k f a(kv=k)", {}, "its keys and values are made of latents"),
        ("a ^k f a(kv=k, kv_rank=4)", {}, "kv is set beside kv_rank=4"),
        ("a ^k f a(kv=k, rotary=false)", {"rotary_pos_emb": True}, "rotated by other positions"),
        ("a ^k f a(kv=k, values=k)", {}, "kv takes the values of its label too"),
        ("a ^k f a(value_mix=learned)", {}, "value_mix=learned is set, but it needs values or value_embed"),
        ("a ^k f a(kv=k, value_embed=0)", {}, "value_embed=0 is set beside kv, but the values of another block are as"),
        (
            "a ^v f a(values=v, value_embed=0)",
            {},
            "beside values, but a block mixes its values with those of one other",
        ),
        ("a(value_embed=0) f a(value_embed=0, kv_heads=1)", {}, "value_embed=0 has 8 features here, and 16 before"),
        ("a(value_embed=0) f", {"dim_in": 4, "max_seq_len": 9}, "the model reads vectors"),
        ("a(value_embed=0, kv_rank=4)", {}, "beside kv_rank, but values are made of latents"),
        ("a ^s f a(scores=s, heads=4)", {}, "the scores of 2 heads to those of 4"),
        ("^u f a(concat=u, lora_rank=2, kv_rank=8)", {}, "latents are a low-rank form already"),
        ("^u a & (f f a(concat=u, shared_norm))", {}, "no branch before this one reads the same stream"),
        ("^u a & a(concat=u, shared_norm)", {}, "concat is set, but with shared_norm a branch reads what another"),
        (
            "^u a(concat=u) & f(shared_norm)",
            {},
            "shared_norm reads the stream as a0 norms it, and a0 norms more than it",
        ),
        ("a f(concat=u)", {}, "'f' (feedforward) has no option 'concat'"),
        ("a f(scale_residual, scale_residual_constant=0)", {}, "scale_residual_constant=0 leaves no residual"),
        ("a f(gate_residual, scale_residual_constant=0)", {}, "scale_residual_constant=0 leaves no residual"),
        ("a ^m f c(context=m, tokens_dropout=0.1)", {}, "tokens_dropout=0.1 hides tokens of another sequence"),
    ],
)
def test_what_does_not_fit_is_said(text: str, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(blockdsl.UserError) as error:
        blockdsl.compile(text, **SIZES, **settings)
    assert problem in str(error.value)


def test_a_graph_that_does_not_fit_is_said() -> None:
    graph = blockdsl.compile("a ^k f a(kv=k) a(kv_heads=1)", **SIZES)
    graph.nx.remove_edge("a0", "a2")
    graph.nx.add_edge("a3", "output", carries=("stream",))
    with pytest.raises(blockdsl.GraphError, match="a2: its option kv is on, and no nodes hand it kv"):
        xt_blocks.lower(graph)
    graph = blockdsl.compile("a ^k f a(kv=k)", **SIZES)
    graph.block("a2")["options"]["kv_heads"] = 1
    with pytest.raises(blockdsl.GraphError, match="2 heads of keys and values do not fit 1"):
        xt_blocks.lower(graph)


def test_a_module_alone_is_given_what_its_options_ask_for() -> None:
    x = torch.randn(2, 5, 16)
    first = xt_blocks.Attention(16, heads=2, dim_head=8, causal=True)
    reader = xt_blocks.Attention(16, heads=2, dim_head=8, causal=True, kv=True)
    out = first(x, gives=("kv",))
    assert out.gives is not None
    assert reader(x, kv=out.gives["kv"]).shape == x.shape
    with pytest.raises(ValueError, match="kv=True and values=False"):
        reader(x)
    with pytest.raises(ValueError, match="kv=False and values=False"):
        first(x, kv=out.gives["kv"])


class Counter(nn.Module):
    """Gives how many tokens it has seen, and adds nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, gives: Collection[str] = ()) -> Any:
        return LayerOutput(torch.zeros_like(x), gives={"tokens": x.shape[1]}) if gives else torch.zeros_like(x)


class Reader(nn.Module):
    """Adds the stream elsewhere, times what a counter gave."""

    def __init__(self, dim: int, beside: bool, times: bool) -> None:
        super().__init__()

    def forward(self, x: Tensor, beside: Tensor | None = None, times: int = 1) -> Tensor:
        return torch.zeros_like(x) if beside is None else beside * times


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((Option("u", int, 1, "", reads="u"),), "its type is bool, its default False, and no setting sets it"),
        ((Option("u", bool, False, "", reads="stream"),), "cannot read stream"),
        ((Option("mask", bool, False, "", reads="u"),), "its name is that of the input mask"),
        ((Option("u", bool, False, "", reads="u"), Option("v", bool, False, "", reads="u")), "as another one does"),
    ],
)
def test_an_option_that_takes_a_label_is_declared_well(options: tuple[Option, ...], problem: str) -> None:
    with pytest.raises(blockdsl.UserError, match=problem):
        blockdsl.register(Kind("reader", "reader", options, lambda o: {}, lambda o, sizes: 0, Reader))


def test_a_kind_of_ones_own_reads_and_gives() -> None:
    options = (
        Option("beside", bool, False, "a label: the stream there is added", reads="beside"),
        Option("times", bool, False, "a label after a counter: it is multiplied by its count", reads="tokens"),
    )
    common: dict[str, Any] = {"shapes": lambda o: {}, "flops": lambda o, sizes: 0, "state": lambda o: {}}
    blockdsl.register(Kind("counter", "counter", (), module=Counter, gives=("tokens",), **common))
    blockdsl.register(Kind("reader", "reader", options, module=Reader, **common))
    try:
        stack = xt_blocks.lower(blockdsl.compile("^u f counter ^n f reader(beside=u, times=n)", **SIZES))
        x = torch.randn(2, 5, 16)
        f0, f2 = stack.blocks["f0"], stack.blocks["f2"]  # type: ignore[index]
        after = f2(f0(x).stream).stream  # type: ignore[operator]
        torch.testing.assert_close(stack(x), stack.norm(after + 5 * x))
        with pytest.raises(blockdsl.UserError, match="times reads f0"):
            blockdsl.compile("f ^n reader(times=n)", **SIZES)
    finally:
        blockdsl.unregister("counter")
        blockdsl.unregister("reader")


def test_each_use_has_terms_of_its_own_that_start_at_nothing() -> None:
    tied, alone = (xt_blocks.lower(blockdsl.compile(text, **SIZES)) for text in ("(a f)@s*3", "(a f)@s*3"))
    text = "(a(lora_rank=3) f(lora_rank=2))@s*3"
    uses = xt_blocks.lower(blockdsl.compile(text, **SIZES))
    shared = uses.load_state_dict(tied.state_dict(), strict=False)
    assert {*shared.missing_keys} == {
        f"blocks.{block}.layer.lora.{name}_weight" for block in ("a0", "f1") for name in ("down", "up")
    }
    terms = 3 * (3 * 3 * 16 + 48 * 3) + 3 * (2 * 16 + 64 * 2)  # uses times an A and a B, of a: three of each
    assert uses.graph.parameters() == tied.graph.parameters() + terms
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(uses(x), tied(x))
    assert alone.graph.diff(uses.graph)
    with torch.no_grad():
        uses.blocks["f1"].layer.lora.up_weight[1] += 1  # type: ignore[union-attr,index,operator]
    seen = xt_blocks.Intermediates()
    uses(x, intermediates=seen)
    first, second = (seen.streams[node] for node in ("a2", "a4"))
    reference = xt_blocks.Intermediates()
    tied(x, intermediates=reference)
    torch.testing.assert_close(first, reference.streams["a2"])
    assert not torch.allclose(second, reference.streams["a4"])  # the second use's alone


def test_a_repeat_with_terms_of_its_own_is_not_repeated_more_often() -> None:
    stack = xt_blocks.lower(blockdsl.compile("(a f(lora_rank=2))@core*3", **SIZES))
    with pytest.raises(blockdsl.UserError, match="f1: each repeat has parameters of its own"):
        xt_blocks.with_loops(stack, core=4)
    assert xt_blocks.with_loops(stack, core=3)(torch.randn(1, 3, 16)).shape == (1, 3, 16)


def test_a_layer_alone_is_one_of_its_uses() -> None:
    x = torch.randn(2, 5, 16)
    for make, options in (
        (xt_blocks.Attention, {"heads": 2, "dim_head": 8, "causal": True}),
        (xt_blocks.FeedForward, {}),
    ):
        layer, plain = make(16, uses=2, lora_rank=3, **options), make(16, **options)  # type: ignore[operator]
        with torch.no_grad():
            layer.lora.up_weight.normal_()
        first = "to_qkv" if make is xt_blocks.Attention else "to_hidden"
        state = {name: t for name, t in layer.state_dict().items() if "lora" not in name}
        for use in (0, 1):
            parts = 3 if make is xt_blocks.Attention else 1
            down, up = (t[use].chunk(parts) for t in (layer.lora.down_weight, layer.lora.up_weight))
            term = torch.cat([b @ a for a, b in zip(down, up, strict=True)])
            plain.load_state_dict({**state, f"{first}.weight": state[f"{first}.weight"] + term})
            torch.testing.assert_close(layer(x, use=use), plain(x))


def test_a_kind_of_ones_own_reads_beside_the_stream() -> None:
    class Halves(nn.Module):
        def __init__(self, dim: int, concat: bool) -> None:
            super().__init__()
            self.linear = nn.Linear(2 * dim if concat else dim, dim)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    blockdsl.register(
        Kind(
            name="halves",
            title="linear layer of two streams",
            options=(Option("concat", bool, False, "a label: read beside the stream", reads="concat"),),
            shapes=lambda o: {"linear.weight": (o.dim, o.dim_in), "linear.bias": (o.dim,)},
            flops=lambda o, sizes: 2 * sizes.batch * sizes.seq * o.dim_in * o.dim,
            module=Halves,
            state=lambda o: {},
        )
    )
    try:
        stack = xt_blocks.lower(blockdsl.compile("^u f halves(concat=u)>>1", **SIZES))
        x = torch.randn(2, 5, 16)
        assert sum(p.numel() for p in stack.parameters()) == stack.graph.parameters()
        block = stack.blocks["halves1"]
        y = stack.blocks["f0"](x).stream
        both = block.norm(torch.cat((y, x), dim=-1))  # type: ignore[union-attr,operator]
        shifted = both.clone()
        shifted[:, 0, 16:], shifted[:, 1:, 16:] = 0, both[:, :-1, 16:]  # the later half of the features
        torch.testing.assert_close(stack(x), stack.norm(y + block.layer(shifted)))  # type: ignore[union-attr,operator,misc]
        cache = stack.new_cache(2, 5)
        steps = torch.cat([stack(x[:, t : t + 1], cache=cache) for t in range(5)], dim=1)
        torch.testing.assert_close(steps, stack(x))
        assert cache.bytes() == stack.graph.kv_cache_bytes(5, 2)
        with pytest.raises(blockdsl.UserError, match="the one that reads concat is called so"):
            blockdsl.register(
                Kind(
                    "other", "other", (Option("beside", bool, False, "", reads="concat"),), dict, lambda o, s: 0, Halves
                )
            )
    finally:
        blockdsl.unregister("halves")
