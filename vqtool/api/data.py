"""The data contract: named fields with shapes and units, one map-style dataset per split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from vqtool.errors import VqtoolError

LARGEST_WINDOW = 2**28  # numbers in a field of one row

Batch = dict[str, Tensor]
FieldRole = Literal["signal", "wave", "scalar", "category", "label", "group", "extra"]


@dataclass(frozen=True, slots=True)
class Field:
    """One named field of a batch, without its batch axis.

    `role` says what parts may do with it: "signal" is what is to be coded; "wave" [C, L], "scalar" [n] and
    "category" [] are conditions, known also when a signal is generated; "label" [] or [T] is a target, -1 where there
    is none; "group" [] tells what belongs together (who was recorded, where) and is best held out together; "extra" is
    for losses, metrics and norms that ask for it by name and is not fed to a conditioner.
    """

    shape: tuple[int, ...]
    role: FieldRole = "extra"
    unit: str = ""
    names: tuple[str, ...] = ()  # of a category, label or group: what each index stands for; of scalars: their names


class About(dict[str, Any]):
    """What a plugin left in the metadata: a value that is missing there is a fault of the file, not of the plugin."""

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
    periodic: bool = False  # the window is one period of a periodic signal: its ends meet
    about: Mapping[str, Any] = field(default_factory=dict)  # JSON values a plugin wants to find again

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
        """Plain JSON values; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSpec:
        """Rebuild a spec from what `to_json` gave.

        Raises:
            ValueError: a field cannot be of this role or size, or the rate is not one.
        """
        for name, f in value["fields"].items():
            if f["role"] not in get_args(FieldRole):
                raise ValueError(f"give the field `{name}` the role `{f['role']}`, which is none")
            if any(n < 0 for n in f["shape"]) or math.prod(f["shape"]) > LARGEST_WINDOW:
                raise ValueError(f"give the field `{name}` the shape {f['shape']}")
        rate = value["sample_rate"]
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"have a sample rate of {rate}")
        fields = {
            name: Field(tuple(f["shape"]), f["role"], f["unit"], tuple(f["names"]))
            for name, f in value["fields"].items()
        }
        return cls(fields, value["sample_rate"], value["periodic"], About(value["about"]))


@dataclass(frozen=True, slots=True)
class Coded:
    """A piece of a user's input in codes: what `Data.write_codes` gets, one after the other, and `read_codes` gives."""

    codes: Tensor  # [B, T, Q]
    sent: Tensor  # [B, S] the scalars sent apart
    batch: Batch  # what else decoding needs: the conditions, no signal
    about: dict[str, Any]  # what `Data.read_chunks` told with the batch


