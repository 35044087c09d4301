"""Beam search over any model that gives the best next tokens of a few hypotheses (pure).

It is transformers' beam search with length penalty 1 and without early stopping, token for token: vLLM's engine has
none, so each token of each hypothesis is a request of one token, whose prompt is in the prefix cache. A beam of 4 costs
six to ten times what greedy does.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]
# Hypotheses to their best next tokens with log-probabilities, natural log: at least `candidates` of each.
NextTokens = Callable[[Sequence[Ids]], Awaitable[Sequence[Mapping[int, float]]]]
MOST_ENDS = 3  # Llama-2 has three ends; vocabularies with hundreds of newline tokens would ask for thousands


@dataclass(frozen=True)
class Hypothesis:
    """Generated tokens, the one that ends them among them, and the sum of their log-probabilities."""

    ids: Ids
    logprob: float

    @property
    def score(self) -> float:
        """What hypotheses of different lengths are compared by: log-probability per token."""
        return self.logprob / len(self.ids)


def candidates(beam: int, ends: Collection[int]) -> int:
    """How many continuations a step ranks: enough for `beam` to go on when every other ends."""
    return beam * (1 + min(max(1, len(ends)), MOST_ENDS))


async def search(next_tokens: NextTokens, beam: int, max_tokens: int, ends: Collection[int]) -> Hypothesis:
    """The best hypothesis of at most `max_tokens`, ended by one of `ends` unless it is that long."""
    running = [Hypothesis((), 0.0)]
    finished: list[Hypothesis] = []
    for length in range(1, max_tokens + 1):
        best = await next_tokens([hypothesis.ids for hypothesis in running])
        ranked = _ranked(running, best)[: candidates(beam, ends)]
        ended = [one for one in ranked[:beam] if one.ids[-1] in ends or length == max_tokens]
        finished = sorted([*finished, *ended], key=lambda one: one.score, reverse=True)[:beam]
        running = [one for one in ranked if one.ids[-1] not in ends][:beam]
        # The best that goes on is judged at its present length, as transformers does.
        if not running or (len(finished) == beam and finished[-1].score >= running[0].score):
            break
    return finished[0] if finished else running[0]


def _ranked(running: Sequence[Hypothesis], best: Sequence[Mapping[int, float]]) -> list[Hypothesis]:
    continued = [
        Hypothesis((*hypothesis.ids, token), hypothesis.logprob + logprob)
        for hypothesis, tokens in zip(running, best, strict=True)
        for token, logprob in tokens.items()
    ]
    return sorted(continued, key=lambda one: one.logprob, reverse=True)
