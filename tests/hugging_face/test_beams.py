"""Beam search: the texts and scores that transformers finds with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from xt_blocks import AutoregressiveWrapper, from_hugging_face

from .agreement import randomised
from .test_bart import peer as bart
from .test_gpt2 import peer as gpt2

BEAMS, NEW = 4, 6


def found(theirs: Any, penalty: float, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, beams, tokens) and the ranking scores (batch, beams) that transformers gives; `never` stops exactly."""
    out = theirs.generate(
        **inputs, max_new_tokens=NEW, num_beams=BEAMS, num_return_sequences=BEAMS, length_penalty=penalty,
        early_stopping="never", do_sample=False, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    return out.sequences.unflatten(0, (-1, BEAMS)), out.sequences_scores.unflatten(0, (-1, BEAMS))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_decoder_with_prompts_of_several_lengths(penalty: float) -> None:
    torch.manual_seed(1)
    theirs = randomised(gpt2("unscaled")).double().eval()
    assert isinstance(theirs, GPT2LMHeadModel)
    torch.manual_seed(1)
    torch.nn.init.normal_(theirs.lm_head.weight, std=0.1)
    ends = [1, 4, 5, 7]
    theirs.generation_config.pad_token_id, theirs.generation_config.eos_token_id = 5, ends
    ours = AutoregressiveWrapper(from_hugging_face(theirs), pad_value=5)
    prompts = [torch.randint(6, 19, (n,)) for n in (4, 2, 3)]
    rows = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=5, padding_side="left")
    sequences, ranks = found(theirs, penalty, input_ids=rows, attention_mask=(rows != 5).long())
    texts, scores = ours.beam_search(prompts, NEW, BEAMS, True, eos_token=ends, length_penalty=penalty)
    assert torch.equal(texts.transpose(0, 1), sequences[..., 4:])
    stops = torch.isin(texts, torch.tensor(ends))
    assert stops.any(dim=-1).any()
    assert not stops.any(dim=-1).all()
    lengths = torch.where(stops.any(dim=-1), stops.int().argmax(dim=-1) + 1, NEW)
    torch.testing.assert_close(scores.T.float(), ranks * lengths.T**penalty, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_an_encoder_decoder_with_forced_tokens(penalty: float) -> None:
    theirs = randomised(bart("plain")).double().eval()
    ours = from_hugging_face(theirs)
    source = torch.randint(3, 37, (3, 5))
    mask = torch.arange(5) < torch.tensor([[5], [3], [4]])
    sequences, ranks = found(theirs, penalty, input_ids=source, attention_mask=mask.long())
    texts, scores = ours.beam_search(
        source, seq_len=NEW, mask=mask, beams=BEAMS, return_beams_and_scores=True, length_penalty=penalty
    )
    assert torch.equal(texts.transpose(0, 1), sequences[..., 1:])
    lengths = (texts == 2).int().argmax(dim=-1) + 1
    torch.testing.assert_close(scores.T.float(), ranks * lengths.T**penalty, rtol=1e-5, atol=1e-5)
