"""transformers' own tests of its models, run on the stock classes and on ours: both have to come to the same result.

`ModelTesterMixin` comes with the source distribution of the installed release (see `fetch.py`); without it all this
is skipped. `GenerationTesterMixin` is not in there: what it covers is asked in `test_generate.py`.
"""

import re
import unittest
import warnings
from functools import cache
from typing import NamedTuple

import pytest
import torch
import transformers
from transformers.models.auto import modeling_auto

from .cases import Case, stock_case
from .llava_testers import CASES as LLAVA_CASES
from .mixins import FOLDER, load_model_tester_mixin
from .qwen_vl_testers import CASES as QWEN_VL_CASES

pytest.importorskip("parameterized", reason="transformers' tests need it")
if not FOLDER.exists():
    pytest.skip(
        f"The tests of transformers {transformers.__version__} are not here: run tests/transformers_suite/fetch.py",
        allow_module_level=True,
    )


class Difference(NamedTuple):
    """Tests whose result differs from the stock class's, in some cases (both as regular expressions), and why."""

    tests: str
    cases: str
    what_ours_says: str
    reason: str
    since: tuple[int, int] = (5, 20)
    before: tuple[int, int] = (6, 0)


DIFFERENCES = [
    Difference(
        "test_reverse_loading_mapping",
        "(image|video)-.*",
        what_ours_says="No key mapping was performed!",
        reason="it wants old key names in what is saved; ours are the new ones, so that the stock class loads it "
        "(tested in test_checkpoints.py)",
    ),
    Difference(
        "test_can_init_all_missing_weights",
        "(image|video)-.*",
        what_ours_says="not properly handled in `_init_weights|Not a prioritized model",
        reason="where a class is not of transformers itself, a module without parameters of its own (the tower's "
        "attention) does not get its own kind of random numbers for what a checkpoint lacks; before 5.22 the test "
        "skips files without a copyright line",
    ),
    Difference(
        "test_causal_lm_loss_honors_shift_labels",
        "video-full-0.1",
        what_ours_says="",
        reason="it makes labels out of the logits, which are those of the fitted prompt; a caller's are as long as "
        "his prompt (tested in test_training.py)",
        since=(5, 23),
    ),
    Difference(
        "test_causal_lm_loss_honors_shift_labels",
        "qwen.*video-full",
        what_ours_says="`shift_labels` is given",
        reason="they describe the columns of the prompt that the caller wrote, which is fitted",
    ),
    Difference(
        "test_can_init_all_missing_weights",
        "qwen.*",
        what_ours_says="Not a prioritized model",
        reason="before 5.22 the test skips files without a copyright line",
        before=(5, 22),
    ),
    Difference(
        "test_inputs_embeds",
        "qwen.*video-(exact|full)",
        what_ours_says="`input_ids` is None beside a video",
        reason="the positions of tokens that are kept follow from the ids",
    ),
    Difference(
        "test_inputs_embeds_matches_input_ids",
        "qwen.*video-(exact|full)",
        what_ours_says="shape mismatch|`position_ids` is given",
        reason="it takes positions of the stock rule, which knows whole videos alone",
    ),
]

# Tests that are not run at all: (test, cases, why).
LEFT_OUT = [
    ("test_(num_layers_is_small|model_is_small|generation_tester_mixin_inheritance)", ".*", "they test the tester"),
    (
        ".*(rope|moe_models|router_logits|batched_and_grouped|audio_features|encoder_decoder).*",
        ".*",
        "not about code or models of ours",
    ),
    (".*(flash|flex_attention|kernels_can_load|model_parallelism).*", ".*", "need a GPU"),
    (".*(deepspeed|disk_offload|cpu_offload|sdpa_can_compile|compile_for_training).*", ".*", "need a GPU"),
    (".*eager_matches_sdpa_inference.*(fp16|bf16).*", ".*", "half precision on a CPU says nothing of a GPU's"),
    ("test_(get_image_features_.*|multimodal_outputs_are_returned)", ".*video-.*", "they need an image"),
    ("test_get_video_features_.*", "qwen.*-image", "they need a video"),
    ("test_get_(image|video)_features_(attentions|hidden_states)", "qwen.*", "they count the text's layers"),
    ("test_reverse_loading_mapping", "qwen3_vl_moe.*", "it wants other names in what is saved, not other shapes"),
    (".*eager_matches_sdpa_inference.*", "qwen.*", "it cuts pixels, which are rows of patches here, to the batch"),
]


