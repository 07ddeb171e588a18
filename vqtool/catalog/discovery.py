"""Discovery: built-ins by file, plugins by entry point or --plugin, each behind a guard; and lookup by name."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import vqtool
from vqtool.catalog.component import BASES, PACKAGES, Component, scan
from vqtool.catalog.hooks import Hooks, debug, prefixed_output, trace
from vqtool.catalog.loading import construct, load_class, nested_options
from vqtool.catalog.plugin_file import components_of_file, import_file
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.suggest import did_you_mean, listed

if TYPE_CHECKING:
    from vqtool.api import Nested

GROUP = "vqtool"
# What a plugin's module may only import where it is used; and how long its import may take without a warning.
HEAVY = ("torch", "sklearn", "matplotlib", "pandas", "scipy", "transformers", "tensorflow", "jax", "datasets")
SLOW = 1.0


@dataclass(frozen=True, slots=True)
class Plugin:
    """One provider of components and hooks."""

    name: str
    distribution: str  # the distribution it came with, or its file
    version: str
    components: tuple[Component, ...] = ()
    hooks: tuple[str, ...] = ()
    seconds: float = 0.0  # what its import and its components took

    @property
    def provider(self) -> str:
        """Distribution and version in one."""
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class Broken:
    """A plugin that was left out, why, and what to do about it."""

    name: str
    distribution: str
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"plugin `{self.name}` of {self.distribution} is broken and was left out: {self.reason}"


class Catalog:
    """Everything that a recipe can name, by role and kind."""

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self.broken: list[Broken] = []
        self.slow: list[Broken] = []  # taken in, but their import makes every command slow
        self.hooks = Hooks()
        self._by_name: dict[tuple[str, str], tuple[Component, Plugin]] = {}

    @property
    def components(self) -> list[Component]:
        """All components, by role (in the order data flows) and name."""
        order = {role: i for i, role in enumerate(PACKAGES)}
        found = [component for component, _ in self._by_name.values()]
        return sorted(found, key=lambda c: (order.get(c.role, len(order)), c.role, c.name))

    @property
    def roles(self) -> list[str]:
        """Every role: the built-in ones and those that plugins bring."""
        return list(dict.fromkeys([*PACKAGES, *(component.role for component in self.components)]))

    def names(self, role: str) -> list[str]:
        """The kinds of a role."""
        return sorted(name for r, name in self._by_name if r == role)

    def find(self, role: str, name: str) -> Component:
        """The component of that role and kind.

        Raises:
            VqtoolError: there is none; the hint names the nearest, and plugins that could not be loaded.
        """
        if (role, name) in self._by_name:
            return self._by_name[role, name][0]
        if role not in self.roles:
            raise VqtoolError(
                f"there is no role called `{role}`", hint=did_you_mean(role, self.roles, otherwise=listed(self.roles))
            )
        elsewhere = [r for r, n in self._by_name if n == name]
        otherwise = f"`{name}` is a {elsewhere[0]}" if elsewhere else f"vqtool plugins {role}"
        hint = did_you_mean(name, self.names(role), otherwise=otherwise)
        broken = (
            f"; left out as broken: {listed(b.name for b in self.broken)}, see vqtool plugins" if self.broken else ""
        )
        raise VqtoolError(f'there is no {role} called "{name}"', hint=f"{hint}{broken}")

    def load(self, role: str, name: str) -> type[Any]:
        """The class of a component; what cannot be imported is one error that says which library is missing."""
        component = self.find(role, name)
        return load_class(component, self._by_name[role, name][1].provider)

    def make(self, role: str, name: str, options: Mapping[str, Any], *wiring: Any) -> Any:
        """Load and construct a component, `options` as keyword arguments after the positional `wiring`."""
        component, plugin = self.find(role, name), self._by_name[role, name][1]
        cls = load_class(component, plugin.provider)
        nested = nested_options(cls)
        given = self._made_later(nested, options) if nested else options
        return construct(cls, component, given, wiring)

    def _made_later(self, nested: Mapping[str, Nested], options: Mapping[str, Any]) -> dict[str, Any]:
        """`options` with a callable that makes the component in place of each table that names one."""

        def maker(role: str, value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [maker(role, one) for one in value]
            rest = {key: one for key, one in value.items() if key != "kind"}
            return partial(self.make, role, value["kind"], rest)

        return {key: maker(nested[key].role, value) if key in nested else value for key, value in options.items()}

    def provider(self, component: Component) -> str:
        """The distribution and version that a component comes with."""
        return self._by_name[component.role, component.name][1].provider

    def add(self, plugin: Plugin, components: Iterable[Component]) -> None:
        """Take in a plugin's components, all or none.

        Raises:
            TypeError: one of them is not a component.
            ValueError: another plugin has one of the same role and kind.
        """
        new: dict[tuple[str, str], Component] = {}
        for component in components:
            if not isinstance(component, Component):
                raise TypeError(f"`vqtool_components` gave {type(component).__name__}, not a Component")
            key = (component.role, component.name)
            if key in new or key in self._by_name:
                owner = self._by_name[key][1].provider if key in self._by_name else plugin.provider
                raise ValueError(f"{component.role} `{component.name}` is in {owner} already, and in {plugin.provider}")
            new[key] = component
        plugin = replace(plugin, components=tuple(new.values()))
        self.plugins.append(plugin)
        self._by_name |= {key: (component, plugin) for key, component in new.items()}

    def _guarded(self, plugin: Plugin, module_of: Any) -> None:
        """Import a plugin and take it in; whatever goes wrong is recorded and the plugin left out."""
        began = time.perf_counter()
        light = {name for name in HEAVY if name not in sys.modules}
        try:
            with prefixed_output(plugin.name):
                module = module_of()
                hooks, components = self._asked(plugin, module)
            taken = replace(plugin, hooks=tuple(hooks), seconds=time.perf_counter() - began)
            self.add(taken, components)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # no exception of a plugin, nor sys.exit, may end a command
            debug()
            self.hooks.drop(plugin.name)
            self.broken.append(broken_by(plugin, error))
        seconds = time.perf_counter() - began
        loaded = sorted(name for name in light if name in sys.modules)
        if plugin.version and (loaded or seconds > SLOW):  # a file given by --plugin may hold the parts themselves
            reason = f"its import loads {listed(loaded)}" if loaded else f"its import takes {seconds:.1f} s"
            late = ("them" if len(loaded) > 1 else "it") if loaded else "what takes long"
            fix = f"{plugin.distribution} should import {late} in its parts' modules"
            self.slow.append(Broken(plugin.name, plugin.provider, reason, fix))
        trace(f"{plugin.name}: import {1000 * seconds:.1f} ms")

    def _asked(self, plugin: Plugin, module: ModuleType) -> tuple[list[str], list[Component]]:
        """A plugin's hooks and components; a file of parts needs no hook at all."""
        parts = components_of_file(module)
        if not any(hook.startswith("vqtool_") for hook in vars(module)):
            if parts:
                return [], parts
            if not plugin.version and plugin.distribution.endswith(".py"):
                raise ValueError(f"it defines no subclass of {', '.join(BASES.values())} of `vqtool.api`, and no hook")
        hooks = self.hooks.register(module, plugin.name, plugin.provider)
        function = self.hooks.of(plugin.name, "vqtool_components")
        answer = function() if function else []
        if function:
            trace(f"{plugin.name}: vqtool_components()")
        if not isinstance(answer, Iterable) or isinstance(answer, str):
            raise TypeError(f"`vqtool_components` gave {type(answer).__name__}, not Components")
        return hooks, list(answer)


