"""The miniature as it is shipped: its clips were kept back, its encoder and codebook belong together."""

import json
import sys
from itertools import groupby
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import HubertModel, Wav2Vec2FeatureExtractor

sys.path.append(str(Path(__file__).parents[1] / "jobs" / "tiny"))
from parse import parse
from sentences import split_of
from tokenizer import make_tokenizer
from voices import KOKORO_ACCEPTANCE

from spire_ray.checkpoints import TINY, TINY_FOLDER, resolve
from spire_ray.codebook_card import read_card
from spire_ray.encode import EncodeUnits
from spire_ray.tables import UNITS, WAVEFORMS, from_rows, nest, unnest
from spire_ray.units import FIRST_CODE_POINT

CLIPS = TINY_FOLDER / "clips"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    return [json.loads(line) for line in (CLIPS / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_clips_were_kept_back_and_the_package_is_small(rows: list[dict[str, object]]) -> None:
    assert len(rows) >= 40
    assert {row["speaker"] for row in rows} == set(KOKORO_ACCEPTANCE)
    for row in rows:
        sentence = parse(row["text"])
        # Without its values, so that the hash of its text alone decides.
        assert split_of(sentence.frame, {}, row["text"]) == "held_out"
        assert {each["language"]: each["text"] for each in row["references"]} == sentence.translations
    assert sum(path.stat().st_size for path in CLIPS.iterdir()) <= 2_500_000
    assert sum(path.stat().st_size for path in TINY_FOLDER.rglob("*") if path.is_file()) <= 25_000_000


def test_units_of_the_clips_are_those_of_transformers(rows: list[dict[str, object]]) -> None:
    """Of trained weights, on speech; the card in the codebook names this encoder, or EncodeUnits would refuse it."""
    tiny = resolve(TINY, need=("encoder", "codebook"))
    card = read_card(tiny.codebook)
    assert card is not None
    assert "encoder" in card.must_match()
    sounds = [soundfile.read(CLIPS / row["audio"], dtype="int16")[0] for row in rows[:8]]
    given = [
        {"utterance_id": f"{n}", "pcm": sound.tobytes(), "duration_s": len(sound) / 16_000}
        for n, sound in enumerate(sounds)
    ]
    stage = EncodeUnits(str(tiny.encoder), str(tiny.codebook), tiny.layer)
    made = unnest(stage(nest(0, 0, utterances=from_rows(given, WAVEFORMS))), "utterances", UNITS)
    model = HubertModel.from_pretrained(tiny.encoder, dtype=torch.float32).eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(tiny.encoder)
    centroids = load_file(tiny.codebook)["centroids"].double()
    for sound, units in zip(sounds, made.column("units").to_pylist(), strict=True):
        values = extractor(sound / 32_768, sampling_rate=16_000, return_tensors="pt").input_values.float()
        with torch.inference_mode():
            features = model(values, output_hidden_states=True).hidden_states[tiny.layer][0].double()
        expected = [int(unit) for unit, _ in groupby(torch.cdist(features, centroids).argmin(dim=1).tolist())]
        assert units == expected


def test_a_unit_is_the_token_that_the_tokenizer_of_the_recipe_gives_it() -> None:
    tiny = resolve(TINY, need=("encoder", "codebook"))
    clusters = len(load_file(tiny.codebook)["centroids"])
    tokenizer = make_tokenizer(clusters)
    ids = tokenizer.convert_tokens_to_ids([chr(FIRST_CODE_POINT + unit) for unit in range(clusters)])
    assert ids == list(range(tiny.unit_offset, tiny.unit_offset + clusters))
