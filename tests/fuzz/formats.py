"""Damage that knows a format: something inside is changed, and lengths, checksums and packing are made to fit."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pandas as pd

from tests.fuzz.raw import BYTES, DEEP, JUNK, LONG, Mutator, cells, changed_json, json_lines, json_text, lines

SHAPES = ("(1000000000000,)", "(1099511627776, 1099511627776)", "(-1,)", "()", "(0,)", "(0, 32)", "(3,)", "(2, 1, 8)",
          "(4000000000, 32)", "None", f"({LONG},)", "(" * 3000, "(1,) * 3")  # fmt: skip
KINDS = ("<c8", "<c16", "<M8[s]", "<m8[s]", "|O", "|S8", "<U5", "|V8", ">f8", "<f2", "|b1", "<i8", "<u8", "|u1", "x")
ZEROS = bytes(2**24)
DTYPES = ("c8", "M8[s]", "m8[s]", "O", "S4", "U3", "f2", "f8", "i8", "u1", "?", "V4")


def npy(content: bytes, rng: Random) -> bytes:
    """The header of an array changed: its type, its shape, its order."""
    if content[:6] != b"\x93NUMPY":
        return rng.choice(BYTES)(content, rng)
    size = struct.unpack_from("<H", content, 8)[0]
    head, data = content[10 : 10 + size].decode("latin-1").rstrip(), content[10 + size :]
    kind = head.split("'descr': ")[1].split(", 'fortran")[0]
    shape = head.split("'shape': ")[1].rsplit(", }", 1)[0]
    how = rng.randrange(4)
    if how == 0:
        head = head.replace(shape, rng.choice(SHAPES))
    elif how == 1:
        head = head.replace(kind, repr(rng.choice(KINDS)))
    elif how == 2:
        head = rng.choice((head.replace("False", "True"), head[:-9], "{" * 2000, "[" * DEEP, head.replace("'", "")))
    else:
        head = head.replace(kind, rng.choice(("[('a', '<f4'), ('b', '<f8')]", "3", "'<f4', 'x': 1", "('<f4', (8,))")))
    text = head.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(text), 65535)) + text + data


def member(content: bytes, rng: Random) -> bytes:
    """One array of an npz damaged, in a zip that is whole; or arrays dropped, renamed, repeated or exchanged."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name, other = rng.choice(list(parts)), rng.choice(list(parts))
    how = rng.randrange(8)
    if how < 3:
        parts[name] = npy(parts[name], rng)
    elif how == 3:
        parts[name] = rng.choice(BYTES)(parts[name], rng)
    elif how == 4:
        del parts[name]
    elif how == 5:
        parts[name], parts[other] = parts[other], parts[name]
    elif how == 6:
        parts[name] = bytes_of(strange(np.load(io.BytesIO(parts[name])), rng))
    else:
        parts[rng.choice(("x\x1b[31m.npy", "a/../../b.npy", "x.txt", "x" * 300 + ".npy"))] = parts.pop(name)
    packed = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packed) as archive:
        for key, value in parts.items():
            archive.writestr(key, value)
    return made.getvalue()


