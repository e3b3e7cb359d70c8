import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.signals import latent_steps
from tasks.modalities import MODALITIES
from tasks.registry import Source
from tasks.windows import Window, WindowConfig, slide, starts, step_prompt
from tests.token_records import record

CONFIG = WindowConfig(current=6, past=3)


@given(st.integers(1, 80), st.sampled_from([3, 6, 9]))
def test_sliding_windows_cover_a_clip_once_from_starts_on_the_grid(steps, current):
    windows = slide(steps, WindowConfig(current, 3))
    assert [s for w in windows for s in range(w.start, w.stop)] == list(range(steps))
    assert all(w.start in starts(steps) for w in windows)
    assert sum(w.frames for w in windows) == 4 * (steps - 1) + 1


@given(st.integers(1, 40))
def test_windows_of_codes_join_to_the_whole(steps):
    frames = 4 * (steps - 1) + 1
    clip = record(3, frames)
    for name in ("speech", "expression", "semantics"):
        m = MODALITIES[name]
        parts = [m.take(clip[name], w.start, w.stop) for w in slide(latent_steps(frames), CONFIG)]
        np.testing.assert_array_equal(np.concatenate(parts, m.time_axis), clip[name])


def test_the_first_window_has_no_past_and_a_later_one_has_the_past_of_its_output():
    clip = record(1, frames=61)
    inputs = (Source("image"), Source("speech"))
    first = step_prompt(inputs, "semantics", clip, Window(0, 7), CONFIG, target=True)
    assert [(f.modality, f.state, f.frames) for f in first.given] == [("speech", "current", 25), ("image", "", 0)]
    later = step_prompt(inputs, "semantics", clip, Window(7, 13), CONFIG, target=True)
    assert [(f.modality, f.state, f.frames) for f in later.given] == [
        ("speech", "current", 24),
        ("semantics", "past", 12),
        ("image", "", 0),
    ]
    np.testing.assert_array_equal(later.given[1].content, clip["semantics"][4:7])
    np.testing.assert_array_equal(later.make.content, clip["semantics"][7:13])
    assert later.given[0].content.shape == (4, 20)


def test_a_request_needs_no_target_and_a_time_invariant_output_no_past():
    clip = record(1)
    del clip["shape"]
    request = step_prompt((Source("speech"),), "shape", {**clip, "shape": None}, Window(4, 10), CONFIG, target=False)
    assert request.make.content is None
    assert [f.modality for f in request.given] == ["speech"]


def test_windows_off_the_grid_are_refused():
    with pytest.raises(InputError, match="multiples of 3"):
        WindowConfig(current=4)
