"""Several documents in a row: the values, gradients and loss of each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import Kind
from xt_blocks import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper
from xt_blocks.kernels.documents import Documents

from ..built_in import HYBRID, small
from ..properties.models import stirred

LENGTHS = ((5, 3, 4), (1, 7, 4))
SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8}


def ids_of(lengths: tuple[tuple[int, ...], ...]) -> Tensor:
    """(batch, seq), with a number that comes again."""
    return torch.stack([torch.repeat_interleave(torch.arange(len(own)) % 2, torch.tensor(own)) for own in lengths])


STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "rotary, shift, learned keys": ("(a>>2 f>>1)*2", {"rotary_pos_emb": True, "attn_num_mem_kv": 2}),
    "biases, a window": (
        "a f a(max_attend_past=2) e(experts=3, inner=8)",
        {"rel_pos_bias": True, "alibi_pos_bias": True},
    ),
    "both ways": (
        "(a>>1 f)*2 a(max_attend_future=2)",
        {"causal": False, "rotary_pos_emb": True, "dynamic_pos_bias": True},
    ),
    "every kind": (" ".join(f"{small(kind)}>>1" for kind in HYBRID), {}),
    "every kind, tied, in branches": (
        f"({' & '.join(small(kind) for kind in HYBRID)} & a)@x*2",
        {"rotary_pos_emb": True},
    ),
    "states both ways": (
        "m(state=4, dim_head=8) a conv",
        {"causal": False, "bidirectional": True, "gate_residual": True},
    ),
    "wires": (
        "^u a ^k f a(kv=k) <u(pop, cat) ^mid f c(context=mid)",
        {"rotary_pos_emb": True, "num_residual_streams": 2},
    ),
    "recomputed, added scores": ("a f a m(state=4, dim_head=8)", {"checkpoint": "stage", "residual_attn": True}),
}


@pytest.mark.parametrize("name", STACKS)
def test_each_document_is_as_if_alone(name: str) -> None:
    pattern, settings = STACKS[name]
    torch.manual_seed(0)
    stack = stirred(xt_blocks.lower(blockdsl.compile(pattern, **SIZES, **({"causal": True} | settings)))).double()
    x = torch.randn(2, 12, 16, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 12) > 0.2
    for real in (None, mask):
        out = stack(x, mask=real, doc_ids=ids_of(LENGTHS))
        rows = []
        for row, lengths in enumerate(LENGTHS):
            seen = (None,) * len(lengths) if real is None else real[row : row + 1].split(lengths, dim=1)
            texts = x[row : row + 1].split(lengths, dim=1)
            rows.append(torch.cat([stack(t, mask=m) for t, m in zip(texts, seen, strict=True)], dim=1))
        weights = torch.randn(out.shape, dtype=torch.float64) * (1 if real is None else real[..., None])
        read = [x, *stack.parameters()]
        found, wanted = (
            torch.autograd.grad((y * weights).sum(), read, allow_unused=True) for y in (out, torch.cat(rows))
        )
        torch.testing.assert_close(out * weights.ne(0), torch.cat(rows) * weights.ne(0), rtol=1e-6, atol=1e-6)
        for own, alone in zip(found, wanted, strict=True):
            if own is not None or alone is not None:
                torch.testing.assert_close(own, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True}, {"rel_pos_bias": True}])
def test_no_target_is_across_an_edge(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    stack = Decoder(dim=16, depth=2, heads=2, **settings)
    model = AutoregressiveWrapper(TransformerWrapper(num_tokens=9, max_seq_len=7, attn_layers=stack)).double()
    tokens, mask = torch.randint(0, 9, (2, 12)), torch.arange(12) < torch.tensor([[12], [10]])
    losses, counts = [], []
    for row, lengths in enumerate(LENGTHS):
        for text, real in zip(tokens[row].split(lengths), mask[row].split(lengths), strict=True):
            if real.sum() > 1:
                losses.append(model(text[None, real]))
                counts.append(int(real.sum()) - 1)
    expected = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(model(tokens, mask=mask, doc_ids=ids_of(LENGTHS)), expected)
    if not settings:  # learned positions
        with pytest.raises(ValueError, match="a document has 11 tokens; max_seq_len is 7"):
            model(tokens, doc_ids=torch.zeros_like(tokens))


def test_the_other_spelling_and_positions_of_ones_own() -> None:
    torch.manual_seed(0)
    net = TransformerWrapper(num_tokens=9, max_seq_len=12, attn_layers=Decoder(dim=16, depth=2, heads=2)).eval()
    tokens, ids = torch.randint(0, 9, (2, 12)), ids_of(LENGTHS)
    ends = torch.tensor([0, 5, 8, 12, 13, 20, 24])
    out = net(tokens, doc_ids=ids)
    assert torch.equal(out, net(tokens, cu_seqlens=ends))
    assert torch.equal(
        net.attn_layers(out[..., :1] * torch.ones(16), cu_seqlens=ends).isnan().any(), torch.tensor(False)
    )
    places = torch.cat([torch.arange(n) for lengths in LENGTHS for n in lengths]).reshape(2, 12)
    torch.testing.assert_close(out, net(tokens, doc_ids=ids, pos=places))
    torch.testing.assert_close(net(tokens, doc_ids=ids[0]), net(tokens, doc_ids=ids[:1].expand(2, -1)))
    losses = [AutoregressiveWrapper(net)(tokens, **given) for given in ({"doc_ids": ids}, {"cu_seqlens": ends})]
    assert losses[0] == losses[1]
    compiled = torch.compile(net.attn_layers, backend="eager", fullgraph=True)
    x = torch.randn(2, 12, 16)
    torch.testing.assert_close(compiled(x, doc_ids=ids), net.attn_layers(x, doc_ids=ids))


def test_long_rows_are_read_by_tiles() -> None:
    torch.manual_seed(0)
    stack = Decoder(dim=16, heads=2, pattern="a a(max_attend_past=90)", rotary_pos_emb=True, alibi_pos_bias=True).eval()
    x, ids = torch.randn(1, 300, 16), (torch.arange(300) // 110)[None]
    told = xt_blocks.why(stack, x, doc_ids=ids)
    assert told.count("tiles is taken") == 2
    alone = torch.cat([stack(text) for text in x.split(110, dim=1)], dim=1)
    torch.testing.assert_close(stack(x, doc_ids=ids), alone, rtol=1e-4, atol=1e-4)


def test_places_of_documents() -> None:
    documents = Documents.of(torch.tensor([[3, 3, 3, 5, 5, 3]]))
    assert documents.starts.tolist() == [[0, 0, 0, 3, 3, 5]]
    assert documents.ends.tolist() == [[3, 3, 3, 5, 5, 6]]
    assert documents.positions(None).tolist() == [[0, 1, 2, 0, 1, 0]]
    mask = torch.tensor([[False, True, False, False, False, True]])
    assert documents.positions(mask)[mask].tolist() == [0, 0]
    assert documents.positions(mask)[0, 2] == 1
    assert documents.same(1).tolist() == [[False, True, True, False, True, False]]
    x = torch.arange(6.0).reshape(1, 6, 1)
    assert documents.apart(x)[..., 0].tolist() == [[0, 1, 2], [3, 4, 0], [5, 0, 0]]
    assert torch.equal(documents.joined(documents.apart(x)), x)
    assert Documents.of(torch.zeros(2, 0, dtype=torch.int64)).longest() == 0


def test_what_cannot_be_packed_says_so() -> None:
    ids = ids_of(LENGTHS)
    x = torch.randn(2, 12, 16)

    def fails(message: str, stack: Any, *args: Any, **given: Any) -> None:
        with pytest.raises(ValueError, match=message):
            stack(*args, **({"doc_ids": ids} | given))

    plain = Decoder(dim=16, depth=1, heads=2)
    fails("documents are for passes without a cache or mems", plain, x, cache=plain.new_cache(2, 20))
    fails("doc_ids and cu_seqlens say the same", plain, x, cu_seqlens=torch.tensor([0, 24]))
    fails("cu_seqlens must go up from 0 to 24", plain, x, doc_ids=None, cu_seqlens=torch.tensor([0, 23]))
    fails(r"doc_ids must be whole numbers \(2, 12\), not \(2, 11\)", plain, x, doc_ids=ids[:, 1:])
    fails("doc_ids must be whole numbers", plain, x, doc_ids=ids.float())
    stretched = Decoder(
        dim=16, depth=1, heads=2, rotary_pos_emb=True, rotary_scaling="dynamic", rotary_factor=2, rotary_original_len=8
    )
    fails("its frequencies change with the length of the text", stretched, x)
    tokens = torch.randint(0, 9, (2, 12))
    for around, message in (
        ({"num_memory_tokens": 2}, "the model's memory tokens are before a whole row"),
        ({"pool": "mean"}, "the model's pool=mean is of a whole row"),
    ):
        net = TransformerWrapper(num_tokens=9, max_seq_len=12, attn_layers=Encoder(dim=16, depth=1, heads=2), **around)
        fails(message, net, tokens)
    net = TransformerWrapper(num_tokens=9, max_seq_len=12, attn_layers=plain)
    fails("prepend_embeds are before a whole row", net, tokens, prepend_embeds=torch.randn(2, 1, 16))
    blockdsl.register(
        Kind("mean", "mean so far", (), lambda o: {}, lambda o, sizes: 0, module=lambda dim: torch.nn.Identity())
    )
    try:
        fails("mean0 .mean so far. is not told where each document begins", Decoder(dim=16, pattern="mean"), x)
    finally:
        blockdsl.unregister("mean")
