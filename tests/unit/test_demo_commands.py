"""The demo runs its own commands, tells their lines, and shows them as somebody would type them."""

from __future__ import annotations

import threading

from nlp_worker.demo.commands import Command, typed


def test_a_command_tells_its_lines_and_its_code() -> None:
    """What is printed on either stream is told, and the exit code decides how the demo goes on."""
    lines: list[str] = []
    command = Command(["evaluate", "nonsense"], lines.append)
    command._reader.join()
    assert command.ended
    assert command.stop() == 2
    assert any("nonsense" in line for line in lines)


def test_a_command_that_runs_is_ended() -> None:
    """A demo that is broken off leaves no process."""
    told = threading.Event()
    command = Command(["broker", "--port", "0"], lambda _line: told.set())
    assert told.wait(60)
    assert not command.ended
    assert command.stop() == -9
    assert command.ended


def test_it_is_shown_as_it_is_typed() -> None:
    """Whoever copies the line into a shell runs the same."""
    assert typed(["train", "--out", "a folder"]) == "nlp-worker train --out 'a folder'"
