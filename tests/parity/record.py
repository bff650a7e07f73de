"""Records numbers of the installed x-transformers for machines without it: `python -m tests.parity.record`.

It writes `data/x_transformers_<release>_loading.json`: models of which the loader has to know more than names and
sizes; `..._wiring.json`: models that differ in how blocks are joined; and
`..._pooling.json`: models that give a vector of a sequence. The other files of `data` were made in the
same way.
"""

from __future__ import annotations

import base64
import json
from importlib.metadata import version
from typing import Any

import numpy as np

from . import peer

Case = dict[str, Any]

TOKENS = {"kind": "ints", "shape": [2, 8], "seed": 0, "high": 17}
CONTEXT = {"kind": "floats", "shape": [2, 5, 32], "seed": 3}
WIDE = {"kind": "floats", "shape": [2, 32], "seed": 4}
NARROW = {"kind": "floats", "shape": [2, 6], "seed": 5}
BOTH_NORMS = {"pre_and_post_norm": True, "use_scalenorm": True}
ADAPTIVE = {
    **{"use_adaptive_rmsnorm": True, "use_adaptive_layerscale": True, "dim_condition": 6},
    **{"adaptive_condition_mlp": True, "adaptive_condition_mlp_expansion": 2},
}


def case(name: str, layers: Case, there: Case | None = None, cls: str = "Decoder", **more: Any) -> Case:
    """One over tokens. `there`: the stack's keywords as x-transformers has them, where they differ."""
    out = {"name": name, "wrapper": "TransformerWrapper", "wrapper_kwargs": {"num_tokens": 17, "max_seq_len": 12}}
    out |= {"layers_class": cls, "layers": layers, "args": [TOKENS], **more}
    return out if there is None else out | {"layers_there": there}


OTHER_WIDTH = {"cross_attend": True, "cross_attn_dim_context": 24}
THERE = {"cross_attend": True, "rotary_pos_emb": True, "attn_dim_head": 32}
ROTATED = THERE | {"cross_attn_rotary": True}
PLACES = {"kind": "ints", "shape": [2, 5], "seed": 5, "high": 30}
BOUNDED = {"softclamp_output": True, "softclamp_output_value": 0.5}
FORGET = {"heads": 4, "attn_dim_head": 8, "attn_kv_heads": 2, "attn_num_mem_kv": 1}
ZERO_KEY = {"attn_add_zero_kv": True, "attn_k_rmsnorm": True, "attn_value_rmsnorm": True, "rotary_pos_emb": True}
DISTANCE = {"attn_l2_distance": True, "attn_laser": True, "heads": 4, "attn_dim_head": 8, "attn_kv_heads": 2}
GATES = {"attn_gate_values": True, "attn_gate_values_headwise": True, "ff_glu": True, "ff_glu_mult_bias": True}
LOW_RANK = {
    **{"attn_gate_values": True, "attn_gate_values_rank": 5, "attn_gate_value_heads": True},
    **{"attn_output_gate": True, "attn_output_gate_rank": 6, "heads": 4, "attn_dim_head": 8, "attn_kv_heads": 2},
}
CASES = {
    1: [
        case("deepnorm_macaron", {"deepnorm": True, "macaron": True}),
        case("deepnorm_cross", {"deepnorm": True, "cross_attend": True}, kwargs={"context": CONTEXT}),
        case("deepnorm_sandwich_coef", {"deepnorm": True, "macaron": True, "depth": 3, "sandwich_coef": 1}),
        case("deepnorm_gate_residual", {"deepnorm": True, "gate_residual": True}),
        case("gate_residual_constant", {"gate_residual": True, "scale_residual_constant": 1.5}),
        case("macaron_sandwich_norm", {"macaron": True, "sandwich_norm": True}),
        case("macaron_sandwich_norm_shift", {"macaron": True, "sandwich_norm": True, "shift_tokens": 1}),
    ],
    2: [
        case("gate_residual_constant", {"gate_residual": True, "scale_residual_constant": 1.5}),
        case("macaron_sandwich_norm", {"macaron": True, "sandwich_norm": True, "ff_glu": True, "ff_no_bias": True}),
        case("one_head", {"heads": 1, "attn_dim_head": 32}),
        case("one_head_values", {"heads": 1, "attn_dim_head": 8, "attn_value_dim_head": 32, "attn_qk_norm": True}),
        case("qk_groups_rotary", {"attn_qk_norm": True, "attn_qk_norm_groups": 2, "rotary_pos_emb": True}),
        case("qk_dim_scale", {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True, "attn_qk_norm_scale": 0}),
        case("pre_talking_heads", {"attn_talking_heads": True}, {"attn_pre_talking_heads": True}),
        case("post_talking_heads", {"attn_talking_heads": True}, {"attn_post_talking_heads": True}),
        case("tied_layers", {"pattern": "(a@x f@y)*3"}, {"depth": 3, "weight_tie_layers": True}),
        case("attention_alone", {"pattern": "a a", "use_rmsnorm": True}, {"only_attn": True, "use_rmsnorm": True}),
        case("post_norm_rmsnorm", {"pre_norm": False, "use_rmsnorm": True}),
        case("adaptive_layernorm", {"use_adaptive_layernorm": True, "sandwich_norm": True}, kwargs={"condition": WIDE}),
        case("adaptive_rmsnorm_of_tokens", ADAPTIVE, kwargs={"condition": NARROW | {"shape": [2, 8, 6]}}),
        case("adaptive_post_norm", ADAPTIVE | {"pre_norm": False, "macaron": True}, kwargs={"condition": NARROW}),
        case(
            "pre_and_post_norm, layer scale",
            BOTH_NORMS | {"layer_scale": 0.5, "branch_scale": 0.6},
            BOTH_NORMS | {"use_layerscale": True, "layerscale_init_value": 0.5, "depth_scale_residual": 0.6},
        ),
        case("simple_rmsnorm", {"use_simple_rmsnorm": True, "ff_sublayer_dropout": 0.1, "attn_sublayer_dropout": 0.1}),
        case("context_width", OTHER_WIDTH, kwargs={"context": CONTEXT | {"shape": [2, 5, 24]}}),
        case("context_rotated", ROTATED, THERE, kwargs={"context": CONTEXT, "context_pos": PLACES}),
        case("zero_key_norms", ZERO_KEY),
        case("sigmoid", {"attn_sigmoid": True, "attn_num_mem_kv": 2}),
        case("distance_laser", {"attn_laser_softcap": 2.0} | DISTANCE, {"attn_laser_softclamp_value": 2.0} | DISTANCE),
        case("gates_by_head", GATES),
        case("gates_of_low_rank", LOW_RANK),
        case(
            "gates_by_the_output",
            {"attn_output_gate": True, "attn_output_gate_headwise": True, "attn_swiglu_values": True},
        ),
        case("topk_straight_through", {"attn_sparse_topk": 3, "attn_sparse_topk_straight_through": True}),
        case("hard", {"attn_sparse_topk": 1, "attn_sparse_topk_straight_through": True}, {"attn_hard": True}),
        case("signed", {"attn_cog_signed": True, "attn_num_mem_kv": 2, "alibi_pos_bias": True}),
        case("bounded_output", {"output_softcap": 0.5}, BOUNDED),
        case("forget_gate", {"attn_forget_gate": True} | FORGET, {"attn_data_dependent_alibi": True} | FORGET),
    ],
}

