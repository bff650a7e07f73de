"""Embeddings in front of the tokens: the loss on the tokens alone, and generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xt_blocks import AutoregressiveWrapper, Decoder, TransformerWrapper

from .variants import SIZES, VARIANTS, language_model, tokens


def by_hand(model: TransformerWrapper, prompt: Tensor, new: int, **kwargs: Any) -> Tensor:
    """Greedy, one whole forward pass a token, the last max_seq_len tokens at a time."""
    out = prompt
    for _ in range(new):
        logits = model(out[:, -model.max_seq_len :], **kwargs)[:, -1]
        out = torch.cat((out, logits.argmax(-1, keepdim=True)), dim=1)
    return out[:, prompt.shape[1] :]


def test_the_loss_is_that_of_the_tokens() -> None:
    model, x, embeds = language_model(), tokens(2, 7), torch.randn(2, 4, 24)
    logits = model(x[:, :-1], prepend_embeds=embeds)
    assert logits.shape == (2, 10, 17)
    expected = F.cross_entropy(logits[:, 4:].flatten(0, 1), x[:, 1:].flatten())
    torch.testing.assert_close(AutoregressiveWrapper(model)(x, prepend_embeds=embeds), expected)
    assert not torch.allclose(AutoregressiveWrapper(model)(x), expected)  # they are seen


def test_hidden_embeddings_change_no_loss() -> None:
    model, x, embeds = AutoregressiveWrapper(language_model()), tokens(2, 7), torch.randn(2, 4, 24)
    mask = torch.tensor([[False] * 4, [True, True, False, False]])
    loss = model(x, prepend_embeds=embeds, prepend_mask=mask)
    parts = model(x[:1]), model(x[1:], prepend_embeds=embeds[1:, :2])
    torch.testing.assert_close(loss, torch.stack(parts).mean())


@pytest.mark.parametrize("cache_kv", [True, False])
@pytest.mark.parametrize("settings", [{}, {"rotary_pos_emb": True}, {"shift_tokens": 1}])
def test_generation_is_the_loop_over_whole_passes(settings: dict[str, Any], cache_kv: bool) -> None:
    model = language_model(max_seq_len=8, **settings)
    prompt, embeds = tokens(2, 3), torch.randn(2, 4, 24)
    mask = torch.tensor([[True] * 4, [False, True, True, False]])
    for kwargs in ({"prepend_embeds": embeds}, {"prepend_embeds": embeds, "prepend_mask": mask}):
        out = AutoregressiveWrapper(model).generate(prompt, 12, temperature=0, cache_kv=cache_kv, **kwargs)
        assert torch.equal(out, by_hand(model, prompt, 12, **kwargs))


@pytest.mark.parametrize("name", VARIANTS)
def test_prompts_of_different_lengths_go_on_as_if_alone(name: str) -> None:
    pattern, settings = VARIANTS[name]
    stack = Decoder(pattern=pattern, **(SIZES | settings))
    model = TransformerWrapper(num_tokens=17, max_seq_len=8, attn_layers=stack, num_memory_tokens=2).eval()
    prompts, embeds = [tokens(1, n)[0] for n in (2, 6, 3)], torch.randn(3, 4, 24)
    kwargs = {"prepend_embeds": embeds}
    if stack.reads_context:
        kwargs["context"] = torch.randn(3, 5, stack.graph.dim_context)
    out = AutoregressiveWrapper(model).generate(prompts, 9, temperature=0, **kwargs)
    for i, prompt in enumerate(prompts):
        own = {name: value[i : i + 1] for name, value in kwargs.items()}
        assert torch.equal(out[i : i + 1], by_hand(model, prompt[None], 9, **own))
