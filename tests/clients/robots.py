"""Programs about robots, motion, games and markets: wrappers with other signatures, trajectories, steps one at a time."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .programs import SIZES, TOKENS, language_model, program, vectors


@program
def speaks_the_names_of_torch(x: Any) -> None:
    """A subclass whose `forward` has the arguments of torch's decoder, and inverts its masks."""

    class Decodes(x.ContinuousTransformerWrapper):  # type: ignore[misc]
        def forward(
            self,
            tgt: torch.Tensor,
            memory: torch.Tensor,
            tgt_mask: Any = None,
            tgt_key_padding_mask: Any = None,
            memory_key_padding_mask: Any = None,
        ) -> Any:
            return super().forward(
                x=tgt, context=memory, mask=~tgt_key_padding_mask, context_mask=~memory_key_padding_mask
            )

    model = Decodes(max_seq_len=16, attn_layers=x.Decoder(**SIZES, cross_attend=True))
    padding, memory_padding = torch.zeros(2, 5).bool(), torch.zeros(2, 7).bool()
    padding[1, 3:] = True
    out = model(vectors(2, 5, 32), vectors(2, 7, 32), None, padding, memory_padding)
    assert out.shape == (2, 5, 32)


@program
def draws_weights_anew(x: Any) -> None:
    """Applies an initialisation to all linear layers and embeddings that it finds."""
    seen = []

    def draw(module: nn.Module, gain: float) -> None:
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, gain=gain)
            seen.append(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    decoder = x.Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, cross_attend=True)
    decoder.apply(partial(draw, gain=1.4))
    assert len(seen) >= 4
    assert decoder(x=vectors(2, 5, 32), context=vectors(2, 5, 32), context_mask=None).shape == (2, 5, 32)
    language_model(x).apply(partial(draw, gain=0.1))


@program
def encodes_motion_by_two_tokens(x: Any) -> None:
    """A variational encoder whose mean and variance are what two learned tokens become, and a decoder of queries."""
    options = {"ff_glu": True, "pre_norm": True, "attn_head_scale": True, "use_rmsnorm": True, "rel_pos_bias": True}
    encoder = x.ContinuousTransformerWrapper(
        dim_in=6, dim_out=32, max_seq_len=16, attn_layers=x.Encoder(**SIZES, **options)
    )
    decoder = x.ContinuousTransformerWrapper(
        dim_in=32, dim_out=6, max_seq_len=16, attn_layers=x.Decoder(**SIZES, cross_attend=True, **options)
    )
    tokens = nn.Parameter(torch.randn(1, 2, 32))
    out = encoder(vectors(2, 9, 6), prepend_embeds=tokens.expand(2, -1, -1), prepend_mask=torch.ones(2, 2).bool())
    assert out.shape == (2, 11, 32)
    z = out[:, :1]
    queries = vectors(2, 9, 32)
    again = decoder(queries, mask=torch.ones(2, 9).bool(), context=z, context_mask=torch.ones(2, 1).bool())
    again.sum().backward()
    assert tokens.grad is not None


@program
def walks_with_a_window(x: Any) -> None:
    """A policy that carries the states of its past along, one action at a time."""
    policy = x.Decoder(**SIZES, rotary_pos_emb=True, attn_dim_head=16).eval()
    head, states, cache, seen = nn.Linear(32, 3), vectors(1, 6, 32), None, []
    with torch.no_grad():
        for n in range(1, 7):
            out, cache = policy(states[:, :n], cache=cache, return_hiddens=True)
            seen.append(head(out[:, -1]))
        assert torch.allclose(torch.stack(seen, dim=1), head(policy(states)), atol=1e-5)


@program
def continues_from_an_empty_record(x: Any) -> None:
    """A first step from intermediates without content, and the others from those of the step before."""
    module = import_module(f"{x.__name__}.x_transformers")
    decoder, y = x.Decoder(**SIZES).eval(), vectors(1, 4, 32)
    cache = module.LayerIntermediates()
    for n in range(1, 5):
        given = None if not cache.hiddens else cache
        out, cache = decoder(y[:, :n], cache=given, return_hiddens=True)
    assert torch.allclose(out[:, -1], decoder(y)[:, -1], atol=1e-5)


@program
def takes_only_the_new_step(x: Any) -> None:
    model = x.ContinuousTransformerWrapper(dim_in=5, max_seq_len=16, attn_layers=x.Decoder(**SIZES)).eval()
    y, cache, outs = vectors(1, 6, 5), None, []
    for part in y.split((2, 1, 3), dim=1):
        out, cache = model(part, cache=cache, return_intermediates=True, input_not_include_cache=True)
        outs.append(out)
    assert torch.allclose(torch.cat(outs, dim=1), model(y), atol=1e-5)


