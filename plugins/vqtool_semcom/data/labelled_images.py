"""Pictures with labels: the four IDX files of MNIST's kin in a folder, or one npz."""

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
from vqtool_semcom.idx import pictures


class LabelledImages(Data):
    """`x` [C, H, W] with values in [0, 1], and `label`; the splits train, valid (of the training files) and test."""

    splits = ("train", "valid", "test")

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("a folder with train-images-idx3-ubyte.gz and its kin, or an npz")],
        valid_share: Annotated[float, Interval(gt=0, lt=1), Doc("share of the training pictures for validation")] = 0.1,
        valid_seed: Annotated[int, Doc("of the choice of the validation pictures")] = 0,
        train_limit: Annotated[int, Ge(0), Doc("train on this many pictures only; 0: all")] = 0,
        flip: Annotated[float, Interval(ge=0, le=1), Doc("probability of mirroring a training picture")] = 0.0,
        shift: Annotated[int, Ge(0), Doc("pixels that a training picture is moved by at most, each way")] = 0,
    ) -> None:
        columns = pictures(path)
        n = len(columns["train_labels"])
        held = max(1, round(valid_share * n))
        if held >= n:
            raise VqtoolError(f"`{path}` has {n} training pictures: too few to keep some for validation")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(valid_seed)).numpy()
        train = order[held:][:train_limit] if train_limit else order[held:]
        cut = {"train": ("train", train), "valid": ("train", order[:held])}
        self._rows: dict[str, Rows] = {
            name: Pictures(columns[f"{part}_images"][at], columns[f"{part}_labels"][at])
            for name, (part, at) in cut.items()
        }
        self._rows["test"] = Pictures(columns["test_images"], columns["test_labels"])
        self.flip, self.shift = flip, shift
        classes = tuple(str(name) for name in columns["classes"])
        self.spec = DataSpec(
            {
                "x": Field(tuple(int(n) for n in columns["train_images"].shape[1:]), "signal", "share of white"),
                "label": Field((), "label", names=classes),
            }
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
