"""Hand-made tables for tests of the report's parts."""

import pyarrow as pa

from pipelines.reporting.tables import Tables, join_segments

FINE = {
    "seconds": 4.0,
    "single_face": 1.0,
    "face_present": 1.0,
    "face_score": 1.5,
    "face_size": 200.0,
    "face_share": 0.4,
    "yaw": 5.0,
    "pitch": 3.0,
    "roll": -4.0,
    "turn": 5.0,
    "blur": 200.0,
    "luminance": 110.0,
    "motion": 0.5,
    "frozen": 0.0,
    "pad": 0.0,
    "speech": 0.9,
    "clipping": 0.0,
}


def segment(clip_id: str, frames: int = 108_000, kept: bool = True, source: str = "a.mp4", **scores) -> dict:
    """A quality row; 108,000 frames are an hour."""
    place = {"source": source, "clip_id": clip_id, "start_frame": 0, "end_frame": frames, "shard": 0}
    return {**place, **FINE, **scores, "flags": "", "kept": kept}


def reject(clip_id: str | None, stage: str, reason: str, kind: str = "filtered", source: str = "a.mp4", **more) -> dict:
    frames = {"start_frame": None, "end_frame": None} if clip_id is None else {"start_frame": 0, "end_frame": 108_000}
    row = {"source": source, "clip_id": clip_id, **frames, "stage": stage, "kind": kind, "reason": reason}
    return {**row, "detail": "", "traceback_hash": None, "traceback": None, "shard": 0, **more}


def make_tables(segments, rejects=(), sources=None, duplicates=None, failures=None, markers=()) -> Tables:
    quality = pa.Table.from_pylist(list(segments)) if segments else None
    refused = pa.Table.from_pylist(list(rejects)) if rejects else None
    joined = join_segments(quality, refused)
    if refused is None:
        refused = pa.table({name: pa.array([], pa.string()) for name in ("source", "clip_id", "kind")})
    tables = [None if rows is None else pa.Table.from_pylist(rows) for rows in (sources, duplicates, failures)]
    return Tables(joined, refused, *tables, list(markers))
