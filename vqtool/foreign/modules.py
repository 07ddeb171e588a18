"""Quantizers in a live model of any library: which codebooks it holds, and where their codes may come out."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from vqtool.api.quantizer import PART_NAMES, Quantizer
from vqtool.errors import VqtoolError
from vqtool.foreign.families import QUANTIZER, ForeignCodebook, codebooks_in
from vqtool.foreign.outlets import Outlet
from vqtool.foreign.tensors import tensors_in
from vqtool.model.seen import own_features

GRID = re.compile(r"quant|vq|fsq|lfq|bsq|codebook", re.IGNORECASE)  # classes that may quantize without a codebook
NUMBERED = re.compile(r"(level|group)\d+$")
GROUP = re.compile(r"rvqs|groups|heads")  # numbered modules that are no levels
SIZES = ("codebook_size", "num_embeddings", "n_embed", "n_e", "num_codes", "n_codes", "num_tokens")
COUNTS = ("num_codebooks", "num_quantizers", "n_q")
METHODS = ("forward", "encode", "quantize")
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
NO_CODEBOOKS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention)
SHOWN = 12  # candidates in an error


@dataclasses.dataclass(frozen=True, slots=True)
class LiveCodebook:
    """A codebook of a model in memory."""

    name: str  # "codebook", "level3", ... as in metrics and findings
    size: int  # K
    unit: str  # what it is one of: "level", "group", "expert"; "" where it stands alone
    rows: Callable[[], Tensor | None]  # what training moves of each code [K, ...]; None where nothing should
    vectors: Callable[[], np.ndarray | None]  # [K, d], for a report
    given: bool = False  # whether the user named it


@dataclasses.dataclass(frozen=True, slots=True)
class LiveQuantizers:
    """The codebooks of a model, and every place where their codes may come out: those to prefer first."""

    books: tuple[LiveCodebook, ...]
    outlets: tuple[Outlet, ...]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without what DistributedDataParallel and torch.compile put around it."""
    inner = getattr(model, "_orig_mod", None)
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        inner = model.module
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def quantizers_of(
    model: nn.Module,
    codebooks: Mapping[str, str] | None = None,
    modules: Sequence[str | nn.Module] | Mapping[str, int] | None = None,
) -> LiveQuantizers:
    """The quantizers of a model: of vqtool, vector-quantize-pytorch, EnCodec, DAC, Mimi, VQGAN and the like.

    Args:
        model: any module; nothing in it is changed.
        codebooks: names, and where their vectors are: `{"vq": "quantize.embedding"}`, an nn.Embedding, a parameter or a
            buffer. By default families are looked for by the names and shapes of their tensors.
        modules: quantizers, by path or as they are; as a table with the number of their codes, `{"vq": 512}`, where a
            module has none of the usual attributes for it.

    Raises:
        VqtoolError: there are none; the error lists modules that may be meant.
    """
    found = _Search(unwrapped(model))
    if codebooks is None and modules is None:
        for quantizer in found.ours():
            found.add_ours(quantizer)
        found.add_codebooks(found.model, "")
        found.add_by_class()
        found.add_grids()
    for name, path in (codebooks or {}).items():
        found.add_named(name, path)
    sizes = modules if isinstance(modules, Mapping) else {}
    for module in modules or ():
        found.add_module(module, sizes.get(module) if isinstance(module, str) else None)
    if not found.books:
        raise VqtoolError(f"no quantizer was found in {type(found.model).__name__}", hint=candidates(model))
    found.name_books()
    found.find_outlets()
    return LiveQuantizers(tuple(found.books), tuple(found.outlets))


def candidates(model: nn.Module) -> str:
    """A hint with the modules and tensors of a model that may hold codes."""
    named = {path: m for path, m in unwrapped(model).named_modules() if not isinstance(m, CONTAINERS)}
    likely = [f"`{path}` ({type(m).__name__})" for path, m in named.items() if path and _looks(m, path)]
    tensors = ((under(path, name.removesuffix("weight")).rstrip("."), value)
               for path, m in unwrapped(model).named_modules() if not isinstance(m, NO_CODEBOOKS)
               for name, value in (*m._parameters.items(), *m._buffers.items()))  # fmt: skip
    likely += [f"`{path}` {list(t.shape)}" for path, t in tensors if t is not None and t.ndim in (2, 3) and len(t) > 1]
    shown = ", ".join(likely[:SHOWN]) + (f" and {len(likely) - SHOWN} more" if len(likely) > SHOWN else "")
    return ('name it: codebooks={"vq": "PATH"} of an nn.Embedding or a tensor of code vectors, or modules=["PATH"] of '
            f"a module that returns its codes; candidates: {shown or 'none is named like a quantizer'}")  # fmt: skip


