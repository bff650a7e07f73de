"""Programs that change models from outside: parts replaced, weights tied, copied, pruned, quantised and shared."""

from __future__ import annotations

import copy
import io
import math
import os
import pickle
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .programs import SIZES, TOKENS, language_model, program, vectors


class _LoRA(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = (
            nn.Linear(base.in_features, rank, bias=False),
            nn.Linear(rank, base.out_features, bias=False),
        )

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.base(y) + self.up(self.down(y))


@program
def adapts_all_linear_layers(x: Any) -> None:
    model = language_model(x).eval()
    before = model(TOKENS)
    targets = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    for name, module in targets:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _LoRA(module))
    added = [p for n, p in model.named_parameters() if ".down." in n or ".up." in n]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".up." in name:
                p.zero_()
    assert torch.allclose(model(TOKENS), before, atol=1e-5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".up." in name:
                p.fill_(0.1)
    after = model(TOKENS)
    assert not torch.allclose(after, before, atol=1e-3)
    after.sum().backward()
    assert all(p.grad is not None for p in added)


@program
def adapts_queries_and_values_by_layer(x: Any) -> None:
    model = language_model(x, {"attn_dim_head": 16}).eval()
    before = model(TOKENS)
    for layer in model.attn_layers.layers:
        block = layer[1]
        if "Attention" in type(block).__name__:
            block.to_q = _LoRA(block.to_q)
            block.to_v = _LoRA(block.to_v)
    after = model(TOKENS)
    assert not torch.allclose(before, after, atol=1e-4)


@program
def adds_dropout_after_layers(x: Any) -> None:
    decoder = x.Decoder(**SIZES, attn_dropout=0.1, ff_dropout=0.1, attn_flash=True)
    for layer in decoder.layers:
        if "Attention" in str(type(layer[1])):
            assert isinstance(layer[1].to_out, nn.Linear | nn.Sequential)
            layer[1].to_out = nn.Sequential(layer[1].to_out, nn.Dropout(1.0))
        if "FeedForward" in str(type(layer[1])):
            layer[1].ff.append(nn.Dropout(1.0))
    y = vectors(1, 4, 32)
    assert torch.allclose(decoder(y), decoder.final_norm(y), atol=1e-5)


@program
def draws_projections_by_name(x: Any) -> None:
    decoder = x.Decoder(**SIZES)
    found = [(n, p) for n, p in decoder.named_parameters() if "to_q" in n or "to_k" in n or "to_v" in n]
    assert found
    for _, p in found:
        nn.init.xavier_uniform_(p, gain=0.5**0.5)


@program
def replaces_the_logits(x: Any) -> None:
    model = language_model(x)
    model.to_logits = nn.Linear(32, 7)
    assert model(TOKENS).shape == (2, 12, 7)
    loss = F.cross_entropy(model(TOKENS).transpose(1, 2), TOKENS % 7)
    loss.backward()
    assert model.to_logits.weight.grad is not None


@program
def replaces_the_logits_under_a_wrapper(x: Any) -> None:
    wrapper = x.AutoregressiveWrapper(language_model(x)).eval()
    wrapper.net.to_logits = nn.Linear(32, 32)
    with torch.no_grad():
        wrapper.net.to_logits.weight.zero_()
        wrapper.net.to_logits.bias.zero_()[30] = 9.0
    assert (wrapper.generate(TOKENS[:, :2], 3, temperature=1e-3) == 30).all()
    uniform = wrapper(TOKENS)
    assert math.isclose(uniform.item(), 9.0 + math.log1p(31 * math.exp(-9.0)), rel_tol=1e-4)


@program
def enlarges_the_vocabulary(x: Any) -> None:
    model = language_model(x)
    old = model.token_emb.emb.weight.data
    model.token_emb.emb = nn.Embedding(40, 32)
    model.token_emb.emb.weight.data[:32] = old
    model.to_logits = nn.Linear(32, 40, bias=False)
    assert model(TOKENS + 8).shape == (2, 12, 40)


@program
def ties_the_logits_by_hand(x: Any) -> None:
    model = language_model(x)
    model.to_logits.weight = model.token_emb.emb.weight
    model(TOKENS).sum().backward()
    assert model.to_logits.weight is model.token_emb.emb.weight
    with torch.no_grad():
        model.token_emb.emb.weight.zero_()
    logits = model(TOKENS)
    assert (logits == (0 if getattr(model.to_logits, "bias", None) is None else model.to_logits.bias)).all()


@program
def copies_pretrained_embeddings(x: Any) -> None:
    model = language_model(x)
    known = vectors(32, 32)
    model.token_emb.emb.weight.data.copy_(known)
    model.token_emb.emb.weight.requires_grad_(False)
    assert torch.equal(model.token_emb(TOKENS), known[TOKENS])
    model.token_emb = nn.Embedding.from_pretrained(known, freeze=True)
    assert model(TOKENS).shape == (2, 12, 32)


@program
def shares_an_embedding_of_two_models(x: Any) -> None:
    a, b = language_model(x), language_model(x)
    b.token_emb = a.token_emb
    a(TOKENS).sum().backward()
    first = a.token_emb.emb.weight.grad.clone()
    b(TOKENS).sum().backward()
    assert not torch.equal(first, a.token_emb.emb.weight.grad)


@program
def replaces_positions(x: Any) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", vectors(64, 32))

        def forward(self, y: torch.Tensor, pos: Any = None, seq_start_pos: Any = None, **kwargs: Any) -> torch.Tensor:
            return self.table[: y.shape[1]] if pos is None else self.table[pos]

    model = language_model(x, max_seq_len=24)
    model.pos_emb = Fixed()
    out = model(TOKENS)
    model.pos_emb.table.zero_()
    assert not torch.allclose(model(TOKENS), out, atol=1e-4)


@program
def freezes_lower_layers(x: Any) -> None:
    model = language_model(x)
    model.token_emb.requires_grad_(False)
    for layer in model.attn_layers.layers[:2]:
        for p in layer.parameters():
            p.requires_grad = False
    model(TOKENS).sum().backward()
    last = model.attn_layers.layers[-1][1]
    assert all(p.grad is not None for p in last.parameters())
    assert all(p.grad is None for p in model.attn_layers.layers[0][1].parameters())


@program
def keeps_the_first_layers(x: Any) -> None:
    """Cuts a stack, to use its lower half."""
    encoder = x.Encoder(dim=32, depth=3, heads=2).eval()
    y = vectors(1, 4, 32)
    _, seen = encoder(y, return_hiddens=True)
    out = y
    for norms, block, residual in encoder.layers[:2]:
        update = block(norms[0](out))
        out = residual(update[0] if isinstance(update, tuple) else update, out)
    assert torch.allclose(out, seen.hiddens[1], atol=1e-5)


@program
def hooks_into_a_layers_input(x: Any) -> None:
    """Adds a vector to what a layer reads, as when activations are steered."""
    model = language_model(x).eval()
    before, steer = model(TOKENS), vectors(32) * 3.0
    handle = model.attn_layers.layers[2][1].register_forward_hook(
        lambda module, inputs, out: (out[0] + steer, *out[1:]) if isinstance(out, tuple) else out + steer
    )
    changed = model(TOKENS)
    handle.remove()
    assert not torch.allclose(before, changed, atol=1e-3)
    assert torch.allclose(before, model(TOKENS), atol=1e-6)


@program
def quantises_linear_layers(x: Any) -> None:
    model = language_model(x).eval()
    small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    error = (small(TOKENS) - model(TOKENS)).abs().max()
    assert 0 < error < 0.5


@program
def prunes_linear_layers(x: Any) -> None:
    from torch.nn.utils import prune

    model = language_model(x).eval()
    before = model(TOKENS)
    for module in [m for m in model.modules() if isinstance(m, nn.Linear)]:
        prune.l1_unstructured(module, name="weight", amount=0.5)
    pruned = model(TOKENS)
    assert not torch.allclose(pruned, before, atol=1e-3)
    for module in [m for m in model.modules() if isinstance(m, nn.Linear)]:
        prune.remove(module, "weight")
    assert torch.allclose(model(TOKENS), pruned, atol=1e-5)


@program
def normalises_weights(x: Any) -> None:
    encoder = x.Encoder(**SIZES)
    for module in [m for m in encoder.modules() if isinstance(m, nn.Linear)]:
        nn.utils.parametrizations.spectral_norm(module)
    encoder(vectors(2, 4, 32)).sum().backward()


@program
def exports_a_graph(x: Any) -> None:
    model = language_model(x, {"rotary_pos_emb": True}).eval()
    program_ = torch.export.export(model, (TOKENS,))
    assert torch.allclose(program_.module()(TOKENS), model(TOKENS), atol=1e-5)


@program
def traces_a_graph(x: Any) -> None:
    model = x.ContinuousTransformerWrapper(dim_in=4, dim_out=4, max_seq_len=16, attn_layers=x.Encoder(**SIZES)).eval()
    traced = torch.jit.trace(model, (vectors(1, 8, 4),))
    assert torch.allclose(traced(vectors(1, 8, 4)), model(vectors(1, 8, 4)), atol=1e-5)


@program
def wraps_for_data_parallel(x: Any) -> None:
    model = nn.DataParallel(x.AutoregressiveWrapper(language_model(x)))
    model(TOKENS).mean().backward()
    assert model.module.net.max_seq_len == 24
    assert all(name.startswith("module.net.") for name in model.state_dict())


@program
def trains_in_one_process_of_many(x: Any) -> None:
    from torch import distributed

    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    started = not distributed.is_initialized()
    if started:
        store = distributed.HashStore()
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(x.AutoregressiveWrapper(language_model(x)))
        for _ in range(2):
            model(TOKENS).backward()
    finally:
        if started:
            distributed.destroy_process_group()


@program
def saves_whole_models(x: Any) -> None:
    model = x.AutoregressiveWrapper(language_model(x, {"rotary_pos_emb": True})).eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again.net(TOKENS), model.net(TOKENS))
    assert torch.equal(pickle.loads(pickle.dumps(model)).net(TOKENS), model.net(TOKENS))


