"""Where input lies: local paths and fsspec URLs, and calls to storage that are tried again when the fault may pass.

Storage options are fsspec's. They are handed on as an argument and kept nowhere: credentials come from the environment.
"""

import errno
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from spire_ray.errors import MachineFault, RowFault, UserError

ATTEMPTS = 8  # of one operation, those that an S3 client makes by itself included
S3_CLIENT_ATTEMPTS = 4  # at a request that is answered by 503 or 500, or not at all; bodies that break off it leaves
FIRST_WAIT_S = 1.0  # doubled by each attempt, up to 16 s, with up to as much again at random
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

# fsspec also has schemes that are templates, caches, archives and repositories, and chains of them (`a://b::c://d`):
# a manifest is not to be given any of them.
NO_PLACES = frozenset(
    {"reference", "filecache", "simplecache", "blockcache", "cached", "dir", "generic", "data", "zip", "tar"}
    | {"libarchive", "git", "github", "jupyter", "jlab", "dask"}
)

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
_STORAGE_PACKAGES = ("botocore", "aiobotocore", "aiohttp", "urllib3", "gcsfs", "google", "azure")
_REFUSED_STATUS = (401, 403)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})  # waiting makes no room
_S3_SCHEMES = ("s3", "s3a")
# What botocore raises when no answer came to any of its attempts.
_NO_ANSWER = ("ConnectionClosedError", "ConnectTimeoutError", "EndpointConnectionError", "ReadTimeoutError")
_USERINFO = re.compile(rf"({URL.pattern}[^/@:]*):[^/@]*@")
# fsspec's and botocore's names of credentials, as whole words of an option's name.
_SECRET = re.compile(
    r"(?:^|_)(?:key|secret|token|password|passwd|username|credentials?|sas|connection_string|headers)(?:_|$)"
)
_NO_SECRET = ("anon", "cloud", "google_default")  # values of gcsfs's `token` that name a way, not a token

T = TypeVar("T")


def storage_options(text: str) -> dict[str, Any]:
    """The options for fsspec, from a JSON object. UserError, without a value, when it is none or holds a secret."""
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UserError('--storage-options is no JSON object, like {"endpoint_url": "http://127.0.0.1:9000"}')
    if name := _named_secret(options):
        raise UserError(f"--storage-options holds {name}: credentials come from the environment (AWS_PROFILE and such)")
    return options


def _named_secret(options: Mapping[str, Any]) -> str | None:
    for name, value in options.items():
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_")
        if _SECRET.search(words) and (isinstance(value, dict) or value not in (*_NO_SECRET, None, False)):
            return name
        if isinstance(value, dict) and (inner := _named_secret(value)):
            return inner
        if isinstance(value, str) and _USERINFO.match(value):
            return name
    return None


def locate(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[AbstractFileSystem, str]:
    """The file system of a local path or URL, and the path on it.

    UserError for what `refused_place` refuses and for a scheme nothing here speaks.
    """
    if not URL.match(uri):
        # Not through fsspec, for which `::` in a file name means a chain of file systems.
        return LocalFileSystem(), os.path.abspath(uri)
    if problem := refused_place(uri):
        raise UserError(problem)
    try:
        # Without listings kept: from one of an hour ago fsspec would answer with old sizes and ETags.
        fs, path = fsspec.url_to_fs(uri, **{"use_listings_cache": False, **_once(uri), **(storage_options or {})})
    except (ValueError, ImportError) as fault:
        raise UserError(f"{uri}: {fault}") from None
    if _once(uri):
        fs.retries = 1  # s3fs's own, which multiplied with botocore's and those of `patiently` made 125
    return fs, str(path)


def _once(uri: str) -> dict[str, Any]:
    """Options that leave an S3 client few attempts of its own, which a listing needs page by page."""
    if uri.partition("://")[0].lower() not in _S3_SCHEMES:
        return {}
    retries = {"mode": "standard", "total_max_attempts": S3_CLIENT_ATTEMPTS}
    # One request for an object, not first one for its size: and a whole body is one whose checksum is compared.
    return {"config_kwargs": {"retries": retries}, "max_concurrency": 1}


def refused_place(url: str) -> str | None:
    """Why a URL is not read or written, None when it is. A password would be kept in the plan; it is not repeated."""
    scheme = url.partition("://")[0].lower()
    if scheme in NO_PLACES or "::" in url:
        return f"nothing here reads {scheme}://" + (" in a chain (::)" if "::" in url else "")
    if match := _USERINFO.match(url):
        return f"{match[1]}:...@ holds a password: credentials come from the environment, not from the URL"
    return None


def absolute(uri: str) -> str:
    """The same place, wherever it is opened from: a local path becomes absolute, a URL stays. UserError as `locate`."""
    if not URL.match(uri):
        return os.path.abspath(uri)
    if problem := refused_place(uri):
        raise UserError(problem)
    return uri


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
    """What `call` returns; a fault that may pass is tried again, 8 times in all, an S3 client's own attempts counted.

    FileNotFoundError when nothing is there. MachineFault, naming `uri` and the action, when access is refused, the disk
    is full, or the fault stays.
    """
    tried = 0
    while True:
        try:
            return call()
        except (RowFault, UserError, MachineFault):
            raise
        except Exception as fault:
            if isinstance(fault, OSError) and fault.errno in _GONE:
                raise FileNotFoundError(fault.errno, fault.strerror or str(fault), uri) from None
            if isinstance(fault, FileNotFoundError) or not of_storage(fault):
                raise
            tried += S3_CLIENT_ATTEMPTS if _tried_by_client(fault) else 1
            if _refused(fault) or tried >= ATTEMPTS:
                raise MachineFault(f"{uri}: {_told(fault)}") from fault
        time.sleep(FIRST_WAIT_S * min(2 ** (tried - 1), 16) * (1 + random.random()))


@contextmanager
def room_in(folder: str) -> Iterator[None]:
    """What does not fit onto the disk in this block is a MachineFault that names `folder`."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in _FULL:
            raise
        raise MachineFault(f"{folder}: {os.strerror(fault.errno)}: make room there, or use another folder") from fault


def of_storage(fault: Exception) -> bool:
    """Whether storage, or the way to it, raised this: any OSError, and what its packages raise."""
    return isinstance(fault, OSError) or type(fault).__module__.partition(".")[0] in _STORAGE_PACKAGES


def _told(fault: Exception) -> str:
    """What storage said, and to which action where it tells: `PutObject: PermissionError: The token has expired`."""
    action = getattr(fault.__cause__ or fault, "operation_name", None)
    return (f"{action}: " if action else "") + f"{type(fault).__name__}: {fault}"


def _tried_by_client(fault: Exception) -> bool:
    """Whether botocore has made its own attempts at this already."""
    answer = getattr(fault.__cause__ or fault, "response", None) or {}
    told = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    return bool(told.get("MaxAttemptsReached")) or type(fault).__name__ in _NO_ANSWER


def _refused(fault: Exception) -> bool:
    name = type(fault).__name__
    return (
        isinstance(fault, PermissionError)
        or (isinstance(fault, OSError) and fault.errno in _FULL)
        or "Credential" in name
        or "Token" in name
        or getattr(fault, "status", None) in _REFUSED_STATUS
    )
