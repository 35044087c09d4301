"""Each corpus on a folder of its published layout, through its job's CORPUS; audio is compared sample by sample."""

import json
import sys
from pathlib import Path

import pandas
import pytest

from corpora import empty_tagged, heard, only, refused, rows_of, sound, write_sound

sys.path.append(str(Path(__file__).parents[1] / "jobs"))
import common_voice
import covost2
import europarl_st
import fleurs
import gigaspeech
import librispeech
import multilingual_librispeech
import spgispeech
import voxpopuli


def said(rows):
    return {row["utterance_id"]: row["reference"] for row in rows}


def translations(row):
    return {one["language"]: one["text"] for one in row["references"]}


def test_librispeech(tmp_path):
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "61" / "70968"
    for n in range(3):
        write_sound(chapter / f"61-70968-{n:04}.flac", n)
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN A\n61-70968-0001 GIVE NOT SO\n")
    (tmp_path / "LibriSpeech" / "SPEAKERS.TXT").write_text(";ID |SEX\n")
    rows = rows_of(librispeech.corpus(f"{tmp_path}/LibriSpeech"))
    assert said(rows) == {
        "61/70968/61-70968-0000.flac": "HE BEGAN A",
        "61/70968/61-70968-0001.flac": "GIVE NOT SO",
        "61/70968/61-70968-0002.flac": None,
    }
    assert [row["speaker"] for row in rows] == ["61", "61", None]
    assert [row["duration_s"] for row in rows] == [1.0] * 3
    assert (heard(rows[1]) == sound(1)).all()
    glob = rows_of(f"{tmp_path}/LibriSpeech/*/61/*/*.flac")
    assert said(glob)["test-clean/61/70968/61-70968-0000.flac"] == "HE BEGAN A"


def test_multilingual_librispeech(tmp_path):
    split = tmp_path / "mls_english" / "test"
    write_sound(split / "audio" / "10226" / "10111" / "10226_10111_000000.flac", 1, 1.5)
    write_sound(split / "audio" / "4800" / "10003" / "4800_10003_000000.flac", 2, 2.0)
    (split / "transcripts.txt").write_text(
        "10226_10111_000000\tgarden of the gods\n4800_10003_000000\toh my dear\nbroken line\n"
    )
    address = "http://www.archive.org/download/garden_1111/garden_01_64kb.mp3"
    (split / "segments.txt").write_text(
        f"10226_10111_000000\t{address}\t10.5\t12.0\n4800_10003_000000\t{address}\t0\t2\n"
    )
    one, two, bad = rows_of(multilingual_librispeech.corpus(f"{tmp_path}/mls_english"))
    assert said([one, two]) == {"10226_10111_000000": "garden of the gods", "4800_10003_000000": "oh my dear"}
    assert [(row["speaker"], row["duration_s"]) for row in (one, two)] == [("10226", 1.5), ("4800", 2.0)]
    assert one["start_s"] is None
    assert (heard(one) == sound(1, 1.5)).all()
    assert (heard(two) == sound(2, 2.0)).all()
    assert "transcripts.txt line 3" in bad["error"]


def test_multilingual_librispeech_as_opus(tmp_path):
    write_sound(tmp_path / "audio" / "1" / "2" / "1_2_000000.opus", 1, 1.0, 48_000, "OGG")
    (tmp_path / "transcripts.txt").write_text("1_2_000000\tx\n")
    row = only(tmp_path)
    assert row["audio_uri"] == f"{tmp_path}/audio/1/2/1_2_000000.opus"
    assert row["duration_s"] is None


def test_voxpopuli(tmp_path):
    folder = tmp_path / "transcribed_data" / "en"
    name = "20180116-0900-PLENARY-15-en_20180116-17:28:18_0"
    write_sound(folder / "2018" / f"{name}.ogg", 1, 2.0, format="OGG")
    (folder / "asr_test.tsv").write_text(
        "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\tis_gold_transcript\taccent\n"
        f'{name}\tMr President, "yes".\tmr president yes\t28214\ttest\tmale\tTrue\tNone\n'
        f"20090112-0900-PLENARY-2-en_1\tOnly raw.\t\t1\ttest\tfemale\tFalse\tNone\n"
    )
    one, two = rows_of(voxpopuli.corpus(str(tmp_path)))
    assert (one["utterance_id"], one["reference"], one["speaker"]) == (name, "mr president yes", "28214")
    assert len(heard(one)) == 32_000
    assert two["reference"] == "Only raw."
    assert two["audio_uri"] == f"{folder}/2009/20090112-0900-PLENARY-2-en_1.ogg"


