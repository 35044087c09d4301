"""The stage that makes units, called as a plain object, against transformers and sklearn."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.cluster import KMeans
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from spire_ray.encode import EncodeUnits, check_codebook, pcm_views
from spire_ray.errors import MachineFault, UserError
from spire_ray.hubert import Packed
from spire_ray.tables import UNITS, WAVEFORMS, from_rows, nest, unnest

SECONDS = [0.025, 0.61, 3.0, 1.7, 0.2, 1.7]


def waveform(seconds: float, seed: int) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    return (3_000 * np.sin(2 * np.pi * 200 * (1 + time) * time) + rng.normal(0, 800, time.size)).astype(np.int16)


def reference_features(model: HubertModel, samples: NDArray[np.int16], layer: int) -> NDArray[np.float32]:
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    inputs = extractor(samples.astype(np.float32) / 32_768, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        return model(inputs.input_values, output_hidden_states=True).hidden_states[layer][0].numpy()


class Weights:
    """An encoder folder, a codebook that sklearn fitted on its features, and both of their makers."""

    def __init__(self, folder: Path) -> None:
        sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 3}
        config = HubertConfig(**sizes, conv_dim=(32,) * 7, do_stable_layer_norm=True, feat_extract_norm="layer")
        torch.manual_seed(0)
        self.model = HubertModel(config).eval()
        self.encoder, self.codebook = str(folder / "encoder"), str(folder / "codebook.safetensors")
        self.model.save_pretrained(self.encoder)
        features = np.concatenate([reference_features(self.model, waveform(3, seed), 2) for seed in range(50, 56)])
        self.kmeans = KMeans(100, n_init=1, max_iter=10, random_state=0).fit(features)
        save_file({"centroids": torch.from_numpy(self.kmeans.cluster_centers_)}, self.codebook)

    def expected(self, samples: NDArray[np.int16]) -> list[int]:
        return self.kmeans.predict(reference_features(self.model, samples, 2)).tolist()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights(tmp_path_factory.mktemp("weights"))


def shard(waveforms: list[NDArray[np.int16] | None]) -> pa.Table:
    rows = [
        {
            "utterance_id": f"u{index}",
            "pcm": None if samples is None else samples.tobytes(),
            "duration_s": None if samples is None else len(samples) / 16_000,
            "speech_ratio": 0.5,
            "error": "missing: gone" if samples is None else None,
        }
        for index, samples in enumerate(waveforms)
    ]
    return from_rows(rows, WAVEFORMS)


def frames(units: pa.Table) -> list[list[int] | None]:
    rows = units.select(["units", "run_lengths"]).to_pylist()
    return [None if row["units"] is None else np.repeat(row["units"], row["run_lengths"]).tolist() for row in rows]


def test_a_shard_of_waveforms_becomes_units(weights: Weights) -> None:
    waveforms: list[NDArray[np.int16] | None] = [waveform(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    waveforms[2:2] = [None]
    waveforms.append(None)
    out = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", budget_s=2.0)(
        nest(7, 1, utterances=shard(waveforms))
    )
    assert (out.num_rows, out["shard"].to_pylist(), out["attempt"].to_pylist()) == (1, [7], [1])
    assert 0 < out["encode_seconds"][0].as_py() < 60
    assert out["encode_budget_s"].to_pylist() == [2.0]
    units = unnest(out, "utterances", UNITS)
    expected = [None if samples is None else weights.expected(samples) for samples in waveforms]
    assert frames(units) == expected
    assert units["num_frames"].to_pylist() == [None if part is None else len(part) for part in expected]
    for row in units.drop_columns(["run_lengths"]).to_pylist():
        assert row["error"] == ("missing: gone" if row["units"] is None else None)
        assert row["units"] is None or all(a != b for a, b in zip(row["units"], row["units"][1:], strict=False))
    for name in ("utterance_id", "duration_s", "speech_ratio", "error"):
        assert units[name].to_pylist() == shard(waveforms)[name].to_pylist()


def test_slices_of_arrow_memory_are_read_at_their_offsets(weights: Weights) -> None:
    waveforms = [waveform(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu")
    sliced = stage(nest(0, 0, utterances=shard([None, *waveforms])).slice(0, 1))
    inner = stage(nest(0, 0, utterances=shard([*waveforms[:2], None, *waveforms[2:]]).slice(1, 4)))
    outer = pa.concat_tables([nest(n, 0, utterances=shard([waveforms[n], None])) for n in range(4)]).combine_chunks()
    expected = [weights.expected(samples) for samples in waveforms]
    assert frames(unnest(sliced, "utterances", UNITS)) == [None, *expected]
    assert frames(unnest(inner, "utterances", UNITS)) == [expected[1], None, *expected[2:4]]
    assert frames(unnest(stage(outer.slice(2, 1)), "utterances", UNITS)) == [expected[2], None]


def test_pcm_views_share_the_memory_of_a_slice() -> None:
    values = [b"\x01\x00\x02\x00", None, b"\xff\xff", b"", b"\x00\x80\xff\x7f"]
    whole = pa.array(values, pa.large_binary())
    for start in range(len(values) + 1):
        views = pcm_views(whole.slice(start))
        expected = [None if value is None else np.frombuffer(value, "<i2").tolist() for value in values[start:]]
        assert [None if view is None else view.tolist() for view in views] == expected
        for view in views:
            assert view is None or view.size == 0 or not view.flags.owndata
    assert pcm_views(pa.array([None], pa.large_binary())) == [None]


@pytest.mark.parametrize("waveforms", [[], [None, None]])
def test_a_shard_without_audio_is_only_its_errors(weights: Weights, waveforms: list[None]) -> None:
    out = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu")(nest(0, 0, utterances=shard([*waveforms])))
    units = unnest(out, "utterances", UNITS)
    assert units["error"].to_pylist() == ["missing: gone"] * len(waveforms)
    assert units["units"].null_count == units["num_frames"].null_count == len(waveforms)


@pytest.mark.parametrize("budget_s", [0.1, 2.0, 100.0])
def test_units_do_not_depend_on_the_budget(weights: Weights, budget_s: float) -> None:
    waveforms = [waveform(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    got = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", budget_s=budget_s).frame_units(waveforms)
    assert [part.tolist() for part in got] == [weights.expected(samples) for samples in waveforms]


def test_out_of_memory_halves_the_budget_and_goes_on(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", budget_s=8.0)
    stage.gate.first_s = 0.0
    encode = stage.encoder.encode

    def limited(packed: Packed) -> list[torch.Tensor]:
        if sum(packed.lengths) > limit_s * 50:
            raise torch.OutOfMemoryError("the GPU is full")
        return encode(packed)

    monkeypatch.setattr(stage.encoder, "encode", limited)
    limit_s = 3.1
    waveforms = [waveform(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    out = stage(nest(0, 0, utterances=shard([*waveforms])))
    assert frames(unnest(out, "utterances", UNITS)) == [weights.expected(samples) for samples in waveforms]
    assert out["encode_budget_s"].to_pylist() == [2.0]
    limit_s = 0.5
    with pytest.raises(torch.OutOfMemoryError):
        stage.frame_units(waveforms)


def test_two_shards_that_run_out_of_memory_together_halve_the_budget_once(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", budget_s=6.0)
    encode, pack, both = stage.encoder.encode, stage.encoder.pack, threading.Barrier(2, timeout=60)

    def limited(packed: Packed) -> list[torch.Tensor]:
        if sum(packed.lengths) > 3.1 * 50:
            raise torch.OutOfMemoryError("the GPU is full")
        return encode(packed)

    def packed_beside_another(waveforms: Sequence[NDArray[np.int16]]) -> Packed:
        if len(waveforms) > 3:
            both.wait()
        return pack(waveforms)

    monkeypatch.setattr(stage.encoder, "encode", limited)
    monkeypatch.setattr(stage.encoder, "pack", packed_beside_another)
    shards = [[waveform(1.0, seed + first) for seed in range(6)] for first in (0, 6)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(stage.frame_units, shards))
    for waveforms, units in zip(shards, made, strict=True):
        assert [part.tolist() for part in units] == [weights.expected(samples) for samples in waveforms]
    assert stage.shard_encoder.budget_s == 3.0


def test_a_shard_that_overflows_in_half_precision_is_done_again_in_float32(weights: Weights) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", "float16", budget_s=2.0)
    waveforms = [waveform(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    whole = stage(nest(0, 0, utterances=shard([*waveforms])))
    weight, bias = stage.encoder._projection
    stage.encoder._projection = (weight * 1e6, bias)
    again = stage(nest(1, 0, utterances=shard([*waveforms])))
    assert whole["redone_in_float32"].to_pylist() == [False]
    assert again["redone_in_float32"].to_pylist() == [True]
    assert frames(unnest(again, "utterances", UNITS)) == [weights.expected(samples) for samples in waveforms]


def test_overflow_in_float32_stops_the_run(weights: Weights) -> None:
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu")
    weight, bias = stage.encoder._projection_norm
    stage.encoder._projection_norm = (weight * float("inf"), bias)
    with pytest.raises(MachineFault, match="float32"):
        stage.frame_units([waveform(0.5, 0)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_nearly_the_same_units(weights: Weights, dtype: str) -> None:
    waveforms = [waveform(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    got = np.concatenate(EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", dtype).frame_units(waveforms))
    expected = np.concatenate([weights.expected(samples) for samples in waveforms])
    assert np.mean(got == expected) > 0.9


def test_a_codebook_of_another_dimension_is_refused_before_weights_are_read(weights: Weights, tmp_path: Path) -> None:
    other = str(tmp_path / "other.safetensors")
    save_file({"centroids": torch.zeros(5, 1024)}, other)
    check_codebook(weights.encoder, weights.codebook, 2)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes(Path(weights.encoder, "config.json").read_bytes())
    for check in (check_codebook, EncodeUnits):
        with pytest.raises(UserError, match="has dimension 1024, the encoder's features have 48"):
            check(str(bare), other, 2)
        with pytest.raises(UserError, match="layer 4 was asked for"):
            check(weights.encoder, weights.codebook, 4)
    with pytest.raises(UserError, match="float8"):
        EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", "float8")


def test_a_call_has_the_threads_asked_for_whichever_thread_it_comes_from(weights: Weights) -> None:
    before = torch.get_num_threads()
    stage = EncodeUnits(weights.encoder, weights.codebook, 2, "cpu", threads=before + 1)

    def call() -> int:
        stage(nest(0, 0, utterances=WAVEFORMS.empty_table()))
        return int(torch.get_num_threads())

    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(call).result() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("module", "unused"),
    # 4.4 s and 1.5 s of a CPU, each time that a node joins and an actor starts on it.
    [("encode", {"torch._dynamo", "sympy", "transformers", "vllm"}), ("commit", {"torch"}), ("shards", {"torch"})],
)
def test_an_actor_starts_without_what_it_does_not_use(module: str, unused: set[str]) -> None:
    program = f"import spire_ray.{module}, sys; print({unused} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
