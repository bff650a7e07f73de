"""One thread for torch: the tests' models are tiny, and threads on a shared machine only wait for one another."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=60, print_blob=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