def bomb(content: bytes, rng: Random) -> bytes:
    """An npz with an array of two gigabytes of zeros, in two megabytes of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(parts))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (2**24, 32)})
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = coder.compress(head.getvalue()) + coder.flush(zlib.Z_FULL_FLUSH)
    block = coder.compress(ZEROS) + coder.flush(zlib.Z_FULL_FLUSH)  # which may be repeated as it is
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for key, value in parts.items():
            info = zipfile.ZipInfo(key)
            archive.writestr(info, begin + block * 128 + b"\x03\x00" if key == name else value)
            if key == name:
                info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(head.getvalue()) + 128 * len(ZEROS)
    return made.getvalue()


def strange(array: np.ndarray, rng: Random) -> np.ndarray:
    """The array with values or a type that make no sense of it."""
    how = rng.randrange(6)
    if how == 0:
        return array.astype(rng.choice(DTYPES), copy=True) if array.dtype.kind in "fiu" else array[:0]
    if how == 1:
        return np.full(array.shape, rng.choice((np.nan, np.inf, -1e300, 1e300, 0.0, -1.0)))
    if how == 2:
        return array[: rng.randrange(3)]
    if how == 3:
        return array[None] if rng.random() < 0.5 else array.ravel()
    if how == 4:
        return np.asarray(array.flat[0]) if array.size else array
    made = np.asarray(array).copy()
    if made.size and made.dtype.kind == "f":
        made.flat[rng.randrange(made.size)] = rng.choice((np.nan, np.inf, 3e38))
    return made


def bytes_of(array: np.ndarray) -> bytes:
    """The array as an .npy file; objects as a pickle, which no reader may run."""
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


def packed(content: bytes, rng: Random) -> bytes:
    """Something in a gzip file changed."""
    inner = gzip.decompress(content)
    if rng.random() < 0.1:  # three gigabytes of zeros follow
        return gzip.compress(inner) + gzip.compress(ZEROS, 9) * 192
    return gzip.compress(rng.choice(BYTES)(inner, rng), 1)


def tensors(content: bytes, rng: Random) -> bytes:
    """The header of a safetensors file changed: metadata, shapes, types, offsets; or the numbers themselves."""
    size = struct.unpack_from("<Q", content)[0]
    head, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    how = rng.randrange(6)
    if how < 3 and "__metadata__" in head:
        key = rng.choice(list(head["__metadata__"]))
        text = head["__metadata__"][key]
        try:
            head["__metadata__"][key] = changed_json(json.loads(text), rng)
        except ValueError:
            head["__metadata__"][key] = rng.choice((cells(text.encode(), rng).decode(), *JUNK[:-1]))
        text = json.dumps(head)
    elif how == 3:
        name = rng.choice([n for n in head if n != "__metadata__"])
        block = np.frombuffer(data, np.uint8).copy()
        low, high = head[name]["data_offsets"]
        block[low:high] = rng.choice((0, 255, rng.randrange(256)))
        text, data = json.dumps(head), block.tobytes()
    elif how == 4:
        name = rng.choice([n for n in head if n != "__metadata__"])
        shape = head[name]["shape"]
        kind = rng.choice(("F16", "F64", "I64", "BF16", "U8", "BOOL", "C64"))
        changed = ((shape[::-1], "F32"), ([10**9, 10**9], "F32"), (shape, kind), ([*shape, 1], head[name]["dtype"]))
        head[name]["shape"], head[name]["dtype"] = rng.choice(changed)
        text = json.dumps(head)
    else:
        text = changed_json(head, rng)
    made = text.encode("utf-8", "replace")
    return struct.pack("<Q", len(made)) + made + data


def vqc(content: bytes, rng: Random) -> bytes:
    """A .vqc file with its header or payload changed and a checksum that fits."""
    body = rng.choice(BYTES)(content[:-4], rng)
    if rng.random() < 0.3:
        at = rng.choice((18, 14, 10, 8, 5, 6, 7, 34))
        body = content[:at] + rng.choice((b"\xff\xff\xff\x7f", bytes(4), b"\x00\x00\xc0\x7f")) + content[at + 4 : -4]
    return body + struct.pack("<I", zlib.crc32(body))


def hdf5(content: bytes, rng: Random) -> bytes:
    """A SeisBench file of waveforms with other types, shapes, orders and links."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.hdf5"
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            _changed(file, rng)
        return path.read_bytes()


def _changed(file: h5py.File, rng: Random) -> None:
    names = [f"data/{name}" for name in file["data"]]
    name, how = rng.choice(names), rng.randrange(9)
    if how in (0, 1, 2, 6):
        array = file[name][()]
        del file[name]
    if how == 0:
        file[name] = array.astype(rng.choice(("c8", "S4", "i1", "f8", "f2", "u1")))
    elif how == 1:
        shape = rng.choice(((10**9, 3, 3000), (20, 3, 10**11), (2**40,), (20,), (), (20, 3, 1), (0, 3, 3000)))
        file.create_dataset(
            name, shape, "f4", chunks=tuple(min(n, 64) for n in shape) if all(shape) and shape else None
        )
    elif how == 2:
        file.create_group(name)
    elif how == 3:
        del file[rng.choice((name, "data", "data_format"))]
    elif how in (4, 5):
        key = rng.choice(list(file["data_format"]))
        del file[f"data_format/{key}"]
        value = rng.choice(
            ("", "ZZZ", "CN", "W", "é" * 50, -1.0, 0, np.nan, np.arange(4), b"\xff\xfe", "ZNEZNE", "NCWW")
        )
        file[f"data_format/{key}"] = value
    elif how == 6:
        file[name] = rng.choice((h5py.SoftLink("/nowhere"), h5py.SoftLink(f"/{name}"),
                                 h5py.ExternalLink("other.hdf5", "/data"), np.dtype("f4")))  # fmt: skip
    elif how == 7:
        file[name][...] = rng.choice((np.nan, np.inf, 3e38, 0))
    else:
        del file["data"]
        file["data"] = np.arange(5.0)


