"""A user's audio to pieces for the codec and back: files and folders, .vqc files, output aligned to the sample.

A file is coded in pieces of up to `CORE` segments (a segment is a training row) with one segment of context on either
side, so that no piece hears its ends. Where the pieces lie depends on the file alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import Batch, Coded, DataSpec
from vqtool.errors import VqtoolError
from vqtool.files import make_dir, replacing
from vqtool.progress import progress_of
from vqtool_speech import audio
from vqtool_speech.clips import PEAK, Manner, at_codec_rate, audio_files, measured
from vqtool_speech.spool import CodeSpool
from vqtool_speech.vqc import GAINS, Header, damaged, header_of, packed, samples_at, symbols, unpack, widths

CORE = 8
SUFFIX = ".vqc"


def manner_of(spec: DataSpec) -> Manner:
    """How the model's data were read."""
    return Manner(int(spec.sample_rate or 0), spec.about["mix"], spec.about["normalise"])


def read_pieces(spec: DataSpec, path: Path) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Pieces [channels, 1, (n + 2) segments], n <= CORE, of every audio file of `path`, file by file and in order."""
    manner, segment = manner_of(spec), spec.length
    found = audio_files(path)
    _apart(found, path)
    infos = [audio.info(file) for file in found]
    pieces = sum(_pieces_of(samples_at(info.frames, info.rate, manner.rate), segment) for info in infos)
    for file, info in zip(found, infos, strict=True):
        with progress_of(info.frames, f"measure {file.name}") as bar:
            whole = measured(file, manner, bar.advance)
        gains = [math.inf if gain > GAINS[1] else float(np.float32(gain)) for gain in whole.gains]
        _check_gains(file, gains)
        meta = {"file": _name(file, path), "folder": path.is_dir(), "source_rate": info.rate, "length": whole.frames,
                "gains": gains, "pieces": pieces, "notes": _notes(file, info, manner, whole.frames)}  # fmt: skip
        loud = np.array([1.0 if math.isinf(gain) else gain for gain in gains], np.float32)[:, None]
        sound = (block.T * loud for block in at_codec_rate(file, manner, whole.frames))
        for x in _with_context(_taker(sound), samples_at(whole.frames, info.rate, manner.rate), segment, segment, 0.0):
            yield {"x": torch.from_numpy(x)[:, None]}, meta
            meta = meta | {"notes": []}


def _taker(blocks: Iterator[NDArray[Any]]) -> Callable[[int], NDArray[Any]]:
    """What gives the next n along axis 1 of `blocks` [channels, m], zeros after the last."""
    held = next(blocks)

    def take(count: int) -> NDArray[Any]:
        nonlocal held
        parts, have = [held], held.shape[1]
        while have < count:
            block = next(blocks, None)
            if block is None:
                block = np.zeros((held.shape[0], count - have), held.dtype)
            parts.append(block)
            have += block.shape[1]
        whole = np.concatenate(parts, 1)
        held = whole[:, count:]
        return whole[:, :count]

    return take


def _with_context(
    take: Callable[[int], NDArray[Any]], length: int, segment: int, unit: int, outside: float
) -> Iterator[NDArray[Any]]:
    """Pieces along axis 1 of what `take` gives, of n + 2 segments: with the one before and the one after.

    A segment is `unit` long in what is taken; before the beginning and after the end it is `outside`.
    """
    held, left = None, -(-length // segment) * unit
    for _, count in spans(length, segment):
        if held is None:
            first = take(0)
            held = np.full((first.shape[0], unit, *first.shape[2:]), outside, first.dtype)
        need = (count + 2) * unit - held.shape[1]
        taken = take(min(need, left))
        left -= taken.shape[1]
        after = np.full((held.shape[0], need - taken.shape[1], *held.shape[2:]), outside, held.dtype)
        piece = np.concatenate([held, taken, after], 1)
        yield piece
        held = piece[:, count * unit :]


def _check_gains(file: Path, gains: list[float]) -> None:
    """Refuse a sound so loud that no gain brings it to full scale and back."""
    if any(gain < GAINS[0] for gain in gains):
        raise VqtoolError(f"`{file}` has samples beyond {1 / GAINS[0]:g} times full scale", hint="scale it down")


def _apart(files: list[Path], path: Path) -> None:
    """An error, before anything is coded, where two files of a folder would become one."""
    first: dict[Path, Path] = {}
    for file in files if path.is_dir() else ():
        other = first.setdefault(file.with_suffix(""), file)
        if other != file:
            raise VqtoolError(
                f"`{other}` and `{file}` would become one file", hint="give them different names", exit_code=1
            )


def spans(length: int, segment: int) -> Iterator[tuple[int, int]]:
    """Where the pieces of `length` samples begin, and of how many segments they are."""
    for start in range(0, length, CORE * segment):
        yield start, min(CORE, -(-(length - start) // segment))


def _pieces_of(length: int, segment: int) -> int:
    """How many pieces `length` samples have."""
    return -(-length // (CORE * segment))


def _name(file: Path, path: Path) -> str:
    return file.relative_to(path).as_posix() if path.is_dir() else file.name


def _notes(file: Path, info: audio.Info, manner: Manner, frames: int) -> list[str]:
    """What happens to a file on the way, in sentences."""
    notes = []
    if info.rate != manner.rate:
        notes.append(f"`{file.name}` is resampled from {info.rate} Hz to {manner.rate} Hz, and back in the end")
    if info.channels > 1 and manner.mix != "each":
        how = "mixed to one" if manner.mix == "mean" else "reduced to the first"
        notes.append(f"the {info.channels} channels of `{file.name}` are {how}")
    if info.missing or frames < info.frames:
        more = f"{info.frames - frames} samples" if frames < info.frames else f"{info.missing} bytes"
        notes.append(f"`{file.name}` is cut short: its header promises {more} more than the {frames} samples it has")
    return notes


def write_codes(spec: DataSpec, path: Path, pieces: Iterable[Coded], about: Mapping[str, Any]) -> list[Path]:
    """A .vqc file for every sound: `path`, or of a folder the same tree below `path`."""
    files: list[Path] = []
    for meta, group in _by_file((piece.about, piece.codes) for piece in pieces):
        header, codes = _held(spec, meta, group, about)
        target = _target(path, meta, SUFFIX)
        with replacing(target) as file, progress_of(symbols(codes), f"write {target.name}") as bar:
            for part in packed(header, codes, about.get("code_use"), bar.advance):
                file.write(part)
        files.append(target)
    return files


def _by_file(pieces: Iterable[tuple[dict[str, Any], Tensor]]) -> Iterator[tuple[dict[str, Any], Iterator[Tensor]]]:
    """What the first piece of each file tells, and the tensors of its pieces, one after the other."""
    for _, group in groupby(pieces, key=lambda piece: piece[0]["file"]):
        mine = iter(group)
        meta, first = next(mine)
        yield meta, chain([first], (tensor for _, tensor in mine))


def _held(
    spec: DataSpec, meta: Mapping[str, Any], pieces: Iterator[Tensor], about: Mapping[str, Any]
) -> tuple[Header, CodeSpool]:
    """One sound's codes from its pieces [channels, tokens, levels], without what lies around them."""
    rate = int(spec.sample_rate or 0)
    _, count = next(spans(samples_at(meta["length"], meta["source_rate"], rate), spec.length))
    first = next(pieces)
    margin = first.shape[1] // (count + 2)
    header = Header(
        rate, meta["source_rate"], meta["length"], widths(about["codebook_sizes"], first),
        spec.length // margin, int(about["bands"]), tuple(meta["gains"]), about["model"],
    )  # fmt: skip
    codes = CodeSpool(header.channels, header.bits)
    for piece in chain([first], pieces):
        own = piece[:, margin:-margin][:, : header.tokens - codes.tokens]
        codes.add(own.numpy().astype(np.int64))
    return header, codes


