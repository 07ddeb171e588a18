"""Small valid files of every kind that vqtool reads, the commands that read them, and tiny models to read them with."""

from __future__ import annotations

import csv
import gzip
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.cli.run import within
from tests.forecast import tiny as series
from tests.seismic.conftest import lines_of, motion, write_chunk
from tests.semcom.conftest import columns as pictures
from tests.speech import sounds
from tests.training.tiny import write_recipe
from tests.voltage.conftest import winding

PARTS = """
[encoder]
kind = "conv1d"
dim = 4
width = 4
strides = [4, 4]
[quantizer]
kind = "ema"
codebook_size = 8
[decoder]
kind = "conv1d"
width = 4
[train]
batch = 4
steps = {steps}
[[stage]]
name = "tokenizer"
task = "autoencode"
losses = {{ mse = 1.0, commitment = 0.25 }}
"""
LINK = """
[quantizer]
kind = "soft-ema"
codebook_size = 8
[channel]
kind = "awgn"
[classifier]
kind = "linear"
[train]
batch = 8
steps = 1
[[stage]]
name = "link"
task = "classify"
losses = { cross-entropy = 1.0, commitment = 0.25 }
"""
MODELS = {  # name -> the table [data], and the parts
    "voltage": ('kind = "magnet"\npath = "voltage.npz"\nconditions = []', PARTS),
    "miniseed": ('kind = "miniseed"\npath = "records"\nwindow = 256\nlevel = 4.0\nsplit = "trace"', PARTS),
    "seisbench": ('kind = "seisbench"\npath = "set"\nwindow = 256\nlevel = 4.0', PARTS),
    "images": ('kind = "labelled-images"\npath = "pictures.npz"',
               '[encoder]\nkind = "conv2d"\ntokens = 2\ndim = 2\nwidths = [4, 4]\nfeatures = 8' + LINK),
    "unlabelled": ('kind = "images"\npath = "shapes"',
                   '[encoder]\nkind = "conv2d"\ngrid = true\ndim = 2\nwidths = [4, 4]\n[quantizer]\nkind = "ema"\n'
                   'codebook_size = 8\n[decoder]\nkind = "conv2d"\nwidths = [4, 4]\n[train]\nbatch = 4\n[[stage]]\n'
                   'name = "tokenizer"\ntask = "autoencode"\nsteps = 1\nlosses = { mse = 1.0 }'),
    "latents": ('kind = "latents"\npath = "arrays/z.npy"\nlayout = "NTD"',
                '[encoder]\nkind = "identity"\n[quantizer]\nkind = "ema"\ncodebook_size = 8\n'
                '[decoder]\nkind = "identity"\n[[stage]]\nname = "quantizer"\ntask = "autoencode"\nsteps = 2\n'
                'losses = { mse = 1.0 }'),
    "any": ('kind = "synthetic-series"\npath = "series.csv"\nsynthetic = 0\nown = 16\nvalid = 8\nhorizon = 12',
            '[regressor]\nkind = "step-mlp"\nwidth = 8\n[train]\nbatch = 4\n[[stage]]\nname = "quantiles"\n'
            'task = "any-series-quantiles"\nsteps = 1\nlosses = { pinball = 1.0 }'),
    "sentences": ('kind = "labelled-sentences"\npath = "sentences"\nlength = 16',
                  '[encoder]\nkind = "ngrams"\ntokens = 2\ndim = 2\nwidth = 2\nbuckets = 64\nlongest = 2' + LINK),
}  # fmt: skip
FORECASTER = """
[regressor]
kind = "mlp"
width = 8
[train]
batch = 16
steps = 2
[[stage]]
name = "tokenizer"
task = "autoencode"
losses = { mse = 1.0, commitment = 0.25 }
[[stage]]
name = "direct"
task = "forecast-direct"
losses = { mse = 1.0, pinball = 1.0 }
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """Files that are read together: `file`, below `folder`, is damaged, and each command is one that reads it.

    In a command `{dir}` is the copy of the folder, `{file}` the damaged file, `{seeds}` where all seeds are.
    """

    name: str
    folder: str
    file: str
    form: str  # of `formats.FORMATS`
    commands: tuple[str, ...]


def check(recipe: str, option: str = "path", what: str = "{file}") -> str:
    """The command that reads data as training does."""
    return f"check {{seeds}}/{recipe}.toml --dry-run -s data.{option}={what}"


ENCODE = "encode {{seeds}}/{}/best.safetensors {} --force --out {{dir}}.out{}".format
TRANSMIT = "transmit {{seeds}}/{}/best.safetensors {} --snr 6".format
IMPROVE = "improve {seeds}/latents/best.safetensors --latents {file} --layout NTD --force --out {dir}.o.safetensors"
FORECAST = "forecast {seeds}/series/direct.safetensors --data {file} --steps 6 --force --out {dir}.out.csv"
FORECAST_ANY = "forecast forecaster --data {file} --steps 6 --force --out {dir}.out.csv"
SEISMIC = (check("miniseed", what="{dir}"), ENCODE("miniseed", "{file}", ".csv"), ENCODE("miniseed", "{dir}", ".npz"))
SET = (check("seisbench", what="{dir}"), ENCODE("miniseed", "{dir}", ".npz"))
CHECKPOINT = ("show {file}", "diagnose {file}", "evaluate {file}", ENCODE("tiny", "{seeds}/signals.npz", ".st").replace(
    "{seeds}/tiny/best.safetensors", "{file}"))  # fmt: skip
RUN = ("show {dir}", "diagnose {dir}", "evaluate {dir}")
KINDS = (
    Kind("npy", "arrays", "a.npy", "npy", (check("tiny"), ENCODE("tiny", "{file}", ".st"))),
    Kind("npz", "arrays", "a.npz", "npz", (check("tiny"), ENCODE("tiny", "{file}", ".st"))),
    Kind("npy of latents", "arrays", "z.npy", "npy",
         (check("latents"), IMPROVE)),
    Kind("npz of voltages", "arrays", "v.npz", "npz", (check("voltage"), ENCODE("voltage", "{file}", ".st"))),
    Kind("npz of pictures", "arrays", "p.npz", "npz", (check("images"), TRANSMIT("images", "{file}"))),
    Kind("cifar", "cifar", "data_batch_1.bin", "bytes", (check("images", what="{dir}"),)),
    Kind("idx", "idx", "train-images-idx3-ubyte.gz", "gzip", (check("images", what="{dir}"),)),
    Kind("idx of labels", "idx", "t10k-labels-idx1-ubyte", "bytes", (check("images", what="{dir}"),)),
    Kind("png", "shapes", "bar/00.png", "bytes", (check("images", what="{dir}"),)),
    Kind("jpeg", "shapes", "dot/01.jpg", "bytes", (check("images", what="{dir}"),)),
    Kind("png without a label", "shapes", "bar/00.png", "bytes", (check("unlabelled", what="{dir}"),)),
    Kind("csv of sentences", "sentences_csv", "reviews.csv", "table", (check("sentences"),)),
    Kind("tsv of sentences", "sentences_csv", "train.tsv", "table", (check("sentences", what="{dir}"),)),
    Kind("sentences", "sentences", "train.txt", "table",
         (check("sentences", what="{dir}"), TRANSMIT("link", "{file}"))),
    Kind("csv", "tables", "wide.csv", "table", (check("series"), FORECAST, ENCODE("series", "{file}", ".st"))),
    Kind("csv of any series", "tables", "wide.csv", "table", (check("any"), FORECAST_ANY)),
    Kind("csv, long", "tables", "long.csv", "table", (check("series"), FORECAST)),
    Kind("csv, packed", "tables", "wide.csv.gz", "gzip", (check("series"), FORECAST)),
    Kind("parquet", "tables", "long.parquet", "parquet", (check("series"), FORECAST)),
    Kind("miniseed", "records", "a.mseed", "bytes", SEISMIC),
    Kind("sac", "records", "a.sac", "bytes", SEISMIC),
    Kind("quakeml", "picks", "picks.xml", "xml", (check("miniseed", "picks"),)),
    Kind("csv of picks", "picks", "picks.csv", "table", (check("miniseed", "picks"),)),
    Kind("hdf5", "set", "waveforms.hdf5", "hdf5", SET),
    Kind("csv of metadata", "set", "metadata.csv", "table", SET),
    Kind("wav", "clips", "0.wav", "bytes", (check("codec", what="{dir}"), ENCODE("codec", "{file}", ".vqc"))),
    Kind("flac", "clips", "1.flac", "bytes", (check("codec", what="{dir}"), ENCODE("codec", "{file}", ".vqc"))),
    Kind("vqc", "vqc", "a.vqc", "vqc",
         ("decode {seeds}/codec/best.safetensors {file} --force --out {dir}.out.wav", "show {file}")),
    Kind("vqc stream", "streams", "a.vqc", "bytes",
         ("decode {seeds}/causal/run/best.safetensors {file} --force --out {dir}.out.wav", "show {file}")),
    Kind("codes", "codes", "a.st", "safetensors",
         ("decode {seeds}/tiny/best.safetensors {file} --force --out {dir}.o.npz",)),
    Kind("recipe", ".", "tiny.toml", "toml", ("check {file}", "check {file} --dry-run")),
    Kind("checkpoint", "tiny", "best.safetensors", "safetensors", CHECKPOINT),
    Kind("resolved.json", "tiny", "resolved.json", "json", (*RUN, "resume {dir}")),
    Kind("metrics.jsonl", "tiny", "metrics.jsonl", "jsonl", (*RUN, "resume {dir}")),
    Kind("resume.safetensors", "tiny", "resume.safetensors", "safetensors", ("resume {dir}",)),
    Kind("summary.json", "series", "summary.json", "json", RUN),
    Kind("environment.json", "series", "environment.json", "json", RUN),
)  # fmt: skip


def models(root: Path) -> None:
    """All seeds, and a trained model for each kind of data, below `root`."""
    write_recipe(root, prior=True)
    series.frame(300).to_csv(root / "series.csv", index=False)
    begun = series.RECIPE.format(data="").partition("[train]")[0]
    (root / "series.toml").write_text(begun + FORECASTER)
    recipe = sounds.recipe(root, clips=6, steps=1)
    text = recipe.read_text().replace("held_out = 3", "held_out = 2")
    recipe.write_text(text.replace("mse = 1e3, l1 = 1.0, stft = 0.1, mel = 0.1,", "mse = 1e3,"))
    soundfile.write(root / "clips" / "1.flac", sounds.voice(0.9, 8000), 8000)
    (root / "clips" / "1.wav").unlink()
    np.savez(root / "voltage.npz", **winding())
    np.savez(root / "pictures.npz", **pictures(40, 12))
    for write in (arrays, tables, seismograms, idx, cifar, shapes, sentences, sentence_tables):
        write(root)
    for name, (data, parts) in MODELS.items():
        (root / f"{name}.toml").write_text(f"[data]\n{data}\n" + (parts.format(steps=1) if parts is PARTS else parts))
    run("train", root / "tiny.toml", "-o", root / "tiny", "--stage", "tokenizer", "-q", "-s", "stage.tokenizer.steps=5")
    run("train", root / "series.toml", "-o", root / "series", "-q")
    for name in ("codec", "voltage", "miniseed", "latents", "images"):
        run("train", root / f"{name}.toml", "-o", root / name, "-q")
    run("train", root / "sentences.toml", "-o", root / "link", "-q")  # `sentences` is the folder of the data
    for folder in ("vqc", "codes", "streams"):
        (root / folder).mkdir()
    stream(root)
    run("encode", root / "codec" / "best.safetensors", root / "clips" / "0.wav", "--out", root / "vqc" / "a.vqc")
    run("encode", root / "tiny" / "best.safetensors", root / "signals.npz", "--out", root / "codes" / "a.st")


def stream(root: Path) -> None:
    """A codec that sees no later sample, and codes that it wrote while the sound came."""
    (root / "causal").mkdir()
    recipe = sounds.convolutions(root / "causal", causal=True, activation="elu", steps=1)
    run("train", recipe, "-o", root / "causal" / "run", "-q")
    model = str(root / "causal" / "run" / "best.safetensors")
    command = [sys.executable, "-m", "vqtool", "encode", model, "-", "--out", str(root / "streams" / "a.vqc")]
    subprocess.run(command, input=(root / "clips" / "0.wav").read_bytes(), check=True, capture_output=True)


def run(*arguments: object) -> None:
    """A command that must succeed."""
    done = within(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"


def arrays(root: Path) -> None:
    """`arrays/`: .npy and .npz."""
    folder = root / "arrays"
    folder.mkdir()
    x = np.sin(np.arange(30)[:, None] + np.arange(32) * 0.4).astype(np.float32)
    np.save(folder / "a.npy", x)
    np.save(folder / "z.npy", np.random.default_rng(0).normal(size=(12, 40, 4)).astype(np.float32))
    np.savez(folder / "a.npz", x=x)
    np.savez(folder / "v.npz", **winding())
    np.savez_compressed(folder / "p.npz", **pictures(40, 12))


def tables(root: Path) -> None:
    """`tables/`: a wide and a long CSV file, and a Parquet file."""
    folder = root / "tables"
    folder.mkdir()
    wide = series.frame(300)
    wide.to_csv(folder / "wide.csv", index=False)
    wide.to_csv(folder / "wide.csv.gz", index=False)
    series.long(wide).to_csv(folder / "long.csv", index=False)
    series.long(wide).to_parquet(folder / "long.parquet", index=False)


def seismograms(root: Path) -> None:
    """`records/`: miniSEED and SAC; `picks/`: QuakeML and a table; `set/`: a SeisBench folder."""
    from obspy import Stream, Trace, UTCDateTime
    from obspy.core.event import Catalog, Event, Pick, WaveformStreamID

    for name in ("records", "picks"):
        (root / name).mkdir()
    start = UTCDateTime("2014-04-01")

    def stream(seed: int, station: str) -> Stream:
        head = {"network": "XX", "station": station, "sampling_rate": 100.0, "starttime": start}
        return Stream([Trace(row.astype(np.int32), head | {"channel": f"HH{letter}"})
                       for letter, row in zip("ZNE", motion(seed, 2000, 600, 800), strict=True)])  # fmt: skip

    for seed, station in enumerate("ABCDE"):
        whole = stream(seed, station * 3)
        whole.write(str(root / "records" / f"{station.lower()}.mseed"), format="MSEED", reclen=512)
    for code, trace in zip("abc", stream(9, "SSS"), strict=True):
        trace.write(str(root / "records" / f"{code}.sac"), format="SAC")
    rows = [("XX.AAA", "P", start + 6), ("XX.AAA", "S", start + 8), ("XX.BBB", "P", start + 6)]
    picks = [Pick(time=time, phase_hint=phase, waveform_id=WaveformStreamID(*station.split(".")))
             for station, phase, time in rows]  # fmt: skip
    Catalog([Event(picks=picks)]).write(str(root / "picks" / "picks.xml"), format="QUAKEML")
    with (root / "picks" / "picks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["station_id", "phase_time", "phase_type"])
        writer.writerows([station, str(time), phase] for station, phase, time in rows)
    waves = np.stack([motion(i, 1000, 300, 400) for i in range(8)])
    write_chunk(root / "set", {"bucket0": waves}, lines_of(8, 1, samples=1000))


def idx(root: Path) -> None:
    """`idx/`: the four files of MNIST's kin."""
    folder = root / "idx"
    folder.mkdir()
    found = pictures(40, 12)

    def packed(array: np.ndarray) -> bytes:
        return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()

    for part, name in (("train", "train"), ("test", "t10k")):
        for what, kind in (("images", "images-idx3"), ("labels", "labels-idx1")):
            content = packed(found[f"{part}_{what}"])
            zipped = name == "train"
            path = folder / f"{name}-{kind}-ubyte{'.gz' * zipped}"
            path.write_bytes(gzip.compress(content) if zipped else content)


