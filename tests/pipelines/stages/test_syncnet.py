import hashlib

import numpy as np
import pytest

from models.errors import InputError
from pipelines.stages import syncnet


@pytest.fixture(scope="module")
def state():
    """Random weights under the published names."""
    import torch

    torch.manual_seed(5)
    return {name: value for name, value in syncnet.build_network().state_dict().items()}


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    import torch

    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(state, path)
    return str(path)


@pytest.fixture(scope="module")
def clip():
    """(frames, landmarks, audio) of 14 frames; the landmarks are those of a face of about 100 pixels."""
    random = np.random.default_rng(3)
    frames = random.integers(0, 256, (14, 256, 256, 3), dtype=np.uint8)
    face = random.uniform(0, 1, (68, 2)) * (90, 10) + (85, 120)
    face[17:27, 1], face[6:11, 1] = 100, 175
    audio = random.integers(-9000, 9000, 14 * 16000 // 30).astype(np.int16)
    return frames, np.repeat(face[None], 14, axis=0), audio


def test_the_layers_are_the_published_ones(state):
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert shapes["netfcaud.3.weight"] == shapes["netfclip.3.weight"] == (1024, 512)
    assert {name.split(".")[0] for name in shapes} == {"netcnnaud", "netfcaud", "netcnnlip", "netfclip"}


@pytest.mark.parametrize("shift", [-9, 0, 4, 15])
def test_a_known_offset_is_found(shift):
    """Embeddings of a sound that comes ``shift`` frames late give that offset, and a shuffled sound no confidence."""
    random = np.random.default_rng(shift + 20)
    moments = random.normal(size=(120, 64))
    lips, sound = moments[20:100], moments[20 - shift : 100 - shift]
    confidence, offset = syncnet.sync_of_embeddings(lips, sound)
    assert offset == shift and confidence > 3
    assert syncnet.sync_of_embeddings(lips, random.permutation(sound))[0] < 1


def test_the_confidence_is_the_median_less_the_least_mean_distance():
    lips = np.eye(40)
    confidence, offset = syncnet.sync_of_embeddings(lips, lips)
    # At an offset of k, 40 - |k| pictures are compared with another one's sound and |k| with nothing.
    means = [((40 - abs(k)) * np.sqrt(2) + abs(k)) / 40 for k in range(-15, 16) if k] + [0]
    assert offset == 0 and confidence == pytest.approx(np.median(means), abs=1e-4)


def test_cepstra_are_those_that_the_model_was_trained_on():
    """Figures of python_speech_features 0.6 with its defaults, of the same sound."""
    at = np.arange(4000)
    sound = (8000 * np.sin(2 * np.pi * at * at / 40000) + (at * 7919 % 1001 - 500)).astype(np.int16)
    got = syncnet.mfcc(sound)
    third = [19.550017, 9.718658, 13.201976, -24.019276, -36.235012, -27.879399, -6.367238]
    third += [-3.300776, 5.760044, 30.469764, 8.839978, -30.453771, -1.639726]
    last = [22.576452, -16.116041, -19.664105, 31.838436, -19.937161, -12.330458, 33.07851]
    last += [-26.101123, -8.446151, 27.394703, -18.45589, -6.384083, 15.268927]
    assert got.shape == (24, 13)
    np.testing.assert_allclose(got[[3, -1]], [third, last], atol=2e-6)
    assert np.isfinite(syncnet.mfcc(np.zeros(2000, np.int16))).all()


def test_the_clock_is_25_frames_a_second():
    assert syncnet.frame_index(31).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19] + [
        *[20, 22, 23, 24, 25, 26, 28, 29, 30]
    ]
    for count in (1, 6, 61, 297):
        index = syncnet.frame_index(count)
        assert np.abs(index / 30 - np.arange(len(index)) / 25).max() <= 0.5 / 30 + 1e-9 and index[-1] < count


