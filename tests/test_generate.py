import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bundle import make_bundle, make_tokenizer
from spire_ray import generate
from spire_ray.answers import read_answer
from spire_ray.checkpoints import Checkpoint, resolve
from spire_ray.engine import EngineSettings, full_context_bytes, start_engine, stop_token_ids
from spire_ray.errors import MachineFault, UserError
from spire_ray.generate import GenerateText, TextTasks, check_tasks
from spire_ray.tables import SOURCES, TRANSCRIPTS, TRANSLATIONS, from_rows, nest, unnest

SETTINGS = EngineSettings(
    "cpu", "float32", max_num_seqs=16, enforce_eager=True, block_size=32, kv_cache_memory_bytes=32 << 20, threads=1
)
MAX_TOKENS = 40
NEWLINE = 13  # Llama-2's <0x0A>, and the tiny tokenizer's
NAMES = {"en": "English", "de": "German", "fr": "French", "zh": "Chinese"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(make_bundle(tmp_path_factory.mktemp("checkpoint"), context=512)), need=("llm",))


@dataclass
class Recording:
    """The real engine, and the token ids that went in and came out of it, in order of submission."""

    engine: Any
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    answers: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    async def get_supported_tasks(self) -> Any:
        return await self.engine.get_supported_tasks()

    async def generate(self, prompt: Any, sampling: Any, request_id: str) -> AsyncIterator[Any]:
        asked = tuple(prompt["prompt_token_ids"])
        self.prompts.append(asked)
        async for output in self.engine.generate(prompt, sampling, request_id):
            self.answers[asked] = list(output.outputs[0].token_ids)
            yield output


@dataclass
class Engine:
    """One engine and its event loop for the whole module: starting it takes longer than all the tests."""

    checkpoint: Checkpoint
    engine: Any
    loop: asyncio.AbstractEventLoop

    def stage(self, monkeypatch: pytest.MonkeyPatch, **tasks: Any) -> GenerateText:
        recording = Recording(self.engine)
        monkeypatch.setattr(generate, "start_engine", lambda *started: recording)
        return GenerateText(self.checkpoint, TextTasks(**{"max_tokens": MAX_TOKENS, **tasks}), SETTINGS)

    def run(self, stage: GenerateText, rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any], pa.Table]:
        """The stage's transcripts and translations as dicts, and its row."""
        given = nest(4, 1, utterances=from_rows(rows, SOURCES))
        made = self.loop.run_until_complete(stage(given))
        transcripts, translations = unnest(made, "transcripts", TRANSCRIPTS), unnest(made, "translations", TRANSLATIONS)
        return transcripts.to_pylist(), translations.to_pylist(), made


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint, orphaned: subprocess.Popen[str]) -> Iterator[Engine]:
    """Starts while the process of `orphaned` does: both wait for a child most of the time."""
    loop = asyncio.new_event_loop()
    assert checkpoint.llm is not None
    started = start_engine(checkpoint.llm, SETTINGS)
    yield Engine(checkpoint, started, loop)

    async def stop() -> None:
        started.shutdown(timeout=0.1)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop.run_until_complete(stop())
    loop.close()


class Reference:
    """transformers' own greedy generation from the written prompt, one prompt at a time, and what SPIRE makes of it."""

    def __init__(self, llm: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(llm)
        self.model = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32).eval()
        self.ends = [self.tokenizer.eos_token_id, NEWLINE]

    def chat(self, *turns: str) -> tuple[int, ...]:
        messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tuple(self.tokenizer(text)["input_ids"])

    def answer(self, prompt: tuple[int, ...], max_tokens: int = MAX_TOKENS) -> dict[str, Any]:
        made = self.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=self.ends,
            output_logits=True,
            return_dict_in_generate=True,
        )
        ids = made.sequences[0, len(prompt) :].tolist()
        logprobs = [torch.log_softmax(step[0], -1)[token].item() for step, token in zip(made.logits, ids, strict=True)]
        ended = ids[-1] in self.ends
        text = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
        return {
            "ids": ids,
            "text": re.split(r"\n|\\n|<\\s>|<END>", text)[0].strip(),
            "finish_reason": "stop" if ended else "length",
            "avg_logprob": sum(logprobs) / len(logprobs),
            "prompt_tokens": len(prompt),
            "generated_tokens": len(ids),
            "flags": [] if ended else ["truncated"],
            "error": None,
        }


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Reference:
    assert checkpoint.llm is not None
    return Reference(checkpoint.llm)


