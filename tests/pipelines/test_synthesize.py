import argparse
import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.errors import InputError
from models.signals import VIDEO_FPS
from pipelines.synthesize import SynthesizeConfig, _clip_task, clip_name, register, render, run, synthesize

SIZE = 384


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    output = tmp_path_factory.mktemp("corpus")
    summary = synthesize(SynthesizeConfig(clips=2, output=str(output), seed=11, size=SIZE, workers=1, quiet=True))
    return output, summary


def _truth(output, index):
    path = output / clip_name(11, index)
    with np.load(f"{path}.truth.npz") as file:
        return json.loads(Path(f"{path}.truth.json").read_text()), dict(file)


def _decode(path, *what):
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), *what, "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)


def _frames(path):
    return _decode(path, "-f", "rawvideo", "-pix_fmt", "rgb24").reshape(-1, SIZE, SIZE, 3)


def test_files_and_summary(corpus):
    output, summary = corpus
    assert sorted(p.name for p in output.iterdir()) == sorted(
        clip_name(11, k) + suffix for k in range(2) for suffix in (".mp4", ".truth.json", ".truth.npz")
    )
    assert summary["rendered"] == 2 and summary["skipped"] == 0 and summary["clips"] == 2
    assert summary["frames"] == sum(_truth(output, k)[0]["frames"] for k in range(2))


def test_truth_shapes_and_length(corpus):
    output, _ = corpus
    for k in range(2):
        truth, arrays = _truth(output, k)
        frames = truth["frames"]
        assert 3 * VIDEO_FPS <= frames <= 6 * VIDEO_FPS
        assert len(_frames(output / f"{clip_name(11, k)}.mp4")) == frames
        assert arrays["expression"].shape == (frames, len(truth["expression_names"]))
        assert arrays["shape"].shape == (len(truth["shape_names"]),) and arrays["pose"].shape == (frames, 6)
        assert arrays["landmarks"].shape == (frames, 68, 2) and arrays["camera"].shape == (3,)
        assert arrays["labels"].shape == (frames, SIZE, SIZE) and arrays["labels"].dtype == np.uint8
        speech_end = truth["phonemes"][-1]["end"]
        assert abs(truth["phonemes"][0]["start"] - 0.2) < 0.12 and speech_end <= frames / VIDEO_FPS - 0.15
        assert [w["word"].lower() for w in truth["words"]] == truth["text"].lower().replace(",", "").rstrip(".").split()


def test_people_and_words_differ(corpus):
    output, _ = corpus
    (a, x), (b, y) = _truth(output, 0), _truth(output, 1)
    assert a["text"] != b["text"] and a["attributes"] != b["attributes"]
    assert np.linalg.norm(x["shape"] - y["shape"]) > 3


def test_sound_is_where_the_phonemes_are(corpus):
    output, _ = corpus
    for k in range(2):
        truth, _ = _truth(output, k)
        sound = (
            _decode(output / f"{clip_name(11, k)}.mp4", "-f", "s16le", "-ac", "1", "-ar", "16000")
            .view(np.int16)
            .astype(float)
        )
        assert abs(len(sound) / 16000 - truth["frames"] / VIDEO_FPS) < 0.08

        def level(start, end, sound=sound):
            part = sound[int(start * 16000) : int(end * 16000)]
            return float(np.sqrt((part**2).mean()))

        speech = level(truth["phonemes"][0]["start"], truth["phonemes"][-1]["end"])
        assert speech > 400 and level(0, 0.15) < 0.05 * speech
        vowels = [
            level(p["start"], p["end"]) for p in truth["phonemes"] if p["stress"] and p["end"] - p["start"] > 0.05
        ]
        assert min(vowels) > 0.15 * speech


def test_the_mouth_follows_the_phonemes(corpus):
    from pipelines.stages.talk import openness

    output, _ = corpus
    for k in range(2):
        truth, arrays = _truth(output, k)
        points = arrays["landmarks"]
        gap = np.linalg.norm(points[:, 61:64].mean(1) - points[:, 65:68].mean(1), axis=-1)
        times = (np.arange(truth["frames"]) + 0.5) / VIDEO_FPS
        meant = np.zeros(truth["frames"])
        for p in truth["phonemes"]:
            meant[(times >= p["start"]) & (times < p["end"])] = openness(p["phoneme"])
        assert np.corrcoef(gap, meant)[0, 1] > 0.6
        assert gap.max() > 4 * max(gap[:3].mean(), 0.5)


