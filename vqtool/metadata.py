"""What rides in a checkpoint's header: its format, and JSON values as strings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError
from vqtool.untrusted import json_value

FORMAT = "vqtool/1"


def check_format(path: Path, metadata: Mapping[str, str]) -> None:
    """Refuse files that vqtool did not write, or a later vqtool did."""
    found = metadata.get("format", "")
    if not found.startswith("vqtool/"):
        raise VqtoolError(f"`{path}` is not a checkpoint of vqtool", hint="vqtool show lists what a file holds")
    if found != FORMAT:
        raise VqtoolError(f"`{path}` has the format {found}; this vqtool reads {FORMAT}", hint="pip install -U vqtool")


def parsed(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The values: JSON where a text is, else the text itself.

    Raises:
        VqtoolError: the file is of another format, or a value begins as JSON and is none.
    """
    check_format(path, metadata)
    return {name: _value(path, name, text) for name, text in metadata.items()}


def _value(path: Path, name: str, text: str) -> Any:
    try:
        return json_value(text)
    except ValueError as error:
        if text.startswith(("{", "[")) and name != "recipe":  # which is TOML, and may well begin with a table
            raise VqtoolError(f"`{path}` is damaged: its `{name}` is no JSON", exit_code=1) from error
        return text
