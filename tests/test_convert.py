"""Pickles to safetensors: real dumps give their centroids, hostile ones give one line and run nothing."""

import ast
import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sklearn.cluster import KMeans, MiniBatchKMeans

import spire_ray
from spire_ray.convert import convert_kmeans, main
from spire_ray.errors import UserError
from spire_ray.kmeans_pickle import read_centroids


def fitted(kind: type[KMeans] | type[MiniBatchKMeans], dtype: str, **settings: Any) -> KMeans | MiniBatchKMeans:
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(dtype)
    return kind(5, n_init=1, **settings).fit(rows)


class Canary:
    """Unpickled for real, it makes a folder: the proof that something ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def refusal(path: Path, canary: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refused conversion, after checking that nothing was run or written."""
    target = path.with_name("out.safetensors")
    assert main(["kmeans", str(path), str(target)]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1
    assert not canary.exists()
    assert not target.exists()
    return said.err


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
@pytest.mark.parametrize("protocol", range(6))
def test_real_dumps_give_their_centroids(
    tmp_path: Path, kind: type[KMeans] | type[MiniBatchKMeans], dtype: str, protocol: int
) -> None:
    estimator = fitted(kind, dtype, random_state=np.random.RandomState(3))
    joblib.dump(estimator, tmp_path / "model", protocol=protocol)
    convert_kmeans(tmp_path / "model", tmp_path / "out.safetensors")
    stored = load_file(tmp_path / "out.safetensors")
    assert list(stored) == ["centroids"]
    assert stored["centroids"].dtype == np.float32
    assert np.array_equal(stored["centroids"], estimator.cluster_centers_.astype(np.float32))


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 9)])
def test_zlib_and_gzip_dumps_are_read(tmp_path: Path, compress: tuple[str, int]) -> None:
    estimator = fitted(KMeans, "float32", random_state=0)
    joblib.dump(estimator, tmp_path / "model", compress=compress)
    assert np.array_equal(read_centroids(tmp_path / "model"), estimator.cluster_centers_)
    (tmp_path / "half").write_bytes((tmp_path / "model").read_bytes()[:-60])
    with pytest.raises(UserError, match="truncated"):
        read_centroids(tmp_path / "half")


def test_another_compression_is_named(tmp_path: Path) -> None:
    for method in ("bz2", "xz", "lzma"):
        joblib.dump(fitted(KMeans, "float32"), tmp_path / method, compress=(method, 3))
        with pytest.raises(UserError, match=f"compressed with {method}"):
            read_centroids(tmp_path / method)


def test_fortran_order_and_the_stream_without_alignment_are_read(tmp_path: Path) -> None:
    """joblib before 1.2 wrote arrays without alignment; it still does into a stream that cannot tell its position."""
    estimator = fitted(KMeans, "float64", random_state=0)
    estimator.cluster_centers_ = np.asfortranarray(estimator.cluster_centers_)

    class Pipe(io.BytesIO):
        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    joblib.dump(estimator, pipe)
    joblib.dump(estimator, tmp_path / "aligned")
    (tmp_path / "plain").write_bytes(pipe.getvalue())
    assert (tmp_path / "plain").read_bytes() != (tmp_path / "aligned").read_bytes()
    for name in ("plain", "aligned"):
        assert np.array_equal(read_centroids(tmp_path / name), estimator.cluster_centers_)