def cifar(root: Path) -> None:
    """`cifar/`: two files of the binary version."""
    (root / "cifar").mkdir()
    made = np.random.default_rng(0).integers(0, 256, (40, 3073)).astype(np.uint8)
    made[:, 0] = np.arange(40) % 4
    for name, rows in (("data_batch_1", made), ("test_batch", made[:12])):
        rows.tofile(root / "cifar" / f"{name}.bin")


def shapes(root: Path) -> None:
    """`shapes/`: two folders of small pictures."""
    for k, picture in enumerate(pictures(40, 12)["train_images"]):
        name, suffix = (("bar", "png"), ("dot", "jpg"))[k % 2]
        (root / "shapes" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / "shapes" / name / f"{k:02}.{suffix}")


def sentence_tables(root: Path) -> None:
    """`sentences_csv/`: tables of texts and labels."""
    folder = root / "sentences_csv"
    folder.mkdir()
    rows = [["review", "label"], *[[f"{'good' if i % 2 else 'bad'} film, number {i}", i % 2] for i in range(40)]]
    for name, dialect in (("reviews.csv", "excel"), ("train.tsv", "excel-tab")):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file, dialect).writerows(rows)


def sentences(root: Path) -> None:
    """`sentences/`: train.txt, dev.txt and test.txt."""
    folder = root / "sentences"
    folder.mkdir()
    for name, count in (("train", 30), ("dev", 4), ("test", 6)):
        lines = [f"{i % 2} {'good' if i % 2 else 'bad'} film number {i}" for i in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
