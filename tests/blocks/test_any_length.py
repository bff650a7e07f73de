"""Models of any length, max_seq_len=0 or None: against models of a length with the same weights, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import blockdsl
import xt_blocks
from blockdsl import BlockGraph
from xt_blocks import (
    AutoregressiveWrapper,
    ContinuousAutoregressiveWrapper,
    ContinuousTransformerWrapper,
    Decoder,
    Encoder,
    NonAutoregressiveWrapper,
    TransformerWrapper,
    XLAutoregressiveWrapper,
    XTransformer,
)
from xt_blocks.positions.absolute import SinusoidalPositions

from .variants import SIZES, language_model, tokens

ANY = pytest.mark.parametrize("any_length", [0, None])


def of_length(max_seq_len: int | None, positions: dict[str, Any] | None = None, **options: Any) -> TransformerWrapper:
    stack = Decoder(depth=2, **SIZES, **(positions or {}))
    return TransformerWrapper(num_tokens=17, max_seq_len=max_seq_len, attn_layers=stack, **options).eval()


@ANY
@pytest.mark.parametrize("positions", [{}, {"rotary_pos_emb": True}, {"rel_pos_bias": True}, {"alibi_pos_bias": True}])
def test_it_is_the_model_without_absolute_positions(any_length: int | None, positions: dict[str, Any]) -> None:
    model = of_length(any_length, positions)
    assert model.max_seq_len is None
    assert model.pos_emb is None
    other = of_length(50, positions, use_abs_pos_emb=False)
    other.load_state_dict(model.state_dict())
    x = tokens(2, 50)
    assert torch.equal(model(x), other(x))
    graph = BlockGraph.from_json(model.graph.to_json())
    assert graph == model.graph
    assert xt_blocks.lower(graph).max_seq_len is None
    assert graph.parameters() == other.graph.parameters() == sum(p.numel() for p in model.parameters())
    assert "input · 17 tokens, any length" in graph.to_text()
    assert "any length" in graph.to_svg()


@pytest.mark.parametrize("kwargs", [{}, {"cache_kv": False}, {"compile": True}])
@pytest.mark.parametrize("positions", [{"rotary_pos_emb": True}, {"scaled_sinu_pos_emb": True}])
def test_generation_has_no_window(
    positions: dict[str, Any], kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **options: run(net, backend="eager", **options))
    around = {name: positions[name] for name in positions if name == "scaled_sinu_pos_emb"}
    model = of_length(None, {name: positions[name] for name in positions if name not in around}, **around)
    prompt = tokens(2, 5)
    whole = prompt
    for _ in range(130):  # past a compiled step's 128 tokens
        whole = torch.cat((whole, model(whole)[:, -1:].argmax(dim=-1)), dim=1)
    trainer = AutoregressiveWrapper(model)
    assert trainer.max_seq_len is None
    made = trainer.generate(prompt, 130, temperature=0, **kwargs)
    assert torch.equal(made, whole[:, 5:])
    assert torch.equal(trainer.generate([prompt[0], prompt[1]], 130, temperature=0, **kwargs), whole[:, 5:])


def test_sinusoids_have_no_length() -> None:
    model, other = of_length(0, scaled_sinu_pos_emb=True), of_length(40, scaled_sinu_pos_emb=True)
    assert isinstance(model.pos_emb, SinusoidalPositions)
    other.load_state_dict(model.state_dict())
    x = tokens(2, 40)
    assert torch.equal(model(x), other(x))


def test_a_cache_is_given_its_capacity() -> None:
    model = of_length(None, {"rotary_pos_emb": True})
    with pytest.raises(ValueError, match="no max_seq_len, and a cache has a capacity: give max_len="):
        model.new_cache(2)
    cache, x = model.new_cache(2, 9), tokens(2, 9)
    steps = [model(x[:, :4], cache=cache), *(model(x[:, i : i + 1], cache=cache) for i in range(4, 9))]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(x))


def test_vectors() -> None:
    def of(max_seq_len: int | None, **options: Any) -> ContinuousTransformerWrapper:
        stack = Decoder(depth=2, rotary_pos_emb=True, **SIZES)
        return ContinuousTransformerWrapper(max_seq_len=max_seq_len, attn_layers=stack, **options).eval()

    model, other = of(None, use_abs_pos_emb=False), of(12, use_abs_pos_emb=False)
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 12, 24)
    assert torch.equal(model(x), other(x))
    assert isinstance(xt_blocks.lower(model.graph), ContinuousTransformerWrapper)  # and not a stack alone
    assert model.graph.reads == "vectors"
    whole = x[:, :3]
    for _ in range(20):
        whole = torch.cat((whole, model(whole)[:, -1:]), dim=1)
    made = ContinuousAutoregressiveWrapper(model).generate(x[:, :3], 20)
    torch.testing.assert_close(made, whole[:, 3:], rtol=1e-4, atol=1e-4)


def test_an_encoder_and_a_decoder() -> None:
    model = XTransformer(
        dim=24,
        **{"enc_num_tokens": 17, "enc_max_seq_len": None, "enc_depth": 1, "enc_heads": 3},
        **{"dec_num_tokens": 17, "dec_max_seq_len": 0, "dec_depth": 1, "dec_heads": 3, "dec_rotary_pos_emb": True},
    ).eval()
    source, start = tokens(2, 30), tokens(2, 2)
    out = start
    for _ in range(9):
        out = torch.cat((out, model.decoder.net(out, context=model.encoder(source))[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(model.generate(source, start, 9, temperature=0), out[:, 2:])


def test_what_needs_a_length_says_so() -> None:
    with pytest.raises(ValueError, match="a segment has max_seq_len tokens, and the model has none"):
        XLAutoregressiveWrapper(of_length(0, max_mem_len=4))
    encoder = TransformerWrapper(num_tokens=17, max_seq_len=0, attn_layers=Encoder(depth=1, **SIZES))
    with pytest.raises(ValueError, match="max_seq_len tokens are generated, and the net has none"):
        NonAutoregressiveWrapper(encoder, mask_id=16)
    said = "use_abs_pos_emb is set, but there is no max_seq_len, which says how many learned positions there are"
    for any_length in (0, None):
        with pytest.raises(ValueError, match=said):
            of_length(any_length, use_abs_pos_emb=True)
    with pytest.raises(blockdsl.PatternError, match=said):
        blockdsl.compile("set num_tokens=17, max_seq_len=0, use_abs_pos_emb=true; a f", dim=24)
    for wrong in (-1, False, 1.5, "none"):
        with pytest.raises(ValueError, match="max_seq_len must be a whole number of at least 0 or none, not"):
            of_length(wrong)  # type: ignore[arg-type]


def test_a_graph_with_learned_positions_of_any_length_is_refused() -> None:
    graph = language_model().graph
    graph.nx.nodes[graph.start]["max_seq_len"] = 0
    with pytest.raises(blockdsl.GraphError, match="positions are learned up to a max_seq_len, and input has 0"):
        graph.lint()
