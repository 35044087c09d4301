"""Planned rows to waveforms: what comes back, what is fetched for it, and what becomes of faults."""

import errno
import json
import os

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf

from reading import Counted, counted, errors_of, flac, pcm16, planned, samples_of, waveforms
from spire_ray import fetch, read, tables
from spire_ray.corpus import read_corpus
from spire_ray.cut import cut
from spire_ray.errors import MachineFault, UserError
from spire_ray.read import ReadAudio

__all__ = ["counted"]  # a fixture


def test_files_come_back_whole_and_in_order(tmp_path):
    for n in range(20):
        (tmp_path / f"{n:02}.flac").write_bytes(flac(pcm16(0.5 + n / 10, n)))
    rows = pa.concat_tables(cut(read_corpus(str(tmp_path)), 60))
    for n, row in enumerate(waveforms(rows)):
        assert np.array_equal(samples_of(row), pcm16(0.5 + n / 10, n))


def test_as_a_stage(tmp_path):
    (tmp_path / "a.wav").write_bytes(flac(pcm16(1.0)))
    row = tables.nest(7, 2, utterances=planned({"audio_uri": str(tmp_path / "a.wav"), "speech_ratio": 0.5}))
    made = ReadAudio({}, 120.0)(row)
    assert (made["shard"].to_pylist(), made["attempt"].to_pylist()) == ([7], [2])
    (row,) = tables.unnest(made, "utterances", tables.WAVEFORMS).to_pylist()
    assert np.array_equal(samples_of(row), pcm16(1.0))
    assert row["speech_ratio"] == 0.5


def test_no_rows():
    assert waveforms(planned()) == []


def test_pieces_of_a_file_fetch_it_once(counted):
    counted.pipe_file("/b/long.flac", flac(pcm16(10.0)))
    spans = [(0.0, 1.0), (8.25, 9.5), (2.0, None), (None, 3.0), (9.0, 20.0)]
    rows = planned(*({"audio_uri": "counted://b/long.flac", "start_s": s, "end_s": e} for s, e in spans))
    found = waveforms(rows, max_seconds=8.0)
    for (start, end), row in zip(spans[:4], found, strict=False):
        expected = pcm16(10.0)[int((start or 0) * 16_000) : None if end is None else int(end * 16_000)]
        assert np.array_equal(samples_of(row), expected)
    assert tables.reason_of(found[4]["error"]) == "too_long"
    assert Counted.fetched == ["/b/long.flac"]


def test_a_large_file_goes_by_way_of_a_temporary_one(counted, monkeypatch):
    counted.pipe_file("/b/long.flac", flac(pcm16(10.0)))
    monkeypatch.setattr(fetch, "SPOOL_BYTES", 100_000)
    spans = [(None, None), (8.25, 9.5), (2.0, None)]
    rows = planned(*({"audio_uri": "counted://b/long.flac", "start_s": s, "end_s": e} for s, e in spans))
    for (start, end), row in zip(spans, waveforms(rows), strict=True):
        expected = pcm16(10.0)[int((start or 0) * 16_000) : None if end is None else int(end * 16_000)]
        assert np.array_equal(samples_of(row), expected)
    assert Counted.fetched == ["/b/long.flac"]


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(2.0, None), (2.09, None), (2.11, "truncated"), (1.91, None), (1.89, "changed_since_plan"), (60.0, "truncated")],
)
def test_what_is_decoded_is_as_long_as_what_was_planned(tmp_path, seconds, reason):
    (tmp_path / "a.flac").write_bytes(flac(pcm16(2.0)))
    assert errors_of(planned({"audio_uri": str(tmp_path / "a.flac"), "duration_s": seconds})) == [reason]


