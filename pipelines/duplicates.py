"""The job `archon duplicates`: clips of a whole corpus that show or sound the same moment, in groups with one kept.

Exact copies of a file never become clips (`archon curate` sees to that). This finds what was encoded, scaled, cropped
or cut again, from the fingerprints in the quality table alone: no video is read. In two steps and a half:

1. ``blocks``: the quality shards, some thousand clips at a time. Each block becomes a file of codes and one small file
   of keys for every part.
2. ``pairs``: all blocks' keys of a part, sorted; clips that share a key are compared at the shift that the key gives.
3. The pairs that passed are joined to groups. Only duplicates are held in memory here.

The manifest says of which clips the table is (``duplicates.made_from``): it is not to be read beside others.

A part's memory does not grow with the corpus, for there are more parts then; a word is compared with at most
``matching.NEIGHBOURS`` others. The same dataset gives the same tables on any runner and number of workers.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from models.errors import InputError
from pipelines import storage
from pipelines.beam import (
    RunnerOptions,
    ShardTask,
    Step,
    StepResult,
    add_runner_arguments,
    fingerprint,
    marker_files,
    run_shards,
    runner_options,
)
from pipelines.dataset import Dataset, ShardInfo, update_manifest, write_json
from pipelines.manifest import DUPLICATES, clips_mark
from pipelines.near_duplicates import PAIR, PAIRS_AT_ONCE, Clips, codes_of, each_once, grouped, verify
from pipelines.stages import matching
from pipelines.stages.matching import Limits
from pipelines.state import STATE, state_path

JOB = "duplicates"
VERSION = 1  # raise it when the same table gives other groups
WORK = f"{STATE}/{JOB}/work"  # codes, keys and pairs, gone at the end
ROWS_A_FILE = 500_000
_COLUMNS = ["clip_id", "source", "start_frame", "end_frame", "seconds", "face_size", "picture_hash", "sound_hash"]


@dataclass(frozen=True)
class DuplicatesConfig:
    """``bytes_per_block`` and ``bytes_per_part``, of the quality tables, bound what one task holds in memory and not
    what is found. Ten seconds of a clip are 3 KB there, and 800 keys.
    """

    dataset: str
    limits: Limits = field(default_factory=Limits)
    bytes_per_block: int = 24 << 20
    bytes_per_part: int = 24 << 20


# --- First step: a block of clips ---


@dataclass(frozen=True)
class Block:
    """Quality shards whose clips a task reads, and the number of parts that their keys go to."""

    dataset: str
    parts: int

    def __call__(self, task: ShardTask) -> StepResult:
        import pyarrow as pa
        import pyarrow.ipc

        table = pa.concat_tables([read_kept(storage.join(self.dataset, name)) for name in task.payload])
        keys = []
        for row, (_, motion, sound) in enumerate(codes_of(table)):
            keys.append(matching.clip_keys(motion, sound))
            keys[-1]["row"] = row
        all_keys = np.concatenate(keys) if keys else np.zeros(0, matching.KEY)
        del keys
        part = matching.part_of_key(all_keys["key"], self.parts)
        ends = np.searchsorted(part[order := np.argsort(part, kind="stable")], np.arange(1, self.parts))
        name = f"{WORK}/codes-{task}.arrow"
        with storage.atomic_file(storage.join(self.dataset, name)) as temporary:
            with pa.OSFile(temporary, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            files = [_info(name, table.num_rows, temporary)]
        for number, piece in enumerate(np.split(all_keys[order], ends)):
            files.append(_write_array(self.dataset, keys_name(task.index, number), piece))
        return StepResult(tuple(files), {"clips": table.num_rows, "keys": len(all_keys)})


def read_kept(path: str):
    """Returns an Arrow table of the kept clips of a quality shard, with the columns that this job needs.

    Raises:
        InputError: not a quality shard, or one without fingerprints.
    """
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet

    with storage.local_copy(path) as local:
        try:
            names = pa.parquet.read_schema(local).names
            missing = [name for name in [*_COLUMNS, "kept"] if name not in names]
            if missing:
                raise InputError(f"{path}: no column {missing[0]}; expected a quality table of `archon curate`: run it")
            table = pa.parquet.read_table(local, columns=[*_COLUMNS, "kept"])
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: not a Parquet file that can be read ({error})") from error
    table = table.filter(table["kept"]).select(_COLUMNS)
    for name in ("picture_hash", "sound_hash"):
        if table[name].null_count:
            clip = table.filter(pa.compute.is_null(table[name]))["clip_id"][0]
            raise InputError(f"{path}: clip {clip}: no {name}; expected one of every kept clip")
    return table


def keys_name(block: int, part: int) -> str:
    return f"{WORK}/keys-{block:05d}-{part:05d}.npy"


def _write_array(root: str, name: str, array: np.ndarray) -> ShardInfo:
    with storage.atomic_file(storage.join(root, name)) as temporary:
        with open(temporary, "wb") as file:
            np.save(file, array, allow_pickle=False)
        return _info(name, len(array), temporary)


def _read_array(root: str, name: str) -> np.ndarray:
    return np.load(io.BytesIO(storage.read_bytes(storage.join(root, name))), allow_pickle=False)


def _info(name: str, count: int, temporary: str) -> ShardInfo:
    return ShardInfo(name, count, os.path.getsize(temporary), storage.sha256_file(temporary))


# --- Second step: a part of the keys ---


@dataclass(frozen=True)
class Part:
    """The step: all blocks' keys of one part -> the pairs that are duplicates, as an array of PAIR."""

    dataset: str
    limits: Limits
    codes: tuple[ShardInfo, ...]

    def __call__(self, task: ShardTask) -> StepResult:
        with Clips(self.dataset, self.codes) as clips:
            keys = [_read_array(self.dataset, keys_name(block, task.index)) for block in range(len(self.codes))]
            for piece, start in zip(keys, clips.starts, strict=False):
                piece["row"] += np.uint32(start)
            pairs = matching.candidate_pairs(np.concatenate(keys))
            found = [np.zeros(0, PAIR)]
            for first in range(0, len(pairs), PAIRS_AT_ONCE):
                found.append(verify(clips, pairs[first : first + PAIRS_AT_ONCE], self.limits))
        result = each_once(np.concatenate(found))
        name = f"{WORK}/pairs-{task}.npy"
        return StepResult((_write_array(self.dataset, name, result),), {"candidates": len(pairs)})


