"""Reading the parity cases: how to rebuild the peer's model with ours, and fill it with the peer's weights.

A case holds no weights: each tensor of the peer's state dict is filled from its own name. The names are mapped to
ours here, by the rules of the two releases, independently of the library.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import xt_blocks

FOLDER = Path(__file__).parent / "data"
BASE = {"dim": 32, "depth": 2, "heads": 2, "attn_dim_head": 16}

# What the library has of the seed document so far: cases that need anything else are not run.
LAYERS = {
    *("ff_glu", "ff_swish", "ff_relu_squared", "ff_no_bias", "ff_mult", "use_rmsnorm", "pre_norm", "shift_tokens"),
    *("sandwich_coef", "macaron", "par_ratio", "custom_layers", "cross_attend", "depth", "heads", "attn_dim_head"),
    *("residual_attn", "cross_residual_attn", "rotary_pos_emb", "rotary_emb_dim", "attn_flash", "ff_post_act_ln"),
    *("attn_num_mem_kv", "attn_talking_heads", "attn_one_kv_head", "attn_kv_heads", "attn_on_attn"),
    *("attn_gate_values", "attn_sparse_topk", "attn_head_scale", "attn_value_dim_head", "attn_shared_kv"),
    *("attn_qk_norm", "attn_qk_norm_groups", "attn_qk_norm_scale", "attn_qk_norm_dim_scale"),
    *("attn_tensor_product", "attn_max_attend_past"),
    *("use_scalenorm", "sandwich_norm", "scale_residual", "scale_residual_constant", "gate_residual", "deepnorm"),
    *("rotary_xpos", "rotary_xpos_scale_base", "rel_pos_bias", "dynamic_pos_bias", "dynamic_pos_bias_log_distance"),
    *("alibi_pos_bias", "alibi_num_heads", "alibi_learned"),
}
WRAPPER = {
    *("num_tokens", "max_seq_len", "use_abs_pos_emb", "tie_embedding", "l2norm_embed", "post_emb_norm", "emb_dim"),
    *("num_memory_tokens", "scaled_sinu_pos_emb", "logits_dim", "max_mem_len", "shift_mem_down"),
}
CALL = {
    *("mask", "context", "context_mask", "return_embeddings", "prepend_embeds", "attn_mask", "self_attn_context_mask"),
}
CLASSES = {None, "TransformerWrapper"}
OUTER = {None, "AutoregressiveWrapper"}


def cases(release: str) -> list[dict[str, Any]]:
    found = json.loads((FOLDER / f"x_transformers_{release}.json").read_text())
    return [case for case in found if supported(case)]


def supported(case: dict[str, Any]) -> bool:
    return (
        case.get("layers_class") is not None
        and case.get("wrapper") in CLASSES
        and case.get("outer") in OUTER
        and set(case["layers"]) <= LAYERS
        and set(case.get("wrapper_kwargs") or {}) <= WRAPPER
        and set(case.get("kwargs", {})) <= CALL
    )


def tensor(spec: Any) -> Any:
    if not isinstance(spec, dict):
        return spec
    rng = np.random.RandomState(spec["seed"])
    shape = spec["shape"]
    if spec["kind"] == "ints":
        return torch.from_numpy(rng.randint(0, spec["high"], shape).astype(np.int64))
    if spec["kind"] == "floats":
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    if spec["kind"] == "lengths":
        return torch.arange(shape[1]) < torch.tensor(spec["lengths"])[:, None]
    bools = torch.from_numpy(rng.random_sample(shape) < 0.7)
    bools[..., 0] = True
    return bools


def output(model: torch.nn.Module, case: dict[str, Any]) -> Tensor:
    """What the model gives for a case's call, or for its segments, one behind the other."""
    kwargs = {name: tensor(spec) for name, spec in case.get("kwargs", {}).items()}
    args = [tensor(spec) for spec in case["args"]]
    if "segments" not in case:
        out: Tensor = model(*args, **kwargs)
        return out
    parts, mems = [], None
    for i in range(case["segments"]):
        first = tensor(case["args"][0] | {"seed": case["args"][0]["seed"] + i})
        part, mems = model(first, *args[1:], mems=mems, return_mems=True, **kwargs)
        parts.append(part)
    return torch.stack(parts)


def peer_state(case: dict[str, Any]) -> dict[str, Tensor]:
    out = {}
    for name, shape in case["state"].items():
        v = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        plain = len(shape) <= 1 and not name.endswith("bias")
        out[name] = torch.from_numpy(1 + np.float32(0.1) * v if plain else np.float32(0.2) * v)
    return out


