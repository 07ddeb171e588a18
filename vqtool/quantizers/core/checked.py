"""Constructors: options are checked by the annotations that a recipe is checked by; presets of a class's options."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vqtool.api import Nested
from vqtool.errors import VqtoolError


class Checked(type):
    """A metaclass: the constructor's keyword options are checked first, and kept for `repr`."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, which `__call__` would hide."""
        whole = inspect.signature(cls.__init__)  # type: ignore[misc]  # read, not called
        return whole.replace(parameters=list(whole.parameters.values())[1:])

    def __call__(cls, *args: Any, **options: Any) -> Any:
        for name, value in options.items():
            check(cls, name, value)
        made = super().__call__(*args, **options)
        made.given = options
        if unknown := sorted(set(options.get("weights") or {}) - made.terms):
            raise VqtoolError(
                f"{cls.__name__} has no term `{unknown[0]}` to weigh",
                hint=f"its terms: {', '.join(sorted(made.terms))}",
            )
        return made


@functools.cache
def adapters(cls: type) -> dict[str, Any]:
    """What validates each option of `cls`; options that are components are left to the constructor."""
    from pydantic import ConfigDict, TypeAdapter

    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]  # read, not called
    config = ConfigDict(strict=True, allow_inf_nan=False)
    return {
        name: TypeAdapter(hint, config=config)
        for name, hint in hints.items()
        if name not in ("return", "weights") and not any(isinstance(m, Nested) for m in typing.get_args(hint)[1:])
    }


def check(cls: type, name: str, value: Any) -> None:
    """Refuse a value that the annotation of the option `name` does not allow."""
    from pydantic import ValidationError

    adapter = adapters(cls).get(name)
    if adapter is None:
        return
    try:
        adapter.validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError as error:
        reason = str(error.errors(include_url=False)[0]["msg"]).replace("Input should", "should")
        raise VqtoolError(f"{cls.__name__}: `{name}` {reason[:1].lower()}{reason[1:]}, not {value!r}") from None


def preset(
    base: type, options: Mapping[str, Any], types: Mapping[str, Any] | None = None, **fixed: Any
) -> Callable[..., None]:
    """A constructor that takes some `options` of `base`, with these defaults, and sets `fixed` ones.

    A fixed (class, options) stands for a component that is made with such options of its own. `types` are those of
    options that are narrower, or mean something else, than in the base.
    """
    nested = {name: value for name, value in fixed.items() if isinstance(value, tuple)}
    defaults = {**options, **{name: value for _, some in nested.values() for name, value in some.items()}}
    hints: dict[str, Any] = {}
    for cls, some in ((base, ("dim", "layout", "weights", *options)), *nested.values()):
        every = typing.get_type_hints(cls.__init__, include_extras=True)
        hints |= {name: every[name] for name in some}
    hints |= types or {}

    def init(self: Any, dim: int, layout: str = "BTD", weights: Any = None, **given: Any) -> None:
        if unknown := given.keys() - defaults.keys():
            raise TypeError(f"{type(self).__name__} has no option `{min(unknown)}`")
        given = defaults | given
        parts = {name: partial(cls, **{n: given[n] for n in some}) for name, (cls, some) in nested.items()}
        whole = {**fixed, **parts, **{name: given[name] for name in options}}
        base.__init__(self, dim, layout, weights, **whole)  # type: ignore[misc]  # of a class that is not known here

    *wiring, _ = inspect.signature(init).parameters.values()
    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name]) for name in defaults]
    init.__signature__ = inspect.Signature([*wiring, *named])  # type: ignore[attr-defined]  # a function may have one
    init.__annotations__ = hints
    return init
