"""A folder with a tokenizer reads and writes text, the text that transformers gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import blockdsl
import xt_blocks
from blockdsl.errors import UserError
from xt_blocks.interop.text import Bytes, Writer, load_writer

TEXT = ["the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs", "naïve café, 東京"]


def tokenizer() -> Tokenizer:
    own = Tokenizer(BPE())
    own.pre_tokenizer, own.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    alphabet = ByteLevel.alphabet()
    own.train_from_iterator(TEXT, BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet))
    own.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return own


def test_a_hugging_face_folder_writes_the_text_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = tokenizer()
    config = LlamaConfig(
        vocab_size=own.get_vocab_size(),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=8,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.5,
    )
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    own.save(str(tmp_path / "tokenizer.json"))
    read = PreTrainedTokenizerFast(tokenizer_object=own)(TEXT[0], return_tensors="pt")
    expected = theirs.generate(**read, max_new_tokens=20, do_sample=False, pad_token_id=1)
    new = expected[0, read["input_ids"].shape[1] :].tolist()
    writer = load_writer(tmp_path)
    assert (writer.start, writer.ends) == (0, {1})
    full = own.decode(expected[0].tolist())
    assert TEXT[0] + "".join(writer.write(TEXT[0], 20, temperature=0.0)) == full
    assert len(new) > 3


def test_our_folder_with_a_tokenizer(tmp_path: Path) -> None:
    own = tokenizer()
    graph = blockdsl.compile("a f", dim=16, heads=2, causal=True, num_tokens=own.get_vocab_size(), max_seq_len=32)
    xt_blocks.lower(graph).save_pretrained(tmp_path)
    own.save(str(tmp_path / "tokenizer.json"))
    writer = load_writer(tmp_path)
    for text in TEXT:
        assert writer.tokenizer.decode(writer.tokenizer.encode(text)) == text  # <s> is put in front, and not shown
        assert writer.tokenizer.encode(text)[0] == 0
    assert isinstance("".join(writer.write("", 5, temperature=0.0)), str)  # <s> alone is a start
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer.json is no tokenizer"):
        load_writer(tmp_path)


SIZES = {"num_tokens": 256, "max_seq_len": 9, "depth": 1, "heads": 2}


def test_an_answer_needs_a_token_to_start_with() -> None:
    sizes = {f"{side}_{name}": value for side in ("enc", "dec") for name, value in SIZES.items()}
    writer = Writer(xt_blocks.XTransformer(dim=8, **sizes), Bytes())
    with pytest.raises(UserError, match="no token that an answer starts with"):
        next(writer.write("a", 2))
