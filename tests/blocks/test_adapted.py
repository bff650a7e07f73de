"""Whatever is put in place of a module, on it or around it takes part in every use of the module's weights.

Each use is compared with a model whose weights say the same by themselves: a plain one with the adapter's product added,
with doubled weights, and so on. Uses: a whole pass, segments with memories, a cache, the loss, gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from xt_blocks import AutoregressiveWrapper, Block, Decoder, TransformerWrapper, pack
from xt_blocks.blocks import linear
from xt_blocks.blocks.packed import PackedLinear
from xt_blocks.kernels import cross_entropy, onednn

SIZES: dict[str, Any] = {"dim": 16, "heads": 4, "attn_dim_head": 4}

MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("(a f)*2", {}, {}),
    "cross": ("(a c f)*2", {}, {}),
    "talking heads": ("(a c f)*2", {"attn_talking_heads": True}, {}),
    "tied head": ("(a f)*2", {}, {"tie_embedding": True}),
    "tied head, unit vectors": ("(a f)*2", {}, {"tie_embedding": True, "l2norm_embed": True}),
    "dynamic bias": ("(a f)*2", {"dynamic_pos_bias": True}, {}),
    "grouped heads": ("(a c f)*2", {"attn_kv_heads": 2}, {}),
    "learned scales": (
        "(a c f)*2",
        {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True, "attn_num_mem_kv": 2, "attn_head_scale": True},
        {},
    ),
    "gates": ("(a f)*2", {"attn_gate_values": True, "attn_on_attn": True, "attn_tensor_product": True}, {}),
    "glu": ("(a f)*2", {"ff_glu": True, "rel_pos_bias": True}, {"emb_dim": 12}),
    "experiments": ("(a f)*2", {"attn_sparse_topk": 3, "gate_residual": True, "shift_tokens": 1}, {}),
}


@pytest.fixture(autouse=True)
def every_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN for any size on any processor, and the loss by parts."""
    monkeypatch.setattr(onednn, "BEATS_MKL", onednn.HAS_ONEDNN)
    monkeypatch.setattr(linear, "MANY_PRODUCTS", 0)
    monkeypatch.setattr(linear, "LARGE", 0)
    monkeypatch.setattr(cross_entropy, "FEWEST", 1)


def build(name: str) -> TransformerWrapper:
    torch.manual_seed(0)
    pattern, settings, around = MODELS[name]
    stack = Decoder(pattern=pattern, **SIZES, **settings)
    net = TransformerWrapper(num_tokens=11, max_seq_len=20, attn_layers=stack, max_mem_len=20, **around)
    with torch.no_grad():
        for parameter in net.parameters():  # those that start as zeros or ones say something too
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def uses(net: TransformerWrapper, gradients: bool = True) -> dict[str, Tensor]:
    """What each use of the weights gives."""
    x = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(1))
    read: dict[str, Any] = {}
    if net.attn_layers.reads_context:
        read["context"] = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))
    found = {}
    with torch.no_grad():
        found["whole"] = net(x, **read)
        _, mems = net(x[:, :4], return_mems=True, **read)
        found["segment"] = net(x[:, 4:], mems=mems, **read)
        cache = net.new_cache(2)
        found["first step"] = net(x[:, :5], cache=cache, **read)
        found["second step"] = net(x[:, 5:6], cache=cache)
        found["loss"] = AutoregressiveWrapper(net)(x, **read)
    if gradients:
        loss = AutoregressiveWrapper(net)(x, **read)
        loss.backward()
        found["loss with gradients"] = loss.detach()
    return found


