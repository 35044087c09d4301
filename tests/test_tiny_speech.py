import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import signal
from transformers import HubertModel

sys.path.append(str(Path(__file__).parents[1] / "jobs" / "tiny"))
import corpus
import mix
from encoder import greedy, save
from encoder_batches import batch, clean_batches, read_manifest
from encoder_network import LAYER, Network, mel_bands
from human_speech import OUTSIDE, join, spoken_words
from letters import LETTERS, spoken
from perturb import RATE, perturb
from phones import SOUNDS, UNKNOWN, frame_labels
from sentences import LANGUAGES, draw
from voices import KOKORO_ACCEPTANCE, KOKORO_DEV, KOKORO_TRAIN, Speech

from corpora import rows_of
from spire_ray.hubert import Encoder


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def test_the_voices_of_acceptance_are_never_learnt_from() -> None:
    assert set(KOKORO_ACCEPTANCE) == {"bf_emma", "am_michael"}
    assert not {*KOKORO_ACCEPTANCE, *KOKORO_DEV} & set(KOKORO_TRAIN)
    assert len(set(KOKORO_TRAIN)) == len(KOKORO_TRAIN) == 24


def test_a_frame_has_the_sound_that_is_spoken_in_its_middle() -> None:
    phones = [("pau", 0.1), ("ay", 0.3), ("t", 0.4)]
    labels = [SOUNDS[label] for label in frame_labels(phones, 25)]
    middles = [(320 * frame + 200) / RATE for frame in range(25)]
    expected = ["sil" if m < 0.1 or m >= 0.4 else "a" if m < 0.2 else "ɪ" if m < 0.3 else "t" for m in middles]
    assert labels == expected


def test_labels_follow_speed_and_pauses() -> None:
    labels = frame_labels([("t", 0.22), ("s", 0.44)], 40, lead_s=0.2, speed=1.1)
    middles = (320 * np.arange(40) + 200) / RATE
    spoken_t, spoken_s = labels == SOUNDS.index("t"), labels == SOUNDS.index("s")
    assert middles[spoken_t].min() >= 0.2
    assert middles[spoken_t].max() < 0.4 <= middles[spoken_s].min()
    assert middles[spoken_s].max() < 0.6


def test_sounds_that_no_synthesiser_told_are_unknown() -> None:
    assert (frame_labels([], 5) == UNKNOWN).all()
    labels = frame_labels([("ˈ", 0.1), ("ɑ", 0.2), ("ː", 0.3)], 16)
    assert set(labels[:4]) == {UNKNOWN}
    assert SOUNDS[labels[7]] == "ɑ"


def test_perturbed_speech_is_reproducible_and_as_fast_as_said() -> None:
    speech = tone(1.0)
    for seed in range(8):
        changed = perturb(speech, np.random.default_rng(seed))
        again = perturb(speech, np.random.default_rng(seed))
        assert changed.samples.tobytes() == again.samples.tobytes()
        assert changed.samples.dtype == np.int16
        lead = int(changed.lead_s * RATE)
        middle = changed.samples[lead + 2000 : lead + 12_000].astype(float)
        hertz, power = signal.periodogram(middle, RATE, nfft=1 << 16)
        assert hertz[power.argmax()] == pytest.approx(440 * changed.speed, abs=3)


def test_noise_stays_within_its_bounds() -> None:
    loud = [perturb(tone(1.0), np.random.default_rng(seed)) for seed in range(30)]
    peaks = [np.abs(changed.samples.astype(int)).max() for changed in loud]
    assert min(peaks) > 300
    assert all(np.isfinite(changed.samples).all() and changed.samples.any() for changed in loud)


@pytest.mark.parametrize(
    ("text", "letters"),
    [("Twenty-one o'clock.", "twenty one o'clock"), ("To São Paulo, please?", "to sao paulo please")],
)
def test_transcripts_become_letters(text: str, letters: str) -> None:
    assert spoken(text) == letters


def test_every_sentence_can_be_written_in_letters() -> None:
    for sentence in draw(300, 5, "train"):
        words = sentence.english.replace("-", " ").split()
        assert len(spoken(sentence.english).split()) == len(words)


def test_greedy_letters_leave_out_blanks_and_repeats() -> None:
    path = [LETTERS.index(letter) for letter in "__ss_e__ee__k____"]
    scores = torch.nn.functional.one_hot(torch.tensor([path]), len(LETTERS)).float()
    assert greedy(scores, torch.tensor([15])) == ["seek"]
    assert greedy(scores, torch.tensor([4])) == ["s"]


def test_the_network_in_training_is_transformers_hubert() -> None:
    torch.manual_seed(3)
    network = Network().eval()
    random = np.random.default_rng(1)
    speech = [random.integers(-9000, 9000, length, np.int16) for length in (9000, 16_001)]
    sounds = [np.zeros(27, np.int64), np.zeros(49, np.int64)]
    together = batch(list(zip(speech, sounds, strict=True)), ["one", "two"])
    with torch.no_grad():
        said = network(together.samples, together.frames)
        for index, frames in enumerate(together.frames):
            alone = together.samples[index : index + 1, : len(speech[index])]
            last = network.hubert(alone).last_hidden_state
            assert last.shape[1] == frames
            torch.testing.assert_close(network.letters(last)[0], said.letters[index, :frames], atol=2e-5, rtol=0)


