"""`vqtool encode` and `vqtool decode`: a user's signals to codes, and codes back to signals."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vqtool.api import CodedPiece, Decodes, Encodes, Files, Piece, Task
from vqtool.commands import outputs
from vqtool.commands.newest import checkpoint_path
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir
from vqtool.forms import damaged
from vqtool.model.build import Model, from_checkpoint
from vqtool.model.user_files import load_codes, options_asked, save_codes, user_files
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
        check_levels(model, levels)
        asked = options_asked(model, overrides)
        files = user_files(model, asked)
        read = [checkpoint_path(checkpoint), *paths_in(asked)]
        check_files(model, files, input_file, out_file, read, decode=False, force=force)
        model.parts.to(here.device).eval()
        if levels is not None:
            model.parts.quantizer.use_levels(levels)
        with out.progress(None, "encode") as bar:
            coded = Watched(encoded(model, task, files.open(input_file), here, levels), bar)
            if files.own_codes:
                written = files.save_codes(out_file, iter(coded), about_codes(model) | {"code_use": code_use(model)})
                figures = files.code_figures(written)
            else:
                written, figures = save_codes(out_file, coded, about_codes(model)), {}
    shape = (coded.rows, *coded.shape)
    report_files(f"codes {shape} (windows, tokens, codebooks)", out_file, written, figures, codes=shape)
    return 0


def decode(
    *, checkpoint: Path, codes_file: Path, out_file: Path, levels: int | None, device: str, force: bool = False
) -> int:
    """Codes back to signals in the units they came in, piece by piece."""
    require_parent_dir(out_file)
    with runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Decodes, "decode")
        check_levels(model, levels)
        files = user_files(model)
        check_files(model, files, codes_file, out_file, [checkpoint_path(checkpoint)], decode=True, force=force)
        about = about_codes(model)
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

        def signals(coded: Watched) -> Iterator[Piece]:
            for piece in coded:
                check_piece(model, piece, codes_file)
                tensors = here.place({"codes": piece.codes[..., :levels], "sent": piece.sent})
                signal = task.decode(model.parts, tensors, here.place(piece.conditions)).cpu()
                yield Piece({"x": signal, **piece.conditions}, piece.metadata)

        with from_codes(codes_file), out.progress(None, "decode") as bar:
            coded = Watched(pieces, bar)
            written = files.save(out_file, signals(coded))
    report_files(f"{coded.rows} signals", out_file, written, {}, signals=coded.rows)
    return 0


def encoded(
    model: Model, task: Any, pieces: Iterable[Piece], here: Runtime, levels: int | None
) -> Iterator[CodedPiece]:
    """The codes of each piece (of the first `levels` codebooks), computed when the writer asks for it."""
    for piece in pieces:
        report(piece)
        coded = task.encode(model.parts, here.place(piece.batch))
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
    out.say(f"wrote {what} to {files[0] if len(files) == 1 else f'{len(files)} files'}")
    for name, value in figures.items():
        out.say(f"{name} {value:.3f}")
    out.print("\n".join(map(str, files)))
    out.document({"out": out_file, "files": files, **document, **figures})


def check_piece(model: Model, piece: CodedPiece, path: Path) -> None:
    """Codes from a file must be such as the model's quantizer gives, and what goes with them must fit them."""
    codes, sent = piece.codes, piece.sent
    if codes.dim() != 3:
        raise damaged(path, f"its codes have the shape {tuple(codes.shape)}, not (windows, tokens, codebooks)")
    try:
        model.parts.quantizer.check_codes(codes)
    except VqtoolError as error:
        raise damaged(path, error.message) from error
    if sent.shape != (len(codes), len(model.parts.norm.sends)):
        raise damaged(path, f"its tensor `sent` has the shape {tuple(sent.shape)}")
    for name, tensor in (("sent", sent), *((f"condition.{name}", t) for name, t in piece.conditions.items())):
        field = model.spec.fields.get(name.removeprefix("condition."))
        fits = tensor.shape[:1] == codes.shape[:1] and (field is None or tuple(tensor.shape[1:]) == tuple(field.shape))
        if not fits or not bool(tensor.isfinite().all()):
            raise damaged(path, f"its tensor `{name}` does not fit its codes, or holds a NaN or an infinity")


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


def capable(checkpoint: Path, protocol: type, verb: str) -> tuple[Model, Task]:
    """A model from a checkpoint or run, and its last task that can do what the verb needs."""
    path = checkpoint_path(checkpoint)
    model, _ = from_checkpoint(path)
    found = model.task(protocol)
    if found is None:
        tasks = ", ".join(f"`{stage.task.kind}`" for stage in model.recipe.stages if stage.name in model.tasks)
        raise VqtoolError(f"`{path}` cannot {verb}; it was trained with {tasks}")
    return model, found[1]


def check_levels(model: Model, levels: int | None) -> None:
    """`--levels` takes some of a residual quantizer's levels, the first ones."""
    if levels is None:
        return
    quantizer = model.parts.quantizer
    have = len(quantizer.codebook_sizes)
    if quantizer.noun != "level" or not 1 <= levels <= have:
        has = f"{have} levels" if quantizer.noun == "level" else "no levels to leave out"
        raise VqtoolError(f"--levels {levels} cannot be: the model's quantizer has {has}")


def model_hash(model: Model) -> str:
    """A digest of what codes mean: the quantizer's and decoder's weights, not those of later stages."""
    digest = hashlib.sha256()
    for name, value in sorted(model.parts.state_dict().items()):
        if name.split(".")[0] in ("norm", "conditioner", "encoder", "quantizer", "decoder"):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def about_codes(model: Model) -> dict[str, Any]:
    """What is to be known of codes: the digest of the model, the sizes of its codebooks, tokens of a moment."""
    sizes = list(model.parts.quantizer.codebook_sizes)
    return {"model": model_hash(model), "codebook_sizes": sizes, "bands": model.parts.encoder.bands}


def code_use(model: Model) -> list[list[float]] | None:
    """How much training used each code of each codebook; None where the quantizer does not know."""
    use = model.parts.quantizer.code_use()
    return None if use is None else [each.tolist() for each in use]


def report(piece: Piece) -> None:
    """Show what was done to the signals when they were read, as a resampling."""
    for note in piece.notes:
        out.say(note)
