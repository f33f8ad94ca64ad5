"""Training of the mini checkpoint, in a size that takes seconds."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from mini_checkpoint.questions import Question, ask, make_scene, object_map, render_clip, visible_objects
from mini_checkpoint.questions.vocabulary import HELD_OUT_LOOKS
from mini_checkpoint.training.data.grounding_questions import ground
from mini_checkpoint.training.data.patch_targets import patch_targets
from mini_checkpoint.training.model.clock_heads import HALVES
from mini_checkpoint.training.model.conversations import question_tokens, tokens_before_video
from mini_checkpoint.training.model.mini_model import build_model, build_processor, normalise, tower_output
from mini_checkpoint.training.model.tokenizer import build_tokenizer
from mini_checkpoint.training.options import parse_options
from mini_checkpoint.training.recipe import FeatureRecipe, LanguageStage, Recipe, Schedule, Shape, VisionRecipe
from mini_checkpoint.training.run import run
from mini_checkpoint.training.stages import training_loop
from mini_checkpoint.training.stages.answering import answer
from mini_checkpoint.training.stages.key_dropout import KEY_DROPOUT, attention_with_hidden_keys, draw_hidden_keys
from mini_checkpoint.training.stages.pointing_supervision import ANSWER_LAYERS, LAYERS, Names
from mini_checkpoint.training.stages.token_mixing import draw_mixing
from mini_checkpoint.training.stages.tracking_supervision import (
    TRACKING_HEAD,
    TRACKING_LAYER,
    look_back_loss,
    track_targets,
)
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

# Run by .ci/run and with `pytest -m training`: whoever uses the model does not train the mini.
pytestmark = pytest.mark.training

TINY = Recipe(
    shape=Shape(
        vision_width=16, vision_heads=2, vision_mlp=16, text_width=16, text_layers=6, text_heads=4, text_mlp=16
    ),
    vision=VisionRecipe(
        schedule=Schedule(steps=4, peak_learning_rate=1e-2, warmup_steps=1, evaluate_every=4),
        batch_size=2,
        sparse_patches=96,
        sparse_share=0.5,
        full_batch_size=1,
        scenes=2,
        frames_a_scene=2,
        held_out_scenes=1,
        held_out_frames_a_scene=1,
    ),
    features=FeatureRecipe(clips=4, frames=4, long_clips=(1, 1), long_frames=6, held_out_clips=1, final_clips=1),
    language=(
        LanguageStage(
            schedule=Schedule(
                steps=12, peak_learning_rate=1e-2, warmup_steps=1, evaluate_every=12, matrix_learning_rate=0.02
            ),
            tokens_a_step=784,
            frame_counts=((0.5, ((2, 1),)), (0.8, ((4, 1), (6, 1))), (1.0, ((2, 1),))),
            grounding_questions=((0.5, 8), (0.85, 6), (1.0, 2)),
        ),
        LanguageStage(
            schedule=Schedule(steps=6, peak_learning_rate=1e-2, warmup_steps=1, evaluate_every=6),
            tokens_a_step=784,
            frame_counts=((1.0, ((2, 1),)),),
            grounding_questions=((1.0, 2),),
            largest_mixture=0.5,
            largest_hidden_share=0.5,
            beginning_share=0.25,
            tracking_weight=0.0,
            finding_weight=0.0,
        ),
    ),
)
PHASES = {"vision": TINY.vision, "language_1": TINY.language[0], "language_2": TINY.language[1]}


@pytest.fixture(scope="module")
def tokenizer():
    questions = [question for seed in range(60) for question in ask(make_scene(seed, "train"))]
    return build_tokenizer([question.text for question in questions], [question.answer for question in questions])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """State and checkpoint of a whole tiny run."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop, "LOG_EVERY_STEPS", 1)
        run(TINY, folder / "state", folder / "checkpoint", "cpu", workers=0)
    return folder


class _InterruptedError(BaseException):
    pass


