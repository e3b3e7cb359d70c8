"""Beam's runner for this machine, and the environment of its worker processes."""

import os

# One worker a core: threads inside a worker only wait for each other (the fit took four times the processor time).
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def one_thread_a_worker() -> dict[str, str]:
    """The environment of this process, changed so that BLAS and XLA of a process started with it use one thread each.

    What the user set stays: a number of threads, other flags of XLA.
    """
    changed = dict(os.environ)
    for name, value in _ONE_THREAD.items():
        before = changed.get(name)
        changed[name] = f"{before or ''} {value}".strip() if name == "XLA_FLAGS" else before or value
    return changed


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
