"""Options that a part has from its base class."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable


def with_options_of(base: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A constructor whose `**options` go to that of `base`, announced with the options of `base` after its own."""

    def announced(init: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(init).parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [p for p in inspect.signature(base).parameters.values() if p.kind is p.KEYWORD_ONLY]
        init.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]  # a function may have one
        hints = typing.get_type_hints(base.__init__, include_extras=True)  # type: ignore[misc]  # not of an instance
        init.__annotations__ = hints | typing.get_type_hints(init, include_extras=True)
        return init

    return announced
