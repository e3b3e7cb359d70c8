"""The command `archon verify`: every shard of a dataset against its manifest, and every record against its clip.

For each column: its shards' sizes, record counts and hashes, those of its tables of scores; then, record by record, the
fields that all records have, and that row k is the same clip in every column. Also the table of duplicates, if it is of
the clips that are there. ``--quick`` looks at sizes and counts only and reads no data.
"""

import argparse
from collections.abc import Iterator

from models.errors import InputError
from pipelines.dataset import ROW_FIELDS, Dataset, ShardReader, check_file, check_shard
from pipelines.manifest import duplicate_infos, score_infos, stale_duplicates


def verify(root: str, columns: tuple[str, ...] = (), quick: bool = False) -> dict:
    """Checks the named columns (default: all, and the table of duplicates).

    Returns:
        {"ok", "columns": {name: {"shards", "records", "bytes", "bad"}}, "problems": one text for each bad shard,
        "stale": the files of a table of duplicates that is of other clips}.

    Raises:
        InputError: no dataset, its manifest is not one, or no such column.
    """
    dataset = Dataset(root)
    manifest = dataset.manifest()
    rows, problems = {}, []
    for column in columns or dataset.columns():
        infos = dataset.shard_infos(column)
        bad = []
        for index, info in enumerate(infos):
            try:
                check_shard(root, info, full=not quick)
                if not quick:
                    bad += list(_wrong_records(dataset, column, index))[:1]
            except InputError as error:
                bad.append(str(error))
        for info in score_infos(manifest, column):
            try:
                check_file(root, info, full=not quick)
            except InputError as error:
                bad.append(str(error))
        rows[column] = {
            "shards": len(infos),
            "records": sum(info.count for info in infos),
            "bytes": sum(info.size for info in infos),
            "bad": len(bad),
        }
        problems += bad
    stale: list[str] = []
    if not columns:
        for info in duplicate_infos(manifest) or ():
            try:
                check_file(root, info, full=not quick)
            except InputError as error:
                problems.append(str(error))
        stale = stale_duplicates(root, manifest)
    return {"ok": not problems, "columns": rows, "problems": problems, "stale": stale}


def _wrong_records(dataset: Dataset, column: str, index: int) -> Iterator[str]:
    """What is wrong with the records of a whole shard: fields that are not there, another clip than in its row."""
    info = dataset.shard_infos(column)[index]
    path, clips = dataset.path(info.path), None if column == "clips" else _clip_ids(dataset, index)
    if clips is not None and len(clips) != info.count:
        yield f"{path}: {info.count} records, but the clips have {len(clips)}: not aligned"
        return
    for row, record in enumerate(ShardReader(path, info)):
        absent = [name for name in ROW_FIELDS if name not in record]
        if absent:
            yield f"{path}: record {row} has no {', '.join(absent)}"
        elif clips is not None and clips[row] != record["clip_id"]:
            yield f"{path}: record {row} is of clip {record['clip_id']}, but the clip there is {clips[row]}"


def _clip_ids(dataset: Dataset, index: int) -> list[str] | None:
    """The ids in a shard of clips; None if it is bad, which is said where the clips are checked."""
    infos = dataset.shard_infos("clips")
    if index >= len(infos):
        return []
    try:
        return [str(record["clip_id"]) for record in ShardReader(dataset.path(infos[index].path), infos[index])]
    except InputError:
        return None


def register(parser: argparse.ArgumentParser) -> None:
    parser.description = "Checks every shard of a dataset against its manifest. Exit status 1 if one is bad."
    parser.epilog = """examples:
  archon verify --dataset dataset
  archon verify --dataset gs://bucket/dataset --columns clips,tokens --quick"""
    parser.add_argument("--dataset", required=True, metavar="DATASET", help="folder or gs:// prefix")
    parser.add_argument("--columns", default="", metavar="A,B", help="default: all that the dataset has")
    parser.add_argument("--quick", action="store_true", help="sizes and counts only: no data is read")


def run(args: argparse.Namespace) -> dict:
    columns = tuple(name.strip() for name in args.columns.split(",") if name.strip())
    result = verify(args.dataset, columns, args.quick)
    print(f"{'column':<12} {'shards':>7} {'records':>9} {'MB':>10} {'bad':>4}")
    for name, row in result["columns"].items():
        print(f"{name:<12} {row['shards']:>7} {row['records']:>9} {row['bytes'] / 1e6:>10.1f} {row['bad']:>4}")
    for text in result["problems"]:
        print(f"verify: {text}")
    for path in result["stale"]:
        print(f"verify: {path}: stale: not of the clips that are here; remove it or run `archon duplicates` again")
    how = "sizes and counts" if args.quick else "sizes, counts, hashes and records"
    print(
        f"verify: {how} are as the manifest says" if result["ok"] else f"verify: {len(result['problems'])} bad shards"
    )
    return result
