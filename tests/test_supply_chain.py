"""What is installed is what the locks say, byte for byte; and the native code in it is what SECURITY.md says."""

import re
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import av
import numpy
import pyarrow
import pytest
import soundfile
import soxr
import torch
from cryptography.hazmat.backends.openssl import backend
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;]+)")


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of every package of a lock."""
    found: dict[str, tuple[str, list[str]]] = {}
    for entry in re.sub(r"\\\n\s*", " ", (ROOT / name).read_text()).splitlines():
        match = PIN.match(entry)
        assert match, f"{name}: {entry!r} is no pin"
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)", entry)
        found[canonicalize_name(match[1])] = (match[2], hashes)
    return found


@pytest.mark.parametrize("lock", ["requirements-cpu.lock", "requirements-audit.lock", "requirements-release.lock"])
def test_every_locked_package_has_its_hashes(lock: str) -> None:
    packages = locked(lock)
    assert len(packages) > 20
    assert [name for name, (_, hashes) in packages.items() if not hashes] == []


def test_torch_alone_has_none() -> None:
    """Its CPU build lies in another place, and has other bytes for each Python."""
    assert list(locked("requirements-torch.lock")) == ["torch"]
    assert "torch" not in locked("requirements-cpu.lock")


def test_what_is_installed_is_what_is_locked() -> None:
    packages = locked("requirements-cpu.lock") | locked("requirements-torch.lock")
    other = {
        name: (version, installed)
        for name, (version, _) in packages.items()
        if (installed := metadata.version(name)) != version
    }
    assert not other


def test_nothing_is_installed_past_the_hashes() -> None:
    """Of all that `make` would install, only torch and this package itself are not compared with a hash."""
    command = ["make", "--dry-run", "--always-make", "setup", "audit", "docs"]
    dry = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = [line for line in dry.splitlines() if "pip install" in line]
    assert len(installs) == 6
    unchecked = [line for line in installs if "--require-hashes" not in line]
    assert len(unchecked) == 2
    assert "requirements-torch.lock" in unchecked[0]
    assert "--no-build" in unchecked[0]
    assert "--no-build-isolation --editable ." in unchecked[1]
    for line in installs[:-1]:
        assert "--no-build" in line or "--only-binary :all:" in line


def bundled(package: str, pattern: str) -> str:
    """The version in the name of a library that a wheel brings."""
    names = [match for file in metadata.files(package) or [] if (match := re.search(pattern, str(file)))]
    assert len(names) == 1
    return names[0][1]


NATIVE: dict[tuple[str, str], Callable[[], str]] = {
    ("libsndfile", "soundfile"): lambda: soundfile.__libsndfile_version__,
    ("libsoxr", "soxr"): lambda: soxr.__libsoxr_version__,
    ("Arrow C++ and Parquet", "pyarrow"): lambda: pyarrow.cpp_version,
    ("OpenSSL", "cryptography"): lambda: backend.openssl_version_text().split()[1],
    ("OpenSSL", "opencv-python-headless"): lambda: bundled("opencv-python-headless", r"libcrypto-\w+\.so\.(.+)"),
    ("FFmpeg (libavformat)", "opencv-python-headless"): lambda: bundled(
        "opencv-python-headless", r"libavformat-\w+\.so\.(.+)"
    ),
    ("FFmpeg", "av"): lambda: av.ffmpeg_version_info,
    ("oneDNN", "torch"): lambda: (re.findall(r"MKL-DNN v([\d.]+)", torch.__config__.show()) or [""])[0],
    ("OpenBLAS", "numpy"): lambda: numpy.show_config("dicts")["Build Dependencies"]["blas"]["version"],
}


def test_the_table_of_native_libraries_is_true() -> None:
    """pip-audit does not see them: who updates a wheel updates the table, and looks at what has changed."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([^`|]+)` \|", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert {(name.strip(), version.strip(), wheel) for name, version, wheel in rows} == {
        (name, found(), wheel) for (name, wheel), found in NATIVE.items()
    }
