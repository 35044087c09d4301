"""Units or text in, transcripts and translations out: one vLLM engine to an actor, several shards in it at once."""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spire_ray import beam
from spire_ray.answers import (
    STOP_STRINGS,
    Answer,
    flagged,
    read_answer,
    shareable,
    transcripts_table,
    translations_table,
)
from spire_ray.checkpoints import Checkpoint, context_length, on_this_machine
from spire_ray.engine import EngineSettings, greedy, next_token, set_environment, start_engine, stop_token_ids
from spire_ray.errors import MachineFault
from spire_ray.groups import is_lost, join_group
from spire_ray.isolation import Key, Room, Strikes, Verdict
from spire_ray.prompts import Prompts
from spire_ray.shards import StoreAt, shard_of, this_actor
from spire_ray.tables import SOURCES, TRANSCRIPTS, error, nest, unnest
from spire_ray.tasks import TextTasks, check_tasks
from spire_ray.vocabulary import check_tokenizer

__all__ = ["STOP_STRINGS", "EngineSettings", "GenerateText", "TextTasks", "check_tasks"]

Units = NDArray[np.int16]
ENGINE_ANSWERS_S = 120  # between two steps, of under a second each


class GenerateText:
    """The generation actor: SPIRE's prompts and stops, greedy or by beam search.

    All requests of an utterance are submitted side by side, its transcript first, so that the speech they begin with is
    prefilled once (192x real time instead of 77x for ten tasks on an H100). Utterances are let in as the engine has
    room, whichever of the shards in flight they are of, so that it neither drains between shards nor holds all of them.

    Input columns: shard, attempt, utterances (SOURCES).
    Output columns: shard, attempt, transcripts (TRANSCRIPTS; empty when not asked for), translations (TRANSLATIONS),
    audio_seconds float64, generate_seconds float64, cached_tokens int64 (prompt tokens found in the prefix cache),
    shareable_tokens int64 (those that could be, had nothing been evicted or still been computed), actor string.

    Rows carry quality.FLAGS. A prompt that leaves less than `max_tokens` of the context is not generated from
    (`context_overflow`), so that every answer had the same room. The transcript that a translation needs hands its
    error on. Silence (a speech_ratio of 0) is not sent: a model asked for its words invents some.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tasks: TextTasks,
        engine: EngineSettings | None = None,
        strikes: StoreAt | None = None,
        run: str = "",
    ) -> None:
        """Loads tokenizer and engine. UserError for tasks that do not fit, MachineFault when it does not start.

        strikes: the run directory in which deaths of the engine are recorded; None: an utterance that kills it always
        will. run: the driver's id, by which its deaths are told from those of an earlier driver.
        """
        check_tasks(checkpoint, tasks)
        checkpoint = on_this_machine(checkpoint)
        if checkpoint.llm is None:
            raise ValueError("the checkpoint was resolved without its llm")
        settings = engine or EngineSettings.for_device("cpu")
        set_environment(settings)  # before transformers brings in tokenizers, which reads some of it
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.llm, trust_remote_code=False)
        self.tasks = tasks
        self.prompts = Prompts(
            self.tokenizer,
            checkpoint.prompt_style,
            unit_offset=checkpoint.unit_offset,
            num_units=check_tokenizer(checkpoint, self.tokenizer),
            variant=tasks.prompt_variant,
            source_language=tasks.source_language,
            examples=tasks.examples,
            seed=tasks.seed,
        )
        self.context = context_length(checkpoint.llm)
        self.ends = stop_token_ids(checkpoint.llm, self.tokenizer)
        self.sampling = greedy(tasks.max_tokens, self.ends)
        if tasks.beam > 1:
            width = beam.candidates(tasks.beam, self.ends)
            self.sampling = next_token(width)
            settings = replace(settings, max_logprobs=max(width, settings.max_logprobs))
        # Twice what a step takes, so that a step is full while finished utterances are replaced.
        self.room = Room(max(1, 2 * settings.max_num_seqs // (tasks.requests * tasks.beam)))
        self.strikes = Strikes(strikes.open(), run) if strikes else None
        self.deterministic = settings.deterministic
        self.engine = _start_in_group(checkpoint.llm, settings)
        self.block = settings.block_size or int(self.engine.vllm_config.cache_config.block_size)

    async def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's SOURCES to its text. The process ends when the engine has died."""
        started = time.perf_counter()
        shard, attempt = shard_of(row)
        sources = unnest(row, "utterances", SOURCES).sort_by("utterance_id")
        units = _units_of(sources)
        utterances = sources.drop_columns(["units"]).to_pylist()
        ids = [source["utterance_id"] for source in utterances]
        verdict = await asyncio.to_thread(self.strikes.verdict) if self.strikes else Verdict()
        keys = [(shard, attempt, id_) for id_ in ids]
        try:
            # vLLM asks its engine this once and keeps the answer; that of a dead engine would never come.
            await asyncio.wait_for(self.engine.get_supported_tasks(), ENGINE_ANSWERS_S)
            asked = (self._utterance(*each, verdict) for each in zip(keys, utterances, units, strict=True))
            answers = await asyncio.gather(*asked)
        except BaseException as fault:
            self._die_with_the_engine(fault)
            raise
        wanted = self.tasks.transcripts
        made = nest(
            shard,
            attempt,
            transcripts=transcripts_table(ids, answers) if wanted else TRANSCRIPTS.empty_table(),
            translations=translations_table(ids, answers, self.tasks),
        )
        figures = {
            "audio_seconds": pc.sum(sources.column("duration_s")).as_py() or 0.0,
            "generate_seconds": time.perf_counter() - started,
            "cached_tokens": sum(answer.cached_tokens for of_one in answers for answer in of_one.values()),
            "shareable_tokens": sum(answer.shareable_tokens for of_one in answers for answer in of_one.values()),
        }
        for name, value in figures.items():
            made = made.append_column(name, pa.array([value], pa.float64() if "seconds" in name else pa.int64()))
        return made.append_column("actor", pa.array([this_actor()], pa.string()))

    async def _utterance(
        self, key: Key, source: Mapping[str, Any], units: Units | None, verdict: Verdict
    ) -> dict[str | None, Answer]:
        """An utterance's answers by target language, its transcript under None."""
        fault = self._fault_of(source, units)
        if not fault and key in verdict.poison:
            fault = error("engine_crash", "the engine died with this utterance alone in it")
        if fault:
            return dict.fromkeys([None, *self.tasks.languages], Answer(error=fault))
        async with self.room.entered(key, alone=key in verdict.suspects):
            answers = await (self._text(source) if units is None else self._speech(units, key[2]))
        return flagged(answers, source, self.tasks)

    def _fault_of(self, source: Mapping[str, Any], units: Units | None) -> str | None:
        """Why nothing is asked about an utterance."""
        if self.tasks.method == "text":
            fault: str | None = source["error"]
            return fault or (error("empty", "no text") if source["text"] is None else None)
        if source["error"] or units is None or not units.size:
            return error("no_units", source["error"] or "the units row has none")
        # Its units are there, but of silence; null: nobody looked.
        return error("silent", "no speech was found in it") if source["speech_ratio"] == 0 else None

    async def _text(self, source: Mapping[str, Any]) -> dict[str | None, Answer]:
        text, spoken = source["text"], source["source_language"] or self.tasks.source_language
        prompts = {to: self.prompts.translate_text(text, spoken, to) for to in sorted(self.tasks.languages)}
        return await self._side_by_side(prompts, [], source["utterance_id"])

    async def _speech(self, units: Units, name: str) -> dict[str | None, Answer]:
        languages = sorted(self.tasks.languages)
        first: dict[str | None, list[int]] = {None: self.prompts.transcribe(units)}
        if self.tasks.method == "direct":
            translate = {to: self.prompts.translate(units, to) for to in languages}
            return await self._side_by_side((first if self.tasks.transcripts else {}) | translate, [], name)
        answers = await self._side_by_side(first, [], name)
        heard = answers[None]
        if heard.error or not heard.text:
            # Nothing was said: a prompt without a text would be answered with an invented one.
            nothing = Answer(error=heard.error) if heard.error else Answer(text="", finish_reason="stop")
            return answers | dict.fromkeys(languages, nothing)
        if self.tasks.method == "multi-turn":
            ask = partial(self.prompts.translate_next, units, heard.text)
        else:
            ask = partial(self.prompts.translate_text, heard.text, self.tasks.source_language)
        return answers | await self._side_by_side({to: ask(to) for to in languages}, [first[None]], name)

    async def _side_by_side(
        self, prompts: Mapping[Any, list[int]], before: Sequence[list[int]], name: str
    ) -> dict[str | None, Answer]:
        """The answers to prompts that are in the engine together; those `before` were in it already."""
        asked = list(prompts.values())
        answers = await asyncio.gather(*(self._ask(prompt, name) for prompt in asked))
        shared = (shareable(prompt, [*before, *asked[:at][:1]], self.block) for at, prompt in enumerate(asked))
        counted = [
            answer if answer.error else replace(answer, shareable_tokens=tokens)
            for answer, tokens in zip(answers, shared, strict=True)
        ]
        return dict(zip(prompts, counted, strict=True))

    async def _ask(self, prompt: list[int], name: str) -> Answer:
        most = self.tasks.max_tokens
        if len(prompt) + most > self.context:
            reason = f"{len(prompt)} prompt tokens + {most} to generate exceed {self.context}"
            return Answer(error=error("context_overflow", reason))
        if self.tasks.beam > 1:
            return await self._search(prompt, name)
        finished = await self._generate(prompt, name)
        output = finished.outputs[0]
        answer = read_answer(self.tokenizer, output.token_ids, output.finish_reason, output.cumulative_logprob)
        return replace(answer, prompt_tokens=len(prompt), cached_tokens=finished.num_cached_tokens or 0)

    async def _search(self, prompt: list[int], name: str) -> Answer:
        cached: list[int] = []

        async def next_tokens(hypotheses: Sequence[beam.Ids]) -> list[dict[int, float]]:
            asked = (self._generate([*prompt, *ids], name) for ids in hypotheses)
            finished = await asyncio.gather(*asked)
            cached.append(finished[0].num_cached_tokens or 0)
            ranked = (one.outputs[0].logprobs[0] for one in finished)
            return [{token: entry.logprob for token, entry in tokens.items()} for tokens in ranked]

        best = await beam.search(next_tokens, self.tasks.beam, self.tasks.max_tokens, self.ends)
        finish_reason = "stop" if best.ids[-1] in self.ends else "length"
        answer = read_answer(self.tokenizer, best.ids, finish_reason, best.logprob)
        # Of the first step: later ones find their own prompt again.
        return replace(answer, prompt_tokens=len(prompt), cached_tokens=cached[0])

    async def _generate(self, prompt: list[int], name: str) -> Any:
        # An input that is tokens already is passed through as it is; any other goes by way of a thread pool.
        tokens: dict[str, Any] = {"type": "token", "prompt_token_ids": prompt}
        if self.deterministic:
            # What lies in the cache depends on the shards before: share within the utterance alone.
            tokens["cache_salt"] = name
        outputs = [output async for output in self.engine.generate(tokens, self.sampling, uuid.uuid4().hex)]
        ended = outputs[-1].outputs[0].finish_reason
        if ended not in ("stop", "length", "repetition"):
            raise MachineFault(f"vLLM ended a request with {ended!r}")
        return outputs[-1]

    def _die_with_the_engine(self, fault: BaseException) -> None:
        """Ends this process when `fault` says that its engine is dead, after recording who was in it.

        Ray starts an actor again whose process has died, and does its shards again; an exception would end the job
        instead, and ray.actor.exit_actor() counts as a wish to end. It is also the one way to let go of a GPU context.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        if not isinstance(fault, EngineDeadError | TimeoutError):
            return
        said = f"the vLLM engine of process {os.getpid()} died, and its actor with it: {fault}"
        print(said, file=sys.stderr, flush=True)
        try:
            if self.strikes and self.room.inside:
                self.strikes.record(self.room.inside, self.room.left)
        finally:
            os._exit(1)


def _start_in_group(llm: Path, settings: EngineSettings) -> Any:
    """A started engine. Where one of its nodes is lost meanwhile the process ends, and Ray starts its actor again."""
    if settings.tensor_parallel_size == 1:
        return start_engine(llm, settings)
    nodes = join_group()
    try:
        return start_engine(llm, settings)
    except MachineFault as fault:
        if not is_lost(nodes):
            raise
        print(f"a node was lost while the engine started: {fault}", file=sys.stderr, flush=True)
        os._exit(1)


def _units_of(sources: pa.Table) -> list[Units | None]:
    """The units of each row, as views of the column; None where there are none."""
    column = sources.column("units").combine_chunks()
    values = column.values.to_numpy(zero_copy_only=True)
    offsets = column.offsets.to_numpy()
    present = column.is_valid().to_pylist()
    return [values[offsets[i] : offsets[i + 1]] if has else None for i, has in enumerate(present)]
