"""Experts, against a loop over tokens and experts in float64, and what a mixture must hold to."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl import UserError
from blockdsl.registry.kinds import Sizes, kind_of
from xt_blocks.blocks.experts import Experts
from xt_blocks.blocks.layer_output import LayerOutput

DIM, SEQ = 8, 7
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"experts": 5, "top": 2, "inner": 6},
    "mixtral": {"experts": 4, "top": 2, "inner": 6, "glu": True, "gate_first": True, "no_bias": True},
    "one of many": {"experts": 16, "top": 1, "inner": 6, "renormalise": False, "activation": "relu_squared"},
    "all": {"experts": 3, "top": 3, "mult": 0.5, "z_loss": 0.1, "balance_loss": 0.5},
    "deepseek v3": {
        "experts": 8,
        "top": 3,
        "inner": 6,
        "router": "sigmoid",
        "correction_rate": 0,
        "groups": 4,
        "top_groups": 2,
        "weight_scale": 2.5,
        "shared_inner": 5,
        "glu": True,
        "activation": "silu",
        "z_loss": 0.1,
    },
    "deepseek v2": {
        "experts": 6,
        "top": 2,
        "inner": 6,
        "groups": 3,
        "top_groups": 2,
        "group_best": 1,
        "renormalise": False,
        "weight_scale": 16,
    },
    "gpt-oss": {
        "experts": 4,
        "top": 2,
        "inner": 6,
        "glu": True,
        "activation": "quick_gelu",
        "glu_limit": 0.3,
        "glu_offset": 1,
        "router_bias": True,
    },
    "qwen2": {"experts": 4, "top": 2, "inner": 6, "glu": True, "shared_inner": 5, "shared_gate": True},
}
ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "silu": lambda x: x * torch.sigmoid(x),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu_squared": lambda x: x.clamp(min=0) ** 2,
}


def layer_of(variant: str, dtype: torch.dtype = torch.float64) -> Experts:
    torch.manual_seed(0)
    layer = Experts(DIM, **VARIANTS[variant]).to(dtype)
    with torch.no_grad():
        layer.router.weight += torch.randn_like(layer.router.weight)
        if layer.router.correction is not None:
            layer.router.correction += torch.randn_like(layer.router.correction)
    return layer


def reference(layer: Experts, x: Tensor, mask: Tensor | None, o: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """One token and one expert after another, by the papers' formulas, and the losses of training."""
    w = dict(layer.named_parameters())
    correction = layer.router.correction
    experts, top, groups = o["experts"], o["top"], o.get("groups", 1)
    act = ACTIVATIONS[o.get("activation", "gelu")]

    def expert(token: Tensor, prefix: str, index: int | None) -> Tensor:
        def linear(name: str, value: Tensor) -> Tensor:
            weight, bias = w[f"{prefix}{name}.weight"], w.get(f"{prefix}{name}.bias")
            if index is not None:
                weight, bias = weight[index], None if bias is None else bias[index]
            return weight @ value if bias is None else weight @ value + bias

        hidden = linear("to_hidden", token)
        if o.get("glu"):
            half = len(hidden) // 2
            value, gate = hidden[:half], hidden[half:]
            if o.get("gate_first"):
                value, gate = gate, value
            if "glu_limit" in o:
                value, gate = value.clamp(-o["glu_limit"], o["glu_limit"]), gate.clamp(max=o["glu_limit"])
            hidden = (value + o.get("glu_offset", 0)) * act(gate)
        else:
            hidden = act(hidden)
        return linear("to_out", hidden)

    out, counts, shares, squares = torch.zeros_like(x), torch.zeros(experts), [], []
    for row in range(x.shape[0]):
        for place in range(x.shape[1]):
            token = x[row, place]
            if "shared_inner" in o:
                shared = expert(token, "shared.", None)
                out[row, place] += (
                    shared * torch.sigmoid(w["shared_gate.weight"][0] @ token) if "shared_gate" in o else shared
                )
            if mask is not None and not mask[row, place]:
                continue
            logits = w["router.weight"] @ token + (w["router.bias"] if "router_bias" in o else 0)
            powers = logits.exp()
            scores = torch.sigmoid(logits) if o.get("router") == "sigmoid" else powers / powers.sum()
            moved = [0.0] * experts if correction is None else correction.tolist()
            judged = [s + moved[e] for e, s in enumerate(scores.tolist())]
            size, best = experts // groups, o.get("group_best", 2)
            by_group = [sum(sorted(judged[g * size : (g + 1) * size])[-best:]) for g in range(groups)]
            within = sorted(range(groups), key=lambda g: -by_group[g])[: o.get("top_groups", 1)]
            allowed = [e for e in range(experts) if groups == 1 or e // size in within]
            chosen = sorted(allowed, key=lambda e: -judged[e])[:top]
            total = scores[chosen].sum() if o.get("renormalise", True) else 1.0
            for e in chosen:
                counts[e] += 1
                out[row, place] += o.get("weight_scale", 1.0) * scores[e] / total * expert(token, "", e)
            shares.append(scores / scores.sum())
            squares.append(torch.log(powers.sum()) ** 2)
    balance = (counts / counts.sum() * torch.stack(shares).mean(dim=0)).sum() * experts
    losses = {"balance": o.get("balance_loss", 0.01) * balance}
    if "z_loss" in o:
        losses["router_z"] = o["z_loss"] * torch.stack(squares).mean()
    return out, losses


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loop_over_tokens_and_experts(variant: str) -> None:
    """Outputs, losses and gradients, with padding that is routed nowhere."""
    layer, options = layer_of(variant), VARIANTS[variant]
    x = torch.randn(2, SEQ, DIM, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, SEQ, dtype=torch.bool)
    mask[0, :2] = mask[1, 3] = False
    got = LayerOutput.of(layer(x, mask))
    wanted, losses = reference(layer, x, mask, options)
    torch.testing.assert_close(got.update[mask], wanted[mask])
    assert got.losses is not None
    assert got.losses.keys() == losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(got.losses[name], loss)
    weights, direction = [x, *layer.parameters()], torch.randn_like(x) * mask[..., None]

    def gradients(update: Tensor, losses: Any) -> tuple[Tensor, ...]:
        return torch.autograd.grad((update * direction).sum() + sum(losses.values()), weights)

    for ours, theirs in zip(gradients(got.update, got.losses), gradients(wanted, losses), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_padding_changes_nothing() -> None:
    layer = layer_of("deepseek v3")
    x, mask = torch.randn(2, SEQ, DIM, dtype=torch.float64), torch.ones(2, SEQ, dtype=torch.bool)
    mask[0, 2:5] = False
    whole, other = LayerOutput.of(layer(x, mask, True)), x.masked_fill(~mask[..., None], 1e3)
    changed = LayerOutput.of(layer(other, mask, True))
    torch.testing.assert_close(whole.update[mask], changed.update[mask], rtol=0, atol=0)
    assert whole.losses is not None
    assert changed.losses is not None
    assert whole.statistics is not None
    assert changed.statistics is not None
    for name in whole.losses:
        assert torch.equal(whole.losses[name], changed.losses[name])
    load = whole.statistics["expert_load"]
    assert torch.equal(load, changed.statistics["expert_load"])
    counted = layer.router(x[mask]).experts.flatten().bincount(minlength=8) / mask.sum() / 3
    torch.testing.assert_close(load, counted.double())
    none = LayerOutput.of(layer(x, torch.zeros_like(mask)))
    assert none.losses is not None
    assert all(loss == 0 for loss in none.losses.values())


def test_rows_that_are_not_sorted_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of few rows on a GPU, of exports and of torch.func."""
    for variant in ("gpt-oss", "mixtral"):
        layer = layer_of(variant)
        x = torch.randn(2, SEQ, DIM, dtype=torch.float64, requires_grad=True)
        mask = torch.ones(2, SEQ, dtype=torch.bool)
        mask[1, 4:] = False
        sorted_ = LayerOutput.of(layer(x, mask)).update
        monkeypatch.setattr("xt_blocks.blocks.experts.reads_chosen", lambda *_: True)
        chosen = LayerOutput.of(layer(x, mask)).update
        monkeypatch.undo()
        torch.testing.assert_close(sorted_, chosen)
        for ours, theirs in zip(
            *(torch.autograd.grad(out.square().sum(), [x, *layer.parameters()]) for out in (sorted_, chosen)),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)
        layer.eval()
        grads = torch.func.vmap(torch.func.grad(lambda row, layer=layer: layer(row[None]).square().sum()))(x.detach())
        wanted = torch.autograd.grad(layer(x).square().sum(), x)[0]
        torch.testing.assert_close(grads, wanted)


def test_derivatives_of_derivatives() -> None:
    from xt_blocks.kernels.grouped import grouped_linear

    x, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 2, 3, dtype=torch.float64)
    bias, ends = torch.randn(4, 2, dtype=torch.float64), torch.tensor([2, 2, 3, 4])
    tensors = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda x, w, b: grouped_linear(x, w, ends, b), tensors)
    assert torch.autograd.gradgradcheck(lambda x, w, b: grouped_linear(x.sin(), w, ends, b), tensors)


@pytest.mark.parametrize("variant", ["plain", "deepseek v3", "gpt-oss", "qwen2"])
def test_costs(variant: str) -> None:
    """Parameters are what is declared, and a torch counter counts the products at top-k."""
    kind, layer = kind_of("e"), layer_of(variant).eval()
    own = kind.complete(DIM, VARIANTS[variant], "a test")
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(2, SEQ, DIM, dtype=torch.float64))
    assert counter.get_total_flops() == kind.flops(own, Sizes(2, SEQ, 0))


def test_total_and_active_parameters() -> None:
    """Of Mixtral 8x7B: 46.7 billion, of which a token uses 12.9 billion (arXiv:2401.04088)."""
    text = "(a(kv_heads=8, dim_head=128) e(inner=14336, glu, no_bias))*32"
    sizes = {"dim": 4096, "heads": 32, "causal": True, "use_rmsnorm": True, "rotary_pos_emb": True}
    graph = blockdsl.compile(text, **sizes, num_tokens=32000, max_seq_len=32768)
    experts = 32 * 6 * 3 * 4096 * 14336
    assert graph.parameters() - graph.parameters(active=True) == experts
    assert round(graph.parameters() / 1e8) == 467
    assert round(graph.parameters(active=True) / 1e8) == 129
    assert f"{graph.parameters(active=True):,} active" in str(graph)
    tied = blockdsl.compile("e@x*2", dim=8)
    assert tied.parameters() - tied.parameters(active=True) == 6 * (2 * 8 * 32 + 32 + 8)
    dense = blockdsl.compile("f", dim=8)
    names = [change.name for change in dense.diff(tied).costs]
    assert names == ["parameters", "active_parameters", "flops", "kv_cache_bytes"]
    assert "active parameters" in str(dense.diff(tied))


def test_the_correction_moves_at_steps_of_its_own_optimiser() -> None:
    torch.manual_seed(0)
    layer = Experts(DIM, experts=4, top=1, inner=4, router="sigmoid", correction_rate=0.1, balance_loss=0)
    twin = copy.deepcopy(layer)
    optimiser = torch.optim.SGD(layer.parameters(), lr=1e-3)
    others = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    x, correction = torch.randn(3, SEQ, DIM), layer.router.correction
    assert correction is not None
    assert twin.router.correction is not None
    assert twin.router.load is not None
    load = torch.zeros(4)
    for _ in range(2):  # two batches a step
        load += layer.router(x.flatten(0, 1)).experts.flatten().bincount(minlength=4)
        layer(x).sum().backward()
    others.step()
    assert not correction.any()
    layer.eval()
    layer(x)
    optimiser.step()
    torch.testing.assert_close(correction, 0.1 * (load.mean() - load).sign())
    moved = correction.clone()
    optimiser.step()  # nothing was seen since
    assert torch.equal(correction, moved)
    assert not twin.router.correction.any()
    torch.optim.SGD(twin.parameters(), lr=0.0).step()
    twin(x)
    assert twin.router.load.sum() == 3 * SEQ
    torch.optim.SGD(twin.parameters(), lr=0.0).step()
    assert twin.router.correction.any()


def test_balancing_evens_the_load() -> None:
    """From a router that sends nearly all to one expert, by the correction alone."""
    torch.manual_seed(0)
    layer = Experts(DIM, experts=4, top=1, inner=4, router="sigmoid", correction_rate=0.02, balance_loss=0)
    x = torch.randn(8, 16, DIM) + 1
    with torch.no_grad():
        layer.router.weight[0] += 1
    optimiser, loads = torch.optim.SGD(layer.parameters(), lr=0.0), []
    for _ in range(90):
        layer(x)
        assert layer.router.load is not None
        loads.append(layer.router.load.clone() / 128)
        optimiser.step()
    assert loads[0].max() > 0.9
    assert torch.stack(loads[-20:]).mean(dim=0).max() < 0.35


def test_a_model_with_experts() -> None:
    """Cached steps, padding, copies of a compiled model and autocast, in a stack with ties, branches and scales."""
    torch.manual_seed(0)
    text = "(a e(experts=4, top=2, inner=12, glu))*2 (a & e(router=sigmoid, shared_inner=6)@x)/2 e(router=sigmoid, shared_inner=6)@x>>1"
    graph = blockdsl.compile(text, dim=16, heads=2, causal=True, num_tokens=11, max_seq_len=16)
    net = xt_blocks.lower(graph).eval()
    assert sum(p.numel() for p in net.parameters()) == graph.parameters()
    tokens = torch.randint(0, 11, (2, 9))
    with torch.no_grad():
        whole, cache = net(tokens), net.new_cache(batch=2)
        steps = [net(tokens[:, i : i + 1], cache=cache) for i in range(9)]
        torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-5, atol=1e-6)
        mask = torch.tensor([[False] * 3 + [True] * 6, [True] * 9])
        alone = net(tokens[:1, 3:])
        torch.testing.assert_close(net(tokens, mask=mask)[:1, 3:], alone, rtol=1e-5, atol=1e-6)
        half = net.to(torch.bfloat16)(tokens)
        assert half.dtype == torch.bfloat16
    net.float().train()
    with torch.autocast("cpu"):
        loss = net(tokens).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_compiled_without_breaks() -> None:
    layer = layer_of("deepseek v3", torch.float32)
    x, mask = torch.randn(2, SEQ, DIM, requires_grad=True), torch.ones(2, SEQ, dtype=torch.bool)
    mask[0, :3] = False
    eager = LayerOutput.of(layer(x, mask))
    out = LayerOutput.of(torch.compile(layer, fullgraph=True, backend="aot_eager")(x, mask))
    assert eager.losses is not None
    assert out.losses is not None
    torch.testing.assert_close(out.update, eager.update)
    for ours, theirs in zip(
        *(
            torch.autograd.grad(o.update.square().sum() + sum(o.losses.values()), [x, *layer.parameters()])
            for o in (out, eager)
        ),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"experts": 2, "top": 3}, "top=3 of experts=2"),
        ({"experts": 6, "groups": 4}, "do not divide into groups=4"),
        ({"groups": 4, "top": 4}, "more than the 2 of top_groups=1"),
        ({"groups": 8, "top_groups": 3}, "group_best=2 of a group of 1"),
        ({"groups": 2, "top_groups": 3}, "top_groups=3 of groups=2"),
        ({"glu_limit": 7.0}, "glu_limit is set, but it needs glu"),
        ({"shared_gate": True}, "shared_gate is set, but there is no shared expert"),
        ({"inner": 7, "mult": 2.0}, "inner=7 and mult=2.0 are both set"),
        ({"router": "relu"}, "router"),
    ],
)
def test_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as error:
        Experts(DIM, **options)
    assert problem in str(error.value)


def test_exported_without_an_operator_of_the_package() -> None:
    layer = layer_of("mixtral", torch.float32).eval()
    x = torch.randn(2, SEQ, DIM)
    batch, seq = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("seq", min=2, max=64)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: batch, 1: seq},))
    assert "xt_blocks" not in str(program.graph)
    for sizes in ((2, SEQ), (5, 3)):
        x = torch.randn(*sizes, DIM)
        torch.testing.assert_close(program.module()(x), layer(x))


def test_one_token_without_gradients() -> None:
    """What decoding reads by number is what the sorted rows give, and a hook sees every module's call."""
    for variant in ("gpt-oss", "deepseek v3", "mixtral"):
        layer, x = layer_of(variant).eval(), torch.randn(1, 1, DIM, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), layer(torch.cat((x, x)))[:1])
            called = []
            layer.to_hidden.register_forward_hook(lambda *_, called=called: called.append(1))
            torch.testing.assert_close(layer(x), layer(torch.cat((x, x)))[:1])
        assert called == [1, 1]
