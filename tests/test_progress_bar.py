"""Progress in a log: few lines, whatever the loop does."""

import sys
import time

from mgs import progress_bar
from mgs.progress_bar import progress


def test_a_log_gets_a_line_once_in_a_while(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    for _ in progress(range(1000), desc="quick"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_bar, "RARE", 0.1)
    for i in (bar := progress(range(30), desc="slow")):
        time.sleep(0.02)
        bar.set_postfix(loss=i, refresh=False)
    assert 2 <= capsys.readouterr().err.count("slow") <= 7


def test_a_terminal_gets_the_bar_at_once(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(total=3, desc="bar") as bar:
        bar.update(1)
        assert "bar" in capsys.readouterr().err
