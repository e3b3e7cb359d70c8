import pytest

from infra.requests import GenerateConfig, chain_of, read_requests
from models.errors import InputError


def config(*kinds: str, **changes) -> GenerateConfig:
    fields = {"given": tuple((kind, "file") for kind in kinds), "want": "video", "models": "models", "output": "output"}
    return GenerateConfig(**fields | changes)


def test_a_video_gives_its_parts():
    assert chain_of(config("video", want="description")) == ("shape", "expression", "description")
    assert chain_of(config("video", want="description", chain="direct")) == ("description",)
    with pytest.raises(InputError, match="image is given twice"):
        chain_of(config("video", "image", want="description"))


def test_a_clip_gives_speech_and_image_and_nothing_is_nothing():
    assert chain_of(config(clip="dataset:clip", chain="direct")) == ("semantics", "video")
    with pytest.raises(InputError, match="--clip dataset:clip"):
        chain_of(config("speech", clip="dataset:clip"))
    with pytest.raises(InputError, match="nothing is given"):
        chain_of(config())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no requests"),
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: expected an object"),
        ('{"given": {"speech": "a.wav"}, "wont": "shape"}', "line 1: wont"),
        ('{"given": {"speech": "a.wav"}, "seed": "one"}', "line 1: seed: 'one', expected a field of type int"),
        ('{"given": {"speech": "a.wav"}}', "line 1: no want"),
        ('{"given": {"smell": "rose"}, "want": "shape"}', "smell=rose"),
        ('{"want": "shape", "output": "o"}\n{"want": "shape", "output": "o"}', "output o is that of two"),
    ],
)
def test_a_wrong_file_of_requests_is_named(tmp_path, text, message):
    (tmp_path / "many.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        read_requests(str(tmp_path / "many.jsonl"), GenerateConfig((), "", "models", "output"))
