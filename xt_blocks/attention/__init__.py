"""Attention: projections, masks, the kernel."""

from .attention import Attention, CrossAttention
from .masks import Attend, Masks, Sight

__all__ = ["Attend", "Attention", "CrossAttention", "Masks", "Sight"]
