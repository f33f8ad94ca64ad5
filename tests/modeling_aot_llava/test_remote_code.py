"""A saved folder carries its code: a process that has never heard of this project loads it and answers alike.

One such process does all that is asked here, and writes down what it saw.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from older_names import PRE_5_NAMES
from PIL import Image
from random_checkpoint import save_random_checkpoint
from safetensors.torch import load_file, save_file
from test_generate import MODES, NEW_TOKENS

import modeling_aot_llava
from aot_llava_cli.mini import MINI_CLIP
from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)

SMALL = {"vision_config": {"image_size": 56, "patch_size": 8}, "local_window_size": 3}
LLAVA_VIDEO = {"mm_spatial_pool_mode": "average", "mm_newline_position": "grid"}
PACKAGE = Path(modeling_aot_llava.__file__).parent
ENTRIES = ("configuration_aot_llava.py", "modeling_aot_llava.py", "processing_aot_llava.py")
# huggingface_hub 1 brings the first, 2 the second; they are imported when something is downloaded.
HTTP_CLIENTS = {"httpx", "httpx2"}

# Those of test_generate.py that run on this release of transformers.
MODES_HERE = {
    mode.id: mode.values[0] for mode in MODES if not any(mark.args[0] for mark in mode.marks if mark.name == "skipif")
}

FRESH_PROCESS = '''
import json, logging, os, sys
from importlib.abc import MetaPathFinder
from pathlib import Path


class NoProject(MetaPathFinder):
    """Hides the project, which may be installed here."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_aot_llava", "aot_llava_cli"):
            raise ImportError(f"{name} is hidden")


sys.meta_path.insert(0, NoProject())
for name in ("modeling_aot_llava", "aot_llava_cli"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} can be imported")

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForPreTraining,
    AutoProcessor,
    LlavaOnevisionForConditionalGeneration,
    pipeline,
)

root = Path(sys.argv[1])
folder, old_folder, again = root / "aot", root / "old_names", root / "again"
report = {}
warned = []


class Listener(logging.Handler):
    def emit(self, record):
        warned.append(record.getMessage())


transformers.logging.set_verbosity_warning()
transformers.logging.disable_progress_bar()
listener = Listener(logging.WARNING)
logging.getLogger("transformers").addHandler(listener)


def keys_that_did_not_fit(info):
    return sorted(str(key) for keys in info.values() for key in keys)


def origin(thing):
    return type(thing).__module__.split(".")[0]


def conversation(kind, name):
    content = [{"type": kind, "path": str(root / name)}, {"type": "text", "text": "What?"}]
    return [{"role": "user", "content": content}]


def prepare(processor, clip="clip.mp4", **options):
    return processor.apply_chat_template(
        conversation("video", clip),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=options,
    )


def answer(model, inputs):
    return model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False).tolist()


# Before any of the project's code is imported.
stock, info = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
report["stock class: keys that did not fit"] = keys_that_did_not_fit(info)
warned.clear()

config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
other_config = AutoConfig.from_pretrained(folder, trust_remote_code=True, retention_ratio=0.2)
report["config"] = [origin(config), type(config).__name__, config.retention_ratio, other_config.retention_ratio]

model, info = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
report["model"] = [origin(model), type(model).__name__, keys_that_did_not_fit(info)]
report["stock class: same weights"] = all(
    torch.equal(stock.state_dict()[name], value) for name, value in model.state_dict().items()
)

processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
other_processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True, retention_ratio=0.2)
report["processor"] = [
    origin(processor),
    type(processor).__name__,
    processor.retention_ratio,
    other_processor.retention_ratio,
]

inputs = prepare(processor)
report["input_ids"] = inputs["input_ids"].tolist()
report["answer"] = answer(model, inputs)
report["answer at 0.2"] = answer(model, prepare(processor, retention_ratio=0.2))

encoded = model.encode_video(**prepare(processor), source="clip.mp4")
encoded.save(root / "clip.aot.safetensors")
from_file = prepare(processor, clip="clip.aot.safetensors")
report["encoded"] = [from_file["input_ids"].tolist(), sorted(from_file), answer(model, from_file)]



