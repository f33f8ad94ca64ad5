"""Prompts with another number of placeholders, against a rebuild with plain lists."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_aot_llava.column_layout import PADDING, resized_layout, take_columns
from modeling_aot_llava.placeholder_spans import find_placeholder_spans
from modeling_aot_llava.prompt import Prompt

VIDEO, PAD = -7, -9


@st.composite
def batches(draw):
    """Rows of text and videos of any length, never back to back: [("text", 3), ("video", 5), ...]; one video at least.

    Some rows begin or end with a video, and some have none.
    """
    length, row_lengths = st.integers(1, 5), st.lists(st.integers(0, 3), min_size=1, max_size=3)
    rows = []
    for num_videos in draw(row_lengths.filter(any)):
        parts = [("text", draw(length))]
        for _ in range(num_videos):
            parts += [("video", draw(length)), ("text", draw(length))]
        first = draw(st.integers(0, 1)) if num_videos else 0
        last = draw(st.integers(0, 1)) if num_videos else 0
        rows.append(parts[first : len(parts) - last])
    return rows


def write(rows, padding_side, extra_padding=0):
    """The ids and the mask of a padded batch as lists; each text id occurs once."""
    text_ids = itertools.count(1)
    ids = [
        [VIDEO if kind == "video" else next(text_ids) for kind, length in row for _ in range(length)] for row in rows
    ]
    width = max(len(row) for row in ids) + extra_padding
    mask = [[1] * len(row) for row in ids]
    return [pad(row, width, PAD, padding_side) for row in ids], [pad(row, width, 0, padding_side) for row in mask]


def pad(values, width, padding, side):
    missing = [padding] * (width - len(values))
    return missing + values if side == "left" else values + missing


def is_video(rows, side="left"):
    return torch.tensor(write(rows, side)[0]) == VIDEO


def with_lengths(rows, lengths):
    remaining = iter(lengths)
    return [[(kind, next(remaining) if kind == "video" else length) for kind, length in row] for row in rows]


def video_lengths(rows):
    return [length for row in rows for kind, length in row if kind == "video"]


@given(batches(), st.sampled_from(["left", "right"]), st.integers(0, 3), st.data())
def test_resized_batch_equals_one_rebuilt_with_lists(rows, side, extra_padding, data):
    ids, mask = (torch.tensor(values) for values in write(rows, side, extra_padding))
    new_lengths = [data.draw(st.integers(1, 9)) for _ in video_lengths(rows)]
    layout = resized_layout(mask, find_placeholder_spans(ids == VIDEO, len(new_lengths)), new_lengths)

    # A batch without any padding tells no side; then the left is right for generation.
    expected_ids, expected_mask = write(with_lengths(rows, new_lengths), "left" if mask.all() else side)
    assert take_columns(ids, layout, PAD).tolist() == expected_ids
    assert take_columns(mask, layout, 0).tolist() == expected_mask


@given(batches(), st.sampled_from(["left", "right"]))
def test_spans_are_the_videos_in_reading_order(rows, side):
    videos, lengths = is_video(rows, side), video_lengths(rows)
    spans = find_placeholder_spans(videos, len(lengths))
    assert [span.length for span in spans] == lengths
    assert [(span.row, span.start) for span in spans] == sorted((span.row, span.start) for span in spans)
    covered = torch.zeros_like(videos)
    for span in spans:
        covered[span.row, span.start : span.start + span.length] = True
    assert torch.equal(covered, videos)


@given(st.integers(1, 6), st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any), st.integers(0, 2))
def test_videos_back_to_back_share_their_run_evenly(length, videos_per_row, gap):
    rows = [[("text", gap)] + [("video", length)] * videos + [("text", 1)] for videos in videos_per_row]
    spans = find_placeholder_spans(is_video(rows), sum(videos_per_row))
    assert [span.length for span in spans] == [length] * sum(videos_per_row)
    assert [span.row for span in spans] == [row for row, videos in enumerate(videos_per_row) for _ in range(videos)]


@pytest.mark.parametrize(
    ("runs", "num_videos"),
    [([], 1), ([4], 3), ([4, 4], 1), ([4, 2], 3 + 1), ([3, 5], 4), ([1], 2)],
    ids=["no run", "indivisible", "a run too many", "uneven", "run of another size", "fewer placeholders than videos"],
)
def test_placeholders_that_cannot_be_shared_out_are_refused_with_both_counts(runs, num_videos):
    row = [("text", 1)]
    for length in runs:
        row += [("video", length), ("text", 1)]
    with pytest.raises(ValueError, match=rf"\b{len(runs)} runs.*\b{num_videos} videos"):
        find_placeholder_spans(is_video([row]), num_videos)


def test_taking_columns_keeps_trailing_dimensions_dtype_and_gradient():
    values = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    taken = take_columns(values, torch.tensor([[PADDING, 0, 0, 2], [1, 1, PADDING, PADDING]]), 0)
    assert taken.dtype == torch.float64
    assert torch.equal(taken[0, 1:], values[0, [0, 0, 2]])
    assert torch.equal(taken[1, :2], values[1, [1, 1]])
    assert not taken[0, 0].any()
    taken.sum().backward()
    assert torch.equal(values.grad[0, :, 0], torch.tensor([2.0, 0, 1], dtype=torch.float64))


def test_one_row_of_values_serves_all_rows():
    layout = torch.tensor([[0, 1], [PADDING, 2]])
    assert take_columns(torch.tensor([[5, 6, 7]]), layout, 0).tolist() == [[5, 6], [0, 7]]


def test_gaps_inside_a_row_stay_gaps():
    mask = torch.tensor([[0, 1, 0, 1, 1, 1, 1]])
    ids = torch.tensor([[PAD, 1, 2, VIDEO, VIDEO, VIDEO, 3]])
    layout = resized_layout(mask, find_placeholder_spans(ids == VIDEO, 1), [1])
    assert take_columns(ids, layout, PAD).tolist() == [[1, 2, VIDEO, 3]]
    assert take_columns(mask, layout, 0).tolist() == [[1, 0, 1, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_row_without_any_token_tells_no_side(side, empty):
    """As dummy rows of a batch: a left-padded batch stays left-padded."""
    ids = [pad(row, 5, PAD, side) for row in ([1, VIDEO, VIDEO, 2], [3, 4])]
    mask = [pad([1] * length, 5, 0, side) for length in (4, 2)]
    ids.insert(empty, [PAD] * 5)
    mask.insert(empty, [0] * 5)
    ids, mask = torch.tensor(ids), torch.tensor(mask)
    layout = resized_layout(mask, find_placeholder_spans(ids == VIDEO, 1), [1])
    expected, counts = [pad(row, 3, PAD, side) for row in ([1, VIDEO, 2], [3, 4])], [3, 2]
    expected.insert(empty, [PAD] * 3)
    counts.insert(empty, 0)
    assert take_columns(ids, layout, PAD).tolist() == expected
    assert take_columns(mask, layout, 0).sum(-1).tolist() == counts


def refitted(ids, positions, new_lengths, mask=None):
    ids = torch.tensor([ids])
    mask = torch.ones_like(ids) if mask is None else torch.tensor([mask])
    prompt = Prompt(input_ids=ids, attention_mask=mask, position_ids=torch.tensor([positions]))
    return prompt.with_lengths(find_placeholder_spans(ids == VIDEO, len(new_lengths)), new_lengths, PAD)


@pytest.mark.parametrize(
    ("positions", "new_lengths", "expected"),
    [
        ([0, 1, 2, 3, 4, 5], [1], [0, 1, 2, 3]),
        ([0, 1, 2, 3, 9, 10], [1], [0, 1, 7, 8]),
        ([0, 5, 6, 7, 8, 20], [2], [0, 5, 6, 7, 19]),
        ([7, 8, 9, 10, 11, 12], [3], [7, 8, 9, 10, 11, 12]),
        ([0, 1, 2, 3, 0, 1], [1], [0, 1, 0, 1]),
        ([0, 1, 2, 3, 9, 10], [5], [0, 1, 2, 3, 4, 5, 11, 12]),
    ],
    ids=["consecutive", "gap behind the video", "gaps around", "as many", "packed", "more placeholders"],
)
def test_gaps_of_the_callers_positions_stay(positions, new_lengths, expected):
    """Only what is removed leaves no gap; where positions begin again they do so in the new row."""
    fitted = refitted([1, VIDEO, VIDEO, VIDEO, 2, 3], positions, new_lengths)
    assert fitted.position_ids.tolist() == [expected]


def test_gaps_between_two_videos_of_a_padded_row_stay():
    ids = [PAD, 1, VIDEO, VIDEO, 2, VIDEO, VIDEO, VIDEO, 3]
    fitted = refitted(ids, [0, 0, 1, 2, 10, 11, 12, 13, 30], [1, 2], mask=[0] + [1] * 8)
    assert fitted.input_ids.tolist() == [[1, VIDEO, 2, VIDEO, VIDEO, 3]]
    assert fitted.position_ids.tolist() == [[0, 1, 9, 10, 11, 28]]


def test_a_row_that_begins_with_a_video_keeps_its_first_position():
    assert refitted([VIDEO, VIDEO, VIDEO, 2], [4, 5, 6, 7], [1]).position_ids.tolist() == [[4, 5]]
