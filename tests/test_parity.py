"""The gate that stops a run whose units are not those of float32."""

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from spire_ray.codebook import Codebook
from spire_ray.encode import EncodeUnits, _Encoded
from spire_ray.errors import MachineFault
from spire_ray.parity import MIN_FRAMES, SAMPLED, Parity, ParityGate, draw, first_few
from spire_ray.tables import UNITS, WAVEFORMS, from_rows, nest, unnest
from test_encode import SECONDS, Weights, frames, waveform


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights(tmp_path_factory.mktemp("weights"))


def shard(index: int, waveforms: list[NDArray[np.int16]], name: str = "u") -> pa.Table:
    rows = [{"utterance_id": f"{name}{n}", "pcm": samples.tobytes()} for n, samples in enumerate(waveforms)]
    return nest(index, 0, utterances=from_rows(rows, WAVEFORMS))


def parity_of(out: pa.Table) -> Parity:
    return Parity.of(out["parity"][0].as_py())


def speech(count: int = 6) -> list[NDArray[np.int16]]:
    return [waveform(seconds, seed) for seed, seconds in zip(range(count), SECONDS * 2, strict=False)]


def test_float32_passes_and_is_counted(weights: Weights) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu")
    first, second = (parity_of(stage(shard(index, speech()))) for index in range(2))
    assert first.utterances == len(SECONDS)  # 7 s: all of them fit into the 10 s of an actor's first shard
    assert first.frames == sum(len(weights.expected(samples)) for samples in speech())
    assert (first.other_units, second) == (0, Parity())
    assert first.squared_norm > 0
    assert first.feature_error < 1e-5


def test_a_wrong_weight_stops_the_run_and_both_figures_are_named(weights: Weights) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", "bfloat16")
    stage.encoder._layers[0].down[0].neg_()
    with pytest.raises(
        MachineFault, match=r"\d+\.\d\d% of \d+ frames .* \(bound: 5%\).* off by \de[-+]\d\d|off by \d\.\d"
    ):
        stage(shard(0, [waveform(9, 1), *speech()]))


def test_neither_of_the_first_two_shards_in_flight_passes_unseen(weights: Weights) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", "bfloat16", parity_bound=0.0)
    chosen, encode = threading.Barrier(2, timeout=60), stage._encode_shard

    def and_meet(waveforms: Sequence[NDArray[np.int16]], kept: Collection[int]) -> _Encoded:
        chosen.wait()
        return encode(waveforms, kept)

    stage._encode_shard = and_meet  # type: ignore[method-assign]
    shards = [shard(0, [waveform(9, 1), *speech()]), shard(1, [waveform(9, 2)])]
    with ThreadPoolExecutor(2) as pool:
        for faults in [pool.submit(stage, one) for one in shards]:
            with pytest.raises(MachineFault, match="bound: 0%"):
                faults.result()


def test_bfloat16_passes_its_bound_and_fails_a_bound_of_zero(weights: Weights) -> None:
    lenient = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", "bfloat16", parity_bound=0.2)
    found = parity_of(lenient(shard(0, speech())))
    assert 0 < found.other_units < 0.2 * found.frames
    assert 1e-4 < found.feature_error < 0.05
    strict = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", "bfloat16", parity_bound=0.0)
    with pytest.raises(MachineFault, match="bound: 0%"):
        strict(shard(0, speech()))


def gate(bound: float, first_s: float = 0.0) -> ParityGate:
    """A gate over features of one dimension, whose unit is their sign and whose exact value is the first sample."""
    codebook = Codebook(torch.tensor([[-1.0], [1.0]]), "", Path())
    return ParityGate(
        lambda waves: [torch.from_numpy(wave).float()[:, None] for wave in waves], codebook, bound, first_s
    )


def test_the_share_is_of_all_that_an_actor_has_compared() -> None:
    gate_ = gate(bound=0.01)
    exact = np.ones(2_000, np.int16)
    right, features = np.ones(2_000, np.int64), torch.ones(2_000, 1)
    wrong = right.copy()
    wrong[:30] = 0
    assert gate_.check([exact], [right], [features]).other_units == 0
    assert gate_.check([exact], [wrong], [features * 1.1]).feature_error == pytest.approx(0.1)
    assert gate_.total.share == 30 / 4_000
    with pytest.raises(MachineFault, match=r"1\.02% of 6000 frames .* off by"):
        gate_.check([exact], [np.where(np.arange(2_000) < 31, 0, 1)], [features])


def test_a_few_frames_are_no_share_to_stop_for() -> None:
    exact, features = np.ones(25, np.int16), torch.ones(25, 1)
    wrong = np.ones(25, np.int64)
    wrong[0] = 0
    assert gate(bound=0.02).check([exact], [wrong], [features]).share == 0.04
    wrong[: round(0.02 * MIN_FRAMES) + 1] = 0
    with pytest.raises(MachineFault):
        gate(bound=0.02).check([exact], [wrong], [features])


def test_the_id_alone_decides_who_is_compared_after_the_first_shard() -> None:
    ids = [f"speaker/{n}.flac" for n in range(100_000)]
    drawn = [index for index, name in enumerate(ids) if draw(name) < SAMPLED]
    assert 70 < len(drawn) < 130
    later = gate(0.02)
    assert later.choose(ids, [1.0] * len(ids)) == drawn
    assert later.choose(ids[drawn[0] : drawn[0] + 1], [1.0]) == [0]


def test_the_first_shard_is_compared_for_a_bounded_time() -> None:
    ids, seconds = [f"u{n}" for n in range(50)], [float(2 + n % 9) for n in range(50)]
    few = first_few(ids, seconds, 10.0)
    assert 2 <= len(few) <= 5
    assert sum(seconds[index] for index in few) <= 10.0
    assert first_few(ids, [30.0] * 49 + [20.0], 10.0) == [49]
    started = gate(0.02, first_s=10.0)
    assert started.choose([], []) == []
    assert set(few) <= set(started.choose(ids, seconds))
    assert started.choose(["u1"], [2.0]) == [0], "nothing has passed yet: the second of two in flight may end first"
    assert started.check([], [], []) == Parity()
    assert started.choose(["u1"], [2.0]) == [0]
    started.check([np.ones(100, np.int16)], [np.ones(100, np.int64)], [torch.ones(100, 1)])
    assert started.choose(["u1"], [2.0]) == []


def test_two_shards_in_flight_give_the_units_of_one(weights: Weights) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", budget_s=2.0)
    shards = [shard(index, speech()[index:], f"s{index}-") for index in range(4)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(stage, shards))
    expected = [weights.expected(samples) for samples in speech()]
    for index, out in enumerate(made):
        assert out["shard"].to_pylist() == [index]
        assert frames(unnest(out, "utterances", UNITS)) == expected[index:]
