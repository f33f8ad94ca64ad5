"""`aot-llava visualize`: the map of what was kept, the contact sheet, the page, and what can go wrong."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from command_results import assert_one_line
from PIL import Image
from random_checkpoint import random_model, random_processor, save_random_checkpoint
from small_model import AOT, SMALL, VARYING, video_features
from test_command_line import MINI_SEED
from typer.testing import CliRunner

from aot_llava_cli import answer
from aot_llava_cli.__main__ import app
from aot_llava_cli.drawing import captions, contact_sheet
from aot_llava_cli.drawing.captions import Part
from aot_llava_cli.drawing.compressed_video import CompressedVideo, compress, read_frames
from aot_llava_cli.drawing.contact_sheet import draw_contact_sheet
from aot_llava_cli.drawing.frame_picture import (
    GLOBAL_ANCHOR,
    KEPT_EDGE,
    LOCAL_ANCHOR,
    MERGED_ALONG_TIME,
    paint_anchors,
    paint_tokens,
)
from aot_llava_cli.drawing.html_page import make_page
from aot_llava_cli.drawing.legend_swatch import swatch
from aot_llava_cli.drawing.sheet_layout import WIDTH, lay_out
from aot_llava_cli.drawing.token_map import FrameMap, map_frames
from aot_llava_cli.mini import MINI_CHECKPOINT, MINI_CLIP
from hub_upload import whole_file
from mini_checkpoint.questions import make_scene, object_map
from modeling_aot_llava import AOTLlavaOnevisionConfig, AOTLlavaOnevisionProcessor
from modeling_aot_llava.spatiotemporal_pruning import VideoTokens
from modeling_aot_llava.token_anchors import TokenAnchors

PNG = b"\x89PNG\r\n\x1a\n an older one"
WIDE, HIGH, LENGTH = 128, 64, 40
# Of an object that moved, too: tokens are compared, not places.
ALIKE = "like a token of the clip's first frame, even elsewhere: "


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A wide video: noise that a cut replaces half-way, and a bright square that moves along."""
    path = tmp_path_factory.mktemp("clip") / "wide clip.mp4"
    random = np.random.default_rng(0)
    scenes = random.integers(0, 120, (2, HIGH // 8, WIDE // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDE, HIGH, "yuv420p"
        for index in range(LENGTH):
            picture = scenes[index * 2 // LENGTH].copy()
            picture[20:44, 2 * index : 2 * index + 24] = (250, 240, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small checkpoint: 7 x 7 patches a frame, pooled to 4 x 4."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_random_checkpoint(folder, **SMALL, **AOT)
    return folder


def compress_clip(model, processor, clip, num_frames):
    return compress(model, processor, clip, read_frames(processor, clip, num_frames))


@pytest.fixture
def compressed(model, processor, clip):
    """8 frames in 4 clips."""
    return compress_clip(model, processor, clip, 8)


def make_frame(seed=0, grid=7, pooled=4, opens_clip=False):
    """A frame map in which every kind of patch and token occurs."""
    random = np.random.default_rng(seed)
    patches, tokens = random.integers(0, 3, (grid, grid)), random.integers(0, 3, (pooled, pooled))
    patches[0, :3] = tokens[0, :3] = 0, 1, 2
    return FrameMap(0, opens_clip, patches == 1, patches == 2, tokens == 1, tokens == 2, times_read=1)


def make_video(clip_lengths, size=(96, 96)):
    """A compressed video of noise, without a model."""
    frames = [
        FrameMap(clip, step == 0, frame.local_anchors, frame.global_anchors, frame.kept, frame.merged_along_time, 1)
        for clip, length in enumerate(clip_lengths)
        for step in range(length)
        for frame in [make_frame(seed=100 * clip + step)]
    ]
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (len(frames), size[1], size[0], 3), dtype=np.uint8)
    return CompressedVideo(
        name="noise.mp4",
        pictures=[Image.fromarray(picture) for picture in noise],
        frames=frames,
        clip_lengths=tuple(clip_lengths),
        tokens_before=16 * len(frames),
        tokens_after=sum(frame.num_tokens for frame in frames),
        config=AOTLlavaOnevisionConfig(),
    )


# The map


def test_the_map_tells_first_frames_from_later_ones():
    masks = torch.rand(4, 5, 16) < 0.5
    kept, temporal = masks[0], masks[0] & masks[1]
    anchors = TokenAnchors(local=masks[2], global_=masks[3] & ~masks[2], count=16)
    video = VideoTokens(torch.zeros(0, 8), anchors, kept, temporal, clip_lengths=(3, 2))
    frames = map_frames(video, AOTLlavaOnevisionConfig())
    assert [frame.clip for frame in frames] == [0, 0, 0, 1, 1]
    assert [frame.opens_clip for frame in frames] == [True, False, False, True, False]
    for number, frame in enumerate(frames):
        is_first = number in (0, 3)
        for cell in range(16):
            row, column = divmod(cell, 4)
            assert frame.local_anchors[row, column] == anchors.local[number, cell]
            assert frame.global_anchors[row, column] == anchors.global_[number, cell]
            assert frame.kept[row, column] == (kept if is_first else temporal)[number, cell]
            went = not is_first and kept[number, cell] and not temporal[number, cell]
            assert frame.merged_along_time[row, column] == went


@pytest.mark.parametrize("num_frames", [1, 2, 5, 16])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"clip_segmentation": "dynamic"},
        {"clip_segmentation": "dynamic", "dynamic_similarity_threshold": 1.0},
        {"inter_frame_aggregation": "none"},
        {"anchor_selection": "random"},
        {"recipe": "released", "clip_segmentation": "dynamic"},
        *VARYING.values(),
    ],
    ids=str,
)
def test_the_frames_counts_sum_to_what_the_language_model_reads(fields, num_frames, model, processor, configure, clip):
    configure(**fields)
    video = compress_clip(model, processor, clip, num_frames)
    question = answer.read_question(processor, clip, "What?", num_frames=num_frames)
    with torch.no_grad():
        read = video_features(model(**question))
    newline = 1
    assert sum(frame.num_tokens for frame in video.frames) == video.tokens_after == len(read) - newline
    assert video.tokens_before == 16 * num_frames == 16 * len(video.frames)
    assert sum(video.clip_lengths) == num_frames


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_the_map_says_where_each_token_comes_from(recipe, model, stock, processor, configure, clip):
    """Without aggregation the tokens are the stock model's at the kept positions."""
    configure(recipe=recipe, intra_frame_aggregation="none", inter_frame_aggregation="none")
    inputs = processor(text="<video>", videos=[str(clip)], num_frames=8, return_tensors="pt")
    pixels = inputs["pixel_values_videos"]
    with torch.no_grad():
        (video,) = model.model.compress_videos(pixels)
        full = stock.model.get_video_features(pixels).pooler_output[0][: 8 * 16].view(8, 4, 4, -1)
    rows, again = [], []
    for number, frame in enumerate(map_frames(video, model.config)):
        if frame.opens_clip:
            rows += again
            again = [full[number, frame.kept]] if recipe == "released" else []
        rows.append(full[number, frame.kept])
    torch.testing.assert_close(video.tokens, torch.cat(rows + again))


