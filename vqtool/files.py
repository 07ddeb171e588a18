"""Outputs: checked before any work, never over an input, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vqtool.errors import VqtoolError

PIPE = Path("-")  # stdin or stdout
PAGE_MARK = '<meta name="generator" content="vqtool">'  # by which a page of vqtool's is known again
LONGEST = 1 << 24  # bytes of a header that is read to know a file by
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
CAUSES = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "your quota is used up: free some space, or choose another place",
    errno.EISDIR: "that is a folder: give the name of a file",
    errno.EEXIST: "a file of that name is there: choose another name",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EROFS: "nothing can be written to that file system: choose another place",
    errno.EACCES: "you have no permission to write there: choose another folder",
    errno.EPERM: "you have no permission to write there: choose another folder",
    errno.ELOOP: "its symbolic links lead in a circle",
}


class Folder(type(Path())):  # type: ignore[misc]  # the class of paths on this system
    """An output whose name ends with a slash: it means a folder, which need not be there."""


def as_output(text: str) -> Path:
    """An output as the command line names it."""
    return Folder(text) if text.endswith(("/", os.sep)) else Path(text)


def is_folder(path: Path) -> bool:
    """Whether an output means a folder."""
    return isinstance(path, Folder) or path.is_dir()


def missing_file(path: Path, *, what: str = "file", where: str | None = None) -> VqtoolError:
    """The error of a path where no `what` is; it names the nearest name that is there."""
    if path.is_dir():
        return VqtoolError(f"`{path}` is a folder, not a {what}", hint=f"ls {path}", where=where)
    try:
        beside = {name.lower(): name for name in os.listdir(path.parent)}
    except OSError:
        return VqtoolError(f"there is no {what} `{path}`, and no folder `{path.parent}`", where=where)
    import difflib  # half a dozen modules, needed here alone

    near = difflib.get_close_matches(path.name.lower(), beside, n=1)
    hint = f"did you mean `{path.with_name(beside[near[0]])}`?" if near else None
    return VqtoolError(f"there is no {what} `{path}`", hint=hint, where=where)


def check_outputs(
    *outputs: Path | None, inputs: Iterable[Path | None] = (), force: bool = False, folder: Path | None = None
) -> None:
    """Refuse, before any work, outputs that would destroy something or cannot be written.

    Args:
        outputs: the files that will be written; None is left out.
        inputs: what is read, files and folders (then every file in them). No output may be one of these, by whatever
            name or link.
        force: replace files that exist. Without it only those are replaced that `is_own` knows.
        folder: where the outputs will lie, if that folder is made when it is missing.
    """
    if folder is not None:
        _check_folder(folder)
    wanted = [path for path in outputs if path is not None]
    for path in wanted:
        if folder is None:
            require_parent_dir(path)
        destination(path)
    real = [os.path.realpath(path) for path in wanted]
    for number, path in enumerate(wanted):
        if real[number] in real[:number]:
            raise VqtoolError(f"`{path}` would be written twice", hint="give each output a name of its own")
    there = {_identity(path): path for path in [*wanted, *([folder] if folder is not None else [])] if path.exists()}
    if there:
        for source, name in _files_of(inputs):
            if source in there:
                path = there[source]
                other = "" if path == name else f" (`{name}`)"
                raise VqtoolError(
                    f"`{path}` is an input as well{other}, and would be overwritten",
                    hint="write to another file or folder",
                )
    for path in wanted:
        if path.exists() and not force and not is_own(path):
            raise VqtoolError(f"`{path}` exists already", hint="another name, or --force to replace it")


def require_parent_dir(*paths: Path | None) -> None:
    """The folder of every output must exist, and must be one that can be written to; None is no output."""
    for path in filter(None, paths):
        parent = Path(os.path.realpath(path)).parent
        if not parent.is_dir():
            raise VqtoolError(
                f"there is no folder `{path.parent}` to write `{path.name}` to", hint=f"mkdir -p {path.parent}"
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise VqtoolError(f"cannot write to the folder `{path.parent}`", hint=CAUSES[errno.EACCES])


def destination(path: Path) -> Path:
    """The file that writing to `path` makes or replaces: a symbolic link is followed.

    Raises:
        VqtoolError: a folder, a device or a pipe is there.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if isinstance(path, Folder):
            raise VqtoolError(f"`{path}{os.sep}` names a folder", hint="give the name of a file in it") from None
        return Path(os.path.realpath(path))
    except OSError as error:
        raise cannot_write(path, error) from error
    if stat.S_ISDIR(mode):
        raise VqtoolError(f"`{path}` is a folder", hint="give the name of a file in it")
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise VqtoolError(f"`{path}` is {kind}, and only files are written", hint="give the name of a file")
    return Path(os.path.realpath(path))


