"""Programs about symbolic music: tokens of several fields, masks that grow, filters by name, segments with memories."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .programs import SIZES, TOKENS, language_model, program, vectors


def _fields_model(x: Any, **stack: Any) -> nn.Module:
    """A model of notes with three fields, built around a stack by hand."""
    module = import_module(f"{x.__name__}.x_transformers")
    sizes = (5, 9, 17)

    class Notes(nn.Module):
        def __init__(self, attn_layers: Any, max_seq_len: int = 24, memory: int = 2) -> None:
            super().__init__()
            assert isinstance(attn_layers, module.AttentionLayers)
            dim = attn_layers.dim
            self.max_seq_len, self.max_mem_len = max_seq_len, 8
            self.fields = nn.ModuleList([module.TokenEmbedding(dim, n) for n in sizes])
            learned = not attn_layers.has_pos_emb
            self.pos_emb = module.AbsolutePositionalEmbedding(dim, max_seq_len) if learned else module.always(0)
            for field in self.fields:
                nn.init.kaiming_normal_(field.emb.weight)
            self.attn_layers = attn_layers
            self.norm = nn.LayerNorm(dim)
            self.to_logits = nn.ModuleList([nn.Linear(dim, n) for n in sizes])
            self.memory_tokens = nn.Parameter(torch.randn(memory, dim))

        def forward(
            self, notes: torch.Tensor, mask: Any = None, mems: Any = None, return_mems: bool = False, **kwargs: Any
        ) -> Any:
            y = sum(field(notes[..., i]) for i, field in enumerate(self.fields))
            y = y + self.pos_emb(y)
            memory = len(self.memory_tokens)
            y = torch.cat((self.memory_tokens.expand(len(y), -1, -1), y), dim=1)
            mask = None if mask is None else F.pad(mask, (memory, 0), value=True)
            y, seen = self.attn_layers(y, mask=mask, mems=mems, return_hiddens=True, **kwargs)
            y = self.norm(y)[:, memory:]
            logits = [layer(y) for layer in self.to_logits]
            if not return_mems:
                return logits, [t.post_softmax_attn for t in seen.attn_intermediates]
            hiddens = seen.hiddens
            new = [torch.cat(pair, dim=-2) for pair in zip(mems, hiddens, strict=True)] if mems is not None else hiddens
            return logits, [t[..., -self.max_mem_len :, :].detach() for t in new]

    return Notes(x.Decoder(**SIZES, **stack))


@program
def embeds_notes_of_several_fields(x: Any) -> None:
    notes = torch.stack((TOKENS % 5, TOKENS % 9, TOKENS % 17), dim=-1)
    model = _fields_model(x, attn_dropout=0.1, ff_dropout=0.1, rotary_pos_emb=False)
    logits, maps = model(notes, mask=torch.ones(2, 12, dtype=torch.bool))
    sum(F.cross_entropy(one.flatten(0, 1), notes[..., i].flatten()) for i, one in enumerate(logits)).backward()
    assert maps[0].shape == (2, 2, 14, 14)


@program
def keeps_memories_of_its_own_stack(x: Any) -> None:
    notes = torch.stack((TOKENS % 5, TOKENS % 9, TOKENS % 17), dim=-1)
    model = _fields_model(x, rel_pos_bias=True).eval()
    _, mems = model(notes, return_mems=True)
    assert [m.shape for m in mems] == [(2, 8, 32)] * 2
    logits, mems = model(notes, mems=mems, return_mems=True)
    assert logits[2].shape == (2, 12, 17)
    assert mems[0].shape == (2, 8, 32)


@program
def samples_by_hand_with_thresholds(x: Any) -> None:
    module = import_module(f"{x.__name__}.autoregressive_wrapper")
    logits = vectors(3, 40)
    for choose in (lambda t: module.top_p(t, thres=0.9), lambda t: module.top_a(t, min_p_pow=2.0, min_p_ratio=0.02)):
        drawn = torch.multinomial(F.softmax(choose(logits.clone()) / 0.8, dim=-1), 1)
        assert drawn.shape == (3, 1)


@program
def keeps_a_tenth_by_threshold(x: Any) -> None:
    top_k = import_module(f"{x.__name__}.autoregressive_wrapper").top_k
    kept = top_k(vectors(2, 40), thres=0.9)
    assert (kept > float("-inf")).sum(dim=-1).tolist() == [4, 4]


@program
def keeps_a_tenth_by_fraction(x: Any) -> None:
    top_k = import_module(f"{x.__name__}.autoregressive_wrapper").top_k
    kept = top_k(vectors(2, 40), frac_num_tokens=0.1)
    assert (kept > float("-inf")).sum(dim=-1).tolist() == [4, 4]
    assert (top_k(vectors(2, 40), k=7) > float("-inf")).sum(dim=-1).tolist() == [7, 7]


@program
def overrides_generation(x: Any) -> None:
    """A wrapper whose own `generate` carries a mask along and compares the filter with the package's functions."""
    module = import_module(f"{x.__name__}.autoregressive_wrapper")

    class Scores(x.AutoregressiveWrapper):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

        @torch.no_grad()
        def generate(
            self, start_tokens: torch.Tensor, seq_len: int = 8, eos_token: int | None = None, **kw: Any
        ) -> Any:
            filter_logits_fn, thres = kw.pop("filter_logits_fn", module.top_k), kw.pop("filter_thres", 0.9)
            was_training = self.net.training
            if start_tokens.ndim == 1:
                start_tokens = start_tokens[None]
            self.net.eval()
            out, mask = start_tokens, kw.pop("mask", None)
            mask = torch.full_like(out, True, dtype=torch.bool) if mask is None else mask
            for _ in range(seq_len):
                logits = self.net(out[:, -self.max_seq_len :], mask=mask[:, -self.max_seq_len :], **kw)[:, -1, :]
                if filter_logits_fn in {module.top_k, module.top_p}:
                    logits = filter_logits_fn(logits, thres=thres)
                out = torch.cat((out, torch.multinomial(F.softmax(logits, dim=-1), 1)), dim=-1)
                mask = F.pad(mask, (0, 1), value=True)
                if eos_token is not None and (out == eos_token).any(dim=-1).all():
                    break
            self.net.train(was_training)
            return out[:, start_tokens.shape[1] :]

    model = Scores(language_model(x, {"cross_attend": True}, max_seq_len=8), pad_value=0)
    out = model.generate(TOKENS[:, :1], 12, eos_token=99, context=vectors(2, 5, 32))
    assert out.shape == (2, 12)
    assert model.training


