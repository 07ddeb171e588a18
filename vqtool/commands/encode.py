"""`vqtool encode` and `vqtool decode`: a user's signals to codes, and codes back to signals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from vqtool.api import CodedPiece, Decodes, Encodes, Files, Piece
from vqtool.commands import outputs
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir
from vqtool.forms import damaged
from vqtool.model.codes import check_codes, code_use, codes_metadata
from vqtool.model.load import capable
from vqtool.model.model import Model
from vqtool.model.runs import checkpoint_path
from vqtool.model.user_files import load_codes, options_asked, save_codes
from vqtool.progress import Progress
from vqtool.recipe.spec import paths_in
from vqtool.training.runtime import Runtime, runtime


def run(
    *,
    checkpoint: Path,
    input_file: Path,
    out_file: Path,
    levels: int | None,
    device: str,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> int:
    """Signals to codes, piece by piece: in the data's own format of codes, or in a safetensors file."""
    require_parent_dir(out_file)
    if not input_file.exists():
        raise VqtoolError(f"there is no file or folder `{input_file}`")
    with runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Encodes, "encode")
        model.check_levels(levels)
        asked = options_asked(model.recipe, overrides)
        files = model.files(asked)
        read = [checkpoint_path(checkpoint), *paths_in(asked)]
        check_files(model, files, input_file, out_file, read, decode=False, force=force)
        model.parts.to(here.device).eval()
        if levels is not None:
            model.parts.quantizer.use_levels(levels)
        with out.progress(None, "encode") as bar:
            coded = Counted(watched(encoded(model, task, files.open(input_file), here, levels), bar))
            if files.own_codes:
                written = files.save_codes(out_file, coded, codes_metadata(model) | {"code_use": code_use(model)})
                figures = files.code_figures(written)
            else:
                written, figures = save_codes(out_file, coded, codes_metadata(model)), {}
    out.say(f"wrote codes {(coded.windows, *coded.shape)} (windows, tokens, codebooks) to {listed(written)}")
    for name, value in figures.items():
        out.say(f"{name} {value:.3f}")
    out.print("\n".join(map(str, written)))
    result = {"out": str(out_file), "files": [str(f) for f in written], "codes": [coded.windows, *coded.shape]}
    out.document(result | figures)
    return 0


def decode(
    *, checkpoint: Path, codes_file: Path, out_file: Path, levels: int | None, device: str, force: bool = False
) -> int:
    """Codes back to signals in the units they came in, piece by piece."""
    require_parent_dir(out_file)
    with runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Decodes, "decode")
        model.check_levels(levels)
        files = model.files()
        check_files(model, files, codes_file, out_file, [checkpoint_path(checkpoint)], decode=True, force=force)
        about = codes_metadata(model)
        if files.own_codes:
            digest, pieces = files.open_codes(codes_file, about | {"code_use": code_use(model)})
        else:
            digest, pieces = load_codes(codes_file)
        if digest != about["model"]:
            raise VqtoolError(
                f"`{codes_file}` was written with another model than `{checkpoint}`",
                hint="decode with the checkpoint that encoded it",
            )
        model.parts.to(here.device).eval()
        count = 0

        def signals(bar: Progress) -> Iterator[Piece]:
            nonlocal count
            for piece in watched(pieces, bar):
                check_codes(model, piece.codes, piece.sent, piece.conditions, codes_file)
                coded = here.to_device({"codes": piece.codes[..., :levels], "sent": piece.sent})
                signal = task.decode(model.parts, coded, here.to_device(piece.conditions)).cpu()
                count += len(signal)
                yield Piece({"x": signal, **piece.conditions}, piece.metadata)

        with from_codes(codes_file), out.progress(None, "decode") as bar:
            written = files.save(out_file, signals(bar))
    out.say(f"wrote {count} signals to {listed(written)}")
    out.print("\n".join(map(str, written)))
    out.document({"out": str(out_file), "files": [str(f) for f in written], "signals": count})
    return 0


def encoded(
    model: Model, task: Any, pieces: Iterable[Piece], here: Runtime, levels: int | None
) -> Iterator[CodedPiece]:
    """The codes of each piece (of the first `levels` codebooks), computed when the writer asks for it."""
    for piece in pieces:
        report(piece)
        coded = task.encode(model.parts, here.to_device(piece.batch))
        conditions = {name: value for name, value in piece.batch.items() if name != "x"}
        metadata = {**piece.metadata, "notes": list(piece.notes)}
        yield CodedPiece(coded["codes"][..., :levels].cpu(), coded["sent"].cpu(), conditions, metadata, piece.total)


def watched(pieces: Iterable[CodedPiece], bar: Progress) -> Iterator[CodedPiece]:
    """The pieces, each counted once it is dealt with."""
    for piece in pieces:
        bar.expect(piece.total)
        yield piece
        bar.advance()


class Counted:
    """An iterator over pieces that remembers how much went through it."""

    def __init__(self, pieces: Iterator[CodedPiece]) -> None:
        self.pieces = pieces
        self.windows = 0
        self.shape: tuple[int, ...] = ()

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> CodedPiece:
        piece = next(self.pieces)
        self.windows += len(piece.codes)
        self.shape = tuple(piece.codes.shape[1:])
        return piece


@contextlib.contextmanager
def from_codes(path: Path) -> Iterator[None]:
    """While codes are decoded and written: what fails over their shapes or their `about` is an error of the file."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise damaged(path, f"it cannot be decoded ({type(error).__name__}: {lines[0][:200]})") from error


def check_files(
    model: Model, files: Files, source: Path, out_file: Path, more: Sequence[Path], *, decode: bool, force: bool
) -> None:
    """Every file that coding (or decoding) `source` to `out_file` writes, against all that is read."""
    targets = files.outputs(source, out_file, decode=decode)
    folder = None if targets == [out_file] else out_file
    if folder is not None and folder.exists() and folder.samefile(source):
        raise VqtoolError(f"`{folder}` is an input as well", hint="write to another folder")
    read = [*files.inputs(source, decode=decode), *more]
    outputs.check(*targets, inputs=read, force=force, recipe=model.recipe, folder=folder)


def listed(files: Sequence[Path]) -> str:
    """One file by its name, more by how many there are."""
    return str(files[0]) if len(files) == 1 else f"{len(files)} files"


def report(piece: Piece) -> None:
    """Show what was done to the signals when they were read, as a resampling."""
    for note in piece.notes:
        out.say(note)
