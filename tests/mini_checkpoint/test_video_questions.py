"""The clips and questions of `mini_checkpoint.questions`: what is asked is true of what is seen."""

import math
import re
from collections import Counter, defaultdict
from functools import lru_cache

import av
import numpy as np
import pytest

from mini_checkpoint.questions import (
    COLOURS,
    QUESTION_TYPES,
    SHAPES,
    SIDE,
    ask,
    make_scene,
    object_map,
    render_clip,
    render_frame,
    save_clip,
    visible_objects,
)

SPLITS = ("train", "held_out")
WITHHELD = {("red", "triangle"), ("green", "cross"), ("blue", "circle"), ("yellow", "square")}
NUM_FRAMES = 16
FILE_FRAMES = 64
NUMBERS = ["zero", "one", "two", "three", "four", "five"]


def evenly(num_frames):
    """The times of sampled frames."""
    return [frame / (num_frames - 1) for frame in range(num_frames)]


def evenly_in_file(num_frames):
    """The times of the frames that a reader of the file takes."""
    return [frame / (FILE_FRAMES - 1) for frame in np.linspace(0, FILE_FRAMES - 1, num_frames, dtype=int)]


def nearest_colour(pixels):
    """The name of the colour that most of these pixels are."""
    middle = np.median(pixels.astype(float), axis=0)
    return min(COLOURS, key=lambda name: np.abs(middle - COLOURS[name]).sum())


def pixels_of(owners):
    """The rows and columns of each object's pixels."""
    rows, columns = np.nonzero(owners >= 0)
    of = owners[rows, columns]
    return {index: (rows[of == index], columns[of == index]) for index in set(of.tolist())}


def watch(scene):
    """What is seen in the frames of a clip, from the pixels: a {object: (colour, x, y)} for each frame."""
    frames = []
    for time, picture in zip(evenly(NUM_FRAMES), render_clip(scene, NUM_FRAMES)):
        seen = {}
        for index, (rows, columns) in pixels_of(object_map(scene, time)).items():
            box = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
            seen[index] = (nearest_colour(picture[rows, columns]), *box)
        frames.append(seen)
    return frames


def look_up(scene, times):
    """The same, from `visible_objects`."""
    return [{index: (colour, x, y) for index, colour, x, y, _ in visible_objects(scene, time)} for time in times]


@lru_cache
def questions(split, count):
    return [question for seed in range(count) for question in ask(make_scene(seed, split))]


class Witness:
    """Answers questions from what is seen alone; it shares no code with the questions."""

    def __init__(self, shapes, frames):
        self.shapes = shapes
        self.frames = frames
        self.seen = sorted({index for frame in frames for index in frame})

    def answer(self, question):
        return getattr(self, question.type)(question.text)

    def colour(self, text):
        index = self.find(re.match(r"What colour is (the \w+)\?", text)[1])
        (colour,) = self.colours(index)
        return colour

    def where(self, text):
        name, moment = re.match(r"Where is (the .+) at the (beginning|end)\? A\) top left B", text).groups()
        _, x, y = self.frames[0 if moment == "beginning" else -1][self.find(name)]
        assert min(abs(x - SIDE / 2), abs(y - SIDE / 2)) > 15
        return "ABCD"[2 * (y > SIDE / 2) + (x > SIDE / 2)]

    def count(self, text):
        plural = re.match(r"How many (\w+) are there", text)[1]
        shape = {"crosses": "cross"}.get(plural, plural[:-1])
        return NUMBERS[sum(self.shapes[index] == shape for index in self.seen)]

    def direction(self, text):
        index = self.find(re.match(r"Which way does (the .+) move", text)[1])
        places = [np.array(frame[index][1:]) for frame in self.frames if index in frame]
        across, down = places[-1] - places[0]
        assert max(abs(across), abs(down)) > 2 * min(abs(across), abs(down))
        if abs(across) > abs(down):
            return "right" if across > 0 else "left"
        return "down" if down > 0 else "up"

    def order(self, text):
        events = re.match(r"What happens first\? A\) (.+) B\) (.+) C\) (.+) Answer", text).groups()
        firsts = [self.moment(event) for event in events]
        assert len(set(firsts)) == len(firsts)
        return "ABC"[firsts.index(min(firsts))]

    def brief(self, text):
        (index,) = [index for index in self.seen if index not in self.frames[0] and index not in self.frames[-1]]
        assert 1 <= sum(index in frame for frame in self.frames) <= 0.2 * len(self.frames) + 1
        (colour,) = self.colours(index)
        return colour

    def change(self, text):
        name = re.match(r"What colour (?:does|is) (the .+) (?:become|at the end)\?", text)[1]
        before, after = self.colours(self.find(name))
        assert name.split()[1] == before
        return after

    def find(self, name):
        """The one object of this name: a shape alone, or with the colour that it begins with."""
        *colour, shape = name.split()[1:]
        (found,) = [
            index for index in self.seen if self.shapes[index] == shape and colour in ([], self.colours(index)[:1])
        ]
        return found

    def colours(self, index):
        """The colours of an object, one after the other."""
        seen = [frame[index][0] for frame in self.frames if index in frame]
        return [colour for place, colour in enumerate(seen) if place == 0 or colour != seen[place - 1]]

    def moment(self, event):
        """The first frame that shows that an event has happened."""
        name, verb = re.match(r"(the .+) (appears|vanishes|changes colour)$", event).groups()
        index = self.find(name)
        states = [frame[index][0] if index in frame else None for frame in self.frames]
        (moment,) = [place for place in range(1, len(states)) if states[place] != states[place - 1]]
        before, after = states[moment - 1], states[moment]
        assert verb == ("appears" if before is None else "vanishes" if after is None else "changes colour")
        return moment


