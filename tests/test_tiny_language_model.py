import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

sys.path.append(str(Path(__file__).parents[1] / "jobs" / "tiny"))
import language_model
from branches import IGNORED, branch, collate, fill
from lines import Utterance, noisy, read_utterances, speech_rows, text_rows
from sentences import Sentence, draw
from tokenizer import make_tokenizer

from spire_ray.training_lines import (
    Example,
    multi_turn_translation,
    speech_translation,
    text_translation,
    tokenise,
    transcription,
)

UNITS = 60


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(UNITS)


@pytest.fixture(scope="module")
def sentences() -> list[Sentence]:
    return list(draw(60, 3, "train"))


@pytest.fixture(scope="module")
def utterances(sentences: list[Sentence]) -> list[Utterance]:
    random = np.random.default_rng(0)
    return [Utterance(each, random.integers(0, UNITS, 30).astype(np.int16)) for each in sentences]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        initializer_range=0.3,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).eval()


def examples(tokenizer: Any, utterance: Utterance) -> list[Example]:
    sentence, units = utterance
    asked = [transcription(units, sentence.english)]
    asked += [speech_translation(units, sentence.translations[code], code) for code in ("de", "zh")]
    asked.append(multi_turn_translation(units, sentence.english, sentence.translations["fr"], "fr"))
    return [tokenise(each, tokenizer) for each in asked]


@torch.no_grad()
def alone(model: LlamaForCausalLM, example: Example) -> list[float]:
    """The loss of each learnt token of one example, as transformers computes it without any of our masks."""
    ids = torch.from_numpy(example.ids.astype(np.int64))[None]
    logits = model(ids).logits[0, :-1]
    loss = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    return loss[torch.from_numpy(example.learnt[1:])].tolist()


@torch.no_grad()
def together(model: LlamaForCausalLM, rows: list[list[Any]]) -> list[float]:
    batch = collate(rows, 0)
    hidden = model.model(input_ids=batch.ids, attention_mask=batch.seen, position_ids=batch.positions)[0]
    logits = model.lm_head(hidden)
    loss = functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return loss[batch.labels.flatten() != IGNORED].tolist()


def test_a_tree_has_the_losses_of_its_examples_alone(
    model: LlamaForCausalLM, tokenizer: Any, utterances: list[Utterance]
) -> None:
    asked = examples(tokenizer, utterances[0])
    tree = branch(asked)
    # The second turn follows the transcript's branch, whose loss is counted once.
    expected = [loss for each in asked[:3] for loss in alone(model, each)]
    expected += alone(model, asked[3])[len(alone(model, asked[0])) :]
    assert together(model, [tree]) == pytest.approx(expected, rel=1e-4)
    assert sum(len(each.ids) for each in tree) < 0.6 * sum(len(each.ids) for each in asked)


def test_rows_with_padding_and_neighbours_change_no_loss(
    model: LlamaForCausalLM, tokenizer: Any, utterances: list[Utterance]
) -> None:
    sentence = utterances[1].sentence
    text = tokenise(text_translation(sentence.english, sentence.translations["ru"], "en", "ru"), tokenizer)
    trees = [branch(examples(tokenizer, each)) for each in utterances[:3]] + [branch([text])]
    rows = fill(trees, 400)
    assert [len(row) for row in rows] != [1] * len(rows)
    each_alone = [loss for tree in trees for loss in together(model, [tree])]
    assert together(model, rows) == pytest.approx(each_alone, rel=1e-4)
    assert together(model, [branch([text])]) == pytest.approx(alone(model, text), rel=1e-4)


def test_rows_are_as_long_as_asked_and_learn_only_answers(
    tokenizer: Any, sentences: list[Sentence], utterances: list[Utterance]
) -> None:
    random = np.random.default_rng(1)
    for rows in (
        text_rows(tokenizer, sentences, random, 3000, 512),
        speech_rows(tokenizer, utterances, random, 3000, 512),
    ):
        lengths = [sum(len(each.ids) for each in row) for row in rows]
        assert 3000 <= sum(lengths) < 3600
        assert max(lengths) <= 512
        learnt = np.concatenate([each.labels[each.labels != IGNORED] for row in rows for each in row])
        assert (learnt == tokenizer.eos_token_id).sum() > 10
        assert not ((learnt >= len(tokenizer) - 2 - UNITS) & (learnt < len(tokenizer) - 2)).any()  # no unit


