"""Bounds, presets and their order; duplicates against datasketch's own index; scorers in a process of their own."""

import math
import random
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from spire_ray import dedupe, filters, scorers, split
from spire_ray.errors import MachineFault, UserError


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [("wer<=0.3", 0.3, True), ("wer < 0.3", 0.3, False), ("lid>=.5", 0.4, False), ("words>1", 2, True)],
)
def test_a_bound_is_read_and_held(text: str, value: float, holds: bool) -> None:
    bound = filters.parse(text)
    assert bound.holds({bound.name: value}) is holds
    assert bound.holds({bound.name: None})  # what could not be measured bounds nothing


def test_a_bound_is_written_with_all_its_digits() -> None:
    for text in ("wer<=0.3", "wer<=0.3000001", "words>1", "tokens<=1234567", "qe>=0.85"):
        assert str(filters.parse(text)) == text


@pytest.mark.parametrize("text", ["wer", "wer=0.3", "speed<3", "wer<=a", "wer<=1-2", ""])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no bound"):
        filters.parse(text)


# The figures of NeMo-speech-data-processor's granary/config.yaml and of SPIRE's authors, written out again.
@pytest.mark.parametrize(
    ("preset", "scorer", "values", "reason"),
    [
        ("granary", "comet-kiwi", {"duration_s": 40.1}, "duration_s"),
        ("granary", "comet-kiwi", {"duration_s": 0.09}, "duration_s"),
        ("granary", "comet-kiwi", {"words": 1}, "words"),
        ("granary", "comet-kiwi", {"length_ratio": 4.0}, "length_ratio"),
        ("granary", "comet-kiwi", {"script_share": 0.8}, "script_share"),
        ("granary", "comet-kiwi", {"lid": 0.3}, "lid"),
        ("granary", "comet-kiwi", {"lid": 0.4, "detected": "da"}, "wrong_language"),
        ("granary", "comet-kiwi", {"qe": 0.75}, "qe"),
        ("granary", "comet-kiwi", {"duration_s": 40, "words": 2, "length_ratio": 3.9, "lid": 0.31, "qe": 0.76}, None),
        ("spire", "comet-kiwi", {"qe": 0.849}, "qe"),
        ("spire", "comet-kiwi", {"qe": 0.85}, None),
        ("spire", "blaser-2-qe", {"qe": 4.49}, "qe"),
        ("spire", "blaser-2-qe", {"qe": 4.5}, None),
    ],
)
def test_presets(preset: str, scorer: str, values: dict[str, Any], reason: str | None) -> None:
    lost = filters.first_reason(values, filters.preset(preset, scorer), ())
    assert (lost and lost[0]) == reason


def test_a_bound_of_ones_own_takes_the_place_of_the_presets() -> None:
    bounds = filters.merged(filters.preset("granary", None), [filters.parse("duration_s<=20")])
    assert filters.first_reason({"duration_s": 30.0}, bounds, ()) == ("duration_s", "30, kept is duration_s<=20")
    assert filters.first_reason({"duration_s": 0.05}, bounds, ()) is not None  # the other side stays


def test_flags_drop_unless_allowed() -> None:
    assert filters.first_reason({"flags": ["too_fast", "empty"]}, (), ()) == ("empty", "flag")
    assert filters.first_reason({"flags": ["too_fast"]}, (), ("too_fast",)) is None


def test_near_duplicates_are_those_of_datasketchs_own_index() -> None:
    draw = random.Random(5)
    words = [f"word{number}" for number in range(400)]
    texts: list[str] = []
    for _ in range(40):
        sentence = draw.choices(words, k=60)
        texts.append(" ".join(sentence))
        for changes in (1, 3, 8, 20):  # one word changes five of 56 5-grams
            changed = list(sentence)
            for at in draw.sample(range(60), changes):
                changed[at] = draw.choice(words)
            texts.append(" ".join(changed))
    index = MinHashLSH(num_perm=112, params=(14, 8))
    expected = []
    for number, text in enumerate(texts):
        signature = MinHash(num_perm=112, seed=1)
        each = text.split()
        for at in range(len(each) - 4):
            signature.update(" ".join(each[at : at + 5]).encode())
        expected.append(bool(index.query(signature)))
        index.insert(number, signature)
    keys = np.array([dedupe.band_keys("en", text) for text in texts], np.uint64)
    found = dedupe.near_duplicates(iter(keys.T), np.ones(len(texts), np.bool_))
    assert found.tolist() == expected
    assert 40 < sum(expected) < 120


