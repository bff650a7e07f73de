"""What the blocks of a model do, cost and are worth: measurements of each, of which drawings and tables are made."""

from __future__ import annotations

from .figures import UNITS, recorded
from .importance import importance, next_token_loss
from .inputs import Call, example_call
from .profile import PRECISIONS, profile

__all__ = ["PRECISIONS", "UNITS", "Call", "example_call", "importance", "next_token_loss", "profile", "recorded"]