@program
def generates_in_evaluation_by_decorator(x: Any) -> None:
    module = import_module(f"{x.__name__}.autoregressive_wrapper")

    class Player(x.AutoregressiveWrapper):  # type: ignore[misc]
        @torch.no_grad()
        @module.eval_decorator
        def sample(self, prime: torch.Tensor, steps: int) -> torch.Tensor:
            assert not self.training
            for _ in range(steps):
                logits = module.top_k(self.net(prime[:, -self.max_seq_len :])[:, -1], k=5)
                prime = torch.cat((prime, torch.multinomial(logits.softmax(dim=-1), 1)), dim=-1)
            return prime

    player = Player(language_model(x, {"alibi_pos_bias": True, "alibi_num_heads": 2, "attn_dim_head": 16}))
    assert player.sample(TOKENS[:, :2], 4).shape == (2, 6)
    assert player.training


@program
def conditions_after_the_stack(x: Any) -> None:
    class Film(nn.Module):
        def __init__(self, transformer: Any) -> None:
            super().__init__()
            self.transformer = transformer
            self.max_seq_len = transformer.max_seq_len
            self.scale = nn.Embedding(4, transformer.attn_layers.dim)

        def forward(self, tokens: torch.Tensor, style: Any = None, **kwargs: Any) -> torch.Tensor:
            embeds = self.transformer(tokens, return_embeddings=True, **kwargs)
            if style is not None:
                embeds = embeds * self.scale(style)[:, None]
            return self.transformer.to_logits(embeds)

    net = Film(language_model(x, {"attn_dropout": 0.1}))
    assert net(TOKENS, torch.tensor([0, 3]), mask=torch.ones_like(TOKENS, dtype=torch.bool)).shape == (2, 12, 32)


@program
def feeds_memories_in_a_loop(x: Any) -> None:
    model = language_model(x, {"rel_pos_bias": True}, max_seq_len=4, max_mem_len=6, shift_mem_down=1)
    optimizer, mems = torch.optim.Adam(model.parameters()), None
    for segment in TOKENS.split(4, dim=1):
        logits, mems = model(segment, mems=mems, return_mems=True)
        F.cross_entropy(logits.transpose(1, 2), segment).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert [m.shape[1] for m in mems] == [6, 6]


@program
def generates_over_the_length_limit(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x, max_seq_len=6))
    assert model.generate(TOKENS[:, :4], 10, temperature=1.2).shape == (2, 10)


@program
def generates_from_one_prompt(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x), ignore_index=0, pad_value=0)
    assert model.generate(torch.tensor([3, 4, 5]), 6).shape == (6,)
    assert model.generate(torch.zeros(1, 1).long(), 6, temperature=1.0).cpu().detach().numpy()[0].shape == (6,)


@program
def ignores_padding_in_the_loss(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x, emb_dropout=0.0), ignore_index=0, pad_value=0).eval()
    padded = F.pad(TOKENS.clamp(min=1)[:, :8], (0, 4), value=0)
    loss = model(padded)
    logits = model.net(padded[:, :-1])
    assert torch.allclose(loss, F.cross_entropy(logits.transpose(1, 2), padded[:, 1:], ignore_index=0), atol=1e-5)


@program
def adds_embeddings_of_other_fields(x: Any) -> None:
    model = language_model(x, {"rotary_pos_emb": True}, use_abs_pos_emb=False)
    tempo = nn.Embedding(8, 32)
    assert model(TOKENS, sum_embeds=tempo(TOKENS % 8)).shape == (2, 12, 32)
    other = model.token_emb(TOKENS)
    assert other.shape == (2, 12, 32)


@program
def takes_a_stack_of_its_own_embeddings(x: Any) -> None:
    """Sums the tokens of several codebooks into one embedding, in place of the model's own."""

    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb = nn.Embedding(32, 32)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.emb(tokens.reshape(len(tokens), -1, 2)).sum(dim=-2)

    class Plain(x.TransformerWrapper):  # type: ignore[misc]
        def init_(self) -> None:
            pass

    model = Plain(num_tokens=32, max_seq_len=24, attn_layers=x.Decoder(**SIZES, rotary_pos_emb=True))
    model.token_emb = Codes()
    assert model(TOKENS).shape == (2, 6, 32)


@program
def skips_the_wrappers_constructor(x: Any) -> None:
    """Subclasses a wrapper for its methods and builds everything itself."""

    class Player(x.AutoregressiveWrapper):  # type: ignore[misc]
        def __init__(self) -> None:
            super(x.AutoregressiveWrapper, self).__init__()
            self.net = language_model(x)
            self.max_seq_len = self.net.max_seq_len
            self.pad_value, self.ignore_index, self.mask_prob = 0, -100, 0.0

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(self.net(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:])

    Player()(TOKENS).backward()
