"""What decides the values of a table, and the form in which it is frozen in units.json and text.json.

Frozen is what changes values: encoder, layer, codebook, checkpoint, languages, dtype. Not frozen is what must not:
device, number of actors, batch budget, package versions. Those are in runs/ID.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spire_ray.checkpoints import LLM, NAMED, NAMES, Checkpoint, resolve
from spire_ray.codebook import codebook_shape, load_codebook
from spire_ray.engine import EngineSettings
from spire_ray.errors import UserError
from spire_ray.frozen import fingerprint
from spire_ray.hubert_weights import weights_sha256
from spire_ray.plan import Plan
from spire_ray.tasks import TextTasks


@dataclass(frozen=True)
class Encoding:
    """What decides the units of an utterance."""

    encoder: str  # folder of a transformers HuBERT
    codebook: str  # safetensors file
    layer: int  # counted from 1
    dtype: str | None = None  # None: float32 on CPUs, float16 with a float32 residual on GPUs
    max_seconds: float = 120.0  # longer utterances become `too_long`

    @property
    def settled_dtype(self) -> str:
        """Its dtype. ValueError before `settled`."""
        if self.dtype is None:
            raise ValueError("the dtype is not settled")
        return self.dtype

    @property
    def clusters(self) -> int:
        """K: how many different units there are."""
        return codebook_shape(Path(self.codebook))[0]

    def settled(self, dtype: str) -> "Encoding":
        """With `dtype` where none was asked for."""
        return replace(self, dtype=self.dtype or dtype)

    def frozen(self, plan: Plan) -> dict[str, Any]:
        """The settings of units.json. Weights are named by content, so that a moved folder is the same encoder."""
        return {
            "plan": plan.fingerprint,
            "encoder": weights_sha256(Path(self.encoder)),
            "layer": self.layer,
            "codebook": load_codebook(Path(self.codebook)).sha256,
            "clusters": self.clusters,
            "dtype": self.dtype,
            "max_seconds": self.max_seconds,
        }

    def places(self) -> dict[str, Any]:
        """Where the weights lay, recorded for `spire-ray retry`."""
        return {"encoder": str(Path(self.encoder).absolute()), "codebook": str(Path(self.codebook).absolute())}

    @classmethod
    def of(cls, units: Mapping[str, Any]) -> "Encoding":
        """The encoding that a units.json was made with."""
        kept = {name: units["settings"][name] for name in ("layer", "dtype", "max_seconds")}
        return cls(**units["recorded"], **kept)


@dataclass(frozen=True)
class Features:
    """What decides the features of an utterance, for the fit of a codebook."""

    encoder: str  # folder of a transformers HuBERT
    layer: int  # counted from 1
    dtype: str
    max_seconds: float  # longer utterances become `too_long`

    def frozen(self) -> dict[str, Any]:
        """For fit.json, in the words of units.json."""
        return {
            "encoder": weights_sha256(Path(self.encoder)),
            "layer": self.layer,
            "dtype": self.dtype,
            "max_seconds": self.max_seconds,
        }


@dataclass(frozen=True)
class EngineOptions:
    """What a user may ask of the engine; the rest of EngineSettings follows from the device."""

    quantization: str | None = None  # "fp8": weights in 8 bits
    deterministic: bool = False  # an answer does not depend on what else is in the engine
    tensor_parallel_size: int = 1  # GPUs to one engine

    @property
    def needs_gpus(self) -> bool:
        """Whether it can only be asked for where there are GPUs."""
        return self.quantization is not None or self.tensor_parallel_size > 1

    def check_fits(self, gpus: int) -> None:
        """UserError when so many GPUs cannot run such an engine."""
        if self.tensor_parallel_size > max(1, gpus):
            raise UserError(f"--tensor-parallel {self.tensor_parallel_size} needs as many GPUs, but there are {gpus}")
        if self.quantization and not gpus:
            raise UserError(f"--quantization {self.quantization} needs a GPU, but Ray has none")


ENGINE = EngineOptions()


@dataclass(frozen=True)
class Generation:
    """What decides the text of an utterance, and how many GPUs an engine has."""

    checkpoint: Checkpoint
    tasks: TextTasks
    options: EngineOptions = ENGINE
    dtype: str | None = None  # of the LLM; None: float32 on CPUs, bfloat16 on GPUs

    @property
    def tables(self) -> list[str]:
        """The tables it fills, in the order they are committed: the last one marks a shard as done."""
        return ["translations"] * bool(self.tasks.languages) + ["transcripts"] * self.tasks.transcripts

    @property
    def settled_dtype(self) -> str:
        """Its dtype. ValueError before `settled`: vLLM's own default would make bfloat16 of float32."""
        if self.dtype is None:
            raise ValueError("the dtype is not settled")
        return self.dtype

    def settled(self, dtype: str) -> "Generation":
        """With `dtype` where none was asked for, as in `Encoding.settled`."""
        return replace(self, dtype=self.dtype or dtype)

    def engine(self, device: str) -> EngineSettings:
        """How its engines are run on `device`."""
        options = self.options
        settings = EngineSettings.for_device(device, options.tensor_parallel_size)
        settings = replace(settings, dtype=self.settled_dtype, quantization=options.quantization)
        return settings.reproducible() if options.deterministic else settings

    def places(self) -> dict[str, Any]:
        """What text.json records for `spire-ray retry` and does not compare."""
        return {"checkpoint": self.checkpoint.name, "tensor_parallel_size": self.options.tensor_parallel_size}

    def frozen(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of text.json. `source`: the fingerprint of the units or plan, and the run that holds them."""
        tasks = self.tasks
        examples = [[*pair, *examples] for pair, examples in sorted(tasks.examples.items())]
        return {
            **source,
            "checkpoint": self.checkpoint.name if self.checkpoint.name in NAMES else "a folder",
            "revision": self.checkpoint.revision,
            "prompt_style": self.checkpoint.prompt_style,
            "dtype": self.dtype,
            "quantization": self.options.quantization,
            "deterministic": self.options.deterministic,
            "temperature": 0,
            "beam": tasks.beam,
            "max_tokens": tasks.max_tokens,
            "languages": sorted(tasks.languages),
            "method": tasks.method,
            "transcripts": tasks.transcripts,
            "source_language": tasks.source_language,
            "prompt_variant": tasks.prompt_variant,
            "examples": fingerprint({"seed": tasks.seed, "examples": examples}) if examples else None,
        }

    @classmethod
    def of(cls, text: Mapping[str, Any]) -> "Generation":
        """The generation that a text.json was made with. UserError when it took examples, which it does not hold."""
        settings = text["settings"]
        if settings["examples"]:
            raise UserError(
                "this run's text was made with five-shot examples, which it does not hold: retry it from Python"
            )
        kept = {
            name: settings[name]
            for name in ("method", "transcripts", "source_language", "prompt_variant", "max_tokens", "beam")
        }
        tasks = TextTasks(languages=tuple(settings["languages"]), **kept)
        recorded = text["recorded"]
        options = EngineOptions(settings["quantization"], settings["deterministic"], recorded["tensor_parallel_size"])
        revision = settings["revision"] if recorded["checkpoint"] in NAMED else None
        found = resolve(recorded["checkpoint"], need=LLM, revision=revision)
        return cls(found, tasks, options, settings["dtype"])
