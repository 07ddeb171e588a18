"""A neural speech codec: audio files, spectral losses, codec metrics, plain baselines and a container for the codes."""

from pathlib import Path

from vqtool.catalog import Component, FileFormat, Pretrained, hookimpl, scan


@hookimpl
def vqtool_components() -> list[Component]:
    """Everything in this package, found by file name; imports none of it."""
    folders = (("data", "data"), ("losses", "loss"), ("metrics", "metric"), ("baselines", "baseline"))
    return [part for folder, role in folders for part in scan(f"vqtool_speech.{folder}", role=role)]


@hookimpl
def vqtool_pretrained() -> list[Pretrained]:
    """The speech codec."""
    folder = Path(__file__).parent / "pretrained"
    return [Pretrained("codec", folder / "codec.safetensors", folder / "finetune.toml")]


@hookimpl
def vqtool_file_formats() -> list[FileFormat]:
    """Codes of sounds, as files and as streams."""
    return [FileFormat(b"VQC", "vqtool_speech.shown:what_is_in")]
