"""Learned positions that start further down their table."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import blockdsl
import xt_blocks
from blockdsl import GraphError, UserError

SIZES: dict[str, Any] = {"dim": 12, "heads": 2, "attn_dim_head": 4, "num_tokens": 9, "max_seq_len": 7, "causal": True}


def model(**settings: Any) -> Any:
    torch.manual_seed(0)
    return xt_blocks.lower(blockdsl.compile("(a f)*2", **(SIZES | settings))).double().eval()


def test_the_first_real_token_has_the_row_of_the_offset() -> None:
    """As RoBERTa and OPT, which count real tokens."""
    net = model(pos_offset=2)
    assert net.pos_emb.embedding.weight.shape == (9, 12)
    assert net.graph.parameters() == sum(p.numel() for p in net.parameters())
    plain = model()
    state = net.state_dict()
    state["pos_emb.embedding.weight"] = state["pos_emb.embedding.weight"][2:]
    plain.load_state_dict(state)
    tokens = torch.randint(0, 9, (2, 7))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, :3] = False
    assert torch.equal(net(tokens), plain(tokens))
    assert torch.equal(net(tokens, mask=mask), plain(tokens, mask=mask))
    torch.testing.assert_close(net(tokens, mask=mask)[0, 3:], net(tokens[:1, 3:])[0])
    by_hand = net.token_emb(tokens[:1]) + net.pos_emb.embedding.weight[2:9]
    stream = net.attn_layers(by_hand)
    torch.testing.assert_close(net.to_logits(stream), net(tokens[:1]))


def test_cached_steps_go_on_from_it() -> None:
    net = model(pos_offset=3)
    tokens = torch.randint(0, 9, (2, 7))
    cache = net.new_cache(2)
    steps = [net(tokens[:, i : i + 1], cache=cache) for i in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), net(tokens))


@pytest.mark.parametrize(
    "settings",
    [{"rotary_pos_emb": True}, {"use_abs_pos_emb": False}, {"scaled_sinu_pos_emb": True}, {"max_seq_len": 0}],
)
def test_without_learned_positions_it_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="pos_offset is set, but the model has no learned positions"):
        model(pos_offset=2, **settings)


def test_a_graph_that_lost_its_positions_is_refused() -> None:
    graph = blockdsl.compile("a f", **SIZES, pos_offset=2)
    assert "positions from 2 on" in graph.to_text()
    graph.nx.remove_node("absolute")
    with pytest.raises(GraphError, match="input: has pos_offset, but reads no learned positions"):
        graph.lint()