def read_codes(spec: DataSpec, path: Path, about: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[Coded]]:
    """The digest of the model that all .vqc files of `path` are of, and their pieces; `about` is the model at hand."""
    files = code_files(path)
    headers = [_header(file) for file in files]
    models = {header.model: file for header, file in zip(headers, files, strict=True)}
    if len(models) > 1:
        some = ", ".join(f"`{file}`" for file in models.values())
        raise VqtoolError(f"the files in `{path}` are of {len(models)} models: {some}", hint="decode them apart")
    return {"model": next(iter(models))}, _pieces(spec, path, list(zip(files, headers, strict=True)), about)


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        return header_of(file, str(path))


def code_files(path: Path) -> list[Path]:
    """The .vqc files of a folder (and of the folders in it) by name, or the one file."""
    files = [path] if path.is_file() else sorted(path.rglob(f"*{SUFFIX}"))
    if not files:
        raise VqtoolError(f"there is no .vqc file at `{path}`", hint="vqtool encode writes them")
    return files


def targets(path: Path, out: Path, *, decode: bool) -> list[Path]:
    """What coding (or decoding) `path` to `out` writes."""
    if decode:
        return [_place(out, _name(file, path), path.is_dir(), ".wav") for file in code_files(path)]
    found = audio_files(path)
    _apart(found, path)
    return [_place(out, _name(file, path), path.is_dir(), SUFFIX) for file in found]