def test_each_fault_is_a_row_with_its_reason(tmp_path, monkeypatch):
    def audio(name, samples, **options):
        sf.write(tmp_path / name, samples, options.pop("rate", 16_000), **options)
        return {"audio_uri": str(tmp_path / name)}

    def file(name, data):
        (tmp_path / name).write_bytes(data)
        return {"audio_uri": str(tmp_path / name)}

    whole = flac(pcm16(2.0))
    nan = np.full(16_000, np.nan, np.float32)
    cases = [
        (audio("good.wav", pcm16(1.0)), None),
        ({"audio_uri": str(tmp_path / "nowhere.wav")}, "missing"),
        ({"audio_uri": str(tmp_path / "good.wav" / "below")}, "missing"),
        ({"audio_uri": str(tmp_path)}, "missing"),
        ({"audio_uri": str(tmp_path / ("x" * 300))}, "missing"),
        (file("page.wav", b"<html>"), "unreadable"),
        (file("zero.wav", b""), "empty"),
        (audio("short.wav", pcm16(0.02)), "too_short"),
        (audio("long.wav", pcm16(3.0)), "too_long"),
        (audio("wide.wav", np.zeros((100, 40))), "too_large"),
        (file("cut.flac", whole[: len(whole) // 2]), "truncated"),
        (audio("nan.wav", nan, subtype="FLOAT"), "not_finite"),
        (audio("silent.wav", np.zeros(16_000)), "silent"),
        ({"error": "bad_manifest_row: line 3"}, "bad_manifest_row"),
        (audio("changed.wav", pcm16(1.0)) | {"etag": "1-1"}, "changed_since_plan"),
    ]
    rows = planned(*(row for row, _ in cases))
    assert errors_of(rows, max_seconds=2.5) == [reason for _, reason in cases]
    assert errors_of(rows, max_seconds=2.5, check_etag=False)[-1] is None
    assert waveforms(rows)[13]["error"] == "bad_manifest_row: line 3"
    monkeypatch.setattr(fetch, "MAX_OBJECT_BYTES", 1_000)
    assert errors_of(rows.slice(0, 1)) == ["too_large"]


def test_a_file_changed_since_the_plan(tmp_path, counted):
    (tmp_path / "a.flac").write_bytes(flac(pcm16(1.0)))
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    for corpus in (str(tmp_path), "counted://b"):
        rows = pa.concat_tables(cut(read_corpus(corpus), 60))
        assert errors_of(rows) == [None]
        if corpus == str(tmp_path):
            os.utime(tmp_path / "a.flac", ns=(1, 1))
        else:
            counted.pipe_file("/b/a.flac", flac(pcm16(1.0, 1)))
        assert errors_of(rows) == ["changed_since_plan"]
        assert errors_of(rows, check_etag=False) == [None]


def test_faults_that_pass_are_tried_again(counted):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [OSError(errno.EBUSY, "slow down"), TimeoutError(), ConnectionResetError(), OSError("?")]
    assert errors_of(planned({"audio_uri": "counted://b/a.flac"})) == [None]
    assert len(Counted.fetched) == 5


def test_faults_that_stay_stop_the_run_and_name_the_file(counted):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [OSError(errno.EIO, "broken")] * 9
    with pytest.raises(MachineFault, match=r"counted://b/a.flac.*broken"):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))
    assert len(Counted.fetched) == 8


def no_credentials():
    from botocore.exceptions import NoCredentialsError

    return NoCredentialsError()


@pytest.mark.parametrize("fault", [PermissionError(errno.EACCES, "denied"), no_credentials()])
def test_refused_access_stops_the_run_at_once(counted, fault):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [fault]
    with pytest.raises(MachineFault, match=r"counted://b/a.flac"):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))
    assert len(Counted.fetched) == 1


def test_an_endpoint_that_botocore_has_not_reached_is_tried_once_more(counted):
    from botocore.exceptions import EndpointConnectionError

    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [EndpointConnectionError(endpoint_url="http://x")]
    assert errors_of(planned({"audio_uri": "counted://b/a.flac"})) == [None]
    Counted.faults[:] = [EndpointConnectionError(endpoint_url="http://x")] * 4
    with pytest.raises(MachineFault, match="EndpointConnectionError"):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))
    assert len(Counted.faults) == 2


def test_faults_of_the_program_are_not_hidden(counted):
    counted.pipe_file("/b/a.flac", flac(pcm16(1.0)))
    Counted.faults[:] = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        waveforms(planned({"audio_uri": "counted://b/a.flac"}))


def test_several_objects_at_a_time_but_few_bytes(counted, monkeypatch):
    size = len(flac(pcm16(1.0)))
    for n in range(24):
        counted.pipe_file(f"/b/{n:02}.flac", flac(pcm16(1.0)))
    rows = planned(*({"audio_uri": f"counted://b/{n:02}.flac"} for n in range(24)))
    assert errors_of(rows) == [None] * 24
    assert 2 < Counted.most <= 16
    for room, most in ((2 * size + 9, 2), (size // 2, 1)):
        Counted.most = 0
        monkeypatch.setattr(read, "IN_FLIGHT_BYTES", room)
        assert errors_of(rows) == [None] * 24
        assert Counted.most == most


def test_a_corpus_from_manifest_to_waveforms(tmp_path):
    (tmp_path / "wav").mkdir()
    sf.write(tmp_path / "wav" / "a.flac", pcm16(4.0), 16_000)
    lines = [
        {"audio_filepath": "wav/a.flac", "offset": 1.0, "duration": 1.5},
        {"audio_filepath": "wav/b.flac"},
        {"text": "x"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    rows = waveforms(pa.concat_tables(cut(read_corpus(str(tmp_path / "m.jsonl")), 60)))
    by_id = {row["utterance_id"]: row for row in rows}
    assert np.array_equal(samples_of(by_id["wav/a.flac#1000-2500"]), pcm16(4.0)[16_000:40_000])
    assert by_id["wav/b.flac"]["error"].startswith("missing: ")
    assert by_id["row-2"]["error"].startswith("bad_manifest_row: line 3")


def test_a_text_plan_is_refused():
    with pytest.raises(UserError, match="text corpus"):
        waveforms(planned({"text": "no audio"}))