def answers_in_all_modes(name):
    """By generation mode: what is written of the video, and of its file once it is encoded."""
    one = AutoModelForImageTextToText.from_pretrained(root / name, trust_remote_code=True)
    its_processor = AutoProcessor.from_pretrained(root / name, trust_remote_code=True)
    of_video = prepare(its_processor, num_frames=4)
    one.encode_video(**of_video).save(root / f"{name}.aot.safetensors")
    of_file = prepare(its_processor, clip=f"{name}.aot.safetensors")
    answers = {}
    for mode, options in json.loads((root / "modes.json").read_text()).items():
        written = []
        for inputs in (of_video, of_file):
            torch.manual_seed(0)
            sequences = one.generate(**inputs, max_new_tokens=6, **options)
            written.append(sequences[:, inputs["input_ids"].shape[1] :].tolist())
        answers[mode] = written
    return answers


old_model, info = AutoModelForImageTextToText.from_pretrained(
    old_folder, trust_remote_code=True, output_loading_info=True
)
report["old names"] = [keys_that_did_not_fit(info), answer(old_model, inputs) == report["answer"]]

model.save_pretrained(again)
processor.save_pretrained(again)
model_again, info = AutoModelForImageTextToText.from_pretrained(
    again, trust_remote_code=True, output_loading_info=True, retention_ratio=0.2, dtype="auto", device_map="cpu"
)
report["again"] = [
    keys_that_did_not_fit(info),
    model_again.config.retention_ratio,
    answer(model_again, prepare(AutoProcessor.from_pretrained(again, trust_remote_code=True))),
]
report["warnings"] = list(warned)
report["modes"] = {name: answers_in_all_modes(name) for name in ("aot", "llava_video")}

inner_model = AutoModel.from_pretrained(folder, trust_remote_code=True)
multimodal, pretraining = (
    auto_class.from_pretrained(folder, trust_remote_code=True)
    for auto_class in (AutoModelForMultimodalLM, AutoModelForPreTraining)
)
others = (inner_model, multimodal, pretraining)
report["other auto classes"] = [[origin(other), type(other).__name__] for other in others]

pipe = pipeline("image-text-to-text", model=str(folder), trust_remote_code=True)
short = {"generate_kwargs": {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}}
as_tokens = {"return_tensors": True, **short}
video, picture = conversation("video", "clip.mp4"), conversation("image", "picture.png")
report["pipeline"] = {
    "video": pipe(text=video, **as_tokens)[0]["generated_token_ids"].tolist(),
    "video, positional": pipe(video, **as_tokens)[0]["generated_token_ids"].tolist(),
    "video at 0.2": pipe(text=video, processor_kwargs={"retention_ratio": 0.2}, **as_tokens)[0][
        "generated_token_ids"
    ].tolist(),
    "video, text": pipe(text=video, return_full_text=False, **short)[0]["generated_text"],
    "videos": [out[0]["generated_text"] for out in pipe(text=[video, video], return_full_text=False, **short)],
    "image": pipe(text=picture, return_full_text=False, **short)[0]["generated_text"],
    "image and text": pipe(
        images=str(root / "picture.png"), text="<image>What?", return_full_text=False, **short
    )[0]["generated_text"],
    "text": pipe(
        text=[{"role": "user", "content": [{"type": "text", "text": "What?"}]}], return_full_text=False, **short
    )[0]["generated_text"],
}
any_to_any = pipeline("any-to-any", model=str(folder), trust_remote_code=True)
report["any-to-any"] = any_to_any(text=video, return_full_text=False, **short)[0]["generated_text"]
report["decoded"] = processor.decode(report["answer"][0][len(report["input_ids"][0]) :], skip_special_tokens=True)

# A machine without PyAV: the code is fetched and imported anew, for it is another folder's.
for name in [name for name in sys.modules if name.split(".")[0] == "av"]:
    del sys.modules[name]
sys.modules["av"] = None
without_av = AutoProcessor.from_pretrained(old_folder, trust_remote_code=True)
frames = torch.zeros(4, 3, 56, 56, dtype=torch.uint8)
report["without PyAV: placeholders"] = without_av(text="<video>", videos=[frames])["input_ids"][0].count(
    without_av.video_token_id
)
try:
    prepare(without_av)
except ImportError as error:
    report["without PyAV"] = str(error)

