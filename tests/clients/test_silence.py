"""What clients write acts, is refused, or warned of: nothing is dropped in silence."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xt_blocks import x_transformers as x_t

SIZES = {"dim": 24, "depth": 2, "heads": 3, "attn_dim_head": 8}
TOKENS = torch.randint(1, 17, (2, 10), generator=torch.Generator().manual_seed(0))


def model_of(stack: dict[str, Any] | None = None, **wrapper: Any) -> Any:
    decoder = x_t.Decoder(**SIZES, **(stack or {}))
    return x_t.TransformerWrapper(num_tokens=17, max_seq_len=32, attn_layers=decoder, **wrapper).eval()


def vision_of(num_classes: int | None = 3) -> Any:
    encoder = x_t.Encoder(**SIZES)
    return x_t.ViTransformerWrapper(image_size=8, patch_size=4, num_classes=num_classes, attn_layers=encoder).eval()


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


# Images ---------------------------------------------------------------------------------------------------------------


def test_a_vision_model_without_classes_gives_the_mean_of_its_patches() -> None:
    model, img = vision_of(None), torch.randn(2, 3, 8, 8)
    close(model(img), model(img, return_embeddings=True).mean(dim=1))
    assert isinstance(model.mlp_head, nn.Identity)


# Arguments of a pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True])
def test_left_padding_of_a_later_pass_counts_from_the_start(alone: bool) -> None:
    model = model_of({"rotary_pos_emb": True})
    start, x = torch.tensor([2, 0]), TOKENS
    if alone:
        model, x = model.attn_layers, torch.randn(2, 10, 24)
    expected = model(x, seq_start_pos=start)[:, 5:]
    cache = model.new_cache(2, 10)
    model(x[:, :5], seq_start_pos=start, cache=cache)
    close(model(x[:, 5:], seq_start_pos=start, cache=cache), expected)
    asked = {"return_hiddens" if alone else "return_intermediates": True}
    _, seen = model(x[:, :5], seq_start_pos=start, **asked)
    close(model(x, seq_start_pos=start, cache=seen), expected)
    close(model(x[:, 5:], seq_start_pos=start, cache=seen, input_not_include_cache=True), expected)


def test_two_masks_are_refused() -> None:
    mask = torch.ones(2, 10, dtype=torch.bool)
    with pytest.raises(TypeError, match="two masks"):
        model_of()(TOKENS, mask, mask=mask)


def test_a_mask_of_some_memories_is_refused() -> None:
    model = model_of({"rel_pos_bias": True}, max_mem_len=8)
    _, mems = model(TOKENS, return_mems=True)
    with pytest.raises(ValueError, match="mem_masks differ"):
        model(TOKENS, mems=mems, mem_masks=[None, torch.ones(2, 8, dtype=torch.bool)])


def test_a_layer_names_an_argument_that_it_does_not_read() -> None:
    with pytest.raises(TypeError, match="unknown argument 'rel_pos'"):
        x_t.Attention(24, heads=3)(torch.randn(2, 3, 24), rel_pos=nn.Identity())


# Training and generation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["return_embeddings", "last_only", "target", "self_attn_context_mask", "msak"])
def test_the_loss_with_its_outputs_takes_what_the_loss_takes(name: str) -> None:
    wrapper = x_t.AutoregressiveWrapper(model_of())
    with pytest.raises(TypeError, match=f"unknown argument '{name}'"):
        wrapper(TOKENS, return_outputs=True, **{name: True})
    with pytest.raises(TypeError, match="write mask= for a mask"):
        wrapper(TOKENS, TOKENS > 0)


def test_arguments_of_a_filter_need_a_filter() -> None:
    wrapper = x_t.AutoregressiveWrapper(model_of())
    for options in ({"filter_logits_fn": None}, {"top_k": 4}):
        with pytest.raises(TypeError, match="no filter_logits_fn to go to"):
            wrapper.generate(TOKENS, 2, filter_kwargs={"k": 3}, **options)


def test_lengths_of_prompts_are_within_them() -> None:
    wrapper = x_t.AutoregressiveWrapper(model_of())
    with pytest.raises(ValueError, match=re.escape("from 1 to 10, not [30, 5]")):
        wrapper.generate(TOKENS, 2, prompt_lens=torch.tensor([30, 5]))


def test_the_end_and_the_temperature_may_be_given_in_order() -> None:
    wrapper = x_t.AutoregressiveWrapper(model_of())

    def three(logits: Tensor) -> Tensor:
        return torch.full_like(logits, -torch.inf).index_fill(-1, torch.tensor(3), 0.0)

    assert torch.equal(wrapper.generate(TOKENS, 5, 3, filter_logits_fn=three), torch.full((2, 1), 3))
    greedy = [wrapper.generate(TOKENS, 5, None, 0.0) for _ in range(3)]
    assert torch.equal(greedy[0], greedy[1])
    assert torch.equal(greedy[0], greedy[2])


# An encoder and a decoder --------------------------------------------------------------------------------------------


def sides(**further: Any) -> Any:
    own = {"num_tokens": 17, "depth": 2, "heads": 3, "max_seq_len": 16, "attn_dim_head": 8}
    keywords = {prefix + name: value for prefix in ("enc_", "dec_") for name, value in own.items()}
    return x_t.XTransformer(dim=24, **keywords, **further).eval()


@pytest.mark.parametrize(
    ("option", "block", "tied", "zeros"),
    [("weight_tie_layers", "acf", True, 0), ("only_attn", "ac", False, 0), ("attn_zero_init_output", "acf", False, 4)],
)
def test_the_order_of_a_decoder_has_cross_attention(option: str, block: str, tied: bool, zeros: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = sides(**{f"enc_{option}": True, f"dec_{option}": True})
    encoder, decoder = model.encoder.attn_layers, model.decoder.net.attn_layers
    assert encoder.layer_types == (*block.replace("c", ""),) * 2
    assert decoder.layer_types == (*block,) * 2
    assert ("@" in decoder.pattern) == tied
    assert decoder.pattern.count("zero_init_branch_output") == zeros
    assert model(TOKENS, TOKENS).isfinite()


def test_what_acts_on_one_side_only_here_is_told() -> None:
    with pytest.warns(UserWarning, match=re.escape("XTransformer(dec_post_emb_norm=...) acts here")):
        sides(dec_post_emb_norm=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sides(enc_num_memory_tokens=2, enc_emb_dropout=0.1, dec_use_abs_pos_emb=False)
