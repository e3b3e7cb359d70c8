import os
import tempfile
from pathlib import Path

from pipelines.scratch import remove_scratch, scratch


def test_temporary_files_of_a_local_dataset_lie_beside_it(tmp_path):
    before = tempfile.tempdir
    with scratch(str(tmp_path), "job") as folder:
        handle, name = tempfile.mkstemp()
        os.close(handle)
        assert Path(name).parent == Path(folder) == tmp_path / "_state/job/scratch"
    assert tempfile.tempdir == before
    remove_scratch(str(tmp_path), "job")
    assert not os.path.exists(folder)


def test_a_job_leaves_the_files_of_others_alone(tmp_path, monkeypatch):
    """Datasets of one name on two services are two datasets; so are two jobs of one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root, folders = "gs://bucket/set", set()
    for service, job in (("http://localhost:1", "curate"), ("http://localhost:2", "curate"), ("", "annotate")):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service)
        with scratch(root, job) as folder:
            assert tempfile.gettempdir() == folder
            folders.add(folder)
    assert len(folders) == 3
    remove_scratch(root, "annotate")
    assert sorted(os.path.exists(folder) for folder in folders) == [False, True, True]