def _matches(tests: str, cases: str, test: str, case: Case) -> bool:
    return bool(re.fullmatch(tests, test) and re.fullmatch(cases, case.name))


def _known_difference(test: str, case: Case) -> Difference | None:
    return next(
        (
            known
            for known in DIFFERENCES
            if known.since <= RELEASE < known.before and _matches(known.tests, known.cases, test, case)
        ),
        None,
    )


def _is_left_out(test: str, case: Case) -> bool:
    return any(_matches(tests, cases, test, case) for tests, cases, _ in LEFT_OUT)


CASES = [*LLAVA_CASES, *QWEN_VL_CASES]
RELEASE = tuple(map(int, transformers.__version__.split(".")[:2]))
MIXIN = load_model_tester_mixin()
TESTS = [name for name in dir(MIXIN) if name.startswith("test_") and callable(getattr(MIXIN, name))]
PAIRS = [(case, test) for case in CASES for test in TESTS if not _is_left_out(test, case)]


@pytest.fixture(autouse=True)
def _classes_are_known(monkeypatch):
    """The mixin looks up by their names which classes take labels, and leaves out those that it does not know."""
    for family in {case.family for case in CASES}:
        base, conditional = (model_class.__name__ for model_class in family.ours)
        monkeypatch.setitem(modeling_auto.MODEL_MAPPING_NAMES, family.model_type, base)
        monkeypatch.setitem(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, family.model_type, conditional)


@pytest.mark.parametrize(("case", "test"), PAIRS, ids=[f"{case.name}-{test}" for case, test in PAIRS])
def test_result_is_the_stock_class_s(case, test):
    stock, of_stock = _run(stock_case(case), test)
    ours, details = _run(case, test)
    difference = _known_difference(test, case)
    if difference is not None:
        assert ours != stock, "It does not differ any more: take it off the list."
        assert re.search(difference.what_ours_says, details), details
        return
    assert stock != "failed", f"Not even the stock class passes: is it about the model at all?\n{of_stock}"
    assert ours == stock, details
    if ours == "skipped":
        pytest.skip(details)


@cache
def _run(case: Case, test: str) -> tuple[str, str]:
    """Runs one test of the mixin: `"passed"`, `"skipped"` or `"failed"`, and what it said."""
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # some ask for warnings
        _test_case(case)(test).run(result)
    for what, texts in (("failed", result.errors + result.failures), ("skipped", result.skipped)):
        if texts:
            return what, "\n".join(text for _, text in texts)
    return "passed", ""


@cache
def _test_case(case: Case) -> type[unittest.TestCase]:
    class MixinOnCase(MIXIN, unittest.TestCase):
        all_model_classes = case.classes
        _is_composite = True
        # The tower counts tiles and frames, not pictures; and its last layer norm gets no gradient, as in the stock
        # class: the features are taken before it.
        skip_test_image_features_output_shape = True
        skip_test_video_features_output_shape = True
        test_all_params_have_gradient = False
        test_can_init_all_missing_weights_before_2023 = True  # the year is that of a copyright line
        # Without them some tests would pass placeholders and nothing for them, which ours refuses to answer.
        additional_model_inputs = ("pixel_values", "image_sizes", "pixel_values_videos")

        def setUp(self):
            torch.manual_seed(0)
            self.model_tester = case.family.tester(case)

    return MixinOnCase