@program
def drops_the_condition_of_some_rows(x: Any) -> None:
    """Prepends a latent, and starts some rows after it."""
    decoder = x.ContinuousTransformerWrapper(
        dim_in=4, dim_out=4, max_seq_len=16, attn_layers=x.Decoder(**SIZES, rotary_pos_emb=True)
    )
    out = decoder(vectors(2, 6, 4), prepend_embeds=vectors(2, 1, 32), seq_start_pos=torch.tensor([0, 1]))
    assert out[:, 1:].shape == (2, 6, 4)


@program
def tells_lengths(x: Any) -> None:
    encoder = x.ContinuousTransformerWrapper(dim_in=4, max_seq_len=16, attn_layers=x.Encoder(**SIZES)).eval()
    out = encoder(vectors(2, 6, 4), lens=torch.tensor([6, 4]))
    assert torch.allclose(out[1, :4], encoder(vectors(2, 6, 4)[1:, :4])[0], atol=1e-5)


@program
def keeps_memories_of_vectors(x: Any) -> None:
    net = x.ContinuousTransformerWrapper(
        dim_out=16,
        max_seq_len=0,
        num_memory_tokens=4,
        max_mem_len=10,
        attn_layers=x.Decoder(dim=32, depth=2, heads=2, rotary_pos_emb=True),
    )
    mask = torch.ones(1, 16, dtype=torch.bool)
    out, mems = net(vectors(1, 16, 32), mask=mask, mems=None, return_mems=True)
    assert out.shape == (1, 16, 16)
    assert len(mems) == 2
    out, mems = net(vectors(1, 16, 32), mask=mask, mems=[m.detach() for m in mems], return_mems=True)
    assert out.shape == (1, 16, 16)


@program
def begins_with_memories_of_zeros(x: Any) -> None:
    net = x.ContinuousTransformerWrapper(
        max_seq_len=0, max_mem_len=10, attn_layers=x.Decoder(dim=32, depth=2, heads=2, rotary_pos_emb=True)
    )
    mems = [torch.zeros(1, 10, 32) for _ in range(2)]
    _, mems = net(vectors(1, 6, 32), mask=torch.ones(1, 6).bool(), mems=mems, return_mems=True)
    assert len(mems) == 2


@program
def classifies_candles(x: Any) -> None:
    model = x.ContinuousTransformerWrapper(
        dim_in=4, dim_out=32, max_seq_len=60, attn_layers=x.Encoder(**SIZES, rotary_pos_emb=True)
    )
    heads = nn.Linear(32, 3), nn.Linear(32, 7)
    pooled = model(vectors(8, 20, 4))[:, -1]
    assert [head(pooled).shape for head in heads] == [(8, 3), (8, 7)]


@program
def predicts_paths_of_agents(x: Any) -> None:
    """Masks between agents, one for each scene and head."""
    encoder = x.Encoder(dim=32, depth=1, heads=2, attn_flash=False)
    near = torch.rand(3, 1, 5, 5) > 0.3
    near = near | torch.eye(5, dtype=torch.bool)
    out = encoder(vectors(3, 5, 32), attn_mask=near.expand(-1, 2, -1, -1))
    assert out.shape == (3, 5, 32)
    assert encoder(vectors(3, 5, 32), attn_mask=near).shape == (3, 5, 32)
    assert encoder(vectors(3, 5, 32), attn_mask=near[0, 0]).shape == (3, 5, 32)
    cross = x.CrossAttender(dim=32, depth=1, heads=2)
    assert cross(vectors(3, 5, 32), context=vectors(3, 9, 32), mask=torch.ones(3, 5).bool()).shape == (3, 5, 32)


@program
def acts_in_a_batch_of_lists(x: Any) -> None:
    """Pads episodes of several lengths on the right, and reads the last real step of each."""
    model = x.TransformerWrapper(
        num_tokens=32, max_seq_len=24, logits_dim=4, attn_layers=x.Decoder(**SIZES, rotary_pos_emb=True)
    ).eval()
    episodes = [TOKENS[0, :5], TOKENS[1, :9]]
    padded = nn.utils.rnn.pad_sequence(episodes, batch_first=True)
    lens = torch.tensor([5, 9])
    mask = torch.arange(9) < lens[:, None]
    out = model(padded, mask=mask)[torch.arange(2), lens - 1]
    assert torch.allclose(out[0], model(TOKENS[:1, :5])[0, -1], atol=1e-4)


