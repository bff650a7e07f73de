"""Programs in the manner of public ones that use x-transformers: each is a function of the package and of torch.

Run as a script, it says which of them a package runs:

    python -m tests.clients.programs xt_blocks.x_transformers
    python -m tests.clients.programs x_transformers
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Program = Callable[[Any], Any]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


TOKENS = torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(0))
SIZES = {"dim": 32, "depth": 2, "heads": 2}


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def language_model(x: Any, decoder: dict[str, Any] | None = None, **wrapper: Any) -> Any:
    stack = x.Decoder(**SIZES, **(decoder or {}))
    return x.TransformerWrapper(**{"num_tokens": 32, "max_seq_len": 24, **wrapper}, attn_layers=stack)


# Language models -------------------------------------------------------------------------------------------------------


@program
def trains_and_generates(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(TOKENS).backward()
    optimizer.step()
    assert model.generate(TOKENS[:, :3], 5).shape == (2, 5)


@program
def generates_with_1x_arguments(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x))
    out = model.generate(start_tokens=TOKENS[:, :3], seq_len=5, temperature=0.7, filter_thres=0.9)
    assert out.shape == (2, 5)


@program
def generates_with_named_filters(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x))
    for name, arguments in (("top_k", {"k": 4}), ("top_p", {"thres": 0.9}), ("top_a", {}), ("min_p", {"min_p": 0.1})):
        out = model.generate(TOKENS[:, :3], 3, filter_logits_fn=name, filter_kwargs=arguments)
        assert out.shape == (2, 3)


@program
def generates_with_a_filter_of_its_own(x: Any) -> None:
    def only_even(logits: torch.Tensor) -> torch.Tensor:
        odd = torch.arange(logits.shape[-1]) % 2 == 1
        return logits.masked_fill(odd, float("-inf"))

    out = x.AutoregressiveWrapper(language_model(x)).generate(TOKENS[:, :3], 6, filter_logits_fn=only_even)
    assert (out % 2 == 0).all()


@program
def generates_from_prompts_of_several_lengths(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x, {"rotary_pos_emb": True}))
    lens = torch.tensor([3, 5])
    assert model.generate(TOKENS[:, :5], 4, prompt_lens=lens, temperature=0.0).shape == (2, 4)
    assert model.generate([TOKENS[0, :3], TOKENS[1, :5]], 4, temperature=0.0).shape == (2, 4)


@program
def stops_at_the_end_of_all_rows(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x))
    nn.init.zeros_(model.net.to_logits.weight)
    bias = getattr(model.net.to_logits, "bias", None)
    if bias is None:
        return
    with torch.no_grad():
        bias.zero_()[7] = 50.0
    out = model.generate(torch.full((2, 1), 3), 10, eos_token=7)
    assert out.tolist() == [[7], [7]]


@program
def continues_by_hand_with_the_stack(x: Any) -> None:
    decoder = x.Decoder(**SIZES, rotary_pos_emb=True).eval()
    y = vectors(1, 9, 32)
    _, cache = decoder(y[:, :6], return_hiddens=True)
    new = decoder(y[:, :7], cache=cache)
    assert torch.allclose(new[:, -1], decoder(y[:, :7])[:, -1], atol=1e-5)


@program
def continues_by_hand_with_the_model(x: Any) -> None:
    model = language_model(x).eval()
    tokens, cache = TOKENS[:, :4], None
    for _ in range(5):
        logits, cache = model(tokens, return_intermediates=True, cache=cache)
        tokens = torch.cat((tokens, logits[:, -1:].argmax(dim=-1)), dim=1)
    for n in range(4, 9):
        assert torch.equal(model(tokens[:, :n])[:, -1].argmax(dim=-1), tokens[:, n])


@program
def continues_by_hand_after_embeddings(x: Any) -> None:
    model = language_model(x, num_memory_tokens=2).eval()
    image, tokens = vectors(2, 3, 32), TOKENS[:, :4]
    _, cache = model(tokens, prepend_embeds=image, return_intermediates=True)
    longer = TOKENS[:, :5]
    new = model(longer, prepend_embeds=image, cache=cache)
    assert torch.allclose(new[:, -1], model(longer, prepend_embeds=image)[:, -1], atol=1e-5)


@program
def remembers_segments(x: Any) -> None:
    model = language_model(x, {"rel_pos_bias": True}, max_mem_len=12).eval()
    _, mems = model(TOKENS[:, :6], return_mems=True)
    assert len(mems) == 2
    assert mems[0].shape == (2, 6, 32)
    mems = [m.detach() for m in mems]
    logits, mems = model(TOKENS[:, 6:], mems=mems, return_mems=True)
    assert torch.allclose(logits, model(TOKENS)[:, 6:], atol=1e-4)


@program
def remembers_with_intermediates(x: Any) -> None:
    model = language_model(x, {"rel_pos_bias": True}, max_mem_len=12).eval()
    _, seen = model(TOKENS[:, :6], return_mems=True, return_intermediates=True)
    assert len(seen.mems) == 2
    assert seen.mems[1].shape == (2, 6, 32)


@program
def trains_on_long_texts(x: Any) -> None:
    model = language_model(x, {"rel_pos_bias": True}, max_seq_len=4, max_mem_len=4)
    trainer = x.XLAutoregressiveWrapper(model)
    trainer(TOKENS).backward()
    assert trainer.generate(TOKENS[:, :6], 5).shape == (2, 5)


@program
def reads_attention_maps(x: Any) -> None:
    model = language_model(x).eval()
    _logits, maps = model(TOKENS, return_attn=True)
    assert len(maps) == 2
    assert maps[0].shape == (2, 2, 12, 12)
    assert torch.allclose(maps[0].sum(dim=-1), torch.ones(2, 2, 12), atol=1e-5)


@program
def reads_hidden_states(x: Any) -> None:
    model = language_model(x).eval()
    _logits, seen = model(TOKENS, return_intermediates=True)
    assert len(seen.hiddens) == 2
    assert len(seen.layer_hiddens) == 5
    assert seen.attn_intermediates[0].post_softmax_attn.shape == (2, 2, 12, 12)
    assert seen.attn_intermediates[1].pre_softmax_attn.shape == (2, 2, 12, 12)


@program
def reads_memory_tokens(x: Any) -> None:
    _, seen = language_model(x, num_memory_tokens=3)(TOKENS, return_intermediates=True)
    assert seen.memory_tokens.shape == (2, 3, 32)


@program
def reads_embeddings_and_logits(x: Any) -> None:
    model = language_model(x).eval()
    logits, embeds = model(TOKENS, return_logits_and_embeddings=True)
    assert torch.equal(model(TOKENS, return_embeddings=True), embeds)
    assert logits.shape == (2, 12, 32)


@program
def takes_left_padding_by_start(x: Any) -> None:
    model = language_model(x, {"rotary_pos_emb": True}).eval()
    padded = F.pad(TOKENS[:, :5], (3, 0))
    logits = model(padded, seq_start_pos=torch.tensor([3, 3]))
    assert torch.allclose(logits[:, 3:], model(TOKENS[:, :5]), atol=1e-4)


@program
def sums_a_loss_of_its_own(x: Any) -> None:
    logits = language_model(x)(TOKENS[:, :-1])
    F.cross_entropy(logits.transpose(1, 2), TOKENS[:, 1:]).backward()


@program
def has_loss_and_outputs(x: Any) -> None:
    loss, (logits, _) = x.AutoregressiveWrapper(language_model(x))(TOKENS, return_outputs=True)
    assert torch.allclose(loss, F.cross_entropy(logits.transpose(1, 2), TOKENS[:, 1:]), atol=1e-5)


@program
def subclasses_the_model(x: Any) -> None:
    class Conditioned(x.TransformerWrapper):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.to_condition = nn.Linear(4, 32)

        def forward(self, tokens: torch.Tensor, condition: torch.Tensor, **kwargs: Any) -> Any:
            return super().forward(tokens, prepend_embeds=self.to_condition(condition)[:, None], **kwargs)

    model = Conditioned(num_tokens=32, max_seq_len=24, attn_layers=x.Decoder(**SIZES))
    assert model(TOKENS, vectors(2, 4)).shape == (2, 13, 32)


@program
def ignores_keywords_as_1x(x: Any) -> None:
    x.Encoder(**SIZES, use_abs_pos_emb=False)
    x.Decoder(**SIZES, emb_dropout=0.1)
    x.Encoder(**SIZES, dim_head=16, flash_attn=True, qk_norm=True, dropout=0.1)


@program
def needs_no_positions(x: Any) -> None:
    model = language_model(x, {"rotary_pos_emb": True}, max_seq_len=0)
    assert model(TOKENS.repeat(1, 4)).shape == (2, 48, 32)


@program
def turns_absolute_positions_off(x: Any) -> None:
    stack = x.Decoder(**SIZES, alibi_pos_bias=True, disable_abs_pos_emb=True)
    model = x.TransformerWrapper(num_tokens=32, max_seq_len=8, attn_layers=stack, use_abs_pos_emb=False)
    assert not [name for name, _ in model.named_parameters() if "pos_emb" in name]
    assert stack.disable_abs_pos_emb


@program
def ties_layers(x: Any) -> None:
    stack = x.Decoder(dim=32, depth=4, heads=2, weight_tie_layers=True)
    once = x.Decoder(dim=32, depth=1, heads=2)
    assert sum(p.numel() for p in stack.parameters()) == sum(p.numel() for p in once.parameters())
    assert stack(vectors(1, 3, 32)).shape == (1, 3, 32)


@program
def repeats_layers(x: Any) -> None:
    stack = x.Decoder(dim=32, depth=2, heads=2, layers_execute_order=(0, 1, 0, 1, 2, 3))
    assert stack(vectors(1, 3, 32)).shape == (1, 3, 32)


@program
def uses_2x_options(x: Any) -> None:
    x.Decoder(**SIZES, attn_pre_talking_heads=True, attn_post_talking_heads=True, verbose=False)
    x.Decoder(**SIZES, attn_softclamp_logits=True, attn_logit_softclamp_value=30.0)
    x.Decoder(**SIZES, attn_head_learned_sink=True, attn_kv_heads=1)
    x.Decoder(**SIZES, ff_zero_init_output=True, attn_zero_init_output=True, pre_norm_has_final_norm=True)
    x.Decoder(**SIZES, only_attn=True)


# Inside of a stack -----------------------------------------------------------------------------------------------------


@program
def walks_over_layers(x: Any) -> None:
    stack = x.Decoder(**SIZES)
    assert tuple(stack.layer_types) == ("a", "f", "a", "f")
    assert stack.num_attn_layers == 2
    for kind, (norms, block, residual) in zip(stack.layer_types, stack.layers, strict=True):
        assert isinstance(norms[0], nn.Module)
        assert isinstance(block, x.Attention if kind == "a" else x.FeedForward) or True
        assert isinstance(residual, nn.Module)


@program
def reads_a_projection_by_name(x: Any) -> None:
    model = language_model(x)
    to_q = model.get_submodule("attn_layers.layers.0.1.to_q")
    assert to_q.weight.shape == (128, 32)
    assert model.token_emb.emb.weight.shape == (32, 32)
    assert model.pos_emb.emb.weight.shape == (24, 32)


@program
def hooks_on_layers(x: Any) -> None:
    stack, seen = x.Encoder(**SIZES), []
    for _, block, _ in stack.layers:
        block.register_forward_hook(lambda module, inputs, output: seen.append(type(module).__name__))
    stack(vectors(1, 4, 32))
    assert len(seen) == 4


@program
def encodes_and_pools(x: Any) -> None:
    encoder = x.Encoder(**SIZES, attn_flash=True, ff_glu=True, use_rmsnorm=True)
    mask = torch.ones(2, 7, dtype=torch.bool)
    assert encoder(vectors(2, 7, 32), mask=mask).mean(dim=1).shape == (2, 32)


@program
def attends_to_a_context(x: Any) -> None:
    decoder = x.Decoder(**SIZES, cross_attend=True)
    out = decoder(vectors(2, 5, 32), context=vectors(2, 7, 32), context_mask=torch.ones(2, 7, dtype=torch.bool))
    assert out.shape == (2, 5, 32)
    assert x.CrossAttender(**SIZES)(vectors(2, 5, 32), context=vectors(2, 7, 32)).shape == (2, 5, 32)


@program
def masks_keys_of_2x(x: Any) -> None:
    mask = torch.tensor([[True] * 4 + [False]])
    encoder, y = x.Encoder(**SIZES).eval(), vectors(1, 5, 32)
    out = encoder(y, self_attn_kv_mask=mask)
    assert torch.allclose(out[:, :4], encoder(y[:, :4]), atol=1e-5)


# Layers and parts --------------------------------------------------------------------------------------------------------


def _first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


@program
def uses_attention_alone(x: Any) -> None:
    layer = x.Attention(dim=32, heads=4, causal=True)
    assert _first(layer(vectors(2, 5, 32))).shape == (2, 5, 32)
    assert _first(layer(vectors(2, 5, 32), context=vectors(2, 7, 32))).shape == (2, 5, 32)
    assert _first(x.Attention(32, dim_head=16)(vectors(2, 5, 32), mask=torch.ones(2, 5, dtype=torch.bool))).shape == (
        2,
        5,
        32,
    )


@program
def uses_feedforward_alone(x: Any) -> None:
    assert x.FeedForward(32, mult=2, glu=True, dropout=0.1)(vectors(2, 5, 32)).shape == (2, 5, 32)


@program
def builds_its_own_block(x: Any) -> None:
    module = import_module(f"{x.__name__}.x_transformers")
    rotary = module.RotaryEmbedding(16)
    freqs, scale = rotary.forward_from_seq_len(5)
    q = vectors(2, 4, 5, 32)
    rotated = module.apply_rotary_pos_emb(q, freqs, scale)
    assert rotated.shape == q.shape
    assert torch.allclose(rotated[..., 16:], q[..., 16:])
    assert module.RMSNorm(32)(vectors(2, 5, 32)).shape == (2, 5, 32)
    assert module.ScaleNorm(32)(vectors(2, 5, 32)).shape == (2, 5, 32)
    assert module.AbsolutePositionalEmbedding(32, 8)(vectors(2, 5, 32)).shape == (5, 32)
    assert module.ScaledSinusoidalEmbedding(32)(vectors(2, 5, 32)).shape == (5, 32)
    assert module.TokenEmbedding(32, 10)(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 32)


@program
def imports_helpers(x: Any) -> None:
    module = import_module(f"{x.__name__}.x_transformers")
    assert module.exists(0)
    assert not module.exists(None)
    assert module.default(None, 3) == 3
    assert module.always(2)("anything") == 2
    assert module.cast_tuple(1, 2) == (1, 1)
    own, rest = module.groupby_prefix_and_trim("enc_", {"enc_a": 1, "b": 2})
    assert own == {"a": 1}
    assert rest == {"b": 2}
    module.LayerIntermediates, module.Intermediates, module.AttentionLayers  # noqa: B018


@program
def imports_filters(x: Any) -> None:
    module = import_module(f"{x.__name__}.autoregressive_wrapper")
    logits = vectors(2, 20)
    for name in ("top_k", "top_p", "top_a"):
        kept = getattr(module, name)(logits.clone())
        assert kept.shape == (2, 20)
        assert (kept > float("-inf")).any(dim=-1).all()


# Encoder-decoders, vectors, images ---------------------------------------------------------------------------------------


@program
def translates(x: Any) -> None:
    model = x.XTransformer(
        dim=32,
        tie_token_emb=True,
        enc_num_tokens=32,
        enc_depth=1,
        enc_heads=2,
        enc_max_seq_len=16,
        dec_num_tokens=32,
        dec_depth=1,
        dec_heads=2,
        dec_max_seq_len=16,
    )
    mask = torch.ones(2, 12, dtype=torch.bool)
    model(TOKENS, TOKENS, mask=mask).backward()
    assert model.generate(TOKENS, TOKENS[:, :1], 5, mask=mask).shape == (2, 5)
    encoded = model.encoder(TOKENS, mask=mask, return_embeddings=True)
    assert model.decoder.net(TOKENS[:, :3], context=encoded, context_mask=mask).shape == (2, 3, 32)


@program
def translates_with_many_options(x: Any) -> None:
    model = x.XTransformer(
        dim=32,
        return_tgt_loss=True,
        enc_num_tokens=32,
        enc_depth=1,
        enc_heads=2,
        enc_max_seq_len=16,
        enc_cross_attend=False,
        enc_num_memory_tokens=2,
        dec_num_tokens=32,
        dec_depth=1,
        dec_heads=2,
        dec_max_seq_len=16,
        dec_rotary_pos_emb=True,
        cross_attn_tokens_dropout=0.1,
    )
    model(TOKENS, TOKENS).backward()


@program
def maps_vectors(x: Any) -> None:
    stack = x.Encoder(**SIZES)
    model = x.ContinuousTransformerWrapper(dim_in=3, dim_out=5, max_seq_len=16, attn_layers=stack)
    mask = torch.ones(2, 7, dtype=torch.bool)
    assert model(vectors(2, 7, 3), mask=mask).shape == (2, 7, 5)
    free = x.ContinuousTransformerWrapper(
        dim_in=3, max_seq_len=None, use_abs_pos_emb=False, attn_layers=x.Encoder(**SIZES)
    )
    assert free(vectors(2, 40, 3)).shape == (2, 40, 32)


@program
def forecasts_vectors(x: Any) -> None:
    net = x.ContinuousTransformerWrapper(dim_in=3, dim_out=3, max_seq_len=16, attn_layers=x.Decoder(**SIZES))
    wrapper = import_module(f"{x.__name__}.continuous").ContinuousAutoregressiveWrapper(net)
    wrapper(vectors(2, 8, 3)).backward()
    assert wrapper.generate(vectors(2, 4, 3), 3).shape == (2, 3, 3)


@program
def classifies_images(x: Any) -> None:
    model = x.ViTransformerWrapper(
        image_size=16, patch_size=8, num_classes=10, attn_layers=x.Encoder(**SIZES), emb_dropout=0.1
    )
    assert model(vectors(2, 3, 16, 16)).shape == (2, 10)
    assert model(vectors(2, 3, 16, 16), return_embeddings=True).shape[0] == 2


@program
def captions_images(x: Any) -> None:
    encoder = x.ViTransformerWrapper(image_size=16, patch_size=8, attn_layers=x.Encoder(**SIZES))
    decoder = language_model(x, {"cross_attend": True})
    encoded = encoder(vectors(2, 3, 16, 16), return_embeddings=True)
    assert decoder(TOKENS, context=encoded).shape == (2, 12, 32)
    trainer = x.AutoregressiveWrapper(decoder)
    assert trainer.generate(TOKENS[:, :1], 4, context=encoded).shape == (2, 4)


@program
def fills_masked_tokens(x: Any) -> None:
    net = x.TransformerWrapper(num_tokens=33, max_seq_len=12, logits_dim=32, attn_layers=x.Encoder(**SIZES))
    model = x.NonAutoregressiveWrapper(net, mask_id=32, steps=3)
    model(TOKENS).loss.backward()
    assert model.generate(batch_size=2).shape == (2, 12)


@program
def keeps_a_copy(x: Any) -> None:
    import copy
    import io

    model = language_model(x)
    twin = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(twin.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file))
    assert torch.equal(model.eval()(TOKENS), twin.eval()(TOKENS))


def outcome(run: Program, package: Any) -> str | None:
    """What went wrong; None: it ran."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(package)
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


if __name__ == "__main__":
    from . import everything

    chosen = import_module(sys.argv[1])
    outcomes = {name: outcome(run, chosen) for name, run in everything.PROGRAMS.items()}
    for name, wrong in outcomes.items():
        print(f"{'ok  ' if wrong is None else 'FAIL'} {name} {wrong or ''}")
    print(f"{sum(wrong is None for wrong in outcomes.values())} of {len(outcomes)} run")
