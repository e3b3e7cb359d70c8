"""Subtitles beside a video: found, read within limits, cut to the clip, and no word of theirs believed blindly."""

import codecs

import numpy as np
import pytest

from models.errors import InputError
from pipelines.stages.subtitles import (
    MAX_BYTES,
    MAX_CUES,
    Cue,
    NoSubtitlesError,
    decode_text,
    find_subtitles,
    language_of_name,
    parse_cues,
    plain_text,
    read_subtitles,
    seconds_of,
    split_words,
    subtitles_script,
    timed_words,
    unrolled,
)

SRT = """1
00:00:01,000 --> 00:00:03,000
<i>Good morning</i> to all of you.

2
00:00:03,500 --> 00:00:05,500
{\\an8}We talk about trains &amp; rivers today.

3
00:00:20,000 --> 00:00:22,000
[Music]
"""
ROLLING = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.000 align:start position:0%
\x20
hello<00:00:00.500><c> every</c><00:00:01.000><c> one</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
hello every one
\x20

00:00:02.010 --> 00:00:04.000 align:start position:0%
hello every one
here<00:00:02.500><c> we</c><00:00:03.000><c> are</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
here we are
\x20

00:00:04.010 --> 00:00:06.000 align:start position:0%
here we are
at<00:00:05.000><c> last</c>
"""


@pytest.fixture
def beside(tmp_path):
    """Writes a file beside a video: (ending, content) -> the video's path."""

    def write(ending: str, content: str | bytes, stem: str = "my talk [1]") -> str:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / f"{stem}{ending}").write_bytes(data)
        return str(tmp_path / f"{stem}.mp4")

    return write


def test_a_clip_gets_the_words_of_its_time(beside):
    source = beside(".en.srt", SRT)
    voice = np.ones(100, np.uint8)
    script = subtitles_script(source, 60, 180, voice)  # seconds 2 to 6
    assert script.text == "to all of you. We talk about trains & rivers today."
    assert script.backend == "subtitles" and script.language == "en" and script.language_confidence > 0.8
    by_word = {word.word: word for word in script.words}
    assert by_word["We"].start == 1.5 and by_word["today."].end == 3.5
    assert all(0 <= word.start < word.end <= 4 for word in script.words)
    # A cue's time is shared out by length: "trains" is longer than "We".
    assert by_word["trains"].end - by_word["trains"].start > 2 * (by_word["We"].end - by_word["We"].start)
    assert script.speech_rate == len(script.words) / 4 and script.confidence == 1
    assert script.details["file"].endswith("my talk [1].en.srt") and script.details["interpolated"] == 11
    assert len(script.details["sha256"]) == 64
    # What the voice detector does not hear is not believed.
    half = subtitles_script(source, 60, 180, np.arange(100) < 30)
    assert "today." not in half.text and half.flags
    music = subtitles_script(source, 590, 690, voice)
    assert music.text == "" and [flag.reason for flag in music.flags] == ["non-speech mark"]


def test_rolling_captions_are_said_once_at_their_own_times(beside):
    script = subtitles_script(beside(".vtt", ROLLING), 0, 180, np.ones(150))
    assert script.text == "hello every one here we are at last"
    assert [word.start for word in script.words] == [0, 0.5, 1, 2.01, 2.5, 3, 4.01, 5]
    assert script.details["interpolated"] == 0 and script.details["rolling"] is True


def test_what_two_people_say_after_each_other_is_not_rolling():
    cues = [Cue(k, k + 1.0, (text,)) for k, text in enumerate(["No.", "No.", "Yes, it is.", "Why?", "Because.", "Oh."])]
    assert unrolled(cues) == (cues, False)
    # But two cues that overlap and show the same line show one line.
    overlapping = [Cue(0, 2, ("first line",)), Cue(1, 3, ("first line", "second line")), *[Cue(9, 10, ("x",))] * 9]
    assert [word.word for word in timed_words(unrolled(overlapping)[0])[0]][:4] == ["first", "line", "second", "line"]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("latin-1"),
    ],
)
def test_encodings(encode):
    text = "1\n00:00:01,000 --> 00:00:02,000\nÜber die Brücke geht es nach Köln\n"
    cues, broken = parse_cues(decode_text(encode(text)))
    assert cues == [Cue(1, 2, ("Über die Brücke geht es nach Köln",))] and broken == 0


def test_broken_times_are_passed_over_and_counted():
    text = "\n".join(
        [
            *("a line of nothing", "00:00:02,000 --> 00:00:01,000", "backwards", "", "--> ", "none", ""),
            *("00:00:xx,000 --> 00:00:09,000", "no", "", "5", "01:00.5 --> 01:02.25 position:0%", "right"),
            *("6", "00:01:03,000 --> 00:01:04,000", "no empty line before"),
        ]
    )
    cues, broken = parse_cues(text)
    assert cues == [Cue(60.5, 62.25, ("right",)), Cue(63, 64, ("no empty line before",))] and broken == 3
    assert seconds_of("1:02:03,5") == 3723.5 and seconds_of("1e9") is None and seconds_of("٣٣:٣٣.٠") is not None


def test_hostile_files_exhaust_nothing(beside, tmp_path):
    nested = "<b" * 5000 + "<font>" * 5000 + "word" + "</font>" * 5000
    assert "word" in plain_text(nested)[-4:] and plain_text("a &lt;script&gt;\x00\x1b[31m b") == "a <script> [31m b"
    many = (
        "".join(f"\n{k // 60:02d}:{k % 60:02d}.000 --> {k // 60:02d}:{k % 60:02d}.900\nw\n" for k in range(3000)) * 20
    )
    cues, broken = parse_cues(many)
    assert len(cues) == MAX_CUES and broken == 0
    long = parse_cues("00:01.000 --> 00:02.000\n" + "a" * 10**6)
    assert long == ([], 1)
    with pytest.raises(InputError, match="at most"):
        read_subtitles(find_subtitles(beside(".srt", b"\n" * (MAX_BYTES + 1), "large")))
    with pytest.raises(InputError, match="no cue"):
        read_subtitles(find_subtitles(beside(".srt", bytes(range(256)) * 4, "noise")))


def test_only_a_file_of_the_videos_own_name_is_taken(beside, tmp_path):
    source = beside(".de.srt", SRT)
    beside(".srt.bak", SRT)
    beside(".not a language.srt", SRT)
    beside(" two.srt", SRT)
    assert find_subtitles(source).endswith("my talk [1].de.srt")
    beside(".en.vtt", ROLLING)
    assert find_subtitles(source).endswith(".de.srt")  # by language in the alphabet
    beside(".vtt", ROLLING)
    assert find_subtitles(source).endswith("[1].vtt")  # just the name comes first
    with pytest.raises(NoSubtitlesError, match="other.srt"):
        find_subtitles(str(tmp_path / "other.mp4"))


def test_a_name_that_says_another_language_than_the_text_is_not_believed_much(beside):
    script = subtitles_script(beside(".de.srt", SRT), 0, 180, np.ones(150))
    assert script.language == "de" and script.language_confidence < 0.2
    assert subtitles_script(beside(".srt", SRT, "plain"), 0, 180, np.ones(150)).language == "en"
    assert language_of_name("a/talk.pt-BR.vtt") == "pt" and language_of_name("a/talk.vtt") == ""


def test_scripts_without_spaces_are_split_into_characters():
    assert split_words("- 你好，世界 ok") == ["你", "好，", "世", "界", "ok"]
    words, _ = timed_words([Cue(0, 1, ("你好",))])
    assert [word.start for word in words] == [0, 0.5]
