"""Accuracy against retention. The checkpoint is untrained: its answers mean nothing, but they must be `generate`'s."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

import benchmarks.plot
from aot_llava_baselines import BaselineGenerator
from aot_llava_baselines.cost import ModelShape, ReadingCost
from aot_llava_cli import answer
from mini_checkpoint.accuracy import options as options_module
from mini_checkpoint.accuracy import provenance, survey
from mini_checkpoint.accuracy.__main__ import main
from mini_checkpoint.accuracy.answering import answer_questions
from mini_checkpoint.accuracy.clip_tokens import ClipTokens, config_of
from mini_checkpoint.accuracy.options import NUM_CLIPS, parse_options
from mini_checkpoint.accuracy.plot import draw
from mini_checkpoint.accuracy.provenance import definition_of, made_with
from mini_checkpoint.accuracy.references import average_pooling, random_tokens, uniform_subsampling
from mini_checkpoint.accuracy.results import summarise
from mini_checkpoint.accuracy.saved_replies import SavedReplies
from mini_checkpoint.accuracy.scoring import draw_clips, is_right, share
from mini_checkpoint.accuracy.settings import (
    AOT,
    AVERAGE_POOLING,
    BASELINES,
    DEFAULT,
    FULL_TOKENS,
    GROUPS,
    RANDOM_TOKENS,
    SETTINGS,
    UNIFORM_SUBSAMPLING,
    Setting,
)
from mini_checkpoint.accuracy.survey import Checkpoint, Reply
from mini_checkpoint.accuracy.tables import as_markdown
from mini_checkpoint.questions import Question, ask, make_scene, render_clip
from mini_checkpoint.training.model.mini_model import build_model, build_processor
from mini_checkpoint.training.model.tokenizer import build_tokenizer
from mini_checkpoint.training.recipe import Shape
from modeling_aot_llava.configuration_aot_llava import AOT_FIELDS
from modeling_aot_llava.cost_model import prefill_flops
from modeling_aot_llava.token_budget import plan_token_budget

FEW_FRAMES = 4
SCENE = make_scene(0, "held_out")
# So that answers of several tokens are decoded too.
QUESTIONS = [*ask(SCENE)[:4], Question("colour", "What?", "red green blue white", 6)]
# The quickest of the table.
QUICK = ["--settings", "*, 8 frames", "--no-plot"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A mini checkpoint that has learnt nothing, with weights so large that whatever it reads changes its answers."""
    folder = tmp_path_factory.mktemp("checkpoints") / "untrained"
    questions = [question for seed in range(20) for question in ask(make_scene(seed, "held_out"))]
    tokenizer = build_tokenizer(
        ["user assistant", *(question.text for question in questions)], [question.answer for question in questions]
    )
    model = build_model(Shape(), tokenizer, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1 and "vision_tower" not in name:
                weights.normal_(std=0.2, generator=generator)
    model.save_pretrained(folder)
    build_processor(tokenizer, model.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint):
    model, processor = answer.load(str(checkpoint), retention_ratio=None)
    return model.eval(), processor


@pytest.fixture(scope="module")
def both(loaded, checkpoint):
    return Checkpoint(*loaded, LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint).eval())


@pytest.fixture(scope="module")
def frames():
    return render_clip(SCENE, FEW_FRAMES)


@pytest.fixture(scope="module")
def clip(loaded, frames):
    return ClipTokens(*loaded, frames)


def few_frames(setting):
    return dataclasses.replace(setting, num_frames=FEW_FRAMES)


