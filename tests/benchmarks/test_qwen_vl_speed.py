"""The benchmark of the Qwen-VL family, on tiny shapes: what is measured, not how fast it is."""

import pytest
import torch

from benchmarks import qwen_vl
from benchmarks.qwen_vl_shapes import QWEN_SHAPES, build_models, make_prompt, random_video

TINY = ["qwen2-vl-tiny", "qwen2.5-vl-tiny", "qwen3-vl-tiny", "qwen3-vl-moe-tiny"]
GRID = (3, 8, 8)


@pytest.fixture(scope="module", params=TINY)
def models(request):
    torch.manual_seed(0)
    return build_models(QWEN_SHAPES[request.param], torch.float32, torch.device("cpu"))


def test_stock_and_aot_share_their_weights_and_answer_alike_from_all_tokens(models):
    stock, aot = models
    theirs, ours = dict(stock.named_parameters()), dict(aot.named_parameters())
    assert theirs.keys() == ours.keys()
    assert all(theirs[name] is ours[name] for name in theirs)
    aot.config.retention_ratio = 1.0
    prompt, number = make_prompt(aot, GRID, random_video(aot.config, GRID, next(aot.parameters())))
    assert number == 48
    with torch.inference_mode():
        assert torch.equal(stock(**prompt).logits, aot(**prompt).logits)


def test_a_prompt_with_fewer_tokens_is_run_as_it_is_written(models):
    _, aot = models
    aot.config.retention_ratio = 0.25
    prompt, number = make_prompt(aot, GRID, random_video(aot.config, GRID, next(aot.parameters())))
    assert number == int((prompt["input_ids"] == aot.config.video_token_id).sum()) == 12
    with torch.inference_mode():
        assert aot(**prompt).logits.shape[1] == prompt["input_ids"].shape[1]


@pytest.mark.parametrize("shape", TINY)
def test_a_table_of_ratios_to_the_stock_model_in_the_same_run(shape, capsys):
    qwen_vl.main(["--shape", shape, "--pictures", "4,6", "--ratios", "1,0.25", "--repeats", "1", "--device", "cpu"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()][2:]
    assert [row[:3] for row in rows] == [
        [pictures, *counted]
        for pictures, whole, kept in (("4", "32", "8"), ("6", "48", "12"))
        for counted in (["stock", whole], ["AOT 100%", whole], ["AOT 25%", kept])
    ]
    seconds = [float(row[4].removesuffix(" ms")) for row in rows]
    for row, taken, stock in zip(rows, seconds, [seconds[0]] * 3 + [seconds[3]] * 3):
        assert float(row[5]) == pytest.approx(taken / stock, abs=0.02 + 0.02 * float(row[5]))


def test_every_shape_is_offered_and_its_layers_are_watched():
    assert tuple(QWEN_SHAPES) == qwen_vl.SHAPES
    for shape in QWEN_SHAPES.values():
        config = shape.classes.config(text_config=shape.text, vision_config=shape.vision, **shape.aot)
        config.validate_aot()
