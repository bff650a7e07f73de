"""argparse's parser, which names the option, command or value that was probably meant.

Owns what is said of a command line that cannot be read. The commands own their arguments.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from blockdsl.errors import did_you_mean, nearest
from blockdsl.registry.settings import table

_CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)")
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")


class Parser(argparse.ArgumentParser):
    """One for the whole and, by argparse, one for each command."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = sys.argv[1:] if args is None else [*args]
        for word in words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                break  # the rest is for another parser, or no options
            if self._is_unknown(word):
                self.error(f"there is no option {word.partition('=')[0]}; {self._hint(word)}")
        return super().parse_known_args(words, namespace)

    def _is_unknown(self, word: str) -> bool:
        """Whether argparse would take it for an option, and not know it."""
        if not word.startswith("-") or word == "-" or " " in word or _NUMBER.fullmatch(word):
            return False
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        return not any(flag.startswith(name) for flag in self._option_string_actions)

    def _hint(self, word: str) -> str:
        name = word.lstrip("-").partition("=")[0]
        flags = [flag[2:] for flag in self._option_string_actions if flag.startswith("--")]
        if name.replace("-", "_") in table() and "set" in flags:
            return f"a setting is given as --set {name.replace('-', '_')}=..."
        found = nearest(name, flags)
        return f"did you mean --{found}?" if found else f"`{self.prog} --help` lists them"

    def error(self, message: str) -> NoReturn:
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0":  # torchrun's first says it
            time.sleep(3.0)  # and the others wait until it has, as they end together
            self.exit(2)
        if choice := _CHOICE.search(message):
            hint = did_you_mean(choice[1], [name.strip("' ") for name in choice[2].split(",")])
            message += f"; {hint}" if hint else ""
        elif message.startswith("unrecognized arguments: "):
            message += "; a pattern with spaces is one argument, in quotes"
        super().error(message)
