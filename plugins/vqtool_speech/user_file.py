"""A user's audio to pieces for the codec and back: files and folders, .vqc files, output aligned to the sample.

A file is coded in pieces of up to `CORE` segments (a segment is a training row) with one segment of context on either
side, so that no piece hears its ends. Where the pieces lie depends on the file alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqtool.api import CodedPiece, DataSpec, Piece
from vqtool.errors import VqtoolError
from vqtool.files import make_dir, missing_file, replacing
from vqtool.progress import progress_of
from vqtool_speech import audio
from vqtool_speech.clips import (
    PEAK,
    Checked,
    at_codec_rate,
    audio_files,
    changes,
    manner_of,
    measured,
    name_below,
)  # fmt: skip
from vqtool_speech.spool import CodeSpool
from vqtool_speech.stream_files import CHANNELS, StreamFiles
from vqtool_speech.tally import Tally
from vqtool_speech.vqc import GAINS, Header, damaged, header_of, packed, samples_at, symbols, unpack, widths
from vqtool_speech.vqc_stream import is_stream

CORE = 8
DAMAGED = "damaged or cut short"
SUFFIX = ".vqc"
Metadata = Mapping[str, Any]


class AudioFiles(StreamFiles):
    """Audio files and folders of them; codes as .vqc files."""

    own_codes = True
    endings = (SUFFIX, ".wav")

    def __init__(self, spec: DataSpec, options: Metadata | None = None, asked: Mapping[str, Any] | None = None) -> None:
        """Files become clips as those of the training data did, but for `asked["mix"]`."""
        asked = dict(asked or {})
        mix = asked.pop("mix", None)
        super().__init__(spec, options, asked)
        if mix is not None:
            self.spec = replace(spec, metadata={**spec.metadata, "mix": mix})

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """Pieces [channels, 1, (n + 2) segments], n <= CORE, of every audio file of `path`, file by file in order.

        A file of a folder that cannot be read is skipped, and counted in `skipped`.
        """
        if condition:
            raise VqtoolError("sound is not generated from a condition", exit_code=1)
        manner, segment = manner_of(self.spec), self.spec.length
        found = audio_files(path)
        _check_names(found, path)
        self._checked = checked = Checked(path)
        infos = checked.infos(found)
        notes = [*changes(path, infos, manner).sentences(), *checked.found.sentences()]
        checked.found = Tally()
        total = sum(_pieces_of(samples_at(info.frames, info.rate, manner.rate), segment) for info in infos.values())
        any_read = False
        for file, info in infos.items():
            gains: list[float] = []
            with checked.attempt(file), progress_of(info.frames, f"measure {file.name}") as bar:
                whole = measured(file, manner, bar.advance)
                gains = _kept_gains(file, whole.gains)
            if not gains:
                continue
            any_read = True
            checked.note(file, info, whole)
            metadata = {"file": name_below(path, file), "folder": path.is_dir(), "source_rate": info.rate,
                        "length": whole.frames, "gains": gains}  # fmt: skip
            loud = np.array([1.0 if math.isinf(gain) else gain for gain in gains], np.float32)[:, None]
            take = _taker(block.T * loud for block in at_codec_rate(file, manner, whole.frames))
            for x in _with_context(take, samples_at(whole.frames, info.rate, manner.rate), segment, segment, 0.0):
                yield Piece({"x": torch.from_numpy(x)[:, None]}, metadata, notes, total)
                notes = []
        if not any_read:
            raise VqtoolError(f"no file of `{path}` can be read", hint="; ".join(checked.skipped.sentences()))

    def skipped(self) -> list[str]:
        """Which files of a folder could not be read, counted by the reason."""
        return self._checked.skipped.sentences() if self._checked else []

    def remarks(self) -> list[str]:
        """What was found in the files as they were read: silence, channels that cancel, less than was promised."""
        return self._checked.found.sentences() if self._checked else []

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """Decoded pieces [channels, 1, L] to audio files at their own rates and lengths, each as loud as it came."""
        written: list[Path] = []
        for metadata, signals in _by_file((piece.metadata, piece.batch["x"]) for piece in pieces):
            target, left = _target(path, metadata, ".wav"), metadata["length"]
            # The source's peak was above 1; gains are kept in float32, where .95 is a little less.
            loud = self.spec.metadata["normalise"] == "peak" and min(metadata["gains"]) < np.float32(PEAK)
            scale = np.float32(1) / np.array(metadata["gains"], np.float32)
            kept = (_core(self.spec, signal) * scale for signal in signals)
            rate = metadata["source_rate"]
            with audio.written(target, rate, len(scale), frames=left, loud=loud) as writer:
                for block in audio.resampled(kept, len(scale), int(self.spec.sample_rate or 0), rate):
                    writer.write(block[:left])
                    left -= min(left, len(block))
            written.append(target)
        return written

    @classmethod
    def inputs(cls, path: Path, *, decode: bool = False) -> list[Path]:
        """The audio files, or the .vqc files."""
        return code_files(path) if decode else audio_files(path)

    @classmethod
    def outputs(cls, path: Path, out: Path, *, decode: bool = False) -> list[Path]:
        """`out`, or of a folder a file below it for each one there."""
        found = cls.inputs(path, decode=decode)
        if not decode:
            _check_names(found, path)
        if not decode and not path.is_dir() and out.suffix.lower() not in ("", SUFFIX):
            raise VqtoolError(f"the codes of a sound are a {SUFFIX} file, not `{out.name}`",
                              hint=f"--out {out.with_suffix(SUFFIX)}")  # fmt: skip
        return [_place(out, name_below(path, file), path.is_dir(), ".wav" if decode else SUFFIX) for file in found]

    def save_codes(self, path: Path, pieces: Iterator[CodedPiece], model: Mapping[str, Any]) -> list[Path]:
        """A .vqc file for every sound: `path`, or of a folder the same tree below `path`."""
        written: list[Path] = []
        for metadata, group in _by_file((piece.metadata, piece.codes) for piece in pieces):
            header, codes = _held(self.spec, metadata, group, model)
            target = _target(path, metadata, SUFFIX)
            with replacing(target) as file, progress_of(symbols(codes), f"write {target.name}") as bar:
                for part in packed(header, codes, model.get("code_use"), bar.advance):
                    file.write(part)
            written.append(target)
        return written

    def open_codes(self, path: Path, model: Mapping[str, Any]) -> tuple[str, Iterator[CodedPiece]]:
        """The digest of the model that all .vqc files of `path` are of, and their pieces."""
        self._checked = checked = Checked(path)
        headers: dict[Path, Header] = {}
        for file in code_files(path):
            if is_stream(file):
                checked.skip(file, "a stream, which is decoded by itself")
                continue
            with checked.attempt(file, DAMAGED):
                headers[file] = _header(file)
        models = {header.model: file for file, header in headers.items()}
        if len(models) > 1:
            some = ", ".join(f"`{file}`" for file in models.values())
            raise VqtoolError(
                f"the files in `{path}` are of {len(models)} models: {some}", hint="decode each with its own"
            )
        if not models:
            raise VqtoolError(f"no file of `{path}` can be decoded", hint="; ".join(checked.skipped.sentences()))
        return next(iter(models)), _pieces(self.spec, checked, headers, model)

    def code_figures(self, written: Sequence[Path]) -> dict[str, float]:
        """`bitrate.kbps`: the files' bytes * 8 / 1000 / the seconds of sound in them, `bitrate.payload_kbps` without
        headers and checksums, and these `seconds`."""
        sizes, headers = [file.stat().st_size for file in written], [_header(file) for file in written]
        seconds = sum(header.seconds for header in headers)
        if not seconds:
            return {}
        per_second = 8 / seconds / 1000
        payload = sum(sizes) - sum(header.frame for header in headers)
        return {"bitrate.kbps": sum(sizes) * per_second, "bitrate.payload_kbps": payload * per_second,
                "seconds": seconds}  # fmt: skip


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


def _kept_gains(file: Path, measured_gains: Sequence[float]) -> list[float]:
    """The gains as a .vqc file keeps them, in float32 and with infinity for silence.

    Raises:
        UnreadableError: no gain brings the sound to full scale and back, or a .vqc file holds fewer channels.
    """
    gains = [math.inf if gain > GAINS[1] else float(np.float32(gain)) for gain in measured_gains]
    if any(gain < GAINS[0] for gain in gains):
        limit = f"{1 / GAINS[0]:g} times full scale"
        message = f"`{file}` has samples beyond {limit}"
        raise audio.UnreadableError(message, kind=f"samples beyond {limit}", hint="scale it down")
    if len(gains) > CHANNELS:
        message = f"`{file}` has {len(gains)} channels, and a .vqc file holds {CHANNELS}"
        raise audio.UnreadableError(message, kind=f"more than {CHANNELS} channels", hint="-s data.mix=mean mixes them")
    return gains


def _check_names(files: list[Path], path: Path) -> None:
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


def _by_file(
    pieces: Iterable[tuple[Mapping[str, Any], Tensor]],
) -> Iterator[tuple[Mapping[str, Any], Iterator[Tensor]]]:
    """The metadata of each file, and the tensors of its pieces, one after the other."""
    for _, group in groupby(pieces, key=lambda piece: piece[0]["file"]):
        mine = iter(group)
        metadata, first = next(mine)
        yield metadata, chain([first], (tensor for _, tensor in mine))


def _held(
    spec: DataSpec, metadata: Mapping[str, Any], pieces: Iterator[Tensor], model: Mapping[str, Any]
) -> tuple[Header, CodeSpool]:
    """One sound's codes from its pieces [channels, tokens, levels], without what lies around them."""
    rate = int(spec.sample_rate or 0)
    _, count = next(spans(samples_at(metadata["length"], metadata["source_rate"], rate), spec.length))
    first = next(pieces)
    margin = first.shape[1] // (count + 2)
    header = Header(
        rate, metadata["source_rate"], metadata["length"], widths(model["codebook_sizes"], first),
        spec.length // margin, int(model["bands"]), tuple(metadata["gains"]), model["model"],
    )  # fmt: skip
    codes = CodeSpool(header.channels, header.bits)
    for piece in chain([first], pieces):
        own = piece[:, margin:-margin][:, : header.tokens - codes.tokens]
        codes.add(own.numpy().astype(np.int64))
    return header, codes


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        return header_of(file, str(path))


