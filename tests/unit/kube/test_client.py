"""What is sent for a server-side apply."""

from __future__ import annotations

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.kube.client import _as_yaml


# YAML bounds a key in one line to 1024 characters as written, up to ten for one character; the API's keys are ASCII of
# at most 317.
@given(st.dictionaries(st.text(max_size=100), st.text()))
def test_every_text_arrives_as_it_is(data: dict[str, str]) -> None:
    # PyYAML reads surrogate pairs as two characters, as the API server's reader refuses them.
    assert yaml.safe_load(_as_yaml(data)) == data


def test_characters_beyond_the_first_plane_are_written_as_one() -> None:
    assert _as_yaml({"a": "😀"}) == '{"a": "\\U0001f600"}'
    assert json.loads(_as_yaml({"a": "\\ud83d\\ude00"})) == {"a": "\\ud83d\\ude00"}