def same(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for use, out in found.items():
        wrong = f"{use}: {out} is not {wanted[use]}"
        torch.testing.assert_close(out, wanted[use], rtol=tolerance, atol=tolerance, msg=wrong)


def linears(net: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer with its parent and its name there."""
    for parent in [*net.modules()]:
        for name, child in [*parent.named_children()]:
            if type(child) in (nn.Linear, PackedLinear):
                yield parent, name, child


def tables(net: TransformerWrapper) -> Iterator[tuple[nn.Module, str, nn.Embedding]]:
    for parent in [*net.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, nn.Embedding):
                yield parent, name, child


class LowRank(nn.Module):
    """An adapter around a linear layer (Hu et al., arXiv:2106.09685)."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features) / 4)
        self.up = nn.Parameter(torch.randn(base.out_features, 2) / 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


class LowRankTable(nn.Module):
    """The same around an embedding."""

    def __init__(self, base: nn.Embedding) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(base.num_embeddings, 2) / 4)
        self.up = nn.Parameter(torch.randn(2, base.embedding_dim) / 4)

    def forward(self, rows: Tensor) -> Tensor:
        return self.base(rows) + F.embedding(rows, self.down) @ self.up


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_in_place_of_any_layer(name: str, packed: bool) -> None:
    net, merged = build(name), build(name)
    if packed:
        pack(net)
    adapters: list[tuple[LowRank, nn.Linear]] = []
    for (parent, child, layer), (_, _, other) in zip([*linears(net)], [*linears(merged)], strict=True):
        adapter = LowRank(layer)
        adapters.append((adapter, other))
        setattr(parent, child, adapter)
        with torch.no_grad():
            other.weight += adapter.up @ adapter.down
    adapted = LowRankTable(net.token_emb)
    net.token_emb = adapted  # type: ignore[assignment]
    with torch.no_grad():
        merged.token_emb.weight += adapted.down @ adapted.up
    same(uses(net), uses(merged))
    assert adapters
    for adapter, other in adapters:
        assert other.weight.grad is not None
        torch.testing.assert_close(adapter.base.weight.grad, other.weight.grad, rtol=1e-4, atol=1e-5)
        assert adapter.up.grad is not None
    torch.testing.assert_close(adapted.base.weight.grad, merged.token_emb.weight.grad, rtol=1e-4, atol=1e-5)
    assert adapted.up.grad is not None


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_hook_changes_every_use(name: str, packed: bool, before: bool) -> None:
    net, doubled = build(name), build(name)
    if packed:
        pack(net)
        with torch.no_grad():
            net(torch.arange(3)[None], context=torch.randn(1, 4, 16) if net.attn_layers.reads_context else None)
    for (_, _, layer), (_, _, other) in zip(linears(net), linears(doubled), strict=True):
        if before:
            layer.register_forward_pre_hook(lambda module, args: (2 * args[0],))
        else:
            layer.register_forward_hook(lambda module, args, out: 2 * out)
        with torch.no_grad():
            other.weight *= 2
            if other.bias is not None and not before:
                other.bias *= 2
    for (_, _, table), (_, _, other_table) in zip(tables(net), tables(doubled), strict=True):
        table.register_forward_hook(lambda module, args, out: 2 * out)
        with torch.no_grad():
            other_table.weight *= 2
    same(uses(net), uses(doubled))


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize("name", MODELS)
def test_parametrized_weights(name: str) -> None:
    net, doubled = build(name), build(name)
    for (_, _, layer), (_, _, other) in zip(
        [*linears(net), *tables(net)], [*linears(doubled), *tables(doubled)], strict=True
    ):
        parametrize.register_parametrization(layer, "weight", Twice())
        with torch.no_grad():
            other.weight *= 2
    same(uses(net), uses(doubled))
    normed, wanted = build(name), uses(build(name))
    for _, _, layer in [*linears(normed), *tables(normed)]:
        parametrizations.weight_norm(layer)
    same(uses(normed), wanted)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_weights_that_are_elsewhere_between_calls(name: str, packed: bool) -> None:
    net, wanted = build(name), uses(build(name), gradients=False)
    if packed:
        pack(net)
    cpu_offload(net, torch.device("cpu"))
    assert all(parameter.is_meta for parameter in net.parameters())
    same(uses(net, gradients=False), wanted)
    assert all(parameter.is_meta for parameter in net.parameters())


@pytest.mark.filterwarnings("ignore:.*(quantize_per_|torch.ao|TypedStorage).*")
@pytest.mark.parametrize("name", MODELS)
def test_int8_layers(name: str) -> None:
    net = build(name)
    wanted = uses(net, gradients=False)
    count = sum(1 for _ in linears(net))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        int8 = torch.ao.quantization.quantize_dynamic(net)
    assert not [*linears(int8)]
    assert sum(isinstance(module, torch.ao.nn.quantized.dynamic.Linear) for module in int8.modules()) == count
    for use, out in uses(int8, gradients=False).items():
        error = (out - wanted[use]).norm() / wanted[use].norm()
        assert 0 < error < 0.4, use


@pytest.mark.parametrize("name", MODELS)
def test_a_plain_embedding_in_place_of_the_tokens(name: str) -> None:
    net, wanted = build(name), uses(build(name))
    plain = nn.Embedding(11, net.emb_dim)
    plain.load_state_dict(net.token_emb.state_dict())
    net.token_emb = plain  # type: ignore[assignment]
    same(uses(net), wanted)


@pytest.mark.parametrize("tied", [False, True])
def test_a_larger_table_gives_no_further_logits(tied: bool) -> None:
    net = build("tied head" if tied else "plain")
    wanted, larger = uses(net), nn.Embedding(16, 16)
    with torch.no_grad():
        larger.weight[:11] = net.token_emb.weight
    net.token_emb = larger  # type: ignore[assignment]
    same(uses(net), wanted)


# Sharding -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One process, which gathers and scatters with itself."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    file = tmp_path_factory.mktemp("mesh") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


UNITS: dict[str, Callable[[TransformerWrapper], list[Any]]] = {
    "the model": lambda net: [],
    "blocks": lambda net: [module for module in net.modules() if isinstance(module, Block)],
    "the head": lambda net: [net.token_emb if net.to_logits is None else net.to_logits],
    "layers": lambda net: [layer for _, _, layer in linears(net)],
}


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", MODELS)
def test_sharded_models_learn_the_same_by_parts(
    name: str, units: str, mesh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.fsdp import fully_shard

    net, plain = build(name), build(name)
    for unit in UNITS[units](net):
        fully_shard(unit, mesh=mesh)
    fully_shard(net, mesh=mesh)
    parts: list[int] = []
    by_parts = cross_entropy._by_parts
    monkeypatch.setattr(cross_entropy, "_by_parts", lambda *args: (parts.append(1), by_parts(*args))[1])
    for _ in range(2):
        same(uses(net), uses(plain))
    assert len(parts) == 8  # each loss, with gradients and without
    for own, other in zip(net.parameters(), plain.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None)
        if other.grad is not None:
            torch.testing.assert_close(own.grad.full_tensor(), other.grad, rtol=1e-4, atol=1e-5)