def test_of_equal_keys_the_first_stays_and_others_do_not_count() -> None:
    keys = np.array([7, 9, 7, 7, 9, 1], np.uint64)
    among = np.array([False, True, True, True, True, True])
    assert dedupe.later_of_equal(keys, among).tolist() == [False, False, False, True, True, False]


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_brute_force(seed: int) -> None:
    draw = np.random.default_rng(seed)
    recordings, speakers = draw.integers(1, 60, 80).astype(np.uint64), draw.integers(0, 40, 80).astype(np.uint64)
    linked = (recordings[:, None] == recordings) | ((speakers[:, None] == speakers) & (speakers[:, None] != 0))
    for _ in range(7):  # 2^7 steps reach everybody
        linked = linked @ linked
    found = split.components(recordings, speakers)
    np.testing.assert_array_equal(found[:, None] == found, linked)


def test_the_share_of_dev_is_what_was_asked_for() -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    share = float(split.in_dev(keys, 0.1, seed=3).mean())
    assert math.isclose(share, 0.1, abs_tol=4 * math.sqrt(0.09 / 100_000))
    assert not np.array_equal(split.in_dev(keys, 0.1, 3), split.in_dev(keys, 0.1, 4))


FAKE_COMET = """
class Model:
    def predict(self, data, batch_size, gpus, progress_bar):
        print("Predicting...")
        return {"scores": [len(each["src"]) / len(each["mt"]) for each in data]}
def download_model(name):
    return name
def load_from_checkpoint(path):
    assert path == "Unbabel/wmt22-cometkiwi-da"
    return Model()
"""


def test_a_named_scorer_runs_in_its_own_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "own", symlinks=True)
    python = str(tmp_path / "own" / "bin" / "python")
    packages = next((tmp_path / "own").glob("lib/python*/site-packages"))
    (packages / "comet.py").write_text(FAKE_COMET)
    (packages / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 0)\n")
    (packages / "unbabel_comet-2.2.7.dist-info").mkdir()
    (packages / "unbabel_comet-2.2.7.dist-info" / "METADATA").write_text("Name: unbabel-comet\nVersion: 2.2.7\n")
    (tmp_path / "json.py").write_text("raise SystemExit('not the folder that one is in')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert scorers.identity("comet-kiwi", python) == "Unbabel/wmt22-cometkiwi-da unbabel-comet 2.2.7"
    scorer = scorers.load("comet-kiwi", python)
    asked = [("four", "vier", ("en", "de")), ("eleven", "elf", ("en", "de"))]
    assert scorers.scored(scorer, asked) == [1.0, 2.0]
    for _ in range(2):  # the one that kills it, and the next, whose pipe is broken
        with pytest.raises(MachineFault, match="the scorer comet-kiwi ended with code 1"):
            scorers.scored(scorer, [("four", "", ("en", "de"))])


def few(sources: Sequence[str], hypotheses: Sequence[str], languages: Sequence[tuple[str, str]]) -> list[float]:
    """A scorer that loses one."""
    return [0.0] * (len(sources) - 1)


def test_a_scorer_that_is_not_there_says_how_it_would_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pip install unbabel-comet, then --scorer-python"):
        scorers.identity("comet-kiwi")
    with pytest.raises(UserError, match="pip install sonar-space"):
        scorers.load("blaser-2-qe")
    with pytest.raises(UserError, match="cannot be run"):
        scorers.identity("comet-kiwi", str(tmp_path / "python"))
    for name in ("kiwi", "nowhere:score", "spire_ray.filters:nothing", "spire_ray.filters:VALUES"):
        with pytest.raises(UserError, match="--scorer"):
            scorers.load(name)
    with pytest.raises(Exception, match="gave 0 scores for 1 translations"):
        scorers.scored(scorers.load("test_filters:few"), [("a", "b", ("en", "de"))])
