"""Folders of pictures by class: `dog/1.png`, or `train/dog/1.png` and `test/dog/2.png`; needs Pillow."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqtool.errors import VqtoolError, missing_extra
from vqtool.progress import progress_of
from vqtool_images.splits import PARTS, Report

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP",
           ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM"}  # fmt: skip
FOREIGN = (".heic", ".heif", ".avif", ".svg", ".jp2", ".jxl", ".psd", ".raw", ".dng")  # pictures that are not read
LARGEST = 2**26  # pixels of one picture; more unpack from a file of a few kilobytes to gigabytes
MEMORY = 2**32  # bytes of all pictures
LAYOUT = "FOLDER/CLASS/NAME.png, or FOLDER/train/CLASS/NAME.png and FOLDER/test/CLASS/NAME.png"
Array = NDArray[np.uint8]


def pillow() -> Any:
    """Pillow's `Image`; the error names the extra that brings it."""
    try:
        from PIL import Image
    except ImportError as fault:
        raise missing_extra("pillow", "pictures", "reading pictures") from fault
    return Image


def picture_folder(
    folder: Path, size: int, report: Report, *, labelled: bool = True
) -> tuple[dict[str, Array], dict[str, list[str]]]:
    """Pictures uint8 [n, C, H, W] and the names of their classes, by part; pictures that cannot be read are skipped."""
    files = _listed(folder, report, labelled)
    reader = Reader(folder, size)
    images: dict[str, list[Array]] = {part: [] for part in files}
    classes: dict[str, list[str]] = {part: [] for part in files}
    with progress_of(sum(map(len, files.values())), "read pictures") as bar:
        for part, of_part in files.items():
            for path, name in of_part:
                array = reader.read(path)
                if array is not None:
                    images[part].append(array)
                    classes[part].append(name)
                bar.advance()
    reader.describe(report)
    kept = {part: arrays for part, arrays in images.items() if arrays}
    if "train" not in kept:
        raise VqtoolError(f"no picture for training in `{folder}` can be read", hint="; ".join(report.notes))
    channels = max(array.shape[2] for arrays in kept.values() for array in arrays)
    grey = sum(array.shape[2] < channels for arrays in kept.values() for array in arrays)
    if grey:
        report.add(f"{grey} grey pictures among coloured ones are read as colours")
    stacked = {
        part: np.stack([np.broadcast_to(a, (*a.shape[:2], channels)).transpose(2, 0, 1) for a in arrays])
        for part, arrays in kept.items()
    }
    return stacked, {part: classes[part] for part in kept}


def _listed(folder: Path, report: Report, labelled: bool) -> dict[str, list[tuple[Path, str]]]:
    """The pictures of each part with their classes: the folder that a picture is in ("" without labels)."""
    inner = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    parts = {PARTS[p.name.lower()]: p for p in inner if p.name.lower() in PARTS}
    if "train" in parts:
        roots = {part: parts[part] for part in ("train", "valid", "test") if part in parts}
        others = [p.name for p in inner if p not in roots.values()]
        report.counted("skipped, beside `train`", others, "folder")
    else:
        roots = {"train": folder}
    found: dict[str, list[tuple[Path, str]]] = {}
    foreign, loose = [], []
    for part, root in roots.items():
        found[part] = []
        for path in sorted(root.rglob("*")):
            if path.name.startswith("._") or not path.is_file():
                continue
            if path.suffix.lower() in FOREIGN:
                foreign.append(path.relative_to(folder).as_posix())
            elif path.suffix.lower() in FORMATS:
                below = path.relative_to(root).parts
                if len(below) > 1 or not labelled:
                    found[part].append((path, below[0] if labelled else ""))
                else:
                    loose.append(path.relative_to(folder).as_posix())
    report.counted(f"skipped (not one of {', '.join(FORMATS)})", foreign, "picture")
    report.counted("skipped (in no folder of a class)", loose, "picture")
    if not found["train"]:
        where = " that lie in folders of their classes" if labelled else ""
        layout = f"a folder holds IDX files, or pictures as {LAYOUT}" if labelled else f"read are {', '.join(FORMATS)}"
        raise VqtoolError(f"there are no pictures in `{folder}`{where}", hint="; ".join([*report.notes, layout]))
    return found


