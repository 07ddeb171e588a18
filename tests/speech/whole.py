"""Sound coded and decoded all at once, in plain arrays: what the streams of `vqtool_speech` must equal bit for bit."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch

from vqtool.model.codes import codes_metadata
from vqtool.model.model import Model
from vqtool_speech import counts as context
from vqtool_speech import vqc
from vqtool_speech.loudness import Loudness
from vqtool_speech.range_coder import Encoder, Fixed
from vqtool_speech.user_file import CORE


def unpack(content: bytes, where: str, odds: vqc.Odds | None = None) -> tuple[vqc.Header, vqc.Codes]:
    """A file in memory as one array."""
    header, codes = vqc.unpack(io.BytesIO(content), where, odds)
    return header, codes.reader()(header.tokens)


def header_of(content: bytes, where: str) -> vqc.Header:
    """The header of a file in memory."""
    return vqc.header_of(io.BytesIO(content), where)


def pack(header: vqc.Header, codes: vqc.Codes, odds: vqc.Odds | None) -> bytes:
    """The file of `codes` [channels, tokens, levels], from whole rows of them."""
    sent = codes >= 0
    numbers = sent.sum(-1)
    coding = (0 if sent.all() else vqc.COUNTED) | (0 if odds is None else vqc.BY_USE)
    content = vqc.HEADER.pack(
        vqc.MAGIC, vqc.VERSION, coding, header.channels, header.levels, header.bands, header.stride, header.rate,
        header.source_rate, header.length, bytes.fromhex(header.model),
    ) + struct.pack(f"<{header.channels}f", *header.gains) + bytes(header.bits)  # fmt: skip
    coder, tables = Encoder(), context.count_tables(header.levels)
    for row in numbers.tolist() if coding & vqc.COUNTED else ():
        for at, count in enumerate(row):
            coder.put(count, tables[context._expected(row, at, header.bands)])
    planes = [codes[..., k][sent[..., k]] for k in range(header.levels)]
    for plane, use in zip(planes, odds or (), strict=False):
        coder.put_fixed(plane.tolist(), Fixed(use))
    content += coder.finish() if coding else b""
    if odds is None:
        bits = [vqc.to_bits(plane, width) for plane, width in zip(planes, header.bits, strict=True)]
        content += np.packbits(np.concatenate(bits)).tobytes()
    return content + struct.pack("<I", zlib.crc32(content))


def gains_of(sound: np.ndarray, rate: int, normalise: str) -> np.ndarray:
    """What each channel of `sound` [frames, channels] is multiplied by."""
    gains = []
    for channel in sound.T:
        peak, meter = float(np.abs(channel).max()), Loudness(rate, 1)
        meter.add(channel[:, None])
        ebu = min(10 ** ((-23 - meter.integrated()) / 20), 1 / peak) if normalise == "ebu" else 0.0
        gains.append({"peak": 0.95 / peak, "ebu": ebu, "none": 1.0}[normalise])
    return np.array(gains, np.float32)


def there_and_back(model: Model, path: Path, target: Path) -> tuple[bytes, bytes]:
    """The .vqc of the sound at `path`, and the audio file that it is decoded to (written at `target`)."""
    spec, parts = model.spec, model.parts
    rate, segment = int(spec.sample_rate), spec.length
    sound, source_rate = soundfile.read(path, dtype="float32", always_2d=True)
    sound = sound.mean(1, keepdims=True) if spec.metadata["mix"] == "mean" else sound
    gains = gains_of(sound, source_rate, spec.metadata["normalise"])
    x = at_rate(sound, source_rate, rate) * gains
    around = np.pad(x, ((segment, (CORE + 2) * segment), (0, 0)))
    codes = []
    for start in range(0, len(x), CORE * segment):
        count = min(CORE, -(-(len(x) - start) // segment))
        piece = torch.from_numpy(np.ascontiguousarray(around[start : start + (count + 2) * segment].T))[:, None]
        margin = segment // parts.encoder.stride
        codes.append(parts.quantizer(parts.encoder(piece)).codes[:, margin:-margin])
    whole = torch.cat(codes, 1).numpy()
    about = codes_metadata(model)
    header = vqc.Header(rate, source_rate, len(sound), vqc.widths(about["codebook_sizes"], whole),
                        parts.encoder.stride, about["bands"], tuple(gains.tolist()), about["model"])  # fmt: skip
    content = pack(header, whole[:, : header.tokens], about["code_use"])
    return content, decoded(model, replace(header), whole[:, : header.tokens], target)


def at_rate(sound: np.ndarray, source: int, rate: int, margin: int = 1024) -> np.ndarray:
    """All of `sound` [frames, channels] resampled at once, between zeros up to where both rates have a sample."""
    if source == rate:
        return sound
    frames, common = -(-len(sound) * rate // source), int(np.gcd(source, rate))
    before, after = -(-margin // (rate // common)), -(-(frames + margin) // (rate // common))
    padded = np.pad(sound, ((before * source // common, after * source // common - len(sound)), (0, 0)))
    first = before * rate // common
    return soxr.resample(padded, source, rate)[first : first + frames]


def decoded(model: Model, header: vqc.Header, codes: vqc.Codes, target: Path) -> bytes:
    """The audio file of `codes`, written at `target`."""
    segment, margin = model.spec.length, model.spec.length // header.stride
    around = np.pad(codes, ((0, 0), (margin, (CORE + 2) * margin), (0, 0)), constant_values=-1)
    pieces = []
    for start in range(0, header.samples, CORE * segment):
        count, first = min(CORE, -(-(header.samples - start) // segment)), start // header.stride
        piece: Any = torch.from_numpy(around[:, first : first + (count + 2) * margin])
        pieces.append(model.parts.decoder(model.parts.quantizer.decode(piece))[:, 0, segment:-segment].numpy().T)
    sound = np.concatenate(pieces) * (1 / np.array(header.gains, np.float32))
    if header.rate != header.source_rate:
        sound = soxr.resample(sound, header.rate, header.source_rate)
    samples = np.clip(np.rint(sound[: header.length] * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
    soundfile.write(target, samples, header.source_rate, subtype="PCM_16")
    return target.read_bytes()
