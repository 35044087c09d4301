"""The line that tells how slow a run without GPUs will be: the README's measured speed, scaled to CPUs and encoder."""

import json
from pathlib import Path

from transformers import HubertConfig

from spire_ray.without_gpus import slowness


def folder(path: Path, **sizes: int) -> str:
    path.mkdir()
    (path / "config.json").write_text(
        json.dumps(HubertConfig(do_stable_layer_norm=True, feat_extract_norm="layer", **sizes).to_dict())
    )
    return str(path)


def test_the_line_is_the_measured_speed_of_the_cpus(tmp_path: Path) -> None:
    large = folder(
        tmp_path / "large", hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    line = slowness(1000 * 3600, 2, large, 22)
    assert line is not None
    assert "1,000.0 h of audio will take about 219 h on 2 CPUs (RTFx 4.6" in line  # 1000 / 4.56
    sixty_four = slowness(1000 * 3600, 64, large, 22)
    assert sixty_four is not None
    assert "about 7 h on 64 CPUs" in sixty_four


def test_nothing_is_said_of_what_is_done_within_the_hour(tmp_path: Path) -> None:
    assert slowness(3600, 2, folder(tmp_path / "base"), 9) is None


def test_a_cluster_whose_nodes_are_still_to_come_says_nothing(tmp_path: Path) -> None:
    assert slowness(1e9, 0, str(tmp_path), 22) is None