class Reader:
    """Reads pictures one by one to [H, W, 1 or 3], and counts what was done to them."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.image = pillow()
        self.broken: list[str] = []
        self.large: list[str] = []
        self.shapes: Counter[tuple[int, int]] = Counter()
        self.done: Counter[str] = Counter()
        self.held = 0

    def read(self, path: Path) -> Array | None:
        """One picture, or None where it cannot be read."""
        name = path.relative_to(self.folder).as_posix()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with self.image.open(path, formats=tuple(dict.fromkeys(FORMATS.values()))) as picture:
                    if picture.width * picture.height > LARGEST:
                        self.large.append(name)
                        return None
                    return self._array(picture)
        except self.image.DecompressionBombError:
            self.large.append(name)
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, MemoryError):
            self.broken.append(name)  # Pillow raises many things on a damaged file
        return None

    def _array(self, picture: Any) -> Array:
        from PIL import ImageOps

        if getattr(picture, "n_frames", 1) > 1:
            self.done["read by the first of several frames"] += 1
        if picture.getexif().get(0x0112, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
            self.done["turned upright, as the camera says"] += 1
        picture = self._plain(picture)
        self.shapes[picture.size] += 1
        if self.size and picture.size != (self.size, self.size):
            picture = ImageOps.fit(picture, (self.size, self.size), self.image.Resampling.BICUBIC)
            self.done[f"scaled to {self.size} x {self.size}, and cut where not square"] += 1
        array = np.asarray(picture, np.uint8)
        self._check(array)
        return array if array.ndim == 3 else array[:, :, None]

    def _plain(self, picture: Any) -> Any:
        """As grey or RGB, without transparency."""
        if picture.mode.startswith("I") or picture.mode == "F":
            values = np.asarray(picture, np.float64)
            self.done["of more than 8 bits scaled to 8 bits"] += 1
            return self.image.fromarray(np.rint(values / 257).clip(0, 255).astype(np.uint8))
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            whole = picture.convert("RGBA")
            if whole.getextrema()[3][0] < 255:
                self.done["transparent in places, and laid on white"] += 1
            white = self.image.new("RGBA", whole.size, (255, 255, 255, 255))
            grey = picture.mode in ("LA", "L", "1")
            return self.image.alpha_composite(white, whole).convert("L" if grey else "RGB")
        return picture.convert("L" if picture.mode in ("L", "1") else "RGB")

    def _check(self, array: Array) -> None:
        """Refuse pictures of different sizes, or more than memory holds, as soon as they are seen."""
        self.held += array.nbytes
        if len(self.shapes) > 1 and not self.size:
            some = " and ".join(f"{w} x {h}" for w, h in list(self.shapes)[:2])
            side = min(min(shape) for shape in self.shapes)
            side = max(16, 2 ** (min(side, 128).bit_length() - 1))
            raise VqtoolError(
                f"the pictures in `{self.folder}` differ in size: {some} pixels", hint=f"-s data.size={side}"
            )
        if self.held > MEMORY:
            raise VqtoolError(
                f"the pictures in `{self.folder}` take more than {MEMORY / 2**30:.0f} GiB", hint="-s data.size=64"
            )

    def describe(self, report: Report) -> None:
        """Report what was skipped and what was done."""
        report.counted("skipped (not a picture that can be read, or damaged)", self.broken, "picture")
        report.counted(f"skipped (more than {LARGEST} pixels)", self.large, "picture")
        for what, count in self.done.items():
            report.add(f"{count} {'pictures' if count > 1 else 'picture'} {what}")
