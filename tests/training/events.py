"""What TensorBoard shows of a run directory."""

import struct

from tensorboardX.proto import event_pb2


def shown(directory):
    """Values by tag and step; fails where a step has two.

    Files are read in the order of their names. A session that starts at a step hides
    what was written for it and later ones before.
    """
    found = {}
    for path in sorted(directory.glob("events.out.tfevents.*")):
        for event in _events(path.read_bytes()):
            if event.HasField("session_log"):
                for steps in found.values():
                    for step in [step for step in steps if step >= event.step]:
                        del steps[step]
            for value in event.summary.value:
                steps = found.setdefault(value.tag, {})
                assert event.step not in steps, (path, value.tag, event.step)
                steps[event.step] = value.simple_value
    return found


def _events(content):
    """Records of a file: a length, its checksum, an event, its checksum."""
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        record = content[start + 12 : start + 12 + length]
        if len(record) < length:
            return  # torn
        yield event_pb2.Event.FromString(record)
        start += 12 + length + 4
