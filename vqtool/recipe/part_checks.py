"""The checks of tables that name a component, and the problems that they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqtool.catalog import catalog, nested_options
from vqtool.errors import VqtoolError
from vqtool.recipe.options import Chosen, Options, options_of
from vqtool.recipe.places import Key, Places
from vqtool.recipe.spec import PartSpec
from vqtool.suggest import listed

if TYPE_CHECKING:
    from vqtool.api import Nested


class PartChecker:
    """Checks components and their options; `errors` collects every problem with its place.

    With `as_given`, options hold what the table gives and no defaults.
    """

    def __init__(self, places: Places, folder: Path | None, *, as_given: bool = False) -> None:
        self.places = places
        self.folder = folder
        self.as_given = as_given
        self.errors: list[VqtoolError] = []
        self.warnings: list[str] = []
        self.parts: dict[str, PartSpec] = {}
        self.classes: dict[str, type[Any]] = {}  # of parts, by table name
        self.unsure: set[str] = set()  # tables whose class is not known

    def error(self, key: Sequence[str | int], message: str, hint: str | None = None) -> None:
        """Note a problem at a key."""
        self.errors.append(VqtoolError(message, hint=hint, where=self.places.where(key)))

    def options(
        self, options: Options, key: Key, table: Mapping[str, Any], what: str, *, page: str = ""
    ) -> dict[str, Any]:
        """A table's checked options; problems are noted below `key`."""
        checked, problems = options.check(table, what, folder=self.folder, page=page)
        for problem in problems:
            self.error((*key, *problem.path), problem.message, problem.hint)
        return {name: value for name, value in checked.items() if name in table} if self.as_given else checked

    def component(self, role: str, kind: Any, at: Key) -> type[Any] | None:
        """The class of a kind; None, and the problem noted at `at`, where there is none."""
        if not isinstance(kind, str):
            self.error(at, f"`{at[-1]}` should be a string that names the {role}", f"vqtool plugins {role}")
            return None
        try:
            return catalog().load(role, kind)
        except VqtoolError as error:
            where = self.places.where(at)
            self.errors.append(VqtoolError(error.message, hint=error.hint, where=where, exit_code=error.exit_code))
            return None

    def part(self, role: str, key: Key, table: Any) -> tuple[PartSpec | None, type[Any] | None]:
        """A table with a `kind`: the part it names, and its class."""
        label = f"[{key[-1]}]"
        if not isinstance(table, Mapping):
            self.error(key, f"`{key[-1]}` should be a table", f'{label} with kind = "..."')
            return None, None
        if "kind" not in table:
            self.error(key, f"`{label}` needs a `kind`", f"one of {listed(catalog().names(role))}")
            return None, None
        kind = table["kind"]
        cls = self.component(role, kind, (*key, "kind"))
        if cls is None:
            return None, None
        rest = {name: value for name, value in table.items() if name != "kind"}
        return self.built(role, kind, cls, key, rest), cls

    def built(self, role: str, kind: str, cls: type[Any], key: Key, table: Mapping[str, Any]) -> PartSpec | None:
        """A part of a known class, its options checked."""
        before = len(self.errors)
        try:
            options = options_of(cls)
        except VqtoolError as error:
            self.errors.append(error)
            return None
        what = f'{role} "{kind}"'
        current = options.current(table)
        self.warnings += [f"{what}: the option `{old}` is now called `{options.former[old]}`"
                          for old in table if old not in current]  # fmt: skip
        checked = self.options(options, key, current, what, page=f"vqtool plugins {role} {kind}")
        for name, mark in nested_options(cls).items() if len(self.errors) == before else ():
            checked[name] = self.nested(mark, (*key, name), checked[name])
        return PartSpec(role, kind, checked) if len(self.errors) == before else None

    def nested(self, mark: Nested, key: Key, value: Any) -> Any:
        """An option that is a component: a table with a `kind`, a kind alone or, where there may be many, a list."""
        if isinstance(value, list | tuple):
            return tuple(self.nested(mark, (*key, i), one) for i, one in enumerate(value))
        spec, cls = self.part(mark.role, key, {"kind": value} if isinstance(value, str) else value)
        return None if spec is None or cls is None else Chosen(spec.kind, spec.options, cls)

    def announced(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """(terms, knobs) of the part `[name]`: a quantizer's depend on its options."""
        cls = self.classes.get(name)
        if cls is not None and hasattr(cls, "announced") and name in self.parts:
            return cls.announced(self.parts[name].options)
        return frozenset(getattr(cls, "terms", ())), frozenset(getattr(cls, "knobs", ()))
