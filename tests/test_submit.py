"""What `spire-ray submit` refuses before anything is sent, and what it sends."""

import pytest

from spire_ray.cli import main
from spire_ray.submit import without_address


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tokenize", "some/folder", "/out"], "some/folder is relative"),
        (["export", "/out", "rows.parquet"], "rows.parquet is relative"),
        (["tokenize", "/c", "https://me:secret-word@host/out"], "password"),
        (["show", "/out", "--storage-options", '{"secret": "secret-word"}'], "credentials come from the environment"),
        (["convert-codebook", "/a", "/b.safetensors"], "takes a command that works on a corpus"),
        ([], "takes a command that works on a corpus"),
        (["show", "/out"], "no Ray job API answers at http://127.0.0.1:9"),
    ],
)
def test_what_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--address", "http://127.0.0.1:9", *words]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert "secret-word" not in told
    assert len(told.strip().splitlines()) == 1


def test_the_address_stays_here() -> None:
    words = ["tokenize", "/c", "--address", "http://h:8265", "/out", "--address=http://h:8265", "--part", "1/2"]
    assert without_address(words) == ["tokenize", "/c", "/out", "--part", "1/2"]