@program
def resumes_from_a_checkpoint(x: Any) -> None:
    def make() -> tuple[Any, Any]:
        model = x.AutoregressiveWrapper(language_model(x))
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    model, optimizer = make()
    model(TOKENS).backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 1}, file)
    file.seek(0)
    held = torch.load(file, map_location="cpu", weights_only=True)
    model, optimizer = make()
    missing, unexpected = model.load_state_dict(held["model"], strict=False)
    assert not missing
    assert not unexpected
    optimizer.load_state_dict(held["optimizer"])
    model(TOKENS).backward()
    optimizer.step()


@program
def takes_the_wrapper_off_names(x: Any) -> None:
    wrapper = x.AutoregressiveWrapper(language_model(x))
    bare = language_model(x)
    bare.load_state_dict({name.removeprefix("net."): value for name, value in wrapper.state_dict().items()})
    assert torch.equal(bare.eval()(TOKENS), wrapper.net.eval()(TOKENS))


@program
def merges_two_models(x: Any) -> None:
    a, b, mixed = language_model(x), language_model(x), language_model(x)
    state = {name: 0.5 * value + 0.5 * b.state_dict()[name] for name, value in a.state_dict().items()}
    mixed.load_state_dict(state)
    assert torch.isfinite(mixed(TOKENS)).all()


