"""The packed encoder against transformers' own HubertModel in float32."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import varlen
from transformers import HubertModel, Wav2Vec2FeatureExtractor

# Longer and shorter than a frame's stride apart, odd, equal, from one frame to some seconds.
from small_hubert import LENGTHS, REAL_CONVOLUTIONS, reference, relative_error, save_model, small_config, speechlike
from small_hubert import small as small
from spire_ray import attention, hubert
from spire_ray.codebook import Codebook, assign
from spire_ray.hubert import Encoder, micro_batches, num_frames
from spire_ray.linear import for_products, linear


@pytest.mark.parametrize("layer", [2, 3])
def test_packed_features_equal_transformers_one_by_one(small: tuple[HubertModel, Path], layer: int) -> None:
    model, folder = small
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate(LENGTHS)]
    features = Encoder(folder, layer).features(waveforms)
    for ours, waveform in zip(features, waveforms, strict=True):
        theirs = reference(model, waveform, layer)
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) <= 1e-5


def test_real_convolution_widths_equal_transformers(tmp_path: Path) -> None:
    model = save_model(small_config(**REAL_CONVOLUTIONS), tmp_path)
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate([400, 5_000, 48_001])]
    for ours, waveform in zip(Encoder(tmp_path, 2).features(waveforms), waveforms, strict=True):
        assert relative_error(ours, reference(model, waveform, 2)) <= 1e-5


def test_equals_transformers_padded_with_a_mask(small: tuple[HubertModel, Path]) -> None:
    model, folder = small
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate(LENGTHS[3:])]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    samples = [wave.astype(np.float32) / 32_768 for wave in waveforms]
    batch = extractor(samples, sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.inference_mode():
        padded = model(**batch, output_hidden_states=True).hidden_states[3]
    for ours, theirs in zip(Encoder(folder, 3).features(waveforms), padded, strict=True):
        assert relative_error(ours, theirs[: len(ours)]) <= 1e-5


def test_silence_is_finite(small: tuple[HubertModel, Path]) -> None:
    model, folder = small
    silence = np.zeros(8_000, np.int16)
    (ours,) = Encoder(folder, 3).features([silence])
    assert relative_error(ours, reference(model, silence, 3)) <= 1e-5


def test_number_of_frames_is_what_transformers_gives(small: tuple[HubertModel, Path]) -> None:
    model, _ = small
    samples = torch.cat([torch.arange(400, 2_000), torch.arange(1_919_000, 1_921_000)])
    theirs = model._get_feat_extract_output_lengths(samples)
    assert [num_frames(int(count)) for count in samples] == theirs.tolist()
    assert [num_frames(count) for count in (0, 1, 9, 399)] == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def alone(small: tuple[HubertModel, Path]) -> tuple[Encoder, Codebook, list[NDArray[np.int16]], list[torch.Tensor]]:
    encoder = Encoder(small[1], 3)
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate(LENGTHS)]
    features = [encoder.features([waveform])[0] for waveform in waveforms]
    frames = torch.cat(features)
    picked = torch.randperm(len(frames), generator=torch.Generator().manual_seed(1))[:100]
    codebook = Codebook(frames[picked].clone(), "", Path())
    return encoder, codebook, waveforms, [assign(part, codebook) for part in features]


def test_units_of_many_frames_equal_transformers_one_by_one(small: tuple[HubertModel, Path]) -> None:
    model, folder = small
    lengths = [60 * 16_000, *np.random.default_rng(0).integers(400, 8 * 16_000, 40).tolist(), 400, 719, 60 * 16_000 - 1]
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate(lengths)]
    expected = [reference(model, waveform, 3) for waveform in waveforms]
    frames = torch.cat(expected)
    assert len(frames) >= 10_000
    centroids = frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(2))[:200]].clone()
    encoder, codebook = Encoder(folder, 3), Codebook(centroids, "", Path())
    for group in micro_batches(lengths, 30.0):
        for index, ours in zip(group, encoder.features([waveforms[index] for index in group]), strict=True):
            assert relative_error(ours, expected[index]) <= 1e-5
            # In float64: torch's float32 cdist gives another unit to one of these frames.
            nearest = torch.cdist(expected[index].double(), centroids.double()).argmin(dim=1)
            assert torch.equal(assign(ours, codebook), nearest)


def test_padded_lengths_change_nothing(small: tuple[HubertModel, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA the stream, the packed rows and the spaced rows are padded, so that there are few shapes."""
    model, folder = small
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate(LENGTHS)]
    encoder = Encoder(folder, 3)
    monkeypatch.setattr(encoder, "_padded", lambda rows: -(-rows // 64) * 64)
    packed = encoder.pack(waveforms)
    assert len(packed.stream) % (64 * 320) == 0
    for ours, waveform in zip(encoder.encode(packed), waveforms, strict=True):
        assert relative_error(ours, reference(model, waveform, 3)) <= 1e-5


@pytest.mark.parametrize("front_frames", [1, 7, 10_000])
def test_the_stream_may_be_cut_anywhere(
    small: tuple[HubertModel, Path], front_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = small
    monkeypatch.setattr(hubert, "CPU_FRONT_FRAMES", front_frames)
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate([400, 719, 16_000, 720, 4_801])]
    for ours, waveform in zip(Encoder(folder, 2).features(waveforms), waveforms, strict=True):
        assert relative_error(ours, reference(model, waveform, 2)) <= 1e-5


def test_the_float32_products_are_true_float32() -> None:
    """Whatever library does them: rounding to TF32 or bfloat16 would be off by 1e-4 or 1e-3."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 1024, generator=generator), torch.randn(512, 1024, generator=generator) / 32
    bias = torch.randn(512, generator=generator)
    exact = x.double() @ weight.double().T + bias
    packed = for_products((weight, bias))
    assert relative_error(linear(x, packed), exact) < 1e-6
    assert relative_error(linear(x, packed, gelu=True), torch.nn.functional.gelu(exact)) < 1e-6
    whole = linear(x, packed)
    for rows in (1, 2, 3, 15, 16, 17, 63, 129):
        assert torch.equal(linear(x[:rows], packed), whole[:rows])


def test_a_torch_without_the_onednn_operator_does_the_same(
    small: tuple[HubertModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = small
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    encoder = Encoder(folder, 3)
    assert not encoder._projection[0].is_mkldnn
    waveform = speechlike(16_000, 3)
    assert relative_error(encoder.features([waveform])[0], reference(model, waveform, 3)) <= 1e-5


def test_the_steps_of_a_layer_compile_once_for_all_layers_and_lengths(small: tuple[HubertModel, Path]) -> None:
    """As on CUDA, but for the code generator, which needs a GPU."""
    torch._dynamo.reset()
    encoder = Encoder(small[1], 3, dtype=torch.bfloat16)
    counters = {name: CompileCounter() for name in ("_normed_linear", "_after_attention", "_activate")}
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate(LENGTHS)]
    expected = [encoder.features(waveforms[:count]) for count in (3, 5, 7, 9)]
    for name, counter in counters.items():
        setattr(encoder, name, torch.compile(getattr(encoder, name), dynamic=True, backend=counter, fullgraph=True))
    for count, plain in zip((3, 5, 7, 9), expected, strict=True):
        for ours, theirs in zip(encoder.features(waveforms[:count]), plain, strict=True):
            assert relative_error(ours, theirs) < 1e-2
    # _normed_linear serves the projection (from another width and dtype) and the layers; _activate seven widths.
    compiled = {name: counter.frame_count for name, counter in counters.items()}
    assert compiled["_after_attention"] <= 2
    assert compiled["_normed_linear"] <= 4
    assert compiled["_activate"] <= 4


def test_attention_in_one_kernel_is_that_of_each_utterance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself runs on CUDA only: here a float64 one by its documentation stands in for it."""

    def by_definition(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        from_: torch.Tensor,
        to: torch.Tensor,
        longest_from: int,
        longest_to: int,
    ) -> torch.Tensor:
        assert (from_.dtype, longest_from, longest_to) == (torch.int32, 40, 40)
        out = torch.full_like(query, float("nan"))
        for begin, end in itertools.pairwise(from_.tolist()):
            scores = torch.einsum("qhd,khd->hqk", query[begin:end].double(), key[begin:end].double()) / 8
            out[begin:end] = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), value[begin:end].double()).to(out)
        return out

    monkeypatch.setattr(varlen, "varlen_attn", by_definition)
    qkv = torch.randn(64, 3 * 128, generator=torch.Generator().manual_seed(0))
    lengths = [5, 1, 40, 18]
    bounds = torch.tensor([0, 5, 6, 46, 64], dtype=torch.int32)
    assert relative_error(attention.packed(varlen, qkv, bounds, 40, 2), attention.each(qkv, lengths, 2)) < 1e-6
    padded = attention.over(lengths[:3], 64, 2, torch.device("cpu"), torch.float32)(qkv)
    assert torch.equal(padded, attention.each(qkv, lengths, 2))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(order=st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=12))
