"""Temporary files of a job's workers: in one folder, always the same, so that what a killed worker left is found."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import InputError
from pipelines import storage
from pipelines.state import safe_name, state_path


def scratch_folder(root: str, job: str) -> str:
    """Returns the local folder: beside the dataset if that is local, else in the machine's folder for such files."""
    if not storage.is_remote(root):
        return os.path.abspath(state_path(os.path.expanduser(root), job, "scratch"))
    # The same bucket of another service is another dataset, whose job must not remove the files of this one.
    service = os.environ.get("STORAGE_EMULATOR_HOST", "")
    return os.path.join(tempfile.gettempdir(), f"archon-{os.getuid()}-{safe_name(f'{service} {root} {job}')}")


@contextmanager
def scratch(root: str, job: str) -> Iterator[str]:
    """Within the block, new temporary files of this process lie in the job's scratch folder, which is yielded."""
    before = tempfile.tempdir
    if before is not None and os.path.basename(before) == os.path.basename(scratch_folder(root, job)):
        tempfile.tempdir = None  # entered twice: find the same folder again
    folder = scratch_folder(root, job)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.stat(folder).st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user; expected a folder for this job's temporary files")
    tempfile.tempdir = folder
    try:
        yield folder
    finally:
        tempfile.tempdir = before


def remove_scratch(root: str, job: str) -> None:
    shutil.rmtree(scratch_folder(root, job), ignore_errors=True)