@pytest.mark.parametrize("inside", ["", "spgispeech/"])
def test_spgispeech(tmp_path, inside):
    call = "13aa6c0669adb5544a0d62beef677189"
    write_sound(tmp_path / f"{inside}val" / call / "29.wav", 1)
    (tmp_path / "val.csv").write_text(
        "wav_filename|wav_filesize|transcript\n"
        f'{call}/29.wav|32044|rather than something, that "we" are more concerned by.\n'
    )
    row = only(spgispeech.corpus(str(tmp_path)))
    assert row["utterance_id"] == f"{inside}val/{call}/29.wav"
    assert row["reference"] == 'rather than something, that "we" are more concerned by.'
    assert (heard(row) == sound(1)).all()


def test_common_voice(tmp_path):
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\tlocale\tsegment\n"
    write_sound(tmp_path / "clips" / "common_voice_en_1.mp3", 1, format="MP3")
    (tmp_path / "test.tsv").write_text(
        f'{header}abc\tcommon_voice_en_1.mp3\t"Stop, he said\t2\t0\t\t\t\ten\t\nabc\told\tNo suffix\t2\t0\t\t\t\ten\t\n'
    )
    one, two = rows_of(common_voice.corpus(str(tmp_path)))
    assert (one["utterance_id"], one["reference"]) == ("clips/common_voice_en_1.mp3", '"Stop, he said')
    assert (one["speaker"], one["source_language"]) == ("abc", "en")
    assert Path(one["audio_uri"]).read_bytes() == (tmp_path / "clips" / "common_voice_en_1.mp3").read_bytes()
    assert two["utterance_id"] == "clips/old.mp3"


def write_covost(folder, target, *rows):
    """As `get_covost_splits.py` writes them."""
    columns = ["path", "sentence", "translation", "client_id"]
    pandas.DataFrame(rows, columns=columns).to_csv(
        folder / f"covost_v2.en_{target}.test.tsv", sep="\t", header=True, index=False, escapechar="\\", quoting=3
    )


def test_covost2(tmp_path):
    write_sound(tmp_path / "clips" / "common_voice_en_1.mp3", 1, format="MP3")
    write_covost(
        tmp_path,
        "de",
        ["common_voice_en_1.mp3", 'Say "yes", or C:\\.', 'Sag "ja".', "abc"],
        ["b.mp3", "B.", "Be.", "d"],
    )
    write_covost(
        tmp_path, "zh-CN", ["common_voice_en_1.mp3", 'Say "yes", or C:\\.', "说是", "abc"], ["c.mp3", "C", "丙", "d"]
    )
    rows = {row["utterance_id"]: row for row in rows_of(covost2.corpus(str(tmp_path)))}
    assert set(rows) == {"clips/common_voice_en_1.mp3", "clips/b.mp3", "clips/c.mp3"}
    both = rows["clips/common_voice_en_1.mp3"]
    assert (both["reference"], both["speaker"]) == ('Say "yes", or C:\\.', "abc")
    assert translations(both) == {"de": 'Sag "ja".', "zh": "说是"}
    assert translations(rows["clips/c.mp3"]) == {"zh": "丙"}
    alone = rows_of(tmp_path / "covost_v2.en_de.test.tsv")
    assert [translations(row) for row in alone] == [{"de": 'Sag "ja".'}, {"de": "Be."}]
    (tmp_path / "covost_v2.en_de.tsv").write_text("path\ttranslation\tsplit\nb.mp3\tBe.\ttest\n")
    assert only(tmp_path / "covost_v2.en_de.tsv")["utterance_id"] == "clips/b.mp3"


