"""Files of a run directory, which others may have written: read within bounds, or refused by name.

A link to a device, a pipe without a writer, a gigabyte of zeros and a file that is a thousand times as large once it is
decompressed end neither the reader's memory nor its patience.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import RunError

TEXT_BYTES_MAX = 16 * 2**20
"""Of a manifest, a scenario, an entry of an offset log, and a line of the history."""
EXPANDED_BYTES_MAX = 256 * 2**20
"""Of a Parquet file once it is decompressed; more only in proportion to its size."""
EXPANSION_MAX = 32
FOOTER_BYTES = 8
"""What follows a Parquet file's footer: its length, and the mark of the format."""


def text(path: Path) -> str:
    """The text of a small file; RunError where it is missing, no file, too large or not UTF-8."""
    if _size(path) > TEXT_BYTES_MAX:
        raise RunError(f"{path}: damaged: it has more than {TEXT_BYTES_MAX:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: not a run directory, or an incomplete one") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: damaged: not UTF-8: {error}") from error


def lines(path: Path) -> Iterator[str]:
    """The lines of a file of any length, without their ends; RunError as of `text`, and for a line that is too long."""
    _size(path)
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            while line := file.readline(TEXT_BYTES_MAX):
                if len(line) == TEXT_BYTES_MAX:
                    raise RunError(f"{path}: damaged: it has a line of more than {TEXT_BYTES_MAX:,} characters")
                yield line.removesuffix("\n")
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: not a run directory, or an incomplete one") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: damaged: not UTF-8: {error}") from error


def parquet(path: Path, columns: Iterable[str], **options: Any) -> pq.ParquetFile:
    """A Parquet file that has these columns, opened and not read; RunError where it is damaged."""
    size = _size(path)
    with decoding(path):
        file = pq.ParquetFile(path, **options)
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise RunError(f"{path}: damaged: column {missing[0]} is missing")
    if why := _misfit(file.metadata, size):
        raise RunError(f"{path}: damaged: {why}")
    return file


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """RunError that names the file where what is decoded meanwhile is damaged."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunError(f"{path}: damaged: {error}; run it again") from error


def _misfit(metadata: pq.FileMetaData, size: int) -> str:
    """Why a footer does not fit a file of `size` bytes; empty where it does."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(metadata.num_columns)]
    expanded = sum(chunk.total_uncompressed_size for chunk in chunks)
    if expanded > max(EXPANDED_BYTES_MAX, EXPANSION_MAX * size) or metadata.num_rows > size:
        return f"{size:,} bytes claim to be {metadata.num_rows:,} rows of {expanded:,} bytes"
    begins = ((chunk.dictionary_page_offset or chunk.data_page_offset, chunk) for chunk in chunks)
    end = max((begin + chunk.total_compressed_size for begin, chunk in begins), default=4)
    if end + metadata.serialized_size + FOOTER_BYTES != size:
        return "it has other bytes than those that its footer names"
    return ""


def _size(path: Path) -> int:
    """Bytes of a file, links followed; RunError where it is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: not a run directory, or an incomplete one") from error
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"{path}: damaged: it is no file")
    return status.st_size
