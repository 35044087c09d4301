"""Exports that hold the audio itself, exactly as the encoder heard it: WebDataset's tar shards, Hugging Face's Parquet.

The sound of an utterance is its 16 kHz mono int16 samples as FLAC, read again from the corpus: whatever it lies in, and
from where to where. A shard of the run is one part. README.md, the card, is put last.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
from numpy.typing import NDArray

from spire_ray import __version__
from spire_ray.audio import SAMPLE_RATE
from spire_ray.examples import Example, Examples
from spire_ray.export_target import Put
from spire_ray.pcm import pcm_views
from spire_ray.planning import MAX_SECONDS
from spire_ray.read import ReadAudio
from spire_ray.records import load_json
from spire_ray.tables import PLAN, from_rows, reason_of

_ROWS = 100  # to a row group: with audio in them, what a viewer or a shuffle reads at once

Sounding = tuple[Example, bytes]  # and its FLAC


def write_webdataset(examples: Examples, work: Path, put: Put) -> None:
    """`shard-00017.tar`: for each example KEY.flac, KEY.json and KEY.txt, which has the text."""
    for shard, sounding in _parts(examples):
        part = work / "part"
        with tarfile.open(part, "x", format=tarfile.USTAR_FORMAT) as tar:
            for example, flac in sounding:
                fields = json.dumps(_fields(example), ensure_ascii=False).encode()
                for suffix, data in (("flac", flac), ("json", fields), ("txt", example.text.encode())):
                    member = tarfile.TarInfo(f"{example.key}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        put(part, f"shard-{shard:05}.tar")
    _put_card(examples, work, put, [])


def write_huggingface(examples: Examples, work: Path, put: Put) -> None:
    """`data/train-00017.parquet` with an Audio column of bytes and path, and a column for each language."""
    schema = _schema(examples.languages)
    for shard, sounding in _parts(examples):
        part = work / "part"
        with pq.ParquetWriter(part, schema, compression="zstd", write_page_index=True) as writer:
            while some := list(islice(sounding, _ROWS)):
                rows = [_row(example, flac, examples.languages) for example, flac in some]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        put(part, f"data/train-{shard:05}.parquet")
    _put_card(examples, work, put, _head(examples.languages))


def _parts(examples: Examples) -> Iterator[tuple[int, Iterator[Sounding]]]:
    """Each shard that has examples with sound. Memory holds the samples of one shard, twice while they are read."""
    joined = examples.joined
    encoding = load_json(joined.units_run, "units.json")
    longest = encoding["settings"]["max_seconds"] if encoding else MAX_SECONDS
    reader = ReadAudio(joined.text_run.storage_options, longest)
    for shard, found in examples.shards():
        if found:
            # With the length that was encoded: a file that became another one since is left out.
            planned = [{name: example.planned[name] for name in PLAN.names} for example in found]
            sounds = reader.read(from_rows(planned, PLAN))
            heard = []
            views = pcm_views(sounds.column("pcm").combine_chunks())
            for example, samples, fault in zip(found, views, sounds.column("error").to_pylist(), strict=True):
                if samples is None:
                    examples.drop(reason_of(fault))
                else:
                    heard.append((example, samples))
            if heard:
                yield shard, ((example, flac(samples)) for example, samples in heard)


def flac(samples: NDArray[np.int16]) -> bytes:
    """16 kHz mono int16 samples [n] as a FLAC file: the same samples come out again."""
    stream = io.BytesIO()
    sf.write(stream, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def _fields(example: Example) -> dict[str, Any]:
    """What is told of an example beside its sound, under names that a manifest is read by."""
    planned = example.planned
    return {
        "id": planned["utterance_id"],
        "text": example.text,
        "language": example.language,
        "duration": planned["duration_s"],
        "speaker": planned["speaker"],
        "recording_id": planned["recording_id"],
        "corpus": planned["corpus"],
        "translations": example.translations,
        "units": planned["units"],
        "run_lengths": planned["run_lengths"],
    }


def _row(example: Example, flac: bytes, languages: Sequence[str]) -> dict[str, Any]:
    fields = _fields(example)
    translations = fields.pop("translations")
    return {
        **fields,
        "audio": {"bytes": flac, "path": f"{example.key}.flac"},
        **{f"translation_{language}": translations.get(language) for language in languages},
    }


def _columns(languages: Sequence[str]) -> list[tuple[str, pa.DataType, str]]:
    """Name, Arrow type and the type by which `datasets` knows it."""
    text = [("text", pa.string(), "string"), *((f"translation_{one}", pa.string(), "string") for one in languages)]
    about = [(name, pa.string(), "string") for name in ("language", "speaker", "recording_id", "corpus")]
    units = [(name, pa.list_(pa.int16()), "int16") for name in ("units", "run_lengths")]
    return [("id", pa.string(), "string"), *text, ("duration", pa.float64(), "float64"), *about, *units]


def _schema(languages: Sequence[str]) -> pa.Schema:
    """With what `datasets` reads from a Parquet file's metadata, so that one part alone has an Audio column too."""
    features: dict[str, Any] = {"audio": {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}}
    fields = [("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    for name, kind, dtype in _columns(languages):
        value = {"dtype": dtype, "_type": "Value"}
        features[name] = {"feature": value, "_type": "List"} if pa.types.is_list(kind) else value
        fields.append((name, kind))
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _head(languages: Sequence[str]) -> list[str]:
    """The card's YAML: where the parts are, and the type of each column."""
    lines = ["configs:", "- config_name: default", "  data_files:", "  - split: train", "    path: data/*.parquet"]
    lines += ["dataset_info:", "  features:", "  - name: audio", "    dtype:", "      audio:"]
    lines.append(f"        sampling_rate: {SAMPLE_RATE}")
    for name, kind, dtype in _columns(languages):
        lines += [f"  - name: {name}", f"    {'list' if pa.types.is_list(kind) else 'dtype'}: {dtype}"]
    return ["---", *lines, "---", ""]


def _put_card(examples: Examples, work: Path, put: Put, head: list[str]) -> None:
    examples.check_any()  # in object storage the card is there at once
    joined = examples.joined
    about = [
        "# Speech with units, transcripts and translations",
        "",
        f"{examples.taken:,} utterances of {joined.plan.utterances:,} planned; text: {examples.text}; "
        f"translations: {' '.join(examples.languages) or 'none'}.",
        "",
        "Audio is FLAC, 16 kHz, mono, the samples that the units were made of. `units` are discrete units (HuBERT, "
        "k-means), runs collapsed; `run_lengths` are their lengths in frames of 20 ms.",
        "",
    ]
    about += [f"- left out, {reason}: {count:,}" for reason, count in sorted(examples.left_out.items())]
    about += [""] * bool(examples.left_out)
    about += [
        f"Plan `{joined.plan.fingerprint}`. Written by spire_ray {__version__}. "
        "The published SPIRE weights are CC-BY-NC-4.0; the speech has the licence of its corpus.",
        "",
    ]
    part = work / "card"
    part.write_text("\n".join([*head, *about]), encoding="utf-8")
    put(part, "README.md")