def parquet(content: bytes, rng: Random) -> bytes:
    """A table whose columns have names and types of every kind."""
    table = pd.read_parquet(io.BytesIO(content))
    at = rng.randrange(table.shape[1])
    name, n, how = table.columns[at], len(table), rng.randrange(8)
    values = {
        0: lambda: [[1, 2]] * n,
        1: lambda: [b"\xff\x00"] * n,
        2: lambda: pd.to_timedelta(np.arange(n), unit="s"),
        3: lambda: pd.date_range("1700-01-01", periods=n, freq="h"),
        4: lambda: [{"a": 1}] * n,
        5: lambda: [rng.choice((None, np.nan, 1e302, -np.inf))] * n,
        6: lambda: [rng.choice(JUNK[:-2])] * n,
    }
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = io.BytesIO()
    if how in values:
        table[name] = values[how]()
        arrow = pa.Table.from_pandas(table, preserve_index=rng.random() < 0.3)
    else:
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        arrow = arrow.rename_columns([rng.choice(arrow.column_names) for _ in arrow.column_names])
    pq.write_table(arrow, made)
    return made.getvalue()


def toml(content: bytes, rng: Random) -> bytes:
    """A recipe with a value, a key or a table of another kind."""
    parts = content.decode().split("\n")
    at = rng.choice([i for i, line in enumerate(parts) if "=" in line] or [0])
    key = parts[at].split("=")[0]
    deep = rng.choice((500, DEEP))
    value = rng.choice((LONG, "[" * deep + "]" * deep, "{a=" * deep + "1" + "}" * deep, "-1", "1e999", "nan", "''",
                        "1979-05-27", "[]", "{}", "true", '"../../x"', '"\\u0000"', "9" * 40, "0x" + "f" * 5000,
                        '"\\u001b[31m"', "2.5", "[1, [2, [3]]]", '"' + "x" * 100_000 + '"'))  # fmt: skip
    how = rng.randrange(5)
    if how < 3:
        parts[at] = f"{key}= {value}"
    elif how == 3:
        parts.insert(at, ".".join(["a"] * rng.choice((3, 500, DEEP))) + f" = {value}")
    else:
        parts.insert(at, rng.choice(("[data]", "[[data]]", "[stage]", "[a" + ".a" * 3000 + "]", "[quantizer.kind]")))
    return "\n".join(parts).encode()


def xml(content: bytes, rng: Random) -> bytes:
    """An XML file with entities that grow, or elements nested without end."""
    head, mark, rest = content.partition(b"?>")
    if rng.random() < 0.5:
        grow = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(9))
        entities = f'<!DOCTYPE q [<!ENTITY a0 "0123456789">{grow}]>'
        return head + mark + entities.encode() + rest.replace(b">P<", b">&a9;<")
    return head + mark + b"<a>" * DEEP + rest + b"</a>" * DEEP


FORMATS: dict[str, tuple[Mutator, ...]] = {
    "npy": (npy, npy, *BYTES[:5]),
    "npz": (member, member, member, member, bomb, *BYTES[:5]),
    "table": (cells, cells, cells, lines, lines, *BYTES[:4]),
    "parquet": (parquet, parquet, *BYTES),
    "hdf5": (hdf5, hdf5, *BYTES),
    "bytes": BYTES,
    "gzip": (packed, packed, packed, *BYTES[:5]),
    "xml": (xml, cells, cells, lines, *BYTES[:4]),
    "toml": (toml, toml, toml, cells, lines, *BYTES[:4]),
    "json": (json_text, json_text, json_text, *BYTES[:4]),
    "jsonl": (json_lines, json_lines, json_lines, lines, *BYTES[:4]),
    "safetensors": (tensors, tensors, tensors, tensors, *BYTES[:5]),
    "vqc": (vqc, vqc, vqc, *BYTES[:4]),
}
