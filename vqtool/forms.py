"""What JSON values of files should look like, and the form of a resolved recipe; needs no torch.

A form is `str`, `bool`, `int`, `float`, `dict`, `list` or None; `[form]` is a list and `{str: form}` a table of such;
`{"a": form, "b?": form}` is a table with the key `a` and perhaps `b`; a tuple of forms allows any of them. A function
is a form of its own: it says what is wrong with a value, as `misfit` does.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError
from vqtool.untrusted import json_value

LARGEST = 2**63  # whole numbers of files stay below: what computes with them has 64 bits
STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes, as most systems have it


def options(value: Any, at: str) -> str | None:
    """The form of a part's options: anything, but paths in it must be such as a system can look for."""
    if at.endswith(".$path"):
        return path(value, at)
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return next((wrong for key, item in items if (wrong := options(item, f"{at}.{key}"))), None)
    return misfit(value, (float, bool, str, None), at)


def path(value: Any, at: str) -> str | None:
    """The form of a path."""
    fits = isinstance(value, str) and "\0" not in value and len(value.encode(errors="replace")) <= LONGEST_PATH
    fits = fits and all(len(part.encode(errors="replace")) <= LONGEST_NAME for part in value.split("/"))
    return None if fits else f"{_named(at)} should be a path"


def stage_name(value: Any, at: str) -> str | None:
    """The form of a stage's name: its checkpoint is a file of that name."""
    if not isinstance(value, str):
        return misfit(value, str, at)
    if STAGE_NAME.fullmatch(value):
        return None
    return f"a stage cannot be called `{value[:80]}`: the name of a stage should be of letters, digits, - and _"


PART = {"role": str, "kind": str, "options": options}
LOSS = {"name": str, "weight": float, "kind": (str, None), "options": options}
SCHEDULE = {"target": str, "kind": str, "options": options}
STAGE = {"name": stage_name, "task": PART, "losses": [LOSS], "set": dict, "schedules": [SCHEDULE],
         "train": {"steps?": (int, None), "epochs?": (int, None), "lr?": float}}  # fmt: skip
RESOLVED = {
    "title": str,
    "seed": int,
    "deterministic": bool,
    "folder?": (path, None),
    "folder_from_cwd?": (path, None),
    "file?": (path, None),
    "data": PART,
    "parts": {str: PART},
    "stages": [STAGE],
    "evaluate": dict,
    "diagnose?": ({str: (float, None)}, None),
}
WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "a table", list: "a list"}


def misfit(value: Any, form: Any, at: str = "") -> str | None:
    """What is wrong with a value, as in "its `quantizer.sizes[2]` should be a whole number"; None where it fits."""
    if isinstance(form, tuple):  # of several, the first says what is wrong
        found = [misfit(value, one, at) for one in form]
        return None if None in found else found[0]
    if isinstance(form, dict | list) or form in (dict, list):
        return _container(value, form, at)
    if callable(form) and not isinstance(form, type):
        wrong: str | None = form(value, at)
        return wrong
    if form is None:
        fits = value is None
    elif form in (int, float):
        number = isinstance(value, int | float if form is float else int) and not isinstance(value, bool)
        fits = number and (isinstance(value, float) or abs(value) < LARGEST)
    else:
        fits = isinstance(value, form)
    return None if fits else f"{_named(at)} should be {WORDS.get(form, 'nothing')}"


def _container(value: Any, form: Any, at: str) -> str | None:
    """The same of a list or table and everything in it."""
    kind: type[Any] = list if form is list or isinstance(form, list) else dict
    if not isinstance(value, kind):
        return f"{_named(at)} should be {WORDS[kind]}"
    if isinstance(form, type):
        return None
    inside: list[tuple[Any, Any, str]] = []
    if isinstance(form, list):
        inside = [(item, form[0], f"{at}[{i}]") for i, item in enumerate(value)]
    elif str in form:
        inside = [(item, form[str], f"{at}.{name}") for name, item in value.items()]
    else:
        for key, one in form.items():
            name = key.removesuffix("?")
            if name in value:
                inside.append((value[name], one, f"{at}.{name}"))
            elif name == key:
                return f"{_named(at)} has no `{name}`"
    return next((wrong for one in inside if (wrong := misfit(*one))), None)


def _named(at: str) -> str:
    return f"its `{at.removeprefix('.')[:80]}`" if at else "it"


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number, true or false."""
    return isinstance(value, int | float) and abs(value) < LARGEST and math.isfinite(value)


def damaged(path: Path | str, what: str) -> VqtoolError:
    """The error for a file whose content cannot be right."""
    return VqtoolError(f"`{path}` is damaged: {what}", hint="take an intact copy of the file", exit_code=1)


def read_json(path: Path, form: Any) -> Any:
    """The value of a run's JSON file.

    Raises:
        FileNotFoundError: there is none.
        VqtoolError: it cannot be read, or is damaged.
    """
    try:
        value = json_value(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise VqtoolError(f"cannot read `{path}`: {error.strerror or error}", exit_code=1) from error
    except ValueError as error:
        raise damaged(path, "it is not JSON") from error
    wrong = misfit(value, form)
    if wrong:
        raise damaged(path, wrong)
    return value
