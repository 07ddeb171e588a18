"""What a batch holds: named fields with shapes, roles and units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from vqtool.errors import VqtoolError

LARGEST_WINDOW = 2**28  # numbers in a field of one row
MASK = "mask"  # what the field of that role is called

Batch = dict[str, Tensor]
FieldRole = Literal["signal", "wave", "scalar", "category", "label", "group", "mask", "extra"]


class UnfitError(VqtoolError):
    """The data are of another form than a part, a loss or a metric is made for."""


def expect_windows(extent: object, who: str, *, otherwise: str = "") -> None:
    """Raise `UnfitError` where the extent of the signal, as `DataSpec.extent` gives it, is that of images.

    Args:
        extent: the length of windows, or (height, width).
        who: what is for windows alone, as "the encoder `patch`".
        otherwise: what to take for images instead.
    """
    if not isinstance(extent, int):
        hint = f"{otherwise} is for images" if otherwise else None
        raise UnfitError(f"{who} is for windows [C, L], and these data are images [C, H, W]", hint=hint)


def expect_images(extent: object, who: str, *, otherwise: str = "") -> None:
    """Raise `UnfitError` where the signal has no height and width; see `expect_windows`."""
    if not isinstance(extent, tuple) or len(extent) != 2:
        hint = f"{otherwise} is for windows" if otherwise else None
        raise UnfitError(f"{who} needs images [C, H, W]", hint=hint)


@dataclass(frozen=True, slots=True)
class Field:
    """One named field of a batch, without its batch axis.

    `role` says what parts may do with it: "signal" is what is to be coded; "wave" [C, L], "scalar" [n] and
    "category" [] are conditions, known also when a signal is generated; "label" [] or [T] is a target, -1 where there
    is none; "group" [] says what belongs together (who was recorded, where) and is best held out together; "mask" [L],
    a field called `mask`, is true for the samples of a row that are real, one stretch of them: rows may be shorter than
    [C, L], and no padding reaches anything; "extra" is for losses, metrics and norms that ask for it by name and is not
    fed to a conditioner.
    """

    shape: tuple[int, ...]
    role: FieldRole = "extra"
    unit: str = ""
    names: tuple[str, ...] = ()  # of a category, label or group: what each index stands for; of scalars: their names


class Metadata(dict[str, Any]):
    """What a plugin keeps in a data spec; a missing value is an error of the file, not of the plugin."""

    def __missing__(self, key: str) -> Any:
        raise VqtoolError(
            f"the metadata of the model's data have no `{key}`",
            hint="the checkpoint is damaged, or of another version of the plugin: `vqtool show` lists versions",
            exit_code=1,
        )


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What the batches of a data set hold; kept in every checkpoint: parts are rebuilt without the data."""

    fields: Mapping[str, Field]
    sample_rate: float | None = None  # Hz, where one rate holds for all
    periodic: bool = False  # the window is one period of a periodic signal: its end continues at its start
    metadata: Mapping[str, Any] = field(default_factory=dict)  # JSON values a plugin wants to find again

    def __post_init__(self) -> None:
        """A mask is one along the signal.

        Raises:
            VqtoolError: it has another name or shape.
        """
        if problem := mask_problem(self.fields):
            raise VqtoolError(f"the data {problem}", exit_code=1)

    def named(self, role: FieldRole) -> dict[str, Field]:
        """The fields of one role, in order."""
        return {name: f for name, f in self.fields.items() if f.role == role}

    @property
    def signal(self) -> Field:
        """The field that is to be coded; by convention it is called `x` and has the shape [C, L], images [C, H, W]."""
        return self.fields["x"]

    @property
    def channels(self) -> int:
        """How many channels the signal has."""
        return self.signal.shape[0]

    @property
    def length(self) -> int:
        """How many samples a window of the signal has."""
        return self.signal.shape[-1]

    @property
    def extent(self) -> int | tuple[int, ...]:
        """The length of a window [C, L]; the (height, width) of an image [C, H, W]."""
        return self.length if len(self.signal.shape) <= 2 else self.signal.shape[1:]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse. Files call the metadata `about`, as they always did."""
        value = asdict(self)
        return value | {"about": value.pop("metadata")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSpec:
        """Rebuild a spec from what `to_json` gave.

        Raises:
            ValueError: a field cannot be of this role or size, or the rate is not one.
        """
        for name, f in value["fields"].items():
            if f["role"] not in get_args(FieldRole):
                raise ValueError(f"give the field `{name}` the unknown role `{f['role']}`")
            if any(n < 0 for n in f["shape"]) or math.prod(f["shape"]) > LARGEST_WINDOW:
                raise ValueError(f"give the field `{name}` the shape {f['shape']}")
        rate = value["sample_rate"]
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"have a sample rate of {rate}")
        fields = {
            name: Field(tuple(f["shape"]), f["role"], f["unit"], tuple(f["names"]))
            for name, f in value["fields"].items()
        }
        if problem := mask_problem(fields):
            raise ValueError(problem)
        return cls(fields, value["sample_rate"], value["periodic"], Metadata(value["about"]))


def mask_problem(fields: Mapping[str, Field]) -> str:
    """What is wrong with the fields of role "mask"; "" where nothing is."""
    masks = {name: each.shape for name, each in fields.items() if each.role == "mask"}
    if not masks:
        return ""
    if list(masks) != [MASK]:
        return f"give the role `mask` to {', '.join(f'`{name}`' for name in masks)}: it is that of one field, `{MASK}`"
    signal = fields["x"].shape if "x" in fields else (0, *masks[MASK])
    if len(signal) == 2 and masks[MASK] == signal[1:]:
        return ""
    return f"have a mask of the shape {list(masks[MASK])} for signals of {list(signal)}: it is [L] for signals [C, L]"