STREAMS = {"num_residual_streams": 3}
WIRING = {
    1: [],
    2: [
        case("streams", STREAMS),
        case("streams_post_norm", STREAMS | {"pre_norm": False, "use_rmsnorm": True}),
        case("injected", {"reinject_input": True, "use_rmsnorm": True}),
        case("injected_gated", {"reinject_input": True, "learned_reinject_input_gate": True, "pre_norm": False}),
        case("skips", {"unet_skips": True, "depth": 5}),
        case("values_learned", {"add_value_residual": True, "rotary_pos_emb": True, "depth": 3}),
        case("values_half", {"add_value_residual": True, "learned_value_residual_mix": False, "attn_kv_heads": 1}),
        case("skips_streams_values", STREAMS | {"unet_skips": True, "depth": 2, "add_value_residual": True}),
        case("streams_cross", STREAMS | {"cross_attend": True, "shift_tokens": 1}, kwargs={"context": CONTEXT}),
    ],
}


def pooled(name: str, around: Case, there: Case, **layers: Any) -> Case:
    """One that gives a vector of a sequence; `there`: the model's keywords as x-transformers has them."""
    both = {"num_tokens": 17, "max_seq_len": 12}
    return case(name, layers, cls="Encoder", wrapper_kwargs=both | around, wrapper_there=both | there)


QUERIES = {"pool_heads": 2, "pool_dim_head": 16, "pool_bias": False, "pool_inner": 0, "return_only_embed": True}
POOLING = {
    1: [],
    2: [
        pooled("cls", {"pool": "cls"}, {"use_cls_token": True}),
        pooled(
            "several_cls",
            {"pool": "cls", "num_cls_tokens": 3, "num_memory_tokens": 2},
            {"use_cls_token": True, "num_cls_tokens": 3, "num_memory_tokens": 2},
            rel_pos_bias=True,
        ),
        pooled(
            "mean_squeezed",
            {"pool": "mean", "logits_dim": 1, "squeeze_out_last_dim": True},
            {"average_pool_embed": True, "logits_dim": 1, "squeeze_out_last_dim": True},
        ),
        pooled(
            "attention_pool",
            {"pool": "attention", "num_pooled_tokens": 3} | QUERIES,
            {"attn_pool": True, "num_pooled_tokens": 3},
        ),
    ],
}


def recorded(one: Case) -> Case:
    """The case with the shapes of the other library's parameters and its output for those of `peer.peer_state`."""
    import x_transformers

    options = peer.BASE | one.get("layers_there", one["layers"])
    stack = getattr(x_transformers, one["layers_class"])(**options)
    model = getattr(x_transformers, one["wrapper"])(
        attn_layers=stack, **one.get("wrapper_there", one["wrapper_kwargs"])
    ).eval()
    one = one | {"state": {name: list(parameter.shape) for name, parameter in model.named_parameters()}}
    model.load_state_dict(peer.peer_state(one), strict=False)
    out = peer.output(one, model).numpy().astype("<f4")
    text = base64.b64encode(np.ascontiguousarray(out).tobytes()).decode()
    return one | {"output": {"shape": list(out.shape), "f32": text}}


def main() -> None:
    release = version("x-transformers")
    for kind, cases in (("loading", CASES), ("wiring", WIRING), ("pooling", POOLING)):
        path = peer.FOLDER / f"x_transformers_{release.replace('.', '_')}_{kind}.json"
        path.write_text(json.dumps([recorded(one) for one in cases[int(release[0])]]))
        print(path)


if __name__ == "__main__":
    main()
