"""Values that tables of token embeddings are mixed into, in every way to run a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import blockdsl
import xt_blocks
from xt_blocks import AutoregressiveWrapper, TransformerWrapper, XLAutoregressiveWrapper

from .lines import SIZES
from .plain import Plain

TEXT = "a(value_embed=0) f a(value_embed=3, value_mix=gains) f a a(value_embed=0, value_mix=learned)"
TOKENS, SEQ = 11, 9


def built(text: str = TEXT, **settings: Any) -> TransformerWrapper:
    torch.manual_seed(0)
    given = {"num_tokens": TOKENS, "max_seq_len": 32, **SIZES, **settings}
    model = xt_blocks.lower(blockdsl.compile(text, **given))
    assert isinstance(model, TransformerWrapper)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.double().eval()


def tokens(seq: int = SEQ) -> torch.Tensor:
    return torch.randint(TOKENS, (2, seq))


def test_values_and_gradients_are_those_of_plain_torch() -> None:
    model, ids = built(use_abs_pos_emb=False), tokens()
    tables = {number: dict(model.named_parameters())[f"value_emb.{number}.weight"] for number in (0, 3)}
    m = Plain(model.attn_layers, heads=2)
    x = model.token_emb.weight[ids]
    x = m.f("f1", m.a("a0", x, values=tables[0][ids]))
    x = m.f("f3", m.a("a2", x, values=tables[3][ids]))
    x = m.a("a5", m.a("a4", x), values=tables[0][ids])
    assert model.to_logits is not None
    expected = model.to_logits(m.out(x))
    out = model(ids)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    weights = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((weights * each).sum(), [*model.parameters()]) for each in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_a_table_is_counted_once_for_the_blocks_that_share_it() -> None:
    model = built()
    graph, plain = model.graph, blockdsl.compile("a f a f a a", num_tokens=TOKENS, max_seq_len=32, **SIZES)
    assert graph.value_embeds == {0: 16, 3: 16}
    mixes = 2 + 2 * 16 + 2  # two gains, and a share for each of two heads
    assert graph.parameters() == sum(p.numel() for p in model.parameters()) == plain.parameters() + 2 * 11 * 16 + mixes
    assert graph.flops(SEQ) == plain.flops(SEQ) + 2 * SEQ * 16 * 2
    assert graph.kv_cache_bytes(SEQ) == plain.kv_cache_bytes(SEQ)
    assert blockdsl.BlockGraph.from_json(graph.to_json()) == graph
    assert blockdsl.compile(graph.to_pattern()).digest() == graph.digest()
    other = blockdsl.compile(TEXT.replace("3", "0"), num_tokens=TOKENS, max_seq_len=32, **SIZES)
    assert other.digest() != graph.digest()
    assert "value_embed" in str(graph.diff(other))
    alike = blockdsl.compile("(a(value_embed=(0, 1)) f)*4", **SIZES)
    assert alike.value_embeds == {0: 16, 1: 16}


@pytest.mark.parametrize("further", [{}, {"num_memory_tokens": 2}, {"rotary_pos_emb": True, "attn_kv_heads": 1}])
def test_steps_and_segments_are_whole_passes(further: dict[str, Any]) -> None:
    model, ids = built(**further), tokens()
    mask = torch.arange(SEQ) >= torch.tensor([[0], [3]])
    prepended = torch.randn(2, 2, 16, dtype=torch.float64)
    with torch.no_grad():
        whole = model(ids, mask=mask, prepend_embeds=prepended)
        for row, first in enumerate((0, 3)):
            alone = model(ids[row : row + 1, first:], prepend_embeds=prepended[row : row + 1])
            torch.testing.assert_close(whole[row, 2 + first :], alone[0, 2:])
        cache = model.new_cache(2, SEQ, prepended=2)
        out = [model(ids[:, :5], mask=mask[:, :5], prepend_embeds=prepended, cache=cache)]
        out += [model(ids[:, 5:7], cache=cache)]
        cache.fix_shapes()
        out += [model(ids[:, t : t + 1], cache=cache) for t in (7, 8)]
        torch.testing.assert_close(torch.cat(out, dim=1)[:, 5:], whole[:, 5:], rtol=1e-6, atol=1e-6)
        first, seen = model(ids[:, :5], return_intermediates=True)
        last = model(ids, cache=seen)
        torch.testing.assert_close(torch.cat((first, last), dim=1), model(ids))
    trainer = AutoregressiveWrapper(model)
    made = trainer.generate(ids[:, :4], 6, temperature=0.0, cache_kv=False)
    assert torch.equal(trainer.generate(ids[:, :4], 6, temperature=0.0), made)
    beam = trainer.beam_search(ids[:, :4], 3, beams=3)
    xt_blocks.pack(model)
    assert torch.equal(trainer.generate(ids[:, :4], 6, temperature=0.0), made)
    assert torch.equal(trainer.beam_search(ids[:, :4], 3, beams=3), beam)


def test_segments_keep_the_embeddings_of_their_tokens() -> None:
    further = {"max_mem_len": 32, "num_memory_tokens": 2, "rotary_pos_emb": True}
    model, ids = built(**further), tokens()
    with torch.no_grad():
        whole, mems, out = model(ids), None, []
        for part in ids.split((4, 2, 3), dim=1):
            logits, mems = model(part, mems=mems, return_mems=True)
            out.append(logits)
    torch.testing.assert_close(torch.cat(out, dim=1), whole, rtol=1e-6, atol=1e-6)
    assert mems is not None
    assert {number: kept.shape for number, kept in mems.value_embeds.items()} == {0: (2, 11, 16), 3: (2, 11, 16)}
    assert torch.equal(mems.select(torch.tensor([1])).value_embeds[3], mems.value_embeds[3][1:])
    short = built(**further | {"max_mem_len": 3})
    trainer = XLAutoregressiveWrapper(short)
    torch.autograd.backward(trainer(tokens(13)))
    assert all(p.grad is not None for p in short.value_emb.parameters())
    assert trainer.generate(ids[:, :4], 8, temperature=0.0).shape == (2, 8)


@pytest.mark.parametrize("checkpoint", ["block", "stage"])
def test_recomputed_compiled_and_exported(checkpoint: str) -> None:
    ids = tokens()
    plain, recomputed = built().train(), built(checkpoint=checkpoint).train()
    both = [torch.autograd.grad(model(ids).square().sum(), [*model.parameters()]) for model in (plain, recomputed)]
    torch.testing.assert_close(*both)
    torch._dynamo.reset()
    compiled = torch.compile(plain.eval(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), plain(ids))
    exported = torch.export.export(plain, (ids,), dynamic_shapes=({1: torch.export.Dim("seq", min=2, max=32)},))
    torch.testing.assert_close(exported.module()(ids[:, :7]), plain(ids[:, :7]))
    documents = torch.tensor([0] * 4 + [1] * 5)
    rotary = built(rotary_pos_emb=True)
    apart = torch.cat([rotary(part) for part in ids.split((4, 5), dim=1)], dim=1)
    torch.testing.assert_close(rotary(ids, doc_ids=documents), apart)


def test_a_stack_alone_is_given_them() -> None:
    stack = xt_blocks.lower(blockdsl.compile("a(value_embed=2) f", **SIZES))
    x, vectors = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    assert not torch.equal(stack(x, value_embeds={2: vectors}), stack(x, value_embeds={2: -vectors}))
    out, seen = stack(x[:, :3], value_embeds={2: vectors[:, :3]}, return_hiddens=True)
    last = stack(x, value_embeds={2: vectors}, cache=seen)
    torch.testing.assert_close(torch.cat((out, last), dim=1), stack(x, value_embeds={2: vectors}))
    for given, problem in (
        (None, r"give value_embeds= of the shapes \{2: \(2, 5, 16\)\}"),
        ({1: vectors}, "give value_embeds= of the shapes"),
        ({2: vectors[..., :8]}, r"value_embeds\[2\] must be floating point \(2, 5, 16\), not"),
        ({2: vectors.long()}, "not torch.int64"),
    ):
        with pytest.raises(ValueError, match=problem):
            stack(x, value_embeds=given)
    with pytest.raises(ValueError, match="value_embeds are given, but no block reads any"):
        xt_blocks.lower(blockdsl.compile("a f", **SIZES))(x, value_embeds={0: vectors})
    with pytest.raises(ValueError, match="value_embed= is for the option of this name, value_embed=None"):
        xt_blocks.Attention(16)(x, value_embed=vectors)
    with pytest.raises(ValueError, match="a list of mems has no value embeddings"):
        stack(x, mems=[x], value_embeds={2: vectors})


def test_an_edited_graph_that_does_not_fit_is_said() -> None:
    graph = blockdsl.compile("a(value_embed=0) f a(value_embed=0)", **SIZES)
    graph.block("a2")["options"]["kv_heads"] = 1
    with pytest.raises(blockdsl.GraphError, match="a2: value_embed=0 has 8 features here, and 16 before"):
        graph.lint()
    graph = blockdsl.compile("a f", dim_in=4, max_seq_len=9, **SIZES)
    graph.block("a0")["options"]["value_embed"] = 0
    with pytest.raises(blockdsl.GraphError, match=r"a0: reads embeddings of tokens \(value_embed\)"):
        graph.lint()
