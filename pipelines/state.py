"""Where a job keeps its notes about itself, beside the data: ``DATASET/_state/<job>/``.

    ledger.json                   which shards are done, by step (pipelines/ledger.py)
    <label>/<shard>.json          a done shard's marker: fingerprint, files, summary, seconds (pipelines/beam.py)
    parts/<label>/<shard>/        finished items of an unfinished shard (pipelines/parts.py)
    failures/<made by>/<item>     one note per failed item, and the flag that stops a job (pipelines/failures.py)
    claims/ deaths/               items being worked on, and those whose worker died (pipelines/failures.py)
    inputs/                       what the shards of annotate and tokenize are made from (pipelines/column_shard.py)
    scratch/                      temporary files of workers
    curate: sources.parquet       what listing and hashing found (pipelines/sources.py)
    curate: plan.json             the fingerprint that the shards here are of
    curate: kept/                 what an earlier layout of shards can still give (pipelines/reuse.py)
    kept/<label>/                 the same for the columns of annotate and tokenize (pipelines/kept_rows.py)

All but the ledger, the markers, sources.parquet and plan.json is gone once the job has ended well.
"""

import hashlib

from pipelines import storage

STATE = "_state"


def state_path(root: str, job: str, *names: str) -> str:
    return storage.join(root, STATE, job, *names)


def safe_name(key: str) -> str:
    """A file name for any text: 32 hex digits of its SHA-256. What a hostile text spells never becomes a path."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