def expected(case: dict[str, Any]) -> Tensor:
    raw = base64.b64decode(case["output"]["f32"])
    return torch.from_numpy(np.frombuffer(raw, dtype="<f4").copy()).reshape(case["output"]["shape"])


def build(case: dict[str, Any], old: bool) -> torch.nn.Module:
    """Our model for a case, with its final norm as the release has it, filled with the peer's weights."""
    options = BASE | {k: tuple(v) if isinstance(v, list) else v for k, v in case["layers"].items()}
    if options.get("ff_glu"):  # the peer's gate keeps a bias even under ff_no_bias; our other bias is then zero
        options.pop("ff_no_bias", None)
    options.pop("attn_flash", None)  # the fused kernel is the default
    stack = getattr(xt_blocks, case["layers_class"])(**options)
    if old:
        graph = stack.graph
        post = is_post_norm(options)
        graph.nx.nodes["output"]["norm"] = "layernorm" if case.get("wrapper") and not post else None
        stack = xt_blocks.lower(graph)
    model = xt_blocks.TransformerWrapper(attn_layers=stack, **case["wrapper_kwargs"]) if case.get("wrapper") else stack
    state = renamed(peer_state(case), case, stack, options, old)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    # today's LayerNorm and logits have no bias
    assert all(name.endswith("bias") for name in missing), missing
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in missing:
                parameter.zero_()
    if case.get("outer"):
        model = getattr(xt_blocks, case["outer"])(model, **case.get("outer_kwargs", {}))
    return model.eval()


