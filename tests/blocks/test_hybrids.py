"""Models of all kinds of block at once, each with a state of its own: in segments, in beams, past max_seq_len."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

import xt_blocks
from blockdsl import kinds

from ..built_in import HYBRID, small
from ..properties.models import stirred

SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8, "rotary_pos_emb": True}
BLOCKS = [small(kind) for kind in HYBRID]
EACH = " ".join(BLOCKS)
STATEFUL = [kind for kind in HYBRID if "cache" in kinds()[kind].inputs]
PATTERNS = {
    "windows": f"{EACH} | a(max_attend_past=3)/2 | {' '.join(f'{block}>>1' for block in BLOCKS)} f",
    "ties and branches": f"({EACH})@x | ({' & '.join(BLOCKS)} & a) | ({EACH})@x",
}


def model_of(name: str, **around: Any) -> xt_blocks.TransformerWrapper:
    torch.manual_seed(0)
    stack = xt_blocks.Decoder(pattern=PATTERNS.get(name, name), **SIZES)
    given = {"num_tokens": 11, "max_seq_len": 5, "use_abs_pos_emb": False, "max_mem_len": 99, **around}
    return stirred(xt_blocks.TransformerWrapper(attn_layers=stack, **given)).double().eval()


def tokens(batch: int, seq: int) -> Tensor:
    return torch.randint(0, 11, (batch, seq))


def close(out: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(out, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PATTERNS)
def test_segments_carry_every_state(name: str) -> None:
    model = model_of(name)
    whole = copy.deepcopy(model)
    whole.max_seq_len = 99
    ours, theirs = xt_blocks.XLAutoregressiveWrapper(model), xt_blocks.AutoregressiveWrapper(whole)
    text = tokens(2, 15)
    mask = torch.arange(15) >= torch.tensor([[0], [4]])
    with torch.no_grad():
        close(ours(text, mask=mask), theirs(text, mask=mask))
        loss, mems = ours(text[:, :8], return_mems=True)
        close(7 * loss + 7 * ours(text[:, 7:], mems=mems), 14 * theirs(text))
    prompts = [tokens(1, n)[0] for n in (7, 2)]
    out = ours.generate(prompts, 8, temperature=0.0)
    assert torch.equal(out, ours.generate(prompts, 8, temperature=0.0, cache_kv=False))
    assert torch.equal(out, theirs.generate(prompts, 8, temperature=0.0))


@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_beams_take_their_states_along(name: str) -> None:
    """Rows are chosen anew before each step, as a beam search does, of growing and of fixed shapes."""
    model, text = model_of(name), tokens(3, 6)
    mask = torch.arange(6) >= torch.tensor([[0], [2], [4]])
    for fixed in (False, True):
        cache, rows, mine = model.new_cache(3, 12), text, mask
        model(rows, mask=mine, cache=cache)
        for step in range(4):
            chosen = torch.tensor([2, 0, 0] if step % 2 else [1, 2, 1])
            cache, rows, mine = cache.select(chosen), rows[chosen], mine[chosen]
            if fixed:
                cache.fix_shapes()
            token = tokens(3, 1)
            rows, mine = torch.cat((rows, token), dim=1), torch.cat((mine, torch.ones(3, 1, dtype=torch.bool)), dim=1)
            close(model(token, cache=cache), model(rows, mask=mine)[:, -1:])


@pytest.mark.parametrize("kind", STATEFUL)
@pytest.mark.parametrize("value", [math.nan, math.inf, 3.0])
def test_nothing_in_padding_reaches_a_real_token(kind: str, value: float) -> None:
    """Not as NaN times zero either: outputs, states, and gradients are those of zeros."""
    stack = xt_blocks.Decoder(dim=16, pattern=small(kind))
    (layer,) = (block.layer for block in stack.blocks.values())
    x, mask = torch.randn(3, 9, 16), torch.ones(3, 9, dtype=torch.bool)
    mask[0, :4], mask[1, 5:], mask[2, 2:7:2] = False, False, False
    found = []
    for filled in (x.masked_fill(~mask[..., None], fill) for fill in (0.0, value)):
        leaf, direction = filled.requires_grad_(), torch.ones_like(x)
        out = layer(leaf, mask=mask)
        gradients = torch.autograd.grad(
            out, [leaf, *layer.parameters()], direction.masked_fill(~mask[..., None], value)
        )
        cache = stack.new_cache(3, 9)
        with torch.no_grad():
            pieces = [stack(filled[:, own], mask=mask[:, own], cache=cache) for own in (slice(0, 6), slice(6, 9))]
        states = [*cache.nodes[f"{kind}0"].after().values()]
        found.append([out, *gradients, torch.cat(pieces, 1)[mask], *states])
    assert all(t.isfinite().all() for t in found[0])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_no_rows_at_all() -> None:
    model = model_of(f"{EACH} a", max_seq_len=19).train()
    out = model(tokens(0, 19))
    assert out.shape == (0, 19, 11)
    out.sum().backward()


@torch.no_grad()
def test_past_max_seq_len_the_states_go_on() -> None:
    model = model_of("windows")
    prompts = [tokens(1, n)[0] for n in (13, 3)]
    out = xt_blocks.AutoregressiveWrapper(model).generate(prompts, 80, temperature=0.0)
    for row, prompt in zip(out, prompts, strict=True):
        logits = model(torch.cat((prompt, row[:-1]))[None])[0, len(prompt) - 1 :]
        assert torch.equal(logits.argmax(dim=-1), row)


@torch.no_grad()
def test_a_step_of_fixed_shapes_compiles_whole_and_once() -> None:
    model = model_of(f"{EACH} a").float()
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    step = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    text = tokens(2, 9)
    for prompt in (4, 6):
        cache = model.new_cache(2, 12)
        out = [model(text[:, :prompt], cache=cache)]
        cache.fix_shapes()
        out += [step(token, cache=cache) for token in text[:, prompt:].split(1, dim=1)]
        torch.testing.assert_close(torch.cat(out, dim=1), model(text), rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1
