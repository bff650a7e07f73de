"""Models as folders: each class comes back with its graph, its weights, its ties and what was kept beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

import blockdsl
import xt_blocks
from blockdsl.errors import UserError
from xt_blocks import (
    ContinuousTransformerWrapper,
    Decoder,
    Encoder,
    Stack,
    TransformerWrapper,
    ViTransformerWrapper,
    XTransformer,
)
from xt_blocks.runtime import weights

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 2, 6]])
SIZES: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2}


def tokens_model(**options: Any) -> TransformerWrapper:
    return TransformerWrapper(num_tokens=11, max_seq_len=9, attn_layers=Decoder(**SIZES), **options)


def encoder_decoder(tie: bool = False) -> XTransformer:
    sides = {
        f"{side}_{name}": value
        for side in ("enc", "dec")
        for name, value in {"num_tokens": 11, "max_seq_len": 9, "depth": 1, "heads": 2}.items()
    }
    return XTransformer(dim=16, tie_token_emb=tie, pad_value=3, cross_attn_tokens_dropout=0.25, **sides)


MODELS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "Stack": (lambda: Encoder(**SIZES, rel_pos_bias=True, attn_num_mem_kv=2), lambda m: m(torch.ones(1, 5, 16))),
    "TransformerWrapper": (tokens_model, lambda m: m(TOKENS)),
    "tied": (lambda: tokens_model(tie_embedding=True, num_memory_tokens=2), lambda m: m(TOKENS)),
    "ALBERT": (
        lambda: xt_blocks.lower(
            blockdsl.compile("(a@x f@y)*3", dim=16, heads=2, num_tokens=11, max_seq_len=9, emb_dim=8)
        ),
        lambda m: m(TOKENS),
    ),
    "ContinuousTransformerWrapper": (
        lambda: ContinuousTransformerWrapper(dim_in=3, dim_out=5, max_seq_len=9, attn_layers=Encoder(**SIZES)),
        lambda m: m(torch.ones(1, 5, 3)),
    ),
    "ViTransformerWrapper": (
        lambda: ViTransformerWrapper(image_size=(4, 6), patch_size=2, num_classes=7, attn_layers=Encoder(**SIZES)),
        lambda m: m(torch.ones(1, 3, 4, 6)),
    ),
    "XTransformer": (encoder_decoder, lambda m: m.eval()(TOKENS, TOKENS)),
    "XTransformer, tied": (lambda: encoder_decoder(tie=True), lambda m: m.eval()(TOKENS, TOKENS)),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_class_comes_back(name: str, tmp_path: Path) -> None:
    make, run = MODELS[name]
    model = make().eval()
    model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    for back in (xt_blocks.from_pretrained(tmp_path), type(model).from_pretrained(tmp_path)):
        assert isinstance(model, type(back))
        assert not back.training
        assert {n: g.to_json() for n, g in back.graphs.items()} == {n: g.to_json() for n, g in model.graphs.items()}
        assert [*back.state_dict()] == [*model.state_dict()]
        assert [n for n, _ in back.named_parameters()] == [n for n, _ in model.named_parameters()]  # ties are ties
        torch.testing.assert_close(run(back), run(model), rtol=0, atol=0)
        run(back).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn
    files = {f"{name or 'graph'}.json" for name in model.graphs}  # the command line reads them
    assert {path.name for path in tmp_path.iterdir()} == files | {"config.json", weights.WHOLE}


def test_arguments_beside_the_graph(tmp_path: Path) -> None:
    encoder_decoder().save_pretrained(tmp_path)
    back = XTransformer.from_pretrained(tmp_path)
    assert (back.decoder.pad_value, back.cross_attn_tokens_dropout) == (3, 0.25)


def test_a_tie_by_hand_is_written_once_and_kept(tmp_path: Path) -> None:
    model = tokens_model()
    model.to_logits.weight = model.token_emb.weight
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / weights.WHOLE, framework="pt") as file:
        assert "to_logits.weight" not in [*file.keys()]
        assert json.loads(file.metadata()["shared"]) == {"to_logits.weight": "token_emb.weight"}
    back = TransformerWrapper.from_pretrained(tmp_path)
    assert back.to_logits.weight is back.token_emb.weight
    torch.testing.assert_close(back(TOKENS), model(TOKENS), rtol=0, atol=0)


def test_views_of_one_storage_are_written_apart(tmp_path: Path) -> None:
    both = torch.arange(12.0).reshape(4, 3)
    named = {
        "all": both,
        "half": both[:2],
        "again": both,
        "turned": both.T,
        "none": torch.zeros(0),
        "0": torch.zeros(0),
    }
    weights.write_weights(tmp_path, named, 10**9)
    back, shared = weights.read_weights(tmp_path)
    assert shared == {"again": "all"}
    for name, tensor in named.items():
        assert torch.equal(back[name], tensor)


def test_several_files(tmp_path: Path) -> None:
    model = tokens_model().eval()
    model.save_pretrained(tmp_path, max_shard_bytes=4000)
    index = json.loads((tmp_path / weights.INDEX).read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == sorted({*index["weight_map"].values()})
    assert len(files) > 3
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in model.parameters())
    for file in files:
        with safe_open(tmp_path / file, framework="pt") as part:
            sizes = [part.get_tensor(key).nbytes for key in part.keys()]  # noqa: SIM118 - it is no dict
        assert sum(sizes) <= 4000 or len(sizes) == 1
    torch.testing.assert_close(TransformerWrapper.from_pretrained(tmp_path)(TOKENS), model(TOKENS), rtol=0, atol=0)
    model.save_pretrained(tmp_path)  # in their place
    assert [path.name for path in tmp_path.glob("*safetensors*")] == [weights.WHOLE]


def test_types_and_devices(tmp_path: Path) -> None:
    model = tokens_model().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert TransformerWrapper.from_pretrained(tmp_path).token_emb.weight.dtype == torch.bfloat16
    wide = TransformerWrapper.from_pretrained(tmp_path, dtype=torch.float64, device="cpu")
    assert {p.dtype for p in wide.parameters()} == {torch.float64}
    assert torch.equal(wide.token_emb.weight, model.token_emb.weight.double())


def test_the_configuration_of_a_hugging_face_folder_stays(tmp_path: Path) -> None:
    model = tokens_model()
    assert model.hugging_face is None
    model.hugging_face = {"model_type": "llama", "rope_scaling": None}
    model.save_pretrained(tmp_path)
    assert TransformerWrapper.from_pretrained(tmp_path).hugging_face == model.hugging_face


def test_a_compiled_or_packed_model_is_written_as_it_is_without(tmp_path: Path) -> None:
    stack = Decoder(**SIZES)
    model = TransformerWrapper(num_tokens=11, max_seq_len=9, attn_layers=torch.compile(stack))
    xt_blocks.pack(model).save_pretrained(tmp_path)
    back = TransformerWrapper.from_pretrained(tmp_path)
    assert torch.equal(back.attn_layers.blocks["f1"].layer.to_out.weight, stack.blocks["f1"].layer.to_out.weight)


class Noisy(nn.Linear):
    """A layer that holds a buffer that no file has."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim)
        self.register_buffer("ones", torch.ones(dim, dtype=torch.float32), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.ones


def test_buffers_that_no_file_has_are_computed(tmp_path: Path) -> None:
    blockdsl.register(
        blockdsl.Kind(
            name="n",
            title="noise",
            options=(),
            shapes=lambda o: {"weight": (o.dim, o.dim), "bias": (o.dim,)},
            flops=lambda o, sizes: 0,
            module=Noisy,
        )
    )
    try:
        stack = xt_blocks.lower(blockdsl.compile("n f", dim=16))
        stack.save_pretrained(tmp_path)
        back = Stack.from_pretrained(tmp_path)
        x = torch.randn(1, 3, 16)
        torch.testing.assert_close(back(x), stack(x), rtol=0, atol=0)
    finally:
        blockdsl.unregister("n")


# Errors ----------------------------------------------------------------------------------------------------------------


def test_another_class(tmp_path: Path) -> None:
    tokens_model().save_pretrained(tmp_path / "tokens")
    encoder_decoder().save_pretrained(tmp_path / "both")
    with pytest.raises(UserError, match="a model over tokens, and no ViTransformerWrapper"):
        ViTransformerWrapper.from_pretrained(tmp_path / "tokens")
    with pytest.raises(UserError, match="an encoder-decoder, and Stack is none"):
        Stack.from_pretrained(tmp_path / "both")
    with pytest.raises(UserError, match="no encoder-decoder, as XTransformer is"):
        XTransformer.from_pretrained(tmp_path / "tokens")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no folder$"):
        xt_blocks.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder, but a file"):
        xt_blocks.from_pretrained(tmp_path / "file")
    with pytest.raises(UserError, match="save_pretrained writes such"):
        xt_blocks.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match=r"xt_blocks.from_hugging_face reads it"):
        xt_blocks.from_pretrained(tmp_path)


