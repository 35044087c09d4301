"""What lies in a folder of any file system."""

import os
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from spire_ray.errors import MachineFault


def names_in(fs: AbstractFileSystem, folder: str) -> set[str]:
    """The names directly in `folder`."""
    return {str(path).rstrip("/").rpartition("/")[2] for path in fs.ls(folder, detail=False)}


def files_below(fs: AbstractFileSystem, root: str) -> dict[str, dict[str, Any]]:
    """Every file below `root`: local links to folders are followed, and a folder that cannot be read is a fault."""
    if not isinstance(fs, LocalFileSystem):
        return dict(fs.find(root, detail=True))

    def refuse(fault: OSError) -> None:
        raise MachineFault(f"{fault.filename}: {fault.strerror}") from fault

    found: dict[str, dict[str, Any]] = {}
    visited: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=refuse):
        visited.add(os.path.realpath(folder))
        # A link to a folder above would be followed for ever.
        below[:] = [name for name in below if os.path.realpath(os.path.join(folder, name)) not in visited]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                found[path] = fs.info(path)
    return found
