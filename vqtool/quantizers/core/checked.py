"""Options are checked where a quantizer is built, by the annotations that a recipe is checked by."""

from __future__ import annotations

import functools
import inspect
import typing
from typing import Any

from vqtool.api import Nested
from vqtool.errors import VqtoolError


class Checked(type):
    """A metaclass: the constructor's keyword options are checked first, and kept for `repr`."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, which `__call__` would hide."""
        whole = inspect.signature(cls.__init__)  # type: ignore[misc]  # this very class
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

    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]  # this very class
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
