"""Every test runs on eight CPU devices, with JAX's strictest settings.

Silent dtype or rank promotion and warnings are errors here: in numerical code each of
them is a bug more often than not.
"""

import ctypes
import gc
import importlib.metadata
import os
import pathlib
import sys
import time

# Most of the time goes into compiling programs that run once: compile them plainly.
# `XLA_FLAGS= make test` runs the same tests on fully optimized programs. The last flag
# makes it three times as fast; later versions of XLA, which end the process at a flag
# that they do not know, do not know this one.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)

# Of child processes: where libtpu is installed, JAX would look for a TPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs compiled once are kept here for the next run and for the other worker; an
# empty JAXCL_TEST_CACHE keeps none.
CACHE = os.environ.get("JAXCL_TEST_CACHE", "~/.cache/jaxcl-tests")
CACHE_BYTES = 2**30

if CACHE:
    folder = pathlib.Path(CACHE).expanduser() / jax.__version__
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _forget_the_oldest(folder, limit):
    """Deletes the oldest files of a folder until what is left fits into the limit.

    Not jax_compilation_cache_max_size, which reads the whole folder at each write.
    """
    files = [(path, path.stat()) for path in folder.glob("*-cache")]
    files.sort(key=lambda file: file[1].st_mtime, reverse=True)
    total = 0
    for path, status in files:
        total += status.st_size
        if total > limit:
            path.unlink(missing_ok=True)


def pytest_configure(config):
    # A worker may read what another one is just writing: it compiles in that case.
    config.addinivalue_line(
        "filterwarnings",
        "ignore:Error (reading|writing) persistent compilation cache:UserWarning",
    )
    config.pluginmanager.register(Forgetting())
    if CACHE and not hasattr(config, "workerinput"):
        _forget_the_oldest(folder, CACHE_BYTES)


# Seconds of processor time that a test may take unless it is marked `slow`: four times
# what the slowest takes with nothing compiled before. Not of the clock, which shows
# what else a machine is doing.
MOST = 60


def _seconds():
    """Processor time of this process and of the children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# A time, in seconds since 1970, after which no slow test begins: those that are left
# are skipped and say so. A run that is cut off shows nothing of what it has found.
UNTIL = float(os.environ.get("JAXCL_SLOW_TESTS_UNTIL", "inf"))


def pytest_runtest_setup(item):
    if time.time() > UNTIL and item.get_closest_marker("slow"):
        pytest.skip("JAXCL_SLOW_TESTS_UNTIL is over")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = _seconds()
    result = yield
    took = _seconds() - began
    if took > MOST and item.get_closest_marker("slow") is None:
        pytest.fail(
            f"took {took:.0f} s of processor time, more than {MOST}: make it"
            " smaller or mark it slow"
        )
    return result


# Bytes that a worker may hold before it forgets what it has compiled.
ENOUGH = 2**30


def _resident():
    """Memory of this process in bytes; without an answer, more than enough."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return ENOUGH
    return pages * os.sysconf("SC_PAGE_SIZE")


class Forgetting:
    """What a file compiled is of no use to the next one, and takes gigabytes in all.

    A plugin, since fixtures of this folder do not reach the doctests of the package.
    """

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item, nextitem):
        if nextitem is not None and self.place(item) == self.place(nextitem):
            return
        if _resident() < ENOUGH:
            return  # what is kept is still of some use: nothing is traced again
        jax.clear_caches()
        gc.collect()
        # glibc keeps what was freed, in pieces that the next file does not fit into.
        if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
            ctypes.CDLL(None).malloc_trim(0)

    @staticmethod
    def place(item):
        """A file of tests, or a folder of the few examples that a module has."""
        return item.path if item.path.stem.endswith("_test") else item.path.parent


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