def test_fleurs(tmp_path):
    data = tmp_path / "data"
    names = ["10004088536354799741.wav", "10023718195674729531.wav"]
    for n, name in enumerate(names):
        write_sound(data / "en_us" / "audio" / "test" / name, n, 2.0)
    line = "{}\t{}\t{}\t{}\t{}\t{}\t{}\n"
    (data / "en_us" / "test.tsv").write_text(
        line.format(1675, names[0], 'A "tornado" is.', "a tornado is", "a | t |", 32_000, "FEMALE")
        + line.format(1675, names[1], 'A "tornado" is.', "a tornado is", "a | t |", 32_000, "MALE")
        + line.format(7, "gone.wav", "None.", "none", "n |", 16_000, "MALE")
    )
    for folder, text in (("de_de", "Ein Tornado."), ("cmn_hans_cn", "龙卷风"), ("pt_br", "Um tornado.")):
        (data / folder).mkdir()
        (data / folder / "test.tsv").write_text(line.format(1675, "x.wav", text, text.lower(), "", 1, "MALE"))
    (data / "fr_fr").mkdir()
    one, two, three = rows_of(fleurs.corpus(str(tmp_path)))
    assert [one["utterance_id"], two["utterance_id"]] == [f"audio/test/{name}" for name in names]
    assert (one["reference"], one["duration_s"], one["source_language"]) == ('A "tornado" is.', 2.0, "en")
    assert translations(one) == translations(two) == {"de": "Ein Tornado.", "zh": "龙卷风", "pt": "Um tornado."}
    assert three["references"] is None
    assert (heard(two) == sound(1, 2.0)).all()


def write_europarl(root, target, lines, english, translated):
    folder = root / "en" / target / "test"
    folder.mkdir(parents=True)
    (folder / "segments.lst").write_text(lines)
    (folder / "segments.en").write_text(english)
    (folder / f"segments.{target}").write_text(translated)
    (folder / "speeches.lst").write_text("en.20080924.31.3-243\n")


def test_europarl_st(tmp_path):
    speech = "en.20080924.31.3-243"
    write_sound(tmp_path / "en" / "audios" / f"{speech}.flac", 1, 10.0)
    (tmp_path / "en" / "audios" / f"{speech}.m4a").write_bytes(b"the original")
    write_europarl(tmp_path, "de", f"{speech} 0.0 5.73\n{speech} 5.73 9.5\n", "Madam.\nThank you.\n", "Frau.\nDanke.\n")
    write_europarl(tmp_path, "fr", f"{speech} 0.0 5.73\n{speech} 6 9\n", "Madam.\nThank\n", "Madame.\nMerci\n")
    rows = {row["utterance_id"]: row for row in rows_of(europarl_st.corpus(str(tmp_path)))}
    assert list(rows) == [f"{speech}#0-5730", f"{speech}#5730-9500", f"{speech}#6000-9000"]
    first, second, _ = rows.values()
    assert (first["reference"], first["recording_id"], first["source_language"]) == ("Madam.", speech, "en")
    assert translations(first) == {"de": "Frau.", "fr": "Madame."}
    assert (second["start_s"], second["end_s"], translations(second)) == (5.73, 9.5, {"de": "Danke."})
    assert (heard(second) == sound(1, 10.0)[91_680:152_000]).all()
    one_direction = rows_of(tmp_path / "en" / "de" / "test")
    assert [translations(row) for row in one_direction] == [{"de": "Frau."}, {"de": "Danke."}]


def test_europarl_st_as_it_is_released(tmp_path):
    (tmp_path / "en" / "audios").mkdir(parents=True)
    (tmp_path / "en" / "audios" / "a.m4a").write_bytes(b"x")
    write_europarl(tmp_path, "de", "a 0 1\n", "A\n", "B\n")
    assert "audios holds .m4a: convert it to FLAC" in refused(europarl_st.corpus(str(tmp_path)))
    write_sound(tmp_path / "en" / "audios" / "a.flac", 1)
    (tmp_path / "en" / "de" / "test" / "segments.de").write_text("B\nC\n")
    assert "differ in lines" in refused(europarl_st.corpus(str(tmp_path)))


