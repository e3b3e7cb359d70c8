"""Examples from every source: what is stored is read back, belongs to its source, and splits by person."""

import numpy as np
import pytest

from models.errors import InputError
from models.labels import LABEL_INDEX, label_set
from models.segmenter import WINDOWS
from pipelines.dataset import shard_name, update_manifest, write_shard
from pipelines.inspect import write_video
from pipelines.parsing_examples import (
    Examples,
    ExampleSource,
    cut_example,
    example_record,
    frames_at,
    make_examples,
    read_example,
    spread,
    truth_seeds,
)
from pipelines.stages.augment import plain_example
from pipelines.stages.label_adapters import truth_labels
from tests.corpus_clip import FACE, draw_labels, write_clip
from tests.pipelines.stages.test_label_adapters import celebamask


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for index in range(4):
        write_clip(folder, seed=5, index=index)
    return folder


def test_an_example_is_read_back():
    labels = truth_labels(draw_labels(FACE, 256))
    picture = np.kron(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    record = example_record(picture, labels, FACE, (1, 2, 200), "someone")
    item = read_example(record)
    np.testing.assert_array_equal(item["codes"], labels.codes)
    assert np.abs(item["picture"].astype(int) - picture).mean() < 6
    np.testing.assert_allclose(item["landmarks"], FACE, rtol=1e-6)
    assert item["box"].tolist() == [1, 2, 200]
    assert np.isnan(read_example(example_record(picture, labels, None, (0, 0, 1), "x"))["landmarks"]).all()


def test_a_cut_keeps_picture_labels_and_landmarks_together():
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[100:110, 150:160] = 255
    labels = np.zeros((150, 200), np.uint8)
    labels[50:55, 75:80] = 9
    picture, codes, points, box = cut_example(frame, labels, np.array([[154.5, 104.5]]), (80, 40, 180))
    bright = np.argwhere(picture[..., 0] > 128).mean(0)[::-1]
    named = np.argwhere(codes == 9).mean(0)[::-1]
    np.testing.assert_allclose(points[0], bright, atol=0.6)
    np.testing.assert_allclose(points[0], named, atol=0.6)
    # The box in the cut is the crop in the frame.
    step = box[2] / 180
    np.testing.assert_allclose((points[0] + 0.5 - box[:2]) / step, (154.5 + 0.5 - 80, 104.5 + 0.5 - 40), atol=1e-6)


def test_truth_becomes_examples_once(corpus, tmp_path, capsys):
    source = ExampleSource.parse(f"truth={corpus}", per_clip=3)
    path = make_examples(source, tmp_path)
    assert "making" in capsys.readouterr().out
    assert make_examples(source, tmp_path) == path and "making" not in capsys.readouterr().out
    train, heldout = Examples(path, "train"), Examples(path, "heldout")
    assert (len(train), len(heldout)) == (9, 3) and not set(train.rows) & set(heldout.rows)
    example = plain_example(train[4])
    iris, lips = label_set("iris"), label_set("lips")
    seen = {"eye": iris, "mouth": lips}
    for window, name in zip(example["window_sets"], WINDOWS, strict=True):
        if name in seen:
            assert (window == seen[name]).any(), name
    assert 0.1 < (example["sets"] == label_set("face")).mean() < 0.6
    assert truth_seeds(source) == {5}
    # Another number of frames, or another corpus, is another shard.
    assert ExampleSource("truth", str(corpus), 4).identity() != source.identity()
    before = source.identity()
    write_clip(corpus, seed=5, index=9)
    assert source.identity() != before


def dataset(folder):
    """Two real clips: drawn frames, and landmarks as a tracker has them."""
    records = []
    for index in range(2):
        points = np.stack([FACE + (t, index) for t in range(8)]).astype(np.float32)
        frames = np.stack([40 + 8 * draw_labels(p, 256)[..., None] * np.array([1, 0.8, 0.7]) for p in points])
        write_video(str(folder / "clip.mp4"), frames.astype(np.uint8), np.zeros(4267, np.int16))
        records.append(
            {
                "clip_id": f"clip{index}",
                "error": "",
                "source_sha256": f"{index:064d}",
                "num_frames": 8,
                "video": (folder / "clip.mp4").read_bytes(),
                "landmarks": points,
            }
        )
    records.append({"clip_id": "lost", "error": "landmarks: ValueError: no face"})
    update_manifest(folder, {"clips": ([write_shard(folder, shard_name("clips", 0, 1), records)], {"backend": "test"})})
    return folder


@pytest.mark.slow
def test_real_frames_are_labelled_from_their_landmarks(tmp_path):
    root = dataset(tmp_path)
    source = ExampleSource("landmarks", str(root), 2)
    path = make_examples(source, tmp_path / "examples")
    items = [Examples(path, part)[k] for part in ("train", "heldout") for k in range(len(Examples(path, part)))]
    assert len(items) == 4 and truth_seeds(source) == set()
    for item in items:
        sets = item["sets"][item["codes"]]
        x, y = item["landmarks"][48:60].mean(0).round().astype(int)
        assert (sets == label_set("lips")).sum() > 100 and sets[y + 6, x] == label_set("lips")
        x, y = item["landmarks"][30].round().astype(int)
        assert sets[y, x] & label_set("nose") and not sets[4, 4] & label_set("face")


def test_celebamask_becomes_examples(tmp_path):
    root = celebamask(tmp_path / "celeba")
    path = make_examples(ExampleSource.parse(f"celebamask={root}"), tmp_path)
    item = Examples(path, "train")[0]
    assert item["picture"].shape == (512, 512, 3) and np.isnan(item["landmarks"]).all()
    assert (item["sets"][item["codes"]] == label_set("lips")).any()


def test_sources_that_cannot_be_are_named(tmp_path, corpus):
    with pytest.raises(InputError, match="expected KIND=PATH with KIND one of truth"):
        ExampleSource.parse("photos=/x")
    with pytest.raises(InputError, match="no NAME.truth.npz"):
        ExampleSource("truth", str(tmp_path)).identity()
    with pytest.raises(InputError, match="DATASET:FILE.task"):
        ExampleSource("mesh", str(dataset(tmp_path))).identity()
    clip = write_clip(tmp_path / "c", frames=3)
    (clip.parent / f"{clip.name}.mp4").unlink()
    with pytest.raises(InputError, match="missing beside"):
        ExampleSource("truth", str(tmp_path / "c")).identity()


def test_frames_are_spread_and_decoded(corpus):
    assert spread(100, 4) == [12, 37, 62, 87] and spread(2, 5) == [0, 1]
    path = str(next(corpus.glob("*.mp4")))
    frames = list(frames_at(path, [1, 6]))
    assert len(frames) == 2 and frames[0].shape == (256, 256, 3)
    with pytest.raises(InputError, match="ends before frame 20"):
        list(frames_at(path, [1, 20]))


def test_every_label_survives_the_corpus(corpus, tmp_path):
    path = make_examples(ExampleSource("truth", str(corpus), 2), tmp_path)
    examples = Examples(path, "train")
    found = set(np.unique(np.concatenate([examples[k]["codes"].ravel() for k in range(len(examples))])))
    assert {LABEL_INDEX[name] for name in ("background", "face", "hair", "iris", "sclera", "lips", "brows")} <= found
