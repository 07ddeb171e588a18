"""Did you mean: the nearest known name to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The known name nearest to `word`, if any is near; `_` and `-`, upper and lower case count as alike."""
    import difflib

    plain = {_plain(name): name for name in names}
    found = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    if found:
        return plain[found[0]]
    begun = [name for key, name in plain.items() if len(word) > 2 and key.startswith(_plain(word))]
    return begun[0] if len(begun) == 1 else None


def did_you_mean(word: str, names: Iterable[str], *, otherwise: str | None = None) -> str | None:
    """A hint that names the nearest known name, else `otherwise`."""
    found = nearest(word, names)
    return f"did you mean `{found}`?" if found else otherwise


def listed(names: Iterable[str]) -> str:
    """Names in a sentence: `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return " and ".join(part for part in (", ".join(quoted[:-1]), *quoted[-1:]) if part)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