def _looks(module: nn.Module, path: str) -> bool:
    """Whether a module is called like a quantizer, by its class or where it is."""
    return bool(GRID.search(type(module).__name__) or QUANTIZER.search(path.rpartition(".")[2]))


@dataclasses.dataclass
class _Holder:
    """A module with the codebooks that one of its tensors holds: `books` of the search."""

    path: str
    books: tuple[int, ...]
    scores: nn.Module | None = None  # the projection whose largest outputs choose codes


class _Search:
    """Collects the codebooks and outlets of one model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.paths = {module: path for path, module in model.named_modules()}
        self.books: list[LiveCodebook] = []
        self.holders: list[_Holder] = []
        self.outlets: list[Outlet] = []
        self.seen: set[tuple[int, str]] = set()  # tensors that are known, by module and name
        self.mine: set[nn.Module] = set()  # vqtool's quantizers, and modules that the user named: they give codes

    def ours(self) -> list[Quantizer]:
        """Quantizers of vqtool that are not parts of others."""
        found = [m for m in self.paths if isinstance(m, Quantizer)]
        inner = {child for quantizer in found for child in quantizer.modules() if child is not quantizer}
        return [quantizer for quantizer in found if quantizer not in inner]

    def add_ours(self, quantizer: Quantizer) -> None:
        """The codebooks of one of vqtool's, which announces them."""
        path = self.paths[quantizer]
        self.mine.add(quantizer)
        self.seen |= {(id(m), name) for m in quantizer.modules() for name in (*m._parameters, *m._buffers)}
        many = len(quantizer.codebook_sizes) > 1
        fixed = all(getattr(m, "kind", "frozen") == "frozen" for m in quantizer.modules())
        moves = not fixed or any(p.requires_grad for p in quantizer.parameters())
        self._add(path, [
            LiveCodebook(under(path, name if many else ""), size, PART_NAMES[quantizer.topology] if many else "",
                         partial(_table, quantizer, q) if moves else _nothing, partial(_own, quantizer, q))
            for q, (name, size) in enumerate(zip(quantizer.codebook_names, quantizer.codebook_sizes, strict=True))
        ])  # fmt: skip

    def _add(self, path: str, books: Sequence[LiveCodebook], **more: Any) -> None:
        begin = len(self.books)
        self.books += books
        self.holders.append(_Holder(path, tuple(range(begin, len(self.books))), **more))

    def add_codebooks(self, module: nn.Module, path: str, prefix: str = "") -> None:
        """The codebooks that a module's tensors are by name and shape; `prefix` is put before their names."""
        read = partial(_read, module, prefix)
        found: dict[str, list[ForeignCodebook]] = {}
        for book in read():
            found.setdefault(book.tensor, []).append(book)
        for tensor, books in found.items():
            inner, _, last = tensor.removeprefix(prefix).rpartition(".")
            self._add_tensor(module.get_submodule(inner), under(path, inner), last, books, partial(_of, read, tensor))

    def _add_tensor(self, holder: nn.Module, path: str, last: str, books: Sequence[ForeignCodebook],
                    read: Callable[[], np.ndarray]) -> None:  # fmt: skip
        """The codebooks of one tensor, unless it is known: a module may be registered twice."""
        if (id(holder), last) in self.seen:
            return
        self.seen.add((id(holder), last))
        scores = getattr(holder, "weight_proj", None) if books[0].family == "wav2vec 2.0" else None
        count = len(books)
        if scores is not None:
            count = getattr(holder, "num_groups", getattr(holder, "groups", count))
        size = sum(len(book.vectors) for book in books) // count
        name = under(path, last if last.isdecimal() else "")
        self._add(path, [
            LiveCodebook(under(name, f"group{q}" if count > 1 else ""), size, "",
                         _nothing if books[0].frozen else partial(_rows, holder, last, size, q),
                         partial(_part, read, size, q))
            for q in range(count)
        ], scores=scores)  # fmt: skip

    def add_by_class(self) -> None:
        """The codebooks of modules that are quantizers by their class alone, not by where they are."""
        for module, path in list(self.paths.items()):
            if GRID.search(type(module).__name__) and not any(self._is_inside(h, path) for h in self.holders):
                self.add_codebooks(module, path, prefix="quantizer.")

    @staticmethod
    def _is_inside(holder: _Holder, path: str) -> bool:
        return not path or holder.path == path or holder.path.startswith(f"{path}.")

    def add_grids(self) -> None:
        """Quantizers without a codebook, such as FSQ and LFQ: they say how many codes they have."""
        for module, path in self.paths.items():
            grids = [m for m in module.modules() if GRID.search(type(m).__name__) and size_of(m)]
            known = any(self._is_inside(holder, path) for holder in self.holders)
            if grids == [module] and not known:  # the innermost, and none with a codebook
                self._add_plain(module, path, size_of(module))

    def _add_plain(self, module: nn.Module, path: str, size: int) -> None:
        count = next((n for word in COUNTS if isinstance(n := getattr(module, word, None), int) and n > 0), 1)
        self._add(path, [LiveCodebook(under(path, f"group{q}" if count > 1 else ""), size, "", _nothing, _nothing)
                         for q in range(count)])  # fmt: skip

    def add_named(self, name: str, path: str) -> None:
        """A codebook that the user names."""
        inner, _, last = path.rpartition(".")
        if path in self.paths.values():
            inner, last = path, "weight"
        holder = self.module_at(inner)
        tensor = getattr(holder, last, None)
        if not isinstance(tensor, Tensor) or tensor.ndim not in (2, 3):
            raise VqtoolError(f'codebooks={{"{name}": "{path}"}} is not a tensor [K, D] of the model',
                              hint=candidates(self.model))  # fmt: skip
        read = partial(_read, holder, "", f"^{re.escape(last)}$")
        begin = len(self.books)
        self._add_tensor(holder, inner, last, read(), partial(_of, read, last))
        for q in range(begin, len(self.books)):
            own = name if len(self.books) == begin + 1 else f"{name}.{q - begin}"
            self.books[q] = dataclasses.replace(self.books[q], name=own, given=True)

    def module_at(self, path: str) -> nn.Module:
        """The module at a path, or an error that lists others."""
        try:
            return self.model.get_submodule(path)
        except AttributeError as error:
            raise VqtoolError(f"{type(self.model).__name__} has no module `{path}`",
                              hint=candidates(self.model)) from error  # fmt: skip

    def add_module(self, given: str | nn.Module, size: int | None) -> None:
        """A quantizer that the user names: its codebooks, or as many codes as it says it has."""
        module = unwrapped(given) if isinstance(given, nn.Module) else self.module_at(given)
        if module not in self.paths:
            raise VqtoolError(f"modules: this {type(module).__name__} is not a part of the model")
        path, before = self.paths[module], len(self.books)
        self.mine.add(module)
        if isinstance(module, Quantizer):
            self.add_ours(module)
        elif size is None:
            self.add_codebooks(module, path, prefix="quantizer.")
        if len(self.books) == before:
            size = size or size_of(module)
            if not size:
                raise VqtoolError(f"how many codes has `{path}` ({type(module).__name__})?",
                                  hint=f'modules={{"{path}": 512}}')  # fmt: skip
            self._add_plain(module, path, size)

    def name_books(self) -> None:
        """Short names: "codebook", "level3", or what distinguishes the places of several."""
        paths = [book.name for book in self.books if not book.given]
        fresh = iter(short_names(paths) if paths else [])
        self.books = [b if b.given else dataclasses.replace(b, name=next(fresh)) for b in self.books]
        for q, book in enumerate(self.books):
            numbered = NUMBERED.match(book.name.rpartition(".")[2])
            if numbered and not book.unit:
                self.books[q] = dataclasses.replace(book, unit=numbered[1])

    def find_outlets(self) -> None:
        """Where codes may come out: of the holders and the modules around them, those that look most like it first."""
        around: dict[nn.Module, list[_Holder]] = {}
        for holder in self.holders:
            steps = holder.path.split(".") if holder.path else []
            for end in range(len(steps), -1, -1):
                around.setdefault(self.model.get_submodule(".".join(steps[:end])), []).append(holder)
        for holder in self.holders:
            module = self.model.get_submodule(holder.path)
            if holder.scores is not None:
                self._outlet(holder.scores, "scores", holder.books)
            mine = [m for m, held in around.items() if held == [holder]]  # from the holder outwards
            like = [m for m in reversed(mine) if m is module or m in self.mine or _looks(m, self.paths[m])]
            for each in like:
                self._methods(each, holder.books, first_axis=each is module and len(holder.books) > 1)
            if isinstance(module, nn.Embedding):
                self._outlet(module, "input", holder.books)
            for each in (m for m in mine if m not in like):
                self._methods(each, holder.books, near=self.paths[each] == holder.path.rpartition(".")[0])
        for module, held in around.items():
            if len(held) > 1:
                self._methods(module, tuple(q for holder in held for q in holder.books),
                              near=any(h.path.rpartition(".")[0] == self.paths[module] for h in held))  # fmt: skip

    def _methods(self, module: nn.Module, books: tuple[int, ...], **more: Any) -> None:
        if isinstance(module, CONTAINERS):
            return
        for method in ("forward", "encode", "quantize"):
            called = getattr(type(module), method, None)
            if callable(called) and not (method == "forward" and isinstance(module, nn.Embedding)):
                self._outlet(module, method, books, **more)

    def _outlet(self, module: nn.Module, method: str, books: tuple[int, ...], **more: Any) -> None:
        sizes = tuple(self.books[q].size for q in books)
        self.outlets.append(Outlet(self.paths[module], module, method, books, sizes, **more))