def generated(model, processor, frames, question, **options):
    """What a user gets: one question, the processor's prompt, `generate`."""
    content = [{"type": "video"}, {"type": "text", "text": question.text}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=text, videos=[frames], do_sample_frames=False, return_tensors="pt", **options)
    longest = max(len(processor.tokenizer(question.answer).input_ids) for question in QUESTIONS)
    output = model.generate(**inputs, max_new_tokens=longest + 1, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


# Answers


@pytest.mark.parametrize(
    "setting",
    [
        DEFAULT,
        Setting("AOT", AOT, 0.25),
        Setting("random anchors", AOT, fields={"anchor_selection": "random"}),
        Setting("dynamic", AOT, 0.25, fields={"clip_segmentation": "dynamic"}),
        Setting("released", AOT, fields={"recipe": "released"}),
        Setting("τ", AOT, fields={"temporal_threshold": 0.3}),
    ],
    ids=lambda setting: setting.series,
)
def test_answers_are_those_of_generate(loaded, frames, clip, setting, monkeypatch):
    model, processor = loaded
    (answers,) = answer_questions(model, processor, clip.of(setting)[None], QUESTIONS)
    for name, value in setting.fields.items():
        monkeypatch.setattr(model.config, name, value)
    # The shortest and the longest question, which are padded most and not at all.
    asked = [QUESTIONS[-1], max(QUESTIONS, key=lambda question: len(question.text))]
    expected = [generated(model, processor, frames, q, retention_ratio=setting.retention_ratio) for q in asked]
    assert [answers[QUESTIONS.index(question)] for question in asked] == expected
    assert len(set(answers)) > 1


def test_with_all_tokens_answers_are_the_stock_models(loaded, checkpoint, frames, clip):
    stock = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint)
    stock_processor = LlavaOnevisionProcessor.from_pretrained(checkpoint)
    (answers,) = answer_questions(*loaded, clip.of(Setting(FULL_TOKENS, FULL_TOKENS, 1.0))[None], QUESTIONS)
    assert answers == [generated(stock, stock_processor, frames, question) for question in QUESTIONS]


def test_videos_read_together_are_answered_as_alone(loaded, clip):
    settings = [DEFAULT, *(Setting(name, name) for name in (UNIFORM_SUBSAMPLING, AVERAGE_POOLING, RANDOM_TOKENS))]
    videos = torch.stack([clip.of(setting) for setting in settings])
    together = answer_questions(*loaded, videos, QUESTIONS)
    assert together == [answer_questions(*loaded, video[None], QUESTIONS)[0] for video in videos]
    assert len({tuple(answers) for answers in together}) > 1


def test_tokens_are_those_of_the_model(loaded, frames, clip, monkeypatch):
    model, processor = loaded
    pixels = processor.video_processor([frames], do_sample_frames=False, return_tensors="pt").pixel_values_videos
    # Neighbours share what happens within frames; it must not leak from one to another that differs there.
    names = ["AOT, 10 %", "OT w/o inter-frame, 10 %", "AOT, 20 %", "AOT, dynamic clips, 20 %", "λ intra = 1000, 10 %"]
    for setting in map(SETTINGS.get, names):
        with monkeypatch.context() as patch:
            for name, value in {**setting.fields, "retention_ratio": setting.retention_ratio}.items():
                patch.setattr(model.config, name, value)
            with torch.inference_mode():
                (video,) = model.model.compress_videos(pixels)
        torch.testing.assert_close(clip.of(setting), video.tokens, msg=setting.name)


@pytest.mark.parametrize(
    "setting",
    [
        Setting("FastVID", "fastvid", 0.25),
        Setting("VisionZip", "visionzip", 0.1),
        Setting("FastV", "fastv", 0.4, fields={"layer": 1, "retention_ratio": 0.2}),
        Setting("PDrop", "pdrop", 0.4, fields={"layers": (1, 2, 3), "retention_ratio": 0.125}),
        Setting("PruneVid", "prunevid", 0.25, fields={"alpha": 0.4, "layer": 2}),
        Setting("EarlyTom", "earlytom", 0.25, fields={"merging_layers": (2, 5), "layer": 2, "inner_ratio": 0.5}),
        Setting("FrameFusion", "framefusion", 0.4),
    ],
    ids=lambda setting: setting.series,
)
def test_answers_of_other_methods_are_those_of_their_generate(both, checkpoint, setting, monkeypatch):
    setting = dataclasses.replace(setting, num_frames=8)
    monkeypatch.setattr(survey, "ask", lambda scene: QUESTIONS)
    reply = survey.ask_about(SCENE, [setting], both)[setting.name]
    answers = reply.answers
    generator = BaselineGenerator(both.stock, survey.method_of(setting))
    # What layers were seen to read is noted where it is not the same for all, and counted.
    assert len(reply.tokens_per_layer) == generator.method.works_inside * 6
    assert reply.frames_per_layer[:3] == ([8] * 3 if setting.reduction == "earlytom" else [])
    shape = ModelShape.of(both.stock.config)
    cost = survey.cost_of(setting, reply, shape)
    assert cost.eq17 == sum(
        prefill_flops(tokens, num_layers=1, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size)
        for tokens in reply.tokens_per_layer or [reply.video_tokens] * 6
    )
    if setting.reduction == "earlytom":
        assert cost.tower == sum(reply.frames_per_layer) * shape.tower.flops_per_layer
    stock_processor = LlavaOnevisionProcessor.from_pretrained(checkpoint)
    frames = render_clip(SCENE, 8)
    asked = [QUESTIONS[-1], max(QUESTIONS, key=lambda question: len(question.text))]
    expected = [generated(generator, stock_processor, frames, question) for question in asked]
    assert [answers[QUESTIONS.index(question)] for question in asked] == expected
    assert len(set(answers)) > 1


