"""Texts with two sides, and encoders that do or do not show the side they are asked for."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.tasks.labelings import Labelled

PLACES, COLOURS = ("sea", "wood", "town"), ("red", "green", "blue")
PLACE, COLOUR = "Where is it?", "Which colour is it?"


def two_sides(each: int = 20) -> Labelled:
    """``each`` texts of every place and colour: nine groups with independent places and colours."""
    sides = [(p, c, i) for i in range(each) for p in range(3) for c in range(3)]
    texts = [f"{PLACES[p]} {COLOURS[c]} {i}" for p, c, i in sides]
    return Labelled(
        texts,
        {"place": np.array([p for p, _, _ in sides]), "colour": np.array([c for _, c, _ in sides])},
    )


@dataclass(frozen=True)
class Hearing:
    """The place one-hot, or the colour where the instruction asks for it."""

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts, *, instruction=""):
        side, names = (1, COLOURS) if "colour" in instruction else (0, PLACES)
        return np.eye(4, dtype=np.float32)[[names.index(text.split()[side]) for text in texts]]


@dataclass(frozen=True)
class Deaf:
    """Place and colour together with something of the text itself, whatever the instruction."""

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts, *, instruction=""):
        sides = [
            [PLACES.index(p), 3 + COLOURS.index(c), 6 + int(i) % 5]
            for p, c, i in (text.split()[:3] for text in texts)
        ]
        return np.eye(11, dtype=np.float32)[sides].sum(axis=1) * np.linspace(
            1, 2, 11, dtype=np.float32
        )
