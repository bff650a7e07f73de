"""The same calls give the same numbers as the installed x-transformers, for the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xt_blocks import x_transformers as ours
from xt_blocks.interop import load_x_transformers

theirs: Any = pytest.importorskip("x_transformers")
if not hasattr(theirs, "BeliefStateWrapper"):
    pytest.skip("another release of x-transformers", allow_module_level=True)

SIZES = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16}
TOKENS = torch.randint(1, 20, (2, 10), generator=torch.Generator().manual_seed(0))

STACKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary, glu, rms": {"rotary_pos_emb": True, "ff_glu": True, "use_rmsnorm": True},
    "rotary, interpolated": {"rotary_pos_emb": True, "rotary_interpolation_factor": 2.5},
    "rotary, another base": {"rotary_pos_emb": True, "rotary_base_rescale_factor": 4.0},
    "T5 bias": {"rel_pos_bias": True},
    "ALiBi, memory key-values": {"alibi_pos_bias": True, "attn_num_mem_kv": 2},
    "2.x: talking heads": {"attn_pre_talking_heads": True, "attn_post_talking_heads": True},
    "2.x: softclamp": {"attn_softclamp_logits": True, "attn_logit_softclamp_value": 5.0, "rotary_pos_emb": True},
    "2.x: sink, kv heads": {"attn_head_learned_sink": True, "attn_kv_heads": 1, "rotary_pos_emb": True},
    "2.x: attention alone": {"only_attn": True, "rotary_pos_emb": True},
    "2.x: simple rms, layer scale": {"use_simple_rmsnorm": True, "use_layerscale": True, "layerscale_init_value": 0.5},
    "shift, sandwich norm": {"shift_tokens": 1, "sandwich_norm": True},
}


def close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-4)


def randomised(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def pair(name: str, **wrapper: Any) -> tuple[Any, Any]:
    """Their model and ours, with the same weights."""
    models = []
    for package in (theirs, ours):
        stack = package.Decoder(**SIZES, **STACKS[name])
        models.append(package.TransformerWrapper(num_tokens=20, max_seq_len=24, attn_layers=stack, **wrapper).eval())
    other, mine = models
    randomised(other)
    load_x_transformers(mine, other.state_dict())
    return other, mine


@pytest.mark.parametrize("scale", [{}, {"tie_embedding_scale": 0.7}])
def test_tied_logits(scale: dict[str, float]) -> None:
    other, mine = pair("rotary, glu, rms", tie_embedding=True, **scale)
    close(mine(TOKENS), other(TOKENS))


@pytest.mark.parametrize("name", STACKS)
def test_a_pass_and_what_it_is_asked_for(name: str) -> None:
    other, mine = pair(name)
    close(mine(TOKENS), other(TOKENS))
    close(mine(TOKENS, return_embeddings=True), other(TOKENS, return_embeddings=True))
    mask = torch.arange(10) < torch.tensor([[7], [10]])
    close(mine(TOKENS, mask=mask)[mask], other(TOKENS, mask=mask)[mask])
    close(mine(TOKENS, self_attn_kv_mask=mask)[mask], other(TOKENS, self_attn_kv_mask=mask)[mask])
    (_, seen), (_, expected) = (net(TOKENS, return_intermediates=True) for net in (mine, other))
    close(seen.hiddens, expected.hiddens)
    close(seen.layer_hiddens, expected.layer_hiddens)
    if "kv heads" in name:  # their heads are in another order
        return
    weights = [one.post_softmax_attn for one in expected.attn_intermediates]
    close(
        [one.post_softmax_attn[..., : w.shape[-1]] for one, w in zip(seen.attn_intermediates, weights, strict=True)],
        weights,
    )
    if "talking" in name or "softclamp" in name:  # scores before and after these
        return
    for one, two in zip(seen.attn_intermediates, expected.attn_intermediates, strict=True):
        visible = two.pre_softmax_attn > -1e30
        close(one.pre_softmax_attn.expand_as(visible)[visible], two.pre_softmax_attn[visible])


@pytest.mark.parametrize("name", STACKS)
def test_steps_by_hand_and_generation(name: str) -> None:
    other, mine = pair(name)
    tokens = TOKENS[:, :4]
    if "shift" not in name:  # theirs forgets the shifted tokens of the cache
        caches: list[Any] = [None, None]
        for n in range(4, 9):
            outs = []
            for i, net in enumerate((mine, other)):
                out, caches[i] = net(TOKENS[:, :n], return_intermediates=True, cache=caches[i])
                outs.append(out[:, -1])
            close(*outs)
    generated = [
        package.AutoregressiveWrapper(net).generate(tokens, 12, temperature=0.0, cache_kv="shift" not in name)
        for package, net in ((ours, mine), (theirs, other))
    ]
    assert torch.equal(*generated)


@pytest.mark.parametrize("name", ["rotary, glu, rms", "2.x: softclamp"])
def test_prompts_of_several_lengths(name: str) -> None:
    other, mine = pair(name)
    lens = torch.tensor([3, 6])
    outs = [
        package.AutoregressiveWrapper(net).generate(TOKENS[:, :6], 5, prompt_lens=lens, temperature=0.0)
        for package, net in ((ours, mine), (theirs, other))
    ]
    assert torch.equal(*outs)
    start = torch.tensor([2, 0])
    expected, out = (net(TOKENS, seq_start_pos=start) for net in (other, mine))
    close(out[0, 2:], expected[0, 2:])
    close(out[1], expected[1])


@pytest.mark.parametrize("name", ["T5 bias", "ALiBi, memory key-values"])
def test_memories(name: str) -> None:
    other, mine = pair(name, max_mem_len=6)
    mems: list[Any] = [None, None]
    for segment in TOKENS.split(5, dim=1):
        outs = []
        for i, net in enumerate((mine, other)):
            out, mems[i] = net(segment, mems=mems[i], return_mems=True)
            outs.append(out)
        close(*outs)
        close([*mems[0]], mems[1])


@pytest.mark.parametrize("name", ["plain", "rotary, glu, rms"])
def test_losses(name: str) -> None:
    other, mine = pair(name)
    wrapped = [package.AutoregressiveWrapper(net) for package, net in ((ours, mine), (theirs, other))]
    close(*(wrapper(TOKENS) for wrapper in wrapped))
    (loss, (logits, _)), (expected, (their_logits, _)) = (wrapper(TOKENS, return_outputs=True) for wrapper in wrapped)
    close(loss, expected)
    close(logits, their_logits)


def test_an_encoder_decoder() -> None:
    sizes = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in {"num_tokens": 20, "max_seq_len": 16, "depth": 1, "heads": 2}.items()}  # fmt: skip
    other, mine = (package.XTransformer(dim=32, **sizes, enc_use_rmsnorm=True, dec_rel_pos_bias=True).eval() for package in (theirs, ours))  # fmt: skip
    randomised(other)
    load_x_transformers(mine, other.state_dict())
    mask = torch.arange(10) < torch.tensor([[7], [10]])
    close(mine(TOKENS, TOKENS, mask=mask), other(TOKENS, TOKENS, mask=mask))
    outs = [net.generate(TOKENS, TOKENS[:, :1], 6, mask=mask, temperature=0.0) for net in (mine, other)]
    assert torch.equal(*outs)
