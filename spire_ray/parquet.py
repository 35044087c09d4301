"""Parquet that somebody else wrote, opened so that nothing in it runs and every fault of it is one line.

Ray registers Arrow extension types for the process: one's values are pickles, which `to_pylist` loads.
"""

from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from spire_ray.errors import UserError
from spire_ray.locations import of_storage


def open_parquet(file: BinaryIO, where: str, **how: Any) -> pq.ParquetFile:
    """An open Parquet file; `how` goes to pyarrow. UserError naming `where` when it is none that can be read.

    Faults of the storage pass through. What of it is read must have been through `check_plain`.
    """
    try:
        opened = pq.ParquetFile(file, page_checksum_verification=True, **how)
        assert opened.schema_arrow is not None
    except Exception as fault:
        # Of any kind: a column of an extension type is opened by whoever registered it, and Ray's raise TypeError,
        # AttributeError and others at metadata that is not theirs. Arrow's own OSError has no number, storage's has.
        of_arrow = isinstance(fault, pa.ArrowException) or (type(fault) is OSError and fault.errno is None)
        if of_storage(fault) and not of_arrow:
            raise
        raise UserError(f"{where} is not a Parquet file that can be read: {fault}") from None
    return opened


def check_plain(schema: pa.Schema, where: str) -> None:
    """UserError when a column is, or holds, an Arrow extension type: nothing of it may be read then."""
    for field in schema:
        if _extends(field.type):
            raise UserError(f"{where}: column {field.name!r} is of an Arrow extension type; only plain ones are read")


def _extends(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return _extends(kind.value_type)
    return any(_extends(kind.field(index).type) for index in range(kind.num_fields))
