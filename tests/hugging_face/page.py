"""The page of the models of Hugging Face, from what was measured."""

from __future__ import annotations

import textwrap
from pathlib import Path

from blockdsl.hugging_face import families

from .agreement import Agreement

PAGE = Path(__file__).parents[2] / "docs" / "hugging-face.md"

HEAD = """\
# Models of Hugging Face

<!-- written by `python -m tests.hugging_face`, which measures what the table says -->

A folder with a `config.json` and weights is a model here, and a model here is such a folder again.

<!-- not run: it needs a folder with weights -->
```python
import xt_blocks

model = xt_blocks.from_hugging_face("path/to/folder")  # or a model of transformers
wrapper = xt_blocks.AutoregressiveWrapper(model)
wrapper.generate(tokens, 100, temperature=0.0)

xt_blocks.to_hugging_face(model, "path/to/other")  # transformers loads it
```

- **Nothing is computed on the way.** Weights are copied, joined, split or transposed, so what is read and written back
  is equal bit for bit. What differs between models is an option of the pattern.
- **Nothing is dropped in silence.** A class, a key of the configuration or a tensor that is not known is refused by its
  name, and so is what there is no option for. Keys of training (dropout, initial weights) and of generation change
  nothing: set `attn_dropout` and the like where a model is trained on.
- **Rows are by themselves.** Where rotary positions change with the length (`dynamic`, `longrope`), each row has the
  frequencies of its own length, and generation reads a text again when they change. `transformers` gives all rows of a
  batch those of the longest one, and keeps what it computed with others.
- **Memory** is that of one copy of the weights and of one tensor: files are read a tensor at a time, several files by
  their index. `dtype=torch.bfloat16` converts on the way; otherwise the type of the file stays.
- `transformers` is not needed, except to hand over a model of its own. Weights are read from safetensors, or from
  PyTorch's files with `weights_only`.
- A model that was built here is written with `config=`, a configuration that says the same graph; if it says another,
  the difference of the two is the message.

The graph alone needs no torch and no weights:

```sh
blockdsl show path/to/config.json
blockdsl diff llama-2/config.json llama-3/config.json
```

```python
from blockdsl import hugging_face

config = {
    "model_type": "llama",
    "architectures": ["LlamaModel"],
    "vocab_size": 32000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
reading = hugging_face.read(config)  # or the path of a config.json, or of its folder
print(reading.texts[""])  # set dim=64, heads=4, ...; (a f)*4
print(reading.graphs()[""].parameters())  # an encoder-decoder is one too: (a f)*4 => (a c f)*4
```

## What is measured

Each model has small random weights, none at its initial value, and is compared with `transformers` on a CPU in float32:
logits (or embeddings of a class without a head) plain and with padding, the stream before each layer, the gradient of a
loss by every weight, and 20 greedy tokens with a cache and without, with and without padding on the left. Parameters
are those of `transformers` and of our costs, and what is read and written back is equal bit for bit. The largest
difference over all configurations of a family:

"""

OUT = """\

## What stays out

| models | what is missing |
| --- | --- |
| Zamba | a Mamba-1 with heads, each with steps and matrices of its own |
| Nemotron 3 Super and Ultra | experts that read and write fewer features than the stream has |
| DeepSeek V3.2 | sparse attention by an index |
| DeBERTa | disentangled relative scores |
| Conformer, wav2vec2 | convolutional blocks |

Heads other than those of language models (of classes of sequences or tokens, of questions) are refused by name:
`architecture="BertModel"` leaves the head out, and the rest is loaded.

Two things are done otherwise than in transformers, and told where they are met. Falcon's ALiBi is exact here, and there
rounded to bfloat16. Searches that a generation_config.json asks for (`no_repeat_ngram_size`, `min_length` and the like)
are not made.

## Another family

Two files: a module in `blockdsl/hugging_face/`, which is found there and whose docstrings in `family.py` say how, and
an entry of the zoo. A test is a table of configurations in `tests/hugging_face/`.
"""


def page(measured: dict[str, list[Agreement]]) -> str:
    """The whole page."""
    rows = ["| family | configurations | logits | padded | hidden | gradient | tokens | source |"]
    rows += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    rows += [_row(found) for found in measured.values()]
    texts = [f"{_types(found[0])}:\n\n```pattern\n{_text(found[0])}\n```\n" for found in measured.values()]
    types = "\n".join(textwrap.wrap(" ".join(sorted(families())), 100))
    parts = [
        HEAD,
        "\n".join(rows),
        f"\n\nThe values of `model_type` that are read:\n\n```text\n{types}\n```\n",
        "\n## Each as a text\n\n",
        "\n".join(texts),
    ]
    return "".join([*parts, OUT])


def _row(found: list[Agreement]) -> str:
    worst = [f"{max(getattr(f, name) for f in found):.1e}" for name in ("outputs", "padded", "hidden", "gradient")]
    generated = [f.tokens for f in found if f.tokens is not None]
    tokens = "equal" if generated and not any(generated) else f"{sum(generated)} differ" if generated else ""
    cells = [_types(found[0]), str(len(found)), *worst, tokens, found[0].reading.family.source]
    return f"| {' | '.join(cells)} |"


def _types(found: Agreement) -> str:
    return found.reading.architecture


def _text(found: Agreement) -> str:
    return "\n".join(f"{name}: {text}" if name else text for name, text in found.reading.texts.items())
