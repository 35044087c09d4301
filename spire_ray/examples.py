"""What an export takes of a run: of each utterance its audio and one text, with the translations that were chosen."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from spire_ray.errors import UserError
from spire_ray.joined import Joined
from spire_ray.records import load_json
from spire_ray.result_options import TEXTS
from spire_ray.tables import reason_of

GENERATED, REFERENCE = TEXTS


@dataclass(frozen=True)
class Example:
    """An utterance to train on."""

    key: str  # shard and row: a name for files, which an id may not be
    planned: dict[str, Any]  # the columns of joined.JOINED
    text: str
    translations: dict[str, str]  # by language, of those chosen the ones that there are

    @property
    def language(self) -> str:
        """ISO 639-1, of the speech and its text; English is what SPIRE hears."""
        return self.planned["source_language"] or "en"


@dataclass
class Examples:
    """The examples of a run, shard by shard, and how many utterances are none, by reason."""

    joined: Joined
    text: str  # of TEXTS
    languages: tuple[str, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    taken: int = 0

    @classmethod
    def of(cls, joined: Joined, text: str, languages: Sequence[str] | None) -> "Examples":
        """`languages`: of the translations; None: those that the run made. UserError when it made no such text."""
        settings = (load_json(joined.text_run, "text.json") or {}).get("settings", {})
        made = tuple(settings.get("languages", ()))
        if text == GENERATED:
            if not settings.get("transcripts"):
                raise UserError(f"{joined.text_run.url} has no transcripts: --text {REFERENCE} takes the corpus's own")
            if other := sorted(set(languages or ()) - set(made)):
                there = " ".join(made) or "none"
                raise UserError(f"{joined.text_run.url} has no translations to {' '.join(other)}, but: {there}")
        return cls(joined, text, made if languages is None else tuple(dict.fromkeys(languages)))

    def shards(self) -> Iterator[tuple[int, list[Example]]]:
        """The number of each shard and its examples, in the order of the plan. UserError for a text corpus."""
        for shard in range(self.joined.plan.shards):
            found = []
            for index, row in enumerate(self.joined.shard(shard)):
                if row["audio_uri"] is None and row["text"] is not None:
                    raise UserError(f"{self.joined.text_run.url} is of a text corpus: it has no audio to export")
                text, why = self._text(row)
                if text is None:
                    self.leave_out(why)
                    continue
                key = f"{shard:05}-{index:05}"
                found.append(Example(key, row, text, self._translations(row)))
                self.taken += 1
            yield shard, found

    def leave_out(self, reason: str) -> None:
        """Count one that is no example."""
        self.left_out[reason] += 1

    def drop(self, reason: str) -> None:
        """Count one of those given by `shards` as none after all."""
        self.taken -= 1
        self.leave_out(reason)

    def check_any(self) -> None:
        """Before TARGET appears: an empty one would be refused by its readers, and hide why. UserError."""
        if not self.taken:
            raise UserError(f"no utterance of {self.joined.text_run.url} can be exported{self.told_left_out()}")

    def told_left_out(self) -> str:
        """How many are left out for which reasons, to end a line; empty when none is."""
        told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"; left out: {told}" if told else ""

    def _text(self, row: dict[str, Any]) -> tuple[str | None, str]:
        """The text of an utterance, or why it has none."""
        if row["error"]:
            return None, reason_of(row["error"])
        if self.text == REFERENCE:
            return _said(row["reference"]), "no reference"
        heard = row["transcript"] or {}
        return heard.get("text"), reason_of(heard.get("error") or "no transcript yet")

    def _translations(self, row: dict[str, Any]) -> dict[str, str]:
        if self.text == REFERENCE:
            there = {one["language"]: _said(one["text"]) for one in row["references"] or ()}
        else:
            there = {one["target_language"]: one["text"] for one in row["translations"]}
        there.pop(row["source_language"] or "en", None)  # a reference of what is said is no translation
        return {language: text for language in self.languages if (text := there.get(language)) is not None}


def _said(text: str | None) -> str | None:
    return text if text and text.strip() else None
