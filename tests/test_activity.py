import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import silero_vad
import torch

sys.path.append(str(Path(__file__).parents[1] / "jobs"))
from benchmark_corpus import utterance
from non_speech import KINDS, sounds
from spire_ray import tables
from spire_ray.activity import SpeechRatios, speech_ratio, unheard_ratio
from spire_ray.encode import units_table
from spire_ray.quality import flags, least_ratio
from spire_ray.vad import Vad


def heard_by_silero(samples):
    sound = torch.from_numpy(samples.astype(np.float32) / 32768)
    found = silero_vad.get_speech_timestamps(sound, silero_vad.load_silero_vad(), speech_pad_ms=0)
    return sum(one["end"] - one["start"] for one in found) / len(samples)


@pytest.mark.parametrize("silence", [0.0, 2.0, 6.0])
@pytest.mark.parametrize("noise", [0, 3, 30])
def test_near_what_silero_hears(silence, noise):
    rng = np.random.default_rng(0)
    quiet = np.zeros(round(silence * 16_000), np.int16)
    samples = np.concatenate([quiet, utterance(4.0, 3), quiet, utterance(3.0, 5)])
    samples = (samples + rng.normal(0, noise, len(samples))).astype(np.int16)
    assert speech_ratio(samples) == pytest.approx(heard_by_silero(samples), abs=0.15)


def test_sound_without_pauses_is_all_speech_and_loudness_does_not_matter():
    voice = utterance(5.0, 1)
    tone = (8000 * np.sin(np.arange(80_000) / 10)).astype(np.int16)
    assert speech_ratio(tone) == 1.0
    assert speech_ratio((voice / 8).astype(np.int16)) == pytest.approx(speech_ratio(voice), abs=0.05)


def test_the_shortest_sound_has_a_ratio():
    assert speech_ratio(utterance(1.0, 0)[:400]) == 1.0
    assert speech_ratio(np.zeros(100, np.int16)) is None


def test_units_always_have_it_and_the_plans_value_stays():
    pcm = [utterance(2.0, 0).tobytes(), utterance(2.0, 0).tobytes(), None]
    rows = [
        {"utterance_id": f"{n}", "pcm": one, "duration_s": 2.0, "speech_ratio": 0.25 if n == 0 else None}
        for n, one in enumerate(pcm)
    ]
    table = SpeechRatios()(tables.from_rows(rows, tables.WAVEFORMS))
    assert table.schema == tables.WAVEFORMS
    units = units_table(table, [np.zeros(99, np.int64), np.zeros(99, np.int64), None])
    ratios = units.column("speech_ratio").to_pylist()
    assert ratios[0] == 0.25
    assert ratios[1] == pytest.approx(speech_ratio(utterance(2.0, 0)))
    assert ratios[2] is None
    assert pa.types.is_float32(units.column("speech_ratio").type)


def test_speech_is_heard_and_nothing_else():
    vad = Vad()
    for kind in KINDS:
        for sound in sounds(kind, 5):
            assert 0 < unheard_ratio(sound, vad) < least_ratio(len(sound) / 16_000), kind
    assert unheard_ratio(utterance(3.0, 0), vad) is None
    assert unheard_ratio(np.concatenate([sounds("pink", 1)[0], utterance(3.0, 0)]), vad) is None
    assert unheard_ratio(utterance(1.0, 0)[:400], vad) is None


def test_noise_of_any_length_is_not_speech():
    rng = np.random.default_rng(0)
    for samples in (1100, 2000, 4000, 16_000):
        noise = rng.normal(0, 2000, samples).astype(np.int16)
        assert 0 < unheard_ratio(noise, Vad()) < least_ratio(samples / 16_000)


def test_speech_beside_something_far_louder_is_speech():
    pcm = np.zeros(48_000, np.int16)
    pcm[:1600] = 30_000
    pcm[16_000:] = utterance(2.0, 0) / 40
    table = tables.from_rows([{"utterance_id": "a", "pcm": pcm.tobytes(), "duration_s": 3.0}], tables.WAVEFORMS)
    (ratio,) = SpeechRatios()(table).column("speech_ratio").to_pylist()
    assert ratio >= least_ratio(3.0) * (1 - 1e-6)
    assert flags("Words.", "en", "stop", seconds=3.0, speech_ratio=ratio) == ()
