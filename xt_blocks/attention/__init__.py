"""Attention: projections, masks, the kernel."""

from .attention import Attention, CrossAttention
from .kernel import Scores
from .masks import Attend, Bias, Masks, Sight

__all__ = ["Attend", "Attention", "Bias", "CrossAttention", "Masks", "Scores", "Sight"]
