import io
import json
import tarfile

import pytest
import soundfile as sf
import webdataset

from corpora import Tagged, empty_tagged, heard, only, refused, rows_of, sound, write_sound
from spire_ray import tar_index


def audio(seed, seconds=1.0, format="FLAC"):
    stream = io.BytesIO()
    sf.write(stream, sound(seed, seconds), 16_000, format=format)
    return stream.getvalue()


def write_shard(path, *samples, **options):
    """A shard as webdataset itself writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path), encoder=False, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def write_tar(path, *members, format=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_shard_of_webdataset(tmp_path):
    first = {"text": "said", "duration": 77.0, "speaker": 7, "language": "de", "offset": 30.0, "path": "elsewhere.wav"}
    path = write_shard(
        tmp_path / "train-000000.tar",
        {"__key__": "a/0001", "flac": audio(1), "json": json.dumps(first).encode()},
        {"__key__": "a/0002", "wav": audio(2, 2.5, "WAV"), "txt": "Grüße\n".encode()},
        {"__key__": "a/0003", "mp3": audio(3, format="MP3"), "cls": b"1"},
        {"__key__": "a/0004", "txt": b"no audio"},
    )
    rows = rows_of(path)
    assert [row["utterance_id"] for row in rows] == [
        f"train-000000.tar#a/{name}" for name in ("0001.flac", "0002.wav", "0003.mp3")
    ]
    one, two, three = rows
    assert (one["reference"], one["speaker"], one["source_language"], one["start_s"]) == ("said", "7", "de", None)
    assert (two["reference"], two["duration_s"], three["duration_s"]) == ("Grüße", 2.5, None)
    assert one["duration_s"] == len(sound(1)) / 16_000  # as its header says
    assert one["audio_uri"] == str(path)
    assert one["etag"] == f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    with tarfile.open(path) as archive:  # Python's own index
        places = {f"train-000000.tar#{each.name}": (each.offset_data, each.size) for each in archive.getmembers()}
    assert all((row["byte_offset"], row["byte_size"]) == places[row["utterance_id"]] for row in rows)
    assert (heard(one) == sound(1)).all()
    assert (heard(two) == sound(2, 2.5)).all()


def test_what_webdataset_reads_is_what_is_planned(tmp_path):
    samples = [
        {"__key__": f"{n:04}", "flac": audio(n, 0.1 + n / 50), "json": b'{"text": "t%d"}' % n} for n in range(40)
    ]
    path = write_shard(tmp_path / "x.tar", *samples)
    theirs = {
        each["__key__"]: (each["flac"], json.loads(each["json"])["text"])
        for each in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    }
    data = path.read_bytes()
    ours = {
        row["utterance_id"][6:10]: (data[row["byte_offset"] :][: row["byte_size"]], row["reference"])
        for row in rows_of(path)
    }
    assert ours == theirs
    assert len(ours) == 40


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_every_form_of_tar(tmp_path, format):
    long = "deep/" * 18 + "übung" * 10 if format != tarfile.USTAR_FORMAT else "deep/utterance"
    path = write_tar(
        tmp_path / "a.tar",
        (f"./{long}.wav", audio(1, format="WAV")),
        ("./._b.wav", b"mac"),
        ("b.FLAC", audio(2)),
        format=format,
    )
    one, two = rows_of(path)
    assert [one["utterance_id"], two["utterance_id"]] == [f"a.tar#{long}.wav", "a.tar#b.FLAC"]
    assert (heard(one) == sound(1)).all()
    assert (heard(two) == sound(2)).all()


def test_several_files_of_a_sample_are_utterances(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        ("x.left.wav", audio(1, format="WAV")), ("x.right.wav", audio(2, format="WAV")),
        ("x.json", b'{"id": "x", "text": "both"}'),
        ("y.wav", audio(3, format="WAV")), ("y.json", b'{"id": "own"}'),
    )  # fmt: skip
    rows = rows_of(path)
    assert [row["utterance_id"] for row in rows] == ["a.tar#x.left.wav", "a.tar#x.right.wav", "own"]
    assert [row["reference"] for row in rows] == ["both", "both", None]


def test_shards_by_folder_glob_and_braces(tmp_path):
    for split, n in (("train", 0), ("train", 1), ("dev", 0)):
        write_shard(tmp_path / split / f"{n:03}.tar", {"__key__": "k", "flac": audio(n)})
    ids = ["dev/000.tar#k.flac", "train/000.tar#k.flac", "train/001.tar#k.flac"]
    assert [row["utterance_id"] for row in rows_of(tmp_path)] == ids
    assert [row["utterance_id"] for row in rows_of(tmp_path / "*" / "*.tar")] == ids
    assert [row["utterance_id"] for row in rows_of(f"{tmp_path}/train/{{000..001}}.tar")] == [
        "000.tar#k.flac", "001.tar#k.flac",
    ]  # fmt: skip
    assert "train/002.tar does not exist" in refused(f"{tmp_path}/train/{{000..002}}.tar")


def test_audio_is_jumped_over(tmp_path, monkeypatch):
    tagged = empty_tagged()
    samples = [{"__key__": f"{n}", "wav": audio(n, 60.0, "WAV"), "json": b'{"text": "x"}'} for n in range(5)]
    data = write_shard(tmp_path / "a.tar", *samples).read_bytes()
    tagged.pipe_file("/b/a.tar", data)
    fetched = []
    cat = Tagged.cat_file

    def counting(self, path, start=None, end=None, **kwargs):
        fetched.append(end - start)
        return cat(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(Tagged, "cat_file", counting)
    rows = rows_of("tagged://b/a.tar")
    assert [row["duration_s"] for row in rows] == [60.0] * 5
    assert [row["reference"] for row in rows] == ["x"] * 5
    assert rows[4]["etag"] == f"tag-of-{len(data)}"
    assert max(fetched) == tar_index.WINDOW
    assert len(fetched) <= 7  # one a sample, of 9.6 MB, and one at each end
    assert (heard(rows[4]) == sound(4, 60.0)).all()


@pytest.mark.parametrize("cut", ["data", "header", "junk"])
def test_a_damaged_shard_keeps_what_comes_before(tmp_path, cut):
    write_shard(tmp_path / "b.tar", {"__key__": "z", "flac": audio(9)})
    path = write_tar(tmp_path / "a.tar", ("x.flac", audio(1)), ("y.flac", audio(2)), ("z.flac", audio(3)))
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        offsets = [member.offset for member in archive.getmembers()]
    broken = {
        "data": data[: offsets[1] + 2000],
        "header": data[: offsets[1] + 100],
        "junk": data[: offsets[1]] + b"\xff" * 512 + data[offsets[1] + 512 :],
    }
    path.write_bytes(broken[cut])
    rows = rows_of(tmp_path)
    assert rows[0]["utterance_id"] == "a.tar#x.flac"
    assert rows[-1]["utterance_id"] == "b.tar#z.flac"
    bad = [row for row in rows if row["error"]]
    assert len(bad) == 1
    assert bad[0]["error"].startswith("bad_manifest_row: a.tar byte ")
    assert "damaged or cut" in bad[0]["error"]


def test_metadata_that_cannot_be_read_is_an_error_of_its_row(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        ("x.flac", audio(1)),
        ("x.json", b'{"text": '),
        ("y.flac", audio(2)),
        ("y.txt", b"\xff\xfe"),
        ("z.flac", audio(3)),
    )
    x, y, z = rows_of(path)
    assert "x.json: " in x["error"]
    assert "y.txt: " in y["error"]
    assert z["error"] is None


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar", "data"])
def test_compressed_shards_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / name, "w:gz") as archive:
        archive.add(write_sound(tmp_path / "x" / "a.wav", 1), "a.wav")
    assert "is a compressed tar file" in refused(tmp_path / name)
    (tmp_path / "x" / "a.wav").unlink()
    if name != "data":
        assert "is a compressed tar file" in refused(tmp_path)


def test_a_folder_of_shards_beside_audio_is_refused(tmp_path):
    write_shard(tmp_path / "a.tar", {"__key__": "k", "flac": audio(1)})
    assert only(tmp_path)["utterance_id"] == "a.tar#k.flac"
    write_sound(tmp_path / "b.wav", 1)
    assert "both audio files and tar files" in refused(tmp_path)
    (tmp_path / "b.wav").unlink()
    write_tar(tmp_path / "a.tar", ("x.txt", b"no audio"))
    assert "is empty" in refused(tmp_path)
