"""Units or text in, transcripts and translations out: one vLLM engine to an actor, several shards in it at once."""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spire_ray.checkpoints import Checkpoint, check_languages, context_length, on_this_machine
from spire_ray.engine import EngineSettings, greedy, set_environment, start_engine, stop_token_ids
from spire_ray.errors import MachineFault, UserError
from spire_ray.prompts import Example, Prompts, Variant
from spire_ray.tables import SOURCES, TRANSCRIPTS, TRANSLATIONS, error, from_rows, nest, unnest
from spire_ray.vocabulary import check_tokenizer

__all__ = ["EngineSettings", "GenerateText", "TextTasks", "check_tasks"]

Method = Literal["direct", "self-cascade", "multi-turn", "text"]
Units = NDArray[np.int16]
# The authors' stop strings that no single token spells; a newline, which one does, is here for the tokens around it.
STOP_STRINGS = ("\n", "\\n", "<\\s>", "<END>")
TRUNCATED = "truncated"
ENGINE_ANSWERS_S = 120  # between two steps, of under a second each


@dataclass(frozen=True)
class TextTasks:
    """What is generated for every utterance."""

    languages: tuple[str, ...] = ()  # to translate into, ISO 639-1
    method: Method = "direct"  # how: from the speech, from its transcript, after its transcript, or of text
    transcripts: bool = True  # whether the transcripts are wanted for themselves
    source_language: str = "en"  # what is spoken; of a text row that does not name its own
    prompt_variant: Variant = "no-space"
    max_tokens: int = 256  # generated per answer
    examples: Mapping[tuple[str, str], tuple[Example, ...]] = field(default_factory=dict)  # five-shot, by language pair
    seed: int = 0  # which five of the examples

    @property
    def requests(self) -> int:
        """How many prompts an utterance has."""
        return len(self.languages) + (self.transcripts or self.method in ("self-cascade", "multi-turn"))


@dataclass(frozen=True)
class Answer:
    """The generated columns of a text row, and how many of its prompt's tokens were in the prefix cache."""

    text: str | None = None
    finish_reason: str | None = None
    avg_logprob: float | None = None  # over the generated tokens, the one that ends them among them
    prompt_tokens: int = 0
    generated_tokens: int = 0
    flags: tuple[str, ...] = ()
    error: str | None = None
    cached_tokens: int = 0


def check_tasks(checkpoint: Checkpoint, tasks: TextTasks) -> None:
    """UserError unless `checkpoint` can do `tasks`."""
    check_languages(checkpoint, tasks.languages)
    if tasks.requests == 0:
        raise UserError("nothing to generate: ask for transcripts or for languages")
    if tasks.source_language in tasks.languages:
        raise UserError(f"the source is already in {tasks.source_language!r}: it cannot be translated into it")
    if len(set(tasks.languages)) < len(tasks.languages):
        raise UserError(f"a language is asked for twice: {', '.join(tasks.languages)}")
    if tasks.method == "text" and tasks.transcripts:
        raise UserError("text has no transcripts: they are made of speech")
    if tasks.method != "text" and not checkpoint.speech:
        raise UserError(f"{checkpoint.name} translates text, not speech")
    if tasks.method == "multi-turn" and checkpoint.prompt_style == "raw":
        raise UserError(f"multi-turn translation needs a chat template, which {checkpoint.name} does not have")
    if tasks.max_tokens < 1:
        raise UserError(f"max_tokens is {tasks.max_tokens}, but at least 1 is needed")
    if checkpoint.llm is not None and tasks.max_tokens >= context_length(checkpoint.llm):
        raise UserError(f"max_tokens is {tasks.max_tokens}, but the context is {context_length(checkpoint.llm)} tokens")


