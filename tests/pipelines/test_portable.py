"""Curate over a real portable job server on this machine, as a Flink or Spark cluster would be spoken to."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.beam import RunnerOptions
from pipelines.curate import CurateConfig, curate
from tests.pipelines.media import make_video
from tests.pipelines.test_curate import HERE, files


@pytest.fixture
def job_server(tmp_path):
    """The address of Beam's own job server, in a process of its own."""
    ports = tmp_path / "port"
    module = "apache_beam.runners.portability.local_job_service_main"
    command = [sys.executable, "-m", module, "--port", "0", "--port_file", str(ports)]
    command += ["--staging_dir", str(tmp_path / "staging")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (ports.exists() and ports.read_text().strip()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield f"localhost:{ports.read_text().strip()}"
        process.kill()


@pytest.mark.slow
def test_curate_on_a_portable_runner(job_server, tmp_path):
    folder = Path(tmp_path, "in")
    folder.mkdir()
    (folder / "text.mp4").write_text("a text file")
    make_video(folder / "mute.mp4", sound=None)
    make_video(folder / "tone.mp4")
    config = CurateConfig((str(folder),), str(tmp_path / "portable"))
    arguments = (f"--job_endpoint={job_server}", "--environment_type=LOOPBACK")
    made = curate(config, RunnerOptions("portable", beam_args=arguments))
    assert (made["sources"], made["filtered"], made["failed"]) == (3, 2, 1)
    curate(CurateConfig((str(folder),), str(tmp_path / "here")), HERE)
    assert files(tmp_path / "portable") == files(tmp_path / "here")
