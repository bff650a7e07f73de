"""Stacks that take the keywords of every release, and read as x-transformers' do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import layers as ours
from ..runtime.cache import Cache
from ..runtime.intermediates import Intermediates
from ..runtime.memories import Memories
from ..runtime.stack import Stack
from .checkpoints import reads_checkpoints
from .keywords import stack_keywords_of, without_unset
from .layers import as_theirs
from .modules import RotaryEmbedding
from .settable import Settable
from .triples import triples

Mems = Memories | Sequence[Tensor | None] | None


class AttentionLayers(Settable, ours.AttentionLayers):
    """`xt_blocks.AttentionLayers`, with the keywords of x-transformers 1.x and 2.x; see `keywords`.

    Attributes:
        depth: as given.
        disable_abs_pos_emb: as given: the model around the stack then has no absolute positions.
        norm_add_unit_offset: as given: whether gains in a state dict of x-transformers are less one.
    """

    def __init__(self, dim: int | None = None, depth: int | None = None, heads: int = 8, **keywords: Any) -> None:
        name = type(self).__name__
        given = stack_keywords_of(name, {"dim": dim, "depth": depth, "heads": heads, **keywords})
        disabled = given.pop("disable_abs_pos_emb", None)
        super().__init__(**without_unset(given, ours.stack_keywords()))
        self.depth, self.disable_abs_pos_emb = depth, disabled
        self.norm_add_unit_offset = keywords.get("norm_add_unit_offset", True)
        for block in self.blocks.values():
            as_theirs(block.layer)  # type: ignore[arg-type]
        reads_checkpoints(self)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        self_attn_kv_mask: Tensor | None = None,
        mems: Mems = None,
        mem_masks: Sequence[Tensor | None] | None = None,
        seq_start_pos: Tensor | None = None,
        cache: Cache | Intermediates | None = None,
        input_not_include_cache: bool = False,
        **inputs: Any,
    ) -> Any:
        """As `Stack.forward`, and also:

        Args:
            self_attn_kv_mask: 2.x's name for self_attn_context_mask.
            mems: Memories, or a list of tensors.
            mem_masks: a list of masks (batch, tokens), all alike.
            seq_start_pos: (batch,) int, how many places of left padding each row has.
            input_not_include_cache: with Intermediates as cache, x has only new tokens, of any number.
        """
        if self_attn_kv_mask is not None:
            inputs["self_attn_context_mask"] = self_attn_kv_mask
        if input_not_include_cache and isinstance(cache, Intermediates):
            x, mask = preceded(cache.tokens, x, mask)
        mask = masked_from(x, seq_start_pos, mask, cache)
        mems = mems_of(self, mems, mem_masks)
        return super().forward(x, context, mask, context_mask, attn_mask, mems=mems, cache=cache, **inputs)

    # Attributes of x-transformers ------------------------------------------------------------------------------------

    @property
    def layer_types(self) -> tuple[str, ...]:
        """The kind of each block in order."""
        return tuple(self.graph.nx.nodes[step.node]["kind"] for step in self.plan if step.block is not None)

    @property
    def layers(self) -> nn.ModuleList:
        """For each block in order ((pre-norm, norm of the branch, post-norm), layer, residual); see `triples`."""
        return triples([self.blocks[step.block] for step in self.plan if step.block is not None])  # type: ignore[misc]

    @property
    def layers_execute_order(self) -> tuple[int, ...]:
        """The layers in the order they run: each once, a repeated one in each of its places."""
        return tuple(range(len(self.layer_types)))

    @property
    def num_attn_layers(self) -> int:
        """How many self-attentions there are."""
        return len(self.attending)

    @property
    def has_pos_emb(self) -> bool:
        """Whether blocks read positions: rotary ones or a bias."""
        return self.reads_positions

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one."""
        return self.graph.causal

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block."""
        return self.norm

    @final_norm.setter
    def final_norm(self, norm: nn.Module) -> None:
        self.norm = norm

    @property
    def rotary_pos_emb(self) -> RotaryEmbedding | None:
        """Angles like those of the first self-attention, to be read; None: there are none."""
        for rotary in self.rotary.values():
            base = rotary.xpos_scale_base
            own = RotaryEmbedding(rotary.dim, use_xpos=base is not None, scale_base=base or 512, base=rotary.theta)
            return own.to(_device(self))
        return None

    @property
    def dim_condition(self) -> int:
        """Features of the condition that norms and layer scales read; of the stream where none does."""
        return self.graph.condition[0] or self.dim

    @property
    def need_condition(self) -> bool:
        """Whether a norm or a layer scale reads a condition."""
        return bool(self.graph.condition[0])

    @property
    def can_cross_attend(self) -> bool:
        """Whether a block attends to a context."""
        return self.reads_context


class Encoder(AttentionLayers, ours.Encoder):
    """`xt_blocks.Encoder` with the keywords of x-transformers."""


class Decoder(AttentionLayers, ours.Decoder):
    """`xt_blocks.Decoder` with the keywords of x-transformers."""


class CrossAttender(AttentionLayers, ours.CrossAttender):
    """`xt_blocks.CrossAttender` with the keywords of x-transformers."""


def _device(module: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in module.parameters()), None)


# Inputs, for models too ----------------------------------------------------------------------------------------------


def masked_from(
    x: Tensor, start: Tensor | None, mask: Tensor | None, cache: Cache | Intermediates | None
) -> Tensor | None:
    """(batch, seq) bool: `mask` without the places before each row's start."""
    held = cache.sequence.length or cache.length if isinstance(cache, Cache) else 0
    if start is None or (cache is not None and x.shape[1] == 1):  # a new token is real
        return mask
    real = torch.arange(held, held + x.shape[1], device=x.device, dtype=torch.int64) >= start[:, None]
    return real if mask is None else mask & real


def preceded(held: int, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """New tokens after `held` places, whose content is not read: a whole sequence, as steps by hand take it."""
    before = x.new_zeros(x.shape[0], held, *x.shape[2:])
    return torch.cat((before, x), dim=1), None if mask is None else F.pad(mask, (held, 0), value=True)


def mems_of(stack: Stack, mems: Mems, mem_masks: Sequence[Tensor | None] | None) -> Memories | None:
    """Memories from what clients hand on.

    Raises:
        ValueError: masks differ by layer.
    """
    if isinstance(mems, list | tuple) and all(one is None for one in mems):
        mems = None
    memories = stack.memories(mems)  # type: ignore[arg-type]
    masks = [mask for mask in mem_masks or () if mask is not None]
    if memories is None or not masks:
        return memories
    if len(masks) != len(mem_masks or ()) or any(not torch.equal(mask, masks[0]) for mask in masks):
        raise ValueError("mem_masks differ from layer to layer; here the memories of all layers have one mask")
    return replace(memories, mask=masks[0])
