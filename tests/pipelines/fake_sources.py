"""Sources that cost nothing: text files that say what curate would find in them, and a stand-in for curate_source."""

import json
import os
from pathlib import Path

from pipelines.failures import describe_failure
from pipelines.stages import filters
from pipelines.stages.curation import Filtered, SourceResult, clip_id, failed_row, reject_row, whole_source_row
from pipelines.stages.filters import SCORES

GOOD = {"seconds": 4, "face_size": 100, "face_share": 0.4, "face_present": 1, "face_score": 1, "single_face": 1}
GOOD |= {"speech": 1, "blur": 100, "luminance": 100, "lip_sync": 0.5}


def write_source(path, sizes=(), wrong="") -> Path:
    """``sizes``: the face size of each segment. ``wrong``: "mute" or "broken"."""
    Path(path).write_text(json.dumps({"name": os.path.basename(path), "sizes": list(sizes), "wrong": wrong}))
    return Path(path)


def fake_curate(source, settings, keep, duplicate_of=None) -> SourceResult:
    """What curate_source would do with such a file."""
    content, result = json.loads(Path(source).read_text()), SourceResult(seconds=60.0)
    if duplicate_of or content["wrong"] == "mute":
        stage, reason = ("input", "duplicate") if duplicate_of else ("audio", "no_audio")
        result.rejects.append(reject_row(source, stage, "filtered", reason, "x"))
        return result
    try:
        if content["wrong"] == "broken":
            raise ValueError("broken")
    except ValueError as error:
        result.rejects.append(failed_row(source, describe_failure("probe", error)))
        return result
    for index, size in enumerate(content["sizes"]):
        span = (index * 150, index * 150 + 120)
        identity = clip_id(content["name"], *span)
        scores = {name: filters.stored_score({**GOOD, "face_size": size + 1 / 3}.get(name, 0.0)) for name in SCORES}
        missed = filters.decide(scores, settings.thresholds)
        row = dict(source=source, clip_id=identity, start_frame=span[0], end_frame=span[1])
        result.quality.append({**row, **scores, "flags": "", "kept": not missed})
        if missed:
            error = Filtered("filters", missed[0][0], "; ".join(detail for _, detail in missed))
            result.rejects.append(reject_row(source, "filters", "filtered", error.reason, str(error), span, identity))
            continue
        keep({**row, "error": "", "made_by": settings.made_by, "num_frames": 120, "video": b"v" * 1000})
        result.clips += 1
    if not result.clips:
        result.rejects.append(whole_source_row(source, result.rejects))
    return result
