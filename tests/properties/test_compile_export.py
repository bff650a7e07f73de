"""Each option of the table, by itself, compiles without a graph break and exports with a dynamic batch and length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import settings as hypothesis_settings

from blockdsl.reference import needs

from ..blocks.test_compile_export import NAMES
from ..blocks.variants import VARIANTS
from .models import _AROUND, _OF_STACK, Model, context_for, tokens, values
