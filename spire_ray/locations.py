"""Where input lies: local paths and fsspec URLs, and calls to storage that are tried again when the fault may pass."""

import errno
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from spire_ray.errors import MachineFault, RowFault, UserError

ATTEMPTS = 5
FIRST_WAIT_S = 0.5  # doubles each time, with up to as much again at random: about 11 s in all
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
_STORAGE_PACKAGES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure")
_REFUSED_STATUS = (401, 403)

T = TypeVar("T")


def locate(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[AbstractFileSystem, str]:
    """The file system of a local path or URL, and the path on it. UserError for a scheme nothing here speaks."""
    if not URL.match(uri):
        # Not through fsspec, for which `::` in a file name means a chain of file systems.
        return LocalFileSystem(), os.path.abspath(uri)
    try:
        fs, path = fsspec.url_to_fs(uri, **dict(storage_options or {}))
    except (ValueError, ImportError) as fault:
        raise UserError(f"{uri}: {fault}") from None
    return fs, str(path)


def absolute(uri: str) -> str:
    """The same place, wherever it is opened from: a local path becomes absolute, a URL stays."""
    return uri if URL.match(uri) else os.path.abspath(uri)


def uri_of(fs: AbstractFileSystem, path: str) -> str:
    """`path` as others can open it: absolute when local, else a URL."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def etag_of(fs: AbstractFileSystem, info: Mapping[str, Any]) -> str | None:
    """What changes when the object does: its ETag; locally size and modification time (ns); None without either."""
    if isinstance(fs, LocalFileSystem):
        # The listing's time is a float, which does not hold nanoseconds.
        return f"{info['size']}-{os.stat(info['name']).st_mtime_ns}"
    tag = info.get("ETag") or info.get("etag")
    return str(tag).strip('"') if tag else None


def patiently(uri: str, call: Callable[[], T]) -> T:
    """What `call` returns; a fault that may pass is tried again, 5 times in all.

    FileNotFoundError when nothing is there. MachineFault, naming `uri`, when access is refused or the fault stays.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except (RowFault, UserError, MachineFault):
            raise
        except Exception as fault:
            if isinstance(fault, OSError) and fault.errno in _GONE:
                raise FileNotFoundError(fault.errno, fault.strerror or str(fault), uri) from None
            if isinstance(fault, FileNotFoundError) or not _of_storage(fault):
                raise
            if _refused(fault) or attempt == ATTEMPTS - 1:
                raise MachineFault(f"{uri}: {type(fault).__name__}: {fault}") from fault
        time.sleep(FIRST_WAIT_S * 2**attempt * (1 + random.random()))
    raise AssertionError("unreachable")


def _of_storage(fault: Exception) -> bool:
    return isinstance(fault, OSError) or type(fault).__module__.partition(".")[0] in _STORAGE_PACKAGES


def _refused(fault: Exception) -> bool:
    name = type(fault).__name__
    return (
        isinstance(fault, PermissionError)
        or "Credential" in name
        or "Token" in name
        or getattr(fault, "status", None) in _REFUSED_STATUS
    )
