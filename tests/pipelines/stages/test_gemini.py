"""Captions by Gemini over a real connection: each on its own clip, none lost, none bought twice, all counted."""

import random
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import numpy as np
import pytest

from models.errors import InputError
from pipelines.stages.caption_cache import CaptionCache
from pipelines.stages.gemini import (
    KEY_VARIABLE,
    BlockedAnswerError,
    Caption,
    ClipMedia,
    EmptyAnswerError,
    GeminiConfig,
    GeminiService,
    InvalidAnswerError,
    ServiceError,
    caption_clip,
    caption_clips,
    caption_fields,
    clip_media,
    retry_after,
)
from pipelines.stages.rate_limit import RateLimit
from pipelines.stages.spending import Usage, load_price, spent, total_spent
from tests.pipelines.gemini_server import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    THOUGHT_TOKENS,
    answer,
    description_of,
    gemini_server,
)
from tests.pipelines.media import make_video

ONE = Usage(1, INPUT_TOKENS, OUTPUT_TOKENS + THOUGHT_TOKENS)


@pytest.fixture(scope="module")
def running():
    with gemini_server() as server:
        yield server


@pytest.fixture
def server(running):
    running.plan = lambda video, n: None
    running.requests.clear()
    running.count.clear()
    running.most_flying = 0
    return running


@pytest.fixture
def ask(server, tmp_path):
    """Describes clips of these videos: (videos, config fields) -> results by name; the rate and pauses take no time."""
    limit = RateLimit(str(tmp_path / "rate"), 1e9)

    def run(videos: dict[str, bytes], sleep=lambda seconds: None, limit=limit, **fields):
        asked = {name: fields.pop(name) for name in ("model", "inline_bytes") if name in fields}
        config = GeminiConfig(**asked)
        service = GeminiService(project="p", location="l", endpoint=server.url, **{"deadline": 30.0, **fields})
        cache = CaptionCache(str(tmp_path / "data"), config.made_with())
        clips = {name: ClipMedia(name, video, np.zeros(0, np.int16)) for name, video in videos.items()}
        return caption_clips(clips, config, service, cache, limit, sleep)

    return run


def test_a_clip_is_sent_whole_and_its_answer_is_stored_as_the_schema_has_it(server, ask):
    video = b"\x00 any bytes \xff"
    result = ask({"a": video})["a"]
    assert result == Caption(description_of(video), ONE)
    (request,) = server.requests
    assert request["path"].endswith("/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent")
    assert request["media"][0]["mime_type"] == "video/mp4"
    assert request["headers"]["Authorization"] == "Bearer anonymous"  # nothing secret without TLS
    asked = request["body"]["generationConfig"]
    assert asked["responseMimeType"] == "application/json" and asked["temperature"] == 0
    assert asked["responseSchema"]["properties"]["hair"]["required"] == ["colour", "length"]


def test_every_caption_is_on_its_own_clip_whatever_goes_wrong_and_in_whichever_order(server, ask):
    """Random answers out of order, and on the way to each every kind of failure that a service has."""
    rng = random.Random(5)
    videos = {f"clip{k}": rng.randbytes(20 + k) for k in range(40)}
    lost = (
        (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow"}}, {"Retry-After": "0.01"}),
        (503, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "later"}}, {}),
        (500, b"<html>oops</html>", {}),
        (200, b'{"candidates": [', {}),
        "drop",
        "half",
    )
    paid = ((200, answer("no json"), {}), (200, answer('{"gender":"robot"}'), {}), (200, answer(None), {}))
    way = {video: rng.sample([*lost, rng.choice(paid)], rng.randint(0, 3)) for video in videos.values()}

    def plan(video, n):
        time.sleep(rng.random() * 0.02)
        return way[video][n - 1] if n <= len(way[video]) else None

    server.plan = plan
    results = ask(videos, concurrency=8)
    assert list(results) == list(videos)
    for name, video in videos.items():
        assert results[name].description == description_of(video)
        assert results[name].usage.requests == 1 + sum(step in paid for step in way[video])
        assert server.about(video) == 1 + len(way[video])
    # Everything that was paid for is in the sum, to the last token.
    price = load_price(None, "gemini-2.5-pro")
    answers = sum(result.usage.requests for result in results.values())
    total = total_spent(spent(result.usage, price) for result in results.values())
    assert total["input_tokens"] == answers * INPUT_TOKENS
    cost = answers * (Decimal("1.25") * INPUT_TOKENS + 10 * (OUTPUT_TOKENS + THOUGHT_TOKENS)) / 1_000_000
    assert Decimal(total["cost"]) == cost and total["currency"] == "USD"


