"""A user's audio to pieces for the codec and back: files and folders, .vqc files, output aligned to the sample.

A file is coded in pieces of up to `CORE` segments (a segment is a training row) with one segment of context on either
side, so that no piece hears its ends. Where the pieces lie depends on the file alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtool.api import Batch, Coded, DataSpec
from vqtool.errors import VqtoolError
from vqtool.files import make_dir, write_atomic
from vqtool_speech import audio
from vqtool_speech.clips import PEAK, Clips, Manner, audio_files
from vqtool_speech.vqc import Header, header_of, pack, samples_at, unpack, widths

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
    for file in found:
        clips = Clips([file], manner)
        info = clips.clips[0].info
        told = {"file": _name(file, path), "folder": path.is_dir(), "source_rate": info.rate, "length": info.frames,
                "gains": [_gain(clips, k) for k in range(len(clips))],
                "notes": _notes(clips)}  # fmt: skip
        for start, count in spans(clips.samples(0), segment):
            x = [clips.stretch(k, start - segment, (count + 2) * segment) for k in range(len(clips))]
            yield {"x": torch.from_numpy(np.stack(x))[:, None]}, told
            told = told | {"notes": []}


def _apart(files: list[Path], path: Path) -> None:
    """An error, before anything is coded, where two files of a folder would become one."""
    first: dict[Path, Path] = {}
    for file in files if path.is_dir() else ():
        other = first.setdefault(file.with_suffix(""), file)
        if other != file:
            raise VqtoolError(
                f"`{other}` and `{file}` would become one file", hint="give them different names", exit_code=1
            )


def _gain(clips: Clips, clip: int) -> float:
    """What a clip is multiplied by; infinity for silence, so that it is silence again whatever the decoder says."""
    gain = clips.gain(clip)
    return math.inf if gain == 1 and clips.silent(clip) else float(np.float32(gain))


def spans(length: int, segment: int) -> Iterator[tuple[int, int]]:
    """Where the pieces of `length` samples begin, and of how many segments they are."""
    for start in range(0, length, CORE * segment):
        yield start, min(CORE, -(-(length - start) // segment))


def _name(file: Path, path: Path) -> str:
    return file.relative_to(path).as_posix() if path.is_dir() else file.name


def _notes(clips: Clips) -> list[str]:
    """What happens to a file on the way, in sentences."""
    clip, manner, notes = clips.clips[0], clips.manner, []
    if clip.info.rate != manner.rate:
        notes.append(
            f"`{clip.path.name}` is resampled from {clip.info.rate} Hz to {manner.rate} Hz, and back in the end"
        )
    if clip.info.channels > len(clips):
        how = "mixed to one" if manner.mix == "mean" else "reduced to the first"
        notes.append(f"the {clip.info.channels} channels of `{clip.path.name}` are {how}")
    return notes


def write_codes(spec: DataSpec, path: Path, pieces: Iterable[Coded], about: Mapping[str, Any]) -> list[Path]:
    """A .vqc file for every sound: `path`, or of a folder the same tree below `path`."""
    written: list[Path] = []
    for told, group in _by_file((piece.about, piece.codes) for piece in pieces):
        target = _target(path, told, SUFFIX)
        write_atomic(target, _packed(spec, told, list(group), about))
        written.append(target)
    return written


def _by_file(pieces: Iterable[tuple[dict[str, Any], Tensor]]) -> Iterator[tuple[dict[str, Any], Iterator[Tensor]]]:
    """What the first piece of each file tells, and the tensors of its pieces, one after the other."""
    for _, group in groupby(pieces, key=lambda piece: piece[0]["file"]):
        mine = iter(group)
        told, first = next(mine)
        yield told, chain([first], (tensor for _, tensor in mine))


def _packed(spec: DataSpec, told: dict[str, Any], pieces: list[Tensor], about: Mapping[str, Any]) -> bytes:
    """One sound's codes, piece by piece [channels, tokens, levels], as the bytes of a file."""
    _, count = next(spans(samples_at(told["length"], told["source_rate"], int(spec.sample_rate or 0)), spec.length))
    margin = pieces[0].shape[1] // (count + 2)
    codes = torch.cat([piece[:, margin:-margin] for piece in pieces], 1)
    header = Header(
        int(spec.sample_rate or 0), told["source_rate"], told["length"], widths(about["codebook_sizes"], codes),
        spec.length // margin, int(about["bands"]), tuple(told["gains"]), about["model"],
    )  # fmt: skip
    return pack(header, codes[:, : header.tokens].numpy().astype(np.int64), about.get("code_use"))


