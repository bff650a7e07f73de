"""A kind of one's own, as the text of `blockdsl.registry.kinds` describes it: a depthwise convolution, for the Conformer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from textwrap import dedent
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, GraphError, Kind, Option, PatternError, UserError
from blockdsl.registry.positions import SCHEMES

from ..built_in import BUILT_IN, HAVE_KERNEL, LISTED

SIZES = {"dim": 12, "heads": 2, "attn_dim_head": 4}
CONFORMER = "(f/2 a dwconv f/2)*2"


class DepthwiseConv(nn.Module):
    """Each feature mixed over `kernel` neighbouring tokens: about as many on either side, or only those before."""

    def __init__(self, dim: int, kernel: int = 7, causal: bool = False) -> None:
        super().__init__()
        self.before = kernel - 1 if causal else (kernel - 1) // 2
        self.after = kernel - 1 - self.before
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:  # padding is as if there were no token
            x = x.masked_fill(~mask[..., None], 0.0)
        return self.conv(F.pad(x.transpose(1, 2), (self.before, self.after))).transpose(1, 2)


def conv_kind(**changes: Any) -> Kind:
    kind = Kind(
        name="dwconv",
        title="depthwise convolution",
        prefix="dwconv",
        options=(
            Option("kernel", int, 7, "width of the kernel", setting="dwconv_kernel", least=1),
            Option("causal", bool, False, "no token sees a later one", setting="causal"),
        ),
        inputs=("mask",),
        shapes=lambda o: {"conv.weight": (o.dim, 1, o.kernel), "conv.bias": (o.dim,)},
        flops=lambda o, sizes: 2 * sizes.batch * sizes.seq * o.dim * o.kernel,
        module=DepthwiseConv,
    )
    return replace(kind, **changes)


@pytest.fixture
def dwconv() -> Iterator[Kind]:
    kind = blockdsl.register(conv_kind())
    yield kind
    blockdsl.unregister("dwconv")


def graph(pattern: str, **keywords: Any) -> BlockGraph:
    return blockdsl.compile(pattern, **(SIZES | keywords))


def stack_of(g: BlockGraph) -> xt_blocks.Stack:
    stack = xt_blocks.lower(g).eval()
    assert isinstance(stack, xt_blocks.Stack)
    return stack


def kernels(g: BlockGraph) -> list[int]:
    return [g.nx.nodes[node]["options"]["kernel"] for node in g.nodes("block") if node.startswith("dwconv")]


# The documentation -------------------------------------------------------------------------------------------------


def test_the_documented_example_works_to_the_letter() -> None:
    text = import_module("blockdsl.registry.kinds").__doc__
    assert text is not None
    start = text.index("    import blockdsl")
    code = dedent(text[start : text.index("\n\nThe module is built")])
    try:
        exec(code, {})
        kind = blockdsl.kinds()["dwconv"]
        assert (kind.title, kind.prefix) == ("depthwise convolution", "dwconv")
        # the line it ends with, compiled and lowered
        stack = stack_of(graph("(f/2 a dwconv f/2)*12"))
        assert [type(block.layer).__name__ for block in stack.blocks.values()] == [
            *("FeedForward", "Attention", "DepthwiseConv", "FeedForward")
        ] * 12
        assert stack(torch.randn(2, 5, 12)).shape == (2, 5, 12)
        # its module is the one that these tests hold to more
        dwconv, own = stack.blocks["dwconv2"].layer, DepthwiseConv(12)
        own.load_state_dict(dwconv.state_dict())
        x, mask = torch.randn(2, 9, 12), torch.rand(2, 9) < 0.7
        assert torch.equal(dwconv(x, mask=mask), own(x, mask=mask))
        assert torch.equal(dwconv(x, mask=None), own(x))
    finally:
        blockdsl.unregister("dwconv")


# In patterns -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("dwconv")
def test_its_name_and_options_are_words_of_the_language() -> None:
    pattern = blockdsl.parse("(f/2 a dwconv(causal,kernel=3)>>1/2@x f/2)*2 dwconv@y")
    assert pattern.layer_types == ("f", "a", "dwconv", "f") * 2 + ("dwconv",)
    assert str(pattern) == "(f/2 a dwconv(kernel=3, causal)>>1/2@x f/2)*2 dwconv@y"  # in the order of the declaration
    assert blockdsl.parse(str(pattern)) == pattern


@pytest.mark.usefixtures("dwconv")
def test_its_options_come_from_block_then_keyword_then_text_then_default() -> None:
    assert kernels(graph("dwconv dwconv(kernel=3)")) == [7, 3]
    assert kernels(graph("set dwconv_kernel=5; dwconv dwconv(kernel=3)")) == [5, 3]
    assert kernels(graph("set dwconv_kernel=5; dwconv dwconv(kernel=3)", dwconv_kernel=9)) == [9, 3]
    stack = stack_of(graph("dwconv dwconv(kernel=3)", dwconv_kernel=9))
    assert [block.layer.conv.kernel_size for block in stack.blocks.values()] == [(9,), (3,)]


@pytest.mark.usefixtures("dwconv")
def test_it_follows_the_settings_it_shares() -> None:
    g = graph("dwconv dwconv(causal=false)", causal=True, use_rmsnorm=True)
    assert [g.nx.nodes[node]["options"]["causal"] for node in g.nodes("block")] == [True, False]
    assert all(isinstance(block.norm, nn.RMSNorm) for block in stack_of(g).blocks.values())


@pytest.mark.usefixtures("dwconv")
def test_wrong_options_point_at_the_text() -> None:
    with pytest.raises(PatternError) as error:
        blockdsl.parse("f dwconv(kernel=0)")
    assert str(error.value) == (
        "1:10: kernel must be a whole number of at least 1, not 0\n"
        "  f dwconv(kernel=0)\n"
        "           ^^^^^^^^\n"
        "  kernel: width of the kernel"
    )
    with pytest.raises(PatternError, match=r"1:8: 'dwconv' \(depthwise convolution\) has no option 'kernle'") as error:
        blockdsl.parse("dwconv(kernle=3)")
    assert error.value.hint == "did you mean 'kernel'?"
    with pytest.raises(PatternError) as error:
        blockdsl.parse("dwconv(dwconv_kernel=3)")
    assert error.value.hint == "did you mean 'kernel'? inside a block the prefix is left out"
    with pytest.raises(PatternError) as error:
        blockdsl.parse("a(kernel=3)")
    assert error.value.hint == f"'kernel' is an option of {HAVE_KERNEL}'dwconv' (depthwise convolution)"
    with pytest.raises(UserError, match="dwconv_kernel must be a whole number of at least 1, not 0"):
        graph("dwconv", dwconv_kernel=0)
    with pytest.raises(PatternError, match="unknown block 'dwcon'") as error:
        blockdsl.parse("dwcon")
    assert error.value.hint.startswith("did you mean 'dwconv' (depthwise convolution)?\n")


@pytest.mark.usefixtures("dwconv")
def test_it_may_be_tied_and_stand_in_branches() -> None:
    g = graph("(dwconv@k & a)*2 | dwconv(kernel=3)")
    assert g.tied()["dwconv0"] == ["dwconv0", "dwconv2"]
    assert [*stack_of(g).blocks] == ["dwconv0", "a1", "a3", "dwconv4"]
    with pytest.raises(PatternError, match="the tie 'k' has different options here than before: kernel"):
        graph("dwconv@k dwconv(kernel=3)@k")


@pytest.mark.usefixtures("dwconv")
def test_it_is_drawn_and_written_as_json() -> None:
    g = graph(CONFORMER)
    # a feedforward: 8·12·12 + 5·12 + 2·12; attention: 4·12·8 + 2·12; convolution: 7·12 + 12 + 2·12
    assert (4 * 1236) + (2 * 408) + (2 * 120) + 24 == 6024
    assert g.to_text() == dedent(
        """
        dim 12 · 2 heads of 4 · pre-norm LayerNorm · 8 blocks · 6,024 parameters
        input
        │
        │  (f/2 a dwconv f/2) ×2
        │     f/2      feedforward · GELU 48
        │     a        self-attention · 2 heads × 4
        │     dwconv   depthwise convolution
        │     f/2      feedforward · GELU 48
        │
        output · LayerNorm
        """
    ).strip("\n")
    back = BlockGraph.from_json(g.to_json())
    assert back == g
    assert {*stack_of(back).state_dict()} == {*stack_of(g).state_dict()}


# Costs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", [CONFORMER, "dwconv", "dwconv(kernel=3)@x a dwconv(kernel=3)@x", "dwconv & dwconv(kernel=2)"]
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.usefixtures("dwconv")
def test_costs_are_those_of_the_module(pattern: str, causal: bool) -> None:
    g = graph(pattern, causal=causal, dwconv_kernel=5)
    stack = stack_of(g)
    assert g.parameters() == sum(parameter.numel() for parameter in stack.parameters())
    x = torch.randn(3, 11, 12)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        stack(x)
    assert counter.get_total_flops() > 0
    assert abs(g.flops(11, batch=3) - counter.get_total_flops()) <= 0.02 * counter.get_total_flops()


@pytest.mark.usefixtures("dwconv")
def test_its_cost_by_hand() -> None:
    g = graph("dwconv(kernel=3)", dim=10)
    assert g.parameters() == (10 * 3 + 10) + 20 + 20
    assert g.flops(7, batch=2) == 2 * 2 * 7 * 10 * 3
    assert g.kv_cache_bytes(7) == 0


# Numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("dwconv")
def test_the_block_is_norm_then_convolution_then_scale_and_add() -> None:
    stack = stack_of(graph("dwconv(kernel=3)/2"))
    x = torch.randn(2, 5, 12)
    block = stack.blocks["dwconv0"]
    with torch.no_grad():
        h = F.layer_norm(x, (12,), block.norm.weight, block.norm.bias)
        want = x.clone()
        for t in range(5):
            mixed = block.layer.conv.bias.clone().expand(2, 12).clone()
            for k in range(3):
                if 0 <= t + k - 1 < 5:
                    mixed += block.layer.conv.weight[:, 0, k] * h[:, t + k - 1]
            want[:, t] += mixed / 2
        torch.testing.assert_close(stack(x), F.layer_norm(want, (12,), stack.norm.weight, stack.norm.bias))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.usefixtures("dwconv")
def test_padding_is_handed_in_and_changes_nothing(causal: bool) -> None:
    stack = stack_of(graph(CONFORMER, causal=causal, dwconv_kernel=5))
    x = torch.randn(2, 6, 12)
    junk = 100 * torch.randn(2, 3, 12)
    real, padding = torch.ones(2, 6, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)
    with torch.no_grad():
        want = stack(x)
        right = stack(torch.cat((x, junk), dim=1), mask=torch.cat((real, padding), dim=1))[:, :6]
        left = stack(torch.cat((junk, x), dim=1), mask=torch.cat((padding, real), dim=1))[:, 3:]
        torch.testing.assert_close(right, want)
        torch.testing.assert_close(left, want)
        # and without a mask the junk is seen: the mask is what hides it
        seen = stack(torch.cat((junk, x), dim=1))[:, 3:]
    assert (seen - want).abs().max() > 0.1


@pytest.mark.usefixtures("dwconv")
def test_a_causal_conformer_never_looks_ahead_and_the_other_does() -> None:
    for causal in (True, False):
        stack = stack_of(graph(CONFORMER, causal=causal))
        x = torch.randn(2, 7, 12)
        changed = x.clone()
        changed[:, 4:] += torch.randn(2, 3, 12)
        with torch.no_grad():
            before, after = stack(x), stack(changed)
        assert torch.equal(before[:, :4], after[:, :4]) is causal
        assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.usefixtures("dwconv")
def test_an_edited_convolution_lowers_to_what_the_graph_says() -> None:
    g = graph("a dwconv f")
    g.nx.nodes["dwconv1"]["options"] |= {"kernel": 3, "causal": True}
    stack = stack_of(g)
    assert stack.blocks["dwconv1"].layer.conv.kernel_size == (3,)
    assert stack.blocks["dwconv1"].layer.after == 0
    assert g.parameters() == sum(parameter.numel() for parameter in stack.parameters())
    g.nx.nodes["dwconv1"]["options"]["kernel"] = 0
    with pytest.raises(blockdsl.GraphError, match="dwconv1: kernel must be a whole number of at least 1, not 0"):
        g.lint()


# Decoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("dwconv")
def test_a_kind_that_keeps_no_state_says_why_nothing_is_cached() -> None:
    g = graph(CONFORMER, causal=True)
    assert g.why_not_cached() == "dwconv2 (depthwise convolution) keeps no state between steps"
    with pytest.raises(ValueError, match=r"no cache can be kept: dwconv2 \(depthwise convolution\) keeps no state"):
        stack_of(g).new_cache(1, 9)
    assert graph("(f/2 a f/2)*2", causal=True).why_not_cached() is None


# Registering -------------------------------------------------------------------------------------------------------


def test_unregistering_restores_the_language_and_the_settings() -> None:
    before = [*blockdsl.kinds()], str(blockdsl.parse("a f"))
    with pytest.raises(PatternError, match="unknown block 'dwconv'"):
        blockdsl.parse("dwconv")
    blockdsl.register(conv_kind())
    parsed = blockdsl.parse("f dwconv")
    g = graph("f dwconv", dwconv_kernel=3)
    blockdsl.unregister("dwconv")
    assert ([*blockdsl.kinds()], str(blockdsl.parse("a f"))) == before
    with pytest.raises(PatternError, match="unknown block 'dwconv'"):
        blockdsl.parse("dwconv")
    with pytest.raises(TypeError, match="dwconv_kernel"):
        graph("a", dwconv_kernel=3)
    # what was made before is refused with a sentence wherever the kind is asked for
    with pytest.raises(PatternError, match="1:3: unknown block 'dwconv'"):
        blockdsl.compile(parsed, **SIZES)
    with pytest.raises(blockdsl.GraphError, match=f"dwconv1: unknown block kind 'dwconv'; registered: {LISTED}"):
        xt_blocks.lower(g)
    for use in (g.parameters, g.to_text, g.why_not_cached):
        with pytest.raises(UserError, match=f"unknown block kind 'dwconv'; registered: {LISTED}"):
            use()
    blockdsl.unregister("dwconv")  # twice is no error
    with pytest.raises(UserError, match="'a' is built in"):
        blockdsl.unregister("a")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "a"}, "a block kind cannot be called 'a': it is taken"),
        ({"name": "macaron"}, "a block kind cannot be called 'macaron': it is taken"),
        ({"name": "set"}, "a block kind cannot be called 'set': it is taken"),
        ({"name": "sum"}, "a block kind cannot be called 'sum': it is taken"),
        (
            {"name": "dwconv1"},
            "a block kind cannot be called 'dwconv1': write letters and '_', with no digit at the end",
        ),
        ({"name": "my dwconv"}, "a block kind cannot be called 'my dwconv': write letters and '_', with no digit"),
        ({"name": ""}, "a block kind cannot be called '': write letters"),
        ({"shown": ("width",)}, "kind 'dwconv': shown names no option of it: width"),
        (
            {"inputs": ("masks",)},
            "kind 'dwconv': unknown inputs masks; the inputs are mask, attend, context, rotary, context_rotary, bias, scores",
        ),
        ({"inputs": ("rotary",)}, "kind 'dwconv': the input rotary needs the option dim_head"),
        ({"inputs": ("scores",)}, "kind 'dwconv': the input scores needs the option heads, residual_attn"),
        (
            {"options": (Option("pre_norm", bool, True, "norm first"),)},
            "kind 'dwconv': options are named twice: pre_norm",
        ),
        (
            {"options": (Option("mult", int, 2, "width", setting="ff_mult"),)},
            "kind 'dwconv': the settings ff_mult are taken",
        ),
    ],
)
def test_a_kind_that_cannot_be_is_refused_with_the_reason(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        blockdsl.register(conv_kind(**changes))
    assert problem in str(error.value)
    assert [*blockdsl.kinds()] == [*BUILT_IN]


def test_a_name_is_registered_once() -> None:
    kind = blockdsl.register(conv_kind())
    try:
        assert blockdsl.kinds()["dwconv"] is kind
        with pytest.raises(UserError, match="it is taken"):
            blockdsl.register(conv_kind(title="another"))
        assert blockdsl.kinds()["dwconv"] is kind
        again = blockdsl.register(conv_kind())  # the same declaration, as where a notebook's cell is run again
        assert blockdsl.kinds()["dwconv"] is again is not kind
        assert [*blockdsl.kinds()] == [*BUILT_IN, "dwconv"]
    finally:
        blockdsl.unregister("dwconv")


def test_a_kinds_own_check_refuses_options_that_clash() -> None:
    def check(o: Any) -> str | None:
        return f"kernel={o.kernel} is even, and only a causal kernel may be" if not (o.causal or o.kernel % 2) else None

    blockdsl.register(conv_kind(check=check))
    try:
        with pytest.raises(PatternError, match="1:3: kernel=4 is even, and only a causal kernel may be"):
            graph("f dwconv(kernel=4)")
        g = graph("dwconv(kernel=4)", causal=True)
        g.nx.nodes["dwconv0"]["options"]["causal"] = False
        with pytest.raises(blockdsl.GraphError, match="dwconv0: kernel=4 is even"):
            g.lint()
    finally:
        blockdsl.unregister("dwconv")


class Pool(nn.Module):
    """Adds the mean of the context: a kind that reads a context and is no attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return (context.mean(dim=1, keepdim=True) * self.scale).expand_as(x)


