"""Language models: trained, generated with, continued by hand, read."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .programs import SIZES, TOKENS, language_model, program, vectors


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
