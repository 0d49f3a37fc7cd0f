"""Devices that are not here."""

import pytest

from experiments.pods import topologies

pytestmark = pytest.mark.aot


@pytest.mark.parametrize(
    ("topology", "chips"),
    [("v5e:2x2", 4), ("v5e:8x8", 64), ("v6e:4x4", 16), ("v4:2x2x1", 4)],
)
def test_there_is_a_device_for_each_chip(topology, chips):
    assert len(topologies.devices(topology)) == chips


def test_a_mesh_has_the_axes_and_the_number_of_chips_that_are_asked_for():
    assert topologies.mesh("v5e:2x2", None, 1).shape == {"data": 1}
    assert topologies.mesh("v5e:4x4", "4x4", None).shape == {"x": 4, "y": 4}


@pytest.mark.parametrize(
    ("topology", "mesh", "chips", "words"),
    [
        (
            "v5e:1x1",
            None,
            None,
            "topology must be one that libtpu knows, got 'v5e:1x1'",
        ),
        ("v5e:2x2", "3x1", None, "mesh must have 4 devices, got '3x1'"),
        ("v5e:2x2", "two", None, "mesh must be a shape such as '8x8', got 'two'"),
        ("v5e:2x2", None, 5, "chips must be at most the 4 of 'v5e:2x2', got 5"),
    ],
)
def test_what_does_not_fit_is_refused(topology, mesh, chips, words):
    with pytest.raises(ValueError, match=words):
        topologies.mesh(topology, mesh, chips)
