"""Pictures as a gif (Pillow) or an mp4 (ffmpeg, where there is one), written as they are made."""

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from smz_jax.config.check import ConfigError, require
from smz_jax.storage.run_dir import can_write

MAX_GIF_RATE = 50.0
"""Pictures in a second: browsers slow down what is faster."""


def check_video(path: Path) -> None:
    """Raises ConfigError in one line unless a video can be written to `path`."""
    kind = path.suffix.lower()
    require(kind in (".gif", ".mp4"), "out", str(path), "a file that ends in .gif or .mp4")
    require(not path.is_dir(), "out", str(path), "a file, not a folder")
    parent = path.absolute().parent
    good = parent.is_dir() and can_write(parent)
    require(good, "out", str(path), "in a folder that exists and can be written")
    if kind == ".mp4":
        _ffmpeg()


def write_video(path: Path, pictures: Iterator[Image.Image], rate: float) -> int:
    """Writes a video of `rate` pictures in a second; it appears at `path` when it is complete.

    The path ends in .gif or .mp4; the pictures are of one size, even for an mp4.

    Returns:
        How many pictures there were; 0: nothing was written.

    Raises:
        ConfigError: as `check_video`, or if ffmpeg gives up.
        OSError: if it cannot be written.
    """
    check_video(path)
    first = next(pictures, None)
    if first is None:
        return 0
    number = itertools.count()
    numbered = zip(itertools.chain([first], pictures), number, strict=False)
    partial = path.absolute().with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix.lower()}")
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    try:
        write(partial, (picture for picture, _ in numbered), first.size, rate)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return next(number)


def _write_gif(path: Path, pictures: Iterator[Image.Image], _: tuple[int, int], rate: float):
    """See `write_video`; pictures of up to 256 colours are kept exactly."""
    few = (picture.convert("P", palette=Image.Palette.ADAPTIVE) for picture in pictures)
    duration = max(10 * round(100 / rate), round(1000 / MAX_GIF_RATE))  # whole hundredths
    next(few).save(path, "GIF", save_all=True, append_images=few, duration=duration, loop=0)


def _write_mp4(path: Path, pictures: Iterator[Image.Image], size: tuple[int, int], rate: float):
    """See `write_video`; H.264 in the form that every browser plays."""
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"{rate}"]
    target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    command = [_ffmpeg(), "-v", "error", "-y", *source, "-i", "-", *target]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # its own message says more
                for picture in pictures:
                    process.stdin.write(picture.tobytes())
                process.stdin.close()
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        if code:
            errors.seek(0)
            text = " ".join(errors.read().decode("utf-8", "replace").split())
            raise ConfigError(f"ffmpeg gave up with code {code}: {text[:300]}; a .gif needs none")


def _ffmpeg() -> str:
    """The program that writes mp4: of the system, or of the package imageio-ffmpeg.

    Raises:
        ConfigError: if there is none.
    """
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg  # pyright: ignore[reportMissingImports]

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise ConfigError(
            "an .mp4 needs ffmpeg, which is not installed: name a .gif in --out, "
            "or run `pip install imageio-ffmpeg`"
        ) from None
