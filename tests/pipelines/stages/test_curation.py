import json

import numpy as np
import pytest

from models.signals import audio_samples, grid_frames
from pipelines.dataset import COLUMN_FIELDS, ROW_FIELDS
from pipelines.records import decode_record, encode_record
from pipelines.stages import curation, video
from pipelines.stages.curation import NotStored, Settings, curate_source
from pipelines.stages.filters import LABELS, SCORES, FilterThresholds
from tests.pipelines.media import ffmpeg, make_video, talking_head


def curated(source, settings=None, duplicate_of=None):
    """A source's result, and the clips that it gave."""
    clips = []
    result = curate_source(str(source), settings or Settings(), clips.append, duplicate_of)
    assert result.clips == len(clips)
    return result, clips


@pytest.fixture(scope="module")
def kept():
    return curated(talking_head())


def whole(outcome):
    """The one row of a source without clips: (stage, kind, reason)."""
    result, clips = outcome
    assert clips == []
    rows = [row for row in result.rejects if row["clip_id"] is None]
    assert len(rows) == 1 and rows[0]["start_frame"] is None
    return rows[0]["stage"], rows[0]["kind"], rows[0]["reason"]


def test_a_talking_head_becomes_a_clip(kept):
    result, clips = kept
    assert len(clips) == 1 and result.rejects == []
    clip = clips[0]
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
    clip = kept[1][0]
    info = video.probe(str(talking_head()))
    box = tuple(int(value) for value in clip["box"])
    again = video.decode_crop(info, clip["start_frame"], clip["num_frames"], box)
    stored = video.decode_clip(clip["video"])
    assert np.abs(again.astype(int) - stored).mean() < 4


def test_the_landmarks_follow_the_rendered_mouth(kept):
    """The lips' gap of the landmarks moves with the true opening that the head was rendered with."""
    truth = np.load(talking_head().with_suffix(".truth.npz"))
    clip = kept[1][0]
    key = next(name for name in ("landmarks", "landmarks68") if name in truth)
    span = slice(clip["start_frame"], clip["end_frame"])
    exact = (truth[key][span] + 0.5 - clip["box"][:2]) * (256 / clip["box"][2]) - 0.5
    error = np.linalg.norm(exact[:, 17:] - clip["landmarks"][:, 17:], axis=-1).mean()
    assert error < 12


def test_every_score_is_in_the_quality_row(kept):
    result, clips = kept
    assert len(result.quality) == 1 and result.quality[0]["kept"]
    row = result.quality[0]
    assert list(row) == ["source", "clip_id", "start_frame", "end_frame", *SCORES, *LABELS, "flags", "kept"]
    assert {name for name in SCORES if row[name] is None} == {"sync_confidence", "sync_offset"}
    assert all(isinstance(row[name], str) and row[name] for name in LABELS)
    assert row["clip_id"] == clips[0]["clip_id"]
    assert json.loads(clips[0]["scores"]) == {name: row[name] for name in SCORES}


def test_the_scores_of_a_rendered_head(kept):
    """What is known of it: alone, upright, all of it in the picture, its mouth in step with its voice."""
    row = kept[0].quality[0]
    assert row["face_count"] == row["face_count_peak"] == row["single_face"] == row["face_present"] == 1
    assert row["shot_cut"] < 0.5 and row["landmarks_inside"] == 1 and row["head_inside"] > 0.99
    assert row["head_margin"] <= row["head_margin_top"] and abs(row["roll"]) < 20
    assert 0 < row["head_speed"] < row["head_speed_peak"] < 200
    assert row["lip_sync"] > 0.3 and abs(row["lip_sync_lag"]) <= 1
    assert 0.6 < row["compression_quality"] < 1 and 0.01 < row["bits_per_pixel"] < 1
    assert row["speech"] > 0.5 and row["blur_effect"] < 0.6


def test_facts_of_a_source_are_what_was_learned_on_its_road(kept, tmp_path):
    path, (result, clips) = talking_head(), kept
    everything = {"source_sha256", "bytes", "codec", "width", "height", "fps", "rotation", "seconds"}
    everything |= {"speech_seconds", "face_share", "shots"}
    assert set(result.facts) == everything
    assert result.facts["source_sha256"] == clips[0]["source_sha256"] and result.facts["bytes"] == path.stat().st_size
    assert (result.facts["codec"], result.facts["width"], result.facts["shots"], result.facts["face_share"]) == (
        "h264",
        256,
        1,
        1,
    )
    assert 2 < result.facts["speech_seconds"] <= result.facts["seconds"] == pytest.approx(result.seconds)
    mute = curated(make_video(tmp_path / "mute.mp4", sound=None))[0]
    assert set(mute.facts) == everything - {"speech_seconds", "face_share", "shots"}
    silent = curated(make_video(tmp_path / "tone.mp4"))[0]
    assert set(silent.facts) == everything - {"face_share", "shots"} and silent.facts["speech_seconds"] < 0.5
    (tmp_path / "text.mp4").write_text("not a video")
    broken = curated(tmp_path / "text.mp4")[0]
    assert set(broken.facts) == {"source_sha256", "bytes"} and broken.facts["bytes"] == 11


