"""Dynamic clips (Sec. 8, DySeg): where a video is cut, and which cuts give way.

Frames are unit vectors in the plane, so the similarity of neighbours is the cosine of the angle
between them; `turns` are these angles in degrees.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.naive_aot import naive_dynamic_clips

from modeling_aot_llava.frame_clips import dynamic_clip_lengths


def turning_frames(turns):
    angle, frames = 0.0, [(1.0, 0.0)]
    for turn in turns:
        angle += math.radians(turn)
        frames.append((math.cos(angle), math.sin(angle)))
    return torch.tensor(frames)


def test_the_least_similar_neighbours_are_parted():
    frames = turning_frames([1, 30, 2, 20, 3, 10])
    assert dynamic_clip_lengths(frames, 1, 0.0, 7) == (7,)
    assert dynamic_clip_lengths(frames, 2, 0.0, 7) == (2, 5)
    assert dynamic_clip_lengths(frames, 3, 0.0, 7) == (2, 2, 3)
    assert dynamic_clip_lengths(frames, 4, 0.0, 7) == (2, 2, 2, 1)


def test_dissimilar_neighbours_are_parted_however_few_clips_are_asked_for():
    # cos 37 degrees is 0.799, cos 36 degrees is 0.809.
    frames = turning_frames([36, 37, 1, 37, 36])
    assert dynamic_clip_lengths(frames, 1, 0.8, 6) == (2, 2, 2)


def test_the_threshold_does_not_take_cuts_away():
    frames = turning_frames([1, 2, 3, 2, 37])
    assert dynamic_clip_lengths(frames, 4, 0.8, 6) == (2, 1, 2, 1)


def test_the_least_dissimilar_cuts_give_way_first():
    frames = turning_frames([50, 90, 40, 70, 60])
    assert dynamic_clip_lengths(frames, 1, 0.8, 6) == (1,) * 6
    assert dynamic_clip_lengths(frames, 1, 0.8, 4) == (2, 2, 1, 1)
    assert dynamic_clip_lengths(frames, 1, 0.8, 2) == (2, 4)
    assert dynamic_clip_lengths(frames, 1, 0.8, 1) == (6,)


def test_of_equally_similar_neighbours_the_earlier_are_parted():
    still = torch.ones(6, 4)
    assert dynamic_clip_lengths(still, 3, 0.8, 6) == (1, 1, 4)
    opposite = torch.tensor([1.0, -1.0] * 3).view(6, 1)
    assert dynamic_clip_lengths(opposite, 1, 0.8, 3) == (1, 1, 4)


def test_a_similarity_at_the_threshold_is_no_cut():
    orthogonal = torch.eye(4)
    assert dynamic_clip_lengths(orthogonal, 1, 0.0, 4) == (4,)
    assert dynamic_clip_lengths(orthogonal, 1, 1e-6, 4) == (1, 1, 1, 1)


def test_one_frame_is_one_clip():
    assert dynamic_clip_lengths(torch.ones(1, 4), 1, 0.8, 1) == (1,)


def test_blank_frames_are_similar_to_nothing():
    frames = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert dynamic_clip_lengths(frames, 1, 0.8, 5) == (1, 1, 1, 2)


@pytest.mark.parametrize("scale", [1e-6, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_directions_count(scale, dtype):
    frames = (turning_frames([1, 60, 1, 50, 1]) * scale).to(dtype)
    assert dynamic_clip_lengths(frames, 1, 0.8, 6) == (2, 2, 2)


def test_lengths_are_plain_integers():
    lengths = dynamic_clip_lengths(turning_frames([1, 60, 1]), 2, 0.8, 4)
    assert isinstance(lengths, tuple)
    assert all(type(length) is int for length in lengths)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data(), num_frames=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_equals_the_reference(data, num_frames, seed):
    generator = torch.Generator().manual_seed(seed)
    walk = torch.randn(num_frames, 3, generator=generator).cumsum(0)
    num_clips = data.draw(st.integers(1, max(1, num_frames // 2)))
    max_clips = data.draw(st.integers(num_clips, num_frames))
    threshold = data.draw(st.sampled_from([-1.0, 0.0, 0.5, 0.8, 1.0]))
    lengths = dynamic_clip_lengths(walk, num_clips, threshold, max_clips)
    assert lengths == naive_dynamic_clips(walk, num_clips, threshold, max_clips)
    assert sum(lengths) == num_frames
    assert num_clips <= len(lengths) <= max_clips
