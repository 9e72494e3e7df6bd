"""What is printed has no effect on a terminal."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.core.console import echo, echo_notes
from mocme.core.text import json_escape, visible

ACTS = "\x1b]0;title\x07\x1b[2J\r\x9b31m\u202e\u2066\u200b\ufeff\u2028\ud800\0\x7f"

SIGNS = {char for char in ACTS if not char.isprintable()}


@given(st.text(st.characters()))
def test_no_character_acts_on_a_terminal(text: str) -> None:
    shown = visible(text)
    shown.encode()
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(shown) & set(
        "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
    )
    if text.isprintable():
        assert shown == text
    assert visible(shown) == shown


def test_escapes_are_those_of_python_and_of_json() -> None:
    assert visible("a\x1bé\u202eb\U000e0001\n") == "a\\x1bé\\u202eb\\U000e0001\\n".replace(
        "\\n", "\\x0a"
    )
    assert visible("a\nb", keep="\n") == "a\nb"
    text = json.dumps({"a": ACTS}, ensure_ascii=False)
    assert json.loads(visible(text, "\n", json_escape)) == {"a": ACTS}


def test_joiners_and_spaces_within_words_stay() -> None:
    for word in ("\u0915\u094d\u200d\u0937", "\u0645\u06cc\u200c\u062e", "10\u00a0km", "a\u3000b"):
        assert visible(word) == word


def test_lines_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"one{ACTS}\ntwo")
    echo_notes([f"note {ACTS}"])
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not SIGNS & set(text)
        assert "\\x1b]0;title\\x07" in text
    assert out.count("\n") == 2


def test_lines_of_the_servers_log_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    from mocme.serving.log import configure_logging

    log = logging.getLogger("mocme.serving")
    state = log.handlers, log.propagate, log.level
    try:
        for kind in ("text", "json"):
            configure_logging(kind)  # type: ignore[arg-type]
            log.info("path %s", f"/a{ACTS}\n12:00:00 INFO forged")
            try:
                raise ValueError(f"bad{ACTS}\n12:00:00 INFO forged")
            except ValueError:
                log.exception("failed")
            sys.stderr.flush()
            lines = capsys.readouterr().err.splitlines()
            assert not SIGNS & set("".join(lines))
            assert not [line for line in lines if line.startswith("12:00:00 INFO forged")]
            assert "\\x1b" in lines[0] or "\\u001b" in lines[0]
    finally:
        log.handlers, log.propagate = state[0], state[1]
        log.setLevel(state[2])