def _log(state):
    return [json.loads(line) for line in (state / "log.jsonl").read_text().splitlines()]


def _weights(state, phase):
    return torch.load(state / f"{phase}.pt", weights_only=True)["module"]


# --- tokenizer and prompts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "What colour?", "  two  spaces\n\n", "Ünï 漢字 🎬\t\x00", "bluered<|im_end|>x"])
def test_the_tokenizer_takes_any_text_and_gives_it_back(tokenizer, tmp_path, text):
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert each.decode(each(text).input_ids, clean_up_tokenization_spaces=False) == text


def test_every_answer_is_one_token_and_every_word_of_a_question_too(tokenizer):
    for question in ask(make_scene(1234, "train")):
        assert len(tokenizer(question.answer).input_ids) == 1
        words = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(question.text)
        assert len(tokenizer(question.text).input_ids) == len(words)


def test_an_answer_of_two_words_is_refused():
    with pytest.raises(ValueError, match="'dark red' is not one word"):
        build_tokenizer(["What colour?"], ["dark red"])


def test_a_question_gets_the_logits_that_the_stock_model_gives_it_alone(tokenizer):
    model = build_model(TINY.shape, tokenizer, seed=0).eval()
    processor = build_processor(tokenizer, model.config)
    scene = make_scene(7, "train")
    frames = torch.from_numpy(render_clip(scene, 2))
    questions = ask(scene)
    with torch.no_grad():
        features = tower_output(model.model.vision_tower, normalise(frames)).unsqueeze(0)
        tokens = question_tokens(tokenizer, questions)
        owner = torch.zeros(len(questions), dtype=torch.long)
        logits = answer(model, tokens_before_video(tokenizer), features, tokens, owner).logits
        for question, found in zip(questions, logits):
            content = [{"type": "video"}, {"type": "text", "text": question.text}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(text=text, videos=[frames.movedim(-1, 1)], do_sample_frames=False, return_tensors="pt")
            torch.testing.assert_close(found[0], model(**inputs).logits[0, -1], atol=1e-5, rtol=1e-4)


def test_clips_that_are_read_together_get_the_logits_that_each_gets_alone(tokenizer):
    model = build_model(TINY.shape, tokenizer, seed=0).eval()
    questions = [ask(make_scene(seed, "train")) for seed in (7, 8, 9)]
    features = torch.randn(3, 2, 729, TINY.shape.vision_width, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([1.0, 0.1, 0.4])
    before = tokens_before_video(tokenizer)

    def logits(clips):
        tokens = question_tokens(tokenizer, [question for clip in clips for question in questions[clip]])
        owner = torch.tensor([row for row, clip in enumerate(clips) for _ in questions[clip]])
        return answer(model, before, features[clips], tokens, owner, scales[clips]).logits

    with torch.no_grad():
        alone = torch.cat([logits([clip]) for clip in range(3)])
        torch.testing.assert_close(logits([0, 1, 2]), alone, atol=1e-5, rtol=1e-4)


def test_the_looks_are_the_attention_that_the_stock_model_pays(tokenizer):
    model = build_model(TINY.shape, tokenizer, seed=0).eval()
    features = torch.randn(1, 3, 729, TINY.shape.vision_width, generator=torch.Generator().manual_seed(0))
    before, questions = tokens_before_video(tokenizer), question_tokens(tokenizer, ask(make_scene(7, "train"))[:1])
    tokens = torch.tensor([0, 5, 300, 587])
    with torch.no_grad():
        found = answer(model, before, features, questions, torch.tensor([0]), None, LAYERS, (tokens,))
        inner, embed = model.model, model.model.language_model.embed_tokens
        video = inner.apply_pooling(inner.multi_modal_projector(features[0])).flatten(0, 1)
        asked = questions.ids[0, : questions.asks_at[0, 0] + 1]
        prompt = torch.cat([embed(before), video, inner.image_newline[None], embed(asked)]).unsqueeze(0)
        inner.language_model.set_attn_implementation("eager")
        attentions = inner.language_model(inputs_embeds=prompt, output_attentions=True).attentions
    of_video = slice(len(before), len(before) + len(video))
    of_question = slice(len(before) + len(video) + 1, None)
    for layer in LAYERS:
        attention = attentions[layer][0, 0, -1]
        torch.testing.assert_close(found.looks_at_video[layer][0], attention[of_video], atol=1e-6, rtol=1e-3)
        looks = found.looks_at_question[layer][0, : len(asked)]
        torch.testing.assert_close(looks, attention[of_question], atol=1e-6, rtol=1e-3)
    looks_back = attentions[TRACKING_LAYER][0, TRACKING_HEAD, of_video, of_video][tokens]
    torch.testing.assert_close(found.looks_back[0], looks_back, atol=1e-6, rtol=1e-3)


def test_the_clocks_tell_distances_from_the_start_whatever_lies_between(tokenizer):
    """Untrained: the first token's share of a clock's attention grows with the distance, from none to all."""
    model = build_model(Shape(), tokenizer, seed=0).eval()
    language_model, before = model.model.language_model, tokens_before_video(tokenizer)
    language_model.set_attn_implementation("eager")

    def shares(num_tokens, step):
        features = torch.randn(num_tokens, Shape().vision_width, generator=torch.Generator().manual_seed(0))
        positions = torch.cat([torch.arange(len(before)), len(before) + torch.arange(num_tokens) * step])
        with torch.no_grad():
            prompt = torch.cat([language_model.embed_tokens(before), model.model.multi_modal_projector(features)])
            attention = language_model(
                inputs_embeds=prompt.unsqueeze(0),
                position_ids=positions.unsqueeze(0),
                attention_mask={"full_attention": torch.full((len(prompt),) * 2, -1e9).triu(1)[None, None]},
                output_attentions=True,
            ).attentions[0]
        return attention[0, list(HALVES), len(before) :, 0]

    far, near = shares(1960, 1.0), shares(196, 10.0)
    torch.testing.assert_close(near, far[:, ::10], atol=0.01, rtol=0)
    assert (near.diff() > -1e-3).all()
    for share, half in zip(far, HALVES.values()):
        assert share[0] < 0.05
        assert share[half] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("answer_to_find", ["A", "B", "C", "red"])
def test_the_upper_layer_is_to_look_at_what_the_right_option_names(tokenizer, answer_to_find):
    text = "What happens first? A) the red circle appears B) the blue cross vanishes C) the square appears"
    tokens = question_tokens(tokenizer, [Question("order", text, answer_to_find, 3)])
    wanted = {"A": [" circle"], "B": [" cross"], "C": [" square"]}.get(
        answer_to_find, [" circle", " cross", " square"]
    )
    shares = {}
    for layer, words in zip(ANSWER_LAYERS, ([" circle", " cross", " square"], wanted)):
        ids = torch.tensor([tokenizer(word).input_ids[0] for word in words])
        shares[layer] = torch.isin(tokens.ids, ids) / len(words)
    names = Names(tokenizer, torch.device("cpu"))
    assert abs(names.asking_loss(shares, tokens).item()) < 1e-3
    halved = {layer: share / 2 for layer, share in shares.items()}
    assert names.asking_loss(halved, tokens).item() == pytest.approx(2 * np.log(2), abs=1e-3)


@given(clips=st.integers(1, 3), frames=st.integers(1, 4), tokens=st.integers(1, 9), seed=st.integers(0, 99))
def test_mixing_gives_every_token_a_share_of_others_in_its_frame_and_the_next(clips, frames, tokens, seed):
    mixing = draw_mixing(np.random.default_rng(seed), clips, frames, tokens, largest_share=0.6)
    video = torch.randn(clips, frames * tokens, 5, generator=torch.Generator().manual_seed(seed))
    mixed = mixing.of(video)
    for clip, share in enumerate(mixing.share.tolist()):
        assert 0 <= share <= 0.6
        for token, partners in enumerate(mixing.partners[clip].tolist()):
            assert all(partner // tokens - token // tokens in (0, 1) for partner in partners)
            mean = sum(video[clip, partner] for partner in partners) / len(partners)
            torch.testing.assert_close(mixed[clip, token], (1 - share) * video[clip, token] + share * mean)


@given(
    clips=st.integers(1, 3),
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    largest=st.floats(0, 1),
    seed=st.integers(),
)
def test_hidden_keys_are_a_share_of_each_clip_that_differs_from_head_to_head(clips, layers, heads, largest, seed):
    hidden = draw_hidden_keys(np.random.default_rng(abs(seed)), clips, layers, heads, 2000, largest)
    assert hidden.shape == (clips, layers, heads, 2000)
    shares = hidden.float().mean(-1).flatten(1)
    assert (shares <= largest + 0.06).all()
    assert (shares.amax(1) - shares.amin(1) < 0.1).all()
    rows = hidden.flatten(0, 2)
    assert len(rows.unique(dim=0)) == len(rows) or shares.min() < 0.01


@given(
    queries=st.integers(1, 6),
    keys_before=st.integers(1, 6),
    unmentioned=st.integers(0, 3),
    is_masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_head_that_does_not_see_a_key_attends_as_if_it_were_not_there(
    queries, keys_before, unmentioned, is_masked, seed
):
    """Against softmax(QK'/sqrt(d))V over the keys that are left; keys behind the mentioned ones are never hidden."""
    random = torch.Generator().manual_seed(seed)
    keys = keys_before + queries if is_masked else queries
    query, key, value = (torch.randn(2, 3, size, 4, generator=random) for size in (queries, keys, keys))
    hidden = torch.rand(2, 5, 3, max(0, keys - unmentioned), generator=random) < 0.5
    hidden[..., :1] = False
    sees = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    module = SimpleNamespace(layer_idx=3, is_causal=True, num_key_value_groups=1)
    mask = sees.expand(2, 1, -1, -1) if is_masked else None
    found, _ = attention_with_hidden_keys(module, query, key, value, mask, hidden_keys=hidden, scaling=0.5)
    for clip, head, row in np.ndindex(2, 3, queries):
        hides = hidden[clip, 3, head].tolist() + [False] * keys
        left = [i for i in range(keys) if sees[row, i] and not hides[i]]
        weights = (key[clip, head, left] @ query[clip, head, row] / 2).softmax(0)
        torch.testing.assert_close(found[clip, row, head], weights @ value[clip, head, left], atol=1e-5, rtol=1e-4)


def test_tokens_that_no_head_sees_change_nothing_but_themselves(tokenizer):
    """What the last token before them knows, and the answers, are the same whatever the hidden tokens show."""
    model = build_model(TINY.shape, tokenizer, seed=0).eval()
    model.model.language_model.set_attn_implementation(KEY_DROPOUT)
    questions = question_tokens(tokenizer, ask(make_scene(7, "train")))
    owner = torch.zeros(len(questions.ids), dtype=torch.long)
    features = torch.randn(1, 2, 729, TINY.shape.vision_width, generator=torch.Generator().manual_seed(0))
    other = features.clone()
    other[:, 1] = features[:, 1].flip(0, 1)
    hidden = torch.zeros(1, TINY.shape.text_layers, TINY.shape.text_heads, 2, 196, dtype=torch.bool)
    hidden[..., 1, :] = True

    def logits(features, hidden=None):
        before = tokens_before_video(tokenizer)
        hidden = None if hidden is None else hidden.flatten(-2)
        return answer(model, before, features, questions, owner, hidden_keys=hidden).logits

    with torch.no_grad():
        assert not torch.allclose(logits(features), logits(other), atol=1e-4)
        torch.testing.assert_close(logits(features, hidden), logits(other, hidden), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(logits(features), logits(features, hidden), atol=1e-4)


# --- questions for training alone --------------------------------------------------------------------------------


def test_grounding_questions_keep_the_withheld_looks_out_and_never_contradict_themselves():
    withheld = [f"{colour} {shape}" for colour, shape in HELD_OUT_LOOKS]
    for seed in range(40):
        questions = ground(make_scene(seed, "train"), np.arange(4) / 3, 1000, seed=0)
        assert not [question.text for question in questions for look in withheld if look in question.text]
        pairs = {(question.text, question.answer) for question in questions}
        assert len({text for text, _ in pairs}) == len(pairs)
        assert len(ground(make_scene(seed, "train"), np.arange(4) / 3, 5, seed=0)) == 5


def test_a_single_frame_is_asked_about_nothing_that_takes_time():
    moments = {"at the beginning", "at the end"}
    for seed in range(40):
        scene = make_scene(seed, "train")
        colours = {colour for _, colour, *_ in visible_objects(scene, 0.5)}
        for question in ground(scene, np.array([0.5]), 1000, seed=0):
            assert any(moment in question.text for moment in moments)
            if question.text.startswith("What colour"):
                assert question.answer in colours


# --- targets -----------------------------------------------------------------------------------------------------


def test_patch_targets_say_what_the_patches_show():
    scene, time = make_scene(11, "train"), 0.5
    targets, pixels = patch_targets(scene, time), object_map(scene, time)
    visible = visible_objects(scene, time)
    assert targets.counts[0] == len(visible)
    for patch in range(27 * 27):
        row, column = divmod(patch, 27)
        shown = pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        if targets.owner[patch] == -1:
            assert (shown == -1).all()
        elif targets.owner[patch] >= 0:
            index, _, x, y, _ = visible[targets.owner[patch]]
            assert (shown == index).mean() >= 0.25
            np.testing.assert_allclose(targets.centre[patch] * 216, (x, y))


def test_track_targets_follow_an_object_from_its_first_frame():
    scene, times = make_scene(11, "train"), np.arange(4) / 3
    targets = track_targets(scene, times)
    seen_first = {}
    owner = targets.owner.view(4, 14, 14)
    for frame, time in enumerate(times):
        for index, _, x, y, _ in visible_objects(scene, float(time)):
            x0, y0 = seen_first.setdefault(index, (x, y))
            row, column = int(y * 14 / 216), int(x * 14 / 216)
            if owner[frame, row, column] == index:
                moved = targets.moved.view(4, 14, 14, 2)[frame, row, column]
                np.testing.assert_allclose(moved * 216, (x - x0, y - y0), atol=1e-3)
    assert targets.seen.view(4, 196, -1)[-1].sum(-1).unique().tolist() == [len(seen_first)]


def test_looking_back_costs_nothing_where_all_attention_is_on_the_first_sight_of_the_same_object():
    """And as much more as it goes elsewhere: -log of the share."""
    targets = track_targets(make_scene(11, "train"), np.arange(4) / 3)
    owner, is_new = targets.owner.tolist(), targets.is_new.tolist()
    objects = [token for token, each in enumerate(owner) if each >= 0]
    looks_back = torch.zeros(len(objects), len(owner))
    for row, token in enumerate(objects):
        first = next(i for i in range(len(owner)) if owner[i] == owner[token] and is_new[i])
        looks_back[row, first] = 1
    assert abs(look_back_loss([looks_back], [targets]).item()) < 1e-3
    assert look_back_loss([looks_back / 4], [targets]).item() == pytest.approx(np.log(4), abs=1e-3)


# --- the run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_a_few_steps_lower_the_loss(trained, phase):
    losses = [line["loss"] for line in _log(trained / "state") if line.get("phase") == phase and "loss" in line]
    assert len(losses) == PHASES[phase].schedule.steps
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


def test_a_run_that_was_interrupted_in_every_phase_ends_like_one_that_was_not(trained, tmp_path, monkeypatch):
    steps = iter(range(100))

    def interrupt_thrice(schedule, step):
        if next(steps) in (2, 6, 20):
            raise _InterruptedError
        return rate_share(schedule, step)

    rate_share = training_loop.rate_share
    monkeypatch.setattr(training_loop, "rate_share", interrupt_thrice)
    for _ in range(3):
        with pytest.raises(_InterruptedError):
            run(TINY, tmp_path / "state", tmp_path / "checkpoint", "cpu", workers=0)
    run(TINY, tmp_path / "state", tmp_path / "checkpoint", "cpu", workers=0)
    for phase in PHASES:
        expected, found = _weights(trained / "state", phase), _weights(tmp_path / "state", phase)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("model_class", "processor_class", "tokens"),
    [
        (LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor, 16 * 196),
        (AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor, 314),
    ],
)
def test_the_checkpoint_answers_with_the_stock_classes_and_with_aot(trained, model_class, processor_class, tokens):
    model = model_class.from_pretrained(trained / "checkpoint")
    processor = processor_class.from_pretrained(trained / "checkpoint")
    scene = make_scene(3, "held_out")
    content = [{"type": "video"}, {"type": "text", "text": ask(scene)[0].text}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    frames = torch.from_numpy(render_clip(scene, 16)).movedim(-1, 1)
    inputs = processor(text=text, videos=[frames], do_sample_frames=False, return_tensors="pt")
    assert model.dtype == torch.float32
    assert (inputs.input_ids == model.config.video_token_id).sum() == tokens + 1
    assert model.generate(**inputs, max_new_tokens=2).shape[1] > inputs.input_ids.shape[1]


def test_the_model_card_is_filled_in(trained):
    card = (trained / "checkpoint" / "README.md").read_text()
    assert "| **all** |" in card
    assert "{" not in card


def test_stored_weights_are_half_precision(trained):
    with safe_open(trained / "checkpoint" / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118


def test_the_state_of_another_recipe_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="state of another recipe: name another folder with --state"):
        run(replace(TINY, seed=1), trained / "state", tmp_path / "checkpoint", "cpu")


def test_the_checkpoint_has_the_beginning_s_share_of_what_the_last_stage_began_with(trained, tmp_path):
    beginning, learnt = _weights(trained / "state", "language_1"), _weights(trained / "state", "language_2")
    run(TINY, trained / "state", tmp_path / "again", "cpu", export_only=True, workers=0)
    for checkpoint in (trained / "checkpoint", tmp_path / "again"):
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint)
        for name, weight in model.state_dict().items():
            average = 0.25 * beginning[f"model.{name}"] + 0.75 * learnt[f"model.{name}"]
            torch.testing.assert_close(weight, average.half().float(), atol=1e-5, rtol=2e-3)


def test_the_last_stage_alone_begins_with_a_checkpoint(trained, tmp_path):
    """Its weights are those of the checkpoint, and neither tower nor earlier stages are trained again."""
    shorter = replace(TINY.language[1], schedule=replace(TINY.language[1].schedule, peak_learning_rate=0.0))
    recipe = replace(TINY, language=(TINY.language[0], shorter))
    begins_with, state = trained / "checkpoint", tmp_path / "state"
    run(recipe, state, tmp_path / "checkpoint", "cpu", last_stage_of=begins_with, workers=0)
    with (
        safe_open(begins_with / "model.safetensors", "pt") as before,
        safe_open(tmp_path / "checkpoint" / "model.safetensors", "pt") as after,
    ):
        for name in before.keys():  # noqa: SIM118
            assert torch.equal(before.get_tensor(name), after.get_tensor(name))
    assert {line["phase"] for line in _log(state)} == {"language_2", "final"}
    assert _log(state)[-1]["step"] == 12 + 6
    assert "(`--last-stage-of`)" in (tmp_path / "checkpoint" / "README.md").read_text()
    assert "--last-stage-of" not in (begins_with / "README.md").read_text()


def test_a_state_with_another_beginning_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="state of another recipe"):
        run(TINY, trained / "state", tmp_path / "checkpoint", "cpu", last_stage_of=trained / "checkpoint")


def test_the_checkpoint_of_another_model_is_refused_before_anything_is_written(trained, tmp_path):
    recipe = replace(TINY, shape=replace(TINY.shape, text_mlp=32))
    with pytest.raises(ValueError, match="holds another model than the recipe's"):
        run(recipe, tmp_path / "state", tmp_path / "new", "cpu", last_stage_of=trained / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_a_broken_checkpoint_is_refused_before_anything_is_written(trained, tmp_path):
    broken = shutil.copytree(trained / "checkpoint", tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"broken cannot be read: .*; get them anew"):
        run(TINY, tmp_path / "state", tmp_path / "new", "cpu", last_stage_of=broken)
    assert list(tmp_path.iterdir()) == [broken]


def test_a_torch_without_muon_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match=r"torch>=2\.9"):
        run(TINY, tmp_path / "state", tmp_path / "checkpoint", "cpu", workers=0)
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"'cuda:99' is not there: this machine has \d+ CUDA devices"):
        run(TINY, tmp_path / "state", tmp_path / "checkpoint", "cuda:99", workers=0)
    assert not list(tmp_path.iterdir())


def test_nothing_is_exported_before_the_language_model_has_begun(tmp_path):
    with pytest.raises(ValueError, match="nothing to export"):
        run(TINY, tmp_path / "state", tmp_path / "checkpoint", "cpu", export_only=True)


def test_a_folder_with_something_else_is_not_overwritten(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    # A checkpoint of the user's, and a file that the training would call the same.
    for name in ("config.json", "frames.npy"):
        (mine / name).write_text("mine")
    with pytest.raises(ValueError, match="is not empty, and this command did not write it: give another folder"):
        run(TINY, tmp_path / "state", mine, "cpu")
    with pytest.raises(ValueError, match="is not empty and holds no state: name another folder with --state"):
        run(TINY, mine, tmp_path / "checkpoint", "cpu")
    with pytest.raises(ValueError, match="lies in --output"):
        run(TINY, tmp_path / "checkpoint" / "state", tmp_path / "checkpoint", "cpu")
    assert {file.read_text() for file in mine.iterdir()} == {"mine"}
    assert list(tmp_path.iterdir()) == [mine]


def test_a_checkpoint_is_exported_anew_but_not_over_what_was_put_into_it(trained, tmp_path):
    checkpoint = shutil.copytree(trained / "checkpoint", tmp_path / "checkpoint")
    (checkpoint / "config.json").unlink()
    arguments = (TINY, trained / "state", checkpoint, "cpu")
    run(*arguments, export_only=True, workers=0)
    assert (checkpoint / "config.json").exists()
    (checkpoint / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"did not write, or what was changed since \(notes.txt\)"):
        run(*arguments, export_only=True, workers=0)
    begins_with = {"last_stage_of": checkpoint, "workers": 0}
    with pytest.raises(ValueError, match="is the base"):
        run(TINY, tmp_path / "state", checkpoint, "cpu", **begins_with)
    assert (checkpoint / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--device", "tpu"], "'tpu' is none of cpu, cuda and cuda:N"),
        (["--device", "cuda:x"], "'cuda:x' is none of"),
        (["--state", __file__], "is a file, but must be a folder"),
        (["--last-stage-of", "nowhere"], "nowhere holds no model.safetensors: name the folder of a checkpoint"),
        (["--steps", "3"], "unrecognized arguments: --steps 3"),
    ],
)
def test_wrong_options_are_named_in_one_line(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as error:
        parse_options(arguments, "train_mini")
    message = capsys.readouterr().err
    assert error.value.code == 2
    assert complaint in message
    assert message.count("\n") == 1