def test_one_clip_that_fails_takes_no_other_with_it(server, ask):
    bad = {
        "blocked": (200, answer(None, "PROHIBITED_CONTENT"), {}),
        "unasked": (200, {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}}, {}),
        "empty": (200, answer("  "), {}),
        "cut": (200, answer('{"gender":"fem', "MAX_TOKENS"), {}),
        "denied": (403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}, {}),
    }
    server.plan = lambda video, n: bad.get(video.decode())
    videos = {name: name.encode() for name in (*bad, "fine", "good")}
    results = ask(videos, concurrency=3)
    kinds = {name: type(result) for name, result in results.items()}
    assert kinds == {
        "blocked": BlockedAnswerError,
        "unasked": BlockedAnswerError,
        "empty": EmptyAnswerError,
        "cut": InvalidAnswerError,
        "denied": ServiceError,
        "fine": Caption,
        "good": Caption,
    }
    assert results["unasked"].usage == Usage(1, 7, 0) and "SAFETY" in str(results["unasked"])
    assert results["cut"].usage.requests == 3 and results["denied"].usage == Usage()
    # A refusal is kept, as every answer is; what was not answered is asked again, and nothing spent is forgotten.
    again = ask(videos)
    assert server.about(b"blocked") == server.about(b"good") == 1 and server.about(b"denied") == 2
    assert again["good"] == results["good"] and str(again["blocked"]) == str(results["blocked"])
    assert again["cut"].usage.requests == 6


def test_an_answer_is_never_bought_twice(server, ask, tmp_path):
    videos = {"a": b"1", "b": b"2"}
    first = ask(videos)
    assert ask(videos) == first and len(server.requests) == 2
    ask(videos, rpm=5.0, concurrency=1)  # how it is asked is not what is asked
    assert len(server.requests) == 2
    other = ask(videos, model="gemini-2.5-flash")
    assert len(server.requests) == 4 and other["a"].description == first["a"].description
    for path in (tmp_path / "data").rglob("*.json"):
        path.write_bytes(path.read_bytes()[:40])  # a torn file is no answer
    assert ask(videos) == first and len(server.requests) == 6


def test_a_kill_loses_nothing_that_was_paid_for(server, ask):
    """Whoever dies after the first answer finds it again: here the process "dies" in the pause before the next try."""

    class Killed(BaseException):
        pass

    def die(seconds):
        raise Killed

    server.plan = lambda video, n: (503, {}, {}) if video == b"2" and n == 1 else None
    with pytest.raises(Killed):
        ask({"a": b"1", "b": b"2"}, sleep=die, concurrency=1)
    results = ask({"a": b"1", "b": b"2"})
    assert server.about(b"1") == 1 and results["a"].usage == results["b"].usage == ONE


def test_as_many_requests_are_in_flight_as_asked_for(server, ask):
    barrier = threading.Barrier(4, timeout=20)

    def plan(video, n):
        barrier.wait()  # nobody is answered before four are there
        return None

    server.plan = plan
    results = ask({str(k): bytes([k]) for k in range(8)}, concurrency=4)
    assert server.most_flying == 4 and all(isinstance(result, Caption) for result in results.values())


def test_a_deadline_ends_it(server, ask):
    server.plan = lambda video, n: (503, {"error": {"message": "for ever"}}, {})
    slept = []
    result = ask({"a": b"1"}, sleep=slept.append, deadline=6.0)["a"]
    assert isinstance(result, ServiceError) and "503" in str(result) and "6 s" in str(result)
    assert len(slept) == server.about(b"1") - 1 >= 2
    assert all(0.5 * 2**k <= pause <= 2**k for k, pause in enumerate(slept))  # doubled, with jitter


def test_a_request_that_takes_too_long_is_tried_again(server, ask):
    release = threading.Event()
    server.plan = lambda video, n: release.wait(10) and None if n == 1 else None
    result = ask({"a": b"1"}, timeout=0.2)["a"]
    release.set()
    assert result.description == description_of(b"1") and server.about(b"1") == 2