def broken_by(plugin: Plugin, error: BaseException) -> Broken:
    """The record of a plugin that raised `error`."""
    reason = (
        str(error) if isinstance(error, ValueError | TypeError | VqtoolError) else f"{type(error).__name__}: {error}"
    )
    if isinstance(error, ModuleNotFoundError) and error.name:
        fix = f"install the library that brings `{error.name}`, or reinstall {plugin.distribution}"
    elif plugin.distribution.endswith(".py"):
        fix = f"fix {plugin.distribution}"
    else:
        fix = f"fix or remove {plugin.distribution}, or leave the plugin out with VQTOOL_PLUGINS"
    return Broken(plugin.name, plugin.provider, reason.strip(), fix)


def discover(files: Iterable[Path] = ()) -> Catalog:
    """A catalog of the built-ins, the installed plugins that VQTOOL_PLUGINS allows, and `files`, in this order.

    VQTOOL_PLUGINS: empty for none, `a,b` for only these, `-a,-b` for all but these.
    """
    found = Catalog()
    builtin = Plugin("vqtool", "vqtool", vqtool.__version__)
    found.add(builtin, [c for role, package in PACKAGES.items() for c in scan(package, role)])
    wanted = os.environ.get("VQTOOL_PLUGINS")
    given = [name.strip() for name in (wanted or "").split(",") if name.strip()]
    blocked = {name[1:] for name in given if name.startswith("-")}
    names = None if wanted is None or (blocked and len(blocked) == len(given)) else set(given)
    seen = set()
    versions: dict[Any, tuple[str, str]] = {}  # of each distribution its name and version, which are slow to read
    for entry in entries(found) if names is None or names else ():
        seen.add(entry.name)
        if entry.name not in blocked and (names is None or entry.name in names):
            dist = entry.dist
            if dist not in versions:
                versions[dist] = (dist.name, dist.version) if dist else ("", "")
            plugin = Plugin(entry.name, versions[dist][0] or entry.value, versions[dist][1])
            found._guarded(plugin, entry.load)
    for name in sorted((names or set()) - blocked - seen - {f"-{name}" for name in blocked}):
        reason = "VQTOOL_PLUGINS names it, but nothing installed offers it"
        found.broken.append(Broken(name, "VQTOOL_PLUGINS", reason, "vqtool plugins, with VQTOOL_PLUGINS unset"))
    for path in files:
        found._guarded(Plugin(path.stem, str(path), ""), lambda path=path: import_file(path))
    return found


