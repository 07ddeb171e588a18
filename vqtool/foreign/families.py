"""How quantizers of other libraries name and shape what they hold: from tensors to codebooks, by name and shape."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vqtool.errors import VqtoolError
from vqtool.foreign.tensors import Stored, Tensors

Array = np.ndarray[Any, np.dtype[Any]]
Unit = Literal["level", "group", ""]
LEAST_USE = 1e-5  # sums are divided by their use, but by no less: the epsilon of EnCodec and Mimi


@dataclass(frozen=True, slots=True)
class ForeignCodebook:
    """One codebook of a model that vqtool did not train."""

    name: str  # the module that holds it, "quantizer.layers.3.codebook"; with "[1]" where a tensor holds several
    family: str  # "EnCodec", "DAC", ...; "unknown" where it was found by its name and shape alone
    tensor: str  # the name of the tensor that holds its vectors
    vectors: Array  # [K, D] float32, as latents are compared with them: sums divided by use, maps applied
    counts: Array | None = None  # [K] how often each code is chosen, mostly a moving average; None where not stored
    counts_tensor: str | None = None
    started: bool | None = None  # its own flag of having been started; None where it has none
    cosine: bool = False  # compared by angle alone: lengths mean nothing
    frozen: bool = False  # fixed by design: what is trained is a map behind it
    unit: Unit = ""  # what it is one of: the levels of a residual quantizer, or groups and heads
    part: int | None = None  # its place in a tensor that holds several


@dataclass(frozen=True, slots=True)
class Rule:
    """One family: the names of its vectors, and of what is beside them (in the same module or the one around)."""

    family: str
    vectors: str  # a pattern of the last parts of a tensor's name
    beside: tuple[str, ...] = ()  # tensors or modules, of which one must be beside; none must where this is empty
    counts: tuple[str, ...] = ("cluster_size",)
    started: tuple[str, ...] = ()
    sums: bool = False  # what is stored are sums, to be divided by the counts
    map: str = ""  # a linear map [D, D] that the vectors go through
    cosine: bool = False


RULES = (
    Rule("Mimi", r"embed_sum|embedding_sum", ("cluster_usage",), ("cluster_usage",),
         ("initialized", "_initialized"), sums=True),
    Rule("EnCodec", r"_?codebook\.embed", ("inited",), started=("inited",)),
    Rule("vector-quantize-pytorch", r"_codebook\.embed", ("initted",), started=("initted",)),
    Rule("SimVQ", r"frozen_codebook", map="code_transform.weight"),
    Rule("SimVQ", r"embedding\.weight", ("embedding_proj",), map="embedding_proj.weight"),
    Rule("vqtool", r"codebook\.codes", ("ready",), ("weights",), ("ready",), map="map.weight"),
    Rule("NeMo", r"codes", ("codes_avg",), started=("initialized",)),
    Rule("DAC", r"codebook\.weight", ("in_proj",), (), cosine=True),
    Rule("wav2vec 2.0", r"codevectors", ("weight_proj",), ()),
    Rule("wav2vec 2.0", r"vars", ("weight_proj",), ()),
    Rule("Jukebox", r"level_blocks\.\d+\.(?:k|codebook)", (), ("k_elem",)),
    Rule("VQGAN", r"quantize\.(?:embedding|embed|codebook)\.weight", (), ("cluster_size", "embed_prob")),
    Rule("VQ-VAE-2", r"embed", ("embed_avg",)),
    Rule("VQ-VAE", r"_embedding\.weight", ("_ema_cluster_size", "_ema_w"), ("_ema_cluster_size",)),
)  # fmt: skip
NAMES = re.compile(
    r"emb|embs|embed|embeddings?|code_?books?|codes|codewords|code_?vectors|centroids|cent(er|re)s"
    r"|dictionary|prototypes"
)  # of tensors that may be codebooks, where the module that holds them is a quantizer
QUANTIZER = re.compile(r"quant|vq|code_?book|codeword|bottleneck", re.IGNORECASE)
CODEBOOK = re.compile(r"code_?books?", re.IGNORECASE)
USE = re.compile(r"cluster|usage|count|used|hits|freq|embed_prob", re.IGNORECASE)
SKIPPED = re.compile(r"(^|\.)(optimizers?(_states?)?|optim|exp_avg(_sq)?|momentum_buffer|callbacks|loops)(\.|$)")
AVERAGE = re.compile(r"(?:^|.*\.)(?:model_ema|ema_model|ema|ema_state_dict|state_dict_ema|ema_params|shadow)\.(.+)")
NUMBERED = re.compile(r"\.(\d+)(?:\.|$)")
GROUPS = re.compile(r"(?:^|\.)(rvqs|groups|heads|grvq\w*)\.\d+(?:\.|$)")
FIXED = {  # tensors that show a quantizer without a codebook, where they are beside `project_in` or alone
    "FSQ": ("_levels", "levels", "_basis", "implicit_codebook"),
    "LFQ": ("mask",),
    "LatentQuantize": ("values_per_latent",),
}
GUESSED = "FSQ or LFQ"  # by their projections alone
MOST = 1 << 20  # codes of a codebook


def codebooks_in(tensors: Tensors, *, vectors: str | None = None, usage: str | None = None) -> list[ForeignCodebook]:
    """The codebooks among the tensors of a model, in the order of their names; only these tensors' values are read.

    Args:
        tensors: as `tensors_of(path)` or `tensors_in(module.state_dict())` gives them.
        vectors: a pattern (as of `re.search`) of the names of the tensors that hold code vectors, [K, D] or
            [groups, K, D]; by default names and shapes of the families above are looked for.
        usage: a pattern of the names of the counts [K], matched to the vectors by what both patterns' groups captured,
            else by their order.

    Raises:
        VqtoolError: a pattern is not a regular expression, or what it names cannot be codebooks.
    """
    names = sorted((n for n in tensors if not is_copy(n, tensors)), key=natural)
    scopes = {n[:at] for n in names for at in (m.start() for m in re.finditer(r"\.", n))} | tensors.keys()
    if vectors is not None:
        return list(_named(tensors, names, vectors, usage))
    found: list[ForeignCodebook] = []
    for name in names:
        rule = next((r for r in RULES if _fits(r, name, tensors, scopes)), None)
        if rule is None and _may_be_codebook(name, tensors[name]):
            counts = [n for n in _siblings(name, names) if USE.search(n.rpartition(".")[2])]
            rule = Rule("unknown", "", (), tuple(n.rpartition(".")[2] for n in counts))
        if rule is not None:
            found += _read(rule, name, tensors)
    return found


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sorting key by which `layers.10` comes after `layers.9`, and Mimi's semantic level before its acoustic ones."""
    parts = re.split(r"(\d+)", name.replace("acoustic", "~acoustic"))
    return [(0, int(p), "") if p.isdecimal() and len(p) < 10 else (1, 0, p) for p in parts]


