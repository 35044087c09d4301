"""The run directory, on a local disk or any object storage fsspec speaks: get, list, create-only put.

Never a rename and never a delete: the commit of a part is one create-only put (`If-None-Match: *` on object storage,
a temporary file and `link` locally), so a part is whole or absent, and the first attempt wins.
"""

import errno
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

from spire_ray.errors import UserError
from spire_ray.locations import locate, patiently

T = TypeVar("T")


class Store:
    """Objects under one root. Keys are POSIX paths relative to it."""

    def __init__(self, root: str, storage_options: Mapping[str, Any] | None = None) -> None:
        """`root`: a local path or an fsspec URL; `storage_options` go to the file system as they are."""
        self.storage_options = dict(storage_options or {})
        self.fs, path = locate(root, self.storage_options)
        self.root = path.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self.url = self.root if self.local else self.fs.unstrip_protocol(self.root)

    def path(self, key: str) -> str:
        """Where `key` lies, as its file system spells it."""
        return f"{self.root}/{key}"

    def check_writable(self) -> None:
        """UserError when the root is local and cannot be written. Object storage tells at the first put."""
        if not self.local:
            return
        folder = Path(self.root)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{self.root} cannot be written: {folder} is not a folder this user may write to")

    def get(self, key: str) -> bytes:
        """The whole object. FileNotFoundError when there is none; MachineFault if storage refuses or keeps failing."""
        data: bytes = patiently(self._url(key), lambda: self.fs.cat_file(self.path(key)))
        return data

    def find(self, folder: str) -> list[str]:
        """The names directly under `folder`, sorted; empty when it does not exist. MachineFault as in `get`."""
        # A listing cached by fsspec would hide what other writers have committed since.
        self.fs.invalidate_cache()
        try:
            found = patiently(self._url(folder), lambda: self.fs.ls(self.path(folder), detail=False))
        except FileNotFoundError:
            return []
        # Object storage lists the empty object that a console makes for a new folder, as the folder itself.
        paths = {str(path).rstrip("/") for path in found} - {self.path(folder).rstrip("/")}
        names = (path.rpartition("/")[2] for path in paths)
        return sorted(name for name in names if not name.startswith(".tmp-"))

    def create(self, key: str, data: bytes) -> bool:
        """Put `data` at `key` unless something is there. True when this call wrote it. MachineFault as in `get`.

        After a time-out the put is tried again, and then it may be its own first try that it finds: False is not
        always another writer. UserError when the bucket does not exist.
        """
        if self.local:
            return patiently(self._url(key), lambda: _link_new(Path(self.path(key)), data))
        return self._into_bucket(lambda: patiently(self._url(key), lambda: self._put_new(key, data)))

    def _put_new(self, key: str, data: bytes) -> bool:
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

    def _into_bucket(self, put: Callable[[], T]) -> T:
        try:
            return put()
        except FileNotFoundError as fault:
            raise UserError(f"{self.url} cannot be written: {fault}") from fault

    def _url(self, key: str) -> str:
        return f"{self.url}/{key}"

    def replace(self, key: str, data: bytes) -> None:
        """Put `data` at `key` whatever is there: for summaries (run.json, README.md) only."""
        if not self.local:
            self._into_bucket(lambda: patiently(self._url(key), lambda: self.fs.pipe_file(self.path(key), data)))
            return
        path = Path(self.path(key))
        patiently(self._url(key), lambda: os.replace(_write_beside(path, data), path))


def _write_beside(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk is not helped by what was half written
        raise
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