def test_the_pictures_are_the_sampled_frames_in_their_own_proportions(compressed):
    assert len(compressed.pictures) == 8
    assert {picture.size for picture in compressed.pictures} == {(WIDE, HIGH)}
    for picture, index in zip(compressed.pictures, np.linspace(0, LENGTH - 1, 8, dtype=int)):
        bright = np.asarray(picture)[32, :, 0] > 200
        assert abs(np.flatnonzero(bright).mean() - (2 * index + 11.5)) < 2


def test_what_no_patch_covers_is_cut_off(clip):
    """4 patches of 14 pixels cover 56 of 60: the model never sees the rest."""
    model = random_model(vision_config={"image_size": 60, "patch_size": 14}, **AOT)
    processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
    video = compress_clip(model, processor, clip, 2)
    assert {picture.size for picture in video.pictures} == {(round(WIDE * 56 / 60), round(HIGH * 56 / 60))}


# A frame's pictures


def test_anchors_are_clear_with_an_outline_in_their_colour_and_the_other_patches_dimmed():
    frame, side = make_frame(), 8
    source = np.random.default_rng(1).integers(100, 256, (7 * side, 7 * side, 3), dtype=np.uint8)
    painted = np.asarray(paint_anchors(Image.fromarray(source), frame, (7 * side, 7 * side)))
    kinds = set()
    for row in range(7):
        for column in range(7):
            here = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
            cell, original = painted[here], source[here]
            edge = np.ones((side, side), dtype=bool)
            edge[1:-1, 1:-1] = False
            colour = {1: LOCAL_ANCHOR, 2: GLOBAL_ANCHOR}.get(
                frame.local_anchors[row, column] + 2 * frame.global_anchors[row, column]
            )
            kinds.add(colour)
            if colour is None:
                assert (cell < 0.8 * original).all()
            else:
                assert (cell[edge] == colour).all()
                assert (cell[~edge] == original[~edge]).all()
    assert kinds == {None, LOCAL_ANCHOR, GLOBAL_ANCHOR}


