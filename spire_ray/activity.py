"""How much of an utterance is speech, told by loudness alone: for utterances that no voice activity detection has cut.

Against silero-vad on 40 studio prompts the mean difference was 0.03 to 0.05, plain, between silences, or with noise 20
to 30 dB under the speech; at 10 dB it was 0.12, and always too small. It costs 1/87,000 of real time on one core of an
AMD EPYC (utterances of 3 to 16 s, best of 7), where silero-vad costs 1/374.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spire_ray.pcm import pcm_views

FRAME = 320  # samples: 20 ms at 16 kHz
BELOW_LOUD_DB, ABOVE_QUIET_DB, FLOOR_DBFS = 35.0, 3.0, -60.0
_LOUD, _QUIET = 95, 5  # percentiles of the frames' levels
_MIN_RANGE_DB = 10.0  # between loud and the threshold: sound without pauses is all speech
_FULL_SCALE = 32_768.0


def speech_ratio(pcm: NDArray[np.int16]) -> float | None:
    """The share of 20 ms frames that are within 35 dB of the loud ones and 3 dB above the quiet ones. None without any.

    `pcm`: int16 [n] at 16 kHz. Never 0, as the loudest frames count: what is silent is an error when it is decoded.
    """
    frames = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    if not len(frames):
        return None
    power = np.einsum("ij,ij->i", frames, frames) / (FRAME * _FULL_SCALE**2)
    levels = 10 * np.log10(power + 1e-12)
    quiet, loud = np.percentile(levels, (_QUIET, _LOUD))
    threshold = max(loud - BELOW_LOUD_DB, min(quiet + ABOVE_QUIET_DB, loud - _MIN_RANGE_DB), FLOOR_DBFS)
    return float(np.mean(levels >= min(threshold, levels.max())))


def with_speech_ratios(waveforms: pa.Table) -> pa.Table:
    """tables.WAVEFORMS with `speech_ratio` measured where it is null and there is sound."""
    known = waveforms.column("speech_ratio").to_pylist()
    sounds = pcm_views(waveforms.column("pcm").combine_chunks())
    ratios = [
        ratio if ratio is not None or sound is None else speech_ratio(sound)
        for ratio, sound in zip(known, sounds, strict=True)
    ]
    at = waveforms.schema.get_field_index("speech_ratio")
    return waveforms.set_column(at, waveforms.schema.field(at), pa.array(ratios, pa.float32()))