def is_copy(name: str, tensors: Tensors) -> bool:
    """Whether a tensor is an optimizer's, or the moving average of one that is there itself."""
    if SKIPPED.search(name):
        return True
    copy = AVERAGE.fullmatch(name)
    if copy is None:
        return False
    own = copy[1].removeprefix("module.")
    return any(n != name and (n == own or n.endswith(f".{own}")) and not AVERAGE.fullmatch(n) for n in tensors)


def fixed_grids(tensors: Tensors, books: Sequence[ForeignCodebook] = ()) -> dict[str, str]:
    """Quantizers without a codebook, as FSQ and LFQ are: their family by their module's name.

    Args:
        tensors: as of `codebooks_in`.
        books: what that found: a projection around one of these is not that of a grid.
    """
    found: dict[str, str] = {}
    for name, stored in tensors.items():
        module, _, last = name.rpartition(".")
        words = {last, module.rpartition(".")[2]}
        family = next((f for f, marks in FIXED.items() if words & set(marks)), None)
        if last == "weight" and module.rpartition(".")[2] == "project_in" and len(stored.shape) == 2:
            out = tensors.get(f"{module.removesuffix('project_in')}project_out.weight")
            if out is not None and out.shape == stored.shape[::-1] and stored.shape[0] < stored.shape[1]:
                family, module = GUESSED, module.rpartition(".")[0]
        elif family == "LFQ":
            bits = np.asarray(stored.read()).reshape(-1) if stored.dtype == "I64" and len(stored.shape) == 1 else None
            family = None if bits is None or list(bits) != [2**i for i in range(len(bits))][::-1] else family
        elif family == "FSQ" and not (QUANTIZER.search(module) or "fsq" in module.lower() or not module):
            family = None
        if family is not None and found.get(module, GUESSED) == GUESSED:
            found[module] = family
    around = {name: f"{name}." if name else "" for name in found}
    return {m: f for m, f in found.items() if f != GUESSED or not any(b.tensor.startswith(around[m]) for b in books)}


