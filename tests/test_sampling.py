"""Which frames are kept: by hashes alone, and from the same features that transformers computes."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from conftest import SECONDS, sound
from spire_ray.sampling import KEYS, Sample, SampleFrames, frame_keys
from spire_ray.tables import WAVEFORMS, from_rows, nest

MASK = KEYS - 1
LAYER = 3


def splitmix64(state: int) -> int:
    """The generator's output function, in whole numbers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


@given(seed=st.integers(0, 2**40), utterance_id=st.text(max_size=20), frames=st.integers(0, 50))
def test_keys_are_splitmix64_of_seed_and_id(seed: int, utterance_id: str, frames: int) -> None:
    try:
        digest = hashlib.blake2b(f"{seed}\0{utterance_id}".encode(), digest_size=8).digest()
    except UnicodeEncodeError:
        return
    state = int.from_bytes(digest, "little")
    expected = [splitmix64((state + t * 0x9E3779B97F4A7C15) & MASK) for t in range(1, frames + 1)]
    assert frame_keys(seed, utterance_id, frames).tolist() == expected


def test_the_generator_is_the_published_one() -> None:
    # The first outputs of splitmix64 seeded with 1234567, as its authors' C code prints them.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64((1234567 + t * 0x9E3779B97F4A7C15) & MASK) for t in (1, 2, 3)] == published


def test_about_as_many_frames_are_kept_as_asked_for_and_none_both_trained_on_and_held_out() -> None:
    sample = Sample.of(seed=1, frames=100_000, planned=1_000_000)
    chosen = [sample.choose(f"u{index}", 1000) for index in range(1000)]
    held_out = sum(int(held.sum()) for _, _, held in chosen)
    assert sum(len(frames) for frames, _, _ in chosen) - held_out == pytest.approx(100_000, rel=0.01)
    assert held_out == pytest.approx(5_000, rel=0.05)
    for frames, keys, held in chosen[:10]:
        assert np.all((keys < np.uint64(sample.training)) == ~held)
        assert np.all(np.diff(frames) > 0)
    other = Sample.of(seed=2, frames=100_000, planned=1_000_000).choose("u0", 1000)[0]
    assert not np.array_equal(other, chosen[0][0])


@given(frames=st.integers(2, 10**9), planned=st.integers(1, 10**9))
def test_the_slices_of_the_hash_space_never_overlap_or_exceed_it(frames: int, planned: int) -> None:
    sample = Sample.of(0, frames, planned)
    assert 0 <= sample.training <= sample.held_out <= KEYS
    if frames >= planned:
        assert sample.held_out == KEYS


def test_the_held_out_set_is_bounded() -> None:
    sample = Sample.of(0, 10**8, 10**10)
    assert (sample.held_out - sample.training) / KEYS * 10**10 == pytest.approx(200_000)


def reference(bundle: Path, samples: NDArray[np.int16]) -> NDArray[np.float32]:
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(bundle / "encoder")
    values = extractor(samples.astype(np.float32) / 32_768, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        model = HubertModel.from_pretrained(bundle / "encoder").eval()
        hidden = model(values, output_hidden_states=True).hidden_states[LAYER][0]
    return hidden.numpy()


def test_a_shard_keeps_the_features_of_transformers_at_the_chosen_frames(bundle: Path) -> None:
    rows = [
        {"utterance_id": f"u{index}", "pcm": sound(seconds, index).tobytes(), "duration_s": seconds}
        for index, seconds in enumerate(SECONDS)
    ]
    rows.insert(2, {"utterance_id": "gone", "error": "missing: not there"})
    got: list[tuple[int, NDArray[np.float16], NDArray[np.uint64], NDArray[np.bool_]]] = []
    sample = Sample.of(7, 200, 400)
    stage = SampleFrames(str(bundle / "encoder"), LAYER, sample, lambda *kept: got.append(kept), "cpu")
    stage.shard_encoder.budget_s = 3.0
    told = stage(nest(5, 0, utterances=from_rows(rows, WAVEFORMS))).to_pylist()[0]

    expected, keys = [], []
    for index, seconds in enumerate(SECONDS):
        features = reference(bundle, sound(seconds, index))
        every = frame_keys(7, f"u{index}", len(features))
        chosen = every.astype(object) < sample.held_out
        expected.append(features[chosen.astype(bool)])
        keys.append(every[chosen.astype(bool)])
    ((shard, frames, kept_keys, held_out),) = got
    assert shard == 5
    assert frames.dtype == np.float16
    assert np.array_equal(kept_keys, np.concatenate(keys))
    assert np.array_equal(held_out, kept_keys >= np.uint64(sample.training))
    np.testing.assert_allclose(frames.astype(np.float32), np.concatenate(expected), rtol=2e-3, atol=2e-3)
    assert told["audio_s"] == pytest.approx(sum(SECONDS))
    assert (told["utterances"], told["reasons"]) == (len(SECONDS) + 1, ["missing"])
    assert told["faults"] == ["gone: missing: not there"]


def test_a_shard_without_audio_keeps_nothing(bundle: Path) -> None:
    sample = Sample.of(0, 10, 10)
    stage = SampleFrames(str(bundle / "encoder"), LAYER, sample, lambda *kept: pytest.fail("kept"), "cpu")
    rows = from_rows([{"utterance_id": "gone", "error": "missing"}], WAVEFORMS)
    assert stage(nest(0, 0, utterances=rows)).column("audio_s").to_pylist() == [0.0]
