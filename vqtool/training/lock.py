"""One process at a time writes into a run's folder: a lock that the system drops when its process ends."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.runs import is_run

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"  # holds who has the run, for the message; what locks is the open file, so a dead process locks nothing
LONGEST = 200  # characters of the holder that are shown


class InUseError(VqtoolError):
    """Another process, or another part of this one, is writing into the run."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"`{folder}` is in use by {holder or 'another process'}",
                         hint="wait until it ends or stop it; then try again", exit_code=1)  # fmt: skip


class Lock:
    """The lock of one run's folder, held from the start.

    Raises:
        InUseError: somebody else holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.file: int | None = None
        if fcntl is None:
            out.say(f"this system has no file locks: keep other processes out of {folder}")
            return
        while self.file is None:
            self.file = self._locked(folder)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
            os.ftruncate(self.file, 0)
            os.write(self.file, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())

    def _locked(self, folder: Path) -> int | None:
        """The open and locked file; None where its last holder removed it meanwhile."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise VqtoolError(f"cannot write `{self.path}`: {error.strerror}", exit_code=1) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, LONGEST).decode(errors="replace").partition("\n")[0]
            os.close(file)
            raise InUseError(folder, holder) from None
        except OSError:
            out.say(f"the file system of {folder} has no locks: keep other processes out of it")
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(self.path)):
                return file
        os.close(file)
        return None

    def release(self) -> None:
        """Remove the file and let others in."""
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self.file)
            self.file = None


@contextlib.contextmanager
def writing_beside(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` where it is a run; any other folder needs none."""
    lock = Lock(folder) if is_run(folder) else None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
