"""Names for places of the stream, so that what reads a place can say which: `^u` at one, `<u(pop)` at the other.

Owns the choice of names and of the words at reads, by the rules of `language.expand`. Places and readers are numbers
here: a place stands after so many items of the stream, and a reader has so many before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

Occurrences = Mapping[str, Sequence[int]]
"""Name → the places that have it, ascending."""


@dataclass(frozen=True)
class Wish:
    """What a reader reads: these places, ascending.

    `words`: it can say which, as a read can; an option of a block reads what is written last.
    """

    at: int
    places: tuple[int, ...]
    words: bool = True


@dataclass(frozen=True)
class Naming:
    """Names of places, and for each reader which name it reads, with the word that says how: latest, pop, all, ..."""

    occurrences: Occurrences
    answers: tuple[tuple[str, str | int], ...]


def namings(kept: Occurrences, wishes: Sequence[Wish], taken: Iterable[str]) -> Iterator[Naming]:
    """Ways to name the places that `wishes`, in the order of the text, read; there is at least one.

    Args:
        kept: names that places have already. Where they do, no other is made up.
        taken: words that would mislead as a name.
    """
    left = [wish for wish, answer in zip(wishes, _answers(kept, wishes, set()), strict=True) if answer is None]
    for made_up in _made_up(left, {*kept, *taken}) if left else ({},):
        known = {**kept, **made_up}
        popped = [name for name, places in known.items() if len(places) > 1]
        for popping in (set(), {*popped}, *({name} for name in popped)):
            answers = _answers(known, wishes, popping)
            if None not in answers:
                found = tuple(answer for answer in answers if answer is not None)
                used = {name for name, _ in found}
                yield Naming({name: places for name, places in known.items() if name in used}, found)


def _answers(known: Occurrences, wishes: Sequence[Wish], popping: set[str]) -> list[tuple[str, str | int] | None]:
    """For each wish how it is said, None where it cannot be; reads of the names in `popping` take what they read."""
    gone: dict[str, set[int]] = {name: set() for name in known}
    ways: list[tuple[str, list[str | int]] | None] = []
    for wish in wishes:
        found: list[tuple[str, list[str | int]]] = []
        for name, places in known.items():
            live = [place for place in places if place <= wish.at and place not in gone[name]]
            if words := [*_words(live, wish, name in popping)]:
                found.append((name, words))
        ways.append(min(found, key=lambda way: _RANK.get(way[1][0], len(_RANK)), default=None))
        if (way := ways[-1]) is not None and way[1][0] == "pop":
            gone[way[0]].add(wish.places[0])
    usual = Counter((name, words[0]) for name, words in filter(None, ways) if len(words) == 1)
    return [way and (way[0], max(way[1], key=lambda word: usual[way[0], word])) for way in ways]


_RANK: dict[str | int, int] = {"pop": 0, "latest": 0, "all": 1, "first": 2}


def _words(live: Sequence[int], wish: Wish, pops: bool) -> Iterator[str | int]:
    """How a read of a name says these places, the best way first; only one that pops says no more than that."""
    if live and wish.places == (live[-1],):
        yield "pop" if pops and wish.words else "latest"
        if not wish.words or pops:
            return
    if wish.words and live:
        if wish.places == (*live,):
            yield "all"
        if wish.places == (live[0],):
            yield "first"
        if len(wish.places) == 1 and wish.places[0] in live:
            yield live.index(wish.places[0])


def _made_up(left: Sequence[Wish], taken: set[str]) -> Iterator[dict[str, tuple[int, ...]]]:
    """One name for all places that are read one by one, or one for each; several read together have their own."""
    names = (name for name in _names() if name not in taken)
    apart = {places: next(names) for places in dict.fromkeys(wish.places for wish in left)}
    yield {name: places for places, name in apart.items()}
    if len({*apart}) > 1:
        together = {place for wish in left for place in wish.places}
        yield {next(iter(apart.values())): tuple(sorted(together))}
        singles = {place for wish in left if len(wish.places) == 1 for place in wish.places}
        several = {name: places for places, name in apart.items() if len(places) > 1}
        if singles and several:
            yield {next(names): tuple(sorted(singles)), **several}


def _names() -> Iterator[str]:
    yield from "uvwxyz"
    yield from (f"u{number}" for number in count(1))
