"""Fixtures that every test folder shares."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# Before anything imports JAX: tests run on the CPU wherever they run.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# libtpu is installed for its compiler; there is no TPU to ask for.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v6e-1")
# Most tests compile for longer than they compute: the least of LLVM's optimizations compiles faster and runs as fast.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

# What one process of the run compiled (a pytest worker, a command under test, a Beam worker), the others load. The
# process that makes the folder is the first of the run and the last to end.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="archon-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real videos that lies beside a developer's checkout; tests that need it skip where it is absent."""
    folder = SHARED / "clips"
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}")
    return folder


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder with a real face-landmark model that lies beside a developer's checkout."""
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip(f"no shared models at {folder}")
    return folder


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Compiled programs of a finished module are of no use to the next one, and hold gigabytes in the end."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
