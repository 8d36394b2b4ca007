"""The machines that programs are compiled for, without needing any of them."""

import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from experiments.harness.console import Refused

PLATFORMS = ("gpu", "tpu")
SEVERAL = 8  # devices
PACKAGES = {"gpu": "jax-cuda13-plugin", "tpu": "libtpu"}
MODULES = {"gpu": "jax_plugins.xla_cuda13", "tpu": "libtpu"}
EXTRAS = {"gpu": "cuda", "tpu": "accelerators"}

# libtpu reads these when it is loaded. Without them it queries the metadata of a cloud
# machine, and refuses to be loaded by a second process.
LIBTPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}

# XLA's GpuTargetConfigProto for an H100, from its data sheet; for the fields see
# xla/backends/gpu/target_config/specs/*.txtpb.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  device_vendor: "NVIDIA Corporation"
  device_address_bits: 64
  pcie_bandwidth: 34359738368
  ecc_enabled: true
  name: "NVIDIA H100 80GB HBM3"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def _gpus(number: int) -> Sequence[Any]:
    # Partitions, hosts per partition, devices per host: all on one host.
    return topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology=f"1x1x{number}"
    ).devices


def _tpus(number: int) -> Sequence[Any]:
    for name, value in LIBTPU.items():
        os.environ.setdefault(name, value)
    # 2x2 is the smallest slice of a v5e that can be described.
    name = "v5e:2x2" if number == 1 else "v5e:2x4"
    return topologies.get_topology_desc(platform="tpu", topology_name=name).devices


def _hosts(number: int) -> Sequence[Any]:
    return jax.devices("cpu")


DEVICES: dict[str, Callable[[int], Sequence[Any]]] = {
    "gpu": _gpus,
    "tpu": _tpus,
    "cpu": _hosts,
}


@functools.cache
def devices(platform: str, number: int) -> tuple[Any, ...]:
    """Returns `number` devices to compile for; for `cpu`, devices of this process."""
    found = tuple(DEVICES[platform](number))[:number]
    if len(found) < number:
        raise Refused(
            f"{platform}: has {len(found)} devices, but {number} are needed; set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={number}."
        )
    return found


def absence(platform: str) -> str | None:
    """Returns why a platform cannot be compiled for, and the remedy; None if it can."""
    package, install = PACKAGES[platform], f"pip install -e '.[{EXTRAS[platform]}]'"
    if not _is_installed(MODULES[platform]):
        return f"{package} is not installed; {install}"
    if platform == "gpu" and importlib.metadata.version(package) != jax.__version__:
        return (
            f"{package} is {importlib.metadata.version(package)} and jax "
            f"{jax.__version__}; pip install {package}=={jax.__version__}"
        )
    try:
        _try(platform)
    except Exception as error:  # raised by the plug-in, XLA or ptxas
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"{package} cannot compile ({reason}); {install}"
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


@functools.cache
def _try(platform: str) -> None:
    """Compiles a function that needs the whole toolchain."""
    place = SingleDeviceSharding(devices(platform, 1)[0])
    x = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=place)
    jax.jit(jnp.exp, out_shardings=place).lower(x).compile()


def versions(platforms: Sequence[str]) -> dict[str, str]:
    """Returns the versions of the compilers."""
    names = [PACKAGES[platform] for platform in platforms]
    return {name: importlib.metadata.version(name) for name in names}


def chosen(asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Returns the platforms to compile for, and the reasons why others are left out.

    Args:
      asked: the platforms to use; refused if one is absent. None is all present ones.
    """
    reasons = {each: absence(each) for each in asked or PLATFORMS}
    present = [each for each, reason in reasons.items() if reason is None]
    absent = {each: reason for each, reason in reasons.items() if reason}
    if asked and absent:
        raise Refused(". ".join(f"--platform {each}: {absent[each]}" for each in absent))
    if not present:
        raise Refused(f"nothing to compile with: {', or '.join(absent.values())}.")
    return present, [f"{each} was left out: {absent[each]}" for each in absent]