def size_of(module: nn.Module) -> int:
    """How many codes a module says it has; 0 where it does not."""
    for word in SIZES:
        with contextlib.suppress(Exception):  # a property may fail in its own way
            if isinstance(value := getattr(module, word, None), int) and value > 1:
                return value
    return 0


def short_names(paths: Sequence[str]) -> list[str]:
    """Names of codebooks by where they are: numbers are levels or groups, and what is common to all is left out."""
    split = [_steps(path) for path in paths]
    while min(map(len, split)) > 1 and len({steps[0] for steps in split}) == 1:
        split = [steps[1:] for steps in split]
    while min(map(len, split)) > 1 and len({steps[-1] for steps in split}) == 1:
        split = [steps[:-1] for steps in split]
    names = [".".join(steps) for steps in split]
    return ["codebook"] if len(names) == 1 else names if len(set(names)) == len(names) else list(paths)


def _steps(path: str) -> list[str]:
    """The steps of a path, where `layers.3` is `level3` and `rvqs.3` is `group3`."""
    steps: list[str] = []
    for step in path.split("."):
        if step.isdecimal():
            before = steps.pop() if steps else ""
            step = ("group" if GROUP.search(before) else "level") + step
        steps.append(step)
    return steps


def under(path: str, name: str) -> str:
    """A name below a path; either may be empty."""
    return ".".join(filter(None, (path, name)))