def renamed(
    peer: dict[str, Tensor], case: dict[str, Any], stack: Any, options: dict[str, Any], old: bool
) -> dict[str, Tensor]:
    nodes = stack.graph.nodes("block")
    prefix = "attn_layers." if case.get("wrapper") else ""
    out: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in peer.items():
        name = name.removeprefix("net.")
        name = re.sub(r"\.1(\.fn)+\.", ".1.", name)  # around a shifted or scaled block
        if not old and name.endswith((".gamma", ".g")) and ".ff." not in name and "post_emb" not in name:
            value = value + 1  # today's gains inside the stack are stored less one
        bare = name.removeprefix(prefix)
        if found := re.fullmatch(r"layers\.(\d+)\.0\.(\d)\.(weight|bias|g|gamma)", bare):
            norm = "sandwich_norm" if found[2] == "1" else "norm"
            kind = "bias" if found[3] == "bias" else "weight"
            if old and options.get("use_scalenorm"):
                value = value * options["dim"] ** -0.5  # the old gain has the factor of the width in it
            out[f"{prefix}blocks.{nodes[int(found[1])]}.{norm}.{kind}"] = value
        elif found := re.fullmatch(r"layers\.(\d+)\.2\.(residual_scale|gru\.\w+)", bare):
            part = "scale" if found[2] == "residual_scale" else found[2].replace("gru", "gate")
            out[f"{prefix}blocks.{nodes[int(found[1])]}.residual.{part}"] = value
        elif found := re.fullmatch(r"layers\.(\d+)\.1\.(to_[qkv])\.weight", bare):
            parts.setdefault(nodes[int(found[1])], {})[found[2]] = value
        elif (found := re.fullmatch(r"layers\.(\d+)\.1\.(.*)", bare)) and found[2] in ATTENTION:
            node = nodes[int(found[1])]
            out[f"{prefix}blocks.{node}.layer.{ATTENTION[found[2]]}"] = reshaped(value, stack.graph.nx.nodes[node])
        elif found := re.fullmatch(r"layers\.(\d+)\.1\.ff\.1\.(weight|bias|gamma)", bare):
            kind = "bias" if found[2] == "bias" else "weight"
            out[f"{prefix}blocks.{nodes[int(found[1])]}.layer.norm.{kind}"] = value
        elif found := re.fullmatch(r"layers\.(\d+)\.1\.ff\.(\d)\.(?:proj\.|0\.)?(weight|bias)", bare):
            linear = "to_hidden" if found[2] == "0" else "to_out"
            out[f"{prefix}blocks.{nodes[int(found[1])]}.layer.{linear}.{found[3]}"] = value
        elif found := re.fullmatch(r"(?:attn_layers\.final_)?norm\.(weight|bias|g|gamma)", name):
            kind = "bias" if found[1] == "bias" else "weight"
            last = old and is_post_norm(options)  # the old wrapper's norm is the last block's post-norm
            out[f"attn_layers.blocks.{nodes[-1]}.norm.{kind}" if last else f"{prefix}norm.{kind}"] = value
        elif bare.startswith("rel_pos."):
            (node,) = [node for node in stack.graph.nodes("position") if not node.startswith("rotary")]
            out[f"{prefix}positions.{node}.{position_name(bare, peer)}"] = value
        elif name == "final_norm.gamma":
            out["norm.weight"] = value
        elif name == "token_emb.emb.weight":
            out["token_emb.weight"] = value
        elif name == "pos_emb.emb.weight":
            unit = case["wrapper_kwargs"].get("l2norm_embed")  # no factor then
            out["pos_emb.embedding.weight"] = value if unit else value * value.shape[1] ** -0.5
        elif name == "post_emb_norm.gamma":
            out["post_emb_norm.weight"] = value
        elif name in ("pos_emb.scale", "memory_tokens") or name.startswith(
            ("to_logits.", "project_emb.", "post_emb_norm.")
        ):
            out[name] = value
        else:
            raise KeyError(name)
    for name in [name for name in out if name.endswith("qk_norm.q_scale") and not old]:
        out[name] = out[name] * options["attn_dim_head"] ** -0.5 / 10  # today's scores have the plain factor then
    for node, weights in parts.items():
        attrs = stack.graph.nx.nodes[node]
        q, k, v = weights["to_q"], weights["to_k"], weights.get("to_v", weights["to_k"][:0])
        if attrs["block"] == "c":
            out[f"{prefix}blocks.{node}.layer.to_q.weight"] = q
            out[f"{prefix}blocks.{node}.layer.to_kv.weight"] = torch.cat((k, v))
            continue
        positions = stack.graph.sources(node, "position")
        for position in (position for position in positions if position.startswith("rotary")):
            rotated, heads = stack.graph.nx.nodes[position]["dim"], attrs["options"]["heads"]
            q, k = paired(q, rotated, heads), paired(k, rotated, heads * len(k) // len(q))
        if options.get("attn_kv_heads"):
            name = f"{prefix}blocks.{node}.layer.output.to_out.weight"
            q, out[name] = regrouped(q, options), regrouped(out[name].T, options).T
        out[f"{prefix}blocks.{node}.layer.to_qkv.weight"] = torch.cat((q, k, v))
    return out


def is_post_norm(options: dict[str, Any]) -> bool:
    return options.get("pre_norm") is False or "deepnorm" in options


def position_name(bare: str, peer: dict[str, Tensor]) -> str:
    if found := re.fullmatch(r"rel_pos\.mlp\.(\d)\.(?:0\.)?(weight|bias)", bare):
        last = max(int(name.split("rel_pos.mlp.")[1][0]) for name in peer if "rel_pos.mlp." in name)
        return f"to_bias.{found[2]}" if int(found[1]) == last else f"layers.{found[1]}.{found[2]}"
    return {"relative_attention_bias.weight": "buckets.weight", "learned_logslopes": "log_slopes"}[bare[8:]]


def regrouped(weight: Tensor, options: dict[str, Any]) -> Tensor:
    """The peer's head i reads key-value head i modulo their number; our heads of one group stand together."""
    groups, heads = options["attn_kv_heads"], options["heads"]
    return weight.reshape(heads // groups, groups, -1, weight.shape[-1]).transpose(0, 1).reshape(weight.shape)


# Names inside an attention block, the peer's and ours.
ATTENTION = {
    "to_out.weight": "output.to_out.weight",
    "to_out.0.weight": "output.to_out.weight",
    "to_r.weight": "output.to_relation.weight",
    "to_v_gate.weight": "output.to_gate.weight",
    "to_v_gate.bias": "output.to_gate.bias",
    "head_scale_params": "output.head_scale",
    "mem_k": "memory.keys",
    "mem_v": "memory.values",
    "pre_softmax_talking_heads.weight": "talking_heads.before",
    "post_softmax_talking_heads.weight": "talking_heads.behind",
    "qk_norm_q_scale": "qk_norm.q_scale",
    "qk_norm_k_scale": "qk_norm.k_scale",
}


def reshaped(value: Tensor, attrs: dict[str, Any]) -> Tensor:
    """A tensor in our shape: the old release has one qk gain for all heads, and both keep axes of size one."""
    if value.ndim == 1 and value.shape[0] == attrs["options"]["dim_head"]:
        return value.expand(attrs["options"]["heads"], 1, -1)
    if value.ndim == 4:
        return value[0] if value.shape[0] == 1 else value[:, :, 0, 0]
    return value


def paired(weight: Tensor, rotated: int, heads: int) -> Tensor:
    """The peer turns neighbouring features together, we turn feature i with feature i + rotated / 2."""
    by_head = weight.reshape(heads, -1, weight.shape[1])
    order = [*range(0, rotated, 2), *range(1, rotated, 2), *range(rotated, by_head.shape[1])]
    return by_head[:, order].reshape(weight.shape)
