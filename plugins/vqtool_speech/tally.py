"""What was found in the files of a folder: a sentence for each kind, with the count and the first names."""

from __future__ import annotations

NAMED = 3  # files that a sentence names


class Tally:
    """Files by what was found in them, in the order in which it was."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[str]] = {}

    def add(self, what: str, name: str, detail: str = "") -> None:
        """Count a file: `what` completes "2 files are ..."."""
        self.kinds.setdefault(what, []).append(f"`{name}`{detail and f' ({detail})'}")

    def sentences(self, of: str = "file") -> list[str]:
        """ "2 files are silent: `a.wav`, `b.wav`", and so on."""
        made = []
        for what, names in self.kinds.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            many = f"{len(names)} {of}s are" if len(names) > 1 else f"1 {of} is"
            made.append(f"{many} {what}: {', '.join(names[:NAMED])}{more}")
        return made
