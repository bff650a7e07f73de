"""All programs: importing this fills PROGRAMS."""

from . import biology, language, layers, models, music, robots, speech, surgery, texts, vision  # noqa: F401
from .programs import PROGRAMS as PROGRAMS
