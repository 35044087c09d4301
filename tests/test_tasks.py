"""What is asked about an utterance, and what is not, in the engine."""

from dataclasses import replace

import pytest

from llm import MAX_TOKENS, NEWLINE, Engine, Reference, same, speech, utterances
from llm import checkpoint as checkpoint
from llm import engine as engine
from llm import orphaned as orphaned
from llm import reference as reference
from spire_ray.checkpoints import Checkpoint
from spire_ray.errors import UserError
from spire_ray.generate import TextTasks, check_tasks


def test_self_cascade_translates_its_own_transcript(
    engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = utterances(4, seed=1)
    stage = engine.stage(monkeypatch, languages=("de",), method="self-cascade", max_tokens=12)
    transcripts, translations, _ = engine.run(stage, rows)
    for row, transcript, translation in zip(rows, transcripts, translations, strict=True):
        heard = reference.answer(reference.chat(speech(row, "en")), 12)
        same(transcript, heard)
        question = f"Translate the following text from English to German.\nEnglish: {heard['text']}\nGerman:"
        same(translation, reference.answer(reference.chat(question), 12))
        assert translation["method"] == "self-cascade"


def test_multi_turn_continues_from_its_own_transcript(
    engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = utterances(4, seed=2)
    stage = engine.stage(monkeypatch, languages=("zh",), method="multi-turn", max_tokens=12, transcripts=False)
    transcripts, translations, _ = engine.run(stage, rows)
    assert transcripts == []
    for row, translation in zip(rows, translations, strict=True):
        heard = reference.answer(reference.chat(speech(row, "en")), 12)
        turns = (speech(row, "en"), heard["text"], "Chinese:")
        same(translation, reference.answer(reference.chat(*turns), 12))
        assert (translation["method"], translation["target_language"]) == ("multi-turn", "zh")


def test_text_is_translated_from_each_rows_language(
    engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = engine.stage(monkeypatch, languages=("en",), method="text", transcripts=False, source_language="fr")
    transcripts, translations, made = engine.run(
        stage,
        [
            {"utterance_id": "a", "text": "Guten Abend, Straße!", "source_language": "de"},
            {"utterance_id": "b", "text": "le matin"},
            {"utterance_id": "c", "error": "bad_manifest_row: no text"},
        ],
    )
    assert transcripts == []
    for row, name, text in zip(translations, ("German", "French"), ("Guten Abend, Straße!", "le matin"), strict=False):
        question = f"Translate the following text from {name} to English.\n{name}: {text}\nEnglish:"
        same(row, reference.answer(reference.chat(question)))
        assert row["method"] == "text"
    assert (translations[2]["error"], translations[2]["text"]) == ("bad_manifest_row: no text", None)
    assert made.column("audio_seconds")[0].as_py() == 0


def test_an_empty_transcript_is_not_translated(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("self-cascade", "multi-turn"):
        stage = engine.stage(monkeypatch, languages=("de",), method=method)
        stage.sampling.logit_bias = {NEWLINE: 100.0}  # the engine answers with a newline at once
        transcripts, translations, _ = engine.run(stage, utterances(1))
        assert (transcripts[0]["text"], transcripts[0]["generated_tokens"]) == ("", 1)
        assert (translations[0]["text"], translations[0]["error"], translations[0]["generated_tokens"]) == ("", None, 0)
        assert len(stage.engine.prompts) == 1


def test_rows_without_units_keep_their_reason(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = utterances(1)[0]
    rows = [
        {"utterance_id": "broken", "error": "unreadable: no frames"},
        {"utterance_id": "quiet", "error": "silent", "duration_s": 3.0},
        {"utterance_id": "room-tone", "units": [1, 2, 3], "duration_s": 3.0, "speech_ratio": 0.0},
        {"utterance_id": "strange", "units": []},
        {**fine, "speech_ratio": 0.01},
    ]
    for method in ("direct", "self-cascade", "multi-turn"):
        stage = engine.stage(monkeypatch, languages=("de", "fr"), method=method, max_tokens=2)
        transcripts, translations, _ = engine.run(stage, rows)
        expected = {
            "broken": "no_units: unreadable: no frames",
            "quiet": "no_units: silent",
            "room-tone": "silent: no speech was found in it",
            "strange": "no_units: the units row has none",
            fine["utterance_id"]: None,
        }
        assert {row["utterance_id"]: row["error"] for row in transcripts} == expected
        assert len(translations) == 10
        assert {tuple(unit for unit in asked if 517 <= unit < 617) for asked in stage.engine.prompts} <= {
            tuple(517 + unit for unit in fine["units"]),
            (),
        }
        for row in translations:
            assert row["error"] == expected[row["utterance_id"]]
            assert (row["text"] is None) == (row["error"] is not None)
            assert row["error"] is None or (row["prompt_tokens"], row["generated_tokens"], row["flags"]) == (0, 0, [])


def test_a_prompt_must_leave_room_for_its_answer(
    engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = len(reference.chat(speech({"units": []}, "en")))
    room = 512 - MAX_TOKENS - around  # units that just fit
    rows = [
        {"utterance_id": "a-fits", "units": [n % 97 for n in range(room)]},
        {"utterance_id": "b-does-not", "units": [n % 97 for n in range(room + 1)]},
    ]
    for method in ("direct", "self-cascade"):
        stage = engine.stage(monkeypatch, languages=("de",), method=method)
        transcripts, translations, _ = engine.run(stage, rows)
        assert transcripts[0]["error"] is None
        too_long = f"context_overflow: {512 - MAX_TOKENS + 1} prompt tokens + {MAX_TOKENS} to generate exceed 512"
        assert transcripts[1]["error"] == too_long
        if method == "self-cascade":
            assert translations[1]["error"] == too_long


def test_what_a_checkpoint_cannot_do(checkpoint: Checkpoint) -> None:
    text_alone = replace(checkpoint, speech=False)
    raw = replace(checkpoint, prompt_style="raw")
    cases = [
        (checkpoint, TextTasks(languages=("de", "xx")), "'xx'"),
        (checkpoint, TextTasks(languages=("de", "en")), "already in 'en'"),
        (checkpoint, TextTasks(languages=("de", "de")), "twice"),
        (checkpoint, TextTasks(transcripts=False), "nothing to generate"),
        (checkpoint, TextTasks(languages=("de",), method="text"), "no transcripts"),
        (checkpoint, TextTasks(max_tokens=0), "at least 1"),
        (text_alone, TextTasks(languages=("de",)), "not speech"),
        (raw, TextTasks(languages=("de",), method="multi-turn"), "chat template"),
    ]
    for given, tasks, message in cases:
        with pytest.raises(UserError, match=message) as fault:
            check_tasks(given, tasks)
        assert "\n" not in str(fault.value)
