"""The order in which Algorithm 2 takes the frames of all clips at once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aot_llava.inter_frame_transport import StepOrder


def test_the_order_that_the_module_names():
    order = StepOrder.of((3, 1, 2))
    assert order.frames == [0, 4, 3, 1, 5, 2]
    assert order.clips_at == [3, 2, 1]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(clip_lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8).map(tuple))
def test_frames_are_laid_out_by_their_distance_to_the_first_of_their_clip(clip_lengths):
    order = StepOrder.of(clip_lengths)
    steps = [step for length in clip_lengths for step in range(length)]
    clips = [clip for clip, length in enumerate(clip_lengths) for _ in range(length)]
    assert sorted(order.frames) == list(range(len(steps)))
    assert [order.frames[place] for place in order.places] == list(range(len(steps)))
    assert [steps[frame] for frame in order.frames] == sorted(steps)
    assert order.clips_at == [steps.count(step) for step in range(max(clip_lengths))]
    # The clips that have a frame at some distance are the first ones, in an order that never changes.
    at_first = [clips[frame] for frame in order.frames[: len(clip_lengths)]]
    assert [at_first[rank] for rank in order.clip_places] == list(range(len(clip_lengths)))
    start = 0
    for count in order.clips_at:
        assert [clips[frame] for frame in order.frames[start : start + count]] == at_first[:count]
        start += count