class Rows(Protocol):
    """A map-style dataset; `__getitems__` answers for a whole batch at once (and gives a ready `Batch`)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Batch: ...
    def __getitems__(self, indices: list[int]) -> Batch: ...


class TensorRows:
    """Rows held in memory: a dict of tensors that share their first axis."""

    def __init__(self, columns: Batch) -> None:
        self.columns = columns
        self.n = len(next(iter(columns.values())))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Batch:
        return {name: column[index] for name, column in self.columns.items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        where = torch.as_tensor(indices, dtype=torch.long)
        return {name: column[where] for name, column in self.columns.items()}


class Data:
    """Base of all data sets. Keyword-only parameters are the recipe's options.

    An option annotated as `Path` is resolved against the folder of the recipe's file before it arrives here.
    The constructor reads and checks the data and raises `VqtoolError` for what is wrong with it.
    """

    spec: DataSpec
    splits: tuple[str, ...]  # "train", "valid", then the held-out ones, each under its official name
    notes: tuple[str, ...] = ()  # what was found out about the data, to be said aloud
    own_codes: ClassVar[bool] = False  # `write_codes` and `read_codes` know a format of codes of their own

    def rows(self, split: str) -> Rows:
        """The rows of one split; evaluation rows are fixed (any randomness in them is part of the file or seeded)."""
        raise NotImplementedError

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Vary a training batch; randomness only from `generator` (the loop seeds it by seed, stage, step and rank)."""
        return batch

    @classmethod
    def read(cls, spec: DataSpec, path: Path, *, condition: bool) -> tuple[Batch, dict[str, Any]]:
        """Read a user's file as one batch: signals to encode, or (`condition=True`) only the conditions.

        Needs no data set, only the `spec` that a checkpoint holds. Returns the batch and what `write` must know to
        answer in the user's own units, rates and lengths; its `notes` (a list of sentences) are said aloud.
        """
        raise VqtoolError(f"the data `{cls.__name__}` read no files of a user's own (it has no `read`)", exit_code=1)

    @classmethod
    def write(cls, spec: DataSpec, path: Path, signal: Tensor, batch: Batch, about: dict[str, Any]) -> None:
        """Write signals [B, C, L] (or [B, S, C, L]: S samples each), with what `read` returned, to a user's file."""
        raise VqtoolError(f"the data `{cls.__name__}` write no signals (it has no `write`)", exit_code=1)

    @classmethod
    def read_chunks(cls, spec: DataSpec, path: Path) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Read what `vqtool encode` is given piece by piece, so that it may be larger than memory: a day, a folder.

        Each piece is a batch, and what `write_codes` and `write_chunks` must know of it; its `notes` are shown, and
        `pieces`, if it is there, is how many there are in all.
        """
        yield cls.read(spec, path, condition=False)

    @classmethod
    def to_encode(
        cls, spec: DataSpec, path: Path, options: Mapping[str, Any], asked: Mapping[str, Any]
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """What `vqtool encode` reads: `read_chunks`, unless files are read as the training data's `options` say.

        `asked` are the options that this call sets anew.
        """
        if asked:
            name = next(iter(asked))
            raise VqtoolError(
                f"the data `{cls.__name__}` read files of a user's own without options", where=f"data.{name}"
            )
        return cls.read_chunks(spec, path)

    @classmethod
    def files_read(cls, path: Path, *, decode: bool = False) -> list[Path]:
        """The files that are read of a user's file or folder (with `decode`: of codes); no output may be one of them.

        A folder stands for every file in it.
        """
        return [path]

    @classmethod
    def files_written(cls, path: Path, out: Path, *, decode: bool) -> list[Path]:
        """The files that `vqtool encode` (or, with `decode`, `vqtool decode`) of `path` writes with `--out out`.

        They are checked before any work. A class that writes more than one file says which, all below `out`.
        """
        return [out]

    @classmethod
    def write_codes(cls, spec: DataSpec, path: Path, chunks: Iterator[Coded], about: Mapping[str, Any]) -> list[Path]:
        """Write the pieces' codes to `path`, in a format of the field's own; returns the files written.

        `about` says which model they are of ("model", to be kept and given back by `read_codes`), its
        "codebook_sizes", how many tokens are of a moment ("bands"), and where it is known how much each code of each
        codebook is used ("code_use", else None). Called where the class says `own_codes`; else all pieces go to one
        safetensors file.
        """
        raise NotImplementedError

    @classmethod
    def code_figures(cls, spec: DataSpec, written: list[Path]) -> dict[str, float]:
        """What is to be said of the files that `write_codes` wrote, by dotted names: `{"bitrate.kbps": 8.0}`."""
        return {}

    @classmethod
    def read_codes(cls, spec: DataSpec, path: Path, about: Mapping[str, Any]) -> tuple[dict[str, Any], Iterator[Coded]]:
        """The "model" that `write_codes` was told, and the pieces; `about` is what it would be told of this model.

        The command compares the models before it takes the first piece.
        """
        raise NotImplementedError

    @classmethod
    def write_chunks(
        cls, spec: DataSpec, path: Path, chunks: Iterator[tuple[Tensor, Batch, dict[str, Any]]]
    ) -> list[Path]:
        """Write decoded pieces, (signal, batch, about) each, to `path`; returns the files written."""
        signals, batches, abouts = zip(*chunks, strict=True)
        batch = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
        cls.write(spec, path, torch.cat(signals), batch, abouts[0])
        return [path]