@program
def takes_the_logits_away(x: Any) -> None:
    model = language_model(x)
    del model.to_logits
    assert model(TOKENS, return_embeddings=True).shape == (2, 12, 32)


@program
def turns_dropout_off(x: Any) -> None:
    model = language_model(x, {"attn_dropout": 0.5, "ff_dropout": 0.5}, emb_dropout=0.5).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert torch.equal(model(TOKENS), model(TOKENS))


@program
def builds_on_meta(x: Any) -> None:
    with torch.device("meta"):
        model = language_model(x)
    model = model.to_empty(device="cpu")
    model.load_state_dict(language_model(x).state_dict())
    assert model(TOKENS).shape == (2, 12, 32)


@program
def moves_and_counts(x: Any) -> None:
    model = language_model(x).to(torch.float64)
    assert next(model.parameters()).device.type == "cpu"
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(TOKENS).dtype == torch.float64
    assert model.float().train(False).zero_grad() is None


@program
def reads_a_layers_settings(x: Any) -> None:
    attention = x.Decoder(**SIZES, attn_flash=True, attn_dim_head=16).layers[0][1]
    assert attention.heads == 2
    assert attention.to_q.weight.shape == (32, 32)
    assert attention.to_k.weight.shape == (32, 32)
    assert attention.to_v.weight.shape == (32, 32)
    assert attention.to_out.weight.shape == (32, 32)
    assert attention.causal


