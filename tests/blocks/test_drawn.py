"""Models as notebooks show them."""

from __future__ import annotations

from pathlib import Path

import pytest

import blockdsl
from blockdsl.draw import page
from xt_blocks import (
    AutoregressiveWrapper,
    ContinuousAutoregressiveWrapper,
    ContinuousTransformerWrapper,
    Decoder,
    Encoder,
    NonAutoregressiveWrapper,
    TransformerWrapper,
    ViTransformerWrapper,
    XLAutoregressiveWrapper,
    XTransformer,
)

from ..draw.reading import check


def decoder() -> Decoder:
    return Decoder(dim=16, depth=3, heads=2)


def test_a_stack_and_the_models_around_one_draw_their_graph() -> None:
    stack = decoder()
    model = TransformerWrapper(num_tokens=9, max_seq_len=8, max_mem_len=4, attn_layers=stack)
    continuous = ContinuousTransformerWrapper(dim_in=3, dim_out=3, max_seq_len=8, attn_layers=decoder())
    image = ViTransformerWrapper(image_size=8, patch_size=4, attn_layers=Encoder(dim=16, depth=3, heads=2))
    masked = TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=Encoder(dim=16, depth=3, heads=2))
    for module, graph in (
        (stack, stack.graph),
        (model, model.graph),
        (continuous, continuous.graph),
        (image, image.graph),
        (AutoregressiveWrapper(model), model.graph),
        (XLAutoregressiveWrapper(model), model.graph),
        (ContinuousAutoregressiveWrapper(continuous), continuous.graph),
        (NonAutoregressiveWrapper(masked, mask_id=8), masked.graph),
    ):
        assert module._repr_svg_() == graph.to_svg(), type(module)
        check(module._repr_svg_(), graph)


def test_an_encoder_beside_its_decoder(tmp_path: Path) -> None:
    sizes = {"num_tokens": 9, "max_seq_len": 8, "depth": 2, "heads": 2}
    model = XTransformer(dim=16, **{f"{side}_{name}": v for side in ("enc", "dec") for name, v in sizes.items()})
    graphs = model.graphs
    assert [*graphs] == ["encoder", "decoder"]
    picture = check(model._repr_svg_(), *graphs.values(), names=("encoder", "decoder"))
    assert picture.edges("context") == {("encoder.output", "decoder.c1")}
    assert picture.node("decoder.c1").nodes == ("decoder.c1", "decoder.c4")
    unfolded = model.to_svg(tmp_path / "x.svg", unfold=True)
    assert (tmp_path / "x.svg").read_text(encoding="utf-8") == unfolded + "\n"
    with pytest.raises(blockdsl.UserError, match="detail must be"):
        model.to_svg(detail="all")


def test_models_as_pages(tmp_path: Path) -> None:
    stack = decoder()
    assert stack.to_html(tmp_path / "x.html", seq_len=9) == stack.graph.to_html(seq_len=9)
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == stack.graph.to_html(seq_len=9)
    sizes = {"num_tokens": 9, "max_seq_len": 8, "depth": 2, "heads": 2}
    model = XTransformer(dim=16, **{f"{side}_{name}": v for side in ("enc", "dec") for name, v in sizes.items()})
    assert model.to_html(unfold=True) == page(model.graphs, unfold=True)