def test_survey_asks_every_question_under_every_setting(loaded, both, clip):
    names = ("AOT, 10 %", "uniform subsampling, 10 %", "full tokens, 100 %")
    settings = [few_frames(SETTINGS[name]) for name in names]
    replies = survey.ask_about(SCENE, [*settings, dataclasses.replace(DEFAULT, num_frames=2)], both)
    assert {name: reply.video_tokens for name, reply in replies.items()} == {
        "AOT, 10 %, 4 frames": 78,
        "uniform subsampling, 10 %, 4 frames": 78,
        "full tokens, 100 %, 4 frames": 4 * 196,
        "AOT, 10 %, 2 frames": 39,
    }
    for setting in settings:
        assert [replies[setting.name].answers] == answer_questions(*loaded, clip.of(setting)[None], ask(SCENE))


# References


@pytest.mark.parametrize("reference", [uniform_subsampling, average_pooling, random_tokens])
def test_references_meet_every_budget(reference):
    pooled = torch.randn(3, 196, 2)
    budgets = range(3, 589, 5)
    assert [len(reference(pooled, budget)) for budget in budgets] == list(budgets)
    torch.testing.assert_close(reference(pooled, 588), pooled.flatten(0, 1))


@pytest.mark.parametrize("budget", [1, 7, 157, 314, 784, 3136])
def test_uniform_subsampling_is_evenly_spaced(budget):
    places = torch.arange(16 * 196).view(16, 196, 1)
    kept = uniform_subsampling(places, budget).flatten()
    gaps = set(kept.diff().tolist())
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
    assert kept[0] + 1 >= (3136 - kept[-1]) - 1


def test_average_pooling_is_the_naive_mean():
    pooled = torch.randn(2, 14 * 14, 5)
    grids = pooled.view(2, 14, 14, 5)
    # 9 + 8 cells: three bands of rows, of 3 + 3 + 3 and of 3 + 3 + 2 cells.
    rows = [(0, 4), (4, 9), (9, 14)]
    thirds, halves = [(0, 4), (4, 9), (9, 14)], [(0, 7), (7, 14)]
    expected = [
        grid[top:bottom, left:right].reshape(-1, 5).mean(0)
        for grid, columns in zip(grids, ([thirds, thirds, thirds], [thirds, thirds, halves]))
        for (top, bottom), bands in zip(rows, columns)
        for left, right in bands
    ]
    torch.testing.assert_close(average_pooling(pooled, 17), torch.stack(expected))


def test_every_token_is_in_one_cell():
    one_hot = torch.eye(196)[None]
    for budget in range(1, 197, 3):
        cells = average_pooling(one_hot, budget) > 0
        assert (cells.sum(0) == 1).all(), budget


def test_random_tokens_keep_their_order_and_are_always_the_same():
    places = torch.arange(588).view(3, 196, 1)
    kept = random_tokens(places, 59).flatten()
    assert (kept.diff() > 0).all()
    assert torch.equal(kept, random_tokens(places, 59).flatten())


# Settings


def test_the_settings_are_all_there():
    names = {
        *(f"AOT{kind}, {ratio} %" for kind in ("", ", dynamic clips", ", released recipe") for ratio in (25, 20, 15)),
        *(f"{kind}, {ratio} %" for kind in ("AOT", "uniform subsampling", "average pooling") for ratio in (10, 5)),
        *(f"{kind} anchors, 10 %" for kind in ("w/o local", "w/o global", "random")),
        *(f"{kind}, 10 %" for kind in ("w/o OT", "OT w/o intra-frame", "OT w/o inter-frame", "cosine merging")),
        *(f"λ {kind} = {weight}, 10 %" for kind in ("intra", "inter") for weight in (0, 0.1, 10, 100, 1000)),
        *(f"{kind}, {frames} frames" for kind in ("full tokens, 100 %", "AOT, 10 %") for frames in (8, 32)),
        "full tokens, 100 %",
    }
    assert names <= set(SETTINGS)
    assert all(setting in SETTINGS.values() for group in GROUPS.values() for setting in group)
    assert len({setting.definition for setting in SETTINGS.values()}) == len(SETTINGS)


