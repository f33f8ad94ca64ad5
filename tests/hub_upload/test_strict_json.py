"""JSON of strangers: every shape is an object or one sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_upload.errors import PushError
from hub_upload.strict_json import DEEPEST, LARGEST, BadJsonError, parse_object, read_object

MALFORMED = {
    "nothing": (b"", "is not JSON"),
    "half": (b'{"a": ', "is not JSON"),
    "a list": (b"[1]", "holds a list, but it must be an object"),
    "null": (b"null", "holds nothing (null)"),
    "a number": (b"1", "holds a number"),
    "a truth value": (b"true", "holds a truth value"),
    "a text": (b'"a"', "holds a text"),
    "lists without end": (b"[" * 300_000, "is nested too deeply"),
    "objects without end": (b'{"a":' * 300_000, "is nested too deeply"),
    "deep": (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", f"more than {DEEPEST} levels deep"),
    "many digits": (b'{"a": ' + b"9" * 5000 + b"}", "thousands of digits"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not JSON"),
    "no UTF-8": (b'{"a": "\xff"}', "byte 7 is no UTF-8"),
    "a name twice": (b'{"a": {"b": 1, "b": 2}}', "has 'b' twice"),
    "NaN": (b'{"a": NaN}', "holds NaN"),
    "Infinity": (b'{"a": [-Infinity]}', "holds -Infinity"),
    "beyond floats": (b'{"a": 1e999}', "1e999, a number beyond"),
    "half a character": (b'{"a": "\\ud800"}', "half a character"),
    "too large": (b" " * (LARGEST + 1), "more than 64 MiB"),
}


@pytest.mark.parametrize(("content", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_one_sentence_with_the_files_name(content, reason, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(PushError) as error:
        read_object(tmp_path / "config.json", "config.json of it", "save it again.")
    message = str(error.value)
    assert message.startswith("config.json of it ")
    assert message.endswith(": save it again.")
    assert reason in message
    assert "\n" not in message
    assert len(message) < 500


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_any_object_is_read_as_it_is(values):
    assert parse_object(json.dumps(values).encode()) == values


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,1aeNI\\u', max_size=30).map(str.encode))
def test_any_bytes_are_an_object_or_bad_json(content):
    try:
        values = parse_object(content)
    except BadJsonError:
        return
    assert values == json.loads(content)
