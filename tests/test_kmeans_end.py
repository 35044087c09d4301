"""When Lloyd's iterations end, from scripted sums: the numbers need no frames."""

from dataclasses import asdict

import numpy as np
import pytest

from spire_ray.kmeans import Frames, Iteration, Sums, growing_shares, lloyd
from spire_ray.nearest import Centroids


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


def re_seeding(limit: int) -> list[Iteration]:
    """A fit whose second cluster is far from all frames in its first four steps; its held-out inertia never falls."""
    holder = Frames(2)
    frames = np.array([[0, 0], [0, 1], [4, 4], [4, 5]], np.float16)
    holder.add(0, frames, np.arange(1, 5, dtype=np.uint64), np.zeros(4, np.bool_))
    steps = iter(range(1_000))

    def step(centroids: Centroids, share: float) -> Sums:
        away = np.array([[2, 2], [900, 900]], np.float32)
        return holder.step(away if next(steps) < 4 else centroids, share)

    start = np.array([[2, 2], [900, 900]], np.float32)
    return list(lloyd(step, lambda _: (10.0, 1), start, max_iterations=limit))


def test_an_end_is_never_an_iteration_that_re_seeded() -> None:
    made = re_seeding(limit=100)
    assert [each.reseeded for each in made] == [1, 1, 1, 1, 0, 0]
    assert [each.calm for each in made] == [0, 0, 0, 0, 1, 2]
    cut_off = re_seeding(limit=3)
    assert [each.reseeded for each in cut_off] == [1, 1, 0]
    assert cut_off[-1].done
