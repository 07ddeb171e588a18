"""Signals that are coded while they come through a pipe, and codes that are decoded so: at once, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from vqtool.api import Files
from vqtool.commands import outputs
from vqtool.commands.pipes import Incoming
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import PIPE, replacing
from vqtool.model.codes import codes_metadata
from vqtool.model.model import Model
from vqtool.model.runs import pretrained


class Counted:
    """Codes on their way to a writer."""

    def __init__(self, codes: Iterator[Tensor]) -> None:
        self.codes, self.shape = codes, (0, 0, 0)

    def __iter__(self) -> Iterator[Tensor]:
        for codes in self.codes:
            self.shape = len(codes), self.shape[1] + codes.shape[1], codes.shape[2]
            yield codes


def encode(
    model: Model, files: Files, came: Incoming, out_file: Path, stdout: BinaryIO | None, *, levels: int | None,
    raw: int | None, read: Sequence[Path], force: bool,
) -> tuple[tuple[int, ...], Mapping[str, float]] | None:  # fmt: skip
    """Code a signal while it comes: the shape of its codes, and figures. None where it has to be read as a whole."""
    try:
        stream = model.stream(levels=levels)
    except VqtoolError as error:
        as_whole(error.message)
        return None
    with came:
        arriving = files.arriving(came, raw)
        if arriving is None:
            as_whole("its format cannot be read while it comes")
            return None
        signal, chunks = arriving
        outputs.check(*named(out_file), inputs=[*read, model.path], force=force, recipe=model.recipe)

        def codes() -> Iterator[Tensor]:
            for chunk in chunks:
                yield stream.encode(chunk).cpu()
            yield stream.flush().cpu()

        seen = Counted(codes())
        with replacing(out_file) if stdout is None else contextlib.nullcontext(stdout) as target:
            figures = files.write_arriving_codes(target, signal, iter(seen), codes_metadata(model))
    return seen.shape, figures


def decode(
    model: Model, files: Files, came: Incoming, source: Path, out_file: Path, stdout: BinaryIO | None, *,
    levels: int | None, raw: bool, force: bool,
) -> int | None:  # fmt: skip
    """Decode codes while they come: how many signals. None where they have to be read as a whole."""
    metadata = codes_metadata(model)
    arriving = files.arriving_codes(came, metadata)
    if arriving is None:
        if source == PIPE:
            as_whole("these codes were not written as a stream")
        return None
    digest, signal, codes = arriving
    check_digest(digest, metadata, model, source)
    stream = model.stream()
    outputs.check(*named(out_file), inputs=[*named(source), model.path], force=force, recipe=model.recipe)
    seen = Counted(codes)
    with came:
        chunks = (stream.decode(moment[..., :levels]).cpu() for moment in seen)
        files.write_arriving(out_file if stdout is None else stdout, signal, chunks, raw=raw)
    return seen.shape[0]


def check_digest(digest: str, metadata: Mapping[str, Any], model: Model, source: Path) -> None:
    """Codes are decoded by the model that they are of.

    Raises:
        VqtoolError: it is another one.
    """
    if digest != metadata["model"]:
        shown = "stdin" if source == PIPE else source
        ready = ", ".join(one.name for one in pretrained())
        raise VqtoolError(
            f"`{shown}` was written with another model than `{model.path}`",
            hint=f"name the model that encoded it, a run or one that comes with vqtool ({ready}): "
            f"vqtool decode CKPT {source}",
        )


def named(path: Path) -> list[Path]:
    """A file that has a name, which stdin and stdout do not."""
    return [] if path == PIPE else [path]


def as_whole(why: str) -> None:
    """Say that nothing comes out before the end."""
    out.say(f"`-` is read to its end first, on disk: {why}")