def test_damaged_folders(tmp_path: Path) -> None:
    tokens_model().save_pretrained(tmp_path)
    whole = (tmp_path / weights.WHOLE).read_bytes()
    (tmp_path / weights.WHOLE).write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"model.safetensors cannot be read"):
        xt_blocks.from_pretrained(tmp_path)
    (tmp_path / weights.WHOLE).unlink()
    with pytest.raises(UserError, match="has no weights"):
        xt_blocks.from_pretrained(tmp_path)
    (tmp_path / weights.INDEX).write_text('{"weight_map": {"a": "../../model.safetensors"}}')
    with pytest.raises(UserError, match="names a file elsewhere"):
        xt_blocks.from_pretrained(tmp_path)
    (tmp_path / "graph.json").write_text("{}")
    with pytest.raises(UserError, match=r"graph.json: this is not a block graph"):
        xt_blocks.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config.json is damaged"):
        xt_blocks.from_pretrained(tmp_path)


def test_weights_of_another_graph(tmp_path: Path) -> None:
    tokens_model().save_pretrained(tmp_path)
    other = TransformerWrapper(num_tokens=12, max_seq_len=9, attn_layers=Decoder(**SIZES))
    (tmp_path / "graph.json").write_text(other.graph.to_json())
    with pytest.raises(UserError, match=r"of another graph[\s\S]*token_emb.weight"):
        xt_blocks.from_pretrained(tmp_path)


