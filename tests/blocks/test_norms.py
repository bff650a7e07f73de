"""What norms are made of (eps, gain, bias, gains kept as offsets), written out in float64, and where the options reach."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import PatternError, UserError
from blockdsl.draw.words.operations import Operation, steps
from blockdsl.registry.kinds import kind_of
from blockdsl.registry.norms import Norm
from xt_blocks.blocks.norms import norm

DIM = 6
NAMES = ("layernorm", "rmsnorm", "scalenorm")
DETAILS: list[dict[str, Any]] = [
    {"norm_eps": eps, "norm_bias": bias, "norm_gain": gain, "norm_unit_offset": offset}
    for eps, bias, gain, offset in itertools.product((None, 0.3), (True, False), (True, False), (False, True))
    if gain or not offset
]


def written_out(x: Tensor, name: str, details: dict[str, Any], weights: dict[str, Tensor]) -> Tensor:
    """A norm, a token and a feature at a time."""
    eps = details["norm_eps"]
    eps = (1e-5 if name == "layernorm" else 1e-8) if eps is None else eps
    out = torch.empty_like(x)
    for row, token in itertools.product(range(x.shape[0]), range(x.shape[1])):
        features = x[row, token].tolist()
        mean = sum(features) / len(features) if name == "layernorm" else 0.0
        square = sum((feature - mean) ** 2 for feature in features) / len(features)
        for i, feature in enumerate(features):
            gain = 1.0
            if details["norm_gain"]:
                gain = weights["weight"][i if name != "scalenorm" else 0].item() + (
                    1 if details["norm_unit_offset"] else 0
                )
            bias = weights["bias"][i].item() if name == "layernorm" and details["norm_bias"] else 0.0
            out[row, token, i] = gain * (feature - mean) / math.sqrt(square + eps) + bias
    return out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("details", DETAILS, ids=str)
def test_a_norm_is_its_formula(name: str, details: dict[str, Any]) -> None:
    spec = Norm.of(name, details)
    own = norm(spec, DIM).double()
    assert sum(p.numel() for p in own.parameters()) == spec.parameters(DIM)
    x = torch.randn(2, 3, DIM, dtype=torch.float64)
    plain = written_out(x, name, details | {"norm_gain": False, "norm_bias": False}, {})
    torch.testing.assert_close(own(x), plain)  # as it starts, with a gain of one
    for parameter in own.parameters():
        parameter.data = torch.randn_like(parameter)
    torch.testing.assert_close(own(x), written_out(x, name, details, own.state_dict()))
    if spec.gain or spec.bias:
        assert torch.autograd.gradcheck(lambda x, *_: own(x), (x.requires_grad_(), *own.parameters()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", [{}, {"sandwich_norm": True}, {"pre_norm": False}], ids=str)
@pytest.mark.parametrize("details", DETAILS, ids=str)
def test_the_settings_reach_every_norm_and_costs_count_it(
    name: str, place: dict[str, Any], details: dict[str, Any]
) -> None:
    settings = {f"use_{name}": True} if name != "layernorm" else {}
    graph = blockdsl.compile("a f", dim=DIM, heads=2, attn_dim_head=3, **settings, **place, **details)
    graph = graph.with_tokens(7, 9, post_emb_norm=True)
    model = xt_blocks.lower(graph)
    assert graph.parameters() == sum(p.numel() for p in model.parameters())
    x = torch.randn(2, 3, DIM)
    stack = model.attn_layers
    norms = [(name, block.norm) for block in stack.blocks.values()] + [("layernorm", model.post_emb_norm)]
    norms += [(name, b.sandwich_norm) for b in stack.blocks.values() if place.get("sandwich_norm")]
    norms += [(name, stack.norm)] if place.get("pre_norm", True) else []
    for which, module in norms:
        want = written_out(x, which, details, module.state_dict())
        torch.testing.assert_close(module(x), want, rtol=1e-5, atol=1e-5)


def test_a_block_has_its_own() -> None:
    graph = blockdsl.compile("set norm_eps=0.5; f f(norm_eps=none) f(norm_eps=1e-12, norm_bias=false)", dim=DIM)
    eps = [block.norm.eps for block in xt_blocks.lower(graph).blocks.values()]
    assert eps == [0.5, 1e-5, 1e-12]
    assert [graph.block(node)["options"]["norm_bias"] for node in graph.nodes("block")] == [True, True, False]
    assert graph.nx.nodes[graph.end]["norm_eps"] == 0.5


def test_text_and_keywords_say_the_same() -> None:
    text = "set dim=6, use_rmsnorm, norm_eps=1e-06, norm_unit_offset; (a f)*2"
    ours = blockdsl.compile(text)
    assert not ours.diff(blockdsl.compile("(a f)*2", dim=6, use_rmsnorm=True, norm_eps=1e-6, norm_unit_offset=True))
    assert not ours.diff(blockdsl.BlockGraph.from_json(ours.to_json()))
    difference = ours.diff(blockdsl.compile("(a f)*2", dim=6, use_rmsnorm=True, norm_eps=1e-5, norm_unit_offset=True))
    (end,) = difference.settings
    assert [(c.name, c.before, c.after) for c in end.changes] == [("norm_eps", 1e-6, 1e-5)]
    assert len(difference.blocks) == 4


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("f", {"norm_eps": 0}, "norm_eps must be a number above 0 or none, not 0"),
        (
            "f",
            {"norm_unit_offset": True, "norm_gain": False},
            "norm_unit_offset is set, but norm_gain=false leaves no gain",
        ),
    ],
)
def test_what_is_refused(text: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        blockdsl.compile(text, dim=DIM, **settings)
    assert str(error.value) == message
    with pytest.raises(PatternError):
        blockdsl.compile(f"f(norm_unit_offset=true, norm_gain=false) {text}", dim=DIM)


def test_a_drawing_says_what_is_not_usual() -> None:
    graph = blockdsl.compile("f", dim=DIM, norm_bias=False, norm_eps=1e-6)
    assert "output · LayerNorm without bias, eps 1e-6" in graph.to_text()
    assert "LayerNorm without bias" in graph.to_svg()
    graph = blockdsl.compile("f", dim=DIM, use_rmsnorm=True, norm_unit_offset=True)
    assert "RMSNorm × (1 + gain)" in graph.to_text()


# Where they are ----------------------------------------------------------------------------------------------------


def rms(x: Tensor, gain: Tensor, eps: float = 1e-8) -> Tensor:
    return gain * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def randomised(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model.double()


def test_each_place_of_a_norm() -> None:
    text = "f f(norm=false) f(output_norm) f(sandwich_norm) f(pre_norm=false) f(pre_norm=false, norm=false)"
    graph = blockdsl.compile(text, dim=DIM, ff_mult=1, ff_no_bias=True, use_rmsnorm=True, final_norm=False)
    stack = randomised(xt_blocks.lower(graph))
    assert graph.parameters() == sum(p.numel() for p in stack.parameters())
    w = stack.state_dict()

    def layer(i: int, x: Tensor) -> Tensor:
        hidden = x @ w[f"blocks.f{i}.layer.to_hidden.weight"].T
        return (hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2) @ w[f"blocks.f{i}.layer.to_out.weight"].T

    def gain(i: int, name: str = "norm") -> Tensor:
        return w[f"blocks.f{i}.{name}.weight"]

    x = y = torch.randn(2, 3, DIM, dtype=torch.float64)
    y = y + layer(0, rms(y, gain(0)))
    y = y + layer(1, y)
    y = y + rms(layer(2, y), gain(2, "sandwich_norm"))
    y = y + rms(layer(3, rms(y, gain(3))), gain(3, "sandwich_norm"))
    y = rms(y + layer(4, y), gain(4))
    y = y + layer(5, y)
    torch.testing.assert_close(stack(x), y)


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({}, "layernorm"),
        ({"pre_norm": False}, None),
        ({"final_norm": False}, None),
        ({"pre_norm": False, "final_norm": True}, "layernorm"),
        ({"output_norm": True, "use_rmsnorm": True}, "rmsnorm"),
        ({"norm": False}, "layernorm"),
    ],
)
def test_the_final_norm(settings: dict[str, Any], last: str | None) -> None:
    graph = blockdsl.compile("f", dim=DIM, **settings)
    assert graph.nx.nodes[graph.end]["norm"] == last
    assert graph.parameters() == sum(p.numel() for p in xt_blocks.lower(graph).parameters())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("output_norm, sandwich_norm", "sandwich_norm and output_norm are both set; give one"),
        ("output_norm, pre_norm=false", "output_norm is set, but it needs pre_norm"),
        ("sandwich_norm, norm=false", "sandwich_norm is set, but norm=false leaves the block no norm"),
        ("output_norm, norm=false", "output_norm is set, but norm=false leaves the block no norm"),
    ],
)
def test_places_that_clash(options: str, problem: str) -> None:
    with pytest.raises(PatternError) as error:
        blockdsl.compile(f"f({options})", dim=DIM)
    assert error.value.problem == problem


def operations(graph: blockdsl.BlockGraph, node: str) -> list[Operation]:
    return steps(kind_of(graph.block(node)["kind"]), graph.completed(node))


def test_the_operations_of_a_block_have_its_norms_in_place() -> None:
    graph = blockdsl.compile("f f(output_norm) f(norm=false)", dim=DIM, use_rmsnorm=True, norm_unit_offset=True)
    offset = "RMSNorm × (1 + gain)"
    layer = ["linear 6 → 24 + bias", "GELU", "linear 24 → 6 + bias"]
    shown = [[operation.text for operation in operations(graph, node)] for node in ("f0", "f1", "f2")]
    assert shown == [[offset, *layer], [*layer, offset], layer]


# Of queries and keys -----------------------------------------------------------------------------------------------

HEADS, KV_HEADS, DIM_HEAD = 4, 2, 3


def attention_by_hand(x: Tensor, source: Tensor, options: dict[str, Any], w: dict[str, Tensor]) -> Tensor:
    """Attention of a batch of one, a head at a time, its queries and keys normed."""
    kind, eps = ("rms", options.get("qk_rmsnorm_eps", 1e-6)), options.get("qk_layernorm_eps", 1e-5)
    which = options.get("qk_rmsnorm") or options.get("qk_layernorm")
    of_layer = "qk_layernorm" in options
    eps = eps if of_layer else kind[1]
    sizes = [HEADS * DIM_HEAD, KV_HEADS * DIM_HEAD, KV_HEADS * DIM_HEAD]
    if "to_qkv.weight" in w:
        wq, wk, wv = w["to_qkv.weight"].split(sizes)
    else:
        wq, (wk, wv) = w["to_q.weight"], w["to_kv.weight"].split(sizes[1:])

    def normed(features: Tensor, part: str) -> list[Tensor]:
        gain = w[f"qk_norm.{part}.weight"] + (1 if options.get("norm_unit_offset") else 0)
        if which == "all":
            return [*rms(features, gain, eps).split(DIM_HEAD, dim=-1)]
        out = []
        for head, own in enumerate(features.split(DIM_HEAD, dim=-1)):
            own = own - own.mean(-1, keepdim=True) if of_layer else own
            bias = w.get(f"qk_norm.{part}.bias", 0.0)
            out.append(rms(own, gain[head] if which == "each" else gain, eps) + bias)
        return out

    queries, keys, values = normed(x @ wq.T, "q"), normed(source @ wk.T, "k"), (source @ wv.T).split(DIM_HEAD, dim=-1)
    outs = []
    for head, query in enumerate(queries):
        group = head // (HEADS // KV_HEADS)
        weights = (query @ keys[group].mT / math.sqrt(DIM_HEAD)).softmax(-1)
        outs.append(weights @ values[group])
    return torch.cat(outs, dim=-1) @ w["output.to_out.weight"].T


QK_NORMS: list[dict[str, Any]] = [
    *({"qk_rmsnorm": which} for which in ("head", "each", "all")),
    *({"qk_layernorm": which} for which in ("head", "each")),
    {"qk_rmsnorm": "head", "qk_rmsnorm_eps": 0.3},
    {"qk_layernorm": "head", "qk_layernorm_eps": 0.3},
    *({"qk_rmsnorm": which, "norm_unit_offset": True} for which in ("head", "each", "all")),
    {"qk_layernorm": "each", "norm_unit_offset": True},
]


@pytest.mark.parametrize("options", QK_NORMS, ids=str)
@pytest.mark.parametrize("kind", ["a", "c"])
def test_queries_and_keys_are_normed_by_the_formula(kind: str, options: dict[str, Any]) -> None:
    sizes = {"heads": HEADS, "kv_heads": KV_HEADS, "dim_head": DIM_HEAD}
    make = xt_blocks.Attention if kind == "a" else xt_blocks.CrossAttention
    layer = make(dim=DIM, **sizes, **options)
    assert torch.equal(
        layer.qk_norm.q.weight, torch.full_like(layer.qk_norm.q.weight, "norm_unit_offset" not in options)
    )
    layer = randomised(layer)
    x, context = torch.randn(1, 5, DIM).double(), torch.randn(1, 7, DIM).double()
    out = layer(x) if kind == "a" else layer(x, context)
    torch.testing.assert_close(out, attention_by_hand(x, x if kind == "a" else context, options, layer.state_dict()))


@pytest.mark.parametrize("options", QK_NORMS, ids=str)
def test_costs_count_the_gains_of_queries_and_keys(options: dict[str, Any]) -> None:
    own = ", ".join(f"{name}={str(value).lower()}" for name, value in options.items())
    graph = blockdsl.compile(f"a({own}) c({own})", dim=DIM, heads=HEADS, attn_kv_heads=KV_HEADS, attn_dim_head=DIM_HEAD)
    assert graph.parameters() == sum(p.numel() for p in xt_blocks.lower(graph).parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"qk_rmsnorm": "head", "qk_norm": True}, "qk_norm and qk_rmsnorm are set; queries and keys have one norm"),
        ({"qk_rmsnorm_eps": 1e-5}, "qk_rmsnorm_eps is set, but it needs qk_rmsnorm"),
        ({"qk_layernorm_eps": 1e-6}, "qk_layernorm_eps is set, but it needs qk_layernorm"),
        ({"qk_rmsnorm": "heads"}, "qk_rmsnorm must be one of 'head', 'each', 'all' or none, not heads"),
    ],
)
def test_norms_of_queries_and_keys_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        xt_blocks.Attention(dim=DIM, **options)
    assert str(error.value) == message


# Shared by parallel branches ----------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {"dim": DIM, "heads": 2, "attn_dim_head": 3}


def with_norms_copied(shared: Any, text: str, **settings: Any) -> Any:
    """A stack without shared norms of the same function: each block that shares one has a copy."""
    plain = xt_blocks.lower(blockdsl.compile(text, **SIZES, **settings)).double()
    state = shared.state_dict()
    for node in shared.graph.nodes("block"):
        for source in shared.graph.sources(node, "normed"):
            for part in ("weight", "bias"):
                state[f"blocks.{node}.norm.{part}"] = state[f"blocks.{source}.norm.{part}"]
    plain.load_state_dict(state)
    return plain


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("(a & f)*2", [("a0", "f1"), ("a2", "f3")]),
        ("(f & a & c) f", [("f0", "a1"), ("f0", "c2")]),
        ("((a f) & (f a))", [("a0", "f2")]),
        ("(((a & f) f) & a)", [("a0", "f1"), ("a0", "a3")]),
        ("(f>>1 & (a & f>>1)/2)", [("f0", "a1"), ("f0", "f2")]),
        ("(a & f(shared_norm=false) & f)", [("a0", "f2")]),
    ],
)
def test_a_shared_norm_is_an_edge_and_computes_what_copies_of_the_norm_do(
    text: str, edges: list[tuple[str, str]]
) -> None:
    graph = blockdsl.compile(text, shared_norm=True, **SIZES)
    assert [edge for edge in graph.nx.edges if "normed" in graph.nx.edges[edge]["carries"]] == edges
    shared = randomised(xt_blocks.lower(graph))
    assert graph.parameters() == sum(p.numel() for p in shared.parameters())
    plain = with_norms_copied(shared, text.replace("(shared_norm=false)", ""))
    assert sum(p.numel() for p in plain.parameters()) == graph.parameters() + 2 * DIM * len(edges)
    x, context = torch.randn(2, 5, DIM).double(), torch.randn(2, 4, DIM).double()
    given = {"context": context} if "c" in text else {}
    torch.testing.assert_close(shared(x, **given), plain(x, **given))


def test_a_block_may_say_it_alone() -> None:
    graph = blockdsl.compile("(a & f(shared_norm)) (a & f)", **SIZES)
    assert [graph.block(node)["options"]["shared_norm"] for node in ("a0", "f1", "a2", "f3")] == [
        False,
        True,
        False,
        False,
    ]
    assert graph.sources("f1", "normed") == ["a0"]
    assert not graph.diff(blockdsl.BlockGraph.from_json(graph.to_json()))
    other = blockdsl.compile("(a & f) (a & f)", **SIZES)
    difference = other.diff(graph)
    (changed,) = difference.wiring
    assert (changed.before, changed.after, changed.changes[0].name) == ("f1", "f1", "normed")
    assert [change.name for block in difference.blocks for change in block.changes] == ["shared_norm"]


def test_the_norm_is_computed_once() -> None:
    stack = xt_blocks.lower(blockdsl.compile("(a & f)*2", shared_norm=True, use_rmsnorm=True, **SIZES))
    calls: list[str] = []
    for name, module in stack.named_modules():
        if isinstance(module, torch.nn.RMSNorm):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    stack(torch.randn(1, 3, DIM))
    assert calls == ["blocks.a0.norm", "blocks.a2.norm", "norm"]


@pytest.mark.parametrize("checkpoint", [None, "block", "stage"])
def test_gradients_go_through_a_shared_norm(checkpoint: str | None) -> None:
    graph = blockdsl.compile("(a & f) f", shared_norm=True, checkpoint=checkpoint, ff_mult=1, **SIZES)
    stack = randomised(xt_blocks.lower(graph)).train()
    x = torch.randn(1, 3, DIM).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: stack(x), (x, *stack.parameters()), fast_mode=True)


def test_segments_go_on_where_no_block_that_shares_a_norm_keeps_any() -> None:
    graph = blockdsl.compile("(a & f)*2", shared_norm=True, causal=True, **SIZES)
    model = randomised(xt_blocks.lower(graph.with_tokens(7, 12, max_mem_len=12, use_abs_pos_emb=False))).eval()
    tokens = torch.randint(0, 7, (2, 8))
    first, mems = model(tokens[:, :5], return_mems=True)
    second = model(tokens[:, 5:], mems=mems)
    torch.testing.assert_close(torch.cat((first, second), dim=1), model(tokens), rtol=1e-5, atol=1e-5)
    graph = blockdsl.compile("(f & a)*2", shared_norm=True, causal=True, **SIZES)
    with pytest.raises(blockdsl.GraphError, match="a1 \\(self-attention\\) reads what another block has normed"):
        graph.with_tokens(7, 12, max_mem_len=12)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("a f", {"shared_norm": True}, "shared_norm is set, but the pattern has no parallel branches, as (a & f) has"),
        ("(a(shared_norm) & f)", {}, "shared_norm is set, but no branch before this one reads the same stream"),
        ("(a & f f(shared_norm))", {}, "shared_norm is set, but no branch before this one reads the same stream"),
        (
            "(a(norm=false) & f(shared_norm))",
            {},
            "shared_norm reads the stream as a0 norms it, and a0 has no norm before its branch",
        ),
        ("(a & f(shared_norm, norm=false))", {}, "shared_norm is set, but norm=false leaves the block no norm"),
        ("(a & f(shared_norm, output_norm))", {}, "shared_norm and output_norm are both set; give one"),
        ("(a & f(shared_norm))", {"pre_norm": False}, "shared_norm is set, but it needs pre_norm"),
        ("f@x (a & f@x)", {"shared_norm": True}, "the tie 'x' has different options here than before: shared_norm"),
    ],
)
def test_norms_that_cannot_be_shared(text: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        blockdsl.compile(text, **settings, **SIZES)
    assert getattr(error.value, "problem", str(error.value)) == message


def test_lint_judges_an_edited_norm() -> None:
    def fault(graph: blockdsl.BlockGraph) -> str:
        with pytest.raises(blockdsl.GraphError) as error:
            graph.lint()
        return str(error.value).splitlines()[1].strip()

    graph = blockdsl.compile("(a & f)*2", shared_norm=True, **SIZES)
    graph.nx.remove_edge("a0", "f1")
    assert fault(graph) == "f1: its option shared_norm is on, and what 0 blocks have normed enters it"
    graph.block("f1")["options"]["shared_norm"] = False
    graph.lint()
    graph.nx.add_edge("a0", "f1", carries=("normed",))
    assert fault(graph) == "f1: reads what a0 has normed, but its option shared_norm is false"
    graph.block("f1")["options"]["shared_norm"] = True
    graph.block("a0")["options"]["norm"] = False
    assert fault(graph) == "a0 → f1: a0 has no norm before its branch"
    graph.block("a0")["options"]["norm"] = True
    graph.nx.remove_edge("a2", "f3")
    graph.nx.add_edge("a0", "f3", carries=("normed",))
    assert fault(graph) == "a0 → f3: a norm is shared by blocks that read the same stream"


def test_drawings_say_whose_norm_is_shared() -> None:
    graph = blockdsl.compile("(a & f)*2", shared_norm=True, **SIZES)
    assert "f   feedforward · GELU 24 · shares the norm of 'a'" in graph.to_text()
    assert '"a0" -> "f1" [style=dashed, color="#888888", label="normed", constraint=false];' in graph.to_dot()
    assert "normed" in graph.to_mermaid()
    assert "shares the norm of" in graph.to_svg()
    assert operations(graph, "f1")[0].text == "the first branch's norm"


def test_a_label_does_not_say_that_no_norm_is_shared() -> None:
    graph = blockdsl.compile("(a & f)*2 (a f)*2", shared_norm=True, **SIZES)
    assert "shared_norm=false" not in graph.to_text()
    assert "f(shared_norm=false)" in blockdsl.compile("(a & f(shared_norm=false))", shared_norm=True, **SIZES).to_text()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("spec", [Norm("rmsnorm", 1e-5), Norm("rmsnorm", 0.5, gain=False)], ids=["gain", "none"])
def test_an_rmsnorm_is_the_same_with_gradients_and_without(spec: Norm, dtype: torch.dtype, tolerance: float) -> None:
    layer = norm(spec, 12).to(dtype)
    if spec.gain:
        torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, 12, dtype=dtype)
    wide = x.double()
    exact = wide / (wide.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt()
    exact = exact * layer.weight.double() if spec.gain else exact
    with torch.no_grad():
        short = layer(x)
    for out in (layer(x), short):
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=tolerance, atol=tolerance)