report["project modules"] = [
    name for name in sys.modules if name.split(".")[0] in ("modeling_aot_llava", "aot_llava_cli")
]
(root / "report.json").write_text(json.dumps(report))
'''


def renamed(key):
    new, old = next((new, old) for new, old in PRE_5_NAMES.items() if key.startswith(new))
    return old + key.removeprefix(new)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Saved folders, one of them with old key names, a clip and a picture."""
    root = tmp_path_factory.mktemp("remote")
    for name in ("aot", "old_names"):
        save_random_checkpoint(root / name, **SMALL)
    save_random_checkpoint(root / "llava_video", **SMALL, **LLAVA_VIDEO)
    (root / "modes.json").write_text(json.dumps(MODES_HERE))
    model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(root / "aot")
    weights = {renamed(key): value.clone() for key, value in model.state_dict().items()}
    save_file(weights, root / "old_names/model.safetensors", metadata={"format": "pt"})
    shutil.copy(MINI_CLIP, root / "clip.mp4")
    Image.linear_gradient("L").convert("RGB").resize((90, 60)).save(root / "picture.png")
    return root


@pytest.fixture(scope="module")
def here(root):
    """What the saving process makes of the same question."""
    model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(root / "aot")
    processor = AOTLlavaOnevisionProcessor.from_pretrained(root / "aot")
    content = [{"type": "video", "path": str(root / "clip.mp4")}, {"type": "text", "text": "What?"}]
    answers = {}
    for ratio in (0.1, 0.2):
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"retention_ratio": ratio},
        )
        sequences = model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        answers[ratio] = {"input_ids": inputs["input_ids"].tolist(), "answer": sequences.tolist()}
    return answers


@pytest.fixture(scope="module")
def report(root, tmp_path_factory):
    """What the fresh process saw: isolated from this one's paths and variables, its module cache empty."""
    empty = tmp_path_factory.mktemp("elsewhere")
    script = empty / "fresh_process.py"
    script.write_text(FRESH_PROCESS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    environment |= {
        "HF_HOME": str(empty / "home"),
        "HF_MODULES_CACHE": str(empty / "modules"),
        "HF_HUB_OFFLINE": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-I", str(script), str(root)],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads((root / "report.json").read_text())


# --- The fresh process ----------------------------------------------------------------------------


def test_nothing_of_the_project_was_imported(report):
    assert report["project modules"] == []


def test_the_auto_classes_load_the_folders_code(report):
    assert report["config"] == ["transformers_modules", "AOTLlavaOnevisionConfig", 0.1, 0.2]
    assert report["model"] == ["transformers_modules", "AOTLlavaOnevisionForConditionalGeneration", []]
    assert report["other auto classes"] == [
        ["transformers_modules", "AOTLlavaOnevisionModel"],
        ["transformers_modules", "AOTLlavaOnevisionForConditionalGeneration"],
        ["transformers_modules", "AOTLlavaOnevisionForConditionalGeneration"],
    ]
    assert report["processor"] == ["transformers_modules", "AOTLlavaOnevisionProcessor", 0.1, 0.2]


def test_the_answer_is_the_saving_processes(report, here):
    assert report["input_ids"] == here[0.1]["input_ids"]
    assert report["answer"] == here[0.1]["answer"]
    assert report["answer at 0.2"] == here[0.2]["answer"]


def test_a_video_that_was_encoded_once_answers_alike(report, here):
    ids, names, answer = report["encoded"]
    assert ids == here[0.1]["input_ids"]
    assert answer == here[0.1]["answer"]
    assert names == [
        "attention_mask",
        "encoded_video_lengths",
        "encoded_video_marks",
        "encoded_video_tokens",
        "input_ids",
    ]


@pytest.mark.parametrize("mode", MODES_HERE)
@pytest.mark.parametrize("name", ["aot", "llava_video"])
def test_an_encoded_video_answers_as_the_video_itself(report, name, mode):
    of_video, of_file = report["modes"][name][mode]
    assert of_file == of_video
    assert all(len(row) == NEW_TOKENS for row in of_video)


def test_weights_with_old_names_load_completely(report):
    assert report["old names"] == [[], True]


def test_the_loaded_model_saves_and_loads_again(report, here):
    assert report["again"] == [[], 0.2, here[0.1]["answer"]]


def test_the_folder_saved_again_is_the_same(report, root):
    saved, again = (sorted(path.name for path in (root / name).iterdir()) for name in ("aot", "again"))
    assert again == saved
    texts = [*code_files(root / "aot"), "processor_config.json", "generation_config.json", "chat_template.jinja"]
    for name in texts:
        assert (root / "again" / name).read_text() == (root / "aot" / name).read_text(), name
    config, config_again = (json.loads((root / name / "config.json").read_text()) for name in ("aot", "again"))
    for part in ("vision_config", "text_config"):  # a loaded model's parts also say their dtype
        assert config_again.pop(part).items() >= config.pop(part).items()
    assert config_again == config
    before, after = (load_file(root / name / "model.safetensors") for name in ("aot", "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_loading_and_answering_warns_of_nothing(report):
    assert report["warnings"] == []


def test_the_stock_class_loads_the_folder_without_the_code(report):
    assert report["stock class: keys that did not fit"] == []
    assert report["stock class: same weights"]


def test_the_pipeline_answers_about_a_video(report, here):
    assert report["pipeline"]["video"] == here[0.1]["answer"][0]
    assert report["pipeline"]["video, positional"] == here[0.1]["answer"][0]
    assert report["pipeline"]["video at 0.2"] == here[0.2]["answer"][0]
    assert report["pipeline"]["video, text"] == report["decoded"]
    assert report["pipeline"]["videos"] == [report["decoded"]] * 2
    assert report["any-to-any"] == report["decoded"]


@pytest.mark.parametrize("question", ["image", "image and text", "text"])
def test_the_pipeline_answers_about_what_is_no_video(report, question):
    assert report["pipeline"][question]


def test_without_pyav_all_but_video_files_works(report):
    assert report["without PyAV: placeholders"] == 6 + 1
    assert "pip install av" in report["without PyAV"]


# --- The published files --------------------------------------------------------------------------


def code_files(folder):
    return {path.name for path in folder.glob("*.py")}


def imported(path):
    """The absolute imports of a file, and its relative ones as (dots, module)."""
    absolute, relative = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            absolute |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            absolute.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            relative.add((node.level, node.module))
    return absolute, relative


def needed_by(folder, name):
    """A file, and all that it imports from beside it."""
    needed, left = set(), [name]
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            left += [f"{module}.py" for _, module in imported(folder / name)[1]]
    return needed


def test_what_the_classes_import_is_published_as_it_is(root):
    published = set().union(*(needed_by(PACKAGE, name) for name in ENTRIES))
    assert code_files(root / "aot") == published
    of_qwen = set().union(*(needed_by(PACKAGE, name) for name in code_files(PACKAGE) if "_aot_qwen" in name))
    # What people who have the project installed use, and no class does.
    assert code_files(PACKAGE) - published - of_qwen == {"__init__.py", "cache_name.py", "cost_model.py"}
    for name in published:
        assert (root / "aot" / name).read_bytes() == (PACKAGE / name).read_bytes()


@pytest.mark.parametrize("name", sorted(code_files(PACKAGE) - {"__init__.py"}))
def test_published_files_import_only_what_is_there(name):
    absolute, relative = imported(PACKAGE / name)
    with_the_model = {"torch", "transformers", "safetensors", "numpy", "av", "PIL", "triton", "vllm"}
    assert absolute <= sys.stdlib_module_names | with_the_model | HTTP_CLIENTS
    for dots, module in relative:
        assert dots == 1
        assert (PACKAGE / f"{module}.py").is_file()  # `from . import name` is not followed by the Hub's loader


def test_each_part_saved_alone_brings_the_code_that_it_needs(root, tmp_path):
    parts = {
        "configuration_aot_llava.py": AOTLlavaOnevisionConfig.from_pretrained(root / "aot"),
        "modeling_aot_llava.py": AOTLlavaOnevisionForConditionalGeneration.from_pretrained(root / "aot"),
        "processing_aot_llava.py": AOTLlavaOnevisionProcessor.from_pretrained(root / "aot"),
    }
    for name, part in parts.items():
        part.save_pretrained(tmp_path / name)
        assert code_files(tmp_path / name) >= needed_by(PACKAGE, name)


def test_the_saved_files_point_to_the_code(root):
    config = json.loads((root / "aot/config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_aot_llava.AOTLlavaOnevisionConfig",
        "AutoModel": "modeling_aot_llava.AOTLlavaOnevisionModel",
        "AutoModelForImageTextToText": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
        "AutoModelForMultimodalLM": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
        "AutoModelForPreTraining": "modeling_aot_llava.AOTLlavaOnevisionForConditionalGeneration",
    }
    processor = json.loads((root / "aot/processor_config.json").read_text())
    assert processor["auto_map"] == {"AutoProcessor": "processing_aot_llava.AOTLlavaOnevisionProcessor"}
