"""The run directory, on a local disk or any object storage fsspec speaks: get, list, create-only put.

Never a rename and never a delete: the commit of a part is one create-only put (`If-None-Match: *` on object storage,
a temporary file and `link` locally), so a part is whole or absent, and the first attempt wins.
"""

import errno
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Store:
    """Objects under one root. Keys are POSIX paths relative to it."""

    def __init__(self, root: str, storage_options: Mapping[str, Any] | None = None) -> None:
        """`root`: a local path or an fsspec URL; `storage_options` go to the file system as they are."""
        self.storage_options = dict(storage_options or {})
        self.fs, path = fsspec.url_to_fs(root, **self.storage_options)
        self.root = str(path).rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self.url = self.root if self.local else self.fs.unstrip_protocol(self.root)

    def path(self, key: str) -> str:
        """Where `key` lies, as its file system spells it."""
        return f"{self.root}/{key}"

    def get(self, key: str) -> bytes:
        """The whole object. FileNotFoundError when there is none."""
        return bytes(self.fs.cat_file(self.path(key)))

    def find(self, folder: str) -> list[str]:
        """The names directly under `folder`, sorted; empty when it does not exist."""
        # A listing cached by fsspec would hide what other writers have committed since.
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return sorted(name for name in names if not name.startswith(".tmp-"))

    def create(self, key: str, data: bytes) -> bool:
        """Put `data` at `key` unless something is there. True when this call wrote it."""
        if self.local:
            return _link_new(Path(self.path(key)), data)
        try:
            self.fs.pipe_file(self.path(key), data, mode="create")
        except FileExistsError:
            return False
        except OSError as fault:
            # s3fs gives a 412 whose body does not name the condition as EINVAL.
            if fault.errno != errno.EINVAL or not self.fs.exists(self.path(key)):
                raise
            return False
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Put `data` at `key` whatever is there: for summaries (run.json, README.md, heartbeat/) only."""
        if not self.local:
            self.fs.pipe_file(self.path(key), data)
            return
        path = Path(self.path(key))
        os.replace(_write_beside(path, data), path)


def _write_beside(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _link_new(path: Path, data: bytes) -> bool:
    temporary = _write_beside(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True
