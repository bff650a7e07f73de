"""Keywords of x-transformers' releases: taken, dropped with a warning that says what acts, or refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from xt_blocks import x_transformers as x

SIZES = {"dim": 16, "depth": 2, "heads": 2}


def pattern_of(**keywords: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return x.Decoder(**{**SIZES, **keywords}).pattern


def options_of(**keywords: Any) -> dict[str, Any]:
    graph = x.Decoder(**SIZES, **keywords).graph
    return {f"{kind}.{name}": value for kind, node in (("a", "a0"), ("f", "f1")) for name, value in graph.nx.nodes[node]["options"].items()}  # fmt: skip


# 1.x -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "value", "acts"),
    [
        ("use_abs_pos_emb", False, "argument of the model around the stack"),
        ("emb_dropout", 0.1, "argument of the model around the stack"),
        ("num_memory_tokens", 2, "argument of the model around the stack"),
        ("dim_head", 32, "attn_dim_head would act"),
        ("qk_norm", True, "attn_qk_norm would act"),
        ("one_kv_head", True, "attn_one_kv_head would act"),
        ("dropout", 0.1, "attn_dropout and ff_dropout would act"),
        ("glu", True, "ff_glu would act"),
        ("flash_attn", True, "attn_flash would act"),
        ("rotary_pos_embed", True, "did you mean 'rotary_pos_emb'?"),
        ("quite_unknown_thing", 3, "has no effect"),
    ],
)
@pytest.mark.parametrize("stack", ["Encoder", "Decoder", "CrossAttender", "AttentionLayers"])
def test_a_keyword_that_1x_ignores_is_named(stack: str, keyword: str, value: Any, acts: str) -> None:
    with pytest.warns(UserWarning, match=f"{keyword}=") as seen:
        built = getattr(x, stack)(**SIZES, **{keyword: value})
    (warning,) = seen
    assert acts in str(warning.message)
    assert warning.filename == __file__
    assert str(getattr(x, stack)(**SIZES)) == str(built)


def test_each_ignored_keyword_is_named() -> None:
    with pytest.warns(UserWarning, match="has no effect") as seen:
        x.Encoder(**SIZES, dim_head=8, dropout=0.1)
    assert len(seen) == 2


def test_a_prefixed_keyword_that_no_release_has_is_refused() -> None:
    with pytest.raises(TypeError, match="did you mean 'attn_dropout'"):
        x.Decoder(**SIZES, attn_droput=0.1)
    with pytest.raises(TypeError, match="ff_gul"):
        x.Decoder(**SIZES, ff_gul=True)


def test_an_unknown_keyword_is_told_whatever_its_value() -> None:
    assert x.Decoder(**SIZES, attn_kv_heads=None, sandwich_coef=None).pattern == "(a f)*2"
    for keyword in ("attn_droput", "ff_gul"):
        with pytest.raises(TypeError, match=keyword):
            x.Decoder(**SIZES, **{keyword: None})
    with pytest.warns(UserWarning, match="rotray_pos_emb="):
        x.Decoder(**SIZES, rotray_pos_emb=None)
    for model, own in ((x.TransformerWrapper, {"num_tokens": 9, "emb_dim": None}), (x.ContinuousTransformerWrapper, {"dim_in": None})):  # fmt: skip
        assert model(max_seq_len=8, attn_layers=x.Decoder(**SIZES), **own).emb_dim == 16
        with pytest.raises(TypeError, match="emb_dorpout"):
            model(max_seq_len=8, attn_layers=x.Decoder(**SIZES), **own, emb_dorpout=None)


def test_both_sides_of_an_xtransformer() -> None:
    sizes = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in (("num_tokens", 9), ("max_seq_len", 8), ("depth", 1), ("heads", 2))}  # fmt: skip
    with pytest.warns(UserWarning, match="has no effect") as seen:
        model = x.XTransformer(dim=16, **sizes, enc_dim_head=8, dec_qk_norm=True, heads=4)
    assert [str(warning.message).split("=")[0] for warning in seen] == [
        "XTransformer(enc_dim_head",
        "XTransformer(dec_qk_norm",
        "XTransformer(heads",
    ]
    assert "enc_attn_dim_head would act" in str(seen[0].message)
    assert "dec_attn_qk_norm would act" in str(seen[1].message)
    assert isinstance(model.encoder, x.TransformerWrapper)
    assert isinstance(model.decoder, x.AutoregressiveWrapper)
    assert isinstance(model.decoder.net.attn_layers, x.Decoder)
    tied = x.XTransformer(dim=16, **{**sizes, "enc_depth": 3}, enc_weight_tie_layers=True, dec_disable_abs_pos_emb=True)
    assert tied.encoder.attn_layers.pattern == "(a@x0 f@x1)*3"
    assert tied.decoder.net.pos_emb is None


# 2.x -------------------------------------------------------------------------------------------------------------------


def test_orders_of_2x_are_patterns() -> None:
    assert pattern_of(depth=3, weight_tie_layers=True) == "(a@x0 f@x1)*3"
    assert pattern_of(depth=2, weight_tie_layers=True, cross_attend=True) == "(a@x0 c@x1 f@x2)*2"
    assert pattern_of(layers_execute_order=(0, 1, 0, 1, 2)) == "a@x0 f@x1 a@x0 f@x1 a"
    assert pattern_of(only_attn=True) == "a a"
    assert pattern_of(depth=1, only_attn=True, cross_attend=True) == "a c"
    assert pattern_of(ff_zero_init_output=True) == "a f(zero_init_branch_output) a f(zero_init_branch_output)"
    assert pattern_of(depth=1, attn_zero_init_output=True, cross_attend=True) == "a(zero_init_branch_output) c(zero_init_branch_output) f"  # fmt: skip
    assert pattern_of(macaron=True, weight_tie_layers=True) == "(f/2@x0 a@x1 f/2@x2)*2"
    assert pattern_of(depth=1, macaron=True, ff_zero_init_output=True, shift_tokens=(1, 0, 1)) == "f(zero_init_branch_output)>>1/2 a>>0 f(zero_init_branch_output)>>1/2"  # fmt: skip
    with pytest.raises(TypeError, match="names a layer that is not among the 4"):
        pattern_of(layers_execute_order=(0, 7))
    with pytest.raises(TypeError, match="not both"):
        x.Decoder(dim=16, pattern="a f", only_attn=True)


def test_a_tied_stack_computes_its_blocks_again() -> None:
    once = x.Decoder(dim=16, depth=1, heads=2).eval()
    twice = x.Decoder(dim=16, depth=2, heads=2, weight_tie_layers=True).eval()
    twice.blocks["a0"].load_state_dict(once.blocks["a0"].state_dict())
    twice.blocks["f1"].load_state_dict(once.blocks["f1"].state_dict())
    y = torch.randn(1, 4, 16)
    _, seen = once(y, return_hiddens=True)
    _, seen = once(seen.layer_hiddens[-1], return_hiddens=True)
    torch.testing.assert_close(twice(y), once.norm(seen.layer_hiddens[-1]))


def rotary_of(**keywords: Any) -> dict[str, Any]:
    graph = x.Decoder(**SIZES | {"attn_dim_head": 16}, rotary_pos_emb=True, **keywords).graph
    return dict(graph.nx.nodes[graph.sources("a0", "position")[0]])


def test_spellings_of_2x() -> None:
    assert options_of(attn_softclamp_logits=True, attn_logit_softclamp_value=20.0)["a.softcap"] == 20.0
    assert options_of(attn_softclamp_logits=True)["a.softcap"] == 50.0
    assert options_of(attn_logit_softclamp_value=20.0)["a.softcap"] is None
    assert options_of(attn_head_learned_sink=True)["a.sink"] is True
    assert options_of(attn_laser=True, attn_laser_softclamp_value=9.0)["a.laser_softcap"] == 9.0
    assert options_of(attn_laser_softclamp_value=9.0)["a.laser_softcap"] == 15.0
    assert x.Decoder(**SIZES, softclamp_output=True).graph.nx.nodes["output"]["softcap"] == 30.0
    assert options_of(attn_data_dependent_alibi=True)["a.forget_gate"] is True
    hard = options_of(attn_hard=True)
    assert (hard["a.sparse_topk"], hard["a.sparse_topk_straight_through"]) == (1, True)
    assert options_of(attn_low_rank_silu_gates=False)["a.low_rank_silu_gates"] is True  # there is no gate of low rank
    with pytest.raises(TypeError, match=r"attn_dim_out=9\): .* put a linear layer after a lone Attention"):
        x.Decoder(**SIZES, attn_dim_out=9)
    assert x.CrossAttender(**SIZES, attn_dim_context=24).graph.dim_context == 24
    assert options_of(attn_pre_talking_heads=True, attn_post_talking_heads=True)["a.talking_heads"] is True
    node = rotary_of(rotary_interpolation_factor=2.5)
    assert (node["scaling"], node["factor"], node["theta"]) == ("linear", 2.5, 1e4)
    assert rotary_of(rotary_base_rescale_factor=4.0, rotary_emb_dim=8)["theta"] == pytest.approx(1e4 * 4 ** (8 / 6))
    with pytest.raises(TypeError, match="before and after the softmax"):
        x.Decoder(**SIZES, attn_pre_talking_heads=True)
    with pytest.warns(UserWarning, match="leaves alibi_pos_bias as it is"):
        x.Decoder(**SIZES, attn_softclamp_logits=True, alibi_pos_bias=True)


def test_an_option_of_2x_is_taken_at_its_default_alone() -> None:
    pattern_of(
        verbose=False, num_residual_streams=1, use_layerscale=False, attn_flash_pack_seq=False, rel_pos_kwargs={}
    )
    pattern_of(attn_attend_sdp_kwargs={"enable_flash": False}, attn_onnxable=True, norm_add_unit_offset=False)
    for keyword, value in (("polar_pos_emb", True), ("attn_selective", True), ("ff_solu", True)):  # fmt: skip
        with pytest.raises(TypeError, match=f"{keyword}={value!r}.*is not here"):
            x.Decoder(**SIZES, **{keyword: value})
    assert x.TransformerWrapper(
        num_tokens=9, max_seq_len=8, attn_layers=x.Decoder(**SIZES), num_memory_tokens=None, mixture_of_softmax=False
    )
    with pytest.raises(TypeError, match="mixture_of_softmax"):
        x.TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=x.Decoder(**SIZES), mixture_of_softmax=True)
    with pytest.raises(TypeError, match="add_attn_z_loss"):
        x.AutoregressiveWrapper(
            x.TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=x.Decoder(**SIZES)), add_attn_z_loss=True
        )


def test_every_option_of_the_installed_release_is_known() -> None:
    """Taken at its default without a word, but those that are told; none is said to have no effect."""
    import inspect

    theirs: Any = pytest.importorskip("x_transformers.x_transformers")
    if not hasattr(theirs, "CoPE"):
        pytest.skip("another release of x-transformers")
    for prefix, part in (("", theirs.AttentionLayers), ("attn_", theirs.Attention), ("ff_", theirs.FeedForward)):
        for name, parameter in inspect.signature(part).parameters.items():
            told = {"self", "dim", "depth", "kwargs", "causal", "heads", "only_cross", "attn_flash"}
            if name in told or prefix + name in ("attn_dim_head", "attn_heads", "attn_causal"):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                x.Decoder(**SIZES, **{prefix + name: parameter.default})


# Results ---------------------------------------------------------------------------------------------------------------


def model(**wrapper: Any) -> Any:
    torch.manual_seed(0)
    return x.TransformerWrapper(num_tokens=9, max_seq_len=12, attn_layers=x.Decoder(**SIZES, rotary_pos_emb=True), **wrapper).eval()  # fmt: skip


TOKENS = torch.randint(0, 9, (2, 8))


def test_results_are_in_pairs() -> None:
    net = model(max_mem_len=4)
    logits = net(TOKENS)
    out, seen = net(TOKENS, return_intermediates=True, return_mems=True, return_attn=True)
    assert torch.equal(out, net(TOKENS, return_intermediates=True)[0])
    assert len(seen.mems) == 2
    out, mems = net(TOKENS, return_mems=True, return_attn=True)
    assert [t.shape for t in mems] == [(2, 4, 16)] * 2
    out, maps = net(TOKENS, return_attn=True)
    assert [t.shape for t in maps] == [(2, 2, 8, 8)] * 2
    embeddings, seen = net(TOKENS, return_embeddings_and_intermediates=True)
    torch.testing.assert_close(embeddings, net(TOKENS, True))
    torch.testing.assert_close(net(TOKENS, torch.ones(2, 8, dtype=torch.bool)), logits)
    front = torch.randn(2, 3, 16)
    whole = net(TOKENS, prepend_embeds=front)
    torch.testing.assert_close(net(TOKENS, prepend_embeds=front, excise_prepend_embeds=True), whole[:, 3:])
    with pytest.raises(TypeError, match="did you mean 'prepend_embeds'"):
        net(TOKENS, prepend_embedding=front)


def test_logits_of_one_number_lose_their_last_axis() -> None:
    net, plain = model(logits_dim=1, squeeze_out_last_dim=True), model(logits_dim=1)
    torch.testing.assert_close(net(TOKENS), plain(TOKENS)[..., 0])
    logits, embeddings = net(TOKENS, return_logits_and_embeddings=True)
    assert (logits.shape, embeddings.shape) == ((2, 8), (2, 8, 16))
    logits, _ = net(TOKENS, return_intermediates=True)
    assert logits.shape == (2, 8)
    assert net(TOKENS, return_embeddings=True).shape == (2, 8, 16)
    assert model(squeeze_out_last_dim=True)(TOKENS).shape == (2, 8, 9)


def test_masks_in_other_words() -> None:
    net = model()
    lens = torch.tensor([5, 8])
    mask = torch.arange(8) < lens[:, None]
    torch.testing.assert_close(net(TOKENS, lens=lens), net(TOKENS, mask=mask))
    torch.testing.assert_close(net(TOKENS, self_attn_kv_mask=mask), net(TOKENS, self_attn_context_mask=mask))
    left = torch.arange(8) >= torch.tensor([[3], [0]])
    torch.testing.assert_close(net(TOKENS, seq_start_pos=torch.tensor([3, 0])), net(TOKENS, mask=left))
    with pytest.raises(TypeError, match="lens and mask"):
        net(TOKENS, lens=lens, mask=mask)


def test_new_tokens_alone() -> None:
    net = model()
    whole = net(TOKENS)
    _, seen = net(TOKENS[:, :3], return_intermediates=True)
    out, seen = net(TOKENS[:, 3:6], cache=seen, input_not_include_cache=True, return_intermediates=True)
    torch.testing.assert_close(out, whole[:, 3:6])
    torch.testing.assert_close(net(TOKENS[:, 6:], cache=seen, input_not_include_cache=True), whole[:, 6:])
    stack, y = x.Decoder(**SIZES).eval(), torch.randn(1, 7, 16)
    _, seen = stack(y[:, :3], return_hiddens=True)
    torch.testing.assert_close(stack(y[:, 3:], cache=seen, input_not_include_cache=True), stack(y)[:, 3:])


def test_left_padding_by_hand() -> None:
    net, start = model(), torch.tensor([2, 0])
    whole = net(TOKENS, seq_start_pos=start)
    _, seen = net(TOKENS[:, :4], seq_start_pos=start, return_intermediates=True)
    for n in range(4, 8):
        out, seen = net(TOKENS[:, : n + 1], seq_start_pos=start, cache=seen, return_intermediates=True)
        torch.testing.assert_close(out, whole[:, n : n + 1])


def test_masks_of_memories() -> None:
    net = model(max_mem_len=4)
    mask = torch.tensor([[False, True, True, True], [True] * 4])
    _, mems = net(TOKENS[:, :4], mask=mask, return_mems=True)
    expected = net(TOKENS[:, 4:], mems=mems)
    torch.testing.assert_close(net(TOKENS[:, 4:], mems=[*mems], mem_masks=[mask, mask]), expected)
    torch.testing.assert_close(net(TOKENS[:, 4:], mems=[None, None]), net(TOKENS[:, 4:]))
    with pytest.raises(ValueError, match="differ from layer to layer"):
        net(TOKENS[:, 4:], mems=[*mems], mem_masks=[mask, ~mask])


def test_sampling_is_theirs_by_default() -> None:
    """A tenth of 20 tokens is the two likeliest; with our filters, none by default."""
    net = x.TransformerWrapper(num_tokens=20, max_seq_len=8, attn_layers=x.Decoder(**SIZES))
    with torch.no_grad():
        net.to_logits.weight.zero_()
        net.to_logits.bias.copy_(torch.linspace(0, 1, 20))
    trainer, prompt = x.AutoregressiveWrapper(net), torch.zeros(64, 1, dtype=torch.long)
    drawn = {name: set(trainer.generate(prompt, 4, **options).flatten().tolist()) for name, options in {
        "default": {},
        "1.x": {"filter_thres": 0.75},
        "2.x": {"filter_logits_fn": "top_k", "filter_kwargs": {"k": 3}},
        "ours": {"top_k": 4},
        "none": {"filter_logits_fn": None},
        "top_a": {"filter_logits_fn": x.top_a, "min_p_ratio": 1.0, "min_p_pow": 1.0},
    }.items()}  # fmt: skip
    drawn["stream"] = {int(token) for step in trainer.stream(prompt, 4) for token in step}
    assert drawn["stream"] == drawn["default"]
    assert drawn["default"] == {18, 19}
    assert drawn["1.x"] == {15, 16, 17, 18, 19}
    assert drawn["2.x"] == {17, 18, 19}
    assert drawn["ours"] == {16, 17, 18, 19}
    assert len(drawn["none"]) == 20
    assert drawn["top_a"] == {19}
    with pytest.raises(ValueError, match="must be one of top_p, top_k, top_a, min_p, not 'topk'"):
        trainer.generate(prompt, 1, filter_logits_fn="topk")
    with pytest.raises(TypeError, match="is for filter_logits_fn=top_k or top_p"):
        trainer.generate(prompt, 1, filter_logits_fn=x.top_a, filter_thres=0.9)
    with pytest.raises(TypeError, match="needs prompts and seq_len"):
        trainer.generate(prompt)


def test_prompts_with_lengths_go_on_as_if_alone() -> None:
    trainer = x.AutoregressiveWrapper(model())
    lens = torch.tensor([3, 6])
    together = trainer.generate(TOKENS[:, :6], 4, prompt_lens=lens, temperature=0.0)
    alone = [trainer.generate(row[:n], 4, temperature=0.0) for row, n in zip(TOKENS, lens.tolist(), strict=True)]
    assert torch.equal(together, torch.stack(alone))
    assert len([*trainer.stream(TOKENS[:, :6], 4, prompt_lens=lens)]) == 4


def test_the_loss_and_what_it_is_of() -> None:
    trainer = x.AutoregressiveWrapper(model()).eval()
    lens = torch.tensor([4, 8])
    mask = torch.arange(8) < lens[:, None]
    loss, (logits, seen) = trainer(TOKENS, return_outputs=True, lens=lens)
    torch.testing.assert_close(loss, trainer(TOKENS, mask=mask))
    log_p = logits.log_softmax(dim=-1).gather(-1, TOKENS[:, 1:, None]).squeeze(-1)
    counted = mask[:, 1:] & mask[:, :-1]
    torch.testing.assert_close(loss, -log_p[counted].mean())
    assert len(seen.hiddens) == 2


def test_the_loss_is_computed_without_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model()
    monkeypatch.setattr(type(net), "_outputs", lambda *_: pytest.fail("all logits were made"))
    x.AutoregressiveWrapper(net)(TOKENS)


def test_an_xtransformer_samples_as_its_decoder() -> None:
    sizes = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in (("num_tokens", 20), ("max_seq_len", 8), ("depth", 1), ("heads", 2))}  # fmt: skip
    net = x.XTransformer(dim=16, **sizes)
    with torch.no_grad():
        net.decoder.net.to_logits.weight.zero_()
        net.decoder.net.to_logits.bias.copy_(torch.linspace(0, 1, 20))
    src, start = torch.zeros(64, 3, dtype=torch.long), torch.zeros(64, 2, dtype=torch.long)
    assert set(net.generate(src, start, 4).flatten().tolist()) == {18, 19}
    assert set(net.generate(src, start, 4, filter_thres=0.75).flatten().tolist()) == {15, 16, 17, 18, 19}
    lens = torch.tensor([1, 2] * 32)
    assert net.generate(src, start, 4, prompt_lens=lens, mask=torch.ones(64, 3, dtype=torch.bool)).shape == (64, 4)


# Attributes ------------------------------------------------------------------------------------------------------------


def test_a_stack_is_read_as_theirs() -> None:
    stack = x.Decoder(**SIZES, sandwich_norm=True, rotary_pos_emb=True, cross_attend=True)
    assert stack.layer_types == ("a", "c", "f") * 2
    assert stack.num_attn_layers == 2
    assert stack.depth == 2
    assert stack.causal
    assert stack.has_pos_emb
    assert stack.can_cross_attend
    assert stack.final_norm is stack.norm
    assert not x.Encoder(**SIZES).causal
    assert not x.Encoder(**SIZES).has_pos_emb
    (pre, branch, post), layer, residual = stack.layers[0]
    block = stack.blocks["a0"]
    assert pre is block.norm
    assert branch is block.sandwich_norm
    assert post is None
    assert layer is block.layer
    assert residual is block.residual
    (pre, branch, post), _, _ = x.Encoder(**SIZES, pre_norm=False).layers[1]
    assert pre is None
    assert branch is None
    assert post is not None
    assert not [name for name, _ in stack.named_parameters() if name.startswith("layers")]


def test_a_vision_model_is_read_as_theirs() -> None:
    net = x.ViTransformerWrapper(image_size=4, patch_size=2, channels=1, num_classes=3, emb_dropout=0.1, attn_layers=x.Encoder(**SIZES)).eval()  # fmt: skip
    image = torch.randn(2, 1, 4, 4)
    patches = image.reshape(2, 1, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 4)
    embedded = net.dropout(net.patch_to_embedding(patches) + net.pos_embedding)
    torch.testing.assert_close(net.norm(net.attn_layers(embedded)), net(image, return_embeddings=True))


def test_absolute_positions_are_left_out_as_the_stack_says() -> None:
    def around(**settings: Any) -> Any:
        return x.TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=x.Decoder(**SIZES, **settings))

    assert around().pos_emb.emb.weight.shape == (8, 16)
    assert around(disable_abs_pos_emb=True).pos_emb is None
    with pytest.raises(TypeError, match="disable_abs_pos_emb=False"):
        around(disable_abs_pos_emb=False, rotary_pos_emb=True)
    assert around(disable_abs_pos_emb=False).pos_emb is not None


@pytest.mark.parametrize(
    "path",
    ["x_transformers", "autoregressive_wrapper", "xl_autoregressive_wrapper", "nonautoregressive_wrapper", "continuous",
     "continuous_autoregressive_wrapper", "attend"],
)  # fmt: skip
def test_a_module_is_found_at_both_paths(path: str) -> None:
    from importlib import import_module

    inner, outer = import_module(f"xt_blocks.x_transformers.{path}"), import_module(f"xt_blocks.{path}")
    for name in inner.__all__:
        assert getattr(inner, name) is getattr(outer, name)


def test_one_vector_of_a_sequence() -> None:
    tokens = torch.randint(0, 9, (2, 5))

    def shape(stack: Any = x.Encoder, _asked: dict[str, Any] | None = None, **options: Any) -> tuple[int, ...]:
        model = x.TransformerWrapper(num_tokens=9, max_seq_len=6, attn_layers=stack(**SIZES), **options)
        return tuple(model(tokens, **(_asked or {})).shape)

    embeddings = {"return_embeddings": True}
    assert shape(use_cls_token=True) == (2, 9)
    assert shape(use_cls_token=True, num_cls_tokens=3, _asked=embeddings) == (2, 3, 16)
    assert shape(average_pool_embed=True, logits_dim=1, squeeze_out_last_dim=True) == (2,)
    assert shape(average_pool_embed=True, _asked=embeddings) == (2, 16)
    assert shape(attn_pool=True) == (2, 1, 16)
    assert shape(attn_pool=True, num_pooled_tokens=2, return_only_embed=True) == (2, 2, 16)
    assert shape(attn_pool=True, _asked=embeddings) == (2, 5, 16)
    assert shape(num_cls_tokens=3, num_pooled_tokens=2) == (2, 5, 9)
    with pytest.raises(TypeError, match="make the same vector"):
        shape(use_cls_token=True, attn_pool=True)
    with pytest.raises(TypeError, match="of a causal stack gives its tokens beside logits there"):
        shape(x.Decoder, attn_pool=True)


def test_a_value_for_each_layer_of_a_kind_stands_in_its_blocks() -> None:
    tapered = x.layer_schedule(4, 2, 3, schedule="linear")
    assert tapered == (4, 3, 2)
    assert x.layer_schedule(1, 3, 3) == pytest.approx((1, 2, 3))
    assert x.layer_schedule(0, 1, 3, lambda start, end, t: t * t) == (0, 0.25, 1)
    assert pattern_of(depth=3, ff_mult=tapered) == "a f(mult=4) a f(mult=3) a f(mult=2)"
    both = {"attn_gate_values": (True, False), "attn_zero_init_output": True, "unet_skips": True}
    assert pattern_of(**both) == "^u a(gate_values, zero_init_branch_output) f <u(pop, cat) a(gate_values=false, zero_init_branch_output) f"  # fmt: skip
    with pytest.raises(TypeError, match="mult has 3 values for 2 layers"):
        pattern_of(ff_mult=tapered)
    with pytest.raises(ValueError, match="a depth of at least 2, and the schedule linear, cosine or a function"):
        x.layer_schedule(4, 2, 3, "square")


def test_wiring_of_2x_is_a_pattern_or_refused_in_words() -> None:
    assert pattern_of(unet_skips=True) == "^u a f <u(pop, cat) a f"
    assert pattern_of(add_value_residual=True) == "a ^v f a(values=v, value_mix=learned) f"
    cross = "a ^v c ^w f a(values=v, value_mix=learned) c(values=w) f"
    assert pattern_of(add_value_residual=True, cross_attend=True) == cross
    half = {"add_value_residual": True, "learned_value_residual_mix": False}
    assert pattern_of(**half, reinject_input=True) == "a ^v f a(values=v) f"
    assert pattern_of(learned_value_residual_mix=True, learned_reinject_input_gate=True) == "(a f)*2", "without effect"
    for keywords, words in (
        ({"integrate_layers": True}, r"this option .* is not here; queries, keys and values read one view here, as in"),
        ({"unet_skips": True, "layers_execute_order": (0, 1, 0, 1)}, "of blocks that run once, in their order"),
    ):
        with pytest.raises(TypeError, match=words):
            pattern_of(**keywords)
