"""The whole chain by what it means: spire-tiny's transcripts of clips it never heard, and of the same chain broken.

Elsewhere the chain is compared with other libraries on random weights. Here a wrong layer, norm, collapse, unit id or
prompt shows as words that nobody said.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from llm import Engine, running_engine
from non_speech import KINDS, sounds
from spire_ray.activity import SpeechRatios
from spire_ray.checkpoints import TINY, TINY_FOLDER, Checkpoint, resolve
from spire_ray.encode import EncodeUnits
from spire_ray.read import ReadAudio
from spire_ray.tables import PLAN, SOURCES, UNITS, WAVEFORMS, from_rows, nest, unnest

FEW = 30  # clips that a broken chain is shown
LANGUAGES = ("de", "fr", "nl", "it", "es", "pt", "ko", "ru", "zh")
Units = list[list[int]]


class Clip(NamedTuple):
    """One clip of the package."""

    text: str
    references: dict[str, str]
    samples: NDArray[np.int16]  # [n], 16 kHz


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return resolve(TINY)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    folder = TINY_FOLDER / "clips"
    found = []
    for row in map(json.loads, (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()):
        samples, rate = soundfile.read(folder / row["audio"], dtype="int16")
        assert rate == 16_000
        found.append(Clip(row["text"], {each["language"]: each["text"] for each in row["references"]}, samples))
    return found


@pytest.fixture(scope="module")
def engine(tiny: Checkpoint) -> Iterator[Engine]:
    yield from running_engine(tiny)


def units_of(clips: Sequence[Clip], encoder: Path, codebook: Path, layer: int) -> Units:
    """What the units stage makes of the clips."""
    rows = [
        {"utterance_id": f"{n:03}", "pcm": clip.samples.tobytes(), "duration_s": len(clip.samples) / 16_000}
        for n, clip in enumerate(clips)
    ]
    stage = EncodeUnits(str(encoder), str(codebook), layer)
    made = unnest(stage(nest(0, 0, utterances=from_rows(rows, WAVEFORMS))), "utterances", UNITS)
    assert made.column("error").null_count == len(clips)
    found: Units = made.column("units").to_pylist()
    return found


def error_rate(texts: Sequence[str], clips: Sequence[Clip]) -> float:
    """WER in lower case, without punctuation and with hyphens as spaces."""
    same = jiwer.Compose(
        [jiwer.SubstituteRegexes({"-": " "}), jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.Strip()]
    )
    return float(jiwer.wer([same(clip.text) for clip in clips], [same(text) or "" for text in texts]))


class Heard(NamedTuple):
    """What the text stage said of each clip."""

    transcripts: list[str]
    translations: dict[str, list[str]]  # by language


def say(engine: Engine, units: Units, monkeypatch: pytest.MonkeyPatch, *languages: str, style: str = "chat") -> Heard:
    """Transcripts and translations that the text stage makes of units."""
    rows = [{"utterance_id": f"{n:03}", "units": each, "duration_s": 1.0} for n, each in enumerate(units)]
    asked = replace(engine, checkpoint=replace(engine.checkpoint, prompt_style=style))
    transcripts, translations, _ = asked.run(asked.stage(monkeypatch, languages=languages, max_tokens=96), rows)
    said: dict[str, list[str]] = {language: [] for language in languages}
    for row in translations:
        said[row["target_language"]].append(row["text"] or "")
    return Heard([row["text"] or "" for row in transcripts], said)


def test_transcripts_and_translations_are_right(
    tiny: Checkpoint, clips: list[Clip], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(clips) >= 40
    assert tiny.encoder is not None
    assert tiny.codebook is not None
    units = units_of(clips, tiny.encoder, tiny.codebook, tiny.layer)
    heard = say(engine, units, monkeypatch, *LANGUAGES)
    exact = [
        said == clip.references[language]
        for language in LANGUAGES
        for clip, said in zip(clips, heard.translations[language], strict=True)
    ]
    print(f"WER {error_rate(heard.transcripts, clips):.3f}, exact translations {np.mean(exact):.3f}")
    assert error_rate(heard.transcripts, clips) <= 0.15
    assert np.mean(exact) >= 0.3


class Broken:
    """The chain with one link broken at a time; each gives the units it would give."""

    def __init__(self, tiny: Checkpoint, clips: Sequence[Clip], folder: Path) -> None:
        assert tiny.encoder is not None
        assert tiny.codebook is not None
        self.clips, self.layer, self.encoder = clips, tiny.layer, tiny.encoder
        self.centroids = load_file(tiny.codebook)["centroids"]
        # Without its card, which would refuse another layer.
        self.codebook = folder / "codebook.safetensors"
        save_file({"centroids": self.centroids}, self.codebook)

    def whole(self) -> Units:
        return units_of(self.clips, self.encoder, self.codebook, self.layer)

    def layer_below(self) -> Units:
        # The layer above is no such test: the encoder was taught to say the same there, and the units hardly differ.
        return units_of(self.clips, self.encoder, self.codebook, self.layer - 1)

    def shifted(self) -> Units:
        return [[(unit + 1) % len(self.centroids) for unit in each] for each in self.whole()]

    def not_collapsed(self) -> Units:
        return [each.tolist() for each in self._frames(final_norm=False)]

    def final_norm(self) -> Units:
        return [torch.unique_consecutive(each).tolist() for each in self._frames(final_norm=True)]

    def _frames(self, final_norm: bool) -> list[torch.Tensor]:
        """The unit of each frame, by transformers alone."""
        # Cut to its first layers transformers' model ends with the final norm, as an off-the-shelf encoder does.
        cut = HubertModel.from_pretrained(self.encoder, num_hidden_layers=self.layer, dtype=torch.float32).eval()
        whole = HubertModel.from_pretrained(self.encoder, dtype=torch.float32).eval()
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(self.encoder)
        found = []
        for clip in self.clips:
            heard = extractor(clip.samples / 32_768, sampling_rate=16_000, return_tensors="pt").input_values.float()
            with torch.inference_mode():
                if final_norm:
                    features = cut(heard).last_hidden_state[0]
                else:
                    features = whole(heard, output_hidden_states=True).hidden_states[self.layer][0]
            found.append(torch.cdist(features, self.centroids.float()).argmin(dim=1))
        return found


def test_each_link_broken_is_heard(
    tiny: Checkpoint, clips: list[Clip], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = clips[:FEW]
    broken = Broken(tiny, few, tmp_path)
    whole = broken.whole()
    healthy = error_rate(say(engine, whole, monkeypatch).transcripts, few)
    rates = {
        link.__name__: error_rate(say(engine, link(), monkeypatch).transcripts, few)
        for link in (broken.layer_below, broken.shifted, broken.not_collapsed, broken.final_norm)
    }
    rates["wrong prompt"] = error_rate(say(engine, whole, monkeypatch, style="raw").transcripts, few)
    print(f"whole {healthy:.3f}", rates)
    # It reads repeated units, and those of the layer below, nearly as well as its own.
    assert min(rates["not_collapsed"], rates["layer_below"]) > healthy
    assert min(rates["shifted"], rates["final_norm"], rates["wrong prompt"]) > healthy + 0.3


def generated(
    tiny: Checkpoint, sounds: Sequence[NDArray[np.int16]], engine: Engine, patch: pytest.MonkeyPatch, folder: Path
) -> list[dict[str, Any]]:
    """The transcripts row of each sound, which is read from a file."""
    rows = []
    for n, sound in enumerate(sounds):
        soundfile.write(folder / f"{n:04}.flac", sound, 16_000)
        rows.append({"utterance_id": f"{n:04}", "audio_uri": str(folder / f"{n:04}.flac")})
    waveforms = SpeechRatios()(ReadAudio({}, 60.0).read(from_rows(rows, PLAN)))
    stage = EncodeUnits(str(tiny.encoder), str(tiny.codebook), tiny.layer)
    units = unnest(stage(nest(0, 0, utterances=waveforms)), "utterances", UNITS).to_pylist()
    sources = [{name: row[name] for name in SOURCES.names if name in row} for row in units]
    return engine.run(engine.stage(patch, max_tokens=96), sources)[0]


@pytest.mark.parametrize("each", [2, pytest.param(150, marks=[pytest.mark.torture, pytest.mark.timeout(3600)])])
def test_words_that_nobody_said_are_marked(
    each: int, tiny: Checkpoint, clips: list[Clip], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sounds without speech are `silent`, or what is made of them has a flag; spoken clips have none."""
    noise = [sound for kind in KINDS for sound in sounds(kind, each)]
    rows = generated(tiny, [*noise, *(clip.samples for clip in clips)], engine, monkeypatch, tmp_path)
    silent, said = len(noise), rows[len(noise) :]
    assert {row["error"] for row in rows[:silent]} - {None} == {"no_units: silent: under -60 dBFS"}
    flags = Counter(tuple(row["flags"] or ()) for row in rows[:silent] if row["error"] is None)
    marked = silent - flags.pop((), 0)
    print(f"{marked} of {silent} sounds marked: {dict(flags)}; clips: {Counter(tuple(row['flags']) for row in said)}")
    assert marked >= 0.99 * silent
    assert all(row["error"] is None and row["flags"] == [] for row in said)
