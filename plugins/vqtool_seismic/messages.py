"""Parts of messages about seismograms: names and reasons, of which there may be thousands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vqtool.errors import counted

MOST = 5  # names or reasons in a message
LONGEST_NAME, LONGEST = 60, 1000  # characters


def shown(name: str) -> str:
    """A name as part of a message: quoted, and shortened where it is long."""
    name = name if name.isprintable() else ascii(name)[1:-1]
    return f"`{name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + '...'}`"


def listed(names: Iterable[str], most: int = MOST) -> str:
    """The first few different names, and how many more there are."""
    each = list(dict.fromkeys(names))
    more = f" and {len(each) - most:,} more" if len(each) > most else ""
    return ", ".join(map(shown, each[:most])) + more


def in_brief(notes: Sequence[str]) -> str:
    """Notes as one text that is not too long."""
    made: list[str] = []
    left = LONGEST
    for note in notes:
        left -= len(note)
        if made and left < 0:
            return "; ".join([*made, f"and {len(notes) - len(made)} more"])
        made.append(note if len(note) <= LONGEST else note[:LONGEST] + "...")
    return "; ".join(made)


def in_brackets(skipped: Mapping[str, int]) -> str:
    """Reasons why something was left out, and how often, to end a message with; the most frequent ones."""
    each = sorted(skipped.items(), key=lambda pair: -pair[1])
    texts = [f"{count}: {reason}" for reason, count in each[:MOST]]
    if len(each) > MOST:
        texts.append(f"{counted(len(each) - MOST, 'other reason')}")
    return f" ({'; '.join(texts)})" if texts else ""
