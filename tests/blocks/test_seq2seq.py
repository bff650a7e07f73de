"""Encoder and decoder as one model: its parts put together by hand, keywords by side, generation, ties."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks import ContinuousTransformerWrapper, Decoder, Encoder, TransformerWrapper, XTransformer

from .variants import count_on

SIDE: dict[str, Any] = {"num_tokens": 13, "max_seq_len": 16, "depth": 1, "heads": 2, "attn_dim_head": 6}


def both(**kwargs: Any) -> dict[str, Any]:
    """Keywords of a small model; those given win, and None takes one away."""
    sides = {f"{prefix}_{name}": value for prefix in ("enc", "dec") for name, value in SIDE.items()}
    merged: dict[str, Any] = {"dim": 12} | sides | kwargs
    return {name: value for name, value in merged.items() if value is not None}


def model(**kwargs: Any) -> XTransformer:
    return XTransformer(**both(**kwargs)).eval()


def tokens(batch: int = 2, seq: int = 7, high: int = 13) -> Tensor:
    return torch.randint(0, high, (batch, seq))


# The loss ----------------------------------------------------------------------------------------------------------


def by_hand(m: XTransformer, context: Tensor, mask: Tensor | None, tgt: Tensor) -> Tensor:
    logits = m.decoder.net(tgt[:, :-1], context=context, context_mask=mask)
    return F.cross_entropy(logits.flatten(0, 1), tgt[:, 1:].flatten())


def test_the_loss_is_the_decoders_given_what_the_encoder_makes() -> None:
    m = model()
    src, tgt = tokens(seq=6), tokens(seq=5)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    context = m.encoder.attn_layers(
        m.encoder.token_emb.weight[src] + m.encoder.pos_emb.embedding.weight[:6],  # type: ignore[union-attr]
        mask=mask,
    )
    torch.testing.assert_close(m(src, tgt, mask=mask), by_hand(m, context, mask, tgt))


def test_prepended_embeddings_are_context_too_and_the_mask_covers_them() -> None:
    m = model()
    src, tgt, image = tokens(seq=6), tokens(seq=5), torch.randn(2, 3, 12)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    context = m.encoder(src, mask=mask, prepend_embeds=image)
    assert context.shape == (2, 9, 12)
    wide = torch.cat((torch.ones(2, 3, dtype=torch.bool), mask), dim=1)
    torch.testing.assert_close(m(src, tgt, mask=mask, src_prepend_embeds=image), by_hand(m, context, wide, tgt))
    plain = m.encoder(src, prepend_embeds=image)
    torch.testing.assert_close(m(src, tgt, src_prepend_embeds=image), by_hand(m, plain, None, tgt))


def test_padding_of_source_images_and_target_changes_nothing() -> None:
    m = model()
    src, tgt, image = tokens(1, 5), tokens(1, 6), torch.randn(1, 3, 12)
    alone = m(src, tgt, src_prepend_embeds=image)
    ones = torch.ones(1, 6, dtype=torch.bool)
    padded = m(
        torch.cat((src, tokens(1, 2)), dim=1),
        torch.cat((tgt, tokens(1, 3)), dim=1),
        mask=F.pad(ones[:, :5], (0, 2)),
        src_prepend_embeds=torch.cat((image, torch.randn(1, 2, 12)), dim=1),
        src_prepend_mask=F.pad(ones[:, :3], (0, 2)),
        tgt_mask=F.pad(ones, (0, 3)),
    )
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_a_mask_of_pairs_is_the_encoders() -> None:
    m = model()
    src, tgt = tokens(seq=6), tokens(seq=5)
    pairs = torch.ones(6, 6, dtype=torch.bool).tril()
    context = m.encoder(src, attn_mask=pairs)
    torch.testing.assert_close(m(src, tgt, attn_mask=pairs), by_hand(m, context, None, tgt))
    later = torch.cat((src[:, :4], tokens(seq=2)), dim=1)
    torch.testing.assert_close(m.encoder(later, attn_mask=pairs)[:, :4], context[:, :4])


def test_source_and_target_may_have_vocabularies_of_their_own() -> None:
    m = model(enc_num_tokens=5, dec_num_tokens=30, enc_emb_dim=7)
    assert m(tokens(high=5), tokens(high=30)).isfinite()


@pytest.mark.parametrize(
    "kwargs", [{}, {"tie_token_emb": True, "dec_tie_embedding": True}, {"enc_num_memory_tokens": 2}]
)
def test_every_parameter_trains(kwargs: dict[str, Any]) -> None:
    m = model(**kwargs).train()
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    m(tokens(), tokens(), mask=mask).backward()
    for name, parameter in m.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


# Dropout of context tokens -----------------------------------------------------------------------------------------


def test_in_training_the_decoder_sees_a_random_part_of_the_real_tokens() -> None:
    m = model(cross_attn_tokens_dropout=0.5).train()
    seen: list[Tensor] = []
    m.decoder.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(kwargs["context_mask"]), with_kwargs=True
    )
    src, tgt = tokens(4, 9), tokens(4, 5)
    mask = torch.arange(9) < torch.tensor([[9], [4], [1], [0]])
    for _ in range(300):
        m(src, tgt, mask=mask)
    masks = torch.stack(seen)
    assert not masks[:, ~mask].any()
    assert (masks.sum(-1) == torch.tensor([5, 2, 1, 0])).all()  # what is left of 9, 4, 1 and 0 by half, rounded up
    often = masks.float().mean(0)
    torch.testing.assert_close(often[0], torch.full((9,), 5 / 9), rtol=0, atol=0.12)
    torch.testing.assert_close(often[1, :4], torch.full((4,), 0.5), rtol=0, atol=0.12)
    m(src, tgt)
    assert (seen[-1].sum(-1) == 5).all()
    seen.clear()
    m.eval()(src, tgt, mask=mask)
    assert torch.equal(seen[0], mask)


# Generation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepended", [False, True])
def test_generated_tokens_are_the_likeliest_by_the_whole_model(prepended: bool) -> None:
    m = model()
    src, start = tokens(2, 6), tokens(2, 2)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    image = {"src_prepend_embeds": torch.randn(2, 3, 12)} if prepended else {}
    out = m.generate(src, start, 8, mask=mask, temperature=0.0, **image)
    assert out.shape == (2, 8)
    context = m.encoder(src, mask=mask, **{name.removeprefix("src_"): value for name, value in image.items()})
    wide = F.pad(mask, (3, 0), value=True) if prepended else mask
    now = start
    for _ in range(8):
        logits = m.decoder.net(now, context=context, context_mask=wide)[:, -1]
        now = torch.cat((now, logits.argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(out, now[:, 2:])
    assert torch.equal(out, m.generate(src, start, 8, mask=mask, temperature=0.0, cache_kv=False, **image))


def test_the_source_is_encoded_once_and_so_are_its_keys_and_values() -> None:
    m = model().train()
    m.encoder.attn_layers.eval()
    calls = {"encoder": 0, "keys": 0}
    m.encoder.register_forward_hook(lambda *a: calls.update(encoder=calls["encoder"] + 1))
    cross = m.decoder.net.attn_layers.blocks["c1"].layer
    cross.to_kv.register_forward_hook(lambda *a: calls.update(keys=calls["keys"] + 1))
    out = m.generate(tokens(1, 6), tokens(1, 1)[0], 10)
    assert out.shape == (10,)
    assert calls == {"encoder": 1, "keys": 1}
    assert m.training
    assert m.decoder.net.training
    assert not m.encoder.attn_layers.training


def test_a_stream_has_the_tokens_of_generate() -> None:
    m = model().train()
    src, starts = tokens(seq=6), [tokens(1, 1)[0], tokens(1, 3)[0]]
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    whole = m.generate(src, starts, 20, mask=mask, temperature=0.0)
    steps = [token.clone() for token in m.stream(src, starts, 20, mask=mask, temperature=0.0)]
    assert torch.equal(torch.stack(steps, dim=1), whole)
    assert all(module.training for module in m.modules())
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        m.stream(src, starts, 20, temprature=0.0)


def test_generation_ends_with_the_last_row() -> None:
    m = model(pad_value=3, dec_zero_init_branch_output=True, dec_use_abs_pos_emb=False, dim=16)
    count_on(m.decoder.net)
    src, starts = tokens(2, 6), torch.tensor([[4], [7]])
    assert m.generate(src, starts, 9, temperature=0, eos_token=8).tolist() == [[5, 6, 7, 8], [8, 3, 3, 3]]
    assert m.generate(src, starts + 3, 9, temperature=0, eos_token=9).shape == (2, 9)
    assert [row.tolist() for row in m.stream(src, starts, 9, temperature=0, eos_token=8)][1:] == [
        [6, 3],
        [7, 3],
        [8, 3],
    ]


def test_generation_takes_the_decoders_arguments() -> None:
    m = model(pad_value=3, enc_emb_dropout=0.5)
    src, start = tokens(2, 6), tokens(2, 3)
    made = [m.generate(src, start, 5, top_k=4, generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*made)
    left = torch.tensor([[True] * 3, [False, True, True]])
    padded = m.generate(src, start, 5, tgt_mask=left, temperature=0.0)
    alone = m.generate(src[1:], start[1:, 1:], 5, temperature=0.0)
    assert torch.equal(padded[1:], alone)


# Ties and copies ---------------------------------------------------------------------------------------------------


def test_tied_embeddings_are_one_matrix_through_copies_and_state_dicts() -> None:
    m = model(tie_token_emb=True)
    other = model(tie_token_emb=True)
    other.load_state_dict(m.state_dict())
    src, tgt = tokens(), tokens()
    for copied in (m, other, copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert copied.encoder.token_emb.weight is copied.decoder.net.token_emb.weight
        assert torch.equal(copied(src, tgt), m(src, tgt))
    apart = model()
    assert apart.encoder.token_emb.weight is not apart.decoder.net.token_emb.weight
    assert sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in m.parameters()) == 13 * 12


def test_an_embedding_that_cannot_serve_both_is_not_tied() -> None:
    with pytest.raises(ValueError, match="tie_token_emb is set, but enc_num_tokens=13 and dec_num_tokens=14 differ"):
        model(tie_token_emb=True, dec_num_tokens=14)
    with pytest.raises(ValueError, match="tie_token_emb is set, but enc_emb_dim=7 and dec_emb_dim=12 differ"):
        model(tie_token_emb=True, enc_emb_dim=7)
    with pytest.raises(ValueError, match="enc_l2norm_embed=False and dec_l2norm_embed=True differ"):
        model(tie_token_emb=True, dec_l2norm_embed=True)
    assert model(tie_token_emb=True, enc_emb_dim=12)


# Keywords ----------------------------------------------------------------------------------------------------------


def test_each_side_gets_its_own_keywords() -> None:
    m = model(enc_depth=3, dec_depth=2, enc_heads=3, dec_ff_glu=True, enc_rotary_pos_emb=True, dec_emb_dropout=0.25)
    assert m.encoder.pattern == "(a f)*3"
    assert m.decoder.net.pattern == "(a c f)*2"
    assert m.encoder.graph.nx.nodes["a0"]["options"]["heads"] == 3
    assert m.decoder.net.graph.nx.nodes["a0"]["options"]["heads"] == 2
    assert m.decoder.net.graph.nx.nodes["f2"]["options"]["glu"]
    assert not m.encoder.graph.nx.nodes["f1"]["options"]["glu"]
    assert m.encoder.pos_emb is None
    assert m.decoder.net.pos_emb is not None
    assert (m.encoder.emb_dropout.p, m.decoder.net.emb_dropout.p) == (0.0, 0.25)
    assert (m.ignore_index, m.pad_value) == (m.decoder.ignore_index, m.decoder.pad_value) == (-100, 0)
    scaled = model(enc_scaled_sinu_pos_emb=True)
    assert type(scaled.encoder.pos_emb).__name__ == "SinusoidalPositions"


def test_patterns_may_say_the_blocks_of_either_side() -> None:
    m = model(enc_depth=None, dec_depth=None, enc_pattern="f a f", dec_pattern="(a c f)*2 f")
    assert (m.encoder.pattern, m.decoder.net.pattern) == ("f a f", "(a c f)*2 f")
    with pytest.raises(ValueError, match="the decoder: its blocks have no 'c', which attends to the encoder's output"):
        model(dec_depth=None, dec_pattern="a f")
    with pytest.raises(ValueError, match=r"the encoder: its blocks attend to a context \('c'\), and there is none"):
        model(enc_depth=None, enc_pattern="a c f")
    assert model(dec_custom_layers=("a", "c", "f", "f"), dec_depth=None).decoder.net.pattern == "a c f f"


# Table 3 of arXiv:2203.00555 for N encoder and M decoder layers
DEEPNORM = [
    ({"enc_depth": 3, "dec_depth": 2}, 3, 2),
    ({"enc_depth": None, "dec_depth": None, "enc_pattern": "(a f)*4", "dec_pattern": "a c f"}, 4, 1),
]


@pytest.mark.parametrize(("kwargs", "n", "m"), DEEPNORM)
def test_deepnorm_has_an_encoder_decoders_constants(kwargs: dict[str, Any], n: int, m: int) -> None:
    built = model(deepnorm=True, **kwargs)
    for net, scale, gain in (
        (built.encoder, 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)),
        (built.decoder.net, (3 * m) ** 0.25, (12 * m) ** -0.25),
    ):
        for node in net.graph.nodes("block"):
            options = net.graph.nx.nodes[node]["options"]
            assert not options["pre_norm"]
            assert options["scale_residual_constant"] == pytest.approx(scale)
            assert options["init_gain"] == pytest.approx(gain)
    built.train()(tokens(), tokens()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())


def test_one_side_may_have_deepnorm_by_itself_or_other_constants_but_not_twice() -> None:
    own = model(dec_deepnorm=True)
    assert own.encoder.graph.nx.nodes["a0"]["options"]["pre_norm"]
    assert not own.decoder.net.graph.nx.nodes["a0"]["options"]["pre_norm"]
    scaled = model(deepnorm=True, enc_scale_residual_constant=1.5)
    assert scaled.encoder.graph.nx.nodes["a0"]["options"]["scale_residual_constant"] == 1.5
    with pytest.raises(TypeError, match="deepnorm= is of both, and dec_deepnorm= is given too; give one"):
        model(deepnorm=True, dec_deepnorm=False)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"enc_head": 2}, r"XTransformer\(\) got an unknown argument 'enc_head'; did you mean 'enc_heads'\?"),
    ({"dec_rotary_pos_embed": 1}, r"unknown argument 'dec_rotary_pos_embed'; did you mean 'dec_rotary_pos_emb'\?"),
    ({"num_tokens": 2}, r"unknown argument 'num_tokens'; did you mean 'dec_num_tokens' or 'enc_num_tokens'\?"),
    ({"tie_token_embed": True}, r"unknown argument 'tie_token_embed'; did you mean 'tie_token_emb'\?"),
    ({"encoder_depth": 2}, r"unknown argument 'encoder_depth'"),
    ({"enc_dim": 8}, r"XTransformer\(\) takes no enc_dim=: encoder and decoder are of one width: give dim="),
    ({"dec_causal": False}, r"takes no dec_causal=: the decoder is causal and the encoder is not"),
    ({"enc_return_only_embed": False}, r"takes no enc_return_only_embed=: the encoder gives embeddings"),
    ({"enc_causal": True}, r"takes no enc_causal=: the decoder is causal and the encoder is not"),
    ({"dec_return_only_embed": True}, r"takes no dec_return_only_embed="),
    ({"enc_tie_embedding": True}, r"takes no enc_tie_embedding=: the encoder gives no logits"),
    ({"dec_max_mem_len": 4}, r"takes no dec_max_mem_len=: .* keep no memories"),
    ({"enc_cross_attend": True}, r"takes no enc_cross_attend=: the encoder has no context to attend to"),
    ({"enc_cross_attn_tokens_dropout": 0.1}, r"takes no enc_cross_attn_tokens_dropout=: the encoder has no context"),
    ({"dec_cross_attend": False}, r"takes no dec_cross_attend=: the decoder attends to the encoder's output anyway"),
    ({"return_tgt_loss": False}, r"XTransformer gives the target's loss; for logits, call its decoder.net"),
    ({"return_tgt_los": True}, r"unknown argument 'return_tgt_los'; did you mean 'return_tgt_loss'\?"),
    ({"enc_num_tokens": None}, r"XTransformer\(\) needs enc_num_tokens="),
    ({"dec_max_seq_len": None}, r"XTransformer\(\) needs dec_max_seq_len="),
    ({"dec_depth": None}, r"the decoder: give depth=, or the whole order as pattern="),
    ({"dec_depth": 2, "dec_pattern": "a c f"}, r"the decoder: pattern= and depth= are both given"),
]


def test_what_is_so_anyway_may_be_said() -> None:
    plain = model()
    said = model(
        return_tgt_loss=True,
        **{"enc_causal": False, "enc_context": False, "enc_cross_attend": False, "enc_only_cross": False},
        **{"enc_return_only_embed": True, "enc_tie_embedding": False, "enc_cross_attn_tokens_dropout": 0.0},
        **{"enc_max_mem_len": 0, "dec_max_mem_len": 0, "dec_shift_mem_down": 0},
        **{"dec_causal": True, "dec_context": True, "dec_cross_attend": True, "dec_return_only_embed": False},
    )
    assert said.graphs == plain.graphs
    with_pattern = model(dec_depth=None, dec_pattern="a c f", dec_cross_attend=True)
    assert with_pattern.decoder.net.pattern == "a c f"
    said.load_state_dict(plain.state_dict())
    src, tgt = tokens(2, 6), tokens(2, 5)
    assert torch.equal(said(src, tgt), plain(src, tgt))
    assert said(src, tgt).ndim == 0


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_no_keyword_vanishes(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        model(**kwargs)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="cross_attn_tokens_dropout must be a number of at least 0 and below 1, not 1"):
        model(cross_attn_tokens_dropout=1.0)
    with pytest.raises(ValueError, match="the decoder: heads must be a whole number of at least 1, not 0"):
        model(dec_heads=0)
    with pytest.raises(ValueError, match=r"^1:3: unknown block 'x'"):
        model(enc_depth=None, enc_pattern="a x f")
    with pytest.raises(ValueError, match=r"mask must be \(2, 7\), not \(2, 6\)"):
        model()(tokens(), tokens(), mask=torch.ones(2, 6, dtype=torch.bool))


# Of models that are there ------------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {"dim": 12, "heads": 2, "attn_dim_head": 6}


def reader(**kwargs: Any) -> TransformerWrapper:
    around = {"num_tokens": 13, "max_seq_len": 16, "return_only_embed": True} | kwargs
    return TransformerWrapper(attn_layers=Encoder(depth=1, **SIZES), **around)


def listener(**kwargs: Any) -> ContinuousTransformerWrapper:
    around = {"dim_in": 5, "conv_stem": True, "max_seq_len": 8} | kwargs
    return ContinuousTransformerWrapper(attn_layers=Encoder(depth=1, **SIZES), **around)


def writer(**kwargs: Any) -> TransformerWrapper:
    stack = Decoder(depth=1, cross_attend=True, **SIZES)
    return TransformerWrapper(attn_layers=stack, **({"num_tokens": 11, "max_seq_len": 16} | kwargs))


def test_two_models_are_joined_as_keywords_join_them() -> None:
    whole = model(dec_num_tokens=11, pad_value=3, cross_attn_tokens_dropout=0.2)
    joined = XTransformer.from_models(
        whole.encoder, whole.decoder.net, pad_value=3, ignore_index=-1, cross_attn_tokens_dropout=0.2
    ).eval()
    assert (joined.pad_value, joined.ignore_index, joined.cross_attn_tokens_dropout) == (3, -1, 0.2)
    assert joined.state_dict().keys() == whole.state_dict().keys()
    src, tgt = tokens(), tokens(high=11)
    assert torch.equal(joined(src, tgt), whole(src, tgt))
    of_graphs = XTransformer.from_graphs(whole.graphs).eval()
    of_graphs.load_state_dict(whole.state_dict())
    assert torch.equal(of_graphs(src, tgt), whole(src, tgt))
    assert of_graphs.graphs == whole.graphs
    tied = XTransformer.from_models(reader(num_tokens=11), writer(), tie_token_emb=True)
    assert tied.encoder.token_emb.weight is tied.decoder.net.token_emb.weight


@pytest.mark.parametrize("kwargs", [{}, {"conv_stem": False}, {"dim_out": 12, "num_memory_tokens": 2}])
def test_an_encoder_may_read_vectors(kwargs: dict[str, Any]) -> None:
    m = XTransformer.from_models(listener(**kwargs), writer(), start_token=1).eval()
    frames = torch.randn(2, 6, 5)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    context, context_mask = m.encode(frames, mask)
    places = 6 if "conv_stem" in kwargs else 3
    assert torch.equal(context, m.encoder(frames, mask=mask))
    assert context_mask is not None
    assert context_mask.sum(1).tolist() == ([6, 3] if places == 6 else [3, 2])
    tgt = tokens(high=11)
    torch.testing.assert_close(m(frames, tgt, mask=mask), by_hand(m, context, context_mask, tgt))
    alone = m.generate(frames[1:, :3], seq_len=6, temperature=0.0)
    assert torch.equal(m.generate(frames, seq_len=6, mask=mask, temperature=0.0)[1:], alone)
    m.train()(frames, tgt, mask=mask).backward()
    assert all(p.grad is not None for name, p in m.named_parameters())


UNFIT: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (reader, lambda: 3, {}, TypeError, "the decoder: it must be a TransformerWrapper, not int"),
    (Encoder, writer, {}, TypeError, "the encoder: it must be a TransformerWrapper, a Cont"),
    (lambda: reader(return_only_embed=False), writer, {}, ValueError, "the encoder: it gives logits: set return_only"),
    (writer, writer, {}, ValueError, r"the encoder: its blocks attend to a context \('c'\)"),
    (reader, reader, {}, ValueError, "the decoder: its blocks have no 'c'"),
    (
        lambda: listener(dim_out=5),
        writer,
        {},
        ValueError,
        "the encoder gives vectors of 5 features, and the decoder's cross",
    ),
    (reader, writer, {"tie_token_emb": True}, ValueError, "enc_num_tokens=13 and dec_num_tokens=11 differ"),
    (listener, writer, {"tie_token_emb": True}, ValueError, "tie_token_emb is set, but the encoder reads vectors"),
    (reader, writer, {"start_token": 11}, ValueError, "start_token=11 is no token of the decoder, which has 11"),
    (reader, writer, {"start_tokn": 1}, TypeError, r"argument 'start_tokn'; did you mean 'start_token'\?"),
    (reader, writer, {"generation": {"topk": 1}}, TypeError, r"argument 'topk'; did you mean 'top_k'"),
    (reader, writer, {"generation": {"eos_token": 11}}, ValueError, "eos_token must be a token, from 0 to 10, not 11"),
    (reader, writer, {"generation": {"forced_tokens": {0: 11}}}, ValueError, "forced_tokens are tokens from 0 to 10"),
]


@pytest.mark.parametrize(("encoder", "decoder", "options", "error", "message"), UNFIT)
def test_what_does_not_fit_is_not_joined(
    encoder: Any, decoder: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    made = Encoder(depth=1, **SIZES) if encoder is Encoder else encoder()
    with pytest.raises(error, match=message):
        XTransformer.from_models(made, decoder(), **options)


# Start and defaults ------------------------------------------------------------------------------------------------


def test_a_target_starts_with_the_start_token() -> None:
    m = model(start_token=4)
    src = tokens()
    whole = m.generate(src, torch.full((2, 1), 4), 15, temperature=0.0)
    assert torch.equal(m.generate(src, seq_len=15, temperature=0.0), whole)
    assert torch.equal(m.generate(src, temperature=0.0), whole)  # all that max_seq_len leaves
    assert m.generate(src, [tokens(1, 3)[0], tokens(1, 2)[0]], temperature=0.0).shape == (2, 13)
    with pytest.raises(TypeError, match=r"generate\(\) needs seq_out_start: the model has no start_token"):
        model().generate(src, seq_len=3)
    free = model(start_token=4, dec_max_seq_len=0)
    with pytest.raises(TypeError, match=r"generate\(\) needs seq_len: the decoder is of any length"):
        free.generate(src)


def test_generation_has_the_models_own_arguments_unless_others_are_given() -> None:
    own = {"temperature": 0.0, "forced_tokens": {0: 5, -1: 2}, "suppress_tokens": [0, 1]}
    m = model(start_token=4, generation=own)
    assert m.generation == own
    src = tokens()
    out = m.generate(src, seq_len=9)
    assert out[:, [0, -1]].tolist() == [[5, 2]] * 2
    assert not torch.isin(out, torch.tensor([0, 1])).any()
    given = m.generate(src, seq_len=9, forced_tokens={3: 7}, suppress_tokens=())
    plain = model()
    plain.load_state_dict(m.state_dict())
    same = plain.generate(src, torch.full((2, 1), 4), 9, temperature=0.0, forced_tokens={3: 7})
    assert torch.equal(given, same)
    assert given[:, 3].tolist() == [7, 7]
    assert torch.equal(m.generate(src, seq_len=9, cache_kv=False), out)
    assert copy.deepcopy(m).generation == pickle.loads(pickle.dumps(m)).generation == own


def test_what_it_generates_with_is_saved(tmp_path: Path) -> None:
    own = {"temperature": 0.0, "forced_tokens": {0: 5, -1: 2}, "suppress_tokens": [0, 1]}
    heard = XTransformer.from_models(listener(), writer(), start_token=4, generation=own).eval()
    frames = torch.randn(2, 6, 5)
    heard.save_pretrained(tmp_path)
    again = XTransformer.from_pretrained(tmp_path)
    assert (again.start_token, again.generation) == (4, own)
    assert torch.equal(again.generate(frames, seq_len=6), heard.generate(frames, seq_len=6))
    drawn = model(generation={"generator": torch.Generator()})
    with pytest.raises(ValueError, match="the model's generation has a generator, which no file can hold"):
        drawn.save_pretrained(tmp_path)


# Cached steps ------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "t5": {
        **{f"{side}_{name}": value for side in ("enc", "dec") for name, value in {"rel_pos_bias": True}.items()},
        **{"enc_rel_pos_scale": 1, "dec_rel_pos_scale": 1, "tie_token_emb": True, "dec_tie_embedding": True},
        **{"enc_use_rmsnorm": True, "dec_use_rmsnorm": True, "enc_ff_no_bias": True, "dec_ff_no_bias": True},
    },
    "bart": {
        **{"enc_pre_norm": False, "dec_pre_norm": False, "enc_post_emb_norm": True, "dec_post_emb_norm": True},
        **{"tie_token_emb": True, "dec_tie_embedding": True},
    },
    "rotary": {"enc_rotary_pos_emb": True, "dec_rotary_pos_emb": True, "dec_attn_kv_heads": 1},
}


@pytest.mark.parametrize("variant", [*VARIANTS, "whisper"])
@pytest.mark.parametrize("padded", [False, True])
def test_cached_steps_are_the_last_rows_of_whole_passes(variant: str, padded: bool) -> None:
    m = XTransformer.from_models(listener(), writer()).eval() if variant == "whisper" else model(**VARIANTS[variant])
    m = m.double()
    src = torch.randn(2, 6, 5).double() if variant == "whisper" else tokens(seq=6)
    mask = torch.arange(6) < torch.tensor([[6], [4]]) if padded else None
    context, context_mask = m.encode(src, mask)
    net, tgt = m.decoder.net, tokens(seq=9, high=11)
    whole = net(tgt, context=context, context_mask=context_mask)
    cache = net.new_cache(2)
    steps = [net(tgt[:, :3], context=context, context_mask=context_mask, cache=cache)]
    steps += [net(tgt[:, i : i + 1], cache=cache) for i in range(3, 9)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-10, atol=1e-10)
    if mask is not None:
        alone, _ = m.encode(src[1:, :4])
        torch.testing.assert_close(whole[1:], net(tgt[1:], context=alone), rtol=1e-6, atol=1e-6)
