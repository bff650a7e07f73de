"""Makes the files beside it. Run it with release 0.1.0: `PYTHONPATH=<a checkout of 0.1.0> python make.py`.

`models/NAME.safetensors` is a model: its state dict as `state.KEY`, positional inputs as `input.0`, `input.1`, ..., and
`output`; `generated` are the likeliest 5 tokens after the first input. The file's metadata says how it is built, as JSON:
`graph` (of a stack) or `build` (a class of `xt_blocks` by name, with its keywords).
`run/` is the folder of a training run, and `run.txt` what the command line writes with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import blockdsl
import xt_blocks
from blockdsl.cli import main

HERE = Path(__file__).parent
SIZES = {"dim": 8, "heads": 2, "attn_dim_head": 4}

# Stacks: pattern, settings. All are causal but for those that say otherwise.
STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("a f", {}),
    "cross": ("a c f", {}),
    "encoder": ("(a f)*2", {"causal": False, "rotary_pos_emb": True}),
    "talking_heads": ("(a f)*2", {"attn_talking_heads": True, "attn_sparse_topk": 3}),
    "mem_kv": ("a c f", {"attn_num_mem_kv": 2, "attn_talking_heads": True}),
    "mem_kv_rotary": ("a f", {"attn_num_mem_kv": 3, "rotary_pos_emb": True, "attn_one_kv_head": True}),
    "kv_heads": ("a(heads=4, kv_heads=2) f", {"attn_max_attend_past": 2}),
    "shared_kv": ("a c f", {"attn_shared_kv": True, "attn_gate_values": True}),
    "qk_norm": ("a f", {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True}),
    "on_attn": ("a f", {"attn_on_attn": True, "attn_head_scale": True}),
    "tensor_product": ("a f", {"attn_tensor_product": True}),
    "value_dim_head": ("a(value_dim_head=3) f", {}),
    "residual_attn": ("(a f)*2", {"residual_attn": True, "attn_talking_heads": True}),
    "t5": ("a c f", {"rel_pos_bias": True, "rel_pos_num_buckets": 8, "rel_pos_max_distance": 6}),
    "dynamic": ("a f", {"dynamic_pos_bias": True, "dynamic_pos_bias_norm": True}),
    "alibi_learned": ("a f", {"alibi_pos_bias": True, "alibi_learned": True}),
    "xpos": ("a f", {"rotary_xpos": True, "rotary_xpos_scale_base": 3}),
    "gru": ("(a f)*2", {"gate_residual": True, "scale_residual": True}),
    "sandwich_norm": ("a f", {"sandwich_norm": True, "use_rmsnorm": True}),
    "post_norm": ("a f", {"pre_norm": False, "use_scalenorm": True}),
    "deepnorm": ("a c f", {"deepnorm": True}),
    "parallel": ("(a & f a)*2 | f/2", {"shift_tokens": 1}),
    "ties": ("(a@x f@y>>1)*2", {"rotary_pos_emb": True}),
    "feedforwards": ("f(glu) f(glu, swish) f(relu_squared) f(post_act_ln, no_bias)", {}),
}


def decoder(**settings: Any) -> dict[str, Any]:
    return {"class": "Decoder", "kwargs": {**SIZES, "depth": 1, **settings}}


def encoder(**settings: Any) -> dict[str, Any]:
    return {"class": "Encoder", "kwargs": {**SIZES, "depth": 1, **settings}}


def tokens(layers: dict[str, Any], **options: Any) -> dict[str, Any]:
    kwargs = {"num_tokens": 11, "max_seq_len": 16, "attn_layers": layers}
    return {"class": "TransformerWrapper", "kwargs": kwargs | options}


IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
TO = torch.tensor([[2, 7, 1, 8], [2, 8, 1, 8]])
XTRANSFORMER = {
    **{f"enc_{name}": value for name, value in {**SIZES, "num_tokens": 11, "max_seq_len": 16, "depth": 1}.items()},
    **{f"dec_{name}": value for name, value in {**SIZES, "num_tokens": 11, "max_seq_len": 16, "depth": 1}.items()},
}
del XTRANSFORMER["enc_dim"], XTRANSFORMER["dec_dim"]
XTRANSFORMER["dim"] = 8

# Whole models, with the inputs of each.
MODELS: dict[str, tuple[dict[str, Any], list[torch.Tensor]]] = {
    "tokens": (tokens(decoder()), [IDS]),
    "tokens_rotary": (tokens(decoder(rotary_pos_emb=True, ff_glu=True, attn_num_mem_kv=1)), [IDS]),
    "tokens_t5": (tokens(decoder(rel_pos_bias=True)), [IDS]),
    "tied": (tokens(decoder(), tie_embedding=True, post_emb_norm=True, l2norm_embed=True), [IDS]),
    "sinusoidal": (tokens(decoder(), scaled_sinu_pos_emb=True, emb_dim=6), [IDS]),
    "memory_tokens": (tokens(encoder(), num_memory_tokens=2), [IDS]),
    "recurrence": (tokens(decoder(rel_pos_bias=True), max_mem_len=8, shift_mem_down=1), [IDS]),
    "autoregressive": (
        {"class": "AutoregressiveWrapper", "kwargs": {"net": tokens(decoder(alibi_pos_bias=True))}},
        [IDS],
    ),
    "encoder_decoder": ({"class": "XTransformer", "kwargs": XTRANSFORMER | {"tie_token_emb": True}}, [IDS, TO]),
    "encoder_decoder_t5": (
        {"class": "XTransformer", "kwargs": XTRANSFORMER | {"enc_rel_pos_bias": True, "dec_attn_num_mem_kv": 2}},
        [IDS, TO],
    ),
    "vision": (
        {
            "class": "ViTransformerWrapper",
            "kwargs": {"image_size": 8, "patch_size": 4, "num_classes": 5, "attn_layers": encoder()},
        },
        [torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)],
    ),
    "continuous": (
        {
            "class": "ContinuousTransformerWrapper",
            "kwargs": {"dim_in": 3, "dim_out": 5, "max_seq_len": 16, "attn_layers": decoder()},
        },
        [torch.linspace(-1, 1, 36).reshape(2, 6, 3)],
    ),
}


def build(spec: Any) -> Any:
    if isinstance(spec, dict) and "class" in spec:
        return getattr(xt_blocks, spec["class"])(**{name: build(value) for name, value in spec["kwargs"].items()})
    return spec


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
    """Values that start at zero or one (norms, memories, gates) would hide a weight that is not loaded."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def save(name: str, how: dict[str, str], model: torch.nn.Module, inputs: list[torch.Tensor]) -> None:
    with torch.no_grad():
        output = model(*inputs)
    tensors = {f"state.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"input.{i}": value for i, value in enumerate(inputs)} | {"output": output}
    if isinstance(model, xt_blocks.TransformerWrapper) and model.graph.causal:
        wrapper = xt_blocks.AutoregressiveWrapper(model)
        tensors["generated"] = wrapper.generate(inputs[0], 5, temperature=0.0)
    elif isinstance(model, xt_blocks.XTransformer):
        tensors["generated"] = model.generate(inputs[0], inputs[1][:, :1], 5, temperature=0.0)
    save_file(
        {key: value.detach().clone() for key, value in tensors.items()}, HERE / "models" / f"{name}.safetensors", how
    )


def make() -> None:
    for folder in ("models", "run"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    (HERE / "models").mkdir()
    torch.manual_seed(0)
    for name, (pattern, settings) in STACKS.items():
        graph = blockdsl.compile(pattern, **(SIZES | {"causal": True} | settings))
        model = perturbed(xt_blocks.lower(graph))
        plain = json.dumps(json.loads(graph.to_json()), separators=(",", ":"))
        context = [] if not model.reads_context else [torch.randn(2, 4, 8)]
        x = torch.randn(2, 6, 8)
        with torch.no_grad():
            output = model(x, context=context[0]) if context else model(x)
        tensors = {f"state.{key}": value for key, value in model.state_dict().items()}
        tensors |= {"input.0": x, "output": output} | ({"context": context[0]} if context else {})
        save_file(
            {k: v.detach().clone() for k, v in tensors.items()},
            HERE / "models" / f"{name}.safetensors",
            {"graph": plain},
        )
    graph = blockdsl.compile("a f | a", num_tokens=11, max_seq_len=16, tie_embedding=True, causal=True, **SIZES)
    save("graph_of_tokens", {"graph": graph.to_json()}, perturbed(xt_blocks.lower(graph)), [IDS])
    for name, (spec, inputs) in MODELS.items():
        save(name, {"build": json.dumps(spec)}, perturbed(build(spec)), inputs)
    run()


def run() -> None:
    os.chdir(HERE)
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60, encoding="utf-8")
    pattern = "set rotary_pos_emb, ff_mult=2; a(talking_heads)>>1 f"
    main(["train", "--pattern", pattern, "--text", "text.txt", "--dim", "16", "--seq-len", "16", "--batch", "2",
          "--steps", "3", "--out", "run"])  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main(["generate", "run", "--prompt", "the ", "--tokens", "24", "--temperature", "0"])
    Path("run.txt").write_text(out.getvalue(), encoding="utf-8")
    shutil.copytree("run", "longer")
    main(["train", "--resume", "longer", "--steps", "5"])
    shutil.copy("longer/metrics.jsonl", "resumed.jsonl")
    shutil.rmtree("longer")
    shutil.rmtree("run/checkpoints/000002")
    settings = json.loads(Path("run/settings.json").read_text())
    settings["text"] = ["text.txt"]  # which the test makes a path again: a run remembers where its text is
    Path("run/settings.json").write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    make()