def test_a_kind_may_read_the_context_and_be_named_by_text() -> None:
    blockdsl.register(
        Kind(
            name="pool",
            title="mean of the context",
            options=(),
            inputs=("context",),
            shapes=lambda o: {"scale": (o.dim,)},
            flops=lambda o, sizes: 0,
            module=f"{__name__}:Pool",  # imported when lowered
        )
    )
    try:
        g = graph("pool | f")
        assert g.sources("pool0", "context") == ["context"]
        stack = stack_of(g)
        assert g.parameters() == sum(parameter.numel() for parameter in stack.parameters())
        x, context = torch.randn(2, 3, 12), torch.randn(2, 5, 12)
        out = stack.blocks["pool0"].layer(x, context=context)
        torch.testing.assert_close(out, context.mean(1)[:, None].expand(2, 3, 12))
        with torch.no_grad():
            moved = stack(x, context=context + 1)
        assert not torch.allclose(moved, stack(x, context=context))
        with pytest.raises(PatternError, match=r"'pool' \(mean of the context\) without a context"):
            graph("pool", context=False)
    finally:
        blockdsl.unregister("pool")


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"scale": (13,)}, "declares shape (13,) for its parameter 'scale', which has (12,) in its module (Pool)"),
        ({}, "does not declare the parameter 'scale' of its module, of shape (12,) (Pool)"),
        (
            {"scale": (12,), "bias": (12,)},
            "declares a parameter 'bias' of shape (12,), which its module does not have (Pool)",
        ),
    ],
)
def test_a_kind_whose_module_has_other_parameters_is_not_lowered(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    blockdsl.register(
        Kind(
            name="pool",
            title="mean of the context",
            options=(),
            inputs=("context",),
            shapes=lambda o: shapes,
            flops=lambda o, sizes: 0,
            module=Pool,
        )
    )
    try:
        with pytest.raises(GraphError) as caught:
            xt_blocks.lower(graph("pool"))
        assert str(caught.value) == f"kind 'pool' {said}"
    finally:
        blockdsl.unregister("pool")


def test_a_position_scheme_whose_module_has_other_parameters_is_not_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = (name for name, scheme in SCHEMES.items() if "rel_pos_bias" in scheme.switch)
    monkeypatch.setitem(SCHEMES, name, replace(SCHEMES[name], shapes=lambda o: {}))
    with pytest.raises(GraphError, match=f"position scheme '{name}' does not declare the parameter"):
        xt_blocks.lower(blockdsl.compile("a", rel_pos_bias=True, **SIZES))


class Scored(nn.Module):
    """Attention that reads rotations and scores, and hands scores on when asked."""

    def __init__(self, dim: int, heads: int, dim_head: int, residual_attn: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, rotary: Any, scores: Tensor | None, keep_scores: bool) -> Any:
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotary.apply(q), rotary.apply(k)
        own = q @ k.transpose(-1, -2)
        own = own if scores is None else own + scores
        out = self.to_out((own.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return (out, own) if keep_scores else out


def test_a_kind_may_take_positions_and_hand_on_scores() -> None:
    blockdsl.register(
        Kind(
            name="att",
            title="attention of one's own",
            options=(
                Option("heads", int, 2, "attention heads", setting="heads", least=1),
                Option("dim_head", int, 4, "features a head", least=1),
                Option("residual_attn", bool, True, "add earlier scores"),
            ),
            inputs=("rotary", "scores"),
            shapes=lambda o: {
                "to_qkv.weight": (3 * o.heads * o.dim_head, o.dim),
                "to_out.weight": (o.dim, o.heads * o.dim_head),
            },
            flops=lambda o, sizes: 0,
            module=Scored,
        )
    )
    try:
        g = graph("att a att", rotary_pos_emb=True)
        assert g.sources("att2", "scores") == ["att0"]  # of its own kind
        assert g.sources("att0", "position") == ["rotary2"]
        stack = stack_of(g)
        assert g.parameters() == sum(parameter.numel() for parameter in stack.parameters())
        assert stack(torch.randn(2, 5, 12)).shape == (2, 5, 12)
        with pytest.raises(PatternError, match="residual attention adds the scores of 2 heads to those of 3"):
            graph("att att(heads=3)")
        by_block = graph("att(rotary=false) att(rotary_theta=50, rotary_interleaved) att", rotary_pos_emb=True)
        read = [by_block.sources(node, "position") for node in by_block.nodes("block")]
        assert read == [[], ["rotary2"], ["rotary2x"]]
        node = by_block.nx.nodes["rotary2"]
        assert (node["theta"], node["interleaved"], by_block.nx.nodes["rotary2x"]["theta"]) == (50.0, True, 1e4)
        assert str(blockdsl.parse("att(rotary=false,heads=2)")) == "att(heads=2, rotary=false)"
    finally:
        blockdsl.unregister("att")


def test_a_kinds_own_option_comes_before_that_of_its_positions() -> None:
    kind = conv_kind(
        options=(
            Option("dim_head", int, 4, "features a head", least=1),
            Option("rotary_theta", int, 3, "something else"),
        ),
        inputs=("rotary",),
    )
    blockdsl.register(kind)
    try:
        names = [option.name for option in kind.written_options()]
        assert names.count("rotary_theta") == 1
        g = graph("dwconv(rotary_theta=5)", rotary_pos_emb=True, rotary_theta=9)
        assert g.nx.nodes["dwconv0"]["options"]["rotary_theta"] == 5
        assert g.nx.nodes["rotary2"]["theta"] == 9
    finally:
        blockdsl.unregister("dwconv")
