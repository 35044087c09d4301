"""The child process of a named scorer: JSON lines in, JSON lines out. Runs in an environment without this package.

First line out: {"identity": ...}, or {"missing": ...} where the model's package is not installed. Then, unless asked
for the identity alone, for each line {"sources", "hypotheses", "languages"} one {"scores"}.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

KIWI = "Unbabel/wmt22-cometkiwi-da"
# ISO 639-1 to the codes of SONAR's text encoder.
SONAR = {
    "en": "eng_Latn",
    "de": "deu_Latn",
    "fr": "fra_Latn",
    "nl": "nld_Latn",
    "it": "ita_Latn",
    "es": "spa_Latn",
    "pt": "por_Latn",
    "ko": "kor_Hang",
    "ru": "rus_Cyrl",
    "zh": "zho_Hans",
}
# Module, model, distribution.
MODELS = {"comet-kiwi": ("comet", KIWI, "unbabel-comet"), "blaser-2-qe": ("sonar", "blaser_2_0_qe", "sonar-space")}
Score = Callable[[Sequence[str], Sequence[str], Sequence[Sequence[str]]], list[float]]


def comet_kiwi() -> Score:
    """COMET-Kiwi: 0 to 1."""
    from comet import download_model, load_from_checkpoint

    model = load_from_checkpoint(download_model(KIWI))

    def score(sources: Sequence[str], hypotheses: Sequence[str], languages: Sequence[Sequence[str]]) -> list[float]:
        data = [{"src": source, "mt": made} for source, made in zip(sources, hypotheses, strict=True)]
        return list(model.predict(data, batch_size=32, gpus=_gpus(), progress_bar=False)["scores"])

    return score


def blaser_2_qe() -> Score:
    """BLASER 2.0 QE on SONAR's sentence vectors: 1 to 5."""
    import torch
    from sonar.inference_pipelines.text import TextToEmbeddingModelPipeline
    from sonar.models.blaser.loader import load_blaser_model

    device = torch.device("cuda" if _gpus() else "cpu")
    encoder = "text_sonar_basic_encoder"
    embed = TextToEmbeddingModelPipeline(encoder=encoder, tokenizer=encoder, device=device)
    blaser = load_blaser_model("blaser_2_0_qe").eval().to(device)

    def vectors(texts: Sequence[str], languages: Sequence[str]) -> "torch.Tensor":
        made: list[torch.Tensor] = [None] * len(texts)  # type: ignore[list-item]
        for language in sorted(set(languages)):
            rows = [row for row, its in enumerate(languages) if its == language]
            found = embed.predict([texts[row] for row in rows], source_lang=SONAR[language])
            for row, vector in zip(rows, found, strict=True):
                made[row] = vector
        return torch.stack(made)

    def score(sources: Sequence[str], hypotheses: Sequence[str], languages: Sequence[Sequence[str]]) -> list[float]:
        with torch.inference_mode():
            src = vectors(sources, [pair[0] for pair in languages])
            mt = vectors(hypotheses, [pair[1] for pair in languages])
            return [float(value) for value in blaser(src=src, mt=mt).flatten().tolist()]

    return score


def _gpus() -> int:
    import torch

    return min(1, torch.cuda.device_count())


def main(name: str, *identity_alone: str) -> None:
    """Load the model, answer until the input ends."""
    # The models' packages print what they do: that goes to standard error, and the answers where nobody else writes.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    module, model, distribution = MODELS[name]
    try:
        importlib.import_module(module)
    except ImportError as fault:
        say({"missing": str(fault)})
        return
    if not identity_alone:
        score = {"comet-kiwi": comet_kiwi, "blaser-2-qe": blaser_2_qe}[name]()
    say({"identity": f"{model} {distribution} {metadata.version(distribution)}"})
    if identity_alone:
        return
    for line in sys.stdin:
        asked = json.loads(line)
        say({"scores": score(asked["sources"], asked["hypotheses"], asked["languages"])})


if __name__ == "__main__":
    main(*sys.argv[1:])
