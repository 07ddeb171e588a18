"""Trained models that a plugin carries along: their names, their files, and a recipe to train them on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A checkpoint in a plugin's package.

    Args:
        name: what people call it, where a checkpoint is asked for.
        weights: the checkpoint.
        recipe: what `vqtool train --from NAME` runs where no recipe is named.
    """

    name: str
    weights: Path
    recipe: Path
