import json
from pathlib import Path

from transformers import AutoTokenizer

from bundle import make_tokenizer
from llm import NEWLINE
from llm import checkpoint as checkpoint
from llm import engine as engine
from llm import orphaned as orphaned
from llm import reference as reference
from spire_ray.checkpoints import Checkpoint
from spire_ray.engine import EngineSettings, full_context_bytes, stop_token_ids


def test_every_newline_and_end_stops(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert checkpoint.llm is not None
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.llm)
    assert stop_token_ids(checkpoint.llm, tokenizer) == [NEWLINE, 617]
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert stop_token_ids(tmp_path, make_tokenizer(32000, 5000)) == [2, 13, 37005]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert stop_token_ids(tmp_path, make_tokenizer(32000, 5000, chat=False)) == [2, 7, 13, 37005]


def test_defaults_hold_a_full_context(tmp_path: Path) -> None:
    assert EngineSettings.for_device("cuda", 2) == EngineSettings(
        "cuda", "bfloat16", max_num_seqs=1024, tensor_parallel_size=2
    )
    assert EngineSettings.for_device("cpu").dtype == "float32"
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "max_position_embeddings": 4096}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # Llama-2-7B: 512 KB a token in 16 bits.
    assert full_context_bytes(tmp_path, "bfloat16") == (4096 + 128) * (512 << 10)
    assert full_context_bytes(tmp_path, "float32") == (4096 + 128) * (1024 << 10)
