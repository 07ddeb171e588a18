"""Pictures with labels: a folder of pictures by class, the files of MNIST's kin or of CIFAR, or one npz."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_doc import Doc

from vqtool_images.pictures import pictures
from vqtool_images.rows import Flip, PictureData, Shift, Size, TrainLimit, ValidSeed, ValidShare


class LabelledImages(PictureData):
    """`x` [C, H, W] with values in [0, 1], and `label`; the splits train, valid and test.

    `path` is an npz with arrays of usual names (`train_images`, `x_train`, `images` and `labels`, ...), a folder with
    the four IDX files or those of CIFAR's binary version (`data_batch_1.bin`, ..., `test_batch.bin`), or one with a
    folder of pictures for each class, below `train` and `test` or not. Where there is no test part a fifth of each
    class is held out; where there is no validation part, `valid_share` of the training pictures. What was assumed on
    the way is a note.
    """

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("an npz, a folder with IDX or CIFAR files, or a folder of pictures by class")],
        size: Size = 0,
        valid_share: ValidShare = 0.1,
        valid_seed: ValidSeed = 0,
        train_limit: TrainLimit = 0,
        flip: Flip = 0.0,
        shift: Shift = 0,
    ) -> None:
        self.flip, self.shift = flip, shift
        self.hold(pictures(path, size), path, valid_share, valid_seed, train_limit)