def test_kept_tokens_are_clear_merged_ones_striped_and_the_others_dimmed():
    frame, side = make_frame(), 16
    source = np.random.default_rng(1).integers(100, 200, (4 * side, 4 * side, 3), dtype=np.uint8)
    painted = np.asarray(paint_tokens(Image.fromarray(source), frame, (4 * side, 4 * side)))
    for row in range(4):
        for column in range(4):
            here = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
            cell, original = painted[here], source[here]
            is_striped = (cell == MERGED_ALONG_TIME).all(-1)
            if frame.kept[row, column]:
                assert (cell[2:-2, 2:-2] == original[2:-2, 2:-2]).all()
                is_alone = np.pad(frame.kept, 1)[row : row + 3, column : column + 3].sum() == 1
                assert (cell[0] == KEPT_EDGE).all() or not is_alone
            elif frame.merged_along_time[row, column]:
                assert 0.2 < is_striped.mean() < 0.5
                assert (cell[~is_striped] < 0.8 * original[~is_striped]).all()
            else:
                assert not is_striped.any()
                assert (cell < 0.8 * original).all()


@pytest.mark.parametrize("size", [(100, 57), (57, 100), (9, 8)])
def test_cells_of_any_size_are_where_they_belong(size):
    frame = make_frame(grid=27, pooled=14)
    picture = Image.new("RGB", size, (200, 200, 200))
    tokens = np.asarray(paint_tokens(picture, frame, size))
    assert tokens.shape == (size[1], size[0], 3)
    for row in range(14 if min(size) > 14 else 0):
        for column in range(14):
            y, x = int((row + 0.5) * size[1] / 14), int((column + 0.5) * size[0] / 14)
            assert (tokens[y, x] >= 200).all() == frame.kept[row, column]


def test_a_dark_frame_shows_its_kept_tokens_too():
    frame = make_frame()
    painted = np.asarray(paint_tokens(Image.new("RGB", (64, 64)), frame, (64, 64)))
    assert (painted[:16, 16:32] == 255).any()
    assert (painted[:16, :15] == 0).all()


# The sheet


@pytest.mark.parametrize(
    "clip_lengths", [(1,), (2, 2), (1,) * 24, (4,) * 8, (20, 1, 3), (16,) * 8, (3, 40, 1, 1, 20), (2,) * 64]
)
@pytest.mark.parametrize("aspect_ratio", [1, 16 / 9, 9 / 16, 30])
def test_every_frame_has_its_place(clip_lengths, aspect_ratio):
    layout = lay_out(clip_lengths, aspect_ratio)
    runs = [run for line in layout.lines for run in line]
    assert [number for run in runs for number in run.frames] == list(range(sum(clip_lengths)))
    starts = np.cumsum([0, *clip_lengths])
    for run in runs:
        assert starts[run.clip] <= run.frames[0] <= run.frames[-1] < starts[run.clip + 1]
    for line in layout.lines:
        assert sum(layout.run_width(run) for run in line) <= layout.width <= WIDTH
    for clip, length in enumerate(clip_lengths):
        if length <= 8:
            assert sum(run.clip == clip for run in runs) == 1
    width, height = layout.cell
    assert width == pytest.approx(aspect_ratio * height, abs=max(1, aspect_ratio))


