"""Pictures with labels: a folder of pictures by class, the four IDX files of MNIST's kin, or one npz."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Ge, Interval
from torch import Tensor

from vqtool.api import Batch, Data, DataSpec, Field, Rows
from vqtool.errors import VqtoolError
from vqtool_semcom.pictures import pictures


class LabelledImages(Data):
    """`x` [C, H, W] with values in [0, 1], and `label`; the splits train, valid and test.

    `path` is an npz with arrays of usual names (`train_images`, `x_train`, `images` and `labels`, ...), a folder with
    the four IDX files, or one with a folder of pictures for each class, below `train` and `test` or not. Where there is
    no test part a fifth of each class is held out; where there is no validation part, `valid_share` of the training
    pictures. What was assumed on the way is a note.
    """

    splits = ("train", "valid", "test")

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("an npz, a folder with IDX files, or a folder of pictures by class")],
        size: Annotated[int, Ge(0), Doc("pixels each way that pictures of a folder are scaled to; 0: as they are")] = 0,
        valid_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of the training pictures for validation")] = 0.1,
        valid_seed: Annotated[int, Doc("of the choice of the validation pictures")] = 0,
        train_limit: Annotated[int, Ge(0), Doc("train on this many pictures only; 0: all")] = 0,
        flip: Annotated[float, Interval(ge=0, le=1), Doc("probability of mirroring a training picture")] = 0.0,
        shift: Annotated[int, Ge(0), Doc("pixels that a training picture is moved by at most, each way")] = 0,
    ) -> None:
        read = pictures(path, size)
        self.notes = tuple(read.notes)
        n = len(read.labels["train"])
        held = 0 if "valid" in read.labels else max(1, round(valid_share * n))
        if held >= n:
            raise VqtoolError(f"`{path}` has {n} training pictures: too few to keep some for validation")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(valid_seed)).numpy()
        train = order[held:][:train_limit] if train_limit else order[held:]
        cut = {"train": train, "valid": order[:held]} if held else {"train": train}
        self._rows: dict[str, Rows] = {
            part: Pictures(images, read.labels[part]) for part, images in read.images.items() if part not in cut
        }
        for name, at in cut.items():
            self._rows[name] = Pictures(read.images["train"][at], read.labels["train"][at])
        self.flip, self.shift = flip, shift
        shape = tuple(int(n) for n in read.images["train"].shape[1:])
        self.spec = DataSpec(
            {"x": Field(shape, "signal", "share of white"), "label": Field((), "label", names=read.classes)}
        )

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        return self._rows[split]

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Mirror and move the pictures; what comes in from outside is 0, as a background is."""
        x = batch["x"]
        if self.flip:
            turned = torch.rand(len(x), generator=generator) < self.flip
            x = torch.where(turned[:, None, None, None], x.flip(-1), x)
        if self.shift:
            at = torch.randint(2 * self.shift + 1, (2, len(x)), generator=generator)
            padded = F.pad(x, (self.shift,) * 4)
            windows = padded.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)  # [B, C, shifts, shifts, H, W]
            x = windows[torch.arange(len(x)), :, at[0], at[1]]
        return batch | {"x": x}


class Pictures:
    """Rows kept as bytes; a batch is made of floats in [0, 1]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = torch.from_numpy(images.copy()), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return {"x": scaled(self.images[index]), "label": self.labels[index]}

    def __getitems__(self, indices: list[int]) -> Batch:
        at = torch.as_tensor(indices, dtype=torch.long)
        return {"x": scaled(self.images[at]), "label": self.labels[at]}


def scaled(images: Tensor) -> Tensor:
    """Bytes as shares of white."""
    return images.float() / 255