# --- The table ---


def duplicates_schema():
    import pyarrow as pa

    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("group", pa.string()),  # the smallest clip_id in it
            ("duplicate_of", pa.string()),  # null for a clip that is kept
            ("picture_distance", pa.float32()),  # to that clip; null if the pictures hardly move or share too little
            ("sound_similarity", pa.float32()),
            ("kind", pa.string()),  # picture, sound or both; null for a clip that is kept
        ]
    )


# --- The job ---


def find_duplicates(config: DuplicatesConfig, runner: RunnerOptions | None = None) -> dict:
    """Runs the job; returns the summary that ``--json`` prints. Run again on the same clips, it does nothing.

    Raises:
        InputError: no such dataset, no quality table, or one without fingerprints.
    """
    began, root, runner = time.monotonic(), config.dataset, runner or RunnerOptions()
    shards = quality_shards(root)
    manifest = Dataset(root).manifest()
    made_by = fingerprint(VERSION, config, manifest["columns"]["clips"]["shards"], shards)
    done = state_path(root, JOB, "done.json")
    if storage.exists(done):
        before = json.loads(storage.read_bytes(done))
        if before["made_by"] == made_by and all(
            storage.exists(storage.join(root, i["path"])) and storage.size(storage.join(root, i["path"])) == i["size"]
            for i in before["files"]
        ):
            _enter(root, manifest, config.limits, before["files"])
            print("duplicates: done already", flush=True)
            return before["summary"]
    blocks = _blocks(shards, config.bytes_per_block)
    parts = max(1, -(-sum(size for _, size in shards) // config.bytes_per_part))
    print(f"duplicates: {len(shards)} quality shards in {len(blocks)} blocks, {parts} parts", flush=True)
    step = Step("blocks", Block(root, parts), fingerprint(made_by, parts))
    tasks = [ShardTask(index, len(blocks), tuple(block)) for index, block in enumerate(blocks)]
    made = run_shards(JOB, root, [step], tasks, runner)["blocks"]
    codes = tuple(info for info in marker_files(made) if "/codes-" in info.path)
    step = Step("pairs", Part(root, config.limits, codes), fingerprint(made_by, parts))
    found = run_shards(JOB, root, [step], [ShardTask(index, parts) for index in range(parts)], runner)["pairs"]
    pairs = each_once(np.concatenate([_read_array(root, info.path) for info in marker_files(found)]))
    with Clips(root, codes) as clips:
        rows = grouped(clips, pairs, config.limits)
    files = write_tables(root, rows)
    groups = {row["group"] for row in rows}
    gone = [row for row in rows if row["duplicate_of"] is not None]
    summary = {
        "clips": sum(info.count for info in codes),
        "groups": len(groups),
        "duplicates": len(gone),
        **{f"by_{kind}": sum(row["kind"] == kind for row in gone) for kind in ("picture", "sound", "both")},
        "keys": sum(marker["summary"]["keys"] for marker in made),
        "comparisons": sum(marker["summary"]["candidates"] for marker in found),
        "seconds": round(time.monotonic() - began, 2),
    }
    _enter(root, manifest, config.limits, [asdict(info) for info in files])
    write_json(done, {"made_by": made_by, "files": [vars(info) for info in files], "summary": summary})
    storage.remove_tree(storage.join(root, WORK))
    print(f"duplicates: {len(gone)} of {summary['clips']} clips go, {len(groups)} groups", flush=True)
    return summary


def _enter(root: str, manifest: dict, limits: Limits, files: list[dict]) -> None:
    """Says in the manifest which files are the table, and of which clips: those of the given (earlier) manifest."""
    table = {
        "made_from": clips_mark(manifest),
        "count": sum(file["count"] for file in files),
        "files": files,
        "limits": asdict(limits),
    }
    if manifest.get(DUPLICATES) != table:
        update_manifest(root, {}, **{DUPLICATES: table})


def quality_shards(root: str) -> list[tuple[str, int]]:
    """Returns the dataset's quality files, relative to it, sorted, and how many bytes each has. One listing."""
    Dataset(root).shard_infos("clips")
    sizes = storage.list_sizes(storage.join(root, "quality", "*.parquet"))
    if not sizes:
        raise InputError(f"{root}/quality: no tables; expected a dataset made by `archon curate`")
    return sorted((f"quality/{path.rpartition('/')[2]}", size) for path, size in sizes.items())


def _blocks(shards: Sequence[tuple[str, int]], limit: int) -> list[list[str]]:
    """Consecutive shards of together at most ``limit`` bytes, or one shard that has more."""
    blocks: list[list[str]] = []
    total = 0
    for shard, size in shards:
        if not blocks or total + size > limit:
            blocks.append([])
            total = 0
        blocks[-1].append(shard)
        total += size
    return blocks


def write_tables(root: str, rows: list[dict]) -> list[ShardInfo]:
    """Writes the rows as Parquet files, at least one, and removes those of an earlier run."""
    import pyarrow as pa
    import pyarrow.parquet

    pieces = [rows[first : first + ROWS_A_FILE] for first in range(0, max(len(rows), 1), ROWS_A_FILE)]
    files = []
    for index, piece in enumerate(pieces):
        name = f"duplicates/duplicates-{index:05d}-of-{len(pieces):05d}.parquet"
        with storage.atomic_file(storage.join(root, name)) as temporary:
            pa.parquet.write_table(pa.Table.from_pylist(piece, schema=duplicates_schema()), temporary)
            files.append(_info(name, len(piece), temporary))
    for path in storage.list_files(storage.join(root, "duplicates", "*.parquet")):
        if f"duplicates/{path.rpartition('/')[2]}" not in {info.path for info in files}:
            storage.remove(path)
    return files


def register(parser: argparse.ArgumentParser) -> None:
    defaults = Limits()
    parser.description = (
        "Finds clips that show or sound the same moment (encoded, scaled, cropped, brightened or cut again) in a whole "
        "dataset, and says in duplicates/*.parquet which of each group to keep."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """examples:
  archon duplicates --dataset dataset
  archon duplicates --dataset dataset --picture-distance 0.15 --sound-similarity 0.8 --json
  archon duplicates --dataset gs://bucket/dataset --runner dataflow --beam-arg=--project=P"""
    parser.add_argument("--dataset", required=True, metavar="DATASET", help="a dataset made by `archon curate`")
    parser.add_argument(
        "--picture-distance",
        type=float,
        default=defaults.picture_distance,
        metavar="N",
        help="largest share of the motion's bits that differ, 0 to 0.5 (default: %(default)s)",
    )
    parser.add_argument(
        "--appearance-distance",
        type=int,
        default=defaults.appearance_distance,
        metavar="N",
        help="and the most bits of 64 in which the mean pictures differ (default: %(default)s)",
    )
    parser.add_argument(
        "--sound-similarity",
        type=float,
        default=defaults.sound_similarity,
        metavar="X",
        help="least share of the sound's bits that agree, 0.5 to 1 (default: %(default)s)",
    )
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> dict:
    if not 0 <= args.picture_distance <= 0.5:
        raise InputError(f"--picture-distance {args.picture_distance:g}: expected 0 to 0.5")
    if not 0 <= args.appearance_distance <= 64:
        raise InputError(f"--appearance-distance {args.appearance_distance}: expected 0 to 64")
    if not 0.5 <= args.sound_similarity <= 1:
        raise InputError(f"--sound-similarity {args.sound_similarity:g}: expected 0.5 to 1")
    limits = Limits(args.picture_distance, args.appearance_distance, args.sound_similarity)
    return find_duplicates(DuplicatesConfig(args.dataset, limits), runner_options(args))