def code_files(path: Path) -> list[Path]:
    """The .vqc files of a folder (and of the folders in it) by name, or the one file."""
    files = [path] if path.is_file() else sorted(path.rglob(f"*{SUFFIX}"))
    if not files:
        raise (
            missing_file(path)
            if not path.exists()
            else VqtoolError(f"there is no {SUFFIX} file in `{path}`", hint="vqtool encode writes them")
        )
    return files


def _pieces(
    spec: DataSpec, checked: Checked, headers: Mapping[Path, Header], model: Mapping[str, Any]
) -> Iterator[CodedPiece]:
    """The same pieces that were coded, with the codes of what lies around them."""
    sizes, bands, path = model["codebook_sizes"], model["bands"], checked.path
    for file, header in headers.items():
        if spec.length % header.stride or header.rate != spec.sample_rate or header.bands != bands:
            raise VqtoolError(f"`{file}` was not written for this model's data", exit_code=1)
        if header.levels > len(sizes) or header.bits != widths(sizes, np.zeros(header.levels)):
            raise damaged(str(file), f"its codes of {', '.join(map(str, header.bits))} bits are not the model's")
    total = sum(_pieces_of(header.samples, spec.length) for header in headers.values())
    for file in headers:
        codes = None
        with (
            checked.attempt(file, DAMAGED),
            file.open("rb") as content,
            progress_of(file.stat().st_size, f"read {file.name}") as bar,
        ):
            header, codes = unpack(content, str(file), model.get("code_use"), bar.advance)
        if codes is None:
            continue
        metadata = {"file": name_below(path, file), "folder": path.is_dir(), "source_rate": header.source_rate,
                    "length": header.length, "gains": list(header.gains)}  # fmt: skip
        for piece in _with_context(codes.reader(), header.samples, spec.length, spec.length // header.stride, -1):
            yield CodedPiece(torch.from_numpy(piece), torch.zeros(len(piece), 0), {}, metadata, total)


def _core(spec: DataSpec, signal: Tensor) -> audio.Sound:
    """The middle of a piece [channels, 1, L] as [frames, channels]."""
    return signal[:, 0, spec.length : -spec.length].numpy().T


def _target(path: Path, metadata: Mapping[str, Any], suffix: str) -> Path:
    """Where a sound goes: `path`, or of a folder its place below it."""
    target = _place(path, metadata["file"], metadata["folder"], suffix)
    if metadata["folder"]:
        make_dir(target.parent)
    return target


def _place(path: Path, file: str, folder: bool, suffix: str) -> Path:
    return (path / file).with_suffix(suffix) if folder else path
