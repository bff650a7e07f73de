"""Two streams lowered, `(a f)*2 => (a c f)*2`, against the same two modules called one after the other."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl.errors import UserError
from xt_blocks import EncoderDecoder, XTransformer, lower

SIZES = "set dim=16, heads=2, attn_dim_head=8"
TOKENS = f"{SIZES}, num_tokens=11, max_seq_len=13, tie_embedding, tie_token_emb; (a f)*2 => (a c f)*2"
IMAGES = (
    f"{SIZES}, enc_image_size=8, enc_patch_size=4, enc_class_token, enc_num_register_tokens=1, "
    "dec_num_tokens=11, dec_max_seq_len=9; a f => a c f"
)
FRAMES = f"{SIZES}, enc_dim_in=3, enc_conv_stem, enc_max_seq_len=6, dec_num_tokens=11, dec_max_seq_len=9; a f => a c f"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def padded(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def flops(module: torch.nn.Module, *inputs: torch.Tensor) -> int:
    # torch's counter knows no formula for the CPU's fused attention kernel
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def test_tokens_are_an_xtransformer_of_the_two_models_made_by_hand() -> None:
    graph = blockdsl.compile(TOKENS)
    model = lower(graph)
    assert isinstance(model, XTransformer)
    assert sum(p.numel() for p in model.parameters()) == graph.parameters()
    assert model.graph == graph == XTransformer(pattern=TOKENS).graph
    keywords = {"heads": 2, "attn_dim_head": 8, "num_tokens": 11, "enc_max_seq_len": 13, "dec_max_seq_len": 13}
    named: Any = {**keywords, "dec_tie_embedding": True, "tie_token_emb": True}
    assert XTransformer(pattern="(a f)*2 => (a c f)*2", dim=16, **named).graph == graph
    around: Any = {"num_tokens": 11, "max_seq_len": 13}
    layers: Any = {"dim": 16, "depth": 2, "heads": 2, "attn_dim_head": 8}
    encoder = xt_blocks.TransformerWrapper(attn_layers=xt_blocks.Encoder(**layers), return_only_embed=True, **around)
    stack = xt_blocks.Decoder(**layers, cross_attend=True)
    decoder = xt_blocks.TransformerWrapper(attn_layers=stack, tie_embedding=True, **around)
    encoder.load_state_dict(model.encoder.state_dict())
    decoder.load_state_dict(model.decoder.net.state_dict())
    src, tgt, mask = torch.randint(11, (2, 7)), torch.randint(11, (2, 5)), padded(7, 4)
    logits = decoder(tgt[:, :-1], context=encoder(src, mask=mask), context_mask=mask)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten())
    assert torch.allclose(model(src, tgt, mask=mask), loss, atol=1e-6)
    assert graph.flops(5, 2, context_len=7) == flops(encoder, src) + flops(decoder, tgt, None, encoder(src))

    made = model.generate(src, tgt[:, :1], 6, mask=mask, temperature=0)
    text = tgt[:, :1]
    for _ in range(6):
        logits = decoder(text, context=encoder(src, mask=mask), context_mask=mask)
        text = torch.cat((text, logits[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(made, text[:, 1:])


def test_an_image_is_described() -> None:
    model = lower(blockdsl.compile(IMAGES))
    assert isinstance(model, XTransformer)
    assert sum(p.numel() for p in model.parameters()) == model.graph.parameters()
    image, tgt, encoder, decoder = torch.randn(2, 3, 8, 8), torch.randint(11, (2, 6)), model.encoder, model.decoder.net
    context = encoder(image)
    assert context.shape == (2, 5, 16)  # the class token and four patches
    logits = decoder(tgt[:, :-1], context=context)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten())
    torch.testing.assert_close(model(image, tgt), loss)
    torch.autograd.backward(model(image, tgt))
    assert all(p.grad is not None for p in encoder.parameters())
    made, text = model.generate(image, tgt[:, :1], 6, temperature=0), tgt[:, :1]
    for _ in range(6):
        text = torch.cat((text, decoder(text, context=context)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(made, text[:, 1:])
    beams, scores = model.beam_search(image, tgt[:, :1], 3, beams=11, return_beams_and_scores=True)
    for row in range(2):
        whole = torch.cat((tgt[row, :1], beams[0, row]))[None]
        true = decoder(whole[:, :-1], context=context[row : row + 1]).log_softmax(-1)
        torch.testing.assert_close(scores[0, row], true.gather(-1, whole[:, 1:, None]).sum())
    with pytest.raises(ValueError, match="src_prepend_embeds is of a sequence, and the encoder reads images"):
        model(image, tgt, src_prepend_embeds=torch.zeros(2, 1, 16))
    patches = xt_blocks.Encoder(dim=16, depth=1)
    vit = xt_blocks.ViTransformerWrapper(image_size=8, patch_size=4, pool="mean", attn_layers=patches)
    with pytest.raises(UserError, match="the encoder: it gives one vector of an image: leave pool"):
        XTransformer.from_models(vit, decoder)


def test_each_side_may_have_a_condition_of_its_tokens() -> None:
    adaptive = f"{SIZES}, use_adaptive_rmsnorm, dim_condition=3"
    model = lower(blockdsl.compile(f"{adaptive}; a f => a c f"))
    assert isinstance(model, EncoderDecoder)
    src, tgt, of_src, of_tgt = (torch.randn(2, *shape) for shape in ((7, 16), (5, 16), (7, 3), (5, 3)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    expected = model.decoder(tgt, context=model.encoder(src, condition=of_src), condition=of_tgt)
    assert torch.equal(model(src, tgt, condition=of_tgt, src_condition=of_src), expected)
    rows = of_src[:, 0]
    assert torch.equal(model(src, tgt, condition=rows), model(src, tgt, condition=rows, src_condition=rows))
    with pytest.raises(ValueError, match="give the encoder's as src_condition="):
        model(src, tgt, condition=of_tgt)
    writer = lower(blockdsl.compile(f"{adaptive}, num_tokens=11, max_seq_len=9; a f => a c f"))
    assert isinstance(writer, XTransformer)
    for parameter in writer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    src, tgt = torch.randint(11, (2, 7)), torch.randint(11, (2, 6))
    context = writer.encoder(src, condition=of_src)
    logits = writer.decoder.net(tgt[:, :-1], context=context, condition=of_tgt)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten())
    torch.testing.assert_close(writer(src, tgt, condition=of_tgt, src_condition=of_src), loss)
    written = writer.decoder.generate(tgt[:, :1], 4, context=context, condition=rows, temperature=0)
    assert torch.equal(
        writer.generate(src, tgt[:, :1], 4, condition=rows, src_condition=of_src, temperature=0), written
    )
    one = lower(blockdsl.compile(f"{SIZES}, dec_use_adaptive_rmsnorm, dec_dim_condition=3; a f => a c f"))
    x, y = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    assert one(x, y, condition=of_tgt).shape == y.shape  # type: ignore[operator]
    with pytest.raises(ValueError, match="a condition is given, but no norm or layer scale reads one"):
        one(x, y, condition=of_tgt, src_condition=of_src)  # type: ignore[operator]


@pytest.mark.parametrize("text", [TOKENS, FRAMES, IMAGES])
def test_a_folder_keeps_both_and_what_they_share(text: str, tmp_path: Path) -> None:
    model = XTransformer(pattern=text)
    model.save_pretrained(tmp_path)
    again = xt_blocks.from_pretrained(tmp_path)
    assert isinstance(again, XTransformer)
    assert again.graph == model.graph == blockdsl.compile(text)
    assert again.tie_token_emb == ("tie_token_emb" in text)
    src = {TOKENS: torch.randint(11, (2, 7)), FRAMES: torch.randn(2, 10, 3), IMAGES: torch.randn(2, 3, 8, 8)}[text]
    tgt = torch.randint(11, (2, 5))
    assert torch.equal(again(src, tgt), model.eval()(src, tgt))


@pytest.mark.parametrize(
    ("text", "src", "tgt"),
    [
        (f"{SIZES}; (a f)*2 | f => (a c f)*2", torch.zeros(2, 7, 16), torch.zeros(2, 5, 16)),
        (
            f"{SIZES}, enc_dim_in=3, dec_dim_in=4, max_seq_len=9, dec_dim_out=6, dec_causal=false; a f => a c f",
            torch.zeros(2, 7, 3),
            torch.zeros(2, 5, 4),
        ),
        (
            f"{SIZES}, enc_image_size=8, enc_patch_size=4, dec_dim_in=4, dec_max_seq_len=9, dec_dim_out=6; a f => a c f",
            torch.zeros(2, 3, 8, 8),
            torch.zeros(2, 5, 4),
        ),
        (
            f"{SIZES}, num_tokens=11, max_seq_len=9, tie_token_emb, dec_causal=false; a f => a c f",
            torch.zeros(2, 7, dtype=torch.int64),
            torch.zeros(2, 5, dtype=torch.int64),
        ),
    ],
)
def test_others_are_an_encoder_decoder(text: str, src: torch.Tensor, tgt: torch.Tensor, tmp_path: Path) -> None:
    graph = blockdsl.compile(text)
    model = lower(graph)
    assert isinstance(model, EncoderDecoder)
    assert sum(p.numel() for p in model.parameters()) == graph.parameters()
    src, tgt = (x.random_(0, 11) if x.dtype == torch.int64 else x.normal_() for x in (src, tgt))
    streams = graph.streams()
    encoder, decoder = lower(streams["encoder"]), lower(streams["decoder"])
    encoder.load_state_dict(model.encoder.state_dict())
    decoder.load_state_dict(model.decoder.state_dict())
    mask, tgt_mask = None if src.ndim == 4 else padded(7, 4), padded(5, 3)
    context = encoder(src) if mask is None else encoder(src, mask=mask)
    expected = decoder(tgt, mask=tgt_mask, context=context, context_mask=mask)
    assert torch.equal(model(src, tgt, mask, tgt_mask), expected)
    assert flops(model, src, tgt) == graph.flops(5, 2, context_len=7)
    model.save_pretrained(tmp_path)
    again = xt_blocks.from_pretrained(tmp_path)
    assert isinstance(again, EncoderDecoder)
    assert torch.equal(again(src, tgt), model.eval()(src, tgt))
    assert again.to_svg() == graph.to_svg()
    model(src, tgt).sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_the_cache_of_two_stacks_has_the_bytes_that_the_graph_counts() -> None:
    graph = blockdsl.compile(f"{SIZES}; (a f)*2 => (a>>1 c f)*2")
    model = lower(graph)
    assert isinstance(model, EncoderDecoder)
    src, tgt = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    cache = model.decoder.new_cache(2, 5)
    context, _ = model.encode(src)
    given = [context, None, None, None, None]
    steps = [model.decoder(tgt[:, i : i + 1], context=c, cache=cache) for i, c in enumerate(given)]
    assert torch.allclose(torch.cat(steps, 1), model(src, tgt), atol=1e-5)
    assert cache.bytes() == graph.kv_cache_bytes(5, 2, context_len=7)


def test_what_an_xtransformer_cannot_be_is_said() -> None:
    for text, keywords, message in (
        ("a f", {}, r"XTransformer's pattern has two streams, as \(a f\)\*6 => \(a c f\)\*6"),
        ("a => c", {"dec_depth": 2}, "pattern= and dec_depth= are both given; the pattern has the order"),
        ("a => c", {"enc_num_tokens": 5, "enc_max_seq_len": 5}, "XTransformer\\(\\) needs dec_num_tokens="),
        ("a => c", {"dec_num_tokens": 5, "dec_max_seq_len": 5}, "XTransformer\\(\\) needs enc_num_tokens="),
        ("a => c", {"enc_headz": 5}, "XTransformer\\(\\) got an unknown setting 'enc_headz'; did you mean 'enc_heads'"),
        ("a => c", {"causal": True}, "XTransformer\\(\\) takes no causal= of two streams"),
    ):
        with pytest.raises(TypeError, match=message):
            XTransformer(pattern=text, dim=16, **keywords)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"XTransformer\(\) needs dim="):
        XTransformer(enc_num_tokens=5, enc_max_seq_len=5, dec_num_tokens=5, dec_max_seq_len=5)
    with pytest.raises(TypeError, match="Decoder's pattern is of one stream, and this has two; XTransformer"):
        xt_blocks.Decoder(dim=8, pattern="a => c")
    with pytest.raises(UserError, match="this graph has two streams, an encoder and a decoder; xt_blocks"):
        xt_blocks.Stack(blockdsl.compile("a => c", dim=8))
    with pytest.raises(UserError, match="this graph has one stream"):
        EncoderDecoder(blockdsl.compile("a c", dim=8))
    model = copy.deepcopy(lower(blockdsl.compile(TOKENS)))
    assert isinstance(model, XTransformer)
    assert blockdsl.parse(model.pattern) == blockdsl.parse(TOKENS)
