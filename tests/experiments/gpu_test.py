"""The command for a GPU, without one: what it would run, and how it goes on."""

import dataclasses
import subprocess
from unittest import mock

import pytest

from experiments import gpu, simclr
from experiments.benchmark.settings import Settings as Benchmark
from experiments.gaussianity.images import Settings as Images
from jaxcl.tools import probe

OF = {"benchmark": Benchmark, "simclr": simclr.Settings, "linear_probe": probe.Settings}


def ran(calls, failing=()):
    def run(words, **options):
        calls.append(words[2:])
        failed = any(name in words[-1] for name in failing)
        return subprocess.CompletedProcess(words, int(failed), "| a |\nIn x: y\n")

    return mock.patch.object(subprocess, "run", side_effect=run)


def on(platform):
    machine = platform, "Card 100 (B)", "jax 1"
    return mock.patch.object(gpu, "ask_machine", return_value=machine)


@pytest.fixture
def settings(tmp_path):
    return gpu.Settings("tfds:c", f"{tmp_path}/runs", f"{tmp_path}/pages")


def test_a_machine_without_a_gpu_is_one_line(settings):
    with on("cpu"), ran([]) as run, pytest.raises(OSError, match="sees no GPU"):
        gpu.main(settings)
    run.assert_not_called()


@pytest.mark.parametrize("rehearse", [False, True])
def test_flags_are_those_of_the_scripts(settings, tmp_path, rehearse):
    found = list(gpu.parts(dataclasses.replace(settings, rehearse=rehearse), tmp_path))
    assert len(found) == 5
    for part in found:
        script = part.words[1].removeprefix("experiments.")
        flags = {w[2:] for w in part.words if w.startswith("--")}
        names = {f.name for f in dataclasses.fields(OF.get(script, Images))}
        assert {flag.removeprefix("no-") for flag in flags} <= names


def test_a_part_that_failed_is_tried_again_and_others_are_not(settings):
    calls = []
    failing = ran(calls, ["simclr"])
    with on("gpu"), failing, pytest.raises(OSError, match="failed: SimCLR"):
        gpu.main(settings)
    assert len(calls) == 5
    with on("gpu"), ran(calls):
        page = gpu.main(settings)
    again = [words[0] for words in calls[5:]]
    assert again == ["experiments.simclr", "experiments.linear_probe"]
    assert page.name == "card_100_b.md"
    text = page.read_text()
    assert text.startswith("# Card 100 (B)\n\njax 1, ")
    assert text.count("| a |") == 4
    assert "Failed" not in text
    assert "In x" not in text


def test_without_cifar10_the_rest_is_run(settings):
    calls = []
    with on("gpu"), ran(calls):
        page = gpu.main(dataclasses.replace(settings, cifar10=""))
    scripts = [words[0].split(".")[1] for words in calls]
    assert scripts == ["benchmark", "benchmark", "gaussianity"]
    assert "SimCLR on CIFAR-10 was left out" in page.read_text()


@pytest.mark.slow
def test_the_machine_is_asked_in_another_process():
    platform, card, versions = gpu.ask_machine()
    assert (platform, card) == ("cpu", "cpu")
    assert versions.startswith("jax ")
