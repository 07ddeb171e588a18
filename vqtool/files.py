"""Writing files whole or not at all; nothing that existed before is lost."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqtool.errors import VqtoolError


def write_atomic(path: Path, content: bytes) -> str:
    """Write whole or not at all: a temporary file in the same folder, fsync, replace. Returns the sha256.

    A full disk or a missing right is one error, and what stood at `path` before stays.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise VqtoolError(
            f"cannot write `{path}`: {error.strerror or error}",
            hint="free some space or give another place with -o; what was there before is untouched",
            exit_code=1,
        ) from error
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return hashlib.sha256(content).hexdigest()


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as `.npz`, atomically."""
    import numpy as np

    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(path, content.getvalue())


def fits_here(path: Path) -> None:
    """The folder of an output file must exist before anything is computed for it."""
    if not path.parent.is_dir():
        raise VqtoolError(
            f"there is no folder `{path.parent}` to write `{path.name}` to", hint=f"mkdir -p {path.parent}"
        )
