"""The files contract: what a data kind does with a user's own files, without a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO, ClassVar, Protocol

import torch
from torch import Tensor

from vqtool.api.spec import Batch, DataSpec
from vqtool.errors import VqtoolError


@dataclass(frozen=True, slots=True)
class Piece:
    """As much of a user's file as is processed at a time.

    When opened, `batch` holds the signals `x` [B, C, L], or none of them with `condition=True`, and the conditions.
    When saved, it holds the decoded `x` [B, C, L], or S generated samples of each signal [B, S, C, L], and the
    conditions they belong to.
    """

    batch: Batch
    # JSON values `save` needs: own units, rates, lengths; "names", where inputs have any, are shown in tables
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()  # what was done to the signals, in sentences; they are reported
    total: int | None = None  # how many pieces there are in all, where that is known

    @classmethod
    def joined(cls, pieces: Iterable[Piece]) -> Piece:
        """All pieces as one, with the metadata of the first: for a file that is written at once."""
        held = list(pieces)
        batch = {name: torch.cat([piece.batch[name] for piece in held]) for name in held[0].batch}
        return cls(batch, held[0].metadata)


@dataclass(frozen=True, slots=True)
class CodedPiece:
    """A `Piece` in codes."""

    codes: Tensor  # [B, T, Q]
    sent: Tensor  # [B, S] scalars that the norm needs beside the codes
    conditions: Batch  # what else decoding needs: the piece's batch without its signals
    metadata: Mapping[str, Any] = field(default_factory=dict)  # of the piece
    total: int | None = None


class Source(Protocol):
    """Bytes as they come through a pipe; fewer than asked for, or none, are the last."""

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, which are read again."""

    def read(self, count: int) -> bytes:
        """The next `count` bytes."""

    def some(self, most: int | None = None) -> bytes:
        """What is there by now, `most` bytes of it; it waits for one."""


class Arriving(Protocol):
    """A signal that is read while it comes."""

    length: int | None  # its own samples, once its end has come