def test_dlib_finds_the_face_and_its_landmarks(corpus):
    dlib = pytest.importorskip("dlib")
    found = importlib.util.find_spec("face_recognition_models")
    if found is None:
        pytest.skip("face_recognition_models is not installed")
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(
        str(Path(found.origin).parent / "models" / "shape_predictor_68_face_landmarks.dat")
    )
    output, _ = corpus
    for k in range(2):
        _, arrays = _truth(output, k)
        frames, errors = _frames(output / f"{clip_name(11, k)}.mp4"), []
        for t in range(0, len(frames), len(frames) // 4):
            image = np.ascontiguousarray(frames[t])
            boxes = detector(image, 0)
            assert len(boxes) == 1
            points = np.array([(p.x, p.y) for p in predictor(image, boxes[0]).parts()])
            truth = arrays["landmarks"][t]
            eyes = np.linalg.norm(truth[36] - truth[45])
            # Nose, eyes and mouth: dlib's jaw slides along the contour and its brows take glasses for brows.
            errors.append(np.linalg.norm(points - truth, axis=1)[27:].mean() / eyes)
        # A regression tree may err on one frame: a change of a pixel's rounding moved one from 0.059 to 0.063.
        assert np.mean(errors) < 0.04 and np.max(errors) < 0.08, errors


def test_same_seed_same_bytes_and_resume_skips(corpus, tmp_path, monkeypatch):
    output, _ = corpus
    config = SynthesizeConfig(clips=2, output=str(tmp_path), seed=11, size=SIZE)
    render(_clip_task(config, 1), str(tmp_path))  # alone: clip 1 does not depend on clip 0
    for suffix in (".mp4", ".truth.npz", ".truth.json"):
        name = clip_name(11, 1) + suffix
        assert (tmp_path / name).read_bytes() == (output / name).read_bytes(), name

    import pipelines.synthesize as module

    def refuse(*_):
        raise AssertionError("a finished clip was rendered again")

    monkeypatch.setattr(module, "render", refuse)
    again = synthesize(SynthesizeConfig(clips=2, output=str(output), seed=11, size=SIZE, workers=1, quiet=True))
    assert again["skipped"] == 2 and again["rendered"] == 0 and again["frames"] > 0
    calls = []
    monkeypatch.setattr(
        module,
        "render",
        lambda task, output: calls.append(task.index) or {"name": "", "frames": 1, "seconds": 0.0, "skipped": False},
    )
    (tmp_path / f"{clip_name(11, 1)}.truth.json").write_text("{cut off")
    synthesize(SynthesizeConfig(clips=2, output=str(tmp_path), seed=11, size=SIZE, workers=1, quiet=True))
    assert calls == [0, 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("clips", 0), ("size", 510), ("size", 32), ("width", 30), ("workers", -1), ("imperfection_share", 0.0)],
)
def test_bad_settings_are_named(tmp_path, field, value):
    settings = {"clips": 1, "output": str(tmp_path), "quiet": True, field: value}
    option = {"width": "size"}.get(field, field).replace("_", "-")
    with pytest.raises(InputError, match=f"--{option} {value}"):
        synthesize(SynthesizeConfig(**settings))


def test_command_line(tmp_path, monkeypatch):
    import pipelines.synthesize as module

    parser = argparse.ArgumentParser()
    register(parser)
    seen = []
    monkeypatch.setattr(module, "synthesize", lambda config: seen.append(config) or {"clips": config.clips})
    assert run(parser.parse_args(["--clips", "3", "--output", str(tmp_path), "--seed", "5"])) == {"clips": 3}
    assert seen == [SynthesizeConfig(clips=3, output=str(tmp_path), seed=5)]
    run(parser.parse_args(["--clips", "1", "--output", "o", "--size", "640x360", "--imperfections", "cut,blur"]))
    assert (seen[1].width, seen[1].size, seen[1].imperfections) == (640, 360, ("blur", "cut"))
    with pytest.raises(InputError, match="--size big"):
        run(parser.parse_args(["--clips", "1", "--output", "o", "--size", "big"]))


def test_other_settings_render_again(corpus):
    """A clip that is there with other settings is not the one asked for."""
    from pipelines.synthesize import _finished

    output, _ = corpus
    config = SynthesizeConfig(clips=2, output=str(output), seed=11, size=SIZE)
    assert _finished(_clip_task(config, 0), output) is not None
    other = SynthesizeConfig(clips=2, output=str(output), seed=11, size=SIZE, imperfections=("cut",))
    assert _finished(_clip_task(other, 0), output) is None
