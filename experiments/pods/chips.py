"""Published figures of the chips, and the description of one that is a GPU."""

from typing import NamedTuple


class Chip(NamedTuple):
    """A chip, by its data sheet.

    Attributes:
      name: as a reader knows it.
      flops: products of bfloat16 per second, in multiplications and additions.
      clock: cycles per second of its cores; 0 of a GPU, whose cycles nobody counts.
      memory: bytes.
      bandwidth: of the memory, bytes per second.
      links: bytes per second that it sends to others, over all its links.
      neighbors: how many links that is.
    """

    name: str
    flops: float
    clock: float
    memory: float
    bandwidth: float
    links: float
    neighbors: int

    def slower(self, dtype: str, precision: str) -> float:
        """How much longer a product takes than one of bfloat16."""
        if precision == "highest":
            return 6.0 if self.clock else 15.0  # passes; or no tensor cores
        if precision == "high":
            return 3.0 if self.clock else 6.0
        # A TPU rounds float32 to bfloat16, and a GPU to TF32, unless told otherwise.
        return 2.0 if dtype in ("f32", "f64") and not self.clock else 1.0


GIB = 2.0**30
CHIPS = {
    "v4": Chip("TPU v4", 275e12, 1.05e9, 32 * GIB, 1.228e12, 300e9, 6),
    "v5e": Chip("TPU v5e", 197e12, 1.5e9, 16 * GIB, 0.819e12, 200e9, 4),
    "v5p": Chip("TPU v5p", 459e12, 1.75e9, 95 * GIB, 2.765e12, 600e9, 6),
    "v6e": Chip("TPU v6e", 918e12, 1.75e9, 32 * GIB, 1.64e12, 448e9, 4),
    "h100": Chip("H100 SXM", 989e12, 0.0, 79.1 * GIB, 3.35e12, 450e9, 1),
}

# What the CUDA compiler is told of an H100 SXM that is not there.
H100 = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  core_count: 132
  clock_rate_ghz: 1.98
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  l2_cache_size: 52428800
  memory_bandwidth: 3352320000000
  device_memory_size: 84942979072
  device_address_bits: 64
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
