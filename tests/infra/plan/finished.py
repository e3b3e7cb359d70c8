"""What finished jobs leave of a dataset, as far as `archon plan` reads it."""

from pipelines.dataset import ShardInfo, update_manifest, write_json


def write_marker(root: str, job: str, label: str, shard: str, **fields) -> None:
    marker = {"fingerprint": "f", "files": [], "seconds": 0.0, "cpu_seconds": 0.0, "summary": {}, **fields}
    write_json(f"{root}/_state/{job}/{label}/{shard}.json", marker)


def write_finished(root: str) -> str:
    """A dataset's manifest and markers: 0.2 hours in, 0.1 hours kept."""
    info = {name: [ShardInfo(f"{name}/x", 3, size, "0" * 64)] for name, size in (("clips", 10**8), ("pose", 10**5))}
    update_manifest(root, {name: (shards, {"job": "j", "backend": f"{name}-maker"}) for name, shards in info.items()})
    for job, label, seconds, facts in (
        ("curate", "clips", 100.0, {"video_seconds": 360.0, "clip_seconds": 180.0}),
        ("annotate", "pose", 50.0, {"frames": 5400}),
    ):
        for shard in ("00000-of-00002", "00001-of-00002"):
            write_marker(root, job, label, shard, seconds=2 * seconds, cpu_seconds=seconds, summary=facts)
    return root