SEGMENTS = [
    ("POD0000000001_S0000008", 1.0, 2.5, ["{XL}", "{TEST}"], "DOUGLAS MCGRAY <COMMA> IS GOING <PERIOD>"),
    ("POD0000000001_S0000009", 2.5, 3.0, ["{TEST}"], "<MUSIC>"),
    ("POD0000000001_S0000010", 3.0, 4.0, ["{XL}"], "WHY <QUESTIONMARK> GO <EXCLAMATIONPOINT>"),
]


def write_gigaspeech(folder, copies=1):
    audio = {
        **{"title": "The [Best] {of}", "url": "99percentinvisible.org/[x]", "source": "podcast", "codec": "opus"},
        **{"path": "audio/podcast/P0001/POD0000000001.opus", "aid": "POD0000000001", "channels": 1, "format": "opus"},
        **{"md5": "0", "sample_rate": 16_000, "speaker": "N/A", "duration": 5.0, "subsets": ["{XL}"]},
        "segments": [
            {"sid": sid, "speaker": "N/A", "begin_time": start, "end_time": end, "subsets": subsets, "text_tn": text}
            for sid, start, end, subsets, text in SEGMENTS
        ],
    }
    whole = {
        "dataset": "GigaSpeech",
        "language": "EN",
        "version": "v1.0.0",
        "date": "2021-07-01",
        "audios": [audio] * copies,
    }
    (folder / "GigaSpeech.json").write_text(json.dumps(whole, indent=2, ensure_ascii=False))


def test_gigaspeech(tmp_path, monkeypatch):
    write_gigaspeech(tmp_path)
    write_sound(tmp_path / "audio" / "podcast" / "P0001" / "POD0000000001.opus", 1, 5.0, 48_000, "OGG")
    monkeypatch.setattr(gigaspeech, "SUBSET", "")
    rows = rows_of(gigaspeech.corpus(str(tmp_path)))
    assert said(rows) == {
        "POD0000000001_S0000008": "DOUGLAS MCGRAY, IS GOING.",
        "POD0000000001_S0000009": None,
        "POD0000000001_S0000010": "WHY? GO!",
    }
    first = rows[0]
    assert first["audio_uri"] == f"{tmp_path}/audio/podcast/P0001/POD0000000001.opus"
    assert (first["start_s"], first["end_s"], first["recording_id"]) == (1.0, 2.5, "POD0000000001")
    assert (first["corpus"], first["speaker"]) == ("GigaSpeech XL TEST", None)
    assert len(heard(first)) == 72_000
    monkeypatch.setattr(gigaspeech, "SUBSET", "TEST")
    manifest = gigaspeech.corpus(str(tmp_path))
    assert manifest == f"{tmp_path}/GigaSpeech.TEST.jsonl"
    assert rows_of(manifest) == rows[:2]
    assert gigaspeech.corpus(str(tmp_path)) == manifest


def test_gigaspeech_is_read_in_pieces_and_its_end_is_missed(tmp_path, monkeypatch):
    from spire_ray import gigaspeech as reader

    write_gigaspeech(tmp_path, copies=3)
    whole = rows_of(tmp_path / "GigaSpeech.json")
    assert len(whole) == 9
    for block in (1, 7, 100, 4096):
        monkeypatch.setattr(reader, "BLOCK", block)
        assert rows_of(tmp_path) == whole
    text = (tmp_path / "GigaSpeech.json").read_text()
    (tmp_path / "GigaSpeech.json").write_text(text[: len(text) - 200])
    assert "ends early" in refused(tmp_path)


def test_a_published_layout_on_object_storage(tmp_path):
    tagged = empty_tagged()
    tagged.pipe_file("/b/ls/61/70968/61-70968-0000.flac", write_sound(tmp_path / "a.flac", 1).read_bytes())
    tagged.pipe_file("/b/ls/61/70968/61-70968.trans.txt", b"61-70968-0000 HE BEGAN\n")
    row = only("tagged://b/ls")
    assert (row["utterance_id"], row["reference"]) == ("61/70968/61-70968-0000.flac", "HE BEGAN")
    assert (heard(row) == sound(1)).all()
