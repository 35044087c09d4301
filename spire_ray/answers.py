"""What the engine answered, as the rows of the text tables (pure but for the tokenizer passed in)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from spire_ray.quality import flags
from spire_ray.tables import TRANSCRIPTS, TRANSLATIONS, from_rows
from spire_ray.tasks import TextTasks

# The authors' stop strings that no single token spells; a newline, which one does, is here for the tokens around it.
STOP_STRINGS = ("\n", "\\n", "<\\s>", "<END>")


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
    shareable_tokens: int = 0  # of the prompt's tokens, those that a prompt of the same utterance had brought before


Answers = Mapping[str | None, Answer]  # an utterance's, by target language; its transcript under None


def read_answer(tokenizer: Any, token_ids: Sequence[int], finish_reason: str, logprob: float) -> Answer:
    """An answer without its prompt's columns. One that its literal stop string ends has finish_reason `stop`.

    logprob: natural log, the sum over the generated tokens.
    """
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    cut = min((at for at in map(text.find, STOP_STRINGS) if at >= 0), default=None)
    return Answer(
        text=text[:cut].strip(),
        finish_reason="stop" if cut is not None else finish_reason,
        avg_logprob=logprob / len(token_ids),
        generated_tokens=len(token_ids),
    )


def flagged(answers: Answers, source: Mapping[str, Any], tasks: TextTasks) -> dict[str | None, Answer]:
    """An utterance's answers with their flags; `source` is its SOURCES row. An error row has none."""
    heard = answers.get(None)
    said = source["text"] if tasks.method == "text" else heard.text if heard else None
    marked = {}
    for to, answer in answers.items():
        if answer.text is not None:
            raised = flags(
                answer.text,
                to or tasks.source_language,
                answer.finish_reason,
                seconds=source["duration_s"],
                speech_ratio=source["speech_ratio"],
                source=said if to else None,
            )
            answer = replace(answer, flags=raised)
        marked[to] = answer
    return marked


def shareable(prompt: Sequence[int], before: Sequence[Sequence[int]], block: int) -> int:
    """The tokens of `prompt` that prompts `before` it can have left in the prefix cache: full blocks of a prefix.

    vLLM always computes a prompt's last token, so that a prompt is never taken from the cache whole.
    """
    last = (len(prompt) - 1) // block * block
    most = 0
    for other in before:
        at = 0
        while at < last and prompt[at : at + block] == other[at : at + block]:
            at += block
        most = max(most, at)
    return most


def transcripts_table(ids: Sequence[str], answers: Iterable[Answers]) -> pa.Table:
    """TRANSCRIPTS rows of utterances in order."""
    rows = ({"utterance_id": id_, **_columns(of_one[None])} for id_, of_one in zip(ids, answers, strict=True))
    return from_rows(rows, TRANSCRIPTS)


def translations_table(ids: Sequence[str], answers: Iterable[Answers], tasks: TextTasks) -> pa.Table:
    """TRANSLATIONS rows of utterances in order, an utterance's languages sorted."""
    rows = (
        {"utterance_id": id_, "target_language": to, "method": tasks.method, **_columns(of_one[to])}
        for id_, of_one in zip(ids, answers, strict=True)
        for to in sorted(tasks.languages)
    )
    return from_rows(rows, TRANSLATIONS)


def _columns(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in TRANSCRIPTS.names[1:]}
