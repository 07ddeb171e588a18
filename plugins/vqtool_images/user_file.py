"""A user's own pictures for `vqtool encode` and `decode`: one picture, a folder of them, or an array."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqtool.api import DataSpec, Files, Piece
from vqtool.errors import VqtoolError
from vqtool.files import make_dir, save_npz, write_atomic
from vqtool_images.cifar import cifar_file
from vqtool_images.idx import PATTERN, idx_array
from vqtool_images.picture_folder import FORMATS, Reader, pillow
from vqtool_images.pictures import archive, bytes_of
from vqtool_images.splits import Report

AT_A_TIME = 256  # pictures of a piece
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by channels
GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
Array = NDArray[np.uint8]


class PictureFiles(Files):
    """Reads pictures, folders of them (in any subfolders), npy, npz, IDX and CIFAR's .bin; writes PNG, or an npz.

    Colours become grey for a model of grey pictures, and grey pictures colours for one of colours; picture files of
    another size are scaled where the recipe, or `-s data.size=N`, says so. Decoded values are limited to [0, 1].
    """

    endings = (".safetensors", "")

    def __init__(
        self, spec: DataSpec, options: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(spec)
        self.size = int({**(options or {}), **(asked or {})}.get("size", 0))
        self.report = Report()
        self.reader: Reader | None = None
        self.recoloured = 0

    def open(self, path: Path, *, condition: bool = False) -> Iterator[Piece]:
        """The pictures, some at a time."""
        if condition:
            yield from super().open(path, condition=True)
        pictures = self._pictures(path) if path.is_dir() or path.suffix.lower() in FORMATS else self._arrays(path)
        yield from pictures

    def _pictures(self, path: Path) -> Iterator[Piece]:
        """The pictures of a folder in the order of their names, or one."""
        folder = path if path.is_dir() else path.parent
        files = [path] if folder != path else sorted(
            file for file in path.rglob("*")
            if file.suffix.lower() in FORMATS and file.is_file() and not file.name.startswith("._")
        )  # fmt: skip
        self.reader = Reader(folder, self.size)
        total, some = -(-len(files) // AT_A_TIME), False
        for begin in range(0, len(files), AT_A_TIME):
            held: list[Array] = []
            names = []
            for file in files[begin : begin + AT_A_TIME]:
                self.reader.shapes.clear()  # each is compared with the model's, not with the others
                self.reader.held = 0
                array = self.reader.read(file)
                if array is not None:
                    held.append(self._fitted(array, file))
                    names.append(file.relative_to(folder).as_posix())
            if held:
                some = True
                yield self._piece(np.stack(held), {"names": names}, [], total)
        if not some:
            hint = "; ".join(self.skipped()) or f"read are {', '.join(FORMATS)}, .npy and .npz"
            raise VqtoolError(f"there is no picture in `{path}` that can be read", hint=hint)

    def _fitted(self, array: Array, path: Path) -> Array:
        """A picture [H, W, 1 or 3] as the model's [C, H, W]."""
        channels = self.spec.channels
        if array.shape[2] == 3 and channels == 1:
            self.recoloured += 1
            array = np.rint(array @ np.array(GREY)).astype(np.uint8)[:, :, None]
        elif array.shape[2] == 1 and channels == 3:
            self.recoloured += 1
            array = np.broadcast_to(array, (*array.shape[:2], 3))
        self._check(tuple(array.transpose(2, 0, 1).shape), path)
        return array.transpose(2, 0, 1)

    def _arrays(self, path: Path) -> Iterator[Piece]:
        """The pictures of an npy or npz: those of training, validation and test one after the other."""
        found = self._found(path)
        parts = [part for part in ("train", "valid", "test") if f"{part}_images" in found]
        every = bytes_of({part: found[f"{part}_images"] for part in parts}, {}, path, self.report)
        whole = [picture.transpose(1, 2, 0) for part in parts for picture in every[part]]
        total = -(-len(whole) // AT_A_TIME)
        for begin in range(0, len(whole), AT_A_TIME):
            some = [self._fitted(picture, path) for picture in whole[begin : begin + AT_A_TIME]]
            yield self._piece(np.stack(some), {}, self.report.notes, total)

    def _found(self, path: Path) -> dict[str, Array]:
        """The arrays of an npy or npz, of an IDX file of pictures, or of a file of CIFAR's."""
        if PATTERN.fullmatch(path.name):
            return {"train_images": idx_array(path)}
        if path.suffix.lower() == ".bin":
            return {"train_images": cifar_file(path)[0]}
        return archive(path, self.report, labelled=False)[0]

    def _check(self, shape: tuple[int, ...], path: Path) -> None:
        """Refuse pictures of another form than the model's."""
        if shape == self.spec.signal.shape:
            return
        channels, height, width = self.spec.signal.shape
        square = height == width and shape[0] == channels
        scales = f"-s data.size={height} scales " + (
            "them" if path.suffix.lower() in FORMATS else "picture files, not arrays"
        )
        raise VqtoolError(
            f"`{path}` has pictures of the shape {shape}; the model knows {self.spec.signal.shape} (channels, height, "
            "width)",
            hint=scales if square else None,
        )

    def _piece(self, array: Array, metadata: Mapping[str, Any], notes: Sequence[str], total: int) -> Piece:
        return Piece({"x": torch.from_numpy(np.ascontiguousarray(array)).float() / 255}, metadata, tuple(notes), total)

    def skipped(self) -> Sequence[str]:
        """Pictures that could not be read."""
        report = Report()
        if self.reader is not None:
            report.counted("skipped (not a picture that can be read, or damaged)", self.reader.broken, "picture")
            report.counted("skipped (too many pixels)", self.reader.large, "picture")
        return report.notes

    def remarks(self) -> Sequence[str]:
        """What was done to the pictures."""
        done = dict(self.reader.done) if self.reader is not None else {}
        if self.recoloured:
            done["read as grey" if self.spec.channels == 1 else "read as colours"] = self.recoloured
        return [f"{count} {'pictures' if count > 1 else 'picture'} {what}" for what, count in done.items()]

    @classmethod
    def outputs(cls, path: Path, out: Path, *, decode: bool = False) -> list[Path]:
        """The one file or folder; a folder is made, so it must not be there."""
        if decode and out.suffix.lower() not in ("", ".png", ".npz"):
            raise VqtoolError(
                f"pictures are not written as `{out.suffix}`", hint="--out FILE.png, FILE.npz, or a new folder"
            )
        if decode and out.is_dir():
            raise VqtoolError(f"the folder `{out}` exists already", hint="the name of a new folder for the pictures")
        return [out]

    def save(self, path: Path, pieces: Iterator[Piece]) -> list[Path]:
        """One PNG, a folder of PNG under the names the pictures had, or an `.npz` with `x` [n, C, H, W] in [0, 1]."""
        suffix = path.suffix.lower()
        if suffix == ".npz":
            save_npz(path, {"x": Piece.joined(pieces).batch["x"].clamp(0, 1).numpy()})
            return [path]
        if self.spec.channels not in MODES:
            raise VqtoolError(f"no picture has {self.spec.channels} channels", hint="--out FILE.npz")
        if suffix == ".png":
            x = Piece.joined(pieces).batch["x"]
            if len(x) != 1:
                raise VqtoolError(f"there are {len(x)} pictures, and one in a PNG", hint="--out FOLDER, or FILE.npz")
            write_atomic(path, png(x[0]))
            return [path]
        written: list[Path] = []
        for piece in pieces:
            names = piece.metadata.get("names") or []
            for at, x in enumerate(piece.batch["x"]):
                number = len(written)
                target = path / (named(str(names[at])) if at < len(names) else f"{number:05}.png")
                if target in written:  # a.png and a.jpg
                    target = target.with_name(f"{target.stem}_{number:05}.png")
                make_dir(target.parent)
                write_atomic(target, png(x))
                written.append(target)
        return written


def named(name: str) -> PurePosixPath:
    """A picture's name with the ending .png; what would lead out of the folder is left out of it."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".") and "\0" not in part]
    return PurePosixPath(*parts or ["picture"]).with_suffix(".png")


def png(x: torch.Tensor) -> bytes:
    """A picture [C, H, W] in [0, 1] as a PNG file."""
    values = (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    content = io.BytesIO()
    pillow().fromarray(values[:, :, 0] if values.shape[2] == 1 else values, MODES[values.shape[2]]).save(content, "PNG")
    return content.getvalue()
