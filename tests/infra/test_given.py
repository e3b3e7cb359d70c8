import json
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from infra import given
from models.errors import InputError
from models.labels import LABELS
from pipelines.inspect import wav_bytes, write_video


def tone(seconds=1.0, rate=16_000):
    return (8_000 * np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate)).astype(np.int16)


def test_given_pairs():
    assert given.parse_given(["speech=a=b.wav", "script=hello there"]) == (
        ("speech", "a=b.wav"),
        ("script", "hello there"),
    )
    for bad in (["speech"], ["speech="], ["music=a.wav"], ["speech=a", "speech=b"]):
        with pytest.raises(InputError, match="--given"):
            given.parse_given(bad)


def test_speech_is_read_from_sound_and_from_video(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(tone()))
    np.testing.assert_array_equal(given.read_speech(str(tmp_path / "a.wav")), tone())
    stereo = tmp_path / "b.flac"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", "-ac", "2", "-ar", "44100"]
    subprocess.run([*command, stereo], check=True)
    read = given.read_speech(str(stereo))
    assert abs(len(read) - 16_000) <= 2
    spectrum = np.abs(np.fft.rfft(read.astype(float)))
    assert abs(np.argmax(spectrum) * 16_000 / len(read) - 440) < 3
    write_video(str(tmp_path / "c.mp4"), np.zeros((30, 64, 64, 3), np.uint8), tone())
    assert abs(len(given.read_speech(str(tmp_path / "c.mp4"))) - 16_000) < 2100  # AAC pads to whole frames


def test_what_is_no_speech_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "short.wav").write_bytes(wav_bytes(tone(0.05)))
    write_video(str(tmp_path / "silent.mp4"), np.zeros((5, 64, 64, 3), np.uint8))
    for name in ("text.wav", "short.wav", "silent.mp4", "absent.wav"):
        with pytest.raises(InputError, match=name):
            given.read_speech(str(tmp_path / name))


def test_what_shows_no_face_is_refused(tmp_path):
    Image.fromarray(np.full((300, 200, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="no face found"):
        given.read_reference(str(tmp_path / "grey.png"))
    with pytest.raises(InputError, match="expected a picture"):
        given.read_reference(str(tmp_path / "text.png"))
    with pytest.raises(InputError, match="no such file"):
        given.read_reference(str(tmp_path / "absent.png"))


@pytest.mark.slow
def test_a_real_face_is_cut_out_and_segmented(real_clips, tmp_path):
    from models.labels import LABEL_INDEX

    frame = tmp_path / "frame.png"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", real_clips / "talkvid_tys.mp4", "-frames:v", "1"]
    subprocess.run([*command, frame], check=True)
    reference = given.read_reference(str(frame))
    assert reference.image.shape == (256, 256, 3) and reference.labels.shape == (256, 256)
    face = reference.labels == LABEL_INDEX["face"]
    y, x = np.nonzero(face)
    assert 0.05 < face.mean() < 0.5 and 80 < x.mean() < 176 and 60 < y.mean() < 196


def test_texts_are_literal_or_files(tmp_path):
    (tmp_path / "script.txt").write_text(" Hello there.\n")
    (tmp_path / "d.json").write_text(json.dumps({"hair": {"colour": "red"}}, indent=2))
    (tmp_path / "kept.json").write_text(json.dumps({"text": "{not json", "note": "the model's text is not JSON"}))
    (tmp_path / "broken.json").write_text("{")
    assert given.read_text("script", "Hello there.") == "Hello there."
    assert given.read_text("script", str(tmp_path / "script.txt")) == "Hello there."
    assert given.read_text("description", str(tmp_path / "d.json")) == '{"hair": {"colour": "red"}}'
    assert given.read_text("description", str(tmp_path / "kept.json")) == "{not json"
    for value in (str(tmp_path / "absent.txt"), str(tmp_path / "broken.json"), "  "):
        with pytest.raises(InputError):
            given.read_text("description", value)


def test_arrays_come_back_as_they_were_written(tmp_path):
    np.savez(tmp_path / "e.npz", expression=np.ones((5, 3)))
    (tmp_path / "s.json").write_text(json.dumps({"shape": [1, 2.5]}))
    np.testing.assert_array_equal(given.read_array("expression", str(tmp_path / "e.npz")), np.ones((5, 3)))
    np.testing.assert_array_equal(given.read_array("shape", str(tmp_path / "s.json")), [1, 2.5])
    for kind, name in (("pose", "e.npz"), ("expression", "s.json"), ("shape", "e.npz")):
        with pytest.raises(InputError, match=kind):
            given.read_array(kind, str(tmp_path / name))


@pytest.mark.slow
def test_a_video_is_its_semantics_and_a_reference(tmp_path):
    from tests.pipelines.media import ffmpeg, talking_head

    ffmpeg("-i", talking_head(), "-t", "2.6", "-c", "copy", tmp_path / "head.mp4")
    labels, reference = given.read_video(str(tmp_path / "head.mp4"))
    assert labels.dtype == np.uint8 and 60 <= len(labels) <= 81
    assert reference.image.shape == (256, 256, 3) and reference.labels.shape == labels.shape[1:]
    # A head: background, skin, hair, eyes and lips are there.
    names = {LABELS[label] for label in np.unique(labels)}
    assert {"background", "face", "hair", "lips", "iris"} <= names
    (tmp_path / "tone.wav").write_bytes(wav_bytes(tone()))
    with pytest.raises(InputError, match="tone.wav: no clip of one speaking person"):
        given.read_video(str(tmp_path / "tone.wav"))
    with pytest.raises(InputError, match="no such file"):
        given.read_video(str(tmp_path / "absent.mp4"))
