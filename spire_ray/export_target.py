"""Where an export goes: a file, or a folder of parts; on a local disk either appears whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from spire_ray.errors import UserError
from spire_ray.locations import locate, patiently

Put = Callable[[Path, str], None]  # a finished file of this machine, and its name in the target


@contextmanager
def new_file(target: str, storage_options: Mapping[str, Any]) -> Iterator[Path]:
    """A local file to write, that becomes `target` (a path or URL) when the block ends well. UserError if it exists."""
    fs, path, folder = _new(target, storage_options)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as temporary:
        whole = Path(temporary) / "export"
        yield whole
        if folder is not None:
            _link(whole, path, target)
        else:
            patiently(target, lambda: fs.put_file(str(whole), path))


@contextmanager
def new_folder(target: str, storage_options: Mapping[str, Any]) -> Iterator[tuple[Path, Put]]:
    """A local folder for one part at a time, and what puts a finished part there under its name.

    On a local disk the target appears when the block ends well; in object storage part by part, so that what is put
    last is the sign of the end. UserError if it exists.
    """
    fs, path, folder = _new(target.rstrip("/"), storage_options)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as temporary:
        whole = Path(temporary) / "export"
        work = Path(temporary) / "part"
        whole.mkdir()
        work.mkdir()

        def put(file: Path, name: str) -> None:
            if folder is not None:
                (whole / name).parent.mkdir(exist_ok=True)
                file.rename(whole / name)
                return
            patiently(f"{target}/{name}", lambda: fs.put_file(str(file), f"{path}/{name}"))
            file.unlink()

        yield work, put
        if folder is not None:
            if os.path.lexists(path):  # a rename would take the place of an empty folder
                raise _exists(target)
            whole.rename(path)


def _link(whole: Path, path: str, target: str) -> None:
    # Not a rename, which would take the place of what has come there since the beginning.
    try:
        os.link(whole, path)
    except FileExistsError:
        raise _exists(target) from None


def _exists(target: str) -> UserError:
    return UserError(f"{target} exists: name a new one")


def _new(target: str, storage_options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str, Path | None]:
    """The file system, the path, and the local folder that it will lie in; None in object storage."""
    fs, path = locate(target, storage_options)
    if fs.exists(path):
        raise _exists(target)
    if not isinstance(fs, LocalFileSystem):
        return fs, path, None
    folder = Path(path).parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written")
    return fs, path, folder
