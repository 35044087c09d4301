import hashlib
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spire_ray import locations, plan, tables
from spire_ray.cut import cut, cut_text
from spire_ray.errors import UserError
from spire_ray.frozen import fingerprint, freeze
from spire_ray.plan import Shard, load_plan, read_shard, write_plan
from spire_ray.store import Store

PLANNED = pa.schema([field for field in tables.PLAN if field.name != "shard"])
SETTINGS = {"corpus": "/data", "shard_minutes": 1.0}


def planned(ids, seconds=10.0, **columns):
    rows = [{"utterance_id": one, "audio_uri": f"/a/{one}", "duration_s": seconds} | columns for one in ids]
    return tables.from_rows(rows, PLANNED)


def shard_sizes(shards):
    sizes = []
    for index, shard in enumerate(shards):
        assert set(shard.column("shard").to_pylist()) == {index}
        sizes.append(shard.num_rows)
    return sizes


def together(shards):
    return pa.concat_tables(shards)


def refused(call, *args):
    with pytest.raises(UserError) as caught:
        list(call(*args))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


def test_rows_are_sorted_by_the_bytes_of_their_ids():
    ids = ["b", "a", "a/b", "a#1", "Z", "é", "\uffee", "\U0001f600", "zz", "a-b", "10", "9"]
    table = together(cut(planned(ids), 60))
    assert table.schema == tables.PLAN
    # UTF-16, which some systems sort by, puts U+1F600 before U+FFEE.
    assert table.column("utterance_id").to_pylist() == sorted(ids, key=lambda one: one.encode())
    assert table.column("audio_uri").to_pylist() == [f"/a/{one}" for one in sorted(ids, key=lambda one: one.encode())]


def test_shards_hold_up_to_their_minutes():
    assert shard_sizes(cut(planned([f"{n:03}" for n in range(20)], 10.0), 1)) == [6, 6, 6, 2]
    assert shard_sizes(cut(planned([f"{n:03}" for n in range(10)], 6.1), 1)) == [9, 1]
    assert shard_sizes(cut(planned([f"{n:03}" for n in range(600)], 0.1), 1)) == [600]  # sums of 0.1 are exact
    assert shard_sizes(cut(planned(["a", "b", "c"], 100.0), 1)) == [1, 1, 1]


def test_shards_hold_at_most_4096_utterances():
    assert shard_sizes(cut(planned([f"{n:05}" for n in range(9000)], 0.0), 60)) == [4096, 4096, 808]


@pytest.mark.parametrize(
    ("columns", "seconds"),
    [
        ({"duration_s": 30.0, "byte_size": 1}, 30.0),
        ({"duration_s": None, "start_s": 5.0, "end_s": 25.0, "byte_size": 10**9}, 20.0),
        ({"duration_s": None, "end_s": 15.0}, 15.0),
        ({"duration_s": None, "byte_size": 320_000}, 20.0),
        ({"duration_s": None, "byte_size": 10**9, "start_s": 5.0}, 10.0),  # a piece of a file: its size says nothing
        ({"duration_s": None}, 10.0),
        ({"duration_s": None, "audio_uri": None, "error": "bad_manifest_row: x"}, 0.0),
    ],
)
def test_seconds_of_an_utterance(store, columns, seconds):
    made = write_plan(store, cut(planned(["a", "b"], **columns), 600), SETTINGS)
    assert made.without(()) == [Shard(0, 0, 2, 2 * seconds)]


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_shards_of_no_minutes(minutes):
    assert "give more than 0" in refused(cut, planned(["a"]), minutes)


def test_duplicate_ids_are_counted_and_named():
    message = refused(cut, planned(["b", "a", "c", "a", "b", "a", "row-3", "row-3"]), 60)
    assert message.startswith("duplicate ids: 7 rows share 3 ids (a, b, row-3);")
    assert "9 rows share 9" not in refused(cut, planned([f"{n}" for n in range(9)] * 2), 60)
    assert "(0, 1, 2, ...)" in refused(cut, planned([f"{n}" for n in range(9)] * 2), 60)
    assert "2 rows share 1 id (x)" in refused(cut_text, planned(["x", "x"]))


