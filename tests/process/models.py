"""Small models of every kind, and what people do with them, for tests of what surrounds a model: types and threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import xt_blocks

DIM, TOKENS, LONGEST = 16, 13, 12

POSITIONS: dict[str, dict[str, Any]] = {
    "rotary": {"rotary_pos_emb": True, "attn_dim_head": 8},
    "xpos": {"rotary_xpos": True, "attn_dim_head": 8},
    "alibi": {"alibi_pos_bias": True},
    "learned alibi": {"alibi_pos_bias": True, "alibi_num_heads": 1, "alibi_learned": True},
    "t5": {"rel_pos_bias": True},
    "dynamic": {"dynamic_pos_bias": True},
    "dynamic of logarithms": {"dynamic_pos_bias": True, "dynamic_pos_bias_log_distance": True},
    "absolute": {},
}
"""Settings of a stack, by its relative positions; without any, the model has absolute ones."""

OTHERS: dict[str, dict[str, Any]] = {
    "memory key-values": {"attn_num_mem_kv": 2, "rotary_pos_emb": True},
    "window and shift": {"attn_max_attend_past": 3, "shift_tokens": 1, "rotary_pos_emb": True},
    "talking heads": {"attn_talking_heads": True, "attn_sparse_topk": 4},
    "qk norm": {"attn_qk_norm": True, "attn_qk_norm_groups": 2, "attn_kv_heads": 1},
    "gates": {"gate_residual": True, "attn_on_attn": True, "use_scalenorm": True, "ff_glu": True, "ff_swish": True},
    "residual attention": {"residual_attn": True, "alibi_pos_bias": True, "attn_head_scale": True},
}


def decoder(**settings: Any) -> xt_blocks.Decoder:
    return xt_blocks.Decoder(**({"dim": DIM, "depth": 2, "heads": 2, "attn_dim_head": 8} | settings))


def tokens_model(stack: nn.Module | None = None, **options: Any) -> xt_blocks.TransformerWrapper:
    stack = decoder(rotary_pos_emb=True) if stack is None else stack
    return xt_blocks.TransformerWrapper(
        num_tokens=TOKENS, max_seq_len=options.pop("max_seq_len", LONGEST), attn_layers=stack, **options
    )


def some_tokens(batch: int = 2, seq: int = 7) -> Tensor:
    return (torch.arange(batch * seq, device="cpu", dtype=torch.int64) * 5 % TOKENS).view(batch, seq)


def some_vectors(batch: int = 2, seq: int = 7, dim: int = DIM) -> Tensor:
    count = torch.arange(batch * seq * dim, device="cpu", dtype=torch.float32)
    return (count * 0.7).sin().view(batch, seq, dim)


def seeded() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(5)


Use = Callable[[Any], Any]
"""What is done with a model; its results are compared."""


def _autoregressive(model: Any) -> Any:
    x, mask = some_tokens(), some_tokens() != 3
    padded = torch.arange(7, device="cpu", dtype=torch.int64) >= torch.tensor([[0], [2]], device="cpu")
    wrapper = xt_blocks.AutoregressiveWrapper(model)
    return [
        model(x, mask=mask),
        wrapper(x, mask=mask),
        wrapper.generate(x, 9, temperature=0.0),  # past the window
        wrapper.generate(x, 4, cache_kv=False, generator=seeded(), top_k=5, top_p=0.9),
        wrapper.generate(x, 4, mask=padded, generator=seeded(), min_p=0.01, top_a=0.01),
        wrapper.generate([x[0], x[1, :3]], 3, generator=seeded()),
    ]


def _forgetful(model: Any) -> Any:
    wrapper = xt_blocks.AutoregressiveWrapper(model, mask_prob=0.3).train()
    torch.manual_seed(3)
    return [wrapper(some_tokens())]


def _in_segments(model: Any) -> Any:
    wrapper = xt_blocks.XLAutoregressiveWrapper(model)
    x = some_tokens(seq=11)
    _, mems = model(x[:, :4], return_mems=True)
    return [wrapper(x), wrapper(x, mems=mems), wrapper.generate(x, 6, generator=seeded())]


def _masked(model: Any) -> Any:
    wrapper = xt_blocks.NonAutoregressiveWrapper(model, mask_id=TOKENS - 1, steps=3, self_cond=False)
    wrapper.train()
    torch.manual_seed(3)
    losses = wrapper(some_tokens(seq=LONGEST))
    return [losses.loss, wrapper.generate(2, generator=seeded())]


def _vectors(model: Any) -> Any:
    wrapper = xt_blocks.ContinuousAutoregressiveWrapper(model)
    x = some_vectors().to(next(model.parameters()).dtype)
    return [model(x), wrapper(x, mask=some_tokens() != 3), wrapper.generate(x, 9)]


def _seq2seq(model: Any) -> Any:
    src, tgt = some_tokens(seq=5), some_tokens()
    model.train()
    torch.manual_seed(3)
    return [model(src, tgt), model.generate(src, tgt[:, :1], 4, mask=src != 3, generator=seeded())]


def _images(model: Any) -> Any:
    images = some_vectors(2, 3, 64).view(2, 3, 8, 8).to(next(model.parameters()).dtype)
    return [model(images), model(images, return_embeddings=True)]


CASES: dict[str, tuple[Callable[[], Any], Use]] = {
    **{name: (lambda own=own: tokens_model(decoder(**own)), _autoregressive) for name, own in POSITIONS.items()},
    **{name: (lambda own=own: tokens_model(decoder(**own)), _autoregressive) for name, own in OTHERS.items()},
    "sinusoidal": (lambda: tokens_model(decoder(), scaled_sinu_pos_emb=True), _autoregressive),
    "embedding": (
        lambda: tokens_model(decoder(), l2norm_embed=True, post_emb_norm=True, num_memory_tokens=2, tie_embedding=True),
        _autoregressive,
    ),
    "forgetful": (tokens_model, _forgetful),
    "segments": (lambda: tokens_model(max_seq_len=4, max_mem_len=6, num_memory_tokens=1), _in_segments),
    "masked": (
        lambda: tokens_model(xt_blocks.Encoder(dim=DIM, depth=2, heads=2, attn_dim_head=8, rel_pos_bias=True)),
        _masked,
    ),
    "vectors": (
        lambda: xt_blocks.ContinuousTransformerWrapper(max_seq_len=LONGEST, attn_layers=decoder(alibi_pos_bias=True)),
        _vectors,
    ),
    "seq2seq": (
        lambda: xt_blocks.XTransformer(
            dim=DIM,
            **{f"{side}_{name}": value for side in ("enc", "dec") for name, value in _SIDE.items()},
            cross_attn_tokens_dropout=0.3,
        ),
        _seq2seq,
    ),
    "images": (
        lambda: xt_blocks.ViTransformerWrapper(
            image_size=8,
            patch_size=4,
            num_classes=3,
            num_register_tokens=1,
            attn_layers=xt_blocks.Encoder(dim=DIM, depth=1, heads=2, attn_dim_head=8),
        ),
        _images,
    ),
}
"""A model by name, and all that is done with it."""

_SIDE = {"num_tokens": TOKENS, "max_seq_len": LONGEST, "depth": 1, "heads": 2, "attn_dim_head": 8}


def built(name: str) -> Any:
    """The model of a case, always the same."""
    torch.manual_seed(1)
    model = CASES[name][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()
