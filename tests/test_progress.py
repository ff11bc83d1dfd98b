"A bar on a terminal, a line a minute elsewhere."

import io
import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_arch.progress import Count, clock, line_a_minute, shown_progress
from scalable_arch.study import reproduce


class Terminal(io.StringIO):
    def isatty(self):
        return True


@given(st.integers(0, 10**6))
def test_a_clock_can_be_read_back(seconds):
    total = 0
    for part in clock(seconds).split(":"):
        total = 60 * total + int(part)
    assert total == seconds and re.fullmatch(r"(\d+:[0-5]\d|\d+):[0-5]\d", clock(seconds))


def test_lines_come_while_a_step_takes_long_and_end_with_the_work():
    said = io.StringIO()
    with line_a_minute(lambda: "here", every=0.02, file=said):
        time.sleep(0.2)
    lines = said.getvalue()
    assert lines.count("here\n") >= 3
    time.sleep(0.1)
    assert said.getvalue() == lines


def test_the_thread_ends_also_after_an_error():
    said = io.StringIO()
    with pytest.raises(ZeroDivisionError), line_a_minute(lambda: "here", every=0.01, file=said):
        1 / 0
    lines = said.getvalue()
    time.sleep(0.05)
    assert said.getvalue() == lines


def test_short_work_says_nothing_to_a_file_and_shows_a_bar_on_a_terminal():
    log, terminal = io.StringIO(), Terminal()
    for out in (log, terminal):
        with shown_progress("reading", 10, file=out) as update:
            update(10)
    assert log.getvalue() == "" and "reading" in terminal.getvalue()


def test_the_line_tells_how_much_is_left():
    count = Count("reading", 1000)
    assert str(count) == "reading: 0 of 1,000 images, 0:00"
    count.update(250)
    count.started -= 60
    assert str(count) == "reading: 250 of 1,000 images, 1:00, about 3:00 left"


def test_a_chapter_tells_its_cell_and_its_trials(tmp_path):
    path, notes = tmp_path / "ch.ipynb", tmp_path / "trials"
    started = time.monotonic() - 125
    assert reproduce.progress_line("ch", path, notes, started) == "ch: 2:05"
    cells = [{"metadata": {"papermill": {"status": status}}} for status in ("completed", "running", "pending")]
    path.write_text(json.dumps({"cells": cells}))
    notes.write_text("\rtrials: 0 of 3 | | 00:00\rtrials: 1 of 3 |#| 01:00, about 0:02:00 left\r")
    told = reproduce.progress_line("ch", path, notes, started)
    assert told == "ch: 2:05, 1 of 3 cells, trials: 1 of 3 |#| 01:00, about 0:02:00 left"
    path.write_text('{"cells": [')  # as it is being written
    assert reproduce.progress_line("ch", path, notes, started).startswith("ch: 2:05, trials")