def utterances(count: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    lengths = random.integers(5, 120, count)
    return [
        {"utterance_id": f"u{n:02}", "units": random.integers(0, 100, length).tolist(), "duration_s": length / 35}
        for n, length in enumerate(lengths)
    ]


def speech(row: dict[str, Any], language: str) -> str:
    return f"Speech: {''.join(chr(0xF0000 + unit) for unit in row['units'])}\n{NAMES[language]}:"


def same(row: dict[str, Any], expected: dict[str, Any]) -> None:
    others = ("ids", "avg_logprob", "flags")
    assert {name: row[name] for name in expected if name not in others} == {
        name: value for name, value in expected.items() if name not in others
    }
    assert ("truncated" in row["flags"]) == (expected["flags"] == ["truncated"])
    assert row["avg_logprob"] == pytest.approx(expected["avg_logprob"], abs=1e-4)


def test_greedy_ids_are_those_of_transformers(
    engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = engine.stage(monkeypatch, languages=("fr", "de"))
    rows = utterances(10)
    transcripts, translations, made = engine.run(stage, rows[::-1])
    assert [row["utterance_id"] for row in transcripts] == [row["utterance_id"] for row in rows]
    assert [(row["utterance_id"], row["target_language"]) for row in translations] == [
        (row["utterance_id"], language) for row in rows for language in ("de", "fr")
    ]
    finishes = set()
    answers = {("en", row["utterance_id"]): row for row in transcripts}
    answers |= {(row["target_language"], row["utterance_id"]): row for row in translations}
    for row in rows:
        for language in ("en", "de", "fr"):
            prompt = reference.chat(speech(row, language))
            expected = reference.answer(prompt)
            assert stage.engine.answers[prompt] == expected["ids"]
            same(answers[language, row["utterance_id"]], expected)
            finishes.add((expected["finish_reason"], expected["ids"][-1] == NEWLINE))
    # Otherwise this test would not have seen every way to end.
    assert finishes == {("length", False), ("stop", False), ("stop", True)}
    assert {row["method"] for row in translations} == {"direct"}
    assert (made.column("shard").to_pylist(), made.column("attempt").to_pylist()) == ([4], [1])
    assert made.column("audio_seconds")[0].as_py() == pytest.approx(sum(row["duration_s"] for row in rows))
    assert made.column("generate_seconds")[0].as_py() > 0


def test_an_utterances_requests_are_side_by_side_and_share_their_speech(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = engine.stage(monkeypatch, languages=("de", "fr", "zh"), max_tokens=2)
    rows = utterances(20, seed=11)
    _, _, made = engine.run(stage, rows)
    offset, names = 517, [NAMES[code] for code in ("en", "de", "fr", "zh")]
    heard = [[token - offset for token in prompt if offset <= token < offset + 100] for prompt in stage.engine.prompts]
    assert heard == [row["units"] for row in rows for _ in names]
    for at in range(0, len(heard), len(names)):
        asked = [stage.tokenizer.decode(prompt) for prompt in stage.engine.prompts[at : at + 4]]
        assert [next(name for name in names if f"\n{name}:" in text) for text in asked] == names
    # Full blocks of 32 tokens of what four prompts have in common, for the three that follow the first.
    ideal = 0
    for at in range(0, len(heard), len(names)):
        columns = zip(*stage.engine.prompts[at : at + 4], strict=False)
        common = len(list(takewhile(lambda tokens: len(set(tokens)) == 1, columns)))
        ideal += 3 * (common // 32 * 32)
    assert made.column("cached_tokens")[0].as_py() >= ideal


def test_ten_tasks_find_their_speech_in_the_cache(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = engine.stage(monkeypatch, languages=("de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh"), max_tokens=4)
    rows = utterances(12, seed=21)
    _, _, made = engine.run(stage, rows)
    # Full blocks of 32 tokens of what an utterance's ten prompts have in common, for nine of the ten.
    ideal = 0
    for at in range(0, len(stage.engine.prompts), 10):
        prompts = stage.engine.prompts[at : at + 10]
        common = len(list(takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))))
        ideal += 9 * (common // 32 * 32)
    assert len(stage.engine.prompts) == 120
    assert made.column("shareable_tokens")[0].as_py() == ideal > 0
    # Of those at least 95 in 100 were found; no more is there but in prompts that begin alike by chance.
    assert 0.95 * ideal <= made.column("cached_tokens")[0].as_py() <= 1.05 * ideal


def test_beam_search_in_the_engine(engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = engine.stage(monkeypatch, languages=("de",), beam=3, max_tokens=12)
    rows = utterances(3, seed=5)
    transcripts, translations, _ = engine.run(stage, rows)
    for row, transcript, translation in zip(rows, transcripts, translations, strict=True):
        for language, answer in (("en", transcript), ("de", translation)):
            prompt = reference.chat(speech(row, language))
            found = reference.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=12,
                num_beams=3,
                do_sample=False,
                length_penalty=1.0,
                early_stopping=False,
                eos_token_id=reference.ends,
                output_scores=True,
                return_dict_in_generate=True,
            )
            ids = found.sequences[0, len(prompt) :].tolist()
            ends = [at + 1 for at, token in enumerate(ids) if token in reference.ends]
            ids = ids[: ends[0]] if ends else ids
            text = reference.tokenizer.decode(ids, skip_special_tokens=True)
            assert answer["text"] == re.split(r"\n|\\n|<\\s>|<END>", text)[0].strip()
            assert answer["avg_logprob"] == pytest.approx(found.sequences_scores[0].item(), abs=1e-4)
            assert (answer["generated_tokens"], answer["prompt_tokens"]) == (len(ids), len(prompt))
            assert answer["finish_reason"] == ("stop" if ends else "length")


def test_loops_end_early_and_are_flagged(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = engine.stage(monkeypatch, languages=("ru",), max_tokens=200)
    night = stage.tokenizer("night", add_special_tokens=False)["input_ids"][0]
    stage.sampling.logit_bias = {night: 1000.0}
    transcripts, translations, _ = engine.run(stage, utterances(1))
    for row in transcripts + translations:
        assert (row["finish_reason"], row["generated_tokens"]) == ("repetition", 8)
        assert "repetition" in row["flags"]
        assert row["text"] == stage.tokenizer.decode([night] * 8).strip()
    assert "wrong_script" in translations[0]["flags"]
    assert "wrong_script" not in transcripts[0]["flags"]


def test_flags_know_what_was_said_and_for_how_long(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = engine.stage(monkeypatch, languages=("de",), max_tokens=12)
    of_one = utterances(1)[0]
    rows = [
        {**of_one, "utterance_id": "fast", "duration_s": 0.2},
        {**of_one, "utterance_id": "mostly-silent", "duration_s": 20.0, "speech_ratio": 0.01},
        {**of_one, "utterance_id": "slow", "duration_s": 2000.0},
        {**of_one, "utterance_id": "unknown", "duration_s": None},
    ]
    for table in engine.run(stage, rows)[:2]:
        pace = {row["utterance_id"]: {"too_fast", "too_slow"} & set(row["flags"]) for row in table}
        assert pace == {"fast": {"too_fast"}, "mostly-silent": {"too_fast"}, "slow": {"too_slow"}, "unknown": set()}


def test_deterministic_answers_do_not_depend_on_their_shards(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = utterances(10, seed=31)
    tasks = TextTasks(languages=("de", "fr"), max_tokens=24)

    async def run(stage: GenerateText, size: int) -> tuple[dict[tuple[int, ...], list[int]], dict[Any, float]]:
        stage.engine.answers.clear()
        await stage.engine.engine.reset_prefix_cache()
        cut = [rows[at : at + size] for at in range(0, len(rows), size)]
        shards = [nest(n, 0, utterances=from_rows(part, SOURCES)) for n, part in enumerate(cut)]
        made = await asyncio.gather(*(stage(shard) for shard in shards))
        tables = [unnest(one, "transcripts", TRANSCRIPTS).to_pylist() for one in made]
        tables += [unnest(one, "translations", TRANSLATIONS).to_pylist() for one in made]
        logprobs = {
            (row["utterance_id"], row.get("target_language")): row["avg_logprob"] for table in tables for row in table
        }
        return dict(stage.engine.answers), logprobs

    async def every_size() -> list[Any]:
        stage = GenerateText(checkpoint, tasks, SETTINGS.reproducible())
        try:
            return [await run(stage, size) for size in (1, 4, 10)]
        finally:
            stage.engine.engine.shutdown(timeout=0.1)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    monkeypatch.setattr(generate, "start_engine", lambda *given: Recording(start_engine(*given)))
    by_one, by_four, by_ten = asyncio.run(every_size())
    assert len(by_one[0]) == len(by_one[1]) == 30
    # The very token ids, and the very bits of their log-probabilities.
    assert by_one == by_four == by_ten


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


def test_shards_in_flight_together_give_the_same_text(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = engine.stage(monkeypatch, languages=("de",))
    shards = [nest(n, 0, utterances=from_rows(utterances(6, seed=n), SOURCES)) for n in range(3)]

    async def together() -> list[pa.Table]:
        return list(await asyncio.gather(*(stage(shard) for shard in shards)))

    values = ["shard", "transcripts", "translations"]
    alone = [engine.loop.run_until_complete(stage(shard)).select(values).to_pylist() for shard in shards]
    assert [made.select(values).to_pylist() for made in engine.loop.run_until_complete(together())] == alone


def test_literal_stop_strings_end_the_text(reference: Reference) -> None:
    tokenizer = reference.tokenizer
    for stop in ("\\n", "<\\s>", "<END>"):
        ids = tokenizer(f"the night {stop} was", add_special_tokens=False)["input_ids"]
        answer = read_answer(tokenizer, ids, "length", -6.0)
        assert (answer.text, answer.finish_reason) == ("the night", "stop")
        assert answer.avg_logprob == pytest.approx(-6 / len(ids))
    ids = tokenizer("the night was", add_special_tokens=False)["input_ids"]
    answer = read_answer(tokenizer, ids, "length", -6.0)
    assert (answer.text, answer.finish_reason) == ("the night was", "length")


def test_an_empty_transcript_is_not_translated(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("self-cascade", "multi-turn"):
        stage = engine.stage(monkeypatch, languages=("de",), method=method)
        stage.sampling.logit_bias = {NEWLINE: 100.0}  # the engine answers with a newline at once
        transcripts, translations, _ = engine.run(stage, utterances(1))
        assert (transcripts[0]["text"], transcripts[0]["generated_tokens"]) == ("", 1)
        assert (translations[0]["text"], translations[0]["error"], translations[0]["generated_tokens"]) == ("", None, 0)
        assert len(stage.engine.prompts) == 1


def test_every_newline_and_end_stops(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert checkpoint.llm is not None
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.llm)
    assert stop_token_ids(checkpoint.llm, tokenizer) == [NEWLINE, 617]
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert stop_token_ids(tmp_path, make_tokenizer(32000, 5000)) == [2, 13, 37005]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert stop_token_ids(tmp_path, make_tokenizer(32000, 5000, chat=False)) == [2, 7, 13, 37005]


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


def test_a_checkpoint_that_does_not_fit_fails_at_the_start(checkpoint: Checkpoint) -> None:
    with pytest.raises(UserError, match="unit 0 as token 517, not 32005"):
        GenerateText(replace(checkpoint, unit_offset=32005), TextTasks(), SETTINGS)
    with pytest.raises(MachineFault, match=r"vLLM did not start with .*float7") as fault:
        GenerateText(checkpoint, TextTasks(), replace(SETTINGS, dtype="float7"))
    assert "\n" not in str(fault.value)


def test_defaults_hold_a_full_context(tmp_path: Path) -> None:
    assert EngineSettings.for_device("cuda", 2) == EngineSettings(
        "cuda", "bfloat16", max_num_seqs=1024, tensor_parallel_size=2
    )
    assert EngineSettings.for_device("cpu").dtype == "float32"
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # Llama-2-7B: 512 KB a token in 16 bits.
    assert full_context_bytes(tmp_path, "bfloat16") == (4096 + 128) * (512 << 10)
    assert full_context_bytes(tmp_path, "float32") == (4096 + 128) * (1024 << 10)


DEAD_ENGINE = """
import asyncio, sys
from multiprocessing import active_children
from spire_ray.checkpoints import resolve
from spire_ray.engine import EngineSettings
from spire_ray.generate import GenerateText, TextTasks
from spire_ray.tables import SOURCES, from_rows, nest

async def main(folder):
    settings = EngineSettings("cpu", "float32", 4, enforce_eager=True, kv_cache_memory_bytes=32 << 20, threads=1)
    stage = GenerateText(resolve(folder, need=("llm",)), TextTasks(max_tokens=200), settings)
    rows = [{"utterance_id": f"u{n}", "units": [1, 2, n % 100]} for n in range(2000)]
    running = asyncio.create_task(stage(nest(0, 0, utterances=from_rows(rows, SOURCES))))
    while not stage.engine.output_processor.request_states:
        await asyncio.sleep(0.01)
    for child in active_children():
        child.kill()
    await running

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def orphaned(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process whose engine is killed while it generates."""
    script = tmp_path_factory.mktemp("orphaned") / "dead_engine.py"
    script.write_text(DEAD_ENGINE)
    command = [sys.executable, str(script), checkpoint.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_the_actor_dies_with_its_engine(orphaned: subprocess.Popen[str]) -> None:
    _, errors = orphaned.communicate(timeout=200)
    assert orphaned.returncode == 1
    assert re.search(r"the vLLM engine of process \d+ died, and its actor with it", errors)