def test_every_config_is_valid_and_meets_its_budget(loaded):
    model_config = loaded[0].config
    for setting in SETTINGS.values():
        if setting.reduction in BASELINES:
            continue
        config = config_of(setting, model_config)
        assert config.retention_ratio == setting.retention_ratio
        budget = plan_token_budget(config, setting.num_frames).num_video_tokens
        assert budget == math.floor(setting.retention_ratio * setting.num_frames * 196 + 0.5)


def test_the_checkpoints_own_aot_fields_do_not_count(loaded, monkeypatch):
    model_config = loaded[0].config
    plain = config_of(DEFAULT, model_config)
    monkeypatch.setattr(model_config, "sinkhorn_epsilon", 3.0)
    tuned = config_of(DEFAULT, model_config)
    assert [getattr(tuned, name) for name in AOT_FIELDS] == [getattr(plain, name) for name in AOT_FIELDS]


# Scoring


def test_an_answer_is_right_to_the_letter():
    question = Question("colour", "What colour?", "red", 6)
    assert is_right(question, "red")
    assert is_right(question, " red\n")
    assert not any(is_right(question, wrong) for wrong in ("Red", "red.", "red red", "", "blue"))


def test_bootstrap_of_two_clips_by_hand():
    # Of 2 clips there are 4 draws: aa, ab, ba, bb.
    draws = np.array([[2, 0], [1, 1], [1, 1], [0, 2]], dtype=float)
    estimate = share([1, 4], [2, 8], draws)
    assert estimate == {"value": 0.5, "low": 0.5, "high": 0.5}
    estimate = share([2, 2], [2, 8], draws)
    assert estimate["value"] == 4 / 10
    # Ratios 1, 4/10, 4/10 and 4/16; the quantiles are 0.075 of the way to the outermost ones' neighbours.
    assert estimate["low"] == pytest.approx(0.25 + 0.075 * (0.4 - 0.25))
    assert estimate["high"] == pytest.approx(1 - 0.075 * (1 - 0.4))


def test_draws_without_a_question_of_the_type_do_not_count():
    draws = np.array([[2, 0], [1, 1], [0, 2]], dtype=float)
    assert share([1, 0], [2, 0], draws) == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert share([0, 0], [0, 0], draws) == {"value": None, "low": None, "high": None}


def test_the_bootstrap_draws_clips():
    draws = draw_clips(50)
    assert (draws.sum(1) == 50).all()
    assert np.array_equal(draws, draw_clips(50))
    # 50 clips of 4 questions that stand or fall together: the deviation is that of 50 coins, not of 200.
    right = np.arange(50) % 2 * 4
    estimate = share(right, np.full(50, 4), draws)
    assert estimate["high"] - estimate["low"] == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 50), rel=0.08)


def squares(num_tokens):
    return ReadingCost(tower=1000, eq17=num_tokens**2, as_qwen2=2 * num_tokens**2)


def test_summary_by_hand():
    questions = [
        [Question("colour", "?", "red", 6), Question("order", "?", "A", 3)],
        [Question("colour", "?", "blue", 6), Question("order", "?", "B", 3)],
    ]
    full, uniform = SETTINGS["full tokens, 100 %"], SETTINGS["uniform subsampling, 10 %"]
    replies = {
        full: [Reply(3136, ["red", "A"]), Reply(3136, ["blue", "A"])],
        DEFAULT: [Reply(314, ["red", "A"]), Reply(314, ["red", "A"])],
        uniform: [Reply(313, ["red", "B"]), Reply(315, ["red", "A"])],
    }
    results = summarise(
        questions, replies, 196, lambda setting, reply: squares(reply.video_tokens), about={"model": "mini"}
    )
    assert (results["clips"], results["questions"], results["chance"]) == (2, 4, 0.25)
    assert results["types"]["order"] == {"questions": 2, "chance": pytest.approx(1 / 3)}
    figures = results["settings"][uniform.name]
    assert figures["video_tokens"] == 314
    assert figures["share_of_video_tokens"] == 314 / 3136
    assert figures["prefill_flops"] == (313**2 + 315**2) / 2
    assert figures["share_of_prefill_flops"] == (313**2 + 315**2) / 2 / 3136**2
    assert figures["tower_flops"] == 1000
    assert figures["share_of_flops"] == (1000 + (313**2 + 315**2) / 2) / (1000 + 3136**2)
    assert figures["share_of_computed_flops"] == (1000 + 313**2 + 315**2) / (1000 + 2 * 3136**2)
    assert figures["accuracy"]["value"] == 1 / 4
    assert figures["share_of_full"]["value"] == pytest.approx(1 / 3)
    assert figures["difference_to_aot"]["value"] == -1 / 4
    assert {kind: estimate["value"] for kind, estimate in figures["by_type"].items()} == {"colour": 0.5, "order": 0}
    assert results["settings"][full.name]["share_of_full"] == {"value": 1, "low": 1, "high": 1}
    assert results["settings"][DEFAULT.name]["difference_to_aot"] is None
    assert results["groups"]["Ablations"] == ["AOT, 10 %"]
    json.dumps(results, allow_nan=False)