def figures(files: Iterable[Path]) -> dict[str, float]:
    """`bitrate.kbps`: the files' bytes * 8 / 1000 / the seconds of sound in them, and these `seconds`."""
    size, seconds = 0, 0.0
    for file in files:
        size += file.stat().st_size
        seconds += _header(file).seconds
    return {"bitrate.kbps": size * 8 / seconds / 1000, "seconds": seconds} if seconds else {}


def _pieces(spec: DataSpec, path: Path, files: list[tuple[Path, Header]], about: Mapping[str, Any]) -> Iterator[Coded]:
    """The same pieces that were coded, with the codes of what lies around them."""
    sizes, bands = about["codebook_sizes"], about["bands"]
    for file, header in files:
        if spec.length % header.stride or header.rate != spec.sample_rate or header.bands != bands:
            raise VqtoolError(f"`{file}` was not written for this model's data", exit_code=1)
        if header.levels > len(sizes) or header.bits != widths(sizes, np.zeros(header.levels)):
            raise damaged(str(file), f"its codes of {', '.join(map(str, header.bits))} bits are not the model's")
    pieces = sum(_pieces_of(header.samples, spec.length) for _, header in files)
    for file, _ in files:
        with file.open("rb") as content, progress_of(file.stat().st_size, f"read {file.name}") as bar:
            header, codes = unpack(content, str(file), about.get("code_use"), bar.advance)
        meta = {"file": _name(file, path), "folder": path.is_dir(), "source_rate": header.source_rate,
                "length": header.length, "gains": list(header.gains), "pieces": pieces}  # fmt: skip
        for piece in _with_context(codes.reader(), header.samples, spec.length, spec.length // header.stride, -1):
            yield Coded(torch.from_numpy(piece), torch.zeros(len(piece), 0), {}, meta)


def write_pieces(spec: DataSpec, path: Path, pieces: Iterable[tuple[Tensor, Batch, dict[str, Any]]]) -> list[Path]:
    """Decoded pieces [channels, 1, L] to audio files at their own rates and lengths, each as loud as it came."""
    files: list[Path] = []
    for meta, group in _by_file((about, signal) for signal, _, about in pieces):
        target, left = _target(path, meta, ".wav"), meta["length"]
        # The source's peak was above 1; gains are kept in float32, where .95 is a little less.
        loud = spec.about["normalise"] == "peak" and min(meta["gains"]) < np.float32(PEAK)
        scale = 1 / np.array(meta["gains"], np.float32)
        kept = (_core(spec, signal) * scale for signal in group)
        with audio.written(target, meta["source_rate"], len(scale), frames=left, loud=loud) as writer:
            for block in audio.resampled(kept, len(scale), int(spec.sample_rate or 0), meta["source_rate"]):
                writer.write(block[:left])
                left -= min(left, len(block))
        files.append(target)
    return files


def _core(spec: DataSpec, signal: Tensor) -> audio.Sound:
    """The middle of a piece [channels, 1, L] as [frames, channels]."""
    return signal[:, 0, spec.length : -spec.length].numpy().T


def _target(path: Path, meta: Mapping[str, Any], suffix: str) -> Path:
    """Where a sound goes: `path`, or of a folder its place below it."""
    target = _place(path, meta["file"], meta["folder"], suffix)
    if meta["folder"]:
        make_dir(target.parent)
    return target


def _place(path: Path, file: str, folder: bool, suffix: str) -> Path:
    return (path / file).with_suffix(suffix) if folder else path
