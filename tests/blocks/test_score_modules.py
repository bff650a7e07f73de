"""Modules of attention that kernels read: called where something hooks on them or stands in their place; old keys load."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import xt_blocks
from xt_blocks.kernels import tiles

SEQ = 4 * tiles.ROWS + 3


class LowRank(nn.Module):
    """An adapter in place of a linear layer: what it gave, and a product of two small matrices beside it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.up(self.down(x))
        return out

    def merged(self) -> Tensor:
        return self.layer.weight + self.up.weight @ self.down.weight


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def adapted(layers: nn.Module, name: str) -> Callable[[], Tensor]:
    adapter = LowRank(getattr(layers, name)).double()
    setattr(layers, name, adapter)
    return adapter.merged


def hooked(layers: nn.Module, name: str) -> Callable[[], Tensor]:
    layer = getattr(layers, name)
    layer.register_forward_hook(lambda module, args, out: 3 * out)
    return lambda: 3 * layer.weight


def parametrized(layers: nn.Module, name: str) -> Callable[[], Tensor]:
    layer = getattr(layers, name)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return lambda: layer.weight


def offloaded(layers: nn.Module, name: str) -> Callable[[], Tensor]:
    """Its weight is there during the call alone, as accelerate has it."""
    layer = getattr(layers, name)
    weight, forward = layer.weight, layer.forward
    layer.weight = nn.Parameter(torch.full_like(weight, torch.nan))

    def forwarded(*args: Any) -> Any:
        kept, layer.weight = layer.weight, weight
        try:
            return forward(*args)
        finally:
            layer.weight = kept

    layer.forward = forwarded
    return lambda: weight


WAYS = {"adapter": adapted, "hook": hooked, "parametrization": parametrized, "offloading": offloaded}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", ["before", "after"])
@pytest.mark.parametrize("seq", [7, SEQ])
def test_talking_heads_are_what_is_called(seq: int, which: str, way: str) -> None:
    layer = xt_blocks.Attention(dim=12, heads=3, dim_head=4, causal=True, talking_heads=True).double()
    plain = copy.deepcopy(layer)
    x = torch.randn(1, seq, 12, dtype=torch.float64)
    assert ("tiles is taken" in xt_blocks.why(layer, x)) == (seq == SEQ)
    weight = WAYS[way](layer.talking_heads, which)  # type: ignore[arg-type]
    with torch.no_grad():
        getattr(plain.talking_heads, which).weight.copy_(weight())
    assert "explicit is taken" in xt_blocks.why(layer, x)
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settings", [{}, {"attn_shared_kv": True}, {"attn_kv_heads": 1}], ids=str)
def test_queries_keys_and_values_of_segments_are_what_is_called(way: str, settings: dict[str, Any]) -> None:
    stack = xt_blocks.Decoder(dim=12, depth=1, heads=3, attn_dim_head=4, rotary_pos_emb=True, **settings).double()
    net = xt_blocks.TransformerWrapper(num_tokens=11, max_seq_len=8, max_mem_len=8, attn_layers=stack).double().eval()
    plain = copy.deepcopy(net)
    layers = net.attn_layers.blocks["a0"].layer
    weight = WAYS[way](layers, "to_qkv")  # type: ignore[arg-type]
    with torch.no_grad():
        plain.attn_layers.blocks["a0"].layer.to_qkv.weight.copy_(weight())  # type: ignore[union-attr, operator]
    tokens = torch.randint(0, 11, (2, 12))
    for model in (net, plain):
        model.first, mems = model(tokens[:, :6], return_mems=True)  # type: ignore[assignment]
        model.second = model(tokens[:, 6:], mems=mems)  # type: ignore[assignment]
    torch.testing.assert_close((net.first, net.second), (plain.first, plain.second))


@pytest.mark.parametrize("way", ["hook", "offloading"])
def test_the_gains_of_normed_keys_are_read_in_their_modules_call(way: str) -> None:
    """A step with a cache norms queries alone, and learned keys are normed by themselves."""
    model = xt_blocks.Decoder(
        dim=12,
        pattern="a c",
        heads=3,
        attn_dim_head=4,
        attn_qk_norm=True,
        attn_qk_norm_dim_scale=True,
        attn_num_mem_kv=2,
    ).eval()
    x, context = torch.randn(1, 5, 12), torch.randn(1, 4, 12)
    calls: list[str] = []
    for name, module in model.named_modules():
        if name.endswith("qk_norm"):
            own, gains = module.forward, [("q_scale", module.q_scale), ("k_scale", module.k_scale)]

            def forward(*args: Any, own: Any = own, gains: Any = gains, module: Any = module, **kwargs: Any) -> Any:
                calls.append("")
                for key, gain in gains:
                    setattr(module, key, gain)
                out = own(*args, **kwargs)
                for key, gain in gains:
                    setattr(module, key, nn.Parameter(torch.full_like(gain, torch.nan)))
                return out

            if way == "offloading":
                module.forward = forward  # type: ignore[method-assign]
            else:
                module.register_forward_hook(lambda module, args, out: calls.append(""))
    cache = model.new_cache(1, 5)
    steps = [model(x[:, :3], context=context, cache=cache), model(x[:, 3:4], cache=cache), model(x[:, 4:], cache=cache)]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(x, context=context), rtol=1e-4, atol=1e-5)
    assert len(calls) == 6 + 2 * (3 + 2) + 6  # queries, keys and learned keys; of a context's in later steps no keys


def test_keys_of_the_first_release_load() -> None:
    made = {
        "dim": 12,
        "pattern": "a f c",
        "heads": 3,
        "attn_dim_head": 4,
        "attn_talking_heads": True,
        "attn_num_mem_kv": 2,
    }
    model, other = xt_blocks.Decoder(**made), xt_blocks.Decoder(**made)
    state = model.state_dict()
    names = {
        "talking_heads.before.weight": "talking_heads.before",
        "talking_heads.after.weight": "talking_heads.behind",
    }
    old = {}
    for key, value in state.items():
        for new, first in {**names, "mem_kv.": "memory."}.items():
            key = key.replace(new, first)
        old[key] = value
    assert "blocks.c2.layer.talking_heads.behind" in old
    assert "blocks.a0.layer.memory.keys" in old
    for loading in (other, copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        with torch.no_grad():
            for parameter in loading.parameters():
                parameter.zero_()
        loading.load_state_dict(old)
        torch.testing.assert_close(dict(loading.state_dict()), dict(state))
    with pytest.raises(RuntimeError, match=r"mem_kv\.other"):
        other.load_state_dict({**old, "blocks.a0.layer.memory.other": torch.zeros(1)})