def test_there_are_a_thousand_questions():
    assert sum(len(ask(make_scene(seed, "held_out"))) for seed in range(NUM_CLIPS)) >= 1000


# The program


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    """One quick run of the whole program: its folder."""
    folder = tmp_path_factory.mktemp("accuracy")
    main(["--model", str(checkpoint), "--clips", "2", *QUICK, "--output", str(folder)])
    return folder


def results_of(folder):
    results = json.loads((folder / "accuracy.json").read_text())
    results.pop("date")
    return results


def test_results_of_a_run(run):
    results = results_of(run)
    assert (results["model"], results["clips"]) == ("untrained", 2)
    assert list(results["settings"]) == ["full tokens, 100 %, 8 frames", "AOT, 10 %, 8 frames"]
    assert results["settings"]["AOT, 10 %, 8 frames"]["video_tokens"] == 157
    table = (run / "accuracy.md").read_text()
    assert "### Frames" in table
    assert "| full tokens |" in table
    assert not (run / "accuracy.png").exists()
    assert not [file for file in run.iterdir() if file.name.startswith(".")]


def test_an_interrupted_run_goes_on(run, checkpoint, tmp_path, monkeypatch):
    arguments = ["--model", str(checkpoint), "--clips", "2", *QUICK, "--output", str(tmp_path)]
    asked, ask_about = [], survey.ask_about

    def interrupted(scene, *rest):
        if asked:
            raise KeyboardInterrupt
        asked.append(scene.seed)
        return ask_about(scene, *rest)

    monkeypatch.setattr(survey, "ask_about", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    assert not (tmp_path / "accuracy.json").exists()
    # As if the machine had stopped in the middle of a line.
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"clip": 1, "repl')

    monkeypatch.setattr(survey, "ask_about", lambda scene, *rest: asked.append(scene.seed) or ask_about(scene, *rest))
    main(arguments)
    assert asked == [0, 1]
    assert results_of(tmp_path) == results_of(run)
    main(arguments)
    assert asked == [0, 1]
    assert results_of(tmp_path) == results_of(run)


def test_what_is_new_is_asked_for(run, checkpoint, monkeypatch):
    asked = []

    def recorded(scene, settings, *rest):
        asked.append((scene.seed, [setting.name for setting in settings]))
        return {setting.name: Reply(5, [""] * len(ask(scene))) for setting in settings}

    monkeypatch.setattr(survey, "ask_about", recorded)
    before = (run / "answers.jsonl").read_bytes()
    more = ["--clips", "3", "--settings", "AOT, 10 %, 8 frames", "AOT, 5 %", "--no-plot"]
    main(["--model", str(checkpoint), *more, "--output", str(run)])
    assert asked == [(0, ["AOT, 5 %"]), (1, ["AOT, 5 %"]), (2, ["AOT, 5 %", "AOT, 10 %, 8 frames"])]
    (run / "answers.jsonl").write_bytes(before)


@pytest.mark.parametrize("changed", ["checkpoint", "questions", "code"])
def test_foreign_answers_are_refused(run, checkpoint, tmp_path, changed):
    head, *lines = (run / "answers.jsonl").read_text().splitlines()
    head = json.loads(head)
    head["made with"][changed] = "another"
    (tmp_path / "answers.jsonl").write_text("\n".join([json.dumps(head), *lines, ""]))
    with pytest.raises(ValueError, match=f"answers.jsonl holds answers of another {changed}. Remove it"):
        main(["--model", str(checkpoint), "--clips", "2", *QUICK, "--output", str(tmp_path)])


@pytest.mark.parametrize(
    "content", [b"a line without an end", b"[]\n", b'{"made": 1}\nmore', b'{"made with": {}}\nmore']
)
def test_a_file_that_holds_other_answers_is_left_as_it_is(content, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"answers.jsonl holds (no answers|answers of another)"):
        SavedReplies(file, {"torch": "2"}, str)
    assert file.read_bytes() == content


def test_a_beginning_that_was_cut_short_is_begun_anew(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b'{"made wi')
    SavedReplies(file, {"torch": "2"}, str)
    assert file.read_bytes() == b'{"made with": {"torch": "2"}}\n'


def test_other_peoples_tables_are_not_replaced(checkpoint, tmp_path):
    (tmp_path / "accuracy.md").write_text("mine")
    with pytest.raises(OSError, match=r"accuracy.md is no result of this program"):
        main(["--model", str(checkpoint), "--clips", "1", *QUICK, "--output", str(tmp_path)])
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clips", "0"], "argument --clips: '0' is not an integer from 1"),
        (["--clips", "many"], "argument --clips: 'many' is not an integer from 1"),
        (["--settings", "AOT, 11 %"], "argument --settings: 'AOT, 11 %' names no setting; near to it are 'AOT, 1"),
        (["--model", "nowhere"], "argument --model: nowhere is not a folder: name the folder of a LLaVA-OneVision"),
        (["--output", __file__], f"argument --output: {__file__} is a file, but must be a folder"),
        ([], "the mini checkpoint is not in mini. Make it with `python -m mini_checkpoint.training`, or name"),
    ],
)
def test_errors_are_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(options_module, "MINI_CHECKPOINT", options_module.Path("mini"))
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m mini_checkpoint.accuracy: {said}")