def test_a_saved_encoder_serves_transformers_and_the_packed_encoder(tmp_path: Path) -> None:
    torch.manual_seed(4)
    torch.save({"network": Network().state_dict()}, tmp_path / "encoder.pt")
    save(tmp_path / "encoder.pt", tmp_path / "encoder")
    assert (tmp_path / "encoder" / "model.safetensors").stat().st_size < 10_000_000
    model = HubertModel.from_pretrained(tmp_path / "encoder").eval()
    assert model.dtype == torch.float32
    pcm = np.random.default_rng(6).integers(-9000, 9000, 16_000, np.int16)
    samples = torch.from_numpy(pcm / 32_768).float()
    samples = (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()
    with torch.no_grad():
        expected = model(samples[None], output_hidden_states=True).hidden_states[LAYER][0]
    (features,) = Encoder(tmp_path / "encoder", LAYER).features([pcm])
    torch.testing.assert_close(features, expected, atol=2e-4, rtol=1e-4)


def test_mel_bands_cover_what_is_heard_evenly() -> None:
    bands = mel_bands()
    assert bands.shape == (201, 64)
    assert (bands.sum(0) > 0).all()
    centres = (bands * torch.linspace(0, 8000, 201)[:, None]).sum(0) / bands.sum(0)
    assert (centres.diff() > 0).all()
    assert centres[-1] > 7000


def test_a_corpus_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def speaker(engine: str, random: np.random.Generator) -> tuple[str, object]:
        hertz = float(random.uniform(200, 400))
        return f"voice-{hertz:.0f}", lambda text: Speech(tone(0.02 * len(text), hertz), [("pau", 0.1)])

    monkeypatch.setattr(corpus, "speaker", speaker)
    corpus.make(tmp_path / "whole", "flite", 12 / 3600, "train", [])
    corpus.make(tmp_path / "parts", "flite", 4 / 3600, "train", [])
    corpus.make(tmp_path / "parts", "flite", 12 / 3600, "train", [])
    whole, parts = (read_manifest(tmp_path / name / "manifest.jsonl") for name in ("whole", "parts"))
    assert [(row["text"], row["speaker"]) for row in whole] == [(row["text"], row["speaker"]) for row in parts]
    assert 12 < sum(row["duration"] for row in whole) < 16
    assert all(soundfile.info(row["audio"]).samplerate == RATE for row in whole)
    assert sum(len(found.texts) for found in clean_batches(tmp_path / "whole" / "manifest.jsonl")) == len(whole)


def test_the_mix_goes_on_where_it_ended_and_has_every_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, "SHARES", {"flite": 1, "kokoro": 3})
    for engine in ("flite", "kokoro"):
        (tmp_path / engine).mkdir()
        with (tmp_path / engine / "manifest.jsonl").open("w") as file:
            for number, sentence in enumerate(draw(6, 8, "train")):
                line = corpus.write(tmp_path / engine, number, "a voice", sentence, Speech(tone(1.0), []))
                file.write(json.dumps(line) + "\n")
    mix.write(tmp_path, tmp_path / "whole", 20 / 3600)
    mix.write(tmp_path, tmp_path / "parts", 7 / 3600)
    mix.write(tmp_path, tmp_path / "parts", 20 / 3600)
    whole, parts = ((tmp_path / name / "manifest.jsonl").read_text() for name in ("whole", "parts"))
    assert whole == parts
    rows = [json.loads(line) for line in whole.splitlines()]
    assert sum("kokoro" in row["id"] for row in rows) > len(rows) / 2
    assert len({row["id"] for row in rows}) == len(rows) > 12
    for row in rows:
        heard, again = (soundfile.read(tmp_path / name / row["audio"], dtype="int16")[0] for name in ("whole", "parts"))
        assert heard.tobytes() == again.tobytes()
        assert len(heard) == round(row["duration"] * RATE)
    planned = rows_of(tmp_path / "whole" / "manifest.jsonl")
    assert {row["reference"] for row in planned} == {row["text"] for row in rows}
    assert all(row["error"] is None and len(row["references"]) == len(LANGUAGES) for row in planned)


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    line = json.dumps({"audio": "a.flac", "duration": 1.0})
    (tmp_path / "manifest.jsonl").write_text(f"{line}\n{line[:9]}")
    assert len(read_manifest(tmp_path / "manifest.jsonl")) == 1


def test_prompts_are_joined_without_their_own_silence() -> None:
    word = np.concatenate([np.zeros(8000, np.int16), (20_000 * tone(0.5)).astype(np.int16), np.zeros(8000, np.int16)])
    joined = join([word, word])
    assert len(joined) == pytest.approx(2 * 8000 + 3 * 800, abs=2 * 320)
    assert spoken_words("Forty-two dollars.") == ["forty", "two", "dollars"]


@pytest.mark.parametrize(("prompt", "outside"), [("Monday", True), ("billionth", True), ("March", False)])
def test_prompts_outside_the_domain_are_left_out(prompt: str, outside: bool) -> None:
    assert bool(OUTSIDE.fullmatch(prompt)) is outside