def test_a_model_that_is_not_its_graph(tmp_path: Path) -> None:
    more, less, other = tokens_model(), tokens_model(), tokens_model()
    more.adapter = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"a weight 'adapter.weight' that its graph does not say"):
        more.save_pretrained(tmp_path)
    less.to_logits = nn.Identity()
    with pytest.raises(UserError, match=r"no weight 'to_logits.weight', which its graph says"):
        less.save_pretrained(tmp_path)
    other.to_logits = nn.Linear(16, 12)
    with pytest.raises(UserError, match=r"'to_logits.weight' is \(12, 16\), and \(11, 16\) in the graph"):
        other.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not in memory but on the meta device"):
        tokens_model().to("meta").save_pretrained(tmp_path)
    assert not [*tmp_path.iterdir()]  # nothing was written


# The hub ---------------------------------------------------------------------------------------------------------------


OFFLINE = """
import sys, torch, xt_blocks
from blockdsl.errors import UserError
print(xt_blocks.from_pretrained("me/model")(torch.tensor([[3, 1, 4]])).sum().item())
print(xt_blocks.TransformerWrapper.from_pretrained("me/model", revision="v1").pattern)
try:
    xt_blocks.from_pretrained("me/other")
except UserError as error:
    print(error)
"""


def test_a_repository_in_the_local_cache_is_read_offline(tmp_path: Path) -> None:
    model = tokens_model().eval()
    repository, commit = tmp_path / "hub" / "models--me--model", "0123456789abcdef0123456789abcdef01234567"
    model.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    for branch in ("main", "v1"):
        (repository / "refs" / branch).write_text(commit)
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=os.environ | offline, capture_output=True, text=True, check=True
    )
    total, pattern, error = run.stdout.splitlines()
    assert float(total) == pytest.approx(model(torch.tensor([[3, 1, 4]])).sum().item(), abs=1e-5)
    assert pattern == "(a f)*2"
    assert error.startswith("there is no folder me/other, and the hub gives none: ")


def test_push_uploads_what_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, Any] = {}

    class Hub:
        @staticmethod
        def create_repo(name: str, **options: Any) -> Any:
            return SimpleNamespace(repo_id=f"me/{name}", **options)

        @staticmethod
        def upload_folder(*, folder_path: str, **options: Any) -> Any:
            uploaded.update(options, model=xt_blocks.from_pretrained(folder_path))
            return SimpleNamespace(commit_url="https://hub/me/model/1")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    model = tokens_model()
    assert model.push_to_hub("model", revision="next") == "https://hub/me/model/1"
    assert (uploaded["repo_id"], uploaded["revision"]) == ("me/model", "next")
    assert torch.equal(uploaded["model"].token_emb.weight, model.token_emb.weight)


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"there is no folder me/model, and to look on the hub, .* 'xt-blocks\[hub\]'"):
        xt_blocks.from_pretrained("me/model")
    with pytest.raises(UserError, match="to push to the hub, huggingface_hub is needed"):
        tokens_model().push_to_hub("me/model")
