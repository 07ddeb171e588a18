"""Pictures without labels: a folder of PNG, JPEG and the like, in any subfolders, or an array."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_doc import Doc

from vqtool_images.pictures import pictures
from vqtool_images.rows import Flip, PictureData, Shift, Size, TrainLimit, ValidSeed, ValidShare


class Images(PictureData):
    """`x` [C, H, W] with values in [0, 1]; the splits train, valid and test.

    `path` is a folder of pictures, below `train` and `test` or not, a folder with the four IDX files or those of
    CIFAR's binary version, an npy, or an npz with arrays of usual names (`train_images`, `x_train`, `images`, ...).
    Labels are not read. Where there is no test part a fifth is held out; where there is no validation part,
    `valid_share` of the training pictures. What was assumed on the way is a note.
    """

    def __init__(
        self,
        *,
        path: Annotated[Path, Doc("a folder of pictures, an npy or npz, or a folder with IDX or CIFAR files")],
        size: Size = 0,
        valid_share: ValidShare = 0.1,
        valid_seed: ValidSeed = 0,
        train_limit: TrainLimit = 0,
        flip: Flip = 0.0,
        shift: Shift = 0,
    ) -> None:
        self.flip, self.shift = flip, shift
        self.hold(pictures(path, size, labelled=False), path, valid_share, valid_seed, train_limit)
