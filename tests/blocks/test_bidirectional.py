"""Kinds in which no token sees a later one, in stacks whose tokens see all: a second module reads in reverse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import blockdsl
import xt_blocks
from blockdsl import GraphError, PatternError, UserError
from blockdsl.registry.kinds import kinds
from xt_blocks.blocks.bidirectional import Bidirectional

from ..built_in import BUILT_IN
from .own_kinds import GATED_CONVOLUTION, RUNNING_SUM, registered

SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8}
RECURRENT = ["ema", *(name for name in BUILT_IN if kinds()[name].both_ways)]


@pytest.fixture(autouse=True)
def own_kinds() -> Iterator[None]:
    with registered(GATED_CONVOLUTION, RUNNING_SUM):
        yield


def encoder(pattern: str, **settings: Any) -> xt_blocks.Encoder:
    torch.manual_seed(0)
    return xt_blocks.Encoder(pattern=pattern, **SIZES, **settings).double().eval()


def close(out: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(out, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", RECURRENT)
def test_it_is_the_sum_of_both_ways_over_real_tokens_alone(kind: str) -> None:
    """Against the kind's own module, row by row without padding; outputs, gradients, parameters and FLOPs."""
    model = encoder(f"{kind}(bidirectional) f", final_norm=False)
    block = model.blocks[f"{kind}0"]
    layer = block.layer  # type: ignore[union-attr]
    assert isinstance(layer, Bidirectional)
    x = torch.randn(3, 7, 16, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, :2] = mask[1, 5:] = mask[2, 2] = mask[2, 4] = False
    normed, rows = block.norm(x), []  # type: ignore[operator,union-attr]
    for row, seen in enumerate(mask):
        alone = normed[row : row + 1, seen]
        rows.append((layer.forwards(alone) + layer.backwards(alone.flip(1)).flip(1))[0])
    out = layer(normed, mask=mask)[mask]
    close(out, torch.cat(rows))
    weights = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((o * weights).sum(), x, retain_graph=True)[0] for o in (out, torch.cat(rows)))
    close(ours, theirs)
    assert model.graph.parameters() == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model(x)
    once = blockdsl.compile(f"{kind} f", causal=True, **SIZES)
    assert model.graph.flops(7, 3) - once.flops(7, 3) == once.flops(7, 3) - blockdsl.compile("f", **SIZES).flops(7, 3)
    assert counter.get_total_flops() > 0


def test_every_token_sees_every_other_and_padding_changes_nothing() -> None:
    model = encoder("(ema gconv f)*2", bidirectional=True)
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    whole = model(x)
    changed = x.clone()
    changed[:, 3, 2] += 1
    assert ((model(changed) - whole).abs().amax(-1) > 1e-6).all()
    both = encoder("(ema f)*2 ema@x>>1 ema@x/2", bidirectional=True)
    padded = torch.cat((torch.randn(1, 2, 16).double(), x, torch.randn(1, 3, 16).double()), dim=1)
    mask = (torch.arange(11) >= 2) & (torch.arange(11) < 8)
    close(both(padded, mask=mask[None])[:, 2:8], both(x))


def test_text_and_graph_say_it() -> None:
    text = "ema(bidirectional) & a f ema(decay=0.5, bidirectional)@x ema(decay=0.5, bidirectional)@x"
    assert str(blockdsl.parse(text)) == text
    g = blockdsl.compile(text, **SIZES)
    assert blockdsl.BlockGraph.from_json(g.to_json()) == g
    of_stack = blockdsl.compile("ema f", bidirectional=True, **SIZES)
    assert not of_stack.diff(blockdsl.compile("ema(bidirectional) f", **SIZES))
    assert "bidirectional" in g.to_text()
    assert "bidirectional" in g.to_svg(detail="op")
    model = xt_blocks.lower(g)
    assert model.graph.parameters() == sum(p.numel() for p in model.parameters())
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(copied.blocks["ema0"].layer, Bidirectional)  # type: ignore[union-attr,index]
    assert all(
        p.abs().sum()
        for n, p in encoder("ema f", bidirectional=True, deepnorm=True).named_parameters()
        if n.endswith("to_in.weight")
    )


def test_where_it_does_not_fit_is_said() -> None:
    with pytest.raises(PatternError) as error:
        blockdsl.compile("f ema", dim=12)
    assert str(error.value).startswith("1:3: 'ema' (running sum) in a stack that is not causal")
    assert "write ema(bidirectional)" in str(error.value)
    with pytest.raises(PatternError, match=r"1:1: 'ema' \(running sum\) is bidirectional, in a causal stack"):
        blockdsl.compile("ema f", dim=12, causal=True, bidirectional=True)
    with pytest.raises(PatternError, match=r"options go in parentheses right after the block: ema\(bidirectional\)"):
        blockdsl.parse("bi(ema)")
    with pytest.raises(PatternError, match=r"'f' \(feedforward\) has no option 'bidirectional'"):
        blockdsl.parse("f(bidirectional)")
    g = blockdsl.compile("ema(bidirectional) f", dim=12)
    assert g.why_not_cached() == "ema0 (running sum) is bidirectional"
    assert g.why_not_segmented() == "ema0 (running sum) keeps nothing of earlier segments"
    assert g.kv_cache_bytes(9) == 0
    stack = xt_blocks.lower(g)
    with pytest.raises(ValueError, match=r"no cache can be kept: ema0 \(running sum\) is bidirectional"):
        stack.new_cache(1, 4)  # type: ignore[operator,union-attr]
    net = xt_blocks.TransformerWrapper(num_tokens=9, max_seq_len=8, attn_layers=stack)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"sees later tokens: ema0 \(running sum\) is bidirectional"):
        xt_blocks.AutoregressiveWrapper(net)
    g.nx.graph["causal"] = True
    with pytest.raises(GraphError, match=r"ema0: running sum is bidirectional, and g.nx.graph\['causal'\] is true"):
        g.lint()
    with pytest.raises(UserError):
        xt_blocks.Decoder(12, pattern="ema", bidirectional=True)


def test_in_models_of_images_and_of_text() -> None:
    stack = xt_blocks.Encoder(pattern="(ema f)*2", bidirectional=True, **SIZES)
    vision = xt_blocks.ViTransformerWrapper(
        image_size=8, patch_size=4, num_classes=3, class_token=True, attn_layers=stack
    )
    assert vision(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    assert vision.graph.parameters() == sum(p.numel() for p in vision.parameters())
    text = xt_blocks.TransformerWrapper(num_tokens=9, max_seq_len=8, pool="mean", attn_layers=stack).eval()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    mask = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(text(tokens, mask=mask), text(tokens[:, :3]), rtol=1e-5, atol=1e-5)