@program
def learns_by_rewards(x: Any) -> None:
    """Log-probabilities of what was generated, against those of a frozen copy."""
    from copy import deepcopy

    wrapper = x.AutoregressiveWrapper(language_model(x, {"rotary_pos_emb": True}))
    frozen = deepcopy(wrapper).requires_grad_(False).eval()
    taken = wrapper.generate(TOKENS[:, :4], 6, temperature=1.0)
    whole = torch.cat((TOKENS[:, :4], taken), dim=1)

    def told(net: Any) -> torch.Tensor:
        return net(whole[:, :-1]).log_softmax(dim=-1).gather(-1, whole[:, 1:, None])[..., 0][:, -6:]

    new, old = told(wrapper.net), told(frozen.net)
    ((new - old).exp() * torch.tensor([[1.0], [-1.0]])).mean().backward()


@program
def gives_two_heads(x: Any) -> None:
    net = x.TransformerWrapper(num_tokens=32, max_seq_len=24, return_only_embed=True, attn_layers=x.Decoder(**SIZES))
    actor, critic = nn.Linear(32, 4), nn.Linear(32, 1)
    embeds = net(TOKENS)
    (actor(embeds).sum() + critic(embeds).sum()).backward()


@program
def compresses_with_a_window_of_attention(x: Any) -> None:
    stack = x.Encoder(dim=32, heads=2, custom_layers=("a", "f", "a", "f"), depth=2, ff_mult=1, layer_dropout=0.1)
    stack(vectors(1, 5, 32))
    model = x.ContinuousTransformerWrapper(
        dim_in=4, dim_out=4, max_seq_len=8, attn_layers=x.Decoder(**SIZES, macaron=True, shift_tokens=1)
    )
    assert F.mse_loss(model(vectors(2, 8, 4)), vectors(2, 8, 4)).ndim == 0


@program
def denoises_actions_at_a_step_of_time(x: Any) -> None:
    """A diffusion policy: the step and what is observed say the gains of norms and branches (DiT's adaLN-Zero)."""
    adaptive = {"use_adaptive_layernorm": True, "use_adaptive_layerscale": True, "dim_condition": 24}

    class Denoises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Sequential(nn.Linear(1, 24), nn.SiLU(), nn.Linear(24, 24))
            self.net = x.ContinuousTransformerWrapper(
                dim_in=6,
                dim_out=6,
                max_seq_len=0,
                num_memory_tokens=4,
                attn_layers=x.Encoder(**SIZES, **adaptive, adaptive_condition_mlp=True, attn_flash=True, ff_glu=True),
            )

        def forward(self, actions: torch.Tensor, steps: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.net(actions, condition=self.time(steps[:, None]) + seen)
            return out

    model = Denoises()
    assert model.net.attn_layers.dim_condition == 24
    actions, steps, seen = vectors(2, 9, 6), torch.rand(2), vectors(2, 24)
    F.mse_loss(model(actions, steps, seen), actions).backward()
    assert model.time[0].weight.grad is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert not torch.allclose(model(actions, steps, seen), model(actions, steps, seen + 1))


@program
def speaks_in_the_manner_of_a_speaker(x: Any) -> None:
    """Tokens by the norms of a speaker's vector, cross-attending to a text; the vector is given at every step."""
    stack = x.Decoder(**SIZES, cross_attend=True, use_adaptive_rmsnorm=True, dim_condition=16, rotary_pos_emb=True)
    model = x.AutoregressiveWrapper(x.TransformerWrapper(num_tokens=32, max_seq_len=24, attn_layers=stack)).eval()
    speaker, context = vectors(2, 16), vectors(2, 5, 32)
    assert model(TOKENS, context=context, condition=speaker).ndim == 0
    spoken = model.generate(TOKENS[:, :4], 5, context=context, condition=speaker, temperature=0.0)
    tokens, cache = TOKENS[:, :4], None
    for _ in range(5):
        logits, cache = model.net(tokens, context=context, condition=speaker, return_intermediates=True, cache=cache)
        tokens = torch.cat((tokens, logits[:, -1:].argmax(dim=-1)), dim=1)
    assert torch.equal(tokens[:, 4:], spoken)


@program
def norms_without_a_gain(x: Any) -> None:
    """Simple RMS norms, with dropout of what a layer gives, as a ranking model of markets has them."""
    options = {"use_simple_rmsnorm": True, "attn_sublayer_dropout": 0.1, "ff_sublayer_dropout": 0.1, "ff_no_bias": True}
    model = x.ContinuousTransformerWrapper(
        dim_in=6, dim_out=1, max_seq_len=16, attn_layers=x.Encoder(**SIZES, **options)
    )
    assert model(vectors(2, 9, 6), mask=torch.ones(2, 9).bool()).shape == (2, 9, 1)
    assert not any("norm" in name for name, _ in model.named_parameters())
