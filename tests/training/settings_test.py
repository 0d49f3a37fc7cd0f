import pathlib
import tempfile

from absl.testing import parameterized

from jaxcl import training


class SettingsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.run_directory = pathlib.Path(directory.name) / "new" / "run"
        self.path = self.run_directory / "settings.json"
        self.settings = {"loss": "dcl", "rate": 0.1, "sizes": (1, 2), "tile": None}

    def test_the_same_settings_resume_a_run_and_come_back(self):
        training.save_settings(self.run_directory, self.settings)
        before = self.path.stat().st_mtime_ns
        training.save_settings(self.run_directory, self.settings)
        self.assertEqual(self.path.stat().st_mtime_ns, before)
        self.assertEqual(
            training.load_settings(self.run_directory),
            {"loss": "dcl", "rate": 0.1, "sizes": [1, 2], "tile": None},
        )

    def test_other_settings_are_refused_with_old_and_new_values(self):
        training.save_settings(self.run_directory, self.settings)
        before = self.path.read_text()
        other = {"loss": "nt_xent", "rate": 0.1, "sizes": (1, 2), "seed": 3}
        with self.assertRaises(ValueError) as caught:
            training.save_settings(self.run_directory, other, may_change=["rate"])
        message = str(caught.exception)
        for part in (
            str(self.path),
            'loss: "dcl" -> "nt_xent"',
            "tile: null -> (absent)",
            "seed: (absent) -> 3",
        ):
            self.assertIn(part, message)
        self.assertNotIn("rate:", message)
        self.assertEqual(self.path.read_text(), before)

    def test_what_may_change_is_recorded(self):
        training.save_settings(self.run_directory, self.settings)
        new = self.settings | {"rate": 0.2}
        training.save_settings(self.run_directory, new, may_change=["rate"])
        self.assertEqual(training.load_settings(self.run_directory)["rate"], 0.2)
        with self.assertRaisesRegex(ValueError, "rate: 0.2 -> 0.1"):
            training.save_settings(self.run_directory, self.settings)

    @parameterized.parameters(
        ("{", "settings.json: not JSON"), ("[1]", "got a list; expected a JSON object")
    )
    def test_a_file_of_another_kind_is_refused_and_kept(self, text, message):
        self.run_directory.mkdir(parents=True)
        self.path.write_text(text)
        with self.assertRaisesRegex(ValueError, message):
            training.save_settings(self.run_directory, self.settings)
        self.assertEqual(self.path.read_text(), text)

    def test_missing_settings_and_values_that_json_cannot_hold_are_named(self):
        with self.assertRaisesRegex(FileNotFoundError, "settings.json: no such file"):
            training.load_settings(self.run_directory)
        with self.assertRaisesRegex(TypeError, "got model <object"):
            training.save_settings(self.run_directory, {"model": object()})
        self.assertFalse(self.path.exists())
