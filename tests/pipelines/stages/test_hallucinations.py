"""What is left out of a transcript and why, on literal cases."""

import numpy as np
import pytest

from pipelines.stages.hallucinations import guard
from pipelines.stages.transcript import Segment, Word

VOICE = np.ones(250, np.uint8)


def said(text: str, start: float = 0.0, each: float = 0.3, **more) -> Segment:
    words = text.split()
    return Segment(
        tuple(Word(word, start + k * each, start + (k + 1) * each, 0.9) for k, word in enumerate(words)), **more
    )


@pytest.mark.parametrize(
    ("segment", "activity", "reason"),
    [
        (said("hello there everybody"), 0 * VOICE, "text on silence"),
        (said("so I I I I I I I think"), VOICE, "repetition"),
        (said("you know you know you know you know", each=0.25), VOICE, "repetition"),
        (said("what we do is what we do is what we do is"), VOICE, "repetition"),
        # The Thue-Morse sequence: nothing three times in a row, and yet only two words.
        (
            said(" ".join(("laughing", "talking")[bin(k).count("1") % 2] for k in range(32)), each=0.2),
            VOICE,
            "repetition",
        ),
        (said("one two three four five six seven eight", each=0.08), VOICE, "too fast"),
        (said("a sentence nobody said", logprob=-1.3), VOICE, "low probability"),
        (said("you", logprob=-1.3, no_speech=0.9), VOICE, "no speech"),
        (said("Subtitles by the Amara.org community"), VOICE, "credits"),
        (said("字幕 由 某某 提供"), VOICE, "credits"),
        (said("Visit www.example.com today"), VOICE, "credits"),
        (said("Thanks for watching!", logprob=-0.8), VOICE, "farewell"),
        (said("Thank you so much for watching."), np.arange(250) % 2, "farewell"),
        (said("Please like and subscribe.", logprob=-0.7), VOICE, "farewell"),
    ],
)
def test_what_nobody_said_is_left_out_with_its_reason(segment, activity, reason):
    real = said("This was really said.", start=8.0)
    activity = np.concatenate([activity[:200], np.ones(50)])
    kept, flags = guard([segment, real], activity)
    assert kept == [real]
    assert [flag.reason for flag in flags] == [reason]
    assert flags[0].text == segment.text[:200] and (flags[0].start, flags[0].end) == (segment.start, segment.end)


@pytest.mark.parametrize(
    "segment",
    [
        said("no no no that is not it"),
        said("very very very good", each=0.25),
        said("Thanks for watching, and now to something else that matters"),
        said("Thanks for watching!", logprob=-0.1),
        said("we subscribe to the idea that the more we talk the more we learn", each=0.2),
        said("quick talk is fine at five", each=0.18),
        said("likely words", logprob=-0.3, no_speech=0.7),
        said("我 们 今 天 说 一 说 这 个", each=0.11),
    ],
)
def test_what_may_have_been_said_stays(segment):
    assert guard([segment], VOICE) == ([segment], [])


def test_words_on_silence_go_alone_where_the_rest_is_heard():
    activity = VOICE.copy()
    activity[int(0.9 * 25) : int(1.3 * 25)] = 0
    kept, flags = guard([said("these are four words")], activity)
    assert kept[0].text == "these are four" and [flag.reason for flag in flags] == ["word on silence"]
    # Times beyond the clip are silence too.
    assert guard([said("far away", start=400.0)], VOICE)[0] == []


def test_marks_of_sounds_are_no_words():
    kept, flags = guard([said("[Music] hello ♪ la la ♪ (audience laughs loudly) dear * friends -")], VOICE)
    assert kept[0].text == "hello dear friends"
    assert {flag.reason for flag in flags} == {"non-speech mark"} and len(flags) == 10
    assert guard([said("[Applause]")], VOICE)[0] == []
    # A bracket that nobody closed hides nothing.
    assert guard([said("we (and they came")], VOICE)[0][0].text == "we (and they came"


def test_the_third_of_the_same_segment_is_too_many():
    segments = [said("Thank you.", start=k) for k in range(5)]
    kept, flags = guard(segments, VOICE)
    assert kept == segments[:2] and [flag.reason for flag in flags] == ["repeated segment"] * 3
