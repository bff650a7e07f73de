"""The model around a stack: every option of the embedding, alone and in pairs, against hand-made references."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

import blockdsl
import xt_blocks
from blockdsl import BlockGraph, UserError
from blockdsl.registry.tokens import TOKEN_OPTIONS
from xt_blocks import AutoregressiveWrapper, Decoder, Encoder, Stack, TransformerWrapper
from xt_blocks.models.inputs import Inputs
from xt_blocks.models.prefix import Prefix

SIZES: dict[str, Any] = {"dim": 24, "heads": 2, "attn_dim_head": 8}
TOKENS = {"num_tokens": 17, "max_seq_len": 12}

OPTIONS: dict[str, dict[str, Any]] = {
    "emb_dim": {"emb_dim": 20},
    "emb_dim of the stack": {"emb_dim": 24},
    "no positions": {"use_abs_pos_emb": False},
    "sinusoids": {"scaled_sinu_pos_emb": True},
    "scaled": {"embed_scale": 4.5},
    "types": {"num_token_types": 3},
    "offset": {"pos_offset": 2},
    "unit": {"l2norm_embed": True},
    "norm": {"post_emb_norm": True},
    "part of the gradient": {"emb_frac_gradient": 0.3},
    "dropout": {"emb_dropout": 0.25},
    "memory tokens": {"num_memory_tokens": 3},
    "memories": {"max_mem_len": 4},
    "memories down": {"max_mem_len": 4, "shift_mem_down": 1},
    "tied": {"tie_embedding": True},
    "logits": {"logits_dim": 5},
    "logits scaled": {"logits_scale": 0.3},
    "logits as they come": {"logits_scale": 1.0, "logits_bias": False},
    "logits with a bias": {"logits_bias": True},
    "logits bounded": {"logits_softcap": 0.7},
    "logits transformed": {"logits_transform": "gelu"},
    "logits transformed without bias": {"logits_transform": "tanh", "logits_transform_bias": False},
    "no logits": {"return_only_embed": True},
}
PAIRED = [  # with every other; the rest are tried alone and with some of these
    *("emb_dim", "sinusoids", "unit", "norm", "memory tokens", "tied"),
]
CLASHES = [
    ("emb_dim", "tied", "tie_embedding", "the embedding has emb_dim=20 features and the stack dim=24"),
    ("logits", "tied", "tie_embedding", "it gives a logit for each token, and logits_dim is set too"),
    ("no logits", "tied", "tie_embedding", "return_only_embed leaves the logits out"),
    ("logits", "no logits", "logits_dim", "return_only_embed leaves the logits out"),
    *(
        (of_logits, "no logits", name, "return_only_embed leaves the logits out")
        for of_logits, name in (
            ("logits scaled", "logits_scale"),
            ("logits as they come", "logits_scale"),
            ("logits with a bias", "logits_bias"),
            ("logits bounded", "logits_softcap"),
            ("logits transformed", "logits_transform"),
        )
    ),
    ("no positions", "sinusoids", "scaled_sinu_pos_emb", "use_abs_pos_emb=false turns absolute positions off"),
]
_CLASHING = {frozenset(row[:2]) for row in CLASHES} | {
    frozenset(("emb_dim", "emb_dim of the stack")),
    frozenset(("logits transformed without bias", "no logits")),
    *(frozenset(("offset", other)) for other in ("sinusoids", "no positions")),
    frozenset(("logits transformed without bias", "logits transformed")),
}
CASES = [{}, *OPTIONS.values()] + [
    OPTIONS[one] | OPTIONS[other]
    for one, other in combinations(OPTIONS, 2)
    if {one, other} not in _CLASHING and {one, other} & {*PAIRED}
]
CASES += [{"emb_dim": 20, "tie_embedding": True, "logits_transform": "silu", "logits_bias": True}]
POOLED: list[dict[str, Any]] = [
    {"pool": "mean"},
    {"pool": "first", "pooler": True, "tie_embedding": True},
    {"pool": "last", "pooler": True, "logits_dim": 3, "logits_transform": "gelu", "num_memory_tokens": 2},
    {"pool": "mean", "return_only_embed": True, "emb_dim": 20},
    {"pool": "end", "logits_dim": 5, "logits_bias": False},
    {"pool": "end", "end_token": 3, "return_only_embed": True, "pooler": True},
    {"pool": "attention", "num_pooled_tokens": 2, "pool_heads": 3, "pool_activation": "relu", "pool_inner": 10},
    {"pool": "attention", "pool_heads": 2, "pool_dim_head": 5, "pool_bias": False, "pooler": True},
    {"pool": "last", "logits_dim": 1, "squeeze_out_last_dim": True},
]
STACKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary, shift": {"rotary_pos_emb": True, "shift_tokens": 1},
    "window, shift 2": {"attn_max_attend_past": 2, "shift_tokens": 2},
    "t5": {"rel_pos_bias": True},
    "alibi, learned keys": {"alibi_pos_bias": True, "attn_num_mem_kv": 2},
}


def spelled(options: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items()) or "none"


def stack(causal: bool = True, **settings: Any) -> Stack:
    return (Decoder if causal else Encoder)(depth=2, **(SIZES | settings))


def model(causal: bool = True, around: dict[str, Any] | None = None, **options: Any) -> TransformerWrapper:
    built = TransformerWrapper(**TOKENS, attn_layers=stack(causal, **(around or {})), **options).eval()
    with torch.no_grad():  # biases and gains are not what they would be at first
        for parameter in built.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 17, shape)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# Two spellings, one model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [*CASES, *POOLED, {"pooler": True}], ids=spelled)
def test_keywords_and_the_graph_they_stand_for_are_one_model(options: dict[str, Any]) -> None:
    g = blockdsl.compile("(a f)*2", causal=True, **SIZES, **TOKENS, **options)
    torch.manual_seed(1)
    lowered = xt_blocks.lower(g).eval()
    torch.manual_seed(1)
    built = TransformerWrapper(attn_layers=stack(), **TOKENS, **options).eval()
    assert isinstance(lowered, TransformerWrapper)
    assert built.graph == lowered.graph == g == BlockGraph.from_json(g.to_json())
    assert sum(p.numel() for p in built.parameters()) == g.parameters()
    ours, theirs = built.state_dict(), lowered.state_dict()
    assert [*ours] == [*theirs]
    x = tokens(2, 7)
    assert torch.equal(built(x), lowered(x))
    assert built.emb_dropout.p == lowered.emb_dropout.p == options.get("emb_dropout", 0)
    assert built.emb_frac_gradient == lowered.emb_frac_gradient == options.get("emb_frac_gradient", 1)
    assert (built.max_mem_len, built.shift_mem_down) == (
        options.get("max_mem_len", 0),
        options.get("shift_mem_down", 0),
    )
    assert built.emb_dim == options.get("emb_dim", 24)
    assert built.graph.stack_alone() == stack().graph


def test_every_option_is_tried() -> None:
    tried = {name for options in OPTIONS.values() for name in options}
    tried |= {name for options in POOLED for name in options}
    assert tried | {"num_tokens", "max_seq_len", "num_cls_tokens"} == {option.name for option in TOKEN_OPTIONS}


def test_set_says_what_keywords_say() -> None:
    text = "set num_tokens=256, max_seq_len=64, post_emb_norm, num_memory_tokens=2, emb_frac_gradient=0.1; (a f)*2"
    lowered = xt_blocks.lower(blockdsl.compile(text, causal=True, **SIZES))
    built = TransformerWrapper(
        num_tokens=256,
        max_seq_len=64,
        attn_layers=stack(),
        post_emb_norm=True,
        num_memory_tokens=2,
        emb_frac_gradient=0.1,
    )
    assert isinstance(lowered, TransformerWrapper)
    assert {n: p.shape for n, p in built.named_parameters()} == {n: p.shape for n, p in lowered.named_parameters()}
    assert built.graph.nx.nodes == lowered.graph.nx.nodes


@pytest.mark.parametrize(("one", "other", "name", "reason"), CLASHES)
def test_what_does_not_go_together_is_refused(one: str, other: str, name: str, reason: str) -> None:
    options = OPTIONS[one] | OPTIONS[other]
    with pytest.raises(UserError, match=f"^{name} is set, but {reason}$"):
        TransformerWrapper(attn_layers=stack(), **TOKENS, **options)
    with pytest.raises(UserError, match=f"^{name} is set, but {reason}$"):
        blockdsl.compile("a", **SIZES, **TOKENS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaled_sinu_pos_emb": True, "emb_dim": 5}, "the embedding's 5 features do not pair up as sines and cosines"),
        ({"shift_mem_down": 1}, "shift_mem_down is set, but it needs max_mem_len"),
        ({"emb_frac_gradient": 0}, "emb_frac_gradient must be a number above 0 and at most 1, not 0"),
        ({"emb_frac_gradient": 1.5}, "emb_frac_gradient must be a number above 0 and at most 1, not 1.5"),
        ({"num_memory_tokens": -1}, "num_memory_tokens must be a whole number of at least 0, not -1"),
        ({"emb_dim": 0}, "emb_dim must be a whole number of at least 1 or none, not 0"),
        ({"logits_softcap": 0}, "logits_softcap must be a number above 0 or none, not 0"),
        ({"logits_transform": "gleu"}, "logits_transform must be one of 'gelu', .* or none, not gleu"),
        ({"logits_transform_bias": False}, "logits_transform_bias is set, but there is no logits_transform"),
        ({"logits_dim": 2.5}, "logits_dim must be a whole number of at least 1 or none, not 2.5"),
    ],
)
def test_wrong_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TransformerWrapper(attn_layers=stack(), **TOKENS, **options)


def test_a_mistyped_option_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"TransformerWrapper\(\) got an unknown argument 'num_memory_token'; did you"):
        TransformerWrapper(attn_layers=stack(), **TOKENS, num_memory_token=2)
    with pytest.raises(TypeError, match=r"with_tokens\(\) got an unknown argument 'l2norm'"):
        stack().graph.with_tokens(5, 5, l2norm=True)
    with pytest.raises(TypeError, match=r"Decoder\(\) got 'num_memory_tokens', which belongs to TransformerWrapper"):
        Decoder(depth=1, **SIZES, num_memory_tokens=2)
    with pytest.raises(UserError, match="num_tokens belongs to the model around the stack"):
        Decoder(pattern="set num_tokens=5, max_seq_len=5; a f", **SIZES)


def test_positions_that_t5_takes_the_place_of_and_alibi_does_not() -> None:
    assert model(around={"rel_pos_bias": True}).pos_emb is None
    assert model(around={"alibi_pos_bias": True, "dynamic_pos_bias": True}).pos_emb is not None
    with pytest.raises(UserError, match="scaled_sinu_pos_emb is set, but a model with T5 bias has no absolute"):
        model(around={"rel_pos_bias": True}, scaled_sinu_pos_emb=True)


def test_positions_that_rotary_ones_take_the_place_of() -> None:
    assert model(around={"rotary_pos_emb": True}).pos_emb is None
    with pytest.raises(
        UserError, match="scaled_sinu_pos_emb is set, but a model with rotary positions has no absolute"
    ):
        model(around={"rotary_pos_emb": True}, scaled_sinu_pos_emb=True)
    with pytest.raises(blockdsl.PatternError, match="1:5: scaled_sinu_pos_emb is set, but a model with rotary"):
        blockdsl.compile("set scaled_sinu_pos_emb, rotary_pos_emb; a", **SIZES, **TOKENS)


def test_a_node_of_ones_own_may_have_a_positions_name() -> None:
    import networkx as nx

    g = blockdsl.compile("a f", causal=True, **SIZES)
    mine = BlockGraph(nx.relabel_nodes(g.nx, {"a0": "absolute", "f1": "absolute0"}))
    with_tokens = mine.with_tokens(**TOKENS)
    assert with_tokens.nodes("position") == ["absolute1"]
    assert with_tokens.stack_alone() == mine
    built = xt_blocks.lower(with_tokens)
    assert isinstance(built, TransformerWrapper)
    assert built.pos_emb is not None
    assert not isinstance(xt_blocks.lower(mine.with_tokens(**TOKENS, use_abs_pos_emb=False)).pos_emb, torch.nn.Module)


# Formulas ----------------------------------------------------------------------------------------------------------


def test_the_order_of_what_is_done_to_the_embedding() -> None:
    net = model(emb_dim=20, post_emb_norm=True, num_memory_tokens=3)
    x, front, more = tokens(2, 5), torch.randn(2, 4, 20), torch.randn(2, 5, 20)
    embedded = net.token_emb.weight[x] + net.pos_emb.embedding.weight[:5] + more
    centred = embedded - embedded.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    normed = normed * net.post_emb_norm.weight + net.post_emb_norm.bias
    projected = torch.cat((front, normed), dim=1) @ net.project_emb.weight.T + net.project_emb.bias
    stream = torch.cat((net.memory_tokens.expand(2, 3, 24), projected), dim=1)
    out = net.attn_layers(stream)[:, 3:]
    logits = out @ net.to_logits.weight.T + net.to_logits.bias
    close(net(x, prepend_embeds=front, sum_embeds=more), logits)
    close(net(x, prepend_embeds=front, sum_embeds=more, return_embeddings=True), out)
    both = net(x, prepend_embeds=front, sum_embeds=more, return_logits_and_embeddings=True)
    close(both[0], logits)
    close(both[1], out)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [None, False, True])
@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
def test_logits_by_hand(tied: bool, bias: bool | None, scale: float | None) -> None:
    net = model(tie_embedding=tied, logits_bias=bias, logits_scale=scale, embed_scale=4.5).double()
    x = tokens(2, 5)
    stream = net.token_emb.weight[x] * 4.5 + net.pos_emb.embedding.weight[:5]
    hidden = net.attn_layers(stream)
    weight = net.token_emb.weight if tied else net.to_logits.weight
    want = torch.einsum("bsd, td -> bst", hidden, weight) * (scale or (24**-0.5 if tied else 1))
    if bias or (bias is None and not tied):
        want = want + (net.logits_bias if tied else net.to_logits.bias)
    torch.testing.assert_close(net(x), want)
    assert ("logits_bias" in net.state_dict()) == (tied and bias is True)
    assert ("to_logits.bias" in net.state_dict()) == (not tied and bias is not False)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_logits_transformed_and_bounded_by_hand(tied: bool, bias: bool) -> None:
    options = {"logits_transform": "gelu", "logits_transform_bias": bias, "logits_softcap": 0.6, "logits_scale": 2.0}
    net = model(around={"norm_eps": 0.25}, tie_embedding=tied, emb_dim=20, logits_bias=True, **options).double()
    x = tokens(2, 5)
    transform, hidden = net.logits_transform, net(x, return_embeddings=True)
    assert transform.project.out_features == (20 if tied else 24)
    inner = hidden @ transform.project.weight.T + (transform.project.bias if bias else 0)
    inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
    centred = inner - inner.mean(-1, keepdim=True)
    inner = (
        centred / (centred.pow(2).mean(-1, keepdim=True) + 0.25).sqrt() * transform.norm.weight + transform.norm.bias
    )
    weight, added = (net.token_emb.weight, net.logits_bias) if tied else (net.to_logits.weight, net.to_logits.bias)
    torch.testing.assert_close(net(x), 0.6 * torch.tanh((2 * inner @ weight.T + added) / 0.6))


def test_types_of_tokens() -> None:
    net, x = model(num_token_types=3, post_emb_norm=True, embed_scale=2.0).double(), tokens(2, 5)
    types = torch.tensor([[0, 0, 1, 1, 2], [2, 0, 0, 1, 0]])
    stream = 2 * net.token_emb.weight[x] + net.pos_emb.embedding.weight[:5] + net.token_type_emb.weight[types]
    close(net(x, token_types=types), net.to_logits(net.attn_layers(net.post_emb_norm(stream))))
    assert torch.equal(net(x), net(x, token_types=torch.zeros_like(x)))
    cache = net.new_cache(2)
    steps = [net(x[:, i : i + 1], token_types=types[:, i : i + 1], cache=cache) for i in range(5)]
    close(torch.cat(steps, dim=1), net(x, token_types=types))
    _, seen = net(x[:, :3], token_types=types[:, :3], return_intermediates=True)
    close(net(x, token_types=types, cache=seen), net(x, token_types=types)[:, 3:])
    loss = torch.nn.functional.cross_entropy(net(x[:, :4], token_types=types[:, :4]).flatten(0, 1), x[:, 1:].flatten())
    torch.testing.assert_close(AutoregressiveWrapper(net)(x, token_types=types[:, :4]), loss)


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (torch.zeros(2, 4), r"token_types must be whole numbers \(2, 4\), not torch.float32"),
        (torch.zeros(2, 3, dtype=torch.long), r"token_types must be whole numbers \(2, 4\), not torch.int64 \(2, 3\)"),
        (torch.full((2, 4), 3), "token_types are from 0 to 2; these go from 3 to 3"),
    ],
)
def test_types_that_do_not_fit(types: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(num_token_types=3)(tokens(2, 4), token_types=types)
    with pytest.raises(ValueError, match="token_types is given, but the model has none: num_token_types is 0"):
        model()(tokens(2, 4), token_types=types)


@pytest.mark.parametrize("how", ["mean", "first", "last"])
@pytest.mark.parametrize("pooler", [False, True])
def test_one_vector_of_a_sequence(how: str, pooler: bool) -> None:
    net = model(False, pool=how, pooler=pooler, num_memory_tokens=2, logits_dim=3).double()
    x, front = tokens(3, 5), torch.randn(3, 2, 24).double()
    mask = torch.tensor([[True] * 5, [False, True, True, False, False], [False, False, True, False, True]])
    for given, real in ((None, torch.ones(3, 5).bool()), (mask, mask)):
        logits, each, vector = (
            net(x, mask=given, prepend_embeds=front, return_logits_and_embeddings=True, return_pooled=True)[0]
            + net(x, mask=given, prepend_embeds=front, return_pooled=True)[1:]
        )
        assert each.shape == (3, 7, 24)
        rows = [row[-5:][kept] for row, kept in zip(each, real, strict=True)]
        wanted = torch.stack([{"mean": row.mean(0), "first": row[0], "last": row[-1]}[how] for row in rows])
        wanted = torch.tanh(wanted @ net.pooler.weight.T + net.pooler.bias) if pooler else wanted
        torch.testing.assert_close(vector, wanted)
        torch.testing.assert_close(logits, wanted @ net.to_logits.weight.T + net.to_logits.bias)
        torch.testing.assert_close(net(x, mask=given, prepend_embeds=front), logits)
        assert torch.equal(net(x, mask=given, prepend_embeds=front, return_embeddings=True), each)
    bare = model(False, pool=how, pooler=pooler, return_only_embed=True)
    assert torch.equal(bare(x), bare(x, return_pooled=True)[1])


@pytest.mark.parametrize("how", ["cls", "attention"])
def test_learned_tokens_and_queries_give_vectors(how: str) -> None:
    """Of a padded row those of the row alone, wherever its padding is."""
    own = {"num_cls_tokens": 2} if how == "cls" else {"num_pooled_tokens": 2, "pool_heads": 3, "pool_inner": 10}
    net = model(False, pool=how, num_memory_tokens=2, logits_dim=1, squeeze_out_last_dim=True, **own).double()
    x, front = tokens(3, 5), torch.randn(3, 2, 24).double()
    mask = torch.tensor([[True] * 5, [False, True, True, True, True], [True, True, False, False, False]])
    logits, vectors = net(x, mask=mask, prepend_embeds=front, return_pooled=True)
    assert vectors.shape == (3, 2, 24)
    torch.testing.assert_close(logits, (vectors @ net.to_logits.weight.T + net.to_logits.bias)[..., 0])
    for row, real in enumerate(mask):
        alone = net(x[row : row + 1, real], prepend_embeds=front[row : row + 1], return_pooled=True)[1]
        torch.testing.assert_close(vectors[row : row + 1], alone)
    each = net(x, mask=mask, prepend_embeds=front, return_embeddings=True)
    assert each.shape == (3, 7, 24)
    if how == "attention":
        pool, hidden = net.attention_pool, each[:1, 2:]
        seen = pool.attention(pool.query[None], context=hidden)
        torch.testing.assert_close(vectors[:1], seen + pool.feedforward(pool.norm(seen)))
    else:  # class tokens are as any token in the stack
        in_front = torch.cat((net.memory_tokens, net.cls_tokens))[None]
        embedded = net._embedded(x[:1], torch.arange(5), None, None)
        out = net.attn_layers(torch.cat((in_front, front[:1], embedded), dim=1))
        torch.testing.assert_close(vectors[:1], out[:, 2:4])
    one = model(False, pool=how, **({} if how == "cls" else {"pool_heads": 3, "pool_dim_head": 4, "pool_inner": 0}))
    assert one(x, return_pooled=True)[1].shape == (3, 24)
    assert one(x).shape == (3, 17)


def test_the_vector_where_a_text_ends() -> None:
    x = torch.tensor([[4, 7, 2, 7, 7], [2, 9, 1, 0, 7], [5, 5, 8, 1, 1]])
    for end_token, places in ((7, (1, 4, 0)), (None, (1, 1, 2))):
        net = model(pool="end", end_token=end_token, return_only_embed=True, num_memory_tokens=2)
        each = net(x, return_embeddings=True)
        mask = torch.arange(5) < torch.tensor([[5], [4], [3]])
        assert torch.equal(net(x), torch.stack([row[place] for row, place in zip(each, places, strict=True)]))
        assert net(x, mask=mask).shape == (3, 24)


def test_a_pooler_beside_outputs_of_each_token() -> None:
    net, x = model(False, pooler=True, tie_embedding=True).double(), tokens(2, 5)
    mask = torch.tensor([[True] * 5, [False, False, True, True, True]])
    logits, vector = net(x, mask=mask, return_pooled=True)
    assert torch.equal(net(x, mask=mask), logits)
    assert logits.shape == (2, 5, 17)
    each = net(x, mask=mask, return_embeddings=True)
    torch.testing.assert_close(
        vector, torch.tanh(torch.stack((each[0, 0], each[1, 2])) @ net.pooler.weight.T + net.pooler.bias)
    )


def test_what_a_model_that_pools_cannot_do() -> None:
    net, x = model(pool="mean"), tokens(2, 5)
    with pytest.raises(ValueError, match="a cache is given, but the model has pool=mean: one output for a whole"):
        net(x, cache=net.new_cache(2))
    with pytest.raises(ValueError, match="a target is given, but the model has pool=mean"):
        AutoregressiveWrapper(net)(x)
    with pytest.raises(ValueError, match="but the model has pool=mean"):
        AutoregressiveWrapper(net).generate(x, 3)
    with pytest.raises(ValueError, match="return_pooled is set, but the model has neither pool nor pooler"):
        model()(x, return_pooled=True)
    with pytest.raises(ValueError, match="return_pooled is set, but last_only is set too"):
        model(pooler=True)(x, return_pooled=True, last_only=True)
    with pytest.raises(UserError, match="pool is set, but a model over tokens pools by mean, first, last, end, cls"):
        model(pool="first_mean")
    with pytest.raises(UserError, match="num_cls_tokens is set, but it needs pool=cls"):
        model(False, pool="mean", num_cls_tokens=2)
    with pytest.raises(UserError, match="pool_bias is set, but it needs pool=attention"):
        model(False, pool="mean", pool_bias=False)
    with pytest.raises(UserError, match="in a causal stack they see nothing: pool=last"):
        model(True, pool="cls")
    with pytest.raises(UserError, match="max_mem_len is set, but class tokens see one segment alone"):
        model(False, pool="cls", max_mem_len=4)
    with pytest.raises(UserError, match="squeeze_out_last_dim is set, but it needs logits_dim=1"):
        model(squeeze_out_last_dim=True)
    with pytest.raises(UserError, match="end_token is set, but it needs pool=end"):
        model(pool="last", end_token=3)
    with pytest.raises(UserError, match="end_token is set, but there are 10 tokens, and end_token=10 is none of them"):
        TransformerWrapper(num_tokens=10, max_seq_len=4, attn_layers=stack(), pool="end", end_token=10)
    graph = model(pool="end", end_token=3).graph
    graph.nx.nodes["output"]["pool"] = "last"
    with pytest.raises(UserError, match="output: end_token is set, but it needs pool=end"):
        graph.lint()


def test_a_default_that_is_spelled_out_is_the_default() -> None:
    tied = stack().graph.with_tokens(**TOKENS, tie_embedding=True)
    assert tied == stack().graph.with_tokens(**TOKENS, tie_embedding=True, logits_scale=24**-0.5, logits_bias=False)
    own = stack().graph.with_tokens(**TOKENS)
    assert own == stack().graph.with_tokens(**TOKENS, logits_scale=1, logits_bias=True, embed_scale=1)
    assert tied != stack().graph.with_tokens(**TOKENS, tie_embedding=True, logits_scale=1)


def test_unit_length_embeddings() -> None:
    torch.manual_seed(0)
    net = TransformerWrapper(num_tokens=500, max_seq_len=400, attn_layers=stack(), l2norm_embed=True)
    assert net.token_emb.weight.std().item() == pytest.approx(1e-5, rel=0.05)
    assert net.pos_emb.embedding.weight.std().item() == pytest.approx(1e-5, rel=0.05)
    x = torch.randint(0, 500, (2, 6))
    table, places = net.token_emb.weight.double(), net.pos_emb.embedding.weight.double()[:6]
    want = table[x] / table[x].pow(2).sum(-1, keepdim=True).sqrt() + places / places.pow(2).sum(-1, keepdim=True).sqrt()
    close(net(x, return_embeddings=True), net.attn_layers(want.float()))
    bare = TransformerWrapper(**TOKENS, attn_layers=stack(), l2norm_embed=True, use_abs_pos_emb=False)
    close(bare._vectors(tokens(9)).norm(dim=-1), torch.ones(9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_unit_length_is_computed_in_float32(dtype: torch.dtype) -> None:
    net = TransformerWrapper(**TOKENS, attn_layers=stack(), l2norm_embed=True).to(dtype)
    x = torch.arange(17)
    exact = net.token_emb.weight.double()
    want = exact / exact.norm(dim=-1, keepdim=True)
    # squares of 1e-5 are nothing in float16
    torch.testing.assert_close(net._vectors(x).double(), want, rtol=0, atol=torch.finfo(dtype).eps / 2)


def test_sinusoids() -> None:
    net = model(scaled_sinu_pos_emb=True, emb_dim=6)
    assert TransformerWrapper(**TOKENS, attn_layers=stack(), scaled_sinu_pos_emb=True).pos_emb.scale.item() == (
        pytest.approx(24**-0.5)
    )
    scale = net.pos_emb.scale.item()
    for pos in (0, 1, 7, 5000):
        angles = [pos / 10_000 ** (i / 3) for i in range(3)]
        want = [scale * f(angle) for f in (math.sin, math.cos) for angle in angles]
        torch.testing.assert_close(net.pos_emb(torch.tensor([pos]))[0], torch.tensor(want), rtol=1e-4, atol=1e-4)
    assert net(tokens(1, 40)).shape == (1, 40, 17)  # no table that would end


def test_far_sinusoids_in_low_precision_are_as_exact_as_near_ones() -> None:
    net = model(scaled_sinu_pos_emb=True).bfloat16()
    pos = torch.tensor([40_000, 40_001])
    scale = net.pos_emb.scale.double()
    angles = pos.double()[:, None] / 10_000 ** (torch.arange(12).double() / 12)
    want = torch.cat((angles.sin(), angles.cos()), dim=-1) * scale
    torch.testing.assert_close(net.pos_emb(pos).double(), want, rtol=2**-8, atol=1e-3)


def test_a_share_of_the_gradient_reaches_the_embedding() -> None:
    torch.manual_seed(2)
    part = TransformerWrapper(**TOKENS, attn_layers=stack(), emb_frac_gradient=0.25, emb_dim=20, num_memory_tokens=1)
    whole = TransformerWrapper(**TOKENS, attn_layers=stack(), emb_dim=20, num_memory_tokens=1)
    whole.load_state_dict(part.state_dict())
    x, fronts = tokens(2, 6), [torch.ones(2, 2, 20, requires_grad=True) for _ in range(2)]
    outs = [net(x, prepend_embeds=front) for net, front in zip((part, whole), fronts, strict=True)]
    assert torch.equal(*outs)
    for out in outs:
        out.pow(2).sum().backward()
    close(fronts[0].grad, fronts[1].grad * 0.25)
    close(part.token_emb.weight.grad, whole.token_emb.weight.grad * 0.25)
    close(part.pos_emb.embedding.weight.grad, whole.pos_emb.embedding.weight.grad * 0.25)
    close(part.project_emb.weight.grad, whole.project_emb.weight.grad)
    close(part.memory_tokens.grad, whole.memory_tokens.grad)


def test_positions_given() -> None:
    net, x = model(), tokens(2, 4)
    close(net(x, pos=torch.arange(4)), net(x))
    close(net(x, pos=torch.tensor([3, 4, 5, 6])), net(x, pos=torch.tensor([[3, 4, 5, 6]] * 2)))
    rows = torch.tensor([[0, 1, 2, 3], [8, 2, 5, 1]])
    out = net(x, pos=rows)
    stream = net.token_emb.weight[x] + net.pos_emb.embedding.weight[rows]
    close(out, net.to_logits(net.attn_layers(stream)))


@pytest.mark.parametrize("around", [{"rotary_pos_emb": True}, {"rel_pos_bias": True}, {"dynamic_pos_bias": True}])
def test_positions_given_reach_the_stack_and_the_prefix_counts_down_from_them(around: dict[str, Any]) -> None:
    net = model(True, around, num_memory_tokens=2, use_abs_pos_emb=False)
    x, front = tokens(2, 4), torch.randn(2, 3, 24)
    mask = torch.tensor([[True] * 4, [False, True, True, True]])
    far = torch.arange(4)[None] + torch.tensor([[500], [70]])
    real = torch.cat((torch.ones(2, 3).bool(), mask), dim=1)
    want = net(x, mask=mask, prepend_embeds=front)
    close(net(x, mask=mask, prepend_embeds=front, pos=far)[real], want[real])
    assert not torch.allclose(net(x, prepend_embeds=front, pos=torch.arange(0, 8, 2)), net(x, prepend_embeds=front))
    cache, out = net.new_cache(2, prepended=3), []
    for now in (slice(0, 2), slice(2, 4)):
        first = {} if cache.length else {"prepend_embeds": front}
        out.append(net(x[:, now], mask=mask[:, now], pos=far[:, now], cache=cache, **first))
    close(torch.cat(out, dim=1)[real], want[real])


# Invariants --------------------------------------------------------------------------------------------------------

WITH_MEMORY = [options for options in CASES if "num_memory_tokens" in options] + [{}, {"post_emb_norm": True}]
IN_STACKS = [
    (name, options)
    for options in WITH_MEMORY
    for name, around in STACKS.items()
    if not (
        options.keys() & {"scaled_sinu_pos_emb", "pos_offset"} and around.keys() & {"rotary_pos_emb", "rel_pos_bias"}
    )
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("name", "options"), IN_STACKS)
def test_padding_on_either_side_changes_nothing(name: str, options: dict[str, Any], causal: bool) -> None:
    net = model(causal, STACKS[name], **options)
    emb_dim = net.emb_dim
    x, front, more = tokens(1, 5), torch.randn(1, 4, emb_dim), torch.randn(1, 5, emb_dim)
    alone = net(x, prepend_embeds=front, sum_embeds=more)
    for left, right in ((3, 0), (0, 3), (2, 1)):
        padded = torch.cat((tokens(1, left), x, tokens(1, right)), dim=1)
        extra = torch.cat((torch.randn(1, left, emb_dim), more, torch.randn(1, right, emb_dim)), dim=1)
        place = torch.arange(5 + left + right)
        mask = ((place >= left) & (place < left + 5))[None]
        hidden = torch.cat((torch.randn(1, left, emb_dim), front, torch.randn(1, right, emb_dim)), dim=1)
        shown = torch.arange(4 + left + right)
        prepend_mask = ((shown >= left) & (shown < left + 4))[None]
        out = net(padded, mask=mask, prepend_embeds=hidden, prepend_mask=prepend_mask, sum_embeds=extra)
        assert out.shape[1] == 9 + 2 * (left + right)
        close(out[:, left : left + 4], alone[:, :4])
        close(out[:, 4 + 2 * left + right :][:, :5], alone[:, 4:])


@pytest.mark.parametrize("prepended", [0, 2])
@pytest.mark.parametrize(("name", "options"), IN_STACKS)
def test_cached_is_uncached(name: str, options: dict[str, Any], prepended: int) -> None:
    net = model(True, STACKS[name], **options)
    x, mask = tokens(3, 9), torch.arange(9) >= torch.tensor([[0], [2], [3]])
    front: dict[str, Any] = {}
    if prepended:
        shown = torch.tensor([[True, True], [True, False], [False, False]])
        front = {"prepend_embeds": torch.randn(3, 2, net.emb_dim), "prepend_mask": shown}
    whole = net(x, mask=mask, **front)
    for steps in ([4, 1, 1, 3], [9]):
        cache, done, out = net.new_cache(3, 9, prepended=prepended), 0, []
        for new in steps:
            now = slice(done, done + new)
            out.append(net(x[:, now], mask=mask[:, now], cache=cache, **(front if done == 0 else {})))
            done += new
        assert cache.sequence.prefix == prepended + options.get("num_memory_tokens", 0)
        assert cache.length == cache.sequence.prefix + 9
        ours = torch.cat(out, dim=1)
        close(ours[:, prepended:][mask], whole[:, prepended:][mask])
        if prepended:
            close(ours[:, :2][shown], whole[:, :2][shown])


@pytest.mark.parametrize("given", [[True, False], [False, True]])
def test_a_mask_in_some_steps_only_with_a_prefix(given: list[bool]) -> None:
    net = model(num_memory_tokens=2)
    x, mask = tokens(2, 6), torch.tensor([[True] * 6, [True, True, False, True, True, False]])
    mask[:, :3] |= not given[0]
    mask[:, 3:] |= not given[1]
    whole, cache = net(x, mask=mask), net.new_cache(2)
    first = net(x[:, :3], mask=mask[:, :3] if given[0] else None, cache=cache)
    second = net(x[:, 3:], mask=mask[:, 3:] if given[1] else None, cache=cache)
    close(torch.cat((first, second), dim=1)[mask], whole[mask])


def test_a_row_masked_whole_is_finite_and_leaves_the_others_alone() -> None:
    net = model(False, {"rotary_pos_emb": True}, num_memory_tokens=2)
    x, mask = tokens(2, 5), torch.tensor([[False] * 5, [True] * 5])
    out = net(x, mask=mask, prepend_embeds=torch.ones(2, 1, 24), prepend_mask=torch.tensor([[False], [True]]))
    assert out.isfinite().all()
    close(out[1:], net(x[1:], prepend_embeds=torch.ones(1, 1, 24)))


def test_a_prefix_does_not_count_against_the_longest_sequence() -> None:
    net, x = model(num_memory_tokens=3), tokens(1, 12)
    assert net(x, prepend_embeds=torch.randn(1, 20, 24)).shape == (1, 32, 17)
    cache = net.new_cache(1, prepended=20)
    net(x[:, :11], prepend_embeds=torch.randn(1, 20, 24), cache=cache)
    net(x[:, 11:], cache=cache)
    with pytest.raises(ValueError, match="the sequence has 13 tokens; max_seq_len is 12"):
        net(x[:, :1], cache=cache)


def test_generation_with_memory_tokens_is_the_same_with_a_cache() -> None:
    trainer = AutoregressiveWrapper(model(num_memory_tokens=3, l2norm_embed=True))
    prompt, mask = tokens(2, 5), torch.tensor([[True] * 5, [False, False, True, True, True]])
    ours = trainer.generate(prompt, 14, temperature=0, mask=mask)  # past the window, too
    assert torch.equal(ours, trainer.generate(prompt, 14, temperature=0, mask=mask, cache_kv=False))
    alone = trainer.generate(prompt[1, 2:], 9, temperature=0)
    assert torch.equal(ours[1, :7], alone[:7])


def test_memory_tokens_change_what_is_said() -> None:
    net, x = model(num_memory_tokens=2), tokens(1, 4)
    before = net(x)
    with torch.no_grad():
        net.memory_tokens[1] += torch.randn(24)
    assert not torch.allclose(net(x), before)


@pytest.mark.parametrize("options", [*CASES, *POOLED], ids=spelled)
def test_every_parameter_gets_a_finite_gradient(options: dict[str, Any]) -> None:
    net = model(**options).train()
    mask = torch.arange(12) < torch.tensor([[12], [12], [5]])
    out = net(torch.arange(36).reshape(3, 12) % 17, mask=mask)
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("options", CASES, ids=spelled)
def test_a_module_runs_in_its_own_type(options: dict[str, Any], dtype: torch.dtype) -> None:
    net = model(**options)
    x, front, more = tokens(2, 7), torch.randn(2, 2, net.emb_dim), torch.randn(2, 7, net.emb_dim)
    mask = torch.arange(7) >= torch.tensor([[0], [3]])
    want = net(x, mask=mask, prepend_embeds=front, sum_embeds=more)
    out = net.to(dtype)(x, mask=mask, prepend_embeds=front, sum_embeds=more)
    assert out.dtype == dtype
    tolerance = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float64: 1e-4}[dtype]
    real = torch.cat((torch.ones(2, 2).bool(), mask), dim=1)
    torch.testing.assert_close(out.float()[real], want[real], rtol=tolerance, atol=tolerance * want.std().item())


@pytest.mark.parametrize("options", CASES, ids=spelled)
def test_copies_are_the_same_and_independent(options: dict[str, Any]) -> None:
    net, x = model(**options), tokens(2, 5)
    want = net(x)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(one(x), want) for one in copies)


def test_meta() -> None:
    with torch.device("meta"):
        net = TransformerWrapper(
            **TOKENS, attn_layers=stack(), num_memory_tokens=3, emb_dim=6, scaled_sinu_pos_emb=True, l2norm_embed=True
        )
    assert all(parameter.is_meta for parameter in net.parameters())


@pytest.mark.parametrize("options", [{"num_memory_tokens": 2, "l2norm_embed": True}, {"scaled_sinu_pos_emb": True}])
def test_export_with_a_length_left_open(options: dict[str, Any]) -> None:
    net = model(**options)
    x, mask = tokens(2, 7), torch.arange(7) >= torch.tensor([[0], [3]])
    length = torch.export.Dim("length", min=2, max=12)
    exported = torch.export.export(net, (x, mask), dynamic_shapes={"x": {1: length}, "mask": {1: length}}).module()
    x, mask = tokens(2, 11), torch.arange(11) >= torch.tensor([[4], [0]])
    close(exported(x, mask), net(x, mask))


# The prefix --------------------------------------------------------------------------------------------------------

N, Y = False, True


def prefix_of(memory: int, prepended: int, mask: Tensor | None, rows: int = 1, seq: int = 3) -> Prefix:
    """Of a mask (rows, prepended + seq) of prepended embeddings and tokens; memory tokens are real."""
    rows, seq = (rows, seq) if mask is None else (mask.shape[0], mask.shape[1] - prepended)
    inputs = Inputs(torch.zeros(rows, seq), None if mask is None else mask[:, prepended:])
    if prepended:
        inputs.prepend_embeds = torch.zeros(rows, prepended, 1)
        inputs.prepend_mask = None if mask is None else mask[:, :prepended]
    return Prefix(inputs, torch.arange(memory)[:, None] if memory else None)


def test_padding_goes_in_front_of_a_prefix() -> None:
    # two memory tokens, three prepended, four tokens
    mask = torch.tensor(
        [
            [Y, Y, Y, Y, Y, Y, Y, Y, N],  # nothing is padded on the left
            [Y, Y, Y, Y, Y, N, N, Y, Y],
            [Y, Y, N, Y, N, N, Y, Y, Y],
            [Y, Y, Y, N, Y, Y, N, Y, Y],  # masked between real ones
            [Y, Y, N, N, N, N, N, N, N],
        ]
    )
    want = torch.tensor(
        [
            [0, 1, 2, 3, 4, 5, 6, 7, 8],
            [5, 6, 0, 1, 2, 3, 4, 7, 8],
            [2, 4, 5, 0, 1, 3, 6, 7, 8],
            [0, 1, 2, 3, 4, 5, 6, 7, 8],
            [2, 3, 4, 5, 6, 7, 8, 0, 1],
        ]
    )
    prefix, places = prefix_of(2, 3, mask[:, 2:]), torch.arange(2, 9).expand(5, 7)
    assert torch.equal(prefix.stream(places[..., None]), want[..., None])
    assert torch.equal(prefix.outputs(want), places)
    assert prefix.mask is not None
    assert torch.equal(prefix.mask, mask.gather(1, want))
    x = torch.randn(5, 7, 1)
    assert torch.equal(prefix.outputs(prefix.stream(x)), x)
    assert torch.equal(prefix_of(0, 0, mask).stream(x), x)


def test_positions_of_a_prefix_count_down_from_the_first_token() -> None:
    assert prefix_of(2, 1, None).positions(torch.tensor([5, 6, 9])).tolist() == [2, 3, 4, 5, 6, 9]
    rows = torch.tensor([[0, 1, 2], [7, 3, 4]])
    assert prefix_of(1, 0, None).positions(rows).tolist() == [[-1, 0, 1, 2], [6, 7, 3, 4]]
    padded = prefix_of(1, 1, torch.tensor([[Y, Y, Y, Y], [Y, N, Y, Y]]))
    assert padded.positions(rows)[0].tolist() == [-2, -1, 0, 1, 2]
    assert padded.positions(rows)[1, 1:].tolist() == [1, 2, 3, 4]  # the first is padding's
    assert padded.positions(rows[0])[1, 1:].tolist() == [-1, 0, 1, 2]
    assert torch.equal(prefix_of(0, 0, None).positions(rows), rows)


# Arguments of a call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prepend_embeds": torch.zeros(2, 3, 5)}, r"prepend_embeds must be \(2, prepended, 24\), not \(2, 3, 5\)"),
        ({"prepend_embeds": torch.zeros(1, 3, 24)}, r"prepend_embeds must be \(2, prepended, 24\), not \(1, 3, 24\)"),
        ({"prepend_mask": torch.ones(2, 3).bool()}, "a prepend_mask is given, but no prepend_embeds"),
        (
            {"prepend_embeds": torch.zeros(2, 3, 24), "prepend_mask": torch.ones(2, 4).bool()},
            r"prepend_mask must be \(2, 3\), not \(2, 4\)",
        ),
        ({"sum_embeds": torch.zeros(2, 4, 24)}, r"sum_embeds must be \(2, 5, 24\), not \(2, 4, 24\)"),
        ({"pos": torch.arange(4)}, r"pos must be whole numbers \(5,\) or \(2, 5\), not torch.int64 \(4,\)"),
        ({"pos": torch.zeros(5)}, r"pos must be whole numbers \(5,\) or \(2, 5\), not torch.float32 \(5,\)"),
        (
            {"return_embeddings": True, "return_logits_and_embeddings": True},
            "return_logits_and_embeddings is set, but return_embeddings is too",
        ),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model()(tokens(2, 5), **arguments)


def test_arguments_that_the_model_has_no_use_for() -> None:
    with pytest.raises(ValueError, match="the model has no logits: return_only_embed"):
        model(return_only_embed=True)(tokens(2, 5), return_logits_and_embeddings=True)
    with pytest.raises(ValueError, match="pos is given, but the model reads no positions"):
        model(use_abs_pos_emb=False)(tokens(2, 5), pos=torch.arange(5))
    net = model()
    cache = net.new_cache(1, 5, prepended=1)
    net(tokens(1, 2), cache=cache)
    with pytest.raises(ValueError, match="the cache holds the prepended embeddings of its first step; later steps"):
        net(tokens(1, 2), prepend_embeds=torch.zeros(1, 1, 24), cache=cache)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((-1, -4), "max_len must be a whole number of at least 0, not -4"),
        ((-1,), "batch must be a whole number of at least 0, not -1"),
        ((2, 3, -1), "prepended must be a whole number of at least 0, not -1"),
    ],
)
def test_a_cache_of_impossible_size(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(num_memory_tokens=8).new_cache(*sizes)
    with pytest.raises(ValueError, match="max_len must be a whole number of at least 0, not -4"):
        stack().new_cache(2, -4)


def test_the_embeddings_dropout_may_train_alone() -> None:
    stack = Decoder(dim=24, depth=1, heads=2, attn_dim_head=12)
    net = TransformerWrapper(num_tokens=7, max_seq_len=8, attn_layers=stack, emb_dropout=0.5).eval()
    x = torch.zeros(1, 4, dtype=torch.int64)
    assert torch.equal(net(x), net(x))
    net.emb_dropout.train()
    assert not torch.equal(net(x), net(x))