def test_text_is_cut_by_rows():
    rows = tables.from_rows([{"utterance_id": f"line-{n:06}", "text": "x"} for n in range(2500)], PLANNED)
    assert shard_sizes(cut_text(rows)) == [1000, 1000, 500]


def test_a_plan_comes_back_shard_by_shard(store):
    references = [{"language": "de", "text": "ja"}]
    given = planned([f"{n:05}" for n in range(2003)], 7.0, references=references, etag="e", start_s=0.5)
    rows = list(cut(given, 0.15))
    made = write_plan(store, rows, SETTINGS)
    assert load_plan(store) == made
    assert (made.shards, made.utterances, made.unknown_durations) == (2003, 2003, 0)
    assert made.hours == pytest.approx(2003 * 7 / 3600, abs=1e-6)
    assert store.find("plan") == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    for index in (0, 999, 1000, 2002):
        shard = read_shard(store, index)
        assert shard.schema == tables.PLAN
        assert shard.to_pylist() == rows[index].to_pylist()
    parts = [pq.ParquetFile(store.path(f"plan/part-{n:05}.parquet")) for n in range(3)]
    assert [part.num_row_groups for part in parts] == [1000, 1000, 3]
    assert {part.schema_arrow.metadata[b"spire_ray.fingerprint"].decode() for part in parts} == {made.fingerprint}


def test_a_bit_that_flips_on_its_way_changes_no_shard(store, monkeypatch):
    ids = [f"{n:03}" for n in range(40)]
    assert write_plan(store, cut(planned(ids, reference="Wer spricht?"), 1), SETTINGS).shards == 7
    shards = [read_shard(store, index) for index in range(7)]
    (path,) = Path(store.path("plan")).iterdir()
    data = path.read_bytes()
    monkeypatch.setattr(locations, "FIRST_WAIT_S", 0.0)
    chance = random.Random(0)
    for bit in chance.sample(range(8 * len(data)), 400):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        bodies = iter([bytes(flipped)])
        monkeypatch.setattr(type(store.fs), "open", lambda *given, bodies=bodies, **how: io.BytesIO(next(bodies, data)))
        index = chance.randrange(7)
        assert read_shard(store, index) == shards[index], bit


def test_plan_json_says_where_each_shard_lies(store):
    rows = cut(planned([f"{n:05}" for n in range(1200)], 40.0), 1)
    write_plan(store, rows, SETTINGS)
    written = json.loads(store.get("plan.json"))
    assert written["parts"] == {"plan/part-00000.parquet": [0, 999], "plan/part-00001.parquet": [1000, 1199]}
    assert written["settings"] == SETTINGS
    assert written["shard_utterances"] == [1] * 1200
    assert written["shard_seconds"] == [40.0] * 1200


def test_a_plan_names_what_is_left_to_do(store):
    made = write_plan(store, cut(planned(["a", "b", "c", "d"], 40.0), 1), SETTINGS)
    assert made.without({0: 0, 2: 1}) == [Shard(1, 0, 1, 40.0), Shard(3, 0, 1, 40.0)]


def test_durations_that_are_not_known_are_counted(store):
    rows = pa.concat_tables(
        [
            planned(["a"], 36.0),
            planned(["b"], None, byte_size=16_000),
            planned(["row-0"], None, audio_uri=None, error="bad_manifest_row: x"),
        ]
    )
    made = write_plan(store, cut(rows, 60), SETTINGS)
    assert (made.hours, made.unknown_durations, made.utterances) == (0.01, 1, 3)


def test_planning_again_after_a_kill_gives_the_same_bytes(store, tmp_path):
    rows = list(cut(planned([f"{n:05}" for n in range(1001)], 60.0), 1))
    made = write_plan(store, rows, SETTINGS)
    killed = Store(str(tmp_path / "killed"))
    killed.create("plan/part-00000.parquet", store.get("plan/part-00000.parquet"))
    shuffled = planned([f"{n:05}" for n in reversed(range(1001))], 60.0)
    assert write_plan(killed, cut(shuffled, 1), SETTINGS) == made
    for key in ("plan.json", "plan/part-00000.parquet", "plan/part-00001.parquet"):
        assert killed.get(key) == store.get(key)


