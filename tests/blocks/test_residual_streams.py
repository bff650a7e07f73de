"""Several residual streams, which blocks mix: hyper-connections by their formulas in float64, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
import xt_blocks.x_transformers as compat
from xt_blocks.blocks.residual import HyperConnection, doubly_stochastic

DIM, STREAMS = 6, 3


def stack(text: str, mix: str = "sinkhorn", **settings: object) -> xt_blocks.Stack:
    """In float64, with no parameter left at a value that would hide it."""
    graph = blockdsl.compile(text, dim=DIM, heads=1, num_residual_streams=STREAMS, hyper_conn_mix=mix, **settings)
    torch.manual_seed(0)
    model = xt_blocks.lower(graph).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert isinstance(model, xt_blocks.Stack)
    return model


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def connection(own: HyperConnection, token: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """`token: (streams, dim)` → what the branch reads, the mixed streams, weights of the update: a number at a time."""
    n = len(token)
    centred = token - token.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * own.norm.weight
    dynamic = [[float(normed[s] @ own.alpha_by_token[:, j]) for j in range(1 + n)] for s in range(n)]
    written = [float(normed[s] @ own.beta_by_token) for s in range(n)]
    scale, at_first = float(own.alpha_scale), own.alpha.tolist()
    if own.mix == "free":
        alpha = [[at_first[s][j] + scale * math.tanh(dynamic[s][j]) for j in range(1 + n)] for s in range(n)]
        beta = [float(own.beta[s]) + float(own.beta_scale) * math.tanh(written[s]) for s in range(n)]
    else:
        alpha = [[at_first[s][j] + scale * dynamic[s][j] for j in range(1 + n)] for s in range(n)]
        mix = [[math.exp(alpha[s][1 + t]) for t in range(n)] for s in range(n)]
        mix = [[mix[s][t] / sum(mix[r][t] for r in range(n)) for t in range(n)] for s in range(n)]
        for _ in range(own.iterations):
            mix = [[number / sum(row) for number in row] for row in mix]
            mix = [[mix[s][t] / sum(mix[r][t] for r in range(n)) for t in range(n)] for s in range(n)]
        mix = [[1.0] * n] * n if own.mix == "sum" else mix
        alpha = [[sigmoid(alpha[s][0]), *mix[s]] for s in range(n)]
        beta = [2 * sigmoid(float(own.beta[s]) + float(own.beta_scale) * 2 * sigmoid(written[s])) for s in range(n)]
    read, *mixed = (sum(alpha[s][j] * token[s] for s in range(n)) for j in range(1 + n))
    return read, torch.stack(mixed), beta


@pytest.mark.parametrize("mix", ["sinkhorn", "free", "sum"])
@torch.no_grad()
def test_a_block_reads_and_mixes_the_streams_by_the_formula(mix: str) -> None:
    model = stack("f f/2", mix)
    x = torch.randn(2, 4, DIM, dtype=torch.float64)
    expected = torch.empty_like(x)
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        streams = x[b, t] + model.residual_streams.weight  # a vector of each is added to the copies
        for block, scale in zip(model.blocks.values(), (1, 0.5), strict=True):
            read, mixed, beta = connection(block.residual, streams)
            update = scale * block.layer(block.norm(read)[None, None])[0, 0]
            streams = mixed + torch.stack([weight * update for weight in beta])
        expected[b, t] = streams.sum(0)
    torch.testing.assert_close(model(x), model.norm(expected))


def test_at_first_blocks_take_turns_and_streams_are_as_one() -> None:
    """Unconstrained, each stream is the plain residual stream."""
    graph = blockdsl.compile("(f f)*2", dim=DIM, num_residual_streams=STREAMS, hyper_conn_mix="free", final_norm=False)
    model, plain = xt_blocks.lower(graph), xt_blocks.lower(blockdsl.compile("(f f)*2", dim=DIM, final_norm=False))
    firsts = [block.residual.alpha[:, 0].argmax().item() for block in model.blocks.values()]
    assert firsts == [0, 1, 2, 0]
    plain.load_state_dict({name: t for name, t in model.state_dict().items() if name in plain.state_dict()})
    x = torch.randn(2, 4, DIM)
    torch.testing.assert_close(model(x), STREAMS * plain(x))


def test_sinkhorn_makes_rows_and_columns_sum_to_one() -> None:
    out = doubly_stochastic(torch.randn(5, 4, 4, dtype=torch.float64), 100)
    assert (out > 0).all()
    for axis in (-1, -2):
        torch.testing.assert_close(out.sum(axis), torch.ones(5, 4, dtype=torch.float64))
    assert doubly_stochastic(torch.randn(2, 2, dtype=torch.bfloat16), 2).dtype == torch.bfloat16


def test_parameters_have_gradients_of_finite_differences() -> None:
    model = stack("f & (f/2 f)", ff_mult=1)
    own = [p for n, p in model.named_parameters() if "layer" not in n]
    x = torch.randn(1, 3, DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: model(x), (x, *own), fast_mode=True)


def test_what_a_block_read_is_a_mix_of_the_streams() -> None:
    model = stack("a f")
    seen = xt_blocks.Intermediates()
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    out = model(x, intermediates=seen)
    block = model.blocks["a0"]
    torch.testing.assert_close(seen.streams["a0"], block.residual(model.residual_streams(x))[0])
    assert out.shape == seen.last.shape == x.shape
    size = seen.streams["f1"].square().mean(-1).sqrt().mean().item()
    assert xt_blocks.record(model, x)["f1"]["stream_norm"] == pytest.approx(size)


def test_checkpointing_and_export_give_the_same() -> None:
    x = torch.randn(2, 5, DIM, dtype=torch.float64)
    plain, again = stack("a (f & a)"), stack("a (f & a)", checkpoint="stage")
    assert again.train()(x).equal(plain.train()(x))
    for model in (plain, again):
        model(x).square().mean().backward()
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    exported = torch.export.export(plain.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), plain(x))


def test_a_drawing_says_how_many_there_are() -> None:
    graph = blockdsl.compile("(a f)*2", dim=DIM, num_residual_streams=STREAMS)
    assert "3 residual streams" in graph.to_text()
    assert "3 residual streams" in graph.to_svg()
    again = blockdsl.BlockGraph.from_json(graph.to_json())
    assert again.residual_streams == 3
    assert again.parameters() == graph.parameters()


def test_the_other_librarys_keyword_sums_the_streams_as_it_does() -> None:
    theirs = compat.Decoder(dim=DIM, depth=1, heads=1, num_residual_streams=2, hyper_conn_sinkhorn_iters=3)
    assert {block.residual.mix for block in theirs.blocks.values()} == {"sum"}
    alone = compat.Decoder(dim=DIM, depth=1, heads=1, num_residual_streams=1, hyper_conn_sinkhorn_iters=3)
    assert alone.residual_streams is None


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        (
            "a f(num_residual_streams=2)",
            {},
            "(?s)'f' .feedforward. has no option 'num_residual_streams'.*is a setting of the stack",
        ),
        ("a f", {"num_residual_streams": 2, "gate_residual": True}, "blocks of num_residual_streams=2 mix streams"),
        ("a & f(shared_norm)", {"num_residual_streams": 2}, "shared_norm is set, but blocks of num_residual_streams=2"),
        ("a f", {"deepnorm": True, "num_residual_streams": 2}, "scale_residual is set, but blocks of"),
        ("a f", {"hyper_conn_mix": "free"}, "hyper_conn_mix is set, but it needs num_residual_streams of at least 2"),
        (
            "set num_residual_streams=2, hyper_conn_mix=free, hyper_conn_sinkhorn_iters=3; a f",
            {},
            "hyper_conn_sinkhorn_iters is set, but hyper_conn_mix=free has no iterations",
        ),
    ],
)
def test_what_does_not_go_with_streams_is_refused(text: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(blockdsl.UserError, match=words):
        blockdsl.compile(text, dim=DIM, **settings)
    graph = blockdsl.compile("a f", dim=DIM)
    graph.nx.nodes["f1"]["options"]["num_residual_streams"] = 2
    with pytest.raises(
        blockdsl.GraphError, match="f1: num_residual_streams is 2, and 1 of the first block; all blocks say the same"
    ):
        graph.lint()
