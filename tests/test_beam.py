"""Beam search against transformers' own, over the same tiny Llama in float32."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
import torch
from transformers import AutoModelForCausalLM

from bundle import make_bundle
from spire_ray.beam import Hypothesis, Ids, candidates, search

NEWLINE, IM_END = 13, 617


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    folder = make_bundle(tmp_path_factory.mktemp("bundle"), context=512, end_bias=60.0)
    return AutoModelForCausalLM.from_pretrained(folder / "llm", dtype=torch.float32).eval()


def ours(model: torch.nn.Module, prompt: list[int], beam: int, max_tokens: int, ends: list[int]) -> Hypothesis:
    async def next_tokens(hypotheses: Sequence[Ids]) -> list[Mapping[int, float]]:
        ids = torch.tensor([[*prompt, *one] for one in hypotheses])
        with torch.inference_mode():
            logprobs = torch.log_softmax(model(ids).logits[:, -1].float(), -1)
        best = logprobs.topk(candidates(beam, ends))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [dict(zip(*row, strict=True)) for row in rows]

    return asyncio.run(search(next_tokens, beam, max_tokens, ends))


@pytest.mark.parametrize("ends", [[IM_END], [NEWLINE, IM_END]])
@pytest.mark.parametrize(("beam", "max_tokens"), [(1, 12), (2, 12), (4, 24), (5, 3)])
def test_it_is_transformers_beam_search(model: torch.nn.Module, beam: int, max_tokens: int, ends: list[int]) -> None:
    finishes = set()
    for seed in range(6):
        prompt = torch.randint(300, 600, (20,), generator=torch.Generator().manual_seed(seed)).tolist()
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_tokens,
            num_beams=beam,
            do_sample=False,
            length_penalty=1.0,
            early_stopping=False,
            eos_token_id=ends,
            output_scores=True,
            return_dict_in_generate=True,
        )
        found = ours(model, prompt, beam, max_tokens, ends)
        ids = expected.sequences[0, len(prompt) :].tolist()
        # After an end transformers may pad to the longest of its hypotheses.
        length = next((at + 1 for at, token in enumerate(ids) if token in ends), len(ids))
        assert list(found.ids) == ids[:length]
        if beam > 1:
            assert found.score == pytest.approx(expected.sequences_scores[0].item(), abs=1e-5)
        finishes.add(found.ids[-1] in ends)
    assert max_tokens == 3 or True in finishes


def test_a_longer_hypothesis_wins_by_its_mean() -> None:
    # 0 ends. Ending at once has the higher sum, going on the higher mean.
    steps: dict[Ids, Mapping[int, float]] = {
        (): {0: -1.0, 1: -1.1, 2: -3.0, 3: -4.0},
        (1,): {0: -0.1, 1: -3.0, 2: -4.0, 3: -5.0},
    }
    other = {0: -9.0, 1: -9.0, 2: -9.0, 3: -9.0}

    async def next_tokens(hypotheses: Sequence[Ids]) -> list[Mapping[int, float]]:
        return [steps.get(ids, other) for ids in hypotheses]

    best = asyncio.run(search(next_tokens, 2, 4, [0]))
    assert best == Hypothesis((1, 0), pytest.approx(-1.2))
    assert best.score == pytest.approx(-0.6)