# --- which tensors are codebooks -------------------------------------------------------------------------------------


def _fits(rule: Rule, name: str, tensors: Tensors, scopes: set[str]) -> bool:
    if not re.fullmatch(rf"(?:.*\.)?(?:{rule.vectors})", name, re.DOTALL) or not _may_be_vectors(tensors[name]):
        return False
    return not rule.beside or any(f"{scope}{word}" in scopes for scope in _around(name) for word in rule.beside)


def _around(name: str) -> tuple[str, str]:
    """The prefixes of names in a tensor's module, and in the module around it."""
    inner = name.rpartition(".")[0]
    outer = inner.rpartition(".")[0]
    return (f"{inner}." if inner else "", f"{outer}." if outer else "")


def _may_be_vectors(stored: Stored) -> bool:
    shape = stored.shape
    return stored.is_float and len(shape) in (2, 3) and 2 <= shape[-2] <= MOST and min(shape) >= 1


def _may_be_codebook(name: str, stored: Stored) -> bool:
    """Whether a tensor's name and shape are those of a codebook: of a family that is not known here."""
    if not _may_be_vectors(stored):
        return False
    *modules, last = [part.strip("_") for part in name.split(".") if not part.isdecimal()] or [""]
    if last == "weight" and modules:
        *modules, last = modules
    elif last == "weight":
        return False
    if not NAMES.fullmatch(last.lower()):
        return False
    lists = re.findall(r"(?:^|\.)_*([^.]+?)_*\.\d+(?=\.|$)", name)  # `layers.3`: what counts is the module around
    own = [m for m in modules if m not in lists or QUANTIZER.search(m)][-1:]
    return bool(CODEBOOK.fullmatch(last) or any(QUANTIZER.search(m) for m in own))


def _siblings(name: str, names: Sequence[str]) -> list[str]:
    return [n for scope in _around(name) for n in names if n.startswith(scope) and "." not in n[len(scope) :]]


# --- from tensors to codebooks ---------------------------------------------------------------------------------------


def _read(rule: Rule, name: str, tensors: Tensors) -> Iterator[ForeignCodebook]:
    """The codebook that a tensor holds, or those, with what is beside it."""
    vectors = _floats(tensors[name])
    counts_name, counts = _counts(rule.counts, name, tensors, vectors.shape)
    flag = _beside(rule.started, name, tensors)
    started = None if flag is None else bool(np.all(tensors[flag].read() != 0))
    if counts is not None and vectors.ndim == 2 and _is_transposed(vectors, counts, name, tensors):
        vectors = vectors.T
    if rule.sums and counts is not None:
        vectors = vectors / np.maximum(counts, LEAST_USE).reshape(*vectors.shape[:-1], 1)
    mapped = _beside((rule.map,), name, tensors) if rule.map else None
    if mapped is not None and tensors[mapped].shape == (vectors.shape[-1],) * 2:
        vectors = vectors @ _floats(tensors[mapped]).T
    parts = _parts(rule, name, vectors, tensors)
    for number, part in enumerate(parts):
        own = None if counts is None else counts.reshape(-1, part.shape[0])
        yield ForeignCodebook(
            name=_module(name) + (f"[{number}]" if len(parts) > 1 else ""),
            family=rule.family,
            tensor=name,
            vectors=np.ascontiguousarray(part, dtype=np.float32),
            counts=None if own is None else own[number if len(own) == len(parts) else 0],
            counts_tensor=counts_name,
            started=started,
            cosine=rule.cosine or _is_unit(part),
            frozen=mapped is not None,
            unit=_unit(name, len(parts)),
            part=number if len(parts) > 1 else None,
        )


def _module(name: str) -> str:
    """The module whose codebook a tensor is: without what every codebook calls it."""
    module = name
    for _ in range(2):  # `codebook.embed`, `embedding.weight`
        module = re.sub(rf"(^|\.)_?(weight|embed_sum|embedding_sum|{NAMES.pattern})$", "", module)
    return module or "codebook"


def _unit(name: str, parts: int) -> Unit:
    if parts > 1 or GROUPS.search(name):
        return "group"
    return "level" if NUMBERED.search(name) else ""


