"""Tables of a dataset, in Parquet."""

import os

from pipelines import storage
from pipelines.manifest import ShardInfo


def write_table(root: str, name: str, rows: list[dict], schema) -> ShardInfo:
    """Writes rows as Parquet, all or nothing. The same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet

    with storage.atomic_file(storage.join(root, name)) as temporary:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
        return ShardInfo(name, len(rows), os.path.getsize(temporary), storage.sha256_file(temporary))


def text_schema(names):
    """A schema of text columns."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in names])
