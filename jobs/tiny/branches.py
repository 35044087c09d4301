"""Training examples with common beginnings as trees of tokens: what ten tasks of an utterance share is computed once.

A row is many examples in one sequence. Each piece of it says whose continuation it is, and sees that and itself only,
at the positions it would have alone; so the loss is that of the examples one by one, at a third of the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spire_ray.training_lines import Example

IGNORED = -100  # the label of what is not learnt


@dataclass(frozen=True)
class Branch:
    """A piece of a row: token ids and labels int32 [N], and the index of the branch it continues, or -1.

    labels[i] is the token after ids[i] where that is learnt, else IGNORED.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    parent: int


@dataclass(frozen=True)
class Batch:
    """Rows of equal length. ids, labels, positions int64 [B, L]; seen bool [B, 1, L, L], whether i sees j."""

    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    seen: torch.Tensor


def branch(examples: Sequence[Example]) -> list[Branch]:
    """One tree of examples that begin alike; an example that continues an earlier one becomes its branch.

    The token before a fork belongs to the trunk, where it could have one label alone; so forks come one token earlier.
    """
    if len(examples) == 1:
        return [_piece(examples[0], 0, len(examples[0].ids), -1)]
    trunk = min(_common(examples[0].ids, each.ids) for each in examples[1:]) - 1
    found = [_piece(examples[0], 0, trunk, -1)]
    ends: list[tuple[Example, int, int]] = []  # an example, its branch, and where that ends
    for each in examples:
        parent, start = 0, trunk
        for earlier, index, end in ends:
            # All of it but its last token, from which this one goes on where that one stops.
            if len(each.ids) > end and np.array_equal(each.ids[:end], earlier.ids[:end]):
                parent, start = index, end
        last = len(each.ids) - 1
        ends.append((each, len(found), last))
        found.append(_piece(each, start, last, parent))
    return found


def collate(rows: Sequence[Sequence[Branch]], pad: int, multiple: int = 8) -> Batch:
    """Rows of branches, filled up with `pad` tokens to the longest row's length, rounded up to a multiple."""
    longest = max(sum(len(each.ids) for each in row) for row in rows)
    length = -(-longest // multiple) * multiple
    ids = np.full((len(rows), length), pad, np.int64)
    labels = np.full((len(rows), length), IGNORED, np.int64)
    positions = np.zeros((len(rows), length), np.int64)
    seen = np.zeros((len(rows), 1, length, length), np.bool_)
    for index, row in enumerate(rows):
        starts: list[int] = []
        at = 0
        for each in row:
            begin, end = at, at + len(each.ids)
            first = 0 if each.parent < 0 else positions[index, _end(row, starts, each.parent) - 1] + 1
            ids[index, begin:end], labels[index, begin:end] = each.ids, each.labels
            positions[index, begin:end] = first + np.arange(end - begin)
            if each.parent >= 0:
                last = _end(row, starts, each.parent) - 1
                seen[index, 0, begin:end] = seen[index, 0, last]
            seen[index, 0, begin:end, begin:end] = np.tri(end - begin, dtype=np.bool_)
            starts.append(begin)
            at = end
        np.fill_diagonal(seen[index, 0, at:, at:], True)  # padding sees itself: a softmax needs something
    return Batch(*(torch.from_numpy(each) for each in (ids, labels, positions, seen)))


def fill(trees: Sequence[list[Branch]], length: int) -> list[list[Branch]]:
    """Trees packed into rows of at most `length` tokens, in order; a longer tree has a row of its own."""
    rows: list[list[Branch]] = []
    used = length
    for tree in trees:
        size = sum(len(each.ids) for each in tree)
        if used + size > length:
            rows.append([])
            used = 0
        moved = len(rows[-1])
        rows[-1].extend(Branch(each.ids, each.labels, each.parent + moved if each.parent >= 0 else -1) for each in tree)
        used += size
    return rows


def _piece(example: Example, start: int, end: int, parent: int) -> Branch:
    labels = np.full(len(example.ids), IGNORED, np.int32)
    labels[:-1][example.learnt[1:]] = example.ids[1:][example.learnt[1:]]
    return Branch(example.ids[start:end], labels[start:end], parent)


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    shortest = min(len(one), len(other))
    differ = np.flatnonzero(one[:shortest] != other[:shortest])
    return int(differ[0]) if len(differ) else shortest


def _end(row: Sequence[Branch], starts: Sequence[int], index: int) -> int:
    return starts[index] + len(row[index].ids)
