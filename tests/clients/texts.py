"""Programs about texts, molecules, numbers and code: sequence to sequence, weights of others, tasks and their wrappers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .programs import SIZES, TOKENS, language_model, program, vectors


def _translator(x: Any, **more: Any) -> Any:
    sides = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in _SIDE.items()}
    return x.XTransformer(dim=32, **sides, **more)


_SIDE = {"num_tokens": 32, "depth": 1, "heads": 2, "max_seq_len": 16}


@program
def copies_sequences(x: Any) -> None:
    model = _translator(x, tie_token_emb=True, return_tgt_loss=True)
    model(TOKENS, TOKENS, mask=torch.ones(2, 12).bool()).backward()
    start = torch.ones((1, 1)).long()
    out = model.generate(TOKENS[:1], start, 6, mask=torch.ones(1, 12).bool())
    assert (out != TOKENS[:1, :6]).sum() >= 0


@program
def generates_with_keywords(x: Any) -> None:
    model = _translator(x)
    out = model.generate(seq_in=TOKENS, seq_out_start=TOKENS[:, :1], seq_len=4, eos_token=31, temperature=0.5)
    assert out.shape[0] == 2


@program
def translates_after_embeddings_of_an_image(x: Any) -> None:
    model = _translator(x)
    image = vectors(2, 3, 32)
    model(TOKENS, TOKENS, src_prepend_embeds=image, mask=torch.ones(2, 12).bool()).backward()


@program
def translates_with_keywords_for_both_sides(x: Any) -> None:
    model = _translator(
        x,
        pad_value=0,
        ignore_index=0,
        tie_token_emb=True,
        enc_use_abs_pos_emb=False,
        dec_use_abs_pos_emb=False,
        enc_ff_glu=True,
        dec_ff_glu=True,
        enc_rel_pos_bias=True,
        dec_rel_pos_bias=True,
        enc_attn_kv_heads=1,
        dec_attn_kv_heads=1,
        dec_cross_residual_attn=False,
        enc_num_memory_tokens=2,
        enc_emb_dropout=0.1,
    )
    model(TOKENS, TOKENS).backward()
    assert model.encoder.token_emb.emb.weight is model.decoder.net.token_emb.emb.weight


@program
def writes_keywords_without_a_side(x: Any) -> None:
    """Release 1 takes and ignores keywords of a stack that lack their prefix."""
    _translator(x, attn_num_mem_kv=2, num_memory_tokens=2, shift_tokens=1, rotary_xpos=True)(TOKENS, TOKENS)


@program
def joins_an_encoder_and_a_decoder(x: Any) -> None:
    encoder = x.TransformerWrapper(
        num_tokens=32, max_seq_len=16, return_only_embed=True, attn_layers=x.Encoder(**SIZES)
    )
    decoder = x.AutoregressiveWrapper(
        language_model(x, {"cross_attend": True}), ignore_index=-100, pad_value=1, mask_prob=0.1
    )
    mask = TOKENS != 0
    encoded = encoder(TOKENS, mask=mask)
    loss = decoder(TOKENS, context=encoded, context_mask=mask)
    loss.backward()
    decoder.eval()
    out = decoder.generate(TOKENS[:, :1], 4, eos_token=3, context=encoded.detach(), context_mask=mask)
    assert out.shape[0] == 2


@program
def gives_a_start_of_its_own(x: Any) -> None:
    class Writer(x.AutoregressiveWrapper):  # type: ignore[misc]
        def __init__(self, bos: int, pad: int, **kwargs: Any) -> None:
            net = x.TransformerWrapper(num_tokens=32, max_seq_len=12, attn_layers=x.Decoder(**SIZES, cross_attend=True))
            super().__init__(net=net, pad_value=pad, **kwargs)
            self.bos = bos

        def forward(self, target: torch.Tensor, **kwargs: Any) -> Any:
            return super().forward(target, **kwargs)

        @torch.no_grad()
        def generate(self, seq_len: int | None = None, context: Any = None, **kwargs: Any) -> Any:
            start = torch.full((len(context), 1), fill_value=self.bos)
            return super().generate(start, seq_len=seq_len or self.max_seq_len, context=context, **kwargs)

    writer = Writer(bos=1, pad=0)
    writer(target=TOKENS, context=vectors(2, 5, 32)).backward()
    assert writer.generate(context=vectors(2, 5, 32), temperature=1.0).shape == (2, 12)


@program
def answers_questions_about_tables(x: Any) -> None:
    """An encoder of small tasks: logits of the last place, accuracy, weight decay for matrices only."""
    model = x.TransformerWrapper(
        num_tokens=32, max_seq_len=4, attn_layers=x.Encoder(dim=32, depth=2, heads=1, attn_dim_head=32)
    )
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=2)
    for _ in range(2):
        loss = F.cross_entropy(model(TOKENS[:, :3])[:, -1], TOKENS[:, 3])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)


@program
def subclasses_with_a_configuration(x: Any) -> None:
    class Configured(x.TransformerWrapper):  # type: ignore[misc]
        def __init__(self, **cfg: Any) -> None:
            super().__init__(
                num_tokens=cfg["vocab"],
                max_seq_len=cfg["length"],
                attn_layers=x.Decoder(dim=cfg["width"], depth=2, heads=2, use_rmsnorm=True),
            )

        def forward(self, input_ids: Any, context_enc: Any = None, attn_mask: Any = None, last: bool = False) -> Any:
            out = super().forward(x=input_ids, mask=attn_mask, prepend_embeds=context_enc, return_embeddings=False)
            out = out if context_enc is None else out[:, context_enc.shape[1] :]
            return out[:, [-1], :] if last else out

    model = Configured(vocab=32, length=24, width=32)
    assert model(TOKENS, vectors(2, 3, 32), TOKENS != 40).shape == (2, 12, 32)
    assert model(TOKENS, last=True).shape == (2, 1, 32)


@program
def reads_scores_for_a_loss(x: Any) -> None:
    """A z-loss of the scores before the softmax."""
    model = language_model(x)
    logits, seen = model(TOKENS, return_intermediates=True)
    z = sum(t.pre_softmax_attn.logsumexp(dim=-1).square().mean() for t in seen.attn_intermediates)
    (F.cross_entropy(logits.transpose(1, 2), TOKENS) + 1e-3 * z).backward()
    out = model(TOKENS, return_attn=True)
    assert isinstance(out, tuple)


@program
def judges_texts_in_windows(x: Any) -> None:
    """The perplexity of a long text, in windows and without gradients."""
    model = x.AutoregressiveWrapper(language_model(x, {"use_scalenorm": True, "ff_glu": True}, max_seq_len=8)).eval()
    text, losses = TOKENS.flatten()[None], []
    with torch.inference_mode():
        for start in range(0, 16, 8):
            losses.append(model(text[:, start : start + 9]))
    assert torch.stack(losses).mean().exp() > 1


@program
def encodes_sentences(x: Any) -> None:
    """A mean of the real tokens, and a token of a class."""
    encoder = x.TransformerWrapper(
        num_tokens=32, max_seq_len=16, attn_layers=x.Encoder(dim=32, depth=1, heads=4, attn_dim_head=8), emb_dim=16
    )
    mask = torch.tensor([[True] * 12, [True] * 5 + [False] * 7])
    embeds = encoder(TOKENS, return_embeddings=True, mask=mask)
    pooled = embeds.masked_fill(~mask[..., None], 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    assert pooled.shape == (2, 32)
    assert encoder.emb_dim == 16
    assert encoder.project_emb.weight.shape == (32, 16)


@program
def adds_heads_of_several_tasks(x: Any) -> None:
    trunk = language_model(x)
    heads = nn.ModuleDict({name: nn.Linear(32, size) for name, size in (("value", 1), ("code", 9), ("time", 1))})
    embeds = trunk(TOKENS, return_embeddings=True)
    sum(head(embeds).sum() for head in heads.values()).backward()


@program
def lists_its_parts(x: Any) -> None:
    """What tools for counting, printing and profiling read."""
    model = x.AutoregressiveWrapper(language_model(x, {"rotary_pos_emb": True}))
    assert "Decoder" in repr(model)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) > 1000
    assert len([m for m in model.modules() if isinstance(m, nn.Linear)]) >= 5
    assert {n.split(".")[0] for n, _ in model.named_parameters()} == {"net"}
    assert model.net.num_tokens == 32
    assert model.net.max_seq_len == 24
    assert model.net.attn_layers.dim == 32
    assert model.net.attn_layers.depth == 2
    assert model.net.attn_layers.causal
    assert model.net.emb_dim == 32


@program
def computes_a_preference(x: Any) -> None:
    from copy import deepcopy

    policy = language_model(x)
    reference = deepcopy(policy).eval().requires_grad_(False)

    def told(net: Any, y: torch.Tensor) -> torch.Tensor:
        return net(y[:, :-1]).log_softmax(dim=-1).gather(-1, y[:, 1:, None]).sum(dim=(1, 2))

    better, worse = TOKENS, TOKENS.flip(1)
    ratio = told(policy, better) - told(policy, worse) - told(reference, better) + told(reference, worse)
    (-F.logsigmoid(0.1 * ratio).mean()).backward()


@program
def trains_with_mixed_precision(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x, {"rotary_pos_emb": True, "attn_qk_norm": True}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(TOKENS)
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.AdamW(model.parameters())
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    half = language_model(x, {"rotary_pos_emb": True}).to(torch.bfloat16).eval()
    assert half(TOKENS).dtype == torch.bfloat16


@program
def restricts_to_a_window_by_mask(x: Any) -> None:
    """A mask of allowed pairs over the causal one; blocks of a document see only themselves."""
    model = language_model(x).eval()
    document = torch.arange(12) // 6
    pairs = document[:, None] == document[None]
    out = model(TOKENS, attn_mask=pairs)
    assert torch.allclose(out[:, :6], model(TOKENS[:, :6]), atol=1e-5)


@program
def gives_positions_of_its_own(x: Any) -> None:
    model = language_model(x).eval()
    out = model(TOKENS[:, :6], pos=torch.arange(6))
    assert torch.allclose(out, model(TOKENS[:, :6]), atol=1e-6)
    assert model(TOKENS[:, :6], pos=torch.arange(6).flip(0).expand(2, -1)).shape == (2, 6, 32)
