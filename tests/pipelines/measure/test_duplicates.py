import itertools

import numpy as np
import pytest

from infra.measure_command import meets
from pipelines.measure import duplicates
from pipelines.stages import matching
from pipelines.stages.fingerprints import fingerprints, from_hex, read_picture_hash
from tests.pipelines.media import talking_head


@pytest.mark.slow
def test_planted_copies_of_real_moments_are_found(real_clips, tmp_path):
    names = ("sadtalker_wda_hill", "speakervid_half3", "talkvid_tys")
    figures = duplicates.planted([real_clips / f"{name}.mp4" for name in names], 3.0, tmp_path)
    assert {name for name, target in duplicates.TARGETS.items() if not meets(figures[name], target)} == set()
    assert figures["precision"] == 1 and figures["pieces"] == 5


def test_the_pieces_of_a_rendered_head_are_no_copies_of_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "COPIES", {"scaled": duplicates.COPIES["scaled"]})
    figures = duplicates.planted([talking_head()], 2.0, tmp_path)
    assert figures["recall: scaled"] == 1 and figures["false pairs"] == 0 and figures["clips"] == 4


@pytest.mark.slow
def test_real_clips_give_no_false_pair(real_clips, tmp_path):
    """All pairs, at the shift that fits best, which is stricter than what the job looks at."""
    marks = []
    for piece in duplicates.pieces(sorted(real_clips.glob("*.mp4")), 5.0, tmp_path):
        marks.append(fingerprints(*duplicates.read_piece(piece)))
    pictures = [read_picture_hash(item["picture_hash"]) for item in marks]
    codes = matching.make_codes(*zip(*pictures, strict=True), [from_hex(item["sound_hash"]) for item in marks])
    pairs = np.array(list(itertools.combinations(range(len(marks)), 2)))
    shifts = np.array([matching.best_shift(codes, *pair) for pair in pairs])
    verdict = matching.compare(codes, pairs[:, 0], pairs[:, 1], shifts, matching.Limits())
    assert len(pairs) > 100 and not verdict.picture.any() and not verdict.sound.any()