def test_a_segment_too_short_to_cut_keeps_what_the_scan_knows():
    result, clips = curated(talking_head(), Settings(thresholds=FilterThresholds(min_seconds=30)))
    assert whole((result, clips)) == ("segments", "filtered", "too_short")
    assert len(result.quality) == 1 and not result.quality[0]["kept"]
    row = result.quality[0]
    assert row["clip_id"] in {reject["clip_id"] for reject in result.rejects}
    assert row["seconds"] > 2 and row["face_present"] == 1 and row["face_size"] > 20 and row["speech"] > 0.5
    assert abs(row["yaw"]) < 60 and row["snr_db"] is not None and row["shot_cut"] is not None
    assert row["blur"] is None and row["pad"] is None and row["lip_sync"] is None and row["picture_hash"] is None


def test_a_copy_under_another_name_gives_the_same_clip(kept, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(talking_head().read_bytes())
    again, clip = curated(copy)[1][0], kept[1][0]
    differ = {name for name in again if not np.array_equal(again[name], clip[name])}
    assert differ == {"source"}


def test_a_missed_limit_filters_the_clip_and_keeps_its_figures():
    settings = Settings(thresholds=FilterThresholds(min_face_size=400))
    result, clips = curated(talking_head(), settings)
    assert whole((result, clips)) == ("filters", "filtered", "face_too_small")
    assert len(result.quality) == 1 and not result.quality[0]["kept"] and result.quality[0]["face_size"] > 20
    assert len([row for row in result.rejects if row["clip_id"]]) == 1


def test_sound_decides_before_any_picture_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "decode_frames", lambda *_: pytest.fail("decoded"))
    mute = make_video(tmp_path / "mute.mp4", sound=None)
    assert whole(curated(mute)) == ("audio", "filtered", "no_audio")
    silent = make_video(tmp_path / "silent.mp4", sound="anullsrc=r=16000:cl=mono:d=2")
    assert whole(curated(silent)) == ("audio", "filtered", "no_speech")
    tone = make_video(tmp_path / "tone.mp4")
    assert whole(curated(tone)) == ("audio", "filtered", "no_speech")


def test_speech_without_a_face(tmp_path):
    slides = tmp_path / "slides.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30:duration=4", "-i", talking_head()),
        *("-map", "0:v", "-map", "1:a", "-pix_fmt", "yuv420p", "-shortest", slides),
    )
    assert whole(curated(slides)) == ("faces", "filtered", "no_face")


def test_two_heads_side_by_side(tmp_path):
    pair = tmp_path / "pair.mp4"
    ffmpeg(
        *("-i", talking_head(), "-i", talking_head(), "-filter_complex", "[0:v][1:v]hstack[v]"),
        *("-map", "[v]", "-map", "0:a", "-c:v", "libx264", "-pix_fmt", "yuv420p", pair),
    )
    assert whole(curated(pair)) == ("filters", "filtered", "several_faces")


def test_a_cut_is_never_inside_a_clip(tmp_path):
    """Half a head's video, then the same mirrored: two shots, and no clip across."""
    cut = tmp_path / "cut.mp4"
    graph = "[0:v]split[a][b];[a]trim=0:2.2,setpts=PTS-STARTPTS[a1];[b]trim=2.2,setpts=PTS-STARTPTS,negate,hflip[b1]"
    ffmpeg(
        *("-i", talking_head(), "-filter_complex", f"{graph};[a1][b1]concat=n=2[v]"),
        *("-map", "[v]", "-map", "0:a", "-c:v", "libx264", "-pix_fmt", "yuv420p", cut),
    )
    result, clips = curated(cut)
    spans = [(row["start_frame"], row["end_frame"]) for row in [*clips, *result.rejects] if row["clip_id"]]
    assert spans and all(end <= 66 or start >= 66 for start, end in spans)


def test_broken_files_are_failures_with_a_type(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    assert whole(curated(text)) == ("probe", "failed", "UnreadableVideo")
    assert whole(curated(tmp_path / "none.mp4")) == ("probe", "failed", "FileNotFoundError")


def test_an_error_in_one_stage_is_a_row_not_a_crash(monkeypatch):
    monkeypatch.setattr(curation.picture_scores, "picture_scores", lambda *_: 1 / 0)
    result, clips = curated(talking_head())
    assert whole((result, clips)) == ("filters", "failed", "ZeroDivisionError")
    segment, source = result.rejects
    assert "division by zero" in segment["detail"] and "in _clip_record" in segment["traceback"]
    assert segment["traceback_hash"] == source["traceback_hash"]
    # What was measured before the error is kept.
    (row,) = result.quality
    assert not row["kept"] and row["speech"] > 0.5 and row["head_speed"] > 0 and row["blur"] is None


def test_a_full_disk_is_not_the_source_s_fault():
    def full(record):
        raise OSError("no space left")

    with pytest.raises(NotStored, match="could not be stored: no space left"):
        curate_source(str(talking_head()), Settings(), full)


def test_an_error_outside_every_stage_costs_one_segment(monkeypatch):
    """Another segment's clip may be kept already, so it cannot be a failure of the whole source."""
    monkeypatch.setattr(curation, "row_fields", lambda *_: 1 / 0)
    result, clips = curated(talking_head())
    assert whole((result, clips)) == ("crop", "failed", "ZeroDivisionError")
    assert [row["clip_id"] for row in result.rejects] == [result.quality[0]["clip_id"], None]


def test_duplicates_are_named():
    result, clips = curated("b.mp4", duplicate_of="a.mp4")
    assert whole((result, clips)) == ("input", "filtered", "duplicate") and "a.mp4" in result.rejects[0]["detail"]
