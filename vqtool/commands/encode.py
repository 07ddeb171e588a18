"""`vqtool encode` and `vqtool decode`: a user's signals to codes, and codes back to signals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vqtool.api import CodedPiece, Decodes, Encodes, Files, Piece
from vqtool.commands import outputs, streams
from vqtool.commands.pipes import as_files, incoming, outgoing
from vqtool.console import out
from vqtool.errors import VqtoolError, counted
from vqtool.files import PIPE, missing_file, require_parent_dir
from vqtool.forms import damaged
from vqtool.model.codes import check_codes, codes_metadata, load_codes, save_codes
from vqtool.model.data import options_asked, report_notes, report_skipped
from vqtool.model.load import capable
from vqtool.model.model import Model
from vqtool.model.runs import is_model
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
    raw: int | None = None,
    force: bool = False,
) -> int:
    """Signals to codes, piece by piece: in the data's own format of codes, or in a safetensors file."""
    checkpoint, input_file = model_and_file(checkpoint, input_file, "encode")
    require_parent_dir(out_file)
    if input_file != PIPE and not input_file.exists():
        raise missing_file(input_file, what="file or folder")
    if raw is not None and input_file != PIPE:
        raise VqtoolError("`--raw` is for samples from stdin", hint=f"vqtool encode - --raw {raw} < {input_file}")
    arriving = incoming(input_file) if input_file == PIPE else contextlib.nullcontext()
    with arriving as came, outgoing(out_file) as stdout, runtime(device, precision) as here, torch.no_grad():
        model, task = capable(checkpoint, Encodes, "encode")
        model.check_levels(levels)
        asked = options_asked(model.recipe, overrides)
        files = model.files(asked)
        before = b"" if raw is None else files.raw_header(raw)
        here.place(model)
        out_file = outputs.placed(files, input_file, out_file, decode=False)
        if came is not None:
            read = paths_in(asked)
            streamed = streams.encode(
                model, files, came, out_file, stdout, levels=levels, raw=raw, read=read, force=force
            )
            if streamed is not None:
                report_notes(files.remarks())
                report_codes(*streamed, out_file, [out_file], skipped=[])
                return came.exit_code
        with as_files(input_file, out_file, came, stdout, before=before) as (source, target):
            check_files(model, files, source, target, asked, decode=False, force=force, piped=stdout is not None)
            if levels is not None:
                model.parts.quantizer.use_levels(levels)
            with out.progress(None, "encode") as bar:
                coded = Watched(encoded(model, task, files.open(source), here, levels), bar)
                save = files.save_codes if files.own_codes else save_codes
                written = save(target, iter(coded), codes_metadata(model))
            figures = files.code_figures(written)
            report_notes(files.remarks())
            left_out = list(files.skipped())
            report_codes((coded.rows, *coded.shape), figures, out_file, written, skipped=left_out)
    return report_skipped(left_out) or (came.exit_code if came else 0)


def decode(
    *,
    checkpoint: Path | None,
    codes_file: Path | None,
    out_file: Path,
    levels: int | None,
    device: str,
    raw: bool = False,
    force: bool = False,
) -> int:
    """Codes back to signals in the units they came in, piece by piece."""
    checkpoint, codes_file = model_and_file(checkpoint, codes_file, "decode")
    require_parent_dir(out_file)
    if raw and out_file != PIPE:
        raise VqtoolError("`--raw` is for samples to stdout", hint=f"--out {out_file.with_suffix('.raw')}, without it")
    with incoming(codes_file) as came, outgoing(out_file) as stdout, runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Decodes, "decode")
        model.check_levels(levels)
        files = model.files()
        if raw:
            files.raw_header(1)
        here.place(model)
        out_file = outputs.placed(files, codes_file, out_file, decode=True)
        if came is not None:
            rows = streams.decode(model, files, came, codes_file, out_file, stdout, levels=levels, raw=raw, force=force)
            if rows is not None:
                report_notes(files.remarks())
                left_out = list(files.skipped())
                report_files(counted(rows, "signal"), out_file, [out_file], {}, signals=rows, skipped=left_out)
                return came.exit_code or report_skipped(left_out)
        with as_files(codes_file, out_file, came, stdout, suffix=".raw" if raw else "") as (source, target):
            check_files(model, files, source, target, {}, decode=True, force=force, piped=stdout is not None)
            metadata = codes_metadata(model)
            digest, pieces = (files.open_codes if files.own_codes else load_codes)(source, metadata)
            streams.check_digest(digest, metadata, model, codes_file)

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
    return report_skipped(left_out) or (came.exit_code if came else 0)


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


def report_codes(
    shape: tuple[int, ...], figures: Mapping[str, float], out_file: Path, files: Sequence[Path], *, skipped: list[str]
) -> None:
    """Show the codes that were written."""
    what = f"codes {shape} (windows, tokens, codebooks)"
    report_files(what, out_file, files, figures, codes=shape, skipped=skipped)


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
