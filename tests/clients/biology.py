"""Programs about proteins, genes, health records and particles: odd keywords, embedded inputs, masks of missing values."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .programs import SIZES, TOKENS, program, vectors


@program
def decodes_structures(x: Any) -> None:
    model = x.ContinuousTransformerWrapper(
        dim_in=16,
        dim_out=16,
        max_seq_len=32,
        num_memory_tokens=0,
        attn_layers=x.Encoder(
            dim=32,
            depth=2,
            heads=4,
            ff_mult=2.0,
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            rotary_pos_emb=True,
            attn_flash=True,
            attn_kv_heads=2,
            attn_qk_norm=True,
            pre_norm=True,
            residual_attn=False,
        ),
    )
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3]).to(torch.bool)
    assert model(vectors(2, 9, 16), mask=mask).shape == (2, 9, 16)


@program
def puts_a_token_before_records(x: Any) -> None:
    """Gives embedded events to a model of tokens, with a learned token in front and a mask."""
    model = x.TransformerWrapper(
        num_tokens=100,
        max_seq_len=24,
        emb_dropout=0.1,
        use_abs_pos_emb=False,
        logits_dim=32,
        attn_layers=x.Encoder(**SIZES, layer_dropout=0.1, attn_dropout=0.1, ff_dropout=0.1),
    ).eval()
    model.token_emb = nn.Identity()
    token = nn.Parameter(torch.randn(1, 1, 32))
    events = vectors(2, 32, 7).transpose(1, 2)
    y = torch.column_stack((token.repeat(2, 1, 1), events))
    mask = torch.cat(
        (torch.ones((2, 1), dtype=torch.bool), torch.tensor([[True] * 7, [True] * 4 + [False] * 3])), dim=1
    )
    assert model(y, mask=mask)[:, 0].shape == (2, 32)


@program
def generates_events_by_vectors(x: Any) -> None:
    model = x.TransformerWrapper(
        num_tokens=100, max_seq_len=24, use_abs_pos_emb=False, attn_layers=x.Decoder(**SIZES, rotary_pos_emb=True)
    ).eval()
    model.token_emb = nn.Identity()
    out, cache = vectors(1, 3, 32), None
    for _ in range(3):
        logits, cache = model(out, cache=cache, return_intermediates=True)
        out = torch.cat((out, vectors(1, 1, 32)), dim=1)
    assert torch.allclose(model(out[:, :-1])[:, -1], logits[:, -1], atol=1e-4)


@program
def predicts_reactivities(x: Any) -> None:
    """Bases as vectors of four, a stack called without a wrapper, outputs of every place."""
    embed, head = nn.Linear(4, 32), nn.Linear(32, 2)
    decoder = x.Decoder(dim=32, depth=2, heads=4, alibi_pos_bias=True)
    target = vectors(2, 9, 2)
    known = torch.rand(2, 9, 2) > 0.2
    guess = head(decoder(embed(vectors(2, 9, 4)), mask=torch.ones(2, 9).bool()))
    F.l1_loss(guess[known], target[known]).backward()


@program
def attends_over_sensors_then_over_time(x: Any) -> None:
    sensors = x.Encoder(dim=18, depth=1, heads=2, attn_dim_head=9)
    time = x.Encoder(dim=18, depth=1, heads=2, attn_dim_head=9, rotary_pos_emb=False)
    y = vectors(2, 5, 3, 18)  # batch, time, sensors, features
    y, seen = sensors(y.flatten(0, 1), return_hiddens=True)
    y = y.unflatten(0, (2, 5)).transpose(1, 2).flatten(0, 1)
    y, _ = time(y, mask=torch.ones(2, 5).bool().repeat(3, 1), return_hiddens=True)
    assert y.shape == (6, 5, 18)
    assert seen.attn_intermediates[0].post_softmax_attn.shape == (10, 2, 3, 3)


@program
def masks_whole_rows(x: Any) -> None:
    """A row without a real value, as in a batch with an empty record, doesn't spoil the others."""
    encoder = x.Encoder(**SIZES).eval()
    mask = torch.tensor([[True] * 5, [False] * 5])
    out = encoder(vectors(2, 5, 32), mask=mask)
    assert torch.allclose(out[0], encoder(vectors(2, 5, 32)[:1])[0], atol=1e-5)


@program
def finds_cells_by_any_order(x: Any) -> None:
    """Without positions, the order of genes does not matter."""
    model = x.TransformerWrapper(
        num_tokens=32, max_seq_len=24, use_abs_pos_emb=False, return_only_embed=True, attn_layers=x.Encoder(**SIZES)
    ).eval()
    order = torch.randperm(12)
    assert torch.allclose(model(TOKENS)[:, order], model(TOKENS[:, order]), atol=1e-5)


@program
def fills_masked_residues(x: Any) -> None:
    model = x.TransformerWrapper(
        num_tokens=33,
        max_seq_len=24,
        num_memory_tokens=2,
        tie_embedding=True,
        attn_layers=x.Encoder(**SIZES, attn_num_mem_kv=2, use_scalenorm=True, ff_relu_squared=True, gate_residual=True),
    )
    hidden = torch.rand(2, 12) < 0.5
    hidden[:, 0] = True
    logits = model(TOKENS.masked_fill(hidden, 32))
    F.cross_entropy(logits[hidden], TOKENS[hidden]).backward()
    assert model.memory_tokens.grad is not None


@program
def flows_with_conditions(x: Any) -> None:
    """A velocity field over particles: parameters remapped when older weights are loaded."""

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = x.ContinuousTransformerWrapper(
                dim_in=3, dim_out=3, max_seq_len=16, use_abs_pos_emb=False, attn_layers=x.Encoder(**SIZES)
            )
            self.w_mask = nn.Parameter(torch.zeros(3))
            self.register_load_state_dict_pre_hook(self._rename)

        @staticmethod
        def _rename(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
            if f"{prefix}l_mask_" in state:
                state[f"{prefix}w_mask"] = state.pop(f"{prefix}l_mask_")

        def forward(self, y: torch.Tensor) -> torch.Tensor:
            return self.net(y + self.w_mask)

    field = Field()
    old = {("l_mask_" if name == "w_mask" else name): value for name, value in field.state_dict().items()}
    field.load_state_dict(old)
    assert field(vectors(2, 5, 3)).shape == (2, 5, 3)


@program
def reads_gradients_of_the_inputs(x: Any) -> None:
    stack = x.Encoder(**SIZES, attn_flash=False)
    model = x.ContinuousTransformerWrapper(dim_in=4, dim_out=1, max_seq_len=16, attn_layers=stack).eval()
    y = vectors(2, 7, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(model(y).sum(), y, create_graph=True)
    gradient.square().sum().backward()
    assert next(model.parameters()).grad is not None or True


@program
def maps_gradients_over_samples(x: Any) -> None:
    model = x.ContinuousTransformerWrapper(dim_in=4, dim_out=1, max_seq_len=16, attn_layers=x.Encoder(**SIZES)).eval()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, parameters, (y[None],)).mean()

    grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, vectors(3, 7, 4))
    assert all(len(g) == 3 for g in grads.values())


@program
def encodes_with_sinusoids(x: Any) -> None:
    module = import_module(f"{x.__name__}.x_transformers")
    positions = module.ScaledSinusoidalEmbedding(32)
    encoder = x.Encoder(**SIZES, attn_one_kv_head=True, attn_sparse_topk=3, attn_talking_heads=True)
    y = vectors(2, 6, 32)
    assert encoder(y + positions(y)).shape == (2, 6, 32)
    assert "scale" in positions.state_dict()
