"""Load weights saved by x-transformers into our models: releases up to 1.14 (1.x below) and from 1.32 on (2.x).

The same function, parametrised differently: names differ, rotary features are paired with their neighbours in 2.x and
across halves here, one matrix here holds queries, keys and values, 2.x stores gains minus one, and its grouped heads
interleave.

Where a release computes something else than our model of the same arguments, the model and its graph are changed to
match it (as `stack` and `attention` say). Where they cannot be, the loader refuses, or it warns by the option's name if
the weights are of use all the same: as a start for training, or where only some inputs are treated otherwise.

This file has the models around a stack. Nothing is changed before everything has been read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from blockdsl.errors import UserError
from blockdsl.registry.tokens import IMAGE_OPTIONS

from ..generation.autoregressive import AutoregressiveWrapper
from ..generation.continuous_autoregressive import ContinuousAutoregressiveWrapper
from ..generation.nonautoregressive import NonAutoregressiveWrapper
from ..generation.seq2seq import XTransformer
from ..generation.xl_autoregressive import XLAutoregressiveWrapper
from ..models.continuous import ContinuousTransformerWrapper
from ..models.transformer import TransformerWrapper
from ..models.vision import ViTransformerWrapper
from ..runtime.stack import Stack
from . import names
from .attention import ScoreContext, load_attention
from .linear import load_linear, load_norm
from .positions import load_absolute
from .reader import Reader
from .stack import load_alone, load_within, stays_pre_norm, unwrapped

Model = Any


def load_x_transformers(model: Model, state_dict: Mapping[str, Tensor], release: int | str | None = None) -> Model:
    """Fill a model with weights of an x-transformers model that was built with the same arguments.

    Args:
        model: ours: a stack, a wrapper, or a wrapper around one, compiled or not. It is changed in place, once all is
            known to fit.
        state_dict: of the x-transformers model. What torch.compile and data parallelism put before names does not
            matter, nor whether it is that of an AutoregressiveWrapper or of its net.
        release: of x-transformers, as "2.11.0"; 1 or 2 for the last that is read in that way. Told from the names if
            None, which do not tell minor versions. From 1.15 to 1.31 none is read.

    Returns:
        The model.

    Warns:
        UserWarning: the weights are loaded, and x-transformers computes something else with them; the message says
            what, and names the option.

    Raises:
        TypeError: the model's class is not supported, or state_dict is no state dict.
        UserError: names are missing, unexpected or of another size, the release cannot be told, or x-transformers
            computes what this model cannot. The model is then as it was.
    """
    state = names.below(names.tensors(state_dict), *_root(model))
    version = names.release_of(state) if release is None else names.version_of(release)
    reader = Reader(state, version, told=release is None)
    offset = all(getattr(module, "norm_add_unit_offset", True) for module in unwrapped(model).modules())
    if reader.told and not reader.old and offset and names.gains_around_one(state):
        reader.warn(
            "use_rmsnorm, use_scalenorm: the gains are around one, and are read as stored less one, as they are since "
            "1.32; from 1.15 to 1.31, of which no weights are read, they are not"
        )
    _load(model, reader)
    record, kind = reader.record, 1 if reader.old else 2
    if record.refused:
        why = f"x-transformers {kind}.x computes what this model cannot with these weights:"
        raise UserError("\n  ".join([why, *record.refused]))
    problems = [
        *(f"missing: {name}" for name in record.missing),
        *(f"unexpected: {name}" for name in reader.unused() if not _is_buffer(name)),
        *(f"of another size: {fault}" if "the model's is" in fault else fault for fault in record.wrong),
        *(f"not there: {name} of the model" for name in reader.unfilled(model)),
    ]
    if problems:
        hint = f"(read as of release {kind}.x; the two models must be built with the same arguments)"
        raise UserError("\n  ".join([f"these weights do not fit the model {hint}:", *problems]))
    reader.commit()
    for what in record.warned:
        warnings.warn(what, stacklevel=2)
    return model


def _is_buffer(name: str) -> bool:
    return name.endswith(("inv_freq", ".slopes", "rotary_pos_emb.scale"))


def _load(model: Model, state: Reader) -> None:
    model = unwrapped(model)
    _LOADERS[_type_of(model)](model, state)


def _type_of(model: Model) -> type:
    for model_type in _LOADERS:
        if isinstance(model, model_type):
            return model_type
    raise TypeError(f"cannot load x-transformers weights into a {type(model).__name__}")


def _root(model: Model) -> tuple[str, str]:
    """What one of its names starts with, and "net." if it has a net inside, else ""."""
    model = unwrapped(model)
    root = _ROOTS.get(_type_of(model))
    return ("net." + _root(model.net)[0], "net.") if root is None else (root, "")


# Wrappers -----------------------------------------------------------------------------------------------------------


def _load_net(model: Any, state: Reader) -> None:
    _load(model.net, state.under("net."))


def _load_nonautoregressive(model: Any, state: Reader) -> None:
    _load_net(model, state)
    if model.null_embed is not None:
        state.fill(model.null_embed, "null_embed")
        load_linear(model.to_self_cond, state, "to_self_cond")
    critic = state.under("token_critic.")
    if model.token_critic is not None:
        _load(model.token_critic, critic)
    elif model.to_critic is not None:
        load_linear(model.to_critic, critic, "to_logits")
        for name in critic.names("net."):  # a critic of itself: the net once more
            critic.skip(name)


def _load_seq2seq(model: Any, state: Reader) -> None:
    _check_seq2seq(model, state)
    _load(model.encoder, state.under("encoder."))
    _load(model.decoder, state.under("decoder."))
    for name in ("encoder.to_logits.weight", "encoder.to_logits.bias"):
        state.skip(name)  # 1.x gives its encoder logits, unused


def _check_seq2seq(model: Any, state: Reader) -> None:
    """What XTransformer of x-transformers takes and ignores, or understands otherwise."""
    sides = ("enc", "encoder.", model.encoder), ("dec", "decoder.net.", model.decoder.net)
    for prefix, _, net in sides:
        if state.old and net.unit:
            state.refuse(f"{prefix}_l2norm_embed: XTransformer of 1.x ignores it; leave it out")
    if any(stays_pre_norm(net.attn_layers, state.under(f"{place}attn_layers.")) for _, place, net in sides):
        state.refuse(
            "deepnorm: XTransformer of 1.x stays pre-norm with it. In its place give enc_scale_residual=True, "
            "dec_scale_residual=True, enc_scale_residual_constant=0.81 * (N**4 * M) ** 0.0625 and "
            "dec_scale_residual_constant=(3 * M) ** 0.25, where N and M are their depths"
            if state.old
            else "deepnorm: XTransformer of 2.x ignores it; leave it out"
        )


def _load_tokens(model: Any, state: Reader) -> None:
    state.fill(model.token_emb.weight, "token_emb.emb.weight")
    load_absolute(model.pos_emb, state)
    if model.max_mem_len:
        _check_memories(model, state)
    _load_embedded(model, state)
    if isinstance(model.project_emb, nn.Linear):
        load_linear(model.project_emb, state, "project_emb")
    _load_pool(model, state)
    if model.to_logits is not None:
        load_linear(model.to_logits, state, "to_logits")
    elif model.logits_scale == model.dim**-0.5 and not state.since(
        (2, 31), "tie_embedding", "multiply its logits by dim ** -0.5"
    ):
        state.warn(
            "tie_embedding: before 2.31 tied logits are not multiplied by dim ** -0.5, and this model's are; give it "
            "logits_scale=1"
        )


def _load_pool(model: Any, state: Reader) -> None:
    """Class tokens, or the attention that pools."""
    if model.pooler is not None:
        state.refuse("pooler: x-transformers does not have it")
    if model.cls_tokens is not None:
        state.fill(model.cls_tokens, "cls_token")
    if (pool := model.attention_pool) is None:
        return
    if pool.feedforward is not None:
        state.refuse("pool_inner: x-transformers has no feedforward there with attn_pool_depth=1; give pool_inner=0")
        return
    state.fill(pool.query, "attn_pool.queries")
    of_pool = state.under("attn_pool.pooler.")
    load_attention(pool.attention, of_pool, 0, ScoreContext(False, False), [{**vars(pool.attention.options)}])
    if model.to_logits is None:  # which are not returned there
        state.skip("to_logits.weight")


def _check_memories(model: Any, state: Reader) -> None:
    """Where x-transformers reads earlier segments in another way."""
    if model.num_memory_tokens:
        state.warn("num_memory_tokens with max_mem_len: x-transformers puts them before every segment, not the first")
    nodes = [model.graph.nx.nodes[node] for node in model.graph.nodes("block")]
    if any(node["shift"] for node in nodes):
        state.warn("shift_tokens with max_mem_len: x-transformers shifts nothing into a segment from the one before")
    if state.old and any(node["kind"] == "a" and node["options"]["pre_norm"] for node in nodes):
        state.warn("max_mem_len: 1.x reads earlier segments before the block's norm, and this model after it")


def _load_continuous(model: Any, state: Reader) -> None:
    load_absolute(model.pos_emb, state)
    if model.max_mem_len:
        _check_memories(model, state)
    _load_embedded(model, state)
    for name in ("project_in", "project_out"):
        if isinstance(getattr(model, name), nn.Linear):
            load_linear(getattr(model, name), state, name)


_OF_THEIR_VISION = (
    *("image_size", "patch_size", "channels", "num_classes", "num_register_tokens", "post_emb_norm", "emb_dropout"),
)


def _load_vision(model: Any, state: Reader) -> None:
    said = model.graph.model_options()
    others = [option for option in IMAGE_OPTIONS if option.name not in _OF_THEIR_VISION]
    if own := [option.name for option in others if said[option.name] != option.default]:
        return state.refuse(f"{', '.join(own)}: x-transformers does not have it")
    patches = model.patch_emb
    load_norm(patches.norm_in, state.under("patch_to_embedding.0."), shifted=False)
    load_linear(patches.project, state, "patch_to_embedding.1")
    load_norm(patches.norm_out, state.under("patch_to_embedding.2."), shifted=False)
    count, dim = model.pos_emb.weight.shape
    positions = state.need("pos_embedding", shape=(1, count + state.old, dim))  # 1.x has one row more than patches
    state.put(model.pos_emb.weight, None if positions is None else positions[0, :count], "pos_embedding")
    if model.registers is not None:
        state.fill(model.registers, "register_tokens")
    _load_embedded(model, state)
    if model.to_classes is not None:
        load_linear(model.to_classes, state, "mlp_head")


def _load_embedded(model: Any, state: Reader) -> None:
    """What every wrapper has: the norm of its embedding, memory tokens, the stack."""
    if isinstance(model.post_emb_norm, nn.LayerNorm):
        load_norm(model.post_emb_norm, state.under("post_emb_norm."), shifted=False)
    if getattr(model, "memory_tokens", None) is not None:
        state.fill(model.memory_tokens, "memory_tokens")
    load_within(model, state)


_LOADERS: dict[type, Callable[[Any, Reader], None]] = {
    XTransformer: _load_seq2seq,
    AutoregressiveWrapper: _load_net,
    XLAutoregressiveWrapper: _load_net,
    ContinuousAutoregressiveWrapper: _load_net,
    NonAutoregressiveWrapper: _load_nonautoregressive,
    TransformerWrapper: _load_tokens,
    ContinuousTransformerWrapper: _load_continuous,
    ViTransformerWrapper: _load_vision,
    Stack: load_alone,
}

# Model → what one of its names starts with; those that are not here have a net inside.
_ROOTS: dict[type, str] = {
    XTransformer: "encoder.token_emb.",
    TransformerWrapper: "token_emb.emb.",
    ContinuousTransformerWrapper: "attn_layers.layers.0.",
    ViTransformerWrapper: "patch_to_embedding.",
    Stack: "layers.0.",
}