@pytest.mark.parametrize("num_frames", [16, 32, 64, 65, 128])
def test_a_frame_is_as_large_among_many_as_among_few(num_frames):
    """A sheet of few frames is 1,800 pixels wide; at half this size anchors and tokens could not be told apart."""
    layout = lay_out((num_frames // 8,) * 8, 1)
    assert 190 <= layout.cell[0] <= 420
    assert layout.width <= (1800 if num_frames <= 64 else 3600)


def places(part, sheet):
    """The upper left corners of a picture in another one, as (y, x)."""
    part, sheet = np.asarray(part), np.asarray(sheet)
    height, width, _ = part.shape
    first_row = re.compile(re.escape(part[0].tobytes()), re.DOTALL)
    return [
        (y, match.start() // 3)
        for y in range(len(sheet) - height + 1)
        for match in first_row.finditer(sheet[y].tobytes())
        if (sheet[y : y + height, match.start() // 3 :][:, :width] == part).all()
    ]


@pytest.mark.parametrize(("clip_lengths", "size"), [((3, 2), (96, 96)), ((4, 4, 4), (160, 90)), ((40,), (45, 80))])
def test_the_sheet_shows_each_frame_twice_in_order(clip_lengths, size):
    video = make_video(clip_lengths, size)
    sheet = draw_contact_sheet(video)
    cell = lay_out(clip_lengths, size[0] / size[1]).cell
    last = (0, 0)
    for picture, frame in zip(video.pictures, video.frames):
        (above,) = places(paint_anchors(picture, frame, cell), sheet)
        (below,) = places(paint_tokens(picture, frame, cell), sheet)
        assert above[1] == below[1]
        assert above[0] + cell[1] < below[0]
        assert last < above
        last = above
        edge = np.asarray(sheet)[above[0] - 2, above[1] + 5]
        assert (tuple(edge) == contact_sheet.FIRST_FRAME) == frame.opens_clip
    assert contact_sheet.SMALLEST_WIDTH <= sheet.width <= WIDTH


def test_the_legend_shows_what_the_frames_show():
    sheet = draw_contact_sheet(make_video((2, 2)))
    for part in Part:
        assert places(swatch(part), sheet)
    colours = {
        part: set(map(tuple, np.asarray(swatch(part)).reshape(-1, 3)))
        for part in (Part.LOCAL_ANCHOR, Part.GLOBAL_ANCHOR, Part.MERGED_ALONG_TIME, Part.KEPT)
    }
    for part, colour in zip(colours, (LOCAL_ANCHOR, GLOBAL_ANCHOR, MERGED_ALONG_TIME, KEPT_EDGE)):
        assert [other for other in colours if colour in colours[other]] == [part]


@pytest.mark.parametrize("num_frames", [1, 128])
def test_one_frame_and_many_fit_on_a_sheet(num_frames):
    sheet = draw_contact_sheet(make_video((num_frames,), size=(54, 54)))
    assert contact_sheet.SMALLEST_WIDTH <= sheet.width <= WIDTH
    assert sheet.height < 2 * sheet.width


def test_the_captions_count(compressed):
    assert captions.headline(compressed) == "wide clip.mp4: 32 of 128 video tokens (25.0 %)"
    first, *_, last = (int(text.split(": ")[1].split()[0]) for text in _captions(compressed))
    assert (first, last) == (compressed.frames[0].num_tokens, compressed.frames[-1].num_tokens)
    in_clips = [int(re.search(r": (\d+) token", captions.clip_title(compressed, clip))[1]) for clip in range(4)]
    assert sum(in_clips) == 32


def test_tokens_that_are_read_twice_count_twice(model, processor, configure, clip):
    configure(recipe="released", num_anchors=16)
    video = compress_clip(model, processor, clip, 4)
    number = int(video.frames[0].kept.sum())
    assert captions.frame_captions(video, 0)[0] == f"frame 1: {number} + {number} of 16 tokens"
    assert "again" in captions.legend(video)[1].meanings[Part.FIRST_FRAME]


def test_the_legend_follows_the_config():
    video = make_video((2,))
    patches, tokens = captions.legend(video)
    assert patches.meanings[Part.NO_ANCHOR] == "merged into the anchors"
    assert tokens.meanings[Part.MERGED_ALONG_TIME] == ALIKE + "merged into it"
    video.config.intra_frame_aggregation = video.config.inter_frame_aggregation = "none"
    video.config.anchor_selection = "random"
    patches, tokens = captions.legend(video)
    assert list(patches.meanings) == [Part.GLOBAL_ANCHOR, Part.NO_ANCHOR]
    assert patches.meanings[Part.NO_ANCHOR] == "left out"
    assert tokens.meanings[Part.MERGED_ALONG_TIME] == ALIKE + "left out"


def test_a_long_name_is_shortened_in_its_middle():
    video = make_video((2,))
    long = CompressedVideo(**{**vars(video), "name": "b" + 200 * "x" + "e.mp4"})
    assert re.match(r"bx+…x+e\.mp4: ", captions.headline(long))
    assert draw_contact_sheet(long).width == draw_contact_sheet(video).width


# The page


class Page(HTMLParser):
    """Every element, and whether each is closed where it must be."""

    NEVER_CLOSED = ("meta", "img", "input", "rect", "path")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.NEVER_CLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.NEVER_CLOSED:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_holds_every_frame_and_needs_nothing_else(compressed):
    text = make_page(compressed)
    assert "http" not in text
    assert "@import" not in text
    page = Page(text)
    for _, attributes in page.elements:
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:")
    pictures = [image["src"] for image in page.all("img") if "jpeg" in image.get("src", "")]
    assert len(pictures) == len(set(pictures)) == 8
    for address, picture in zip(pictures, compressed.pictures):
        shown = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
        assert np.abs(np.asarray(shown, dtype=int) - np.asarray(picture)).mean() < 10
    assert len([button for button in page.all("button") if "data-frame" in button]) == 8
    assert page.texts["h1"] == page.texts["title"] == captions.headline(compressed)


def test_the_page_knows_what_became_of_each_patch_and_token(compressed):
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', make_page(compressed))[1])
    for frame, told in zip(compressed.frames, facts["frames"]):
        patches = [facts["patchParts"][int(digit)] for digit in told["patches"]]
        tokens = [facts["tokenParts"][int(digit)] for digit in told["tokens"]]
        assert [part == "local-anchor" for part in patches] == frame.local_anchors.flatten().tolist()
        assert [part == "global-anchor" for part in patches] == frame.global_anchors.flatten().tolist()
        assert [part == "kept" for part in tokens] == frame.kept.flatten().tolist()
        assert [part == "merged-along-time" for part in tokens] == frame.merged_along_time.flatten().tolist()
        assert {*patches, *tokens} <= set(facts["meanings"])
    assert len(facts["frames"]) == 8


def test_the_page_has_a_switch_for_each_layer(compressed):
    page = Page(make_page(compressed))
    switches = {box["value"] for box in page.all("input") if box["type"] == "checkbox"}
    layers = {path["data-layer"] for path in page.all("path")}
    assert switches == layers == {part.value for part in Part} - {"first-frame"}
    assert len(page.all("label")) == len(switches)


def test_a_name_is_no_markup(compressed):
    name = "</title><script>&.mp4"
    page = Page(make_page(CompressedVideo(**{**vars(compressed), "name": name})))
    assert page.texts["h1"].startswith(f"{name}: 32 of 128")


# The command


def run(*arguments):
    return CliRunner().invoke(app, ["visualize", *map(str, arguments)], prog_name="aot-llava")


def test_the_command_writes_picture_and_page(clip, checkpoint, tmp_path):
    picture, page = tmp_path / "out.png", tmp_path / "out.html"
    picture.write_bytes(PNG)
    result = run(clip, "-o", picture, "--html", "--model", checkpoint, "--num-frames", 6, "--retention-ratio", 0.5)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(picture), str(page)]
    assert "Video tokens 96 → 48 (50.0%)" in result.stderr
    with Image.open(picture) as sheet:
        assert sheet.format == "PNG"
        assert contact_sheet.SMALLEST_WIDTH <= sheet.width <= WIDTH
        sheet.load()
    assert Page(page.read_text(encoding="utf-8")).texts["h1"].startswith("wide clip.mp4: 48 of 96 video tokens")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.png"]


def test_by_default_the_picture_has_the_videos_name_and_no_page_is_written(clip, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(clip, "--model", checkpoint, "--num-frames", 2)
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["wide clip.aot.png"]


def test_the_mini_clip_needs_no_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--num-frames", 2)
    assert result.exit_code == 0, result.output
    assert Image.open("mini_clip.aot.png").format == "PNG"


def test_a_large_picture_names_the_page(clip, checkpoint, tmp_path):
    def say(num_frames, *options):
        result = run(clip, "--model", checkpoint, "-o", tmp_path / "out.png", "--num-frames", num_frames, *options)
        assert result.exit_code == 0, result.output
        return result.stderr

    assert "--html" in say(17)
    assert "--html" not in say(17, "--html")
    assert "--html" not in say(16)


def test_the_picture_of_the_readme_is_what_the_command_draws(tmp_path):
    result = run("-o", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    ours, drawn = (
        np.asarray(Image.open(file).convert("RGB"), dtype=int)
        for file in (Path(__file__).parents[2] / "docs/visualize.png", tmp_path / "out.png")
    )
    assert ours.shape == drawn.shape
    assert np.abs(ours - drawn).mean() < 1  # a machine that rounds in another way may keep another token


def test_the_readmes_picture_shows_the_method_well():
    """In later frames most of what is kept lies on objects that move, and most of the background is merged."""
    model, processor = answer.load(str(MINI_CHECKPOINT), None)
    num_frames, scene = 16, make_scene(MINI_SEED, "held_out")
    video = compress(model, processor, MINI_CLIP, read_frames(processor, MINI_CLIP, num_frames))
    kept_on_objects = kept = kept_background = background = 0
    for number, frame in enumerate(video.frames):
        if frame.opens_clip:
            continue
        side = len(frame.kept)
        edges = np.linspace(0, len(object_map(scene, 0)), side + 1).round().astype(int)
        is_seen = object_map(scene, number / (num_frames - 1)) >= 0
        shares = np.add.reduceat(np.add.reduceat(is_seen.astype(int), edges[:-1], 0), edges[:-1], 1)
        on_object = shares > 0
        kept, kept_on_objects = kept + frame.kept.sum(), kept_on_objects + (frame.kept & on_object).sum()
        background, kept_background = (
            background + (~on_object).sum(),
            kept_background + (frame.kept & ~on_object).sum(),
        )
    assert kept_on_objects > 0.7 * kept
    assert kept_background < 0.02 * background


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["missing.mp4"], ["missing.mp4 does not exist", "Give the path of a video file"]),
        (["."], [". is a folder", "Give the path of a video file"]),
        (["-o", "out.jpg"], ["--output", "out.jpg does not end in .png"]),
        (["-o", "out.html", "--html"], ["out.html does not end in .png", "--html writes the page beside it"]),
        (["-o", "missing/out.png"], ["the folder missing does not exist", "Make it first"]),
        (["-o", "folder.png"], ["folder.png is a folder"]),
        (["-o", "page.png", "--html"], ["page.html is a folder"]),
        (["--retention-ratio", "1"], ["--retention-ratio", "1 keeps every token", "nothing to show"]),
        (["--retention-ratio", "0"], ["--retention-ratio", "'0'", "above 0 up to 1"]),
        (["--retention-ratio", "nan"], ["--retention-ratio", "'nan'", "above 0 up to 1"]),
        (["--num-frames", "0"], ["--num-frames", "'0'", "1 or more"]),
        (["--model", "./missing"], ["--model", "'./missing' does not exist", "Hub ID like owner/name"]),
    ],
)
def test_a_bad_argument_is_one_line_before_anything_is_loaded(arguments, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.png", "page.html"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(answer, "load_processor", lambda *_: pytest.fail("it loaded the checkpoint"))
    result = run(*arguments)
    assert_one_line(result, 2, *parts)
    assert len(result.stderr.splitlines()) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_loaded(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(whole_file.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(answer, "load_processor", lambda *_: pytest.fail("it loaded the checkpoint"))
    result = run("-o", tmp_path / "out.png")
    assert_one_line(result, 2, "--output", str(tmp_path), "cannot be written to (Permission denied)")


@pytest.mark.parametrize(
    ("name", "content", "arguments", "part"),
    [
        ("out.png", b"notes", ["clip.mp4"], "out.png is no PNG picture, and is not replaced. Give another path"),
        ("out.png", b"\xff\xd8\xff\xe0 JFIF", ["clip.mp4"], "out.png is no PNG picture"),
        ("out.html", b"<html>my page", ["clip.mp4", "--html"], "out.html is no page of `aot-llava visualize`"),
        ("out.png", PNG, ["out.png"], "out.png is what the video is read from"),
        ("out.png", PNG, ["."], "out.png is what the video is read from"),
    ],
)
def test_what_the_command_did_not_write_is_not_replaced(name, content, arguments, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(answer, "load_processor", lambda *_: pytest.fail("it loaded the checkpoint"))
    assert_one_line(run(*arguments, "-o", "out.png"), 2, "--output", part)
    assert (tmp_path / name).read_bytes() == content


def test_a_page_of_an_earlier_run_is_replaced_and_a_picture_keeps_its_permissions(clip, checkpoint, tmp_path):
    picture, page = tmp_path / "out.png", tmp_path / "out.html"
    arguments = [clip, "-o", picture, "--html", "--model", checkpoint, "--num-frames", 2]
    assert run(*arguments).exit_code == 0
    picture.chmod(0o600)
    assert run(*arguments).exit_code == 0
    assert picture.stat().st_mode & 0o777 == 0o600
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "there.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to(tmp_path / "there.png")
    whole_file.write_whole(tmp_path / "link.png", lambda file: file.write_text("new"))
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "there.png").read_text() == "new"


def test_a_checkpoint_that_keeps_every_token_has_nothing_to_show(clip, tmp_path):
    save_random_checkpoint(tmp_path / "full", **SMALL, **{**AOT, "retention_ratio": 1.0})
    result = run(clip, "--model", tmp_path / "full", "-o", tmp_path / "out.png", "--num-frames", 2)
    assert_one_line(result, 1, "keeps every video token", "Set a lower --retention-ratio")
    assert not (tmp_path / "out.png").exists()
    result = run(
        clip, "--model", tmp_path / "full", "-o", tmp_path / "out.png", "--num-frames", 2, "--retention-ratio", 0.5
    )
    assert result.exit_code == 0, result.output


def test_a_file_that_is_no_video_leaves_the_older_picture(checkpoint, tmp_path):
    video, picture = tmp_path / "text.mp4", tmp_path / "out.png"
    video.write_text("not a video")
    picture.write_bytes(PNG)
    assert_one_line(run(video, "-o", picture, "--model", checkpoint), 1, str(video))
    assert picture.read_bytes() == PNG


def test_what_cannot_be_finished_leaves_the_older_file_alone(tmp_path):
    def interrupted(file):
        file.write_text("half")
        raise KeyboardInterrupt

    (tmp_path / "out.png").write_text("an older one")
    with pytest.raises(KeyboardInterrupt):
        whole_file.write_whole(tmp_path / "out.png", interrupted)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an older one"]


def _captions(video):
    return [captions.frame_captions(video, number)[0] for number in range(len(video.frames))]


def test_llava_videos_newlines_are_no_tokens_of_a_frame(build_model, clip):
    model = build_model(mm_spatial_pool_mode="average", mm_newline_position="grid")
    processor = random_processor(AOTLlavaOnevisionProcessor, model.config)
    video = compress_clip(model, processor, clip, 4)
    assert (video.tokens_before, video.tokens_after) == (4 * 9, 9)
    assert sum(frame.num_tokens for frame in video.frames) == 9
    assert {frame.kept.shape for frame in video.frames} == {(3, 3)}
    processor.retention_ratio = 1.0  # whatever the model's is
    with pytest.raises(ValueError, match="keeps every video token"):
        compress_clip(model, processor, clip, 4)