def check(scene, frames):
    witness = Witness([thing.shape for thing in scene.objects], frames)
    for question in ask(scene):
        assert witness.answer(question) == question.answer, (scene.seed, scene.split, question)


@pytest.mark.parametrize("split", SPLITS)
def test_the_answers_are_true_of_the_pixels_of_16_frames(split):
    for seed in range(75):
        scene = make_scene(seed, split)
        check(scene, watch(scene))


@pytest.mark.parametrize("sample", [evenly, evenly_in_file])
@pytest.mark.parametrize("num_frames", [8, 16, 32])
def test_the_answers_are_true_at_other_numbers_of_frames_and_of_those_of_the_file(num_frames, sample):
    for seed in range(100):
        scene = make_scene(seed, SPLITS[seed % 2])
        check(scene, look_up(scene, sample(num_frames)))


@pytest.mark.parametrize("split", SPLITS)
def test_no_answer_is_much_more_frequent_than_the_others_of_its_type(split):
    answers = defaultdict(Counter)
    chances = defaultdict(set)
    for question in questions(split, 1500):
        answers[question.type][question.answer] += 1
        chances[question.type].add(question.num_answers)
    assert set(answers) == set(QUESTION_TYPES)
    for kind, counts in answers.items():
        assert max(counts.values()) <= 1.3 * counts.total() / len(counts), (kind, counts)
        assert counts.total() >= 900, kind
        # After a change of colour the colour that the question names is no answer.
        assert chances[kind] == {len(counts) - (kind == "change")}, kind


def test_a_clip_yields_enough_questions_that_guessing_seldom_answers():
    asked = questions("train", 1500)
    assert 6 <= len(asked) / 1500 <= 8
    assert np.mean([1 / question.num_answers for question in asked]) < 0.25


def test_the_text_alone_hardly_tells_the_answer():
    """The most frequent answer to a text in one half of the clips is not much better than chance in the other."""
    asked = [question for question in questions("train", 1500) if question.type != "order"]
    half = len(asked) // 2
    learnt = defaultdict(Counter)
    for question in asked[:half]:
        learnt[question.text][question.answer] += 1
    hits = [learnt[question.text].most_common(1)[:1] for question in asked[half:]]
    right = np.mean([bool(hit) and hit[0][0] == question.answer for hit, question in zip(hits, asked[half:])])
    assert right < 0.3


def test_training_never_shows_the_withheld_combinations_and_every_held_out_clip_does():
    looks = {split: [] for split in SPLITS}
    for split, clips in looks.items():
        for seed in range(400):
            scene = make_scene(seed, split)
            frames = look_up(scene, evenly(32))
            clips.append({(seen[0], scene.objects[index].shape) for frame in frames for index, seen in frame.items()})
    shown = Counter(look for clip in looks["train"] for look in clip)
    assert set(shown) == {(colour, shape) for colour in COLOURS for shape in SHAPES} - WITHHELD
    assert min(shown.values()) > 20
    assert all(clip & WITHHELD for clip in looks["held_out"])
    assert set.union(*looks["held_out"]) >= WITHHELD


def test_a_seed_always_makes_the_same_clip_and_splits_and_seeds_differ():
    scene = make_scene(7, "train")
    again = make_scene(7, "train")
    assert again == scene
    assert ask(again) == ask(scene)
    assert render_clip(again, 4).tobytes() == render_clip(scene, 4).tobytes()
    others = [make_scene(7, "held_out"), make_scene(8, "train")]
    for other in others:
        assert other.objects != scene.objects
        assert not np.array_equal(render_frame(other, 0.0), render_frame(scene, 0.0))


def test_a_clip_shows_evenly_spaced_moments():
    scene = make_scene(3, "train")
    clip = render_clip(scene, 5)
    assert clip.shape == (5, SIDE, SIDE, 3)
    assert clip.dtype == np.uint8
    for frame, time in zip(clip, (0.0, 0.25, 0.5, 0.75, 1.0)):
        assert np.array_equal(frame, render_frame(scene, time))
    assert np.array_equal(render_clip(scene, 1), clip[:1])


