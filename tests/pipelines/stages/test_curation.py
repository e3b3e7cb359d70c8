import json

import numpy as np
import pytest

from models.signals import audio_samples, grid_frames
from pipelines.dataset import COLUMN_FIELDS, ROW_FIELDS
from pipelines.records import decode_record, encode_record
from pipelines.stages import curation, video
from pipelines.stages.curation import Settings, curate_source
from pipelines.stages.filters import SCORES, FilterThresholds
from tests.pipelines.media import ffmpeg, make_video, talking_head


@pytest.fixture(scope="module")
def kept():
    return curate_source(str(talking_head()), Settings())


def whole(result):
    """The one row of a source without clips: (stage, kind, reason)."""
    assert result.clips == []
    rows = [row for row in result.rejects if row["clip_id"] is None]
    assert len(rows) == 1 and rows[0]["start_frame"] is None
    return rows[0]["stage"], rows[0]["kind"], rows[0]["reason"]


def test_a_talking_head_becomes_a_clip(kept):
    assert len(kept.clips) == 1 and kept.rejects == []
    clip = kept.clips[0]
    assert {*ROW_FIELDS, *COLUMN_FIELDS["clips"]} == set(clip)
    count = clip["num_frames"]
    assert count == clip["end_frame"] - clip["start_frame"] == grid_frames(count) and 60 <= count <= 300
    assert clip["audio"].shape == (audio_samples(count),) and clip["audio"].dtype == np.int16
    assert clip["landmarks"].shape == (count, 68, 2) and clip["landmarks"].dtype == np.float32
    assert len(clip["clip_id"]) == 20 and len(clip["source_sha256"]) == 64
    frames = video.decode_clip(clip["video"])
    assert frames.shape == (count, 256, 256, 3)
    # The head is in the middle, with room above and below.
    assert 0.25 < json.loads(clip["scores"])["face_share"] < 0.6
    centre = clip["landmarks"].mean(axis=(0, 1))
    assert np.abs(centre - 128).max() < 40
    assert set(decode_record(encode_record(clip))) == set(clip)


def test_the_stored_box_is_where_the_pixels_come_from(kept):
    clip = kept.clips[0]
    info = video.probe(str(talking_head()))
    box = tuple(int(value) for value in clip["box"])
    again = video.decode_crop(info, clip["start_frame"], clip["num_frames"], box)
    stored = video.decode_clip(clip["video"])
    assert np.abs(again.astype(int) - stored).mean() < 4


def test_the_landmarks_follow_the_rendered_mouth(kept):
    """The lips' gap of the landmarks moves with the true opening that the head was rendered with."""
    truth = np.load(talking_head().with_suffix(".truth.npz"))
    clip = kept.clips[0]
    key = next(name for name in ("landmarks", "landmarks68") if name in truth)
    span = slice(clip["start_frame"], clip["end_frame"])
    exact = (truth[key][span] + 0.5 - clip["box"][:2]) * (256 / clip["box"][2]) - 0.5
    error = np.linalg.norm(exact[:, 17:] - clip["landmarks"][:, 17:], axis=-1).mean()
    assert error < 12


def test_every_score_is_in_the_quality_row(kept):
    assert len(kept.quality) == 1 and kept.quality[0]["kept"]
    assert all(np.isfinite(kept.quality[0][name]) for name in SCORES)
    assert kept.quality[0]["clip_id"] == kept.clips[0]["clip_id"]


def test_a_copy_under_another_name_gives_the_same_clip(kept, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(talking_head().read_bytes())
    again = curate_source(str(copy), Settings())
    differ = {name for name in again.clips[0] if not np.array_equal(again.clips[0][name], kept.clips[0][name])}
    assert differ == {"source"}


def test_a_missed_limit_filters_the_clip_and_keeps_its_figures():
    settings = Settings(thresholds=FilterThresholds(min_face_size=400))
    result = curate_source(str(talking_head()), settings)
    assert whole(result) == ("filters", "filtered", "face_too_small")
    assert len(result.quality) == 1 and not result.quality[0]["kept"] and result.quality[0]["face_size"] > 20
    assert len([row for row in result.rejects if row["clip_id"]]) == 1


def test_sound_decides_before_any_picture_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "decode_frames", lambda *_: pytest.fail("decoded"))
    mute = make_video(tmp_path / "mute.mp4", sound=None)
    assert whole(curate_source(str(mute), Settings())) == ("audio", "filtered", "no_audio")
    silent = make_video(tmp_path / "silent.mp4", sound="anullsrc=r=16000:cl=mono:d=2")
    assert whole(curate_source(str(silent), Settings())) == ("audio", "filtered", "no_speech")
    tone = make_video(tmp_path / "tone.mp4")
    assert whole(curate_source(str(tone), Settings())) == ("audio", "filtered", "no_speech")


def test_speech_without_a_face(tmp_path):
    slides = tmp_path / "slides.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30:duration=4", "-i", talking_head()),
        *("-map", "0:v", "-map", "1:a", "-pix_fmt", "yuv420p", "-shortest", slides),
    )
    assert whole(curate_source(str(slides), Settings())) == ("faces", "filtered", "no_face")


def test_two_heads_side_by_side(tmp_path):
    pair = tmp_path / "pair.mp4"
    ffmpeg(
        *("-i", talking_head(), "-i", talking_head(), "-filter_complex", "[0:v][1:v]hstack[v]"),
        *("-map", "[v]", "-map", "0:a", "-c:v", "libx264", "-pix_fmt", "yuv420p", pair),
    )
    assert whole(curate_source(str(pair), Settings())) == ("filters", "filtered", "several_faces")


def test_a_cut_is_never_inside_a_clip(tmp_path):
    """Half a head's video, then the same mirrored: two shots, and no clip across."""
    cut = tmp_path / "cut.mp4"
    graph = "[0:v]split[a][b];[a]trim=0:2.2,setpts=PTS-STARTPTS[a1];[b]trim=2.2,setpts=PTS-STARTPTS,negate,hflip[b1]"
    ffmpeg(
        *("-i", talking_head(), "-filter_complex", f"{graph};[a1][b1]concat=n=2[v]"),
        *("-map", "[v]", "-map", "0:a", "-c:v", "libx264", "-pix_fmt", "yuv420p", cut),
    )
    result = curate_source(str(cut), Settings())
    spans = [(row["start_frame"], row["end_frame"]) for row in [*result.clips, *result.rejects] if row["clip_id"]]
    assert spans and all(end <= 66 or start >= 66 for start, end in spans)


def test_broken_files_are_failures_with_a_type(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    assert whole(curate_source(str(text), Settings())) == ("probe", "failed", "UnreadableVideo")
    assert whole(curate_source(str(tmp_path / "none.mp4"), Settings())) == ("probe", "failed", "FileNotFoundError")


def test_an_error_in_one_stage_is_a_row_not_a_crash(monkeypatch):
    monkeypatch.setattr(curation.filters, "picture_scores", lambda *_: 1 / 0)
    result = curate_source(str(talking_head()), Settings())
    assert whole(result) == ("filters", "failed", "ZeroDivisionError")
    assert "division by zero" in result.rejects[0]["detail"]


def test_duplicates_are_named():
    result = curate_source("b.mp4", Settings(), duplicate_of="a.mp4")
    assert whole(result) == ("input", "filtered", "duplicate") and "a.mp4" in result.rejects[0]["detail"]