def _by_path_or_name(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose first argument may be a path, its name, or None where the method takes that."""

    @wraps(method)
    def called(self: Any, path: Path | str | None, *args: Any, **named: Any) -> Any:
        return method(self, Path(path) if isinstance(path, str) else path, *args, **named)

    return called


class Files:
    """Base of what reads and writes a user's files. A data kind names its class as `Data.files`.

    It is made from what a checkpoint holds, so it works without the training data. Override `open` and
    `save`; `inputs` and `outputs` where a path stands for several files; `open_codes`, `save_codes` and `code_figures`
    where codes have a file format of their own (`own_codes = True`), else they go to one safetensors file. Methods that
    take a `path` may be called with its name as text: they always get a `Path`.
    """

    own_codes: ClassVar[bool] = False
    # of the files of codes and of signals where `--out` is a folder; "" where a folder is written itself
    endings: ClassVar[tuple[str, str]] = (".safetensors", ".npz")

    def __init_subclass__(cls, **more: Any) -> None:
        """Let the methods that take a path take its name, too."""
        super().__init_subclass__(**more)
        for name, method in vars(cls).copy().items():
            if isinstance(method, FunctionType) and list(signature(method).parameters)[1:2] == ["path"]:
                setattr(cls, name, _by_path_or_name(method))

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        """Remember what is known of the training data.

        Args:
            spec: the training data's.
            options: the training data's options.
            asked: options that the user sets for this call. A class that reads files by options overrides this.

        Raises:
            VqtoolError: an option is set, and this class has none.
        """
        self.spec = spec
        if asked:
            name = next(iter(asked))
            raise VqtoolError("these data read a user's files without options", where=f"data.{name}")

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """Read a user's file or folder, one piece after the other, so that it may be larger than memory.

        Args:
            path: the file or folder; it exists.
            condition: read only the conditions, to generate signals from.

        Raises:
            VqtoolError: the file cannot be read, does not fit the spec, or this kind has nothing to read.
        """
        what = "conditions to generate from" if condition else "files of a user"
        raise VqtoolError(f"`{type(self).__name__}` does not read {what}", exit_code=1)

    def skipped(self) -> Sequence[str]:
        """When all pieces have been taken: what of a folder was left out since it could not be read, in sentences.

        The command shows them after everything else was written, and exits with 1.
        """
        return ()

    def remarks(self) -> Sequence[str]:
        """When all pieces have been taken: what was found in the files on the way, in sentences with counts."""
        return ()

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """Write decoded or generated signals in the units, rates and lengths of the file they came from.

        Args:
            path: the file or folder to write to.
            pieces: taken one after the other; their metadata is that of the pieces that `open` gave.

        Returns:
            The files written.
        """
        raise VqtoolError(f"`{type(self).__name__}` does not write signals to files", exit_code=1)

    @classmethod
    def inputs(cls, path: Path, *, decode: bool = False) -> list[Path]:
        """The files that are read of a path (with `decode`: of codes); no output may be one of them.

        A folder in the result stands for every file in it. Training also takes fingerprints of these files.
        """
        return [path]

    @classmethod
    def outputs(cls, path: Path, out: Path, *, decode: bool = False) -> list[Path]:
        """The files that encoding (or, with `decode`, decoding) `path` writes with `--out out`.

        They are checked before any work. A class that writes several lists them all; they lie below `out`.
        """
        return [out]

    def open_codes(self, path: Path, model: Mapping[str, Any]) -> tuple[str, Iterator[CodedPiece]]:
        """The digest of the model that `save_codes` was given, and the pieces.

        Args:
            path: a file or folder of codes.
            model: what `save_codes` would be given for the current model. The caller compares the digests before it
                takes the first piece.
        """
        raise NotImplementedError

    def save_codes(self, path: Path, pieces: Iterator[CodedPiece], model: Mapping[str, Any]) -> list[Path]:
        """Write codes in a file format of this kind.

        Args:
            path: the file or folder to write to.
            pieces: taken one after the other.
            model: the digest of the "model", to be kept; its "codebook_sizes"; "bands", the tokens of one moment; and
                "code_use", how much each code of each codebook is used, or None.

        Returns:
            The files written.
        """
        raise NotImplementedError

    def code_figures(self, written: Sequence[Path]) -> dict[str, float]:
        """What to report of the files that `save_codes` wrote, by dotted names: `{"bitrate.kbps": 8.0}`."""
        return {}

    def raw_header(self, rate: int) -> bytes:
        """What makes bare samples, 16-bit integers in little-endian order, a file of this kind when it comes before.

        Raises:
            VqtoolError: this kind has no such files.
        """
        raise VqtoolError("these data are not read or written as bare samples", hint="leave out --raw")

    def arriving(self, source: Source, raw: int | None) -> tuple[Arriving, Iterator[Tensor]] | None:
        """A signal that comes through a pipe, in chunks [B, C, n]; None where only a whole file can be read.

        Args:
            source: nothing of it may be read where the result is None.
            raw: the rate of bare samples, as `raw_header` describes them.
        """
        return None

    def write_arriving_codes(
        self, target: BinaryIO, signal: Arriving, codes: Iterator[Tensor], model: Mapping[str, Any]
    ) -> dict[str, float]:
        """Write codes [B, t, Q] as they come; `model` is that of `save_codes`, the result that of `code_figures`.

        The `length` of the signal is known when the last ones come, those of the moment that was begun, if any.
        """
        raise NotImplementedError

    def arriving_codes(self, source: Source, model: Mapping[str, Any]) -> tuple[str, Arriving, Iterator[Tensor]] | None:
        """What `write_arriving_codes` wrote, while it comes: the digest of the model, the signal, and its codes.

        None where these are none; nothing of `source` may be read then.
        """
        return None

    def write_arriving(
        self, target: Path | BinaryIO, signal: Arriving, chunks: Iterator[Tensor], *, raw: bool = False
    ) -> None:
        """Write decoded chunks [B, C, n] as they come; to a pipe, if `raw`, without a header."""
        raise NotImplementedError