def test_units_do_not_depend_on_the_batch_or_the_order(
    alone: tuple[Encoder, Codebook, list[NDArray[np.int16]], list[torch.Tensor]], order: list[int]
) -> None:
    encoder, codebook, waveforms, expected = alone
    features = encoder.features([waveforms[index] for index in order])
    units = torch.split(assign(torch.cat(features), codebook), [len(part) for part in features])
    for index, got in zip(order, units, strict=True):
        assert torch.equal(got, expected[index])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.01), (torch.float16, 0.0015)])
def test_half_precision_stays_near_float32(small: tuple[HubertModel, Path], dtype: torch.dtype, bound: float) -> None:
    model, folder = small
    waveforms = [speechlike(samples, seed) for seed, samples in enumerate(LENGTHS)]
    features = Encoder(folder, 3, dtype=dtype).features(waveforms)
    assert all(part.dtype == torch.float32 for part in features)
    errors = [relative_error(ours, reference(model, wave, 3)) for ours, wave in zip(features, waveforms, strict=True)]
    # Above 0: the products really ran in half precision. The errors seen are 4e-3 and 5e-4.
    assert 1e-5 < max(errors) < bound


def test_too_short_is_the_callers_fault(small: tuple[HubertModel, Path]) -> None:
    encoder = Encoder(small[1], 1)
    with pytest.raises(ValueError, match="399 samples"):
        encoder.features([np.zeros(399, np.int16)])
    assert encoder.features([]) == []


@given(lengths=st.lists(st.integers(400, 2_000_000), max_size=60), budget=st.floats(0.5, 500))
def test_micro_batches_hold_every_index_once_within_the_budget(lengths: list[int], budget: float) -> None:
    groups = micro_batches(lengths, budget)
    flat = [index for group in groups for index in group]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    for group in groups:
        assert len(group) == 1 or sum(lengths[index] for index in group) <= budget * 16_000
    assert micro_batches(list(lengths), budget) == groups
