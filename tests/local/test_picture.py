"""`make picture`: which lines of a run it shows, and how it draws them."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from local.picture import drawn, shown

OUTPUT = """  Deploying the template . 9.9 s

1. Set a limit
  > PUT /timeout
  < {
  <   "conversation_id": "c1",
  <   "ends_at": "2026-11-25T14:37:07Z"
  < }
  The schedule:
  {
    "Name": "n",
    "Target": {
      "Arn": "a"
    }
  }

3. Left out

4. Left out too

7. Wait
  < {
  <   "a": 1,
  <   "b": {
  <     "c": 1
  <   }
  < }
  It is over.

Every step succeeded.
"""
SHOWN = """  Deploying the template . 9.9 s

1. Set a limit
  > PUT /timeout
  < {
  <   "conversation_id": "c1",
  <   "ends_at": "2026-11-25T14:37:07Z"
  < }
  The schedule:
  …

…

7. Wait
  < …
  It is over.

Every step succeeded."""


def test_an_ellipsis_stands_for_long_json_and_for_other_steps() -> None:
    assert shown(OUTPUT) == SHOWN.splitlines()


def test_every_line_is_drawn_as_it_is() -> None:
    """The picture is well-formed XML, whatever the lines hold."""
    root = ET.fromstring(drawn(["  < {", "", '  <   "a & b"']))  # noqa: S314 - our own
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")] == ["  < {", '  <   "a & b"']