def test_settings_by_pattern(checkpoint):
    options = parse_options(["--model", str(checkpoint), "--settings", "AOT, 10 %", "*full*", "AOT, 1*"], "x")
    names = [setting.name for setting in options.settings]
    assert names == [
        "full tokens, 100 %",
        "AOT, 15 %",
        "AOT, 10 %",
        "full tokens, 100 %, 8 frames",
        "full tokens, 100 %, 32 frames",
        "AOT, 10 %, 8 frames",
        "AOT, 10 %, 32 frames",
    ]


def test_without_matplotlib_nothing_is_measured(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks.plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="--no-plot"):
        main(["--model", str(checkpoint), "--output", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_a_changed_method_is_asked_anew_and_nothing_else(monkeypatch):
    aot, fastv = SETTINGS["AOT, 10 %"], SETTINGS["FastV, scaled: K = 1, 20 % kept"]
    before = [definition_of(aot), definition_of(fastv)]
    monkeypatch.setattr(provenance, "content_version", lambda *parts: "another")
    assert definition_of(aot) == before[0]
    assert definition_of(fastv) != before[1]


@pytest.mark.parametrize(("name", "is_another"), [("README.md", False), ("config.json", True), ("new.json", True)])
def test_all_files_of_a_checkpoint_but_its_card_make_it_another(name, is_another, tmp_path):
    for file in ("README.md", "config.json"):
        (tmp_path / file).write_text("before")
    before = made_with(tmp_path, torch.device("cpu"))
    (tmp_path / name).write_text("after")
    assert (made_with(tmp_path, torch.device("cpu")) != before) == is_another


def invented(names):
    """Results that nobody measured, of 8 clips."""
    questions = [ask(make_scene(seed, "held_out")) for seed in range(8)]
    draws = np.random.default_rng(0)
    replies = {
        SETTINGS[name]: [Reply(300, [q.answer if draws.random() < 0.7 else "" for q in clip]) for clip in questions]
        for name in names
    }
    made_with = {"checkpoint": "0" * 12, "device": "cpu", "torch": "2", "transformers": "5"}
    return summarise(
        questions,
        replies,
        196,
        lambda setting, reply: squares(reply.video_tokens),
        {"model": "mini", "made with": made_with},
    )


@pytest.mark.parametrize(
    "names",
    [
        list(SETTINGS),
        ["full tokens, 100 %"],
        ["AOT, 10 %"],
        ["λ intra = 100, 10 %", "τ = 0.4, 10 %", "w/o OT, 10 %"],
        ["AOT, 10 %, 8 frames"],
    ],
    ids=len,
)
def test_any_results_can_be_shown(names, tmp_path):
    results = invented(names)
    draw(results, tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    lines = as_markdown(results).splitlines()
    for title, shown in itertools.chain(results["groups"].items()):
        table = list(itertools.takewhile(bool, lines[lines.index(f"### {title}") + 2 :]))
        assert len(table) == 2 + len(shown) + 1
        assert len({line.count("|") for line in table}) == 1
        assert len(set(map(len, table))) == 1
