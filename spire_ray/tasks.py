"""What is generated for every utterance, and whether a checkpoint can do it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spire_ray.checkpoints import Checkpoint, check_languages, context_length
from spire_ray.errors import UserError
from spire_ray.prompts import Example, Variant

Method = Literal["direct", "self-cascade", "multi-turn", "text"]
MAX_BEAM = 16


@dataclass(frozen=True)
class TextTasks:
    """What is generated for every utterance."""

    languages: tuple[str, ...] = ()  # to translate into, ISO 639-1
    method: Method = "direct"  # how: from the speech, from its transcript, after its transcript, or of text
    transcripts: bool = True  # whether the transcripts are wanted for themselves
    source_language: str = "en"  # what is spoken; of a text row that does not name its own
    prompt_variant: Variant = "no-space"
    max_tokens: int = 256  # generated per answer
    beam: int = 1  # hypotheses kept at each token; 1: greedy. 4 costs 6 to 10 times as much
    examples: Mapping[tuple[str, str], tuple[Example, ...]] = field(default_factory=dict)  # five-shot, by language pair
    seed: int = 0  # which five of the examples

    @property
    def requests(self) -> int:
        """How many prompts an utterance has."""
        return len(self.languages) + (self.transcripts or self.method in ("self-cascade", "multi-turn"))

    @property
    def tokens(self) -> int:
        """How many tokens an utterance may make the engine generate."""
        return self.requests * self.max_tokens * self.beam


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
    if not 1 <= tasks.beam <= MAX_BEAM:
        raise UserError(f"a beam of {tasks.beam}: give 1 (greedy) to {MAX_BEAM}")