def test_the_face_is_cut_where_the_landmarks_are():
    """A red square over the mouth's half of the face lands in the lower middle of the picture, blue first."""
    frames = np.zeros((13, 256, 256, 3), np.uint8)
    frames[:, 140:160, 120:140] = (255, 0, 0)
    marks = np.tile(np.array([130.0, 130.0]), (13, 68, 1))
    marks[:, 0, 0], marks[:, 16, 0] = 80, 180
    marks[:, 17:27, 1], marks[:, 6:11, 1] = 105, 180  # brows and chin: the face is 100 high, from 80 to 180
    np.testing.assert_allclose(syncnet.face_boxes(marks)[0], [60, 80, 140])
    picture = syncnet.face_pictures(frames, marks)[0]
    rows, columns = np.nonzero(picture[..., 2] > 128)
    assert picture[..., 0].max() == 0  # red is the last channel
    assert rows.mean() == pytest.approx((70 / 140) * 224 - 0.5, abs=1)
    assert columns.mean() == pytest.approx((70 / 140) * 224 - 0.5, abs=1)
    assert len(rows) == pytest.approx((20 * 1.6) ** 2, rel=0.1)


def test_windows_that_share_work_give_what_each_gives_alone(clip, weights, monkeypatch):
    import torch

    lips, sound = syncnet.embeddings(*clip, weights)
    assert lips.shape == sound.shape == (6, 1024)
    network, _ = syncnet.load_network(weights)
    pictures = syncnet.face_pictures(*clip[:2])
    with torch.inference_mode():
        one = torch.from_numpy(pictures[3:8]).permute(3, 0, 1, 2)[None].float()
        alone = network.netfclip(network.netcnnlip(one).flatten(1)).numpy()
    np.testing.assert_allclose(lips[3:4], alone, atol=1e-5)
    monkeypatch.setattr(syncnet, "_BATCH", 4)
    again, heard = syncnet.embeddings(*clip, weights)
    np.testing.assert_allclose(again, lips, atol=1e-5)
    np.testing.assert_allclose(heard, sound, atol=1e-5)


def test_scores_of_a_clip_and_of_one_too_short(clip, weights):
    scores = syncnet.sync_scores(*clip, weights)
    assert np.isfinite(scores["sync_confidence"]) and abs(scores["sync_offset"]) <= 15
    frames, marks, audio = clip
    short = syncnet.sync_scores(frames[:5], marks[:5], audio[:2600], weights)
    assert np.isnan(short["sync_confidence"]) and np.isnan(short["sync_offset"])


def test_weights_are_read_in_both_layouts_of_torch(state, weights, tmp_path):
    """The published file has the layout before zip, and none of the counters of batches."""
    import torch

    older = tmp_path / "older.model"
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, older, _use_new_zipfile_serialization=False)
    assert syncnet.check_weights(str(older)) == hashlib.sha256(older.read_bytes()).hexdigest()
    loaded = syncnet.load_network(str(older))[0].state_dict()
    assert all(torch.equal(loaded[name].cpu(), value) for name, value in state.items())


def changed(state, **changes):
    import torch

    out = {**state, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in out.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("wrong", ["missing", "shape", "unknown", "text", "list", "object"])
def test_a_wrong_file_is_named_with_what_is_wrong(wrong, state, tmp_path):
    import torch

    path = tmp_path / "given.model"
    if wrong == "text":
        path.write_text("no weights at all")
    elif wrong == "list":
        torch.save([1, 2], path)
    elif wrong == "object":
        torch.save(syncnet.HINTS.get, path)  # a function: nothing in the file is called
    else:
        made = {
            "missing": changed(state, netfclip__3__bias=None),
            "shape": changed(state, netfclip__3__bias=torch.zeros(7)),
            "unknown": changed(state, netface__0__weight=torch.zeros(1)),
        }
        torch.save(made[wrong], path)
    expected = {"unknown": "netface.0.weight", "missing": "netfclip.3.bias", "shape": r"netfclip.3.bias.*\(1024,\)"}
    with pytest.raises(InputError, match=f"given.model.*{expected.get(wrong, 'state dict')}"):
        syncnet.check_weights(str(path))


def test_no_file_is_named():
    with pytest.raises(InputError, match="--syncnet-weights nowhere/x.model"):
        syncnet.check_weights("nowhere/x.model")