# --- what is read of a codebook while training goes on ---------------------------------------------------------------


def _nothing() -> None:
    return None


def _table(quantizer: Quantizer, q: int) -> Tensor | None:
    tables = quantizer.vectors() if quantizer.initialised else None
    return None if tables is None else tables[q].detach()


def _own(quantizer: Quantizer, q: int) -> np.ndarray | None:
    table = _table(quantizer, q)
    return None if table is None else own_features(quantizer, table).float().cpu().numpy()


def _rows(holder: nn.Module, name: str, size: int, part: int) -> Tensor | None:
    """The K rows of a tensor that belong to codes, of one part of several; None where nothing trains them."""
    tensor: Tensor = getattr(holder, name)
    if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
        return None
    rows = tensor.detach()
    if rows.ndim == 3:
        return rows.reshape(-1, size, rows.shape[-1])[part]
    return rows if len(rows) == size else rows.T


def _read(module: nn.Module, prefix: str, vectors: str | None = None) -> list[ForeignCodebook]:
    """The codebooks among a module's tensors, as their families store them: sums divided by use, maps applied."""
    state = {f"{prefix}{name}": value for name, value in module.state_dict().items()}
    return codebooks_in(tensors_in(state), vectors=vectors)


def _of(read: Callable[[], list[ForeignCodebook]], tensor: str) -> np.ndarray:
    return np.concatenate([book.vectors for book in read() if book.tensor == tensor])


def _part(read: Callable[[], np.ndarray], size: int, part: int) -> np.ndarray:
    return read()[part * size :][:size]
