import io

import numpy as np
import pytest
from PIL import Image

from models.errors import InputError
from pipelines import storage
from pipelines.dataset import Dataset, shard_name, update_manifest, write_shard
from pipelines.reporting import samples
from tests.pipelines.media import make_video
from tests.pipelines.reporting.tables import make_tables, reject, segment


def test_a_hostile_clip_id_is_no_path():
    assert samples.preview_name("9f06b1775c784642aaaa") == "9f06b1775c784642aaaa.mp4"
    for name in ("../../etc/passwd", "a/b", "", "x" * 300, 'a"><script>'):
        made = samples.preview_name(name)
        assert made.endswith(".mp4") and made[:-4].isalnum() and len(made) < 40


def test_spread_takes_first_and_last():
    assert samples.spread(100, 3) == [0, 49, 99] and samples.spread(2, 8) == [0, 1] and samples.spread(0, 8) == []


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A video that is red for its first half and blue for its second, one second each."""
    folder = tmp_path_factory.mktemp("colours")
    picture = "color=red:size=320x240:rate=30:duration=1[a];color=blue:size=320x240:rate=30:duration=1[b];[a][b]concat"
    return make_video(folder / "two colours.mp4", picture)


@pytest.mark.parametrize("frame, channel", [(10, 0), (45, 2), (9999, 0)])
def test_a_source_is_seen_at_its_frame(colours, frame, channel):
    picture = samples.source_picture(str(colours), frame)
    assert picture.shape == (120, 160, 3) and int(picture.mean(axis=(0, 1)).argmax()) == channel


def test_rejected_samples_say_why_there_is_no_picture(colours, tmp_path):
    (tmp_path / "noise.mp4").write_bytes(b"no video" * 99)
    source = str(colours)
    rejects = [
        reject("s1", "filters", "blurred", source=source, start_frame=40, end_frame=50),
        *(reject(f"s{k}", "filters", "blurred", source=source, start_frame=0, end_frame=30) for k in range(2, 9)),
        reject(None, "filters", "blurred", source=source),
        reject(None, "probe", "UnreadableVideo", "failed", source=str(tmp_path / "noise.mp4")),
        reject(None, "audio", "no_audio", source=str(tmp_path / "gone.mp4")),
    ]
    found = samples.rejected_samples(make_tables([], rejects), each=3)
    assert list(found)[0] == ("filters", "filtered", "blurred")
    count, hours, shown = found["filters", "filtered", "blurred"]
    # The row of the whole source says nothing that its segments do not say.
    assert count == 8 and len(shown) == 3 and hours == pytest.approx((10 + 7 * 30) / 30 / 3600)
    assert shown[0].span == "1.3-1.7 s"
    assert np.asarray(Image.open(io.BytesIO(shown[0].picture))).mean(axis=(0, 1)).argmax() == 2
    assert found["probe", "failed", "UnreadableVideo"][2][0].note == "UnreadableVideo"
    assert found["audio", "filtered", "no_audio"][2][0].note == "the source is not there"


def test_a_large_remote_source_is_not_fetched(monkeypatch):
    monkeypatch.setattr(storage, "size", lambda path: 3_000_000_000)
    found = samples.rejected_samples(make_tables([], [reject(None, "audio", "no_audio", source="gs://b/v.mp4")]), 1)
    assert found["audio", "filtered", "no_audio"][2][0].note == "3,000 MB on remote storage: not fetched"


def test_clips_are_found_in_their_shard_even_out_of_order(tmp_path):
    shards = []
    for shard, ids in enumerate((["a", "b"], ["d", "c"])):
        records = [{"clip_id": name, "error": ""} for name in ids]
        shards.append(write_shard(tmp_path, shard_name("clips", shard, 2), records))
    update_manifest(tmp_path, {"clips": (shards, {"backend": "none"})})
    rows = [
        segment("a"),
        segment("x", kept=False),
        segment("b"),
        segment("c") | {"shard": 1},
        segment("d") | {"shard": 1},
        segment("lost") | {"shard": 1},
    ]
    finder = samples.ClipFinder(Dataset(tmp_path), make_tables(rows).segments)
    assert [finder.row(index, name) for index, name in ((0, "a"), (2, "b"), (3, "c"), (4, "d"))] == [0, 1, 3, 2]
    with pytest.raises(InputError, match="keeps clip lost"):
        finder.row(5, "lost")
    assert not storage.exists(tmp_path / "report")