def read_codes(spec: DataSpec, path: Path, about: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[Coded]]:
    """The digest of the model that all .vqc files of `path` are of, and their pieces; `about` is the model at hand."""
    files = code_files(path)
    models = {header_of(file.read_bytes(), str(file)).model: file for file in files}
    if len(models) > 1:
        some = ", ".join(f"`{file}`" for file in models.values())
        raise VqtoolError(f"the files in `{path}` are of {len(models)} models: {some}", hint="decode them apart")
    return {"model": next(iter(models))}, _pieces(spec, path, files, about)


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
        seconds += header_of(file.read_bytes(), str(file)).seconds
    return {"bitrate.kbps": size * 8 / seconds / 1000, "seconds": seconds} if seconds else {}


def _pieces(spec: DataSpec, path: Path, files: list[Path], about: Mapping[str, Any]) -> Iterator[Coded]:
    """The same pieces that were coded, with the codes of what lies around them."""
    for file in files:
        header, codes = unpack(file.read_bytes(), str(file), about.get("code_use"))
        if spec.length % header.stride or header.rate != spec.sample_rate:
            raise VqtoolError(f"`{file}` was not written for this model's data", exit_code=1)
        told = {"file": _name(file, path), "folder": path.is_dir(), "source_rate": header.source_rate,
                "length": header.length, "gains": list(header.gains)}  # fmt: skip
        margin = spec.length // header.stride
        around = np.pad(codes, ((0, 0), (margin, 2 * margin), (0, 0)), constant_values=-1)
        for start, count in spans(header.samples, spec.length):
            first = start // header.stride
            piece = torch.from_numpy(around[:, first : first + (count + 2) * margin])
            yield Coded(piece, torch.zeros(len(piece), 0), {}, told)


def write_pieces(spec: DataSpec, path: Path, pieces: Iterable[tuple[Tensor, Batch, dict[str, Any]]]) -> list[Path]:
    """Decoded pieces [channels, 1, L] to audio files at their own rates and lengths, each as loud as it came."""
    written: list[Path] = []
    for told, group in _by_file((about, signal) for signal, _, about in pieces):
        target = _target(path, told, ".wav")
        # The source's peak was above 1; gains are kept in float32, where .95 is a little less.
        loud = spec.about["normalise"] == "peak" and min(told["gains"]) < np.float32(PEAK)
        writer = audio.Writer(target, told["source_rate"], len(told["gains"]), loud=loud)
        scale = 1 / np.array(told["gains"], np.float32)
        left = told["length"]
        kept = (_core(spec, signal) * scale for signal in group)
        for block in audio.resampled(kept, len(scale), int(spec.sample_rate or 0), told["source_rate"]):
            writer.write(block[:left])
            left -= min(left, len(block))
        writer.close()
        written.append(target)
    return written


def _core(spec: DataSpec, signal: Tensor) -> audio.Sound:
    """The middle of a piece [channels, 1, L] as [frames, channels]."""
    return signal[:, 0, spec.length : -spec.length].numpy().T


def _target(path: Path, told: Mapping[str, Any], suffix: str) -> Path:
    """Where a sound goes: `path`, or of a folder its place below it."""
    target = _place(path, told["file"], told["folder"], suffix)
    if told["folder"]:
        make_dir(target.parent)
    return target


def _place(path: Path, file: str, folder: bool, suffix: str) -> Path:
    return (path / file).with_suffix(suffix) if folder else path