def test_noise_keeps_units_collapsed() -> None:
    random = np.random.default_rng(2)
    units = np.tile(np.arange(20, dtype=np.int16), 50)
    changed = noisy(units, random)
    assert changed.dtype == np.int16
    assert (changed[1:] != changed[:-1]).all()
    assert 0.96 * len(units) < len(changed) < len(units)
    assert set(changed) <= set(range(20))


def test_utterances_are_read_from_tokenised_corpora(tmp_path: Path, sentences: list[Sentence]) -> None:
    for table in ("plan", "units"):
        (tmp_path / table).mkdir()
    plan = {"utterance_id": ["a", "b", "c"], "reference": [each.english for each in sentences[:3]]}
    pq.write_table(pa.table(plan), tmp_path / "plan" / "part-00000.parquet")
    units = {"utterance_id": ["c", "a", "b"], "units": [[1, 2], [3, 4, 5], None]}
    pq.write_table(pa.table(units), tmp_path / "units" / "part-00000.parquet")
    found = read_utterances([tmp_path])
    assert [(each.sentence, each.units.tolist()) for each in found] == [
        (sentences[2], [1, 2]),
        (sentences[0], [3, 4, 5]),
    ]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WIDTH": 64, "LAYERS": 1, "INNER": 96, "STEP_TOKENS": 1024, "SAVE_EVERY": 2}.items():
        monkeypatch.setattr(language_model, name, value)


@pytest.mark.usefixtures("small")
def test_training_learns_and_goes_on_where_it_stopped(
    tmp_path: Path, tokenizer: Any, sentences: list[Sentence], utterances: list[Utterance]
) -> None:
    lessons = language_model.Lessons(tokenizer, sentences, utterances)

    def run(folder: Path, taught: Any) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        language_model.train(folder, 4, tokenizer, taught, lessons, None)
        return dict(torch.load(folder / "model.pt", weights_only=True))

    class Dies(language_model.Lessons):
        def step(self, step: int) -> list[Any]:
            if step == 4:
                raise KeyboardInterrupt
            return super().step(step)

    whole = run(tmp_path / "whole", lessons)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "resumed", Dies(tokenizer, sentences, utterances))
    assert torch.load(tmp_path / "resumed" / "model.pt", weights_only=True)["step"] == 2
    resumed = run(tmp_path / "resumed", lessons)
    assert whole["step"] == resumed["step"] == 4
    assert all(torch.equal(whole["model"][name], resumed["model"][name]) for name in whole["model"])
    model = language_model.new_model(tokenizer)
    before = float(language_model.losses(model, lessons.step(1)[0])[0].detach().mean())
    model.load_state_dict(whole["model"])
    assert float(language_model.losses(model, lessons.step(1)[0])[0].detach().mean()) < before


@pytest.mark.usefixtures("small")
def test_what_is_saved_is_a_llama_in_half_precision(
    tmp_path: Path, tokenizer: Any, sentences: list[Sentence], capsys: pytest.CaptureFixture[str]
) -> None:
    lessons = language_model.Lessons(tokenizer, sentences, [])
    language_model.train(tmp_path, 1, tokenizer, lessons, lessons, None)
    assert "right: text" in capsys.readouterr().out
    language_model.export(tmp_path, tokenizer, tmp_path / "llm")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "llm", dtype="auto")
    assert model.dtype == torch.float16
    assert model.config.tie_word_embeddings
    assert model.config.head_dim in (32, 64)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "llm")
    assert model.generation_config.eos_token_id == loaded.eos_token_id == loaded.convert_tokens_to_ids("<|im_end|>")
    assert model.get_input_embeddings().num_embeddings >= len(loaded)
