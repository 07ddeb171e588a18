"""`vqtool new`: a recipe of one's own, copied from a shipped one with its sample data."""

from __future__ import annotations

from pathlib import Path

from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe import shipped
from vqtool.suggest import listed


def run(*, name: str, source: str | None) -> int:
    """Copy a recipe to NAME.toml; never overwrites a file."""
    target = Path(name if name.endswith(".toml") else f"{name}.toml")
    if target.name in (".toml", "..toml"):
        raise VqtoolError(f"`{name}` is no name for a recipe", hint="vqtool new mine")
    origin = shipped.find(source if source is not None else default(target.stem))
    written = shipped.copy(origin, target)
    for path in written[1:]:
        out.say(f"copied {path}")
    out.hint(f"vqtool train {target}")
    out.print(str(target))
    out.document({"recipe": str(target), "from": origin.stem, "files": [str(path) for path in written]})
    return 0


def default(name: str) -> str:
    """What to begin from where --from is not given: a shipped recipe of that name, or the only one."""
    there = shipped.names()
    if name in there:
        return name
    if len(there) == 1:
        return there[0]
    raise VqtoolError("from which recipe?", hint=f"--from one of {listed(there)}")
