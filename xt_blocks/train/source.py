"""Where a run's data is: a folder of tokens, text files, or the standard library.

Owns that choice.
"""

from __future__ import annotations

from pathlib import Path

from .data import Corpus, load_corpus
from .settings import TrainSettings
from .token_files import TokenCorpus, open_tokens


def load_data(settings: TrainSettings) -> Corpus | TokenCorpus:
    """The data of a run. Raises UserError when it cannot be used."""
    if settings.data is not None:
        return open_tokens(Path(settings.data), settings.seq_len)
    return load_corpus(settings.text, settings.seq_len)
