"""Attention: projections, masks, the kernel."""

from .attention import Attention, CrossAttention
from .masks import Attend, Masks

__all__ = ["Attend", "Attention", "CrossAttention", "Masks"]
