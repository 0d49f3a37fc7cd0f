import json
import math
import pathlib
import sys
import tempfile
import unittest.mock

import jax.numpy as jnp
from absl.testing import parameterized

from jaxcl import training
from tests.training import events


class MetricsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.run_directory = pathlib.Path(directory.name) / "run"
        self.path = self.run_directory / "metrics.jsonl"

    def write(self, *lines):
        with training.MetricWriter(self.run_directory) as writer:
            for step, metrics in lines:
                writer.write(step, metrics)

    def read(self):
        return training.read_metrics(self.run_directory)

    def test_each_line_is_a_json_object_on_the_disk_before_the_file_is_closed(self):
        writer = training.MetricWriter(self.run_directory)
        self.addCleanup(writer.close)
        writer.write(1, {"loss": jnp.float32(0.5), "accuracy": 1})
        lines = self.path.read_text().splitlines()
        self.assertEqual(
            [json.loads(line) for line in lines],
            [{"step": 1, "loss": 0.5, "accuracy": 1.0}],
        )

    def test_reading_gives_each_step_once_after_a_resumed_run(self):
        self.write(*((step, {"loss": float(step)}) for step in range(1, 8)))
        self.write(*((step, {"loss": 10.0 * step}) for step in (5, 6)))
        expected = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 50.0, 6: 60.0}
        self.assertEqual({m["step"]: m["loss"] for m in self.read()}, expected)
        self.assertLen(self.path.read_text().splitlines(), 9)  # nothing was rewritten

    def test_lines_of_one_step_are_merged_and_the_last_value_wins(self):
        self.write((1, {"loss": 1.0}), (1, {"knn": 0.5}))
        self.write((1, {"loss": 2.0}), (2, {"loss": 3.0}))
        self.assertEqual(
            self.read(),
            [{"step": 1, "loss": 2.0, "knn": 0.5}, {"step": 2, "loss": 3.0}],
        )

    @parameterized.parameters('{"step": 2, "lo', '{"step": 2}', "", "{")
    def test_a_torn_last_line_spoils_neither_reading_nor_the_next_line(self, torn):
        self.write((1, {"loss": 1.0}))
        with self.path.open("a") as file:
            file.write(torn)
        self.assertEqual(self.read()[0], {"step": 1, "loss": 1.0})
        self.write((2, {"loss": 2.0}))
        expected = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]
        self.assertEqual(self.read(), expected)
        self.assertEqual(training.read_metrics(self.path), expected)

    def test_values_that_are_not_finite_are_null_in_the_file_and_nan_when_read(self):
        self.write((1, {"a": math.nan, "b": math.inf}))
        self.assertEqual(json.loads(self.path.read_text())["b"], None)
        self.assertTrue(math.isnan(self.read()[0]["a"]))

    def test_a_broken_line_in_the_middle_is_named(self):
        self.write((1, {"loss": 1.0}))
        with self.path.open("a") as file:
            file.write("what is this\n" + '{"step": 2, "loss": 1.0}\n')
        with self.assertRaisesRegex(ValueError, "metrics.jsonl, line 2: got 'what is"):
            self.read()

    def test_missing_metrics_and_reserved_names_are_refused(self):
        with self.assertRaisesRegex(FileNotFoundError, "no such file"):
            self.read()
        with self.assertRaisesRegex(ValueError, 'metrics must not name "step"'):
            self.write((1, {"step": 1}))

    def test_tensorboard_events_are_written_beside_the_lines(self):
        with training.MetricWriter(
            self.run_directory, tensorboard=True, resumed_from=3
        ) as writer:
            writer.write(4, {"loss": 0.5})
        (events,) = self.run_directory.glob("events.out.tfevents.*")
        self.assertIn(b"loss", events.read_bytes())
        self.assertEqual(self.read(), [{"step": 4, "loss": 0.5}])

    def test_tensorboard_shows_each_step_once_however_a_run_was_cut_off(self):
        def write(first, last):  # and dies without closing
            writer = training.MetricWriter(
                self.run_directory, tensorboard=True, resumed_from=first
            )
            self.addCleanup(writer.close)
            for step in range(first + 1, last + 1):
                writer.write(step, {"loss": 10.0 * first + step})

        # Cut off before its first checkpoint, then after that of step 4, when the clock
        # was set back.
        for first, last, now in ((0, 3, 1000.5), (0, 6, 1000.9), (4, 7, 900.0)):
            with unittest.mock.patch("time.time", return_value=now):
                write(first, last)
        expected = {1: 1, 2: 2, 3: 3, 4: 4, 5: 45, 6: 46, 7: 47}
        self.assertEqual(events.shown(self.run_directory), {"loss": expected})

    def test_a_missing_tensorboard_writer_says_what_to_install(self):
        with (
            unittest.mock.patch.dict(sys.modules, {"tensorboardX": None}),
            self.assertRaisesRegex(ImportError, r"pip install 'jaxcl\[train\]'"),
        ):
            training.MetricWriter(self.run_directory, tensorboard=True)

    @parameterized.parameters(math.nan, math.inf, -math.inf)
    def test_a_loss_that_is_not_finite_stops_with_the_step_and_what_to_try(self, value):
        training.check_finite(3, {"loss": jnp.float32(1.0)})
        with self.assertRaisesRegex(
            FloatingPointError, f"loss is {value} at step 7. Try a lower learning rate"
        ):
            training.check_finite(7, {"norm": 1.0, "loss": jnp.float32(value)})