def _parts(rule: Rule, name: str, vectors: Array, tensors: Tensors) -> list[Array]:
    """The codebooks [K, D] that one tensor holds: heads [H, K, D], or wav2vec 2.0's groups [1, G K, D / G]."""
    if vectors.ndim == 2:
        return [vectors]
    if rule.family == "wav2vec 2.0" and len(vectors) == 1:
        scores, outer = _beside(("weight_proj.weight",), name, tensors), _around(_around(name)[0].rstrip("."))[0]
        whole = next((tensors[n].shape[1] for n in (f"{outer}project_q.weight",) if n in tensors), None)
        groups = whole // vectors.shape[-1] if whole and whole % vectors.shape[-1] == 0 else 1
        if scores is not None and tensors[scores].shape[0] == vectors.shape[1] and vectors.shape[1] % groups == 0:
            return list(vectors[0].reshape(groups, -1, vectors.shape[-1]))
    return list(vectors)


def _is_unit(vectors: Array) -> bool:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return len(lengths) > 1 and bool(np.all(np.abs(lengths - 1) < 1e-3))


def _is_transposed(vectors: Array, counts: Array, name: str, tensors: Tensors) -> bool:
    """Whether codes are columns [D, K]: by how many were counted; of a square by what the sums beside it say."""
    rows, columns = vectors.shape
    if counts.size != columns or (rows == columns and not name.endswith("embed")):
        return False
    if rows != columns:
        return True
    sums = _beside(("embed_avg",), name, tensors)
    if sums is None or tensors[sums].shape != vectors.shape:
        return False
    total = _floats(tensors[sums])
    return bool(np.abs(vectors * counts - total).sum() < np.abs(vectors * counts[:, None] - total).sum())


def _counts(words: Sequence[str], name: str, tensors: Tensors, shape: tuple[int, ...]) -> tuple[str | None, Any]:
    """The counts beside a tensor of vectors: [K], or [H, K] of heads."""
    for word in words:
        beside = _beside((word,), name, tensors)
        if beside is None:
            continue
        stored = tensors[beside]
        plain = tuple(n for n in stored.shape if n != 1) or (1,)
        if plain in ((shape[-2],), (shape[-1],)[: len(shape) == 2], shape[:-1]):
            return beside, np.asarray(stored.read(), dtype=np.float64).reshape(plain)
    return None, None


def _beside(words: Sequence[str], name: str, tensors: Tensors) -> str | None:
    return next((s + w for s in _around(name) for w in words if s + w in tensors), None)


def _floats(stored: Stored) -> Array:
    with np.errstate(over="ignore"):  # of float64: what is too large becomes infinite, and is found
        return np.asarray(stored.read(), dtype=np.float32)


# --- by names that the user gives ------------------------------------------------------------------------------------


def _named(tensors: Tensors, names: Sequence[str], vectors: str, usage: str | None) -> Iterator[ForeignCodebook]:
    found = _matching(names, vectors, "--vectors")
    for name, _ in found:
        if not _may_be_vectors(tensors[name]):
            kind = f"{tensors[name].dtype}{list(tensors[name].shape)}"
            raise VqtoolError(f"`{name}` is {kind}: code vectors are floats [K, D] or [groups, K, D]",
                              hint="a pattern that does not match it, such as one that ends with $")  # fmt: skip
    counts = _matching(names, usage, "--usage") if usage is not None else []
    by_groups = {groups: name for name, groups in counts if groups}
    if counts and not by_groups and len(counts) != len(found):
        raise VqtoolError(f"--usage matches {len(counts)} tensors and --vectors {len(found)}",
                          hint="capture in both what distinguishes the codebooks: 'layers.(\\d+).embed'")  # fmt: skip
    for number, (name, groups) in enumerate(found):
        own = by_groups.get(groups) if by_groups else counts[number][0] if counts else None
        copy = dict(tensors)
        if own is not None:
            copy[f"{_around(name)[0]}?"] = tensors[own]
        for book in _read(Rule("named", "", (), ("?",)), name, copy):
            if own is not None and book.counts is None:
                raise VqtoolError(f"`{own}` is {list(tensors[own].shape)}, which are not counts of `{name}` "
                                  f"{list(tensors[name].shape)}", hint="counts are [K]")  # fmt: skip
            yield book


def _matching(names: Sequence[str], pattern: str, option: str) -> list[tuple[str, tuple[Any, ...]]]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise VqtoolError(f"{option} is not a regular expression: {error}") from error
    found = [(name, m.groups()) for name in names if (m := compiled.search(name))]
    if not found:
        raise VqtoolError(f"{option} '{pattern}' matches none of the {len(names)} tensors",
                          hint="vqtool show FILE lists their names")  # fmt: skip
    return found