def test_parts_left_by_a_planning_of_something_else_are_refused(store, tmp_path):
    write_plan(store, cut(planned(["a", "b"]), 60), SETTINGS)
    killed = Store(str(tmp_path / "killed"))
    killed.create("plan/part-00000.parquet", store.get("plan/part-00000.parquet"))
    assert "use another OUT" in refused(write_plan, killed, cut(planned(["a", "c"]), 60), SETTINGS)
    assert "use another OUT" in refused(write_plan, killed, cut(planned(["a", "b"]), 60), {"corpus": "/other"})
    assert load_plan(killed) is None


def test_a_plan_that_is_there_stays(store):
    made = write_plan(store, cut(planned(["a", "b"]), 60), SETTINGS)
    before = store.get("plan.json")
    assert write_plan(store, cut(planned(["c"]), 60), SETTINGS) == made
    assert store.get("plan.json") == before
    message = refused(write_plan, store, cut(planned(["a"]), 60), SETTINGS | {"shard_minutes": 2.0})
    assert "was made with shard_minutes = 1.0, this run asks for shard_minutes = 2.0: use another OUT" in message


def test_refuse_other_looks_at_the_fields_asked_for(store):
    made = write_plan(store, cut(planned(["a"]), 60), SETTINGS)
    made.refuse_other(store, {"corpus": "/data"})
    assert 'corpus = "/data"' in refused(made.refuse_other, store, {"corpus": "/other"})
    assert "text = no value" in refused(made.refuse_other, store, {"text": True})


def test_load_plan_without_one_and_of_another_version(store):
    assert load_plan(store) is None
    store.create("plan.json", b'{"format": 2}')
    assert "format 2" in refused(load_plan, store)


def test_two_plannings_at_once_with_other_input(store, monkeypatch):
    rows, other = list(cut(planned(["a", "b"]), 60)), list(cut(planned(["a"]), 60))
    write_plan(store, other, SETTINGS)
    monkeypatch.setattr(plan, "load_plan", lambda store: None)  # as it was before the other one had finished
    store.path = lambda key, path=store.path: path(key.replace("plan/", "elsewhere/"))
    assert "use another OUT" in refused(write_plan, store, rows, SETTINGS)


def test_fingerprint_is_of_the_canonical_json():
    expected = hashlib.sha256('{"a":[1,2.5],"b":{"c":"é"}}'.encode()).hexdigest()
    assert fingerprint({"b": {"c": "é"}, "a": [1, 2.5]}) == expected
    assert fingerprint({"a": (1, 2.5), "b": {"c": "é"}}) == expected
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": float("nan")})


def test_freeze_refuses_other_settings_by_name(store):
    settings = {"layer": 22, "codebook": {"sha256": "ab", "k": 5000}, "languages": ("de", "fr")}
    mark = freeze(store, "units.json", settings)
    assert mark == fingerprint(settings)
    data = store.get("units.json")
    assert freeze(store, "units.json", dict(reversed(settings.items()))) == mark
    assert refused(freeze, store, "units.json", settings | {"layer": 21}) == (
        f"{store.url}/units.json was made with layer = 22, this run asks for layer = 21: use another OUT"
    )
    other = settings | {"codebook": {"sha256": "cd", "k": 5000}, "dtype": "bf16"}
    message = refused(freeze, store, "units.json", other)
    assert 'codebook.sha256 = "ab" and dtype = no value, this' in message
    assert 'codebook.sha256 = "cd" and dtype = "bf16": use' in message
    assert "layer" not in message
    assert "languages" in refused(freeze, store, "units.json", settings | {"languages": ["de"]})
    assert store.get("units.json") == data
    assert json.loads(data)["settings"] == settings | {"languages": ["de", "fr"]}
    assert json.loads(data)["fingerprint"] == mark


def test_what_is_recorded_beside_the_settings_is_not_compared(store):
    mark = freeze(store, "units.json", {"layer": 22}, {"encoder": "/here"})
    assert freeze(store, "units.json", {"layer": 22}, {"encoder": "/there"}) == mark
    assert json.loads(store.get("units.json"))["recorded"] == {"encoder": "/here"}
