"""MediaPipe's mesh on a real face, and on none."""

import numpy as np
import pytest

from pipelines.parsing_examples import frames_at
from pipelines.stages.label_adapters import FACE_OVAL, mesh_labels, mesh_regions
from pipelines.stages.landmarks import close_backends
from pipelines.stages.mesh import find_mesh


@pytest.mark.slow
def test_a_real_face_has_a_mesh_and_a_wall_has_none(real_clips, shared_models):
    frame = next(frames_at(str(real_clips / "sadtalker_wda_hill.mp4"), [30]))
    wall = np.full((256, 256, 3), 128, np.uint8)
    try:
        mesh = find_mesh([frame, wall], str(shared_models / "face_landmarker.task"))
    finally:
        close_backends()
    assert mesh.shape == (2, 478, 2) and np.isfinite(mesh[0]).all() and np.isnan(mesh[1]).all()
    oval = mesh[0, list(FACE_OVAL)]
    assert (oval > 0).all() and (oval < frame.shape[1::-1]).all()
    regions = mesh_regions(mesh[0], frame.shape[:2])
    inside = [(regions[part] & ~regions["face"]).sum() / regions[part].sum() for part in ("lips", "eyes", "brows")]
    assert max(inside) < 0.05
    # The right iris of the subject lies in the eye on the picture's left.
    assert mesh[0, 468, 0] < mesh[0, 473, 0] and regions["eyes"][tuple(mesh[0, 468, ::-1].round().astype(int))]
    assert len(np.unique(mesh_labels(mesh[0], frame.shape[:2]).codes)) == 8
