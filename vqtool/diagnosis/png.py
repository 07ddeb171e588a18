"""Small images as PNG text for a page, with zlib alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np


def data_uri(image: np.ndarray, low: float, high: float) -> str:
    """`image` [C, H, W] (grey, or three channels as colours) between `low` and `high` as a `data:` address."""
    shown = image[:3] if len(image) >= 3 else image[:1]
    scaled = np.nan_to_num((np.asarray(shown, np.float64) - low) / ((high - low) or 1.0))
    pixels = (255 * scaled.clip(0, 1)).round().astype(np.uint8).transpose(1, 2, 0)  # [H, W, 1 or 3]
    height, width, channels = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)  # each with filter 0
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)), chunk(b"IEND", b"")]
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk with its length and its checksum (PNG specification, section 5.3)."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
