import gzip
import io

import braceexpand
import pyarrow as pa
import pytest

from corpora import empty_tagged, heard, only, refused, rows_of, sound, write_audio, write_lines, write_sound
from spire_ray import locations
from spire_ray.corpus import NOTE, open_corpus, read_corpus
from spire_ray.globs import braces
from spire_ray.utterances import PLANNED


@pytest.fixture
def tagged():
    return empty_tagged()


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "{0..3}",
        "{000..012}.tar",
        "s3://b/x-{a,b}-{1..2}.tar",
        "{9..11}",
        "{09..11}",
        "{3..1}",
        "{a,}",
        "{one}",
        "{}",
    ],
)
def test_braces_are_written_out_as_webdataset_does(text):
    assert braces(text) == list(braceexpand.braceexpand(text))


def test_too_many_braces():
    assert "stands for" in refused("/data/{0..999999}{0..9}.tar")


def test_a_glob_of_audio(tmp_path):
    for name in ("a/1.wav", "a/2.flac", "b/3.wav", "b/4.txt"):
        (write_audio if not name.endswith("txt") else lambda path: path.write_text("x"))(tmp_path / name)
    assert [row["utterance_id"] for row in rows_of(tmp_path / "*" / "*.wav")] == ["a/1.wav", "b/3.wav"]
    assert [row["utterance_id"] for row in rows_of(tmp_path / "a" / "*")] == ["1.wav", "2.flac"]
    assert [row["utterance_id"] for row in rows_of(f"{tmp_path}/{{b,a}}/*.wav")] == ["a/1.wav", "b/3.wav"]
    assert [row["utterance_id"] for row in rows_of(tmp_path / "**")] == ["a/1.wav", "a/2.flac", "b/3.wav"]
    assert "nothing there matches" in refused(tmp_path / "*.wav")
    assert f"{tmp_path}/c.wav does not exist" in refused(f"{tmp_path}/{{c,a/1}}.wav")


def test_a_glob_of_folders_is_all_that_lies_in_them(tmp_path):
    for name in ("en/x/1.wav", "en/2.wav", "de/3.wav"):
        write_audio(tmp_path / name)
    assert [row["utterance_id"] for row in rows_of(tmp_path / "[de]?")] == ["de/3.wav", "en/2.wav", "en/x/1.wav"]


def test_a_glob_on_object_storage(tagged, tmp_path):
    data = write_audio(tmp_path / "a.flac").read_bytes()
    for name in ("one/a.flac", "one/b.flac", "two/c.flac"):
        tagged.pipe_file(f"/bucket/{name}", data)
    rows = rows_of("tagged://bucket/*/[ac].flac")
    assert [row["utterance_id"] for row in rows] == ["one/a.flac", "two/c.flac"]
    assert rows[0]["etag"] == f"tag-of-{len(data)}"


def test_a_name_that_is_there_is_no_glob(tmp_path):
    write_audio(tmp_path / "take[1]" / "a{b,c}.wav")
    assert only(tmp_path / "take[1]")["utterance_id"] == "a{b,c}.wav"


def test_a_glob_of_manifests_counts_its_rows_through(tmp_path):
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "m.jsonl", {"audio": f"{name}.wav"}, {"audio": None})
    rows = rows_of(tmp_path / "*" / "m.jsonl")
    assert [row["utterance_id"] for row in rows] == ["1.wav", "row-1", "2.wav", "row-3"]


def test_manifests_packed_by_gzip(tmp_path):
    lines, table = '{"audio": "a.wav"}\n', "path,text\na.wav,b\n"
    for name, text in (("m.jsonl.gz", lines), ("m.csv.gz", table), ("m.gz", lines)):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        assert only(tmp_path / name)["utterance_id"] == "a.wav"


def test_tables_beside_audio_are_told(tmp_path):
    write_audio(tmp_path / "clips" / "a.wav")
    (tmp_path / "test.tsv").write_text("path\tsentence\na.wav\tx\n")
    assert "test.tsv" in read_corpus(str(tmp_path)).schema.metadata[NOTE].decode()


def test_a_hugging_face_audio_folder_is_named_by_its_metadata(tmp_path):
    write_sound(tmp_path / "train" / "a.wav", 1)
    (tmp_path / "metadata.csv").write_text("file_name,transcription\ntrain/a.wav,said\n")
    row = only(tmp_path / "metadata.csv")
    assert (row["utterance_id"], row["reference"]) == ("train/a.wav", "said")
    assert (heard(row) == sound(1)).all()


def test_an_open_corpus_is_read_as_it_is_asked_for(tmp_path):
    lines = 10_000
    (tmp_path / "m.jsonl").write_text("".join(f'{{"audio": "{n}.wav"}}\n' for n in range(lines)))
    found = open_corpus(str(tmp_path / "m.jsonl"))
    first = next(found.tables)
    assert first.schema == PLANNED
    assert first.num_rows == 8192
    rest = pa.concat_tables(found.tables)
    assert pa.concat_tables([first, rest]).column("utterance_id").to_pylist() == [f"{n}.wav" for n in range(lines)]


def test_a_fault_that_passes_leaves_no_gap_and_no_double(tagged, monkeypatch):
    monkeypatch.setattr(locations, "FIRST_WAIT_S", 0)
    lines = 140_000
    tagged.pipe_file("/b/m.jsonl", "".join(f'{{"audio": "{n}.wav"}}\n' for n in range(lines)).encode())
    opened = type(tagged)._open
    opens = []

    class Dropping(io.RawIOBase):
        def __init__(self, data):
            self.data, self.left = data, 2_000_000

        def readable(self):
            return True

        def seekable(self):
            return True

        def seek(self, *place):
            return self.data.seek(*place)

        def readinto(self, buffer):
            self.left -= len(buffer)
            if self.left < 0:
                raise ConnectionResetError("the line dropped")
            return self.data.readinto(buffer)

    def failing(self, path, mode="rb", **kwargs):
        opens.append(path)
        file = opened(self, path, mode, **kwargs)
        return file if len(opens) > 5 else io.BufferedReader(Dropping(file))

    monkeypatch.setattr(type(tagged), "_open", failing)
    ids = read_corpus("tagged://b/m.jsonl").column("utterance_id").to_pylist()
    assert ids == [f"{n}.wav" for n in range(lines)]
    assert len(opens) == 6  # two looked at what it is
