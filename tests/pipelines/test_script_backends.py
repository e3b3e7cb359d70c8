"""The script column by every backend, on speech that is there and speech that is not."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from models.errors import InputError
from pipelines import annotators
from pipelines.annotators import AnnotateConfig, by_name, settings_of
from pipelines.dataset import COLUMN_FIELDS
from pipelines.keyed import Keyed, run_keyed
from pipelines.script_backends import by_subtitles, by_subtitles_or_pocketsphinx, by_whisper, whisper_weights
from pipelines.stages.hallucinations import GuardConfig
from pipelines.stages.subtitles import NoSubtitlesError
from pipelines.stages.whisper import WhisperConfig
from tests.pipelines.stages.test_whisper import LIMITS, write_weights

SPEECH = {"audio": np.zeros(32_000, np.int16), "activity": np.ones(50, np.uint8)}
SETTINGS = SimpleNamespace(guard=GuardConfig())


def clip(source: str) -> dict:
    return {"clip_id": "a", "source": source, "start_frame": 30, "end_frame": 90}


def test_subtitles_are_those_of_the_source_and_auto_says_who_it_was(tmp_path):
    (tmp_path / "talk.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nthese words are spoken\n")
    with_subtitles, without = clip(str(tmp_path / "talk.mp4")), clip(str(tmp_path / "other.mp4"))
    for function in (by_subtitles, by_subtitles_or_pocketsphinx):
        script = function(with_subtitles, {"speech": SPEECH}, SETTINGS, "auto")["script"]
        assert set(script) == set(COLUMN_FIELDS["script"])
        assert script["text"] == "these words are spoken" and script["backend"] == "subtitles"
        assert json.loads(script["details"])["file"] == str(tmp_path / "talk.srt")
    with pytest.raises(NoSubtitlesError, match="other.srt"):
        by_subtitles(without, {"speech": SPEECH}, SETTINGS, "subtitles")
    heard = by_subtitles_or_pocketsphinx(without, {"speech": SPEECH}, SETTINGS, "auto")["script"]
    assert heard["backend"] == "pocketsphinx" and set(heard) == set(COLUMN_FIELDS["script"])
    # Subtitles that are there and cannot be read are an error, not a reason to listen instead.
    (tmp_path / "other.srt").write_text("nothing")
    with pytest.raises(InputError, match="no cue"):
        by_subtitles_or_pocketsphinx(without, {"speech": SPEECH}, SETTINGS, "auto")


@pytest.mark.slow
def test_whisper_answers_by_key_and_its_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = str(write_weights(tmp_path))
    settings = SimpleNamespace(guard=LIMITS, whisper=WhisperConfig(max_tokens=6), whisper_weights=folder)
    rng = np.random.default_rng(0)
    items = [
        Keyed(str(k), {}, {"speech": {**SPEECH, "audio": rng.normal(0, 3000, 32_000).astype(np.int16)}})
        for k in range(3)
    ]
    torn = Keyed("torn", {}, {"speech": {"audio": "no sound", "activity": SPEECH["activity"]}})
    together = run_keyed(lambda batch: by_whisper(batch, settings, "whisper"), [*items[:2], torn, items[2]])
    assert isinstance(together["torn"], Exception)  # and takes no other with it
    for item in items:
        alone = dict(by_whisper([item], settings, "whisper"))[item.key]["script"]
        assert alone["text"] == together[item.key]["script"]["text"] != "" and alone["backend"] == "whisper"
        assert set(alone) == set(COLUMN_FIELDS["script"])
    assert len(whisper_weights(settings)) == len("whisper ") + 64
    with pytest.raises(InputError, match="--whisper-weights"):
        whisper_weights(SimpleNamespace(whisper_weights=None))


def test_every_backend_says_what_it_is_made_with(tmp_path):
    config = AnnotateConfig("data", whisper_weights=str(write_weights(tmp_path)))
    made = {backend.name: annotators.producer_of(backend, config) for backend in by_name("script").backends}
    assert list(made) == ["pocketsphinx", "whisper", "subtitles", "auto"]
    assert len({producer.code for producer in made.values()}) == 4 and all(item.weights for item in made.values())
    other = AnnotateConfig("data", whisper_weights=config.whisper_weights, guard=GuardConfig(rate=3.0))
    whisper = by_name("script").backend("whisper")
    assert annotators.producer_of(whisper, other).config != made["whisper"].config
    assert settings_of(whisper, config).whisper_weights == config.whisper_weights