def test_reading_imports_neither_joblib_nor_sklearn(tmp_path: Path) -> None:
    """In the child, with both of them in reach: names in a pickle must not be imported even when they are harmless."""
    joblib.dump(fitted(KMeans, "float32"), tmp_path / "model")
    script = (
        "import sys; from pathlib import Path; from spire_ray.kmeans_pickle import read_centroids\n"
        "read_centroids(Path(sys.argv[1]))\n"
        "print(sorted({'joblib', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_in_the_pickle_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: int) -> None:
    canary = tmp_path / "canary"
    estimator = fitted(KMeans, "float32")
    estimator.extra = Canary(canary)
    joblib.dump(estimator, tmp_path / "model", protocol=protocol)
    assert "mkdir" in refusal(tmp_path / "model", canary, capsys)
    # The canary does sing when the file is really unpickled.
    joblib.load(tmp_path / "model")
    assert canary.exists()


def test_a_pickle_nested_in_an_object_array_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary = tmp_path / "canary"
    estimator = fitted(KMeans, "float32")
    estimator.cluster_centers_ = np.array([Canary(canary)], dtype=object)
    joblib.dump(estimator, tmp_path / "model")
    assert "not plain numbers" in refusal(tmp_path / "model", canary, capsys)
    joblib.load(tmp_path / "model")
    assert canary.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(S'mkdir CANARY'\ntR.",
        b"(S'mkdir CANARY'\niposix\nsystem\n.",
        b"(cposix\nsystem\nS'mkdir CANARY'\no.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0cmkdir CANARY\x85R.",
        b"\x80\x02cbuiltins\nexec\nX\x0c\x00\x00\x00mkdir CANARYq\x00\x85R.",
        # A name of the list, called with a name: builtins.object stands for nothing callable.
        b"\x80\x02cnumpy\ndtype\ncnumpy\nndarray\n\x85R(S'mkdir CANARY'\ntR.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_hand_written_programs_do_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, program: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes(program)
    refusal(tmp_path / "model", tmp_path / "CANARY", capsys)


def test_a_truncated_dump_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joblib.dump(fitted(KMeans, "float32"), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for size in range(0, len(whole), 37):
        (tmp_path / "model").write_bytes(whole[:size])
        assert str(tmp_path) in refusal(tmp_path / "model", tmp_path / "canary", capsys)


def test_an_array_larger_than_the_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimator = fitted(KMeans, "float32")
    joblib.dump(estimator, tmp_path / "whole", protocol=2)
    whole = (tmp_path / "whole").read_bytes()
    shape = pickle.dumps((5, 6), protocol=2)[2:6]  # K\x05K\x06
    huge = b"".join(b"\x8a\x06" + struct.pack("<q", 2**45)[:6] for _ in range(2))
    assert shape in whole
    (tmp_path / "model").write_bytes(whole.replace(shape, huge))
    assert "past its end" in refusal(tmp_path / "model", tmp_path / "canary", capsys)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_end_in_a_user_error_or_in_centroids(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    joblib.dump(fitted(KMeans, "float32", random_state=0), buffer)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "model"
    path.write_bytes(damaged)
    # Any other exception fails the test: the child would show it as a traceback.
    with contextlib.suppress(UserError):
        assert isinstance(read_centroids(path), np.ndarray)


def test_other_contents_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfitted = KMeans(5)
    flat, infinite, words = (fitted(KMeans, "float64") for _ in range(3))
    flat.cluster_centers_ = np.zeros(3)
    infinite.cluster_centers_ = np.full((2, 2), 1e300)
    words.cluster_centers_ = np.array([["a"]])
    cases = [
        (unfitted, "cluster_centers_"),
        ({"cluster_centers_": np.zeros((2, 2))}, "not a joblib dump of sklearn's KMeans"),
        (np.zeros((2, 2)), "not a joblib dump of sklearn's KMeans"),
        (flat, "expected float"),
        (infinite, "not finite"),
        (words, "not plain numbers"),
    ]
    for content, message in cases:
        joblib.dump(content, tmp_path / "model")
        assert message in refusal(tmp_path / "model", tmp_path / "canary", capsys)


def test_an_output_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joblib.dump(fitted(KMeans, "float32"), tmp_path / "model")
    (tmp_path / "out").write_bytes(b"mine")
    assert main(["kmeans", str(tmp_path / "model"), str(tmp_path / "out")]) == 2
    assert "already there" in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    assert main(["kmeans", str(tmp_path / "none"), str(tmp_path / "other")]) == 2
    assert main(["kmeans", str(tmp_path / "model"), str(tmp_path / "no" / "folder")]) == 2
    assert main(["kmeans"]) == 2


def test_only_the_child_touches_pickles() -> None:
    """No other module of the package imports a reader of pickles, or the converters themselves."""
    allowed = {"convert.py", "kmeans_pickle.py"}
    modules = [path for path in Path(spire_ray.__file__).parent.rglob("*.py") if path.name not in allowed]
    assert modules
    forbidden = {"pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve", "sklearn"}
    forbidden |= {"spire_ray.convert", "spire_ray.kmeans_pickle"}
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                continue
            assert not names & forbidden, f"{path.name} imports {names & forbidden}"
        assert "torch.load(" not in path.read_text()
