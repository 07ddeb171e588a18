"""`vqtool encode` and `vqtool decode`: a user's signals to codes, and codes back to signals."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtool.api import Batch, Coded, Data, Decodes, Encodes, Task
from vqtool.catalog import catalog
from vqtool.commands import outputs
from vqtool.commands.forecast import options_asked
from vqtool.commands.newest import checkpoint_path
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.files import require_parent_dir
from vqtool.forms import damaged
from vqtool.model import checkpoint as files
from vqtool.model.build import Model, from_checkpoint
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
        data = catalog().load("data", model.recipe.data.kind)
        asked = options_asked(model, list(overrides), None, None)
        read = [checkpoint_path(checkpoint), *paths_in(asked)]
        check_files(model, data, input_file, out_file, read, decode=False, force=force)
        model.parts.to(here.device).eval()
        if levels is not None and hasattr(model.parts.quantizer, "depth"):
            model.parts.quantizer.depth = levels  # a search that looks ahead ends where the codes will
        pieces = data.to_encode(model.spec, input_file, model.recipe.data.options, asked)
        about = about_codes(model)
        with out.progress(None, "encode") as bar:
            coded = Counted(watched(encoded(model, task, pieces, here, levels), bar))
            if data.own_codes:
                written = data.write_codes(model.spec, out_file, coded, about | {"code_use": code_use(model)})
                figures = data.code_figures(model.spec, written)
            else:
                written, figures = save_codes(out_file, coded, about), {}
    out.say(f"wrote codes {(coded.windows, *coded.shape)} (windows, tokens, codebooks) to {listed(written)}")
    for name, value in figures.items():
        out.say(f"{name} {value:.3f}")
    out.print("\n".join(map(str, written)))
    told = {"out": str(out_file), "files": [str(f) for f in written], "codes": [coded.windows, *coded.shape]}
    out.document(told | figures)
    return 0


def decode(
    *, checkpoint: Path, codes_file: Path, out_file: Path, levels: int | None, device: str, force: bool = False
) -> int:
    """Codes back to signals in the units they came in, piece by piece."""
    require_parent_dir(out_file)
    with runtime(device) as here, torch.no_grad():
        model, task = capable(checkpoint, Decodes, "decode")
        check_levels(model, levels)
        data = catalog().load("data", model.recipe.data.kind)
        read = [checkpoint_path(checkpoint)]
        check_files(model, data, codes_file, out_file, read, decode=True, force=force)
        mine = about_codes(model)
        if data.own_codes:
            about, pieces = data.read_codes(model.spec, codes_file, mine | {"code_use": code_use(model)})
        else:
            about, pieces = load_codes(codes_file)
        if about["model"] != mine["model"]:
            raise VqtoolError(
                f"`{codes_file}` was written with another model than `{checkpoint}`",
                hint="decode with the checkpoint that encoded it",
            )
        model.parts.to(here.device).eval()
        count = 0

        def signals(bar: Progress) -> Iterator[tuple[Tensor, Batch, dict[str, Any]]]:
            nonlocal count
            for piece in watched(pieces, bar):
                check_piece(model, piece, codes_file)
                coded = here.place({"codes": piece.codes[..., :levels], "sent": piece.sent})
                signal = task.decode(model.parts, coded, here.place(piece.batch)).cpu()
                count += len(signal)
                yield signal, piece.batch, piece.about

        with from_codes(codes_file), out.progress(None, "decode") as bar:
            written = data.write_chunks(model.spec, out_file, signals(bar))
    out.say(f"wrote {count} signals to {listed(written)}")
    out.print("\n".join(map(str, written)))
    out.document({"out": str(out_file), "files": [str(f) for f in written], "signals": count})
    return 0


def encoded(
    model: Model, task: Any, chunks: Iterable[tuple[Batch, dict[str, Any]]], here: Runtime, levels: int | None
) -> Iterator[Coded]:
    """The codes of each piece (of the first `levels` codebooks), computed when the writer asks for it."""
    for batch, about in chunks:
        say_notes(about)
        coded = task.encode(model.parts, here.place(batch))
        rest = {name: value for name, value in batch.items() if name != "x"}
        yield Coded(coded["codes"][..., :levels].cpu(), coded["sent"].cpu(), rest, about)


def watched(pieces: Iterable[Coded], bar: Progress) -> Iterator[Coded]:
    """The pieces, each counted once it is dealt with; `about["pieces"]` says how many there are, where it is known."""
    for piece in pieces:
        bar.expect(piece.about.get("pieces"))
        yield piece
        bar.advance()


class Counted:
    """An iterator over pieces that remembers how much went through it."""

    def __init__(self, pieces: Iterator[Coded]) -> None:
        self.pieces = pieces
        self.windows = 0
        self.shape: tuple[int, ...] = ()

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Coded:
        piece = next(self.pieces)
        self.windows += len(piece.codes)
        self.shape = tuple(piece.codes.shape[1:])
        return piece


def save_codes(path: Path, pieces: Iterable[Coded], about: Mapping[str, Any]) -> list[Path]:
    """All pieces' codes in one safetensors file, with the conditions they need to be decoded."""
    held = list(pieces)
    if not held:
        raise VqtoolError("there is nothing to encode")
    tensors = {"codes": torch.cat([p.codes for p in held]), "sent": torch.cat([p.sent for p in held])}
    tensors |= {f"condition.{name}": torch.cat([p.batch[name] for p in held]) for name in held[0].batch}
    files.save(path, tensors, {"kind": "codes", **about, "about": held[0].about})
    return [path]


def load_codes(path: Path) -> tuple[dict[str, Any], Iterator[Coded]]:
    """What `save_codes` wrote."""
    read = files.load(path)
    if read.about.get("kind") != "codes":
        raise VqtoolError(f"`{path}` holds no codes", hint="vqtool encode CKPT INPUT --out FILE writes them")
    about, _ = files.needed(path, read, "about", "model")
    lost = [name for name in ("codes", "sent") if name not in read.tensors]
    if lost:
        raise damaged(path, f"it has no tensor `{lost[0]}`")
    batch = {n.removeprefix("condition."): t for n, t in read.tensors.items() if n.startswith("condition.")}
    return read.about, iter([Coded(read.tensors["codes"], read.tensors["sent"], batch, about)])


def check_piece(model: Model, piece: Coded, path: Path) -> None:
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
    for name, tensor in (("sent", sent), *((f"condition.{name}", t) for name, t in piece.batch.items())):
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
    model: Model, data: type[Data], source: Path, out_file: Path, more: Sequence[Path], *, decode: bool, force: bool
) -> None:
    """Every file that coding (or decoding) `source` to `out_file` writes, against all that is read."""
    targets = data.files_written(source, out_file, decode=decode)
    folder = None if targets == [out_file] else out_file
    if folder is not None and folder.exists() and folder.samefile(source):
        raise VqtoolError(f"`{folder}` is an input as well", hint="write to another folder")
    read = [*data.files_read(source, decode=decode), *more]
    outputs.check(*targets, inputs=read, force=force, recipe=model.recipe, folder=folder)


def listed(files: Sequence[Path]) -> str:
    """One file by its name, more by how many there are."""
    return str(files[0]) if len(files) == 1 else f"{len(files)} files"


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
    if quantizer.topology != "residual" or not 1 <= levels <= have:
        has = f"{have} levels" if quantizer.topology == "residual" else "no levels to leave out"
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


def say_notes(about: Mapping[str, Any]) -> None:
    """What the reader changed on the way (a resampling, say) is said aloud."""
    for note in about.get("notes", ()):
        out.say(note)
