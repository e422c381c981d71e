"""Build the archive that a cluster needs: `python deploy/package.py` writes dist/streaming-pipeline-VERSION.zip.

    pipeline/          the Python package: spark-submit takes the archive itself with --py-files
    submit.py          what spark-submit starts
    jars/              Spark's Kafka connector, each jar compared with its checksum
    requirements.txt   what the Python beside Spark needs: nothing for the pipeline, kafka-python for topics and generator
    SHA256SUMS         of every file

The same sources give the same bytes. docs/how-to/deploy.md has the commands.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold, for every file."""


def main() -> int:
    """Write the archive into dist, or the folder that is named; print its path."""
    sys.path.insert(0, str(ROOT))
    from harness.errors import HarnessError
    from harness.host import jars

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    try:
        print(build(folder, jars.spark_jars()))
    except (HarnessError, OSError) as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    return 0


def build(folder: Path, jars: Path) -> Path:
    """Write the archive into `folder`, with the jars of a folder; its path. Raises OSError where it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"streaming-pipeline-{version()}.zip"
    files = dict(sorted(_files(jars)))
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    fresh = target.with_suffix(".fresh")
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files | {"SHA256SUMS": sums.encode()}).items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".jar") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    fresh.replace(target)
    return target


def version() -> str:
    """The version in pyproject.toml."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return found


def _files(jars: Path) -> Iterator[tuple[str, bytes]]:
    for path in (ROOT / "pipeline").glob("*.py"):
        yield f"pipeline/{path.name}", path.read_bytes()
    yield "submit.py", (ROOT / "deploy" / "submit.py").read_bytes()
    for path in jars.glob("*.jar"):
        yield f"jars/{path.name}", path.read_bytes()
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    yield "requirements.txt", "".join(f"{line}\n" for line in wanted if line.startswith(("pyspark", "kafka"))).encode()


if __name__ == "__main__":
    sys.exit(main())
