"""`vqtool encode` and `vqtool decode`: a user's signals to codes, and codes back to signals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vqtool.api import CodedPiece, Decodes, Encodes, Files, Piece
from vqtool.commands import outputs
from vqtool.commands.pipes import PIPE, piped
from vqtool.console import out
from vqtool.errors import VqtoolError, counted
from vqtool.files import missing_file, require_parent_dir
from vqtool.forms import damaged
from vqtool.model.codes import check_codes, codes_metadata, load_codes, save_codes
from vqtool.model.data import options_asked, report_notes, report_skipped
from vqtool.model.load import capable
from vqtool.model.model import Model
from vqtool.model.runs import is_model, pretrained
from vqtool.progress import Progress
from vqtool.recipe.spec import paths_in
from vqtool.training.runtime import Runtime, runtime


def run(
    *,
    checkpoint: Path | None,
    input_file: Path | None,
    out_file: Path,
    levels: int | None,
    device: str,
    precision: str = "fp32",
    overrides: Sequence[str] = (),
    force: bool = False,
) -> int:
    """Signals to codes, piece by piece: in the data's own format of codes, or in a safetensors file."""
    checkpoint, input_file = model_and_file(checkpoint, input_file, "encode")
    require_parent_dir(out_file)
    if input_file != PIPE and not input_file.exists():
        raise missing_file(input_file, what="file or folder")
    with piped(input_file, out_file) as (source, target), runtime(device, precision) as here, torch.no_grad():
        model, task = capable(checkpoint, Encodes, "encode")
        model.check_levels(levels)
        asked = options_asked(model.recipe, overrides)
        files = model.files(asked)
        check_files(model, files, source, target, asked, decode=False, force=force, piped=out_file == PIPE)
        here.place(model)
        if levels is not None:
            model.parts.quantizer.use_levels(levels)
        with out.progress(None, "encode") as bar:
            coded = Watched(encoded(model, task, files.open(source), here, levels), bar)
            save = files.save_codes if files.own_codes else save_codes
            written = save(target, iter(coded), codes_metadata(model))
        shape = (coded.rows, *coded.shape)
        figures = files.code_figures(written)
        report_notes(files.remarks())
        what, left_out = f"codes {shape} (windows, tokens, codebooks)", list(files.skipped())
        report_files(what, out_file, written, figures, codes=shape, skipped=left_out)
    return report_skipped(left_out)


def decode(
    *,
    checkpoint: Path | None,
    codes_file: Path | None,
    out_file: Path,
    levels: int | None,
    device: str,
    force: bool = False,
) -> int:
    """Codes back to signals in the units they came in, piece by piece."""
    checkpoint, codes_file = model_and_file(checkpoint, codes_file, "decode")
    require_parent_dir(out_file)
    with piped(codes_file, out_file) as (source, target), runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Decodes, "decode")
        model.check_levels(levels)
        files = model.files()
        check_files(model, files, source, target, {}, decode=True, force=force, piped=out_file == PIPE)
        metadata = codes_metadata(model)
        digest, pieces = (files.open_codes if files.own_codes else load_codes)(source, metadata)
        if digest != metadata["model"]:
            raise VqtoolError(
                f"`{source}` was written with another model than `{model.path}`",
                hint=f"name the model that encoded it, a run or one that comes with vqtool "
                f"({', '.join(one.name for one in pretrained())}): vqtool decode CKPT {codes_file}",
            )
        here.place(model)

        def signals(coded: Watched) -> Iterator[Piece]:
            for piece in coded:
                check_codes(model, piece.codes, piece.sent, piece.conditions, source)
                tensors = here.to_device({"codes": piece.codes[..., :levels], "sent": piece.sent})
                signal = task.decode(model.parts, tensors, here.to_device(piece.conditions)).cpu()
                yield Piece({"x": signal, **piece.conditions}, piece.metadata)

        with from_codes(source), out.progress(None, "decode") as bar:
            coded = Watched(pieces, bar)
            written = files.save(target, signals(coded))
        left_out = list(files.skipped())
        report_files(counted(coded.rows, "signal"), out_file, written, {}, signals=coded.rows, skipped=left_out)
    return report_skipped(left_out)


def model_and_file(first: Path | None, second: Path | None, verb: str) -> tuple[Path | None, Path]:
    """What `[CKPT] FILE` name: one argument alone is the file, and the model is then chosen by what it can do.

    Raises:
        VqtoolError: no file is given, or the model comes after it.
    """
    if first is None or (second is None and is_model(first)):
        model = "" if first is None else f"{first} "
        raise VqtoolError("a file is needed", hint=f"vqtool {verb} {model}FILE --out OUT")
    if second is None:
        return None, first
    if is_model(second) and not is_model(first):
        raise VqtoolError(f"`{second}` is a model, which comes first", hint=f"vqtool {verb} {second} {first} --out OUT")
    return first, second


def encoded(
    model: Model, task: Any, pieces: Iterable[Piece], here: Runtime, levels: int | None
) -> Iterator[CodedPiece]:
    """The codes of each piece (of the first `levels` codebooks), computed when the writer asks for it."""
    for piece in pieces:
        report_notes(piece.notes)
        coded = task.encode(model.parts, here.to_device(piece.batch))
        conditions = {name: value for name, value in piece.batch.items() if name != "x"}
        metadata = {**piece.metadata, "notes": list(piece.notes)}
        yield CodedPiece(coded["codes"][..., :levels].cpu(), coded["sent"].cpu(), conditions, metadata, piece.total)


class Watched:
    """Pieces on their way to a writer; each is counted once it is dealt with."""

    def __init__(self, pieces: Iterable[CodedPiece], bar: Progress) -> None:
        self.pieces, self.bar = pieces, bar
        self.rows = 0
        self.shape: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[CodedPiece]:
        for piece in self.pieces:
            self.bar.expect(piece.total)
            self.rows += len(piece.codes)
            self.shape = tuple(piece.codes.shape[1:])
            yield piece
            self.bar.advance()


def report_files(
    what: str, out_file: Path, files: Sequence[Path], figures: Mapping[str, float], **document: Any
) -> None:
    """Show what was written, and the figures of it."""
    one = "stdout" if out_file == PIPE else files[0] if files else ""
    out.say(f"wrote {what} to {one if len(files) == 1 else f'{len(files)} files'}")
    for name, value in figures.items():
        out.say(f"{name} {value:.3f}")
    out.print("\n".join(map(str, files)))
    out.document({"out": out_file, "files": files, **document, **figures})


@contextlib.contextmanager
def from_codes(path: Path) -> Iterator[None]:
    """While codes are decoded and written: an error over their shapes or metadata is an error of the file."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise damaged(path, f"it cannot be decoded ({type(error).__name__}: {lines[0][:200]})") from error


def check_files(
    model: Model, files: Files, source: Path, out_file: Path, asked: Mapping[str, Any], *, decode: bool, force: bool,
    piped: bool,
) -> None:  # fmt: skip
    """Every file that coding (or decoding) `source` to `out_file` writes, against all that is read."""
    targets = files.outputs(source, out_file, decode=decode)
    folder = None if targets == [out_file] else out_file
    if folder is not None and piped:
        raise VqtoolError(f"`{source}` becomes a folder of files, and stdout takes one", hint="--out FOLDER")
    if folder is not None and folder.exists() and folder.samefile(source):
        raise VqtoolError(f"`{folder}` is an input as well", hint="write to another folder")
    read = [*files.inputs(source, decode=decode), model.path, *paths_in(asked)]
    outputs.check(*targets, inputs=read, force=force, recipe=model.recipe, folder=folder)