class Clock:
    def __init__(self):
        self.now, self.lock = 1e9, threading.Lock()

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        with self.lock:
            self.now += seconds


def test_the_rate_is_kept_and_retry_after_holds_everybody(server, ask, tmp_path):
    clock = Clock()
    turns = []

    class Recorded(RateLimit):
        def reserve(self):
            turns.append(super().reserve())
            return turns[-1]

    limit = Recorded(str(tmp_path / "clocked"), 120.0, clock, clock.sleep)
    server.plan = lambda video, n: (
        (429, {"error": {"code": 429}}, {"Retry-After": "7"}) if (video, n) == (b"2", 1) else None
    )
    ask({str(k): str(k).encode() for k in range(5)}, sleep=clock.sleep, limit=limit, concurrency=1)
    steps = np.diff(turns)
    assert len(turns) == 6 and (steps >= 0.5 - 1e-6).all()
    assert steps[2] >= 7 and np.allclose(np.delete(steps, 2), 0.5, atol=1e-5)


def test_a_retry_after_is_seconds_or_a_date():
    assert retry_after({"retry-after": "3.5"}) == 3.5 and retry_after({}) is None
    assert retry_after({"Retry-After": "soon"}) is None and retry_after({"Retry-After": "nan"}) is None
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < retry_after({"Retry-After": date}) <= 100
    assert retry_after({"Retry-After": format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)}) == 0


def test_a_long_video_is_sent_as_stills_and_sound(server, ask, tmp_path):
    video = make_video(tmp_path / "long.mp4").read_bytes()
    result = ask({"a": video}, inline_bytes=1000)["a"]
    kinds = [part["mime_type"] for part in server.requests[0]["media"]]
    assert kinds == ["image/jpeg"] * 2 + ["audio/wav"] and isinstance(result, Caption)


def test_an_api_key_is_read_from_the_environment_and_stays_off_plain_connections(server, ask, tmp_path, monkeypatch):
    config, service = GeminiConfig(), GeminiService(endpoint=server.url)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(InputError, match=KEY_VARIABLE):
        service.check("gemini-2.5-pro")
    monkeypatch.setenv(KEY_VARIABLE, "secret-of-mine")
    service.check("gemini-2.5-pro")
    clip = ClipMedia("a", b"1", np.zeros(0, np.int16))
    cache, limit = CaptionCache(str(tmp_path / "keyed"), config.made_with()), RateLimit(str(tmp_path / "r"), 1e9)
    assert caption_clip(clip, config, service, cache, limit).description == description_of(b"1")
    assert "models/gemini-2.5-pro:generateContent" in server.requests[0]["path"]
    assert "secret-of-mine" not in str(server.requests) and "secret" not in repr(service)


def test_what_a_clip_shows_is_part_of_its_key():
    record = {
        "clip_id": "c",
        "start_frame": 0,
        "end_frame": 60,
        "box": np.array([1, 2, 300], np.float32),
        "video": b"1",
        "audio": np.zeros(4, np.int16),
    }
    shown = clip_media(record).shown
    assert clip_media({**record, "video": b"2"}).shown == shown  # encoded again, the same picture
    assert clip_media({**record, "box": np.array([1, 2, 301], np.float32)}).shown != shown
    hostile = CaptionCache("data", "m").path('["../../../etc/passwd"]')
    assert hostile.startswith("data/_state/annotate/captions/") and ".." not in hostile


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rpm": 0.0}, "--gemini-rpm"),
        ({"concurrency": 0}, "--gemini-concurrency"),
        ({"model": "gemini-none"}, "no price of gemini-none"),
        ({"prices": "/nowhere.json"}, "nowhere.json"),
    ],
)
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        model = fields.pop("model", "gemini-2.5-pro")
        replace(GeminiService(project="p"), **fields).check(model)


def test_the_column_stores_what_a_caption_cost():
    fields = caption_fields(Caption("{}", Usage(2, 10, 1)), load_price(None, "gemini-2.5-pro"))
    assert fields["backend"] == "gemini"
    assert '"cost": "0.0000225"' in fields["usage"] and '"requests": 2' in fields["usage"]