def is_own(path: Path) -> bool:
    """Whether a file's first bytes show that vqtool wrote it and can write it again: codes, and pages.

    A checkpoint is none of these: nobody can make it again in a minute.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if head[:3] == b"VQC":
                return head[3:4] < b"\x20"
            length = int.from_bytes(head[:8], "little")
            if head[8:9] == b"{" and length <= LONGEST:
                metadata = json.loads((head + file.read(length))[8 : 8 + length]).get("__metadata__") or {}
                return str(metadata.get("format")).startswith("vqtool/") and metadata.get("kind") == "codes"
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
    return PAGE_MARK.encode() in head


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error.

    It is written beside `path` and synced first, so that a crash, a full disk or an error leave what was there before.
    It has the mode of what it replaces; else the usual one, less the umask.
    """
    target = destination(path)
    temporary = target.with_name(f".{target.name[:60]}.{os.urandom(4).hex()}")
    made = False
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o666 if mode is None else 0o600), "wb") as file:
            made = True
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
        made = False
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                temporary.unlink()
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomic(path: Path, content: bytes) -> str:
    """Write whole or not at all, as `replacing` does. Returns the sha256."""
    with replacing(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as `.npz`, atomically."""
    import numpy as np

    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(path, content.getvalue())


def make_dir(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VqtoolError(f"cannot make the folder `{folder}`: {error.strerror}", hint=hint_for(error), exit_code=1
                          ) from error  # fmt: skip


def cannot_write(path: Path, error: OSError, then: str = "") -> VqtoolError:
    """The error for a file that cannot be written, with what to do about its cause (and `then`)."""
    hint = hint_for(error)
    if error.errno == errno.ENOENT:
        hint = f"mkdir -p {path.parent}"
    return VqtoolError(
        f"cannot write `{path}`: {error.strerror or error}; what was there before is untouched",
        hint=", ".join(filter(None, (hint, then))) or None,
        exit_code=1,
    )


def hint_for(error: OSError) -> str | None:
    """What to do about a file system's error; None where only its message helps."""
    return CAUSES.get(error.errno or 0)


def as_given(path: Path) -> str:
    """A path as a file that is passed on may hold it: as it was given; of an absolute one only the last part."""
    return path.name if path.is_absolute() else str(path)


def text_cell(text: str) -> str:
    """A name as the cell of a CSV table: what a spreadsheet would take for a formula gets a `'` before it."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def cell_text(cell: str) -> str:
    """The name that `text_cell` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise VqtoolError(f"`{folder}` is a file, and several files are to be written", hint="give a folder")
    if not folder.exists():
        require_parent_dir(folder)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _files_of(inputs: Iterable[Path | None]) -> Iterator[tuple[tuple[int, int], Path]]:
    """What identifies each input, and of a folder also every file in it."""
    for path in inputs:
        if path is None:
            continue
        with contextlib.suppress(OSError):
            yield _identity(path), path
        seen: set[tuple[int, int]] = set()
        for where, folders, names in os.walk(path, followlinks=True):
            if (at := _identity(Path(where))) in seen:  # links in a circle
                folders.clear()
                continue
            seen.add(at)
            for name in names:
                with contextlib.suppress(OSError):
                    yield _identity(Path(where, name)), Path(where, name)
