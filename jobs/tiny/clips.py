"""The clips that the package carries: the first of the acceptance corpus, in turn from its two voices.

    .venv/bin/python jobs/tiny/clips.py /tmp/tiny/test spire_ray/tiny/clips --count 44

They are what `make demo` shows and what the tests hold spire-tiny to, so they are taken as they come, none chosen.
"""

import argparse
import json
import shutil
from pathlib import Path


def copy(corpus: Path, folder: Path, count: int) -> int:
    """Copy the first `count` clips of `corpus`/manifest.jsonl with their lines into `folder`; how many bytes they have.

    ValueError when the corpus has not that many yet.
    """
    lines = (corpus / "manifest.jsonl").read_text().splitlines()[:count]
    if len(lines) < count:
        raise ValueError(f"{corpus} has {len(lines)} clips, not {count}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, row in enumerate(map(json.loads, lines)):
        name = f"{number:02d}-{row['speaker']}.flac"
        shutil.copyfile(corpus / row["audio"], folder / name)
        kept = {key: row[key] for key in ("duration", "text", "speaker", "references")}
        rows.append({"id": name.removesuffix(".flac"), "audio": name} | kept)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(text, encoding="utf-8")
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=44)
    arguments = parser.parse_args()
    print(f"{copy(arguments.corpus, arguments.folder, arguments.count):,} bytes in {arguments.folder}")


if __name__ == "__main__":
    main()
