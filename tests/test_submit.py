"""What `spire-ray submit` refuses before anything is sent, and what it sends."""

import argparse
import asyncio
import threading
from collections.abc import Coroutine
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from spire_ray import submit
from spire_ray.cli import main
from spire_ray.commands import HERE_ONLY
from spire_ray.errors import UserError
from spire_ray.options import parser
from spire_ray.submit import PLACES, PLACES_OR_NAMES, without_address


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tokenize", "some/folder", "/out"], "some/folder is relative"),
        (["export", "/out", "rows.parquet"], "rows.parquet is relative"),
        (["tokenize", "/c", "https://me:secret-word@host/out"], "password"),
        (["show", "/out", "--storage-options", '{"secret": "secret-word"}'], "credentials come from the environment"),
        (["evaluate", "/out", "--json", "scores.json"], "scores.json is relative"),
        (["build-dataset", "/out", "/set", "--text", "/a.txt", "b.txt"], "b.txt is relative"),
        (["tokenize", "/c", "/out", "--checkpoint", "https://me:secret-word@host/spire"], "password"),
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


def test_no_place_is_forgotten() -> None:
    """Whatever an option calls a file or a folder in its help is looked at."""
    words = {
        "CORPUS",
        "TEXT",
        "OUT",
        "OUT0",
        "OUT2",
        "DATASET",
        "FILE",
        "DIR",
        "DIR_OR_NAME",
        "PYTHON",
        "CODEBOOK.safetensors",
    }
    (commands,) = (one for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    sent = [one for name, one in commands.choices.items() if name not in (*HERE_ONLY, "submit")]
    found = {action.dest for one in sent for action in one._actions if action.metavar in words}
    assert found | {"checkpoint", "translations"} == {*PLACES, *PLACES_OR_NAMES}


def test_a_name_is_no_place_whatever_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "mine"):
        Path(name).mkdir()
    submit.check(parser().parse_args(["tokenize", "/c", "/out", "--checkpoint", "tiny"]))
    with pytest.raises(UserError, match="mine is relative"):
        submit.check(parser().parse_args(["tokenize", "/c", "/out", "--checkpoint", "mine"]))


def test_leaving_a_job_is_not_its_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Client:
        def __init__(self, address: str) -> None: ...
        def submit_job(self, **options: object) -> None: ...

    def left(following: Coroutine[None, None, int]) -> int:
        following.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "JobSubmissionClient", Client)
    monkeypatch.setattr(asyncio, "run", left)
    assert main(["submit", "--address", "http://127.0.0.1:9", "show", "/out"]) == 130
    assert "goes on" in capsys.readouterr().err


def test_a_cluster_that_asks_for_its_token_says_how_to_give_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Asks(BaseHTTPRequestHandler):
        """What Ray's dashboard answers without a token, 401."""

        def do_GET(self) -> None:
            self.send_error(401, "Unauthorized: Missing authentication token")

        def log_message(self, *words: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Asks) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        code = main(["submit", "--address", f"http://127.0.0.1:{server.server_port}", "show", "/out"])
        server.shutdown()
        thread.join()
    assert code == 2
    told = capsys.readouterr().err
    assert "RAY_AUTH_MODE=token" in told
    assert len(told.strip().splitlines()) == 1
