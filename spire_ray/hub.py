"""What is fetched from the Hugging Face hub: SPIRE's language models, its encoder and its codebook.

Only safetensors, JSON and tokenizer files are fetched. What is published as a pickle alone is converted in a child
process that executes nothing of it (`cache.py`).
"""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from spire_ray.cache import cached_codebook, cached_encoder
from spire_ray.errors import MachineFault, UserError

ENCODER = "facebook/hubert-large-ll60k"
CODEBOOK = "utter-project/SpireKMeans"
CODEBOOK_PICKLE = "kmeans_model"
_SAFE = ["*.safetensors", "*.json", "*.jinja", "tokenizer*"]


def fetch_llm(repository: str, revision: str | None = None) -> Path:
    """The snapshot folder of a language model. MachineFault when the hub does not give it and it is not cached."""
    return _snapshot(repository, _SAFE, revision)


def fetch_encoder(repository: str = ENCODER) -> Path:
    """A folder with SPIRE's encoder as safetensors. MachineFault as in `fetch_llm`, UserError for a faulty pickle."""
    folder = _snapshot(repository, _SAFE)
    if any(folder.glob("*.safetensors")):
        return folder
    return cached_encoder(_snapshot(repository, [*_SAFE, "pytorch_model.bin"]))


def fetch_codebook() -> Path:
    """SPIRE's codebook as safetensors. Faults as in `fetch_encoder`."""
    return cached_codebook(_snapshot(CODEBOOK, [CODEBOOK_PICKLE]) / CODEBOOK_PICKLE)


def _snapshot(repository: str, patterns: list[str], revision: str | None = None) -> Path:
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except HFValidationError:
        raise UserError(f"{repository} is neither a folder nor the name of a repository on the hub") from None
    except OSError as fault:  # whatever the network or the hub does
        reason = str(fault).split("\n", 1)[0]
        raise MachineFault(
            f"{repository} is not cached and the Hugging Face hub did not give it ({reason}); "
            "where there is no network, give a folder with the checkpoint instead of its name"
        ) from fault
