"""From a component to its class and to an object: imports only what a recipe names."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from vqtool.catalog.component import BASES, Component
from vqtool.errors import VqtoolError

if TYPE_CHECKING:
    from vqtool.api import Nested


def load_class(component: Component, provider: str) -> type[Any]:
    """Import a component's class.

    Raises:
        VqtoolError: a library is missing, the module fails, or it does not hold exactly one class of the role.
    """
    module_name, _, class_name = component.target.partition(":")
    what = f"{component.role} `{component.name}` of {provider}"
    try:
        module = importlib.import_module(module_name)
    except VqtoolError:
        raise
    except ImportError as error:
        raise _missing(what, provider, module_name, error) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise VqtoolError(
            f"{what} cannot be loaded: {reason}", hint="VQTOOL_DEBUG=1 shows where", exit_code=1
        ) from error
    return _class_in(module, class_name, component, what)


def _class_in(module: ModuleType, class_name: str, component: Component, what: str) -> type[Any]:
    """The class that the target names, or the module's only one of the role."""
    import vqtool.api

    base = getattr(vqtool.api, BASES[component.role]) if component.role in BASES else object
    kind = f"subclass of {BASES[component.role]}" if component.role in BASES else "class"
    if class_name:
        found = getattr(module, class_name, None)
        if not isinstance(found, type) or not issubclass(found, base):
            raise VqtoolError(f"{what} is broken: `{component.target}` is not a {kind}", exit_code=1)
        return found
    candidates = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if len(candidates) != 1:
        names = ", ".join(f"`{c.__name__}`" for c in candidates) or "none"
        raise VqtoolError(
            f"{what} is broken: `{module.__name__}` must define exactly one {kind}, and defines {names}",
            hint="begin the names of those that are not components with _",
            exit_code=1,
        )
    return candidates[0]


def _missing(what: str, provider: str, target: str, error: ImportError) -> VqtoolError:
    """The error for a library that is not installed; names the extra that brings it, where one does."""
    name = (error.name or "").split(".")[0]
    if error.name and f"{target}.".startswith(f"{error.name}."):
        return VqtoolError(f"{what} is broken: there is no module `{error.name}`", exit_code=1)
    if not isinstance(error, ModuleNotFoundError) or not name:
        return VqtoolError(f"{what} cannot be loaded: {error}", hint="VQTOOL_DEBUG=1 shows where", exit_code=1)
    distribution = provider.split(" ")[0]
    extra = _extra_with(distribution, name)
    hint = f"pip install '{distribution}[{extra}]'" if extra else f"install the library that brings `{name}`"
    return VqtoolError(f"{what} needs the library `{name}`, which is not installed", hint=hint, exit_code=1)


def _extra_with(distribution: str, module: str) -> str | None:
    """The extra of a distribution whose requirement is called like the module."""
    try:
        requirements = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", requirement)
        if name and extra and name.group().lower().replace("-", "_") == module.lower():
            return extra.group(1)
    return None


_NESTED: dict[type[Any], dict[str, Nested]] = {}


def nested_options(cls: type[Any]) -> dict[str, Nested]:
    """The options of `cls` that are components themselves."""
    if cls not in _NESTED:
        _NESTED[cls] = _nested_options(cls)
    return _NESTED[cls]


def _nested_options(cls: type[Any]) -> dict[str, Nested]:
    from vqtool.api import Nested

    if not isinstance(cls.__init__, FunctionType):  # of `object`
        return {}
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    return {
        name: mark for name, hint in hints.items() for mark in typing.get_args(hint)[1:] if isinstance(mark, Nested)
    }


def construct(cls: type[Any], component: Component, options: Mapping[str, Any], wiring: Sequence[Any]) -> Any:
    """Call the constructor; a `ValueError` it raises is reported as the user's mistake."""
    parameters = inspect.signature(cls.__init__).parameters
    named = {n if n in parameters or f"{n}_" not in parameters else f"{n}_": value for n, value in options.items()}
    try:
        inspect.signature(cls).bind(*wiring, **named)
    except TypeError as error:
        base = BASES.get(component.role)
        raise VqtoolError(
            f"{component.role} `{component.name}` cannot be made with its arguments: {error}",
            hint=f"`vqtool.api.{base}` says what it is given" if base else None,
            exit_code=1,
        ) from error
    try:
        return cls(*wiring, **named)
    except ValueError as error:
        raise VqtoolError(f"{component.role} `{component.name}`: {error}", where=f"[{component.role}]") from error
