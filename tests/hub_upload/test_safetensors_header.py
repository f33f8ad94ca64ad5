"""Headers of safetensors files, held against what the safetensors library takes."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hub_upload.safetensors_header import BadHeaderError, Tensor, header_bytes, read_header


def check(content):
    """The header of a file of these bytes, and how many of them were asked for."""
    asked = []

    def read(first, count):
        asked.append(first + count)
        return content[first : first + count]

    return read_header(read, len(content)), max(asked)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    file = tmp_path_factory.mktemp("sound") / "model.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.ones(5, dtype=torch.bfloat16)}, file, metadata={"format": "pt"})
    return file.read_bytes()


def with_header(values, data=b"\0" * 34):
    return header_bytes(values) + data


def tensor(dtype="F32", shape=(2, 3), place=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


def test_a_sound_file_is_told_without_reading_its_data(sound):
    header, asked = check(sound)
    assert header.tensors == {"a": Tensor("F32", (2, 3)), "b": Tensor("BF16", (5,))}
    assert asked == header.length == len(sound) - 34


REST = tensor("BF16", (5,), (24, 34))
BAD = {
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
    "nothing": (b"", "no safetensors file"),
    "seven bytes": (b"1234567", "no safetensors file"),
    "garbage": (bytes(range(200, 250)), "no safetensors file"),
    "a length beyond the file": ((1 << 20).to_bytes(8, "little") + b"{}", "cut short in its header"),
    "a header that is no object": ((2).to_bytes(8, "little") + b"[]", "its header is no JSON object"),
    "a header of garbage": ((4).to_bytes(8, "little") + b"{\xff\xfe}", "damaged header"),
    "a name twice": ((17).to_bytes(8, "little") + b'{"a":{}, "a":{} }', "has 'a' twice"),
    "no dtype": (with_header({"a": {"shape": [1], "data_offsets": [0, 34]}}), "'a' is not told by dtype"),
    "no object": (with_header({"a": [1]}), "'a' is not told by dtype"),
    "an unknown dtype": (with_header({"a": tensor("F12"), "b": REST}), "of type 'F12'"),
    "a dtype that is none": (with_header({"a": tensor(["F32"]), "b": REST}), "of type ['F32']"),
    "a shape of texts": (with_header({"a": tensor(shape=("2", "3")), "b": REST}), "are no counts"),
    "a negative shape": (with_header({"a": tensor(shape=(-2, -3)), "b": REST}), "are no counts"),
    "a shape that is too large": (with_header({"a": tensor(shape=(1 << 63, 1)), "b": REST}), "are no counts"),
    "another size than the shape's": (with_header({"a": tensor(shape=(2, 2)), "b": REST}), "'a' has 24 bytes"),
    "another size than the dtype's": (with_header({"a": tensor("F16"), "b": REST}), "'a' has 24 bytes"),
    "an overlap": (with_header({"a": tensor(), "b": tensor("BF16", (5,), (20, 30))}), "'b' overlaps another"),
    "a gap": (with_header({"a": tensor(), "b": tensor("BF16", (3,), (28, 34))}), "'b' leaves a gap"),
    "data cut short": (with_header({"a": tensor(), "b": REST}, b"\0" * 33), "is cut short"),
    "data too long": (with_header({"a": tensor(), "b": REST}, b"\0" * 35), "longer than it says"),
    "metadata of numbers": (with_header({"__metadata__": {"a": 1}, "a": tensor(), "b": REST}), "else than texts"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_in_one_sentence(content, reason):
    with pytest.raises(BadHeaderError) as error:
        check(content)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_safetensors_refuses_is_refused(sound, tmp_path, data):
    """Files with changed values, changed bytes, or cut."""
    values = json.loads(sound[8:-34])
    name = data.draw(st.sampled_from(["a", "b"]))
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
    numbers = st.lists(st.sampled_from([-1, 0, 2, 3, 5, 10, 24, 34, 48, 1 << 64]), max_size=3)
    values[name][field] = data.draw(st.sampled_from(["F16", "F32", "I8", ""]) if field == "dtype" else numbers)
    content = data.draw(st.sampled_from([sound, with_header(values, sound[-34:])]))
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["as it is", "cut", "changed"]))
    if kind == "cut":
        content = content[:place]
    elif kind == "changed":
        content = content[:place] + bytes([data.draw(st.integers(0, 255))]) + content[place + 1 :]
    file = tmp_path / "file.safetensors"
    file.write_bytes(content)
    try:
        header, _ = check(content)
    except BadHeaderError:
        return
    try:
        with safe_open(file, "pt") as opened:
            assert set(opened.keys()) == set(header.tensors)
    except SafetensorError as error:
        raise AssertionError(f"safetensors refuses what was taken: {error}") from error
