import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import pytest
from absl.testing import parameterized
from jax.experimental import multihost_utils

from jaxcl import models
from jaxcl.training import checkpoints
from tests.training import tiny

_NUM_STEPS = 6
_REPOSITORY = pathlib.Path(__file__).parents[2]


def unbroken():
    state = tiny.new_state()
    for i in range(_NUM_STEPS):
        state, _ = tiny.step(state, tiny.views(i))
    return jax.device_get(state)


def variables_of(state):
    return {"params": state.params, "model_state": state.model_state}


class CheckpointsTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.expected = unbroken()

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.run_directory = pathlib.Path(directory.name) / "run"
        self.checkpoints = self.run_directory / "checkpoints"

    def names(self):
        return sorted(path.name for path in self.checkpoints.iterdir())

    def assert_bit_equal(self, state):
        chex.assert_trees_all_equal(state, self.expected)

    def test_saving_does_not_ask_whether_processes_are_to_stop(self):
        # JAX would agree on a step behind the one of the checkpoint, which a run may
        # have left behind when the checkpoint is on the disk.
        with mock.patch.object(multihost_utils, "reached_preemption_sync_point") as ask:
            tiny.train(self.run_directory, 3)
        self.assertEqual(ask.call_count, 0)
        self.assertIn("3", self.names())

    @parameterized.parameters(1, 3, 5)
    def test_a_run_stopped_and_resumed_ends_bit_equal_to_one_that_was_not(self, stop):
        tiny.train(self.run_directory, stop)
        self.assert_bit_equal(tiny.train(self.run_directory, _NUM_STEPS))
        self.assertEqual(self.names(), ["4", "5", "6"])  # the newest three

    @pytest.mark.slow
    def test_a_run_killed_while_saving_ends_bit_equal_to_one_that_was_not(self):
        program = (
            "import tests.conftest\n"
            "from tests.training import tiny\n"
            f"tiny.train({str(self.run_directory)!r}, {_NUM_STEPS}, kill_after=4)\n"
        )
        killed = subprocess.run([sys.executable, "-c", program], cwd=_REPOSITORY)
        self.assertEqual(killed.returncode, 9)
        self.assertIn("3", self.names())
        self.assert_bit_equal(tiny.train(self.run_directory, _NUM_STEPS))

    @parameterized.parameters("state/_METADATA", "state/d")
    def test_a_checkpoint_left_half_written_is_passed_over(self, missing):
        tiny.train(self.run_directory, 3)
        half = self.checkpoints / "4.orbax-checkpoint-tmp"
        shutil.copytree(self.checkpoints / "3", half)
        shutil.rmtree(half / missing) if (half / missing).is_dir() else (
            half / missing
        ).unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            state = tiny.train(self.run_directory, _NUM_STEPS)
        self.assert_bit_equal(state)

    def damage(self, step, what):
        path = self.checkpoints / str(step)
        if what == "empty directory":
            shutil.rmtree(path)
            path.mkdir()
        elif what == "no metadata":
            (path / "state" / "_METADATA").unlink()
        else:
            files = [p for p in path.rglob("*") if p.is_file()]
            for file in files:
                content = file.read_bytes()
                file.write_bytes(content[: len(content) // 2])

    @parameterized.parameters("empty directory", "no metadata", "truncated files")
    def test_a_broken_checkpoint_is_named_set_aside_and_the_one_before_used(self, what):
        tiny.train(self.run_directory, 4)
        self.damage(4, what)
        with self.assertWarnsRegex(
            UserWarning, "checkpoints/4: this checkpoint is broken .* 4.broken"
        ):
            state = tiny.train(self.run_directory, _NUM_STEPS)
        self.assert_bit_equal(state)
        self.assertEqual(self.names(), ["4", "4.broken", "5", "6"])

    def test_a_flipped_bit_is_noticed_or_does_no_harm(self):
        tiny.train(self.run_directory, 2)
        first, _ = tiny.step(tiny.new_state(), tiny.views(0))
        with checkpoints.open(self.run_directory) as manager:
            second, _ = checkpoints.restore_latest(manager, tiny.new_state())
        whole = self.run_directory.rename(self.run_directory.with_name("whole"))
        files = sorted(
            p for p in (whole / "checkpoints" / "2").rglob("*") if p.is_file()
        )
        back = 0
        for file in files:
            shutil.copytree(whole, self.run_directory)
            flipped = self.run_directory / file.relative_to(whole)
            content = bytearray(file.read_bytes())
            content[len(content) * 2 // 3] ^= 0b100
            flipped.write_bytes(content)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with checkpoints.open(self.run_directory) as manager:
                    state, _ = checkpoints.restore_latest(manager, tiny.new_state())
            chex.assert_trees_all_equal(state, [None, first, second][int(state.step)])
            self.assertLen(caught, 2 - int(state.step), f"{file}: {caught}")
            back += int(state.step) == 1
            shutil.rmtree(self.run_directory)
        self.assertGreater(back, 2)

    def test_other_numbers_than_were_saved_are_a_broken_checkpoint(self):
        # As a disk may leave them: readable, and of the right shapes.
        tiny.train(self.run_directory, 2)
        other = tiny.new_state(key=1).replace(step=jnp.int32(2))
        with checkpoints.open(self.run_directory.with_name("other")) as manager:
            checkpoints.save(manager, 2, other)
        content = self.checkpoints / "2" / "state"
        shutil.rmtree(content)
        shutil.copytree(
            self.run_directory.with_name("other") / "checkpoints" / "2" / "state",
            content,
        )
        words = r"checkpoints/2: .* arrays are not as they were saved, the first is "
        with self.assertWarnsRegex(UserWarning, words):
            checkpoints.restore_variables(
                self.run_directory, variables_of(tiny.new_state())
            )
        with self.assertWarnsRegex(UserWarning, words):
            self.assert_bit_equal(tiny.train(self.run_directory, _NUM_STEPS))

    def test_a_checkpoint_without_checksums_is_restored_with_a_warning(self):
        tiny.train(self.run_directory, 2)
        shutil.rmtree(self.checkpoints / "2" / "checks")
        with self.assertWarnsRegex(UserWarning, "checkpoints/2: has no checksums"):
            self.assert_bit_equal(tiny.train(self.run_directory, _NUM_STEPS))

    def test_a_full_disk_is_one_line_and_leaves_earlier_checkpoints(self):
        tiny.train(self.run_directory, 2)
        # Files of more than this many bytes are refused, as by a disk without room.
        program = (
            "import resource, sys, tests.conftest\n"
            "from tests.training import tiny\n"
            "tiny.new_state()\n"
            "tiny.step(tiny.new_state(), tiny.views(0))\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
            "from jaxcl import _cli\n"
            "with _cli.one_line_errors():\n"
            f"    tiny.train({str(self.run_directory)!r}, {_NUM_STEPS})\n"
        )
        full = subprocess.run(
            [sys.executable, "-c", program],
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
        )
        self.assertEqual(full.returncode, 1)
        self.assertEqual(
            full.stderr,
            f"UnsavedError: {self.checkpoints}: a checkpoint could not be written "
            "(File too large); those of steps 1, 2 are intact, and once it can be "
            "written the same command goes on after step 2\n",
        )
        self.assert_bit_equal(tiny.train(self.run_directory, _NUM_STEPS))

    def test_no_readable_checkpoint_is_an_error_and_changes_nothing(self):
        tiny.train(self.run_directory, 2)
        self.damage(1, "empty directory")
        self.damage(2, "truncated files")
        before = self.names()
        for _ in range(2):  # nor does a second attempt start from scratch
            with self.assertRaisesRegex(
                RuntimeError, f"{self.run_directory}: no checkpoint can be read"
            ):
                tiny.train(self.run_directory, _NUM_STEPS)
        self.assertEqual(self.names(), before)

    def test_another_model_is_refused_with_what_differs(self):
        tiny.train(self.run_directory, 1)
        encoder = models.ConvEncoder(width=3)
        wider = models.SimCLR(encoder, models.Projector(4))
        deeper = models.SimCLR(tiny.model.encoder, models.Projector(4, depth=3))
        with checkpoints.open(self.run_directory) as manager:
            with self.assertRaises(ValueError) as caught:
                checkpoints.restore_latest(manager, tiny.new_state(model=wider))
            message = str(caught.exception)
            self.assertIn(f"{self.run_directory}: the checkpoint of step 1", message)
            self.assertIn(
                "params/model/encoder/BatchNorm_0/bias: float32[2] in the checkpoint, "
                "float32[3] expected",
                message,
            )
            with self.assertRaisesRegex(
                ValueError, r"not in the checkpoint: .*projector/BatchNorm_1/bias"
            ):
                checkpoints.restore_latest(manager, tiny.new_state(model=deeper))
            with self.assertRaisesRegex(
                ValueError, "only in the checkpoint: opt_state"
            ):
                checkpoints.restore_latest(manager, tiny.new_state(tx=tiny.sgd))
        self.assertEqual(self.names(), ["1"])

    def test_a_checkpoint_goes_where_the_given_state_is(self):
        tiny.train(self.run_directory, 1)
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
        whole = jax.NamedSharding(mesh, jax.P())
        given = jax.device_put(tiny.new_state(key=1), whole)
        with checkpoints.open(self.run_directory) as manager:
            with self.assertWarnsRegex(
                UserWarning,
                "step 1 was saved from 1 device and goes on with 8; .*round",
            ):
                state, resumed = checkpoints.restore_latest(manager, given)
            self.assertEqual((int(state.step), resumed), (1, True))
            for leaf in jax.tree.leaves(state):
                self.assertEqual(leaf.sharding, whole)
            # And from eight devices to one.
            checkpoints.save(manager, 2, state)
            with self.assertWarnsRegex(
                UserWarning, "step 2 was saved from 8 devices and goes on with 1; "
            ):
                again, _ = checkpoints.restore_latest(manager, tiny.new_state(key=1))
        chex.assert_trees_all_equal(again, state)

    def test_a_new_run_starts_with_the_given_state(self):
        given = tiny.new_state()
        with checkpoints.open(self.run_directory) as manager:
            state, resumed = checkpoints.restore_latest(manager, given)
        self.assertIs(state, given)
        self.assertFalse(resumed)

    def test_saving_never_replaces_a_checkpoint(self):
        state = tiny.new_state()
        with checkpoints.open(self.run_directory) as manager:
            self.assertTrue(checkpoints.save(manager, 2, state))
            other = tiny.new_state(key=1)
            self.assertFalse(checkpoints.save(manager, 2, other))
            with self.assertRaisesRegex(
                ValueError, "step must be later than 2, .*, got 1"
            ):
                checkpoints.save(manager, 1, state)
            restored, _ = checkpoints.restore_latest(manager, other)
        chex.assert_trees_all_equal(restored, state)

    def test_wrong_arguments_are_refused_by_name(self):
        with self.assertRaisesRegex(
            ValueError, "max_to_keep must be at least 1, got 0"
        ):
            checkpoints.open(self.run_directory, max_to_keep=0)

    def test_a_probe_reads_the_variables_without_the_optimizer(self):
        state = tiny.train(self.run_directory, 2)
        before = self.names()
        described = variables_of(jax.eval_shape(tiny.new_state))
        variables, step = checkpoints.restore_variables(self.run_directory, described)
        self.assertEqual(step, 2)
        chex.assert_trees_all_equal(variables, variables_of(state))
        variables, step = checkpoints.restore_variables(
            self.run_directory, described, step=1
        )
        self.assertEqual(step, 1)
        first, _ = tiny.step(tiny.new_state(), tiny.views(0))
        chex.assert_trees_all_equal(variables, variables_of(first))
        self.damage(2, "truncated files")
        with self.assertWarnsRegex(
            UserWarning, "checkpoints/2.*Reading step 1 instead"
        ):
            checkpoints.restore_variables(self.run_directory, described)
        self.assertEqual(self.names(), before)

    def test_a_probe_of_another_model_or_of_no_run_is_refused(self):
        described = tiny.new_state()
        with self.assertRaisesRegex(FileNotFoundError, "run: no checkpoints"):
            checkpoints.restore_variables(self.run_directory, variables_of(described))
        tiny.train(self.run_directory, 1)
        with self.assertRaisesRegex(FileNotFoundError, r"got step 7; .*of \[1\]"):
            checkpoints.restore_variables(
                self.run_directory, variables_of(described), step=7
            )
        wider = models.SimCLR(models.ConvEncoder(width=3), models.Projector(4))
        other = tiny.new_state(model=wider)
        with self.assertRaisesRegex(ValueError, r"run: the checkpoint of step 1 is of"):
            checkpoints.restore_variables(self.run_directory, variables_of(other))
