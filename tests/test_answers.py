import pytest

from spire_ray.answers import Answer, flagged, shareable
from spire_ray.tasks import TextTasks

SAID = "They walked down to the river in the evening."
ROW = {"utterance_id": "a", "duration_s": 3.0, "speech_ratio": None, "text": None}


def said(text: str, finish_reason: str = "stop") -> Answer:
    return Answer(text=text, finish_reason=finish_reason, generated_tokens=9)


def test_a_translation_is_compared_with_the_transcript() -> None:
    answers = {None: said(SAID), "de": said(SAID), "fr": said("Le soir, ils descendaient vers la rivière.")}
    marked = flagged(answers, ROW, TextTasks(languages=("de", "fr")))
    assert {to: answer.flags for to, answer in marked.items()} == {None: (), "de": ("copied_source",), "fr": ()}
    # Without a transcript nobody knows.
    assert flagged({"de": said(SAID)}, ROW, TextTasks(languages=("de",), transcripts=False))["de"].flags == ()


def test_a_translation_of_text_is_compared_with_the_text() -> None:
    tasks = TextTasks(languages=("de",), method="text", transcripts=False)
    row = {**ROW, "duration_s": None, "text": SAID}
    assert flagged({"de": said(SAID)}, row, tasks)["de"].flags == ("copied_source",)


def test_an_error_row_has_no_flags_and_keeps_its_error() -> None:
    answers = {None: Answer(error="context_overflow: 600 + 40"), "ru": said("")}
    marked = flagged(answers, ROW, TextTasks(languages=("ru",)))
    assert (marked[None].flags, marked[None].error) == ((), "context_overflow: 600 + 40")
    assert marked["ru"].flags == ("empty",)


@pytest.mark.parametrize(
    ("prompt", "before", "expected"),
    [
        (list(range(100)), [], 0),
        (list(range(100)), [[*range(70), 1, 2]], 64),
        (list(range(100)), [[*range(63), 1, 2]], 32),
        (list(range(100)), [[0] * 50, list(range(40))], 32),
        # The last token is always computed: a prompt of whole blocks keeps its last one.
        (list(range(96)), [list(range(96))], 64),
        (list(range(97)), [list(range(97))], 96),
    ],
)
def test_what_a_prompt_can_find_in_the_cache(prompt: list[int], before: list[list[int]], expected: int) -> None:
    assert shareable(prompt, before, 32) == expected
