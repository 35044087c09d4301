"""When Lloyd's iterations end, from scripted sums: the numbers need no frames."""

from dataclasses import asdict

import numpy as np
import pytest

from spire_ray.kmeans import Centroids, Frames, Iteration, growing_shares, lloyd


def scripted(held_out: list[float | None], shares: tuple[float, ...] = (1.0,), limit: int = 100) -> list[Iteration]:
    """A fit whose frames never move and whose held-out inertia is as given."""
    holder = Frames(2)
    frames = np.array([[0, 0], [4, 4]], np.float16)
    holder.add(0, frames, np.array([1, 2], np.uint64), np.zeros(2, np.bool_))
    values = iter(held_out)

    def told(_: Centroids) -> tuple[float, int]:
        value = next(values)
        return (0.0, 0) if value is None else (10 * value, 10)

    return list(lloyd(holder.step, told, frames.astype(np.float32), shares, max_iterations=limit, tolerance=1e-3))


def test_it_ends_when_two_iterations_in_a_row_bring_little() -> None:
    made = scripted([9.0, 8.0, 7.9999, 7.0, 6.9999, 7.1])
    assert [each.held_out for each in made] == pytest.approx([9.0, 8.0, 7.9999, 7.0, 6.9999, 7.1])
    assert [each.calm for each in made] == [0, 0, 1, 0, 1, 2]
    assert [each.done for each in made] == [False] * 5 + [True]
    assert asdict(made[-1])["moved"] == 0


def test_it_ends_at_the_limit() -> None:
    assert [each.done for each in scripted([9.0, 8.0, 7.0], limit=3)] == [False, False, True]


def test_without_held_out_frames_it_ends_by_the_frames_it_trains_on() -> None:
    made = scripted([None] * 3)
    assert [each.held_out for each in made] == [None] * 3
    assert [each.inertia for each in made] == [0.0] * 3
    assert made[-1].done


def test_sub_samples_grow_to_all_frames() -> None:
    assert growing_shares(1_000, 500) == (1.0,)
    assert growing_shares(10_000_000, 5_000) == (1 / 16, 1 / 4, 1.0)
    made = scripted([9.0, 8.0, 8.0, 7.0, 7.0, 6.0, 6.0, 6.0], shares=(0.25, 0.5, 1.0))
    assert [each.share for each in made] == [0.25, 0.25, 0.25, 0.5, 0.5, 1.0, 1.0, 1.0]
