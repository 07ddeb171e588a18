"""Options that are components themselves: `of = { kind = "vq", codebook_size = 1024 }`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Nested:
    """Marks an option whose value is a component of `role`; a recipe gives a table with a `kind`, or the kind alone.

    The constructor receives a callable that builds the component from its positional arguments: the class itself, a
    `functools.partial` of it, or what the catalog makes of the table. With `many`, a list of them is allowed too.
    """

    role: str
    many: bool = False
