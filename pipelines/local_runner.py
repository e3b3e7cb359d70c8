"""Beam's runner for this machine, and the environment of its worker processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# One worker a core: threads inside a worker only wait for each other (the fit took four times the processor time).
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


@contextmanager
def one_thread_a_worker() -> Iterator[None]:
    """Worker processes that start within inherit an environment in which BLAS and XLA use one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    for name, value in _ONE_THREAD.items():
        joined = f"{before[name] or ''} {value}".strip() if name == "XLA_FLAGS" else before[name] or value
        os.environ[name] = joined
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def local_runner():
    """Beam's own in-process runner, by name: DirectRunner is a switch that first tries to download another one."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from google.protobuf import struct_pb2

    # Worker processes take their log level from here alone; below ERROR they tell of every channel they close.
    options = struct_pb2.Struct()
    options["beam:option:default_sdk_harness_log_level:v1"] = "ERROR"
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=options)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(info))
