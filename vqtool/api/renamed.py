"""Former names of options: `min_distance: Annotated[int, Renamed("apart"), Doc(...)]`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Renamed:
    """Marks an option that had another name: recipes and checkpoints may still use it, and a recipe gets a warning."""

    old: str