class GenerateText:
    """The generation actor: greedy, with SPIRE's prompts and stops.

    All requests of an utterance are submitted side by side, its transcript first, so that the speech they begin with is
    prefilled once (192x real time instead of 77x for ten tasks on an H100). Utterances are let in as the engine has
    room, whichever of the shards in flight they are of, so that it neither drains between shards nor holds all of them.

    Input columns: shard, attempt, utterances (SOURCES).
    Output columns: shard, attempt, transcripts (TRANSCRIPTS; empty when not asked for), translations (TRANSLATIONS),
    audio_seconds float64, generate_seconds float64, cached_tokens int64 (prompt tokens found in the prefix cache).

    An answer that its literal stop string ends has finish_reason `stop`. A prompt that leaves less than `max_tokens` of
    the context is not generated from (`context_overflow`), so that every answer had the same room. The transcript that
    a translation needs hands its error on.
    """

    def __init__(self, checkpoint: Checkpoint, tasks: TextTasks, engine: EngineSettings | None = None) -> None:
        """Loads tokenizer and engine. UserError for tasks that do not fit, MachineFault when it does not start."""
        check_tasks(checkpoint, tasks)
        checkpoint = on_this_machine(checkpoint)
        if checkpoint.llm is None:
            raise ValueError("the checkpoint was resolved without its llm")
        settings = engine or EngineSettings.for_device("cpu")
        set_environment(settings)  # before transformers brings in tokenizers, which reads some of it
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.llm)
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
        self.sampling = greedy(tasks.max_tokens, stop_token_ids(checkpoint.llm, self.tokenizer))
        # Twice what a step takes, so that a step is full while finished utterances are replaced.
        self.room = asyncio.Semaphore(max(1, 2 * settings.max_num_seqs // tasks.requests))
        self.engine = start_engine(checkpoint.llm, settings)

    async def __call__(self, row: pa.Table) -> pa.Table:
        """A shard's SOURCES to its text. The process ends when the engine has died."""
        started = time.perf_counter()
        sources = unnest(row, "utterances", SOURCES).sort_by("utterance_id")
        units = _units_of(sources)
        utterances = sources.drop_columns(["units"]).to_pylist()
        try:
            # vLLM asks its engine this once and keeps the answer; that of a dead engine would never come.
            await asyncio.wait_for(self.engine.get_supported_tasks(), ENGINE_ANSWERS_S)
            answers = await asyncio.gather(*(self._utterance(*each) for each in zip(utterances, units, strict=True)))
        except BaseException as fault:
            _die_with_the_engine(fault)
            raise
        made = nest(
            row.column("shard")[0].as_py(),
            row.column("attempt")[0].as_py(),
            transcripts=_transcripts(sources, answers) if self.tasks.transcripts else TRANSCRIPTS.empty_table(),
            translations=_translations(sources, answers, self.tasks),
        )
        cached = sum(answer.cached_tokens for of_one in answers for answer in of_one.values())
        made = made.append_column("cached_tokens", pa.array([cached], pa.int64()))
        heard = pc.sum(sources.column("duration_s")).as_py() or 0.0
        made = made.append_column("audio_seconds", pa.array([heard], pa.float64()))
        return made.append_column("generate_seconds", pa.array([time.perf_counter() - started], pa.float64()))

    async def _utterance(self, source: Mapping[str, Any], units: Units | None) -> dict[str | None, Answer]:
        """An utterance's answers by target language, its transcript under None."""
        languages = sorted(self.tasks.languages)
        if self.tasks.method == "text":
            text, spoken = source["text"], source["source_language"] or self.tasks.source_language
            if source["error"] or text is None:
                failed = Answer(error=source["error"] or error("empty", "no text"))
                return dict.fromkeys(languages, failed)
            prompts = {to: partial(self.prompts.translate_text, text, spoken, to) for to in languages}
            async with self.room:
                return await self._side_by_side(prompts)
        if source["error"] or units is None or not units.size:
            failed = Answer(error=error("no_units", source["error"] or "the units row has none"))
            return dict.fromkeys([None, *languages], failed)
        async with self.room:
            return await self._speech(units, languages)

    async def _speech(self, units: Units, languages: list[str]) -> dict[str | None, Answer]:
        transcribe = {None: partial(self.prompts.transcribe, units)}
        if self.tasks.method == "direct":
            translate = {to: partial(self.prompts.translate, units, to) for to in languages}
            return await self._side_by_side((transcribe if self.tasks.transcripts else {}) | translate)
        answers = await self._side_by_side(transcribe)
        heard = answers[None]
        if heard.error or not heard.text:
            # Nothing was said: a prompt without a text would be answered with an invented one.
            nothing = Answer(error=heard.error) if heard.error else Answer(text="")
            return answers | dict.fromkeys(languages, nothing)
        if self.tasks.method == "multi-turn":
            follow = {to: partial(self.prompts.translate_next, units, heard.text, to) for to in languages}
        else:
            spoken = self.tasks.source_language
            follow = {to: partial(self.prompts.translate_text, heard.text, spoken, to) for to in languages}
        return answers | await self._side_by_side(follow)

    async def _side_by_side(self, prompts: Mapping[Any, Any]) -> dict[str | None, Answer]:
        answers = await asyncio.gather(*(self._ask(prompt()) for prompt in prompts.values()))
        return dict(zip(prompts, answers, strict=True))

    async def _ask(self, prompt: list[int]) -> Answer:
        most = self.tasks.max_tokens
        if len(prompt) + most > self.context:
            reason = f"{len(prompt)} prompt tokens + {most} to generate exceed {self.context}"
            return Answer(error=error("context_overflow", reason))
        # An input that is tokens already is passed through as it is; any other goes by way of a thread pool.
        tokens = {"type": "token", "prompt_token_ids": prompt}
        outputs = [output async for output in self.engine.generate(tokens, self.sampling, uuid.uuid4().hex)]
        return self._answer(outputs[-1], len(prompt))

    def _answer(self, finished: Any, prompt_tokens: int) -> Answer:
        output = finished.outputs[0]
        if output.finish_reason not in ("stop", "length"):
            raise MachineFault(f"vLLM ended a request with {output.finish_reason!r}")
        text = self.tokenizer.decode(list(output.token_ids), skip_special_tokens=True)
        cut = min((at for at in map(text.find, STOP_STRINGS) if at >= 0), default=None)
        finish_reason = "stop" if cut is not None else output.finish_reason
        generated = len(output.token_ids)
        return Answer(
            text=text[:cut].strip(),
            finish_reason=finish_reason,
            avg_logprob=output.cumulative_logprob / generated,
            prompt_tokens=prompt_tokens,
            generated_tokens=generated,
            flags=(TRUNCATED,) if finish_reason == "length" else (),
            cached_tokens=finished.num_cached_tokens or 0,
        )


def _die_with_the_engine(fault: BaseException) -> None:
    """Ends this process when `fault` says that its engine is dead.

    Ray starts an actor again whose process has died, and does its shards again; an exception would end the job instead,
    and ray.actor.exit_actor() counts as a wish to end. Exiting is also the one way to let go of a dead GPU context.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    if not isinstance(fault, EngineDeadError | TimeoutError):
        return
    print(f"the vLLM engine of process {os.getpid()} died, and its actor with it: {fault}", file=sys.stderr, flush=True)
    os._exit(1)


def _units_of(sources: pa.Table) -> list[Units | None]:
    """The units of each row, as views of the column; None where there are none."""
    column = sources.column("units").combine_chunks()
    values = column.values.to_numpy(zero_copy_only=True)
    offsets = column.offsets.to_numpy()
    present = column.is_valid().to_pylist()
    return [values[offsets[i] : offsets[i + 1]] if has else None for i, has in enumerate(present)]


def _transcripts(sources: pa.Table, answers: Iterable[Mapping[str | None, Answer]]) -> pa.Table:
    ids = sources.column("utterance_id").to_pylist()
    rows = ({"utterance_id": id_, **_columns(of_one[None])} for id_, of_one in zip(ids, answers, strict=True))
    return from_rows(rows, TRANSCRIPTS)


def _translations(sources: pa.Table, answers: Iterable[Mapping[str | None, Answer]], tasks: TextTasks) -> pa.Table:
    ids = sources.column("utterance_id").to_pylist()
    rows = (
        {"utterance_id": id_, "target_language": to, "method": tasks.method, **_columns(of_one[to])}
        for id_, of_one in zip(ids, answers, strict=True)
        for to in sorted(tasks.languages)
    )
    return from_rows(rows, TRANSLATIONS)


def _columns(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in TRANSCRIPTS.names[1:]}
