"""What data sets of pictures share: their splits, rows kept as bytes, and variations of training pictures."""

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
from vqtool_images.pictures import Pictures
from vqtool_images.user_file import PictureFiles

Size = Annotated[int, Ge(0), Doc("pixels each way that pictures of a folder are scaled to; 0: as they are")]
ValidShare = Annotated[float, Interval(gt=0, lt=1), Doc("share of the training pictures for validation")]
ValidSeed = Annotated[int, Doc("of the choice of the validation pictures")]
TrainLimit = Annotated[int, Ge(0), Doc("train on this many pictures only; 0: all")]
Flip = Annotated[float, Interval(ge=0, le=1), Doc("probability of mirroring a training picture")]
Shift = Annotated[int, Ge(0), Doc("pixels that a training picture is moved by at most, each way")]


class PictureData(Data):
    """`x` [C, H, W] with values in [0, 1], and `label` where pictures have one; the splits train, valid and test."""

    splits = ("train", "valid", "test")
    files = PictureFiles

    def hold(self, read: Pictures, path: Path, valid_share: float, valid_seed: int, train_limit: int) -> None:
        """Keep what was read, with validation pictures split off where there are none."""
        self.notes = tuple(read.notes)
        n = len(read.labels["train"])
        held = 0 if "valid" in read.labels else max(1, round(valid_share * n))
        if held >= n:
            raise VqtoolError(f"`{path}` has {n} training pictures: too few to keep some for validation")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(valid_seed)).numpy()
        train = order[held:][:train_limit] if train_limit else order[held:]
        cut = {"train": train, "valid": order[:held]} if held else {"train": train}
        labelled = bool(read.classes)
        self._rows: dict[str, Rows] = {
            part: PictureRows(images, read.labels[part] if labelled else None)
            for part, images in read.images.items()
            if part not in cut
        }
        for name, at in cut.items():
            self._rows[name] = PictureRows(read.images["train"][at], read.labels["train"][at] if labelled else None)
        shape = tuple(int(n) for n in read.images["train"].shape[1:])
        label = {"label": Field((), "label", names=read.classes)} if labelled else {}
        self.spec = DataSpec({"x": Field(shape, "signal", "share of white"), **label})

    def rows(self, split: str) -> Rows:
        """The rows of a split."""
        return self._rows[split]


class PictureRows:
    """Rows kept as bytes; a batch is made of floats in [0, 1]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        self.images = torch.from_numpy(images.copy())
        self.labels = None if labels is None else torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        at = torch.as_tensor(indices, dtype=torch.long)
        x = {"x": self.images[at].float() / 255}
        return x if self.labels is None else {**x, "label": self.labels[at]}


def varied(x: Tensor, flip: float, shift: int, generator: torch.Generator) -> Tensor:
    """Pictures [B, C, H, W] mirrored and moved; what comes in from outside is 0, as a background is."""
    if flip:
        turned = torch.rand(len(x), generator=generator) < flip
        x = torch.where(turned[:, None, None, None], x.flip(-1), x)
    if shift:
        at = torch.randint(2 * shift + 1, (2, len(x)), generator=generator)
        windows = F.pad(x, (shift,) * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)  # [B, C, n, n, H, W]
        x = windows[torch.arange(len(x)), :, at[0], at[1]]
    return x