def entries(found: Catalog) -> list[importlib.metadata.EntryPoint]:
    """The entry points of installed plugins by name; a distribution whose own cannot be read is recorded as broken."""
    try:
        return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name)
    except Exception:  # of one distribution, it does not say which, and it may be anything
        readable: dict[str, importlib.metadata.EntryPoint] = {}
        for dist in importlib.metadata.distributions():
            try:
                for entry in dist.entry_points.select(group=GROUP):
                    readable.setdefault(entry.name, entry)
            except Exception as error:
                place = str(getattr(dist, "_path", dist))
                reason = f"its entry_points.txt cannot be read: {error}"
                found.broken.append(Broken("?", place, reason, "reinstall or remove it"))
        return [readable[name] for name in sorted(readable)]


_files: tuple[Path, ...] = ()
_found: Catalog | None = None


def catalog(*, warn: bool = True) -> Catalog:
    """The catalog of this process, made once; it warns of plugins that were left out unless `warn` is false."""
    global _found
    if _found is None:
        _found = discover(_files)
        if warn:
            given = {str(path) for path in _files}  # a broken one of these is an error of `use_files`
            for broken in (b for b in _found.broken if b.distribution not in given):
                out.warn(f"{broken} ({broken.fix})")
            for slow in _found.slow:
                out.warn(f"plugin `{slow.name}` of {slow.distribution} slows every command: {slow.reason} ({slow.fix})")
    return _found


def use_files(paths: Iterable[Path]) -> None:
    """Take one-file plugins (--plugin) into the catalog, in place of those given before.

    Raises:
        VqtoolError: a file is not there or cannot be used: what was asked for by name is never left out silently.
    """
    global _files, _found
    _files, _found = tuple(dict.fromkeys(paths)), None
    for path in _files:
        if not path.is_file():
            raise VqtoolError(f"there is no plugin file `{path}`")
    for broken in list(_given_files_broken()):
        raise VqtoolError(
            f"the plugin file `{broken.distribution}` cannot be used: {broken.reason}", hint=broken.fix, exit_code=1
        )


def files_in_use() -> tuple[Path, ...]:
    """The one-file plugins (--plugin) of this call."""
    return _files


def _given_files_broken() -> Iterator[Broken]:
    if _files:
        given = {str(path) for path in _files}
        yield from (broken for broken in catalog().broken if broken.distribution in given)
