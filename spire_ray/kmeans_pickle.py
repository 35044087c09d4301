"""The centroids of a joblib dump of a k-means estimator, read without executing or importing anything it names.

A pickle is a program: its opcodes name globals and call them. This reader keeps the opcodes that build plain data,
turns every global into an inert record of its name, and never calls one. Arrays lie in joblib's stream as raw bytes
behind a pickled NumpyArrayWrapper; joblib itself reads those of dtype object by another, unrestricted pickle, which
here is refused with every other dtype that is not plain numbers.
"""

import io
import math
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spire_ray.errors import UserError

MAX_BYTES = 2**31  # of a decompressed dump: a codebook of 32,767 x 4096 float64 has half of that
_COMPRESSED = {b"BZ": "bz2", b"\xfd7": "xz", b"]\0": "lzma", b"\x04\x22": "lz4"}
_ESTIMATORS = frozenset(
    f"sklearn.cluster.{module} {name}" for module in ("_kmeans", "k_means_") for name in ("KMeans", "MiniBatchKMeans")
)
_WRAPPERS = frozenset(
    f"{package} NumpyArrayWrapper" for package in ("joblib.numpy_pickle", "sklearn.externals.joblib.numpy_pickle")
)
_NAMES = (
    _ESTIMATORS
    | _WRAPPERS
    | {f"{package}.multiarray {name}" for package in ("numpy.core", "numpy._core") for name in ("scalar",)}
    | {f"numpy.random._pickle {name}" for name in ("__randomstate_ctor", "__bit_generator_ctor")}
    | {"numpy dtype", "numpy ndarray", "numpy.random._mt19937 MT19937", "_codecs encode"}
    | {"copy_reg _reconstructor", "copyreg _reconstructor", "__builtin__ object", "builtins object"}
)
_OPCODES = (
    "MARK STOP POP POP_MARK DUP PROTO FRAME NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 "
    "FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL"
)
# What a damaged or hostile stream makes the standard handlers of those opcodes raise.
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
)


def _codes(names: str) -> list[int]:
    return [getattr(pickle, name)[0] for name in names.split()]


class _Name:
    """A global of the pickle: its name, and nothing of what it stands for."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Made:
    """What the pickle wanted to make by calling a global: the name, the arguments and the state, all inert."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None


class _Refused(Exception):
    """A stream this reader understands and will not follow; the message says why."""


class _Reader(pickle._Unpickler):
    stack: list[Any]

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self._size = len(data)
        super().__init__(self._data)

    # Overrides the base: there it imports the module.
    def find_class(self, module: str, name: str) -> Any:
        if f"{module} {name}" not in _NAMES:
            raise _Refused(f"refers to {module}.{name}, which no k-means estimator needs; nothing was executed")
        return _Name(f"{module} {name}")

    def _make(self) -> None:
        arguments = self.stack.pop()
        called = self.stack.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise _Refused("calls something that is not a global; nothing was executed")
        name = called.name
        if name.endswith(" _reconstructor"):  # how pickle protocols 0 and 1 make an object: (class, base, state)
            name = arguments[0].name
        self.stack.append(_Made(name, arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, _Made):
            raise _Refused("sets the state of something that is not an object; nothing was executed")
        made.state = state
        if made.name in _WRAPPERS:
            self.stack[-1] = self._read_array(state)

    def _read_array(self, wrapper: dict[str, Any]) -> NDArray[Any]:
        """The array whose bytes follow its wrapper in the stream."""
        dtype, shape = _dtype(wrapper["dtype"]), wrapper["shape"]
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise _Refused(f"has an array of shape {shape!r}")
        # joblib before 1.2 does not align its arrays and has no such field.
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self._data.seek(self._data.read(1)[0], io.SEEK_CUR)
        size = math.prod(shape) * dtype.itemsize
        if size > self._size - self._data.tell():
            raise _Refused(f"is truncated: an array of {size} bytes goes past its end")
        flat = np.frombuffer(self._data.read(size), dtype)
        return flat.reshape(shape[::-1]).T if wrapper["order"] == "F" else flat.reshape(shape)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{opcode: pickle._Unpickler.dispatch[opcode] for opcode in _codes(_OPCODES)},
        **dict.fromkeys(_codes("REDUCE NEWOBJ"), _make),
        **dict.fromkeys(_codes("BUILD"), _build),
    }


def _dtype(made: Any) -> np.dtype[Any]:
    code = made.arguments[0] if isinstance(made, _Made) and made.name == "numpy dtype" else None
    if not isinstance(code, str) or not re.fullmatch("f[248]|[iu][1248]|b1", code):
        raise _Refused(f"has an array of dtype {code!r}, which is not plain numbers; nothing was executed")
    order = made.state[1] if isinstance(made.state, tuple) and made.state[1] in ("<", ">") else "="
    return np.dtype(order + code)


def read_centroids(path: Path) -> NDArray[Any]:
    """`cluster_centers_` of the estimator dumped at `path` (zlib and gzip are undone), as it was stored.

    UserError, in one line, for a file that is anything else than a joblib dump of sklearn's KMeans or MiniBatchKMeans.
    """
    try:
        estimator = _Reader(_plain(path)).load()
    except _Refused as refusal:
        raise UserError(f"{path} {refusal}") from None
    except _MALFORMED as fault:
        raise UserError(f"{path} is not a whole joblib dump ({type(fault).__name__} while reading it)") from None
    if not isinstance(estimator, _Made) or estimator.name not in _ESTIMATORS or not isinstance(estimator.state, dict):
        raise UserError(f"{path} is not a joblib dump of sklearn's KMeans or MiniBatchKMeans")
    centers = estimator.state.get("cluster_centers_")
    if not isinstance(centers, np.ndarray):
        raise UserError(f"{path} has no array cluster_centers_: was the estimator fitted, and dumped by joblib?")
    return centers


def _plain(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise UserError(f"{path}: {fault.strerror}") from None
    if data[:2] in _COMPRESSED:
        raise UserError(f"{path} is compressed with {_COMPRESSED[data[:2]]}; dump it again uncompressed")
    if data[:2] != b"\x1f\x8b" and data[:1] != b"\x78":
        return data
    stream = zlib.decompressobj(wbits=47)  # 47: zlib or gzip, whichever the header says
    try:
        plain = stream.decompress(data, MAX_BYTES)
    except zlib.error as fault:
        raise UserError(f"{path} is a damaged compressed file: {fault}") from None
    if not stream.eof:
        raise UserError(f"{path} is truncated, or holds more than {MAX_BYTES} bytes")
    return plain