@program
def changes_projections_in_place(x: Any) -> None:
    decoder = x.Decoder(**SIZES).eval()
    y = vectors(1, 4, 32)
    before = decoder(y)
    with torch.no_grad():
        decoder.layers[0][1].to_v.weight.mul_(0.0)
        decoder.layers[2][1].to_v.weight.copy_(torch.zeros_like(decoder.layers[2][1].to_v.weight))
    assert not torch.allclose(decoder(y), before, atol=1e-4)
    assert decoder.layers[0][1].to_v.weight.abs().sum() == 0


@program
def masks_heads(x: Any) -> None:
    """Zeroes the columns of the output projection that belong to one head."""
    decoder = x.Decoder(**SIZES, attn_dim_head=16).eval()
    y = vectors(1, 4, 32)
    before = decoder(y)
    with torch.no_grad():
        decoder.layers[0][1].to_out.weight[:, :16] = 0.0
    assert not torch.allclose(decoder(y), before, atol=1e-5)


class _Sums(nn.Module):
    """A net that is none of the package's."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.to_logits, self.max_seq_len = nn.Embedding(32, 16), nn.Linear(16, 32), 8

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.to_logits(self.emb(tokens).cumsum(dim=1))


@program
def trains_a_net_of_its_own(x: Any) -> None:
    """Release 1 knows nothing of the net in its wrapper but its max_seq_len."""
    wrapper = x.AutoregressiveWrapper(_Sums(), ignore_index=0)
    wrapper(TOKENS[:, :9]).backward()
    assert wrapper.generate(TOKENS[:, :3], 9, temperature=0.5).shape == (2, 9)
    assert wrapper.generate(TOKENS[0, :3], 4, eos_token=7).shape[0] <= 4


@program
def trains_a_net_around_a_model(x: Any) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = language_model(x, {"cross_attend": True})
            self.max_seq_len, self.style = self.model.max_seq_len, nn.Embedding(3, 32)

        def forward(self, tokens: torch.Tensor, style: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            return self.model(tokens, context=self.style(style)[:, None], **kwargs)

    wrapper, style = x.AutoregressiveWrapper(Around()), torch.tensor([0, 2])
    wrapper(TOKENS, style=style).backward()
    assert wrapper.generate(TOKENS[:, :3], 5, style=style).shape == (2, 5)


@program
def forecasts_with_a_net_of_its_own(x: Any) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.max_seq_len = nn.Linear(4, 4), 6

        def forward(self, y: torch.Tensor, mask: Any = None) -> torch.Tensor:
            return self.layer(y).cumsum(dim=1)

    wrapper = x.ContinuousAutoregressiveWrapper(Mean())
    wrapper(vectors(2, 6, 4), mask=torch.ones(2, 6).bool()).backward()
    assert wrapper.generate(start_tokens=vectors(2, 3, 4), seq_len=9).shape == (2, 9, 4)


@program
def uses_a_feedforward_of_another_width(x: Any) -> None:
    assert x.FeedForward(32, 64, mult=2, glu=True)(vectors(2, 5, 32)).shape == (2, 5, 64)
    assert x.FeedForward(dim=32, dim_out=8, zero_init_output=True)(vectors(2, 5, 32)).abs().sum() == 0