def test_objects_are_where_they_are_said_to_be_and_in_their_colours():
    for seed in range(30):
        scene = make_scene(seed, SPLITS[seed % 2])
        for time in (0.0, 0.4, 1.0):
            picture, owners = render_frame(scene, time), object_map(scene, time)
            pixels = pixels_of(owners)
            assert owners.shape == (SIDE, SIDE)
            assert owners.dtype == np.int16
            said = {index: rest for index, *rest in visible_objects(scene, time)}
            assert set(pixels) == set(said)
            for index, (colour, x, y, radius) in said.items():
                rows, columns = pixels[index]
                assert max(abs(rows - y).max(), abs(columns - x).max()) <= 1.2 * radius + 1
                assert owners[round(y), round(x)] == index
                assert nearest_colour(picture[rows, columns]) == colour
                assert min(rows.min(), columns.min()) > 0
                assert max(rows.max(), columns.max()) < SIDE - 1


def test_nothing_hides_behind_another_object_and_some_objects_collide():
    collisions = 0
    for seed in range(60):
        scene = make_scene(seed, "train")
        areas = defaultdict(list)
        touch = False
        for time in evenly(33):
            for index, (rows, _) in pixels_of(object_map(scene, time)).items():
                areas[index].append(len(rows))
            seen = visible_objects(scene, time)
            for place, (*_, x, y, radius) in enumerate(seen):
                for *_, other_x, other_y, other_radius in seen[:place]:
                    touch |= math.hypot(x - other_x, y - other_y) < 1.1 * (radius + other_radius)
        assert all(min(sizes) > 0.8 * max(sizes) for sizes in areas.values())
        collisions += touch
    assert 3 <= collisions <= 30


def test_the_camera_drift_moves_the_background_and_what_stands_still():
    still = 0
    for seed in range(40):
        scene = make_scene(seed, "train")
        (right0, down0), (right1, down1) = scene.drift(0.0), scene.drift(1.0)
        frames = [render_frame(scene, time).astype(float) for time in (0.0, 1.0)]
        free = (object_map(scene, 0.0) < 0) & (object_map(scene, 1.0) < 0)
        back = np.roll(frames[1], (down0 - down1, right0 - right1), axis=(0, 1))
        inside = np.zeros_like(free)
        inside[12:-12, 12:-12] = True
        free &= inside & np.roll(free, (down0 - down1, right0 - right1), axis=(0, 1))
        # What differs is the noise, which is at most 4 steps of light strong.
        assert np.abs(back - frames[0])[free].mean() < 5
        for index, _, x, y, _ in visible_objects(scene, 1.0):
            (x0, y0), *others = scene.objects[index].path
            if all(place == (x0, y0) for place in others):
                still += 1
                assert (x, y) == pytest.approx((x0 + right1, y0 + down1))
    assert still > 5


def test_shapes_look_like_their_names():
    """The share of its bounding box that a shape fills, and that of the box's upper quarter."""
    expected = {"circle": (0.79, 0.61), "square": (1.0, 1.0), "triangle": (0.5, 0.125), "cross": (0.54, 0.32)}
    found = defaultdict(list)
    for seed in range(60):
        scene = make_scene(seed, "train")
        owners = object_map(scene, 0.5)
        for index, *_, radius in visible_objects(scene, 0.5):
            rows, columns = np.nonzero(owners == index)
            mask = owners[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == index
            if radius > 14:
                found[scene.objects[index].shape].append((mask.mean(), mask[: round(len(mask) / 4)].mean()))
    assert set(found) == set(SHAPES)
    for shape, shares in found.items():
        np.testing.assert_allclose(np.mean(shares, axis=0), expected[shape], atol=0.05, err_msg=shape)


def test_objects_differ_from_the_background_around_them():
    for seed in range(40):
        scene = make_scene(seed, "train")
        picture, owners = render_frame(scene, 0.5).astype(float), object_map(scene, 0.5)
        background = picture[owners < 0].mean(axis=0)
        for place in pixels_of(owners).values():
            assert np.linalg.norm(np.median(picture[place], axis=0) - background) > 60


def test_the_file_holds_the_clip(tmp_path):
    scene = make_scene(5, "held_out")
    save_clip(scene, tmp_path / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].average_rate == 8
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    drawn = render_clip(scene, FILE_FRAMES)
    assert decoded.shape == drawn.shape
    errors = np.square(decoded.astype(float) - drawn).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / errors)).min() > 30


def test_a_file_in_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing is not a folder: make it"):
        save_clip(make_scene(0, "train"), tmp_path / "missing" / "clip.mp4")


def test_bad_input_is_refused_with_its_value_and_what_is_allowed():
    scene = make_scene(0, "train")
    with pytest.raises(ValueError, match=r"seed is -1: it must be 0 or more"):
        make_scene(-1, "train")
    with pytest.raises(ValueError, match=r"split is 'test': it must be one of train, held_out"):
        make_scene(0, "test")
    with pytest.raises(ValueError, match=r"num_frames is 0: it must be 1 or more"):
        render_clip(scene, 0)
    for read in (render_frame, object_map, visible_objects):
        for time in (-0.1, 1.5, float("nan")):
            with pytest.raises(ValueError, match=rf"time is {time}: a clip runs from 0 to 1"):
                read(scene, time)
