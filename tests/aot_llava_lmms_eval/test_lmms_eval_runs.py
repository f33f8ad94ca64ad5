"""Through lmms-eval's entry point: the answers and scores of the direct runs, with one process and with two."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aot_llava_cli.mini import MINI_CHECKPOINT

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: make_environment makes an environment for it")

from lmms_eval_runs import TASK, TASK_FOLDER, run

from aot_llava_lmms_eval.names import METHODS, model_id

BASE = f"pretrained={MINI_CHECKPOINT},max_frames_num=8,dtype=float32,device=cpu"
# By name: model, arguments, and the method with its settings that the direct run has.
METHOD_SETTINGS = {
    "fastv": ("retention_ratio=0.2,layer=1", {"retention_ratio": 0.2, "layer": 1}),
    "pdrop": ("retention_ratio=0.125,layers=[1,2,3]", {"retention_ratio": 0.125, "layers": (1, 2, 3)}),
    "dycoke": ("retention_ratio=0.25", {"retention_ratio": 0.25}),
    "visionzip": ("retention_ratio=0.15", {"retention_ratio": 0.15}),
    "prunevid": ("retention_ratio=0.15,alpha=0.4,layer=2", {"retention_ratio": 0.15, "alpha": 0.4, "layer": 2}),
    "fastvid": ("retention_ratio=0.2", {"retention_ratio": 0.2}),
    "holitom": ("retention_ratio=0.15", {"retention_ratio": 0.15}),
    "flashvid": (
        "retention_ratio=0.15,layer=4,inner_ratio=0.4",
        {"retention_ratio": 0.15, "layer": 4, "inner_ratio": 0.4},
    ),
    "framefusion": ("retention_ratio=0.3", {"retention_ratio": 0.3}),
    "stc_pruner": ("retention_ratio=0.15", {"retention_ratio": 0.15}),
    "stc_cacher": ("retention_ratio=0.15,then=vidcom2", {"retention_ratio": 0.15, "then": "vidcom2"}),
    "earlytom": (
        "retention_ratio=0.15,merging_layers=[2,5,6],layer=4",
        {"retention_ratio": 0.15, "merging_layers": (2, 5, 6), "layer": 4},
    ),
    "vidcom2": ("retention_ratio=0.15,exact_count=True", {"retention_ratio": 0.15, "exact_count": True}),
}
AOT_SETTINGS = {
    "aot": ("retention_ratio=0.1", {"retention_ratio": 0.1}),
    "aot, released": ("retention_ratio=0.15,recipe=released", {"retention_ratio": 0.15, "recipe": "released"}),
}
RUNS = {
    **{name: ("aot_llava", f"{BASE},{given}") for name, (given, _) in AOT_SETTINGS.items()},
    "stock": ("aot_llava", f"{BASE},retention_ratio=1.0"),
    **{name: (model_id(name), f"{BASE},{given}") for name, (given, _) in METHOD_SETTINGS.items()},
}


@pytest.fixture(scope="module")
def direct(aot_answers, stock_answers, method_answers):
    """The direct answers by the names of `RUNS`."""
    # All tokens' placeholders leave the ratio to the model, as the released recipe needs it.
    return {
        "aot": aot_answers(retention_ratio=0.1),
        "aot, released": aot_answers(retention_ratio=0.15, recipe="released"),
        "stock": stock_answers,
        **{name: method_answers(name, **settings) for name, (_, settings) in METHOD_SETTINGS.items()},
    }


@pytest.fixture(scope="module")
def of_one_process(local_task):
    """All runs, in this process."""
    before = Path.cwd()
    os.chdir(local_task.folder)
    yield {name: run(*arguments) for name, arguments in RUNS.items()}
    os.chdir(before)


@pytest.fixture(scope="module")
def of_two_processes(local_task):
    """All runs, in two processes of torchrun. Neither has a device of its own choice."""
    runs, results = local_task.folder / "runs.json", local_task.folder / "results.json"
    alone = {name: (model, given.replace(",device=cpu", "")) for name, (model, given) in RUNS.items()}
    runs.write_text(json.dumps(alone))
    script = Path(__file__).with_name("lmms_eval_runs.py")
    command = ["torch.distributed.run", "--nproc_per_node", "2", script, local_task.folder, runs, results]
    in_subprocess(*command, cwd=local_task.folder)
    return json.loads(results.read_text())


def in_subprocess(*command, cwd, **environment):
    # No GPU may be used, that two processes have the same one.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def score(answers, docs):
    return sum(answer == doc["answer"] for answer, doc in zip(answers, docs)) / len(docs)


def test_every_method_is_run():
    assert set(METHOD_SETTINGS) == set(METHODS)


@pytest.mark.parametrize("name", RUNS)
def test_one_process_gives_the_direct_answers_and_score(name, of_one_process, direct, local_task):
    assert of_one_process[name]["answers"] == direct[name]
    assert of_one_process[name]["score"] == pytest.approx(score(direct[name], local_task.docs))


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_the_same(name, of_two_processes, direct, local_task):
    assert of_two_processes[name]["answers"] == direct[name]
    assert of_two_processes[name]["score"] == pytest.approx(score(direct[name], local_task.docs))


def test_answers_differ_between_methods(direct):
    """Else the tests above could not tell one model from another."""
    assert len({tuple(answers) for answers in direct.values()}) > 4
    assert len(set(direct["stock"])) > 3


def test_simple_requests_in_batches_give_the_same(of_one_process, local_task, monkeypatch):
    monkeypatch.chdir(local_task.folder)
    simple = run("aot_llava", RUNS["aot"][1], force_simple=True, batch_size="4")
    assert simple["answers"] == of_one_process["aot"]["answers"]


def test_command_line_with_two_processes_goes_on_from_its_cache(of_one_process, local_task, tmp_path):
    options = ["--tasks", TASK, "--include_path", TASK_FOLDER, "--batch_size", "1", "--log_samples"]
    model, arguments = RUNS["aot"]
    command = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "lmms_eval", "--model", model]
    command += ["--model_args", arguments.replace(",device=cpu", ""), *options, "--use_cache", tmp_path / "cache"]
    in_subprocess(*command, "--output_path", tmp_path / "first", cwd=local_task.folder)
    in_subprocess(*command, "--output_path", tmp_path / "second", cwd=local_task.folder)
    for name in ("first", "second"):
        (file,) = (tmp_path / name).rglob("*_results.json")
        assert json.loads(file.read_text())["results"][TASK]["accuracy,none"] == of_one_process["aot"]["score"]


def test_run_that_stops_keeps_its_answers(local_task, tmp_path, monkeypatch):
    from aot_llava_lmms_eval.answering import Answerer

    monkeypatch.chdir(local_task.folder)
    monkeypatch.setenv("LMMS_CACHE_RUN_ID", "table1")
    asked = []
    answer = Answerer.answer

    def stop_at_the_fifth(self, conversations, options):
        asked.append(conversations)
        if len(asked) == 5:
            raise OSError("The disk of the videos is gone.")
        return answer(self, conversations, options)

    monkeypatch.setattr(Answerer, "answer", stop_at_the_fifth)
    with pytest.raises(OSError, match="The disk of the videos is gone"):
        run(*RUNS["aot"], use_cache=str(tmp_path))
    assert len(asked) == 5
    first = run(*RUNS["aot"], use_cache=str(tmp_path))
    assert len(asked) == 5 + len(local_task.docs) - 4
    assert first["answers"] == run(*RUNS["aot"])["answers"]


@pytest.fixture
def prompts_of_runs(local_task, monkeypatch):
    """The conversations that a model is asked from now on, in the folder of the local task."""
    from aot_llava_lmms_eval.answering import Answerer

    asked = []
    answer = Answerer.answer
    monkeypatch.setattr(Answerer, "answer", lambda *given: (asked.extend(given[1]), answer(*given))[1])
    monkeypatch.chdir(local_task.folder)
    return asked


@pytest.mark.parametrize(
    ("task_prompts", "beginning"), [("llava_vid", "Look closely. "), ("no_model_of_the_task", "")]
)
@pytest.mark.parametrize("options", [{}, {"force_simple": True}])
def test_wording_of_another_model(task_prompts, beginning, options, local_task, prompts_of_runs):
    run("aot_llava", f"{RUNS['aot'][1]},task_prompts={task_prompts}", limit=1, **options)
    (asked,) = prompts_of_runs
    assert asked.messages[0]["content"][-1]["text"] == beginning + local_task.docs[0]["question"]


def test_messages_that_a_task_writes(local_task, prompts_of_runs):
    run("aot_llava", RUNS["aot"][1], task="mini_messages", limit=1)
    (asked,) = prompts_of_runs
    assert [message["role"] for message in asked.messages] == ["system", "user"]
    assert asked.messages[1]["content"] == [
        {"type": "video"},
        {"type": "text", "text": local_task.docs[0]["question"]},
    ]
    assert asked.videos == [local_task.docs[0]["video"]]


def requests_of(docs, model):
    """Chat requests, as lmms-eval's agentic loop makes them."""
    from lmms_eval.api.instance import Instance

    def messages(doc):
        content = [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["question"]}]
        return [{"role": "user", "content": content}]

    model.task_dict = {TASK: {"test": docs}}
    return [
        Instance(
            request_type="generate_until",
            arguments=("", messages, {"max_new_tokens": 2}, number, TASK, "test"),
            idx=0,
            metadata={"task": TASK, "doc_id": number, "repeats": 1},
        )
        for number in range(len(docs))
    ]


def test_one_request_is_answered_at_once_and_may_have_messages_of_no_task(local_task):
    """As lmms-eval's agentic loop asks."""
    from aot_llava_lmms_eval import models

    model = models.aot_chat.create_from_arg_string(RUNS["aot"][1])
    (answer,) = model.generate_until(requests_of(local_task.docs[:1], model))
    assert answer.text
    assert 0 < answer.token_counts.output_tokens <= 2
    model.clean()
    assert model.device.type == "cpu"
    assert not hasattr(model, "_answerer")


@pytest.mark.parametrize("read_ahead", [0, 1, 3])
def test_unreadable_video_stops_at_its_own_request(read_ahead, local_task):
    from aot_llava_lmms_eval import models

    docs = [*local_task.docs[2:4], {"video": "/gone.mp4", "question": "What?"}, local_task.docs[4]]
    model = models.aot_chat.create_from_arg_string(f"{RUNS['aot'][1]},read_ahead={read_ahead}")
    answers, threads = [], set(threading.enumerate())
    with pytest.raises((OSError, ValueError), match=r"/gone\.mp4"):
        answers.extend(model.generate_until(requests_of(docs, model)))
    assert len(answers) == 2
    assert set(threading.enumerate()) <= threads


def test_unreadable_videos_are_counted(local_task):
    from loguru import logger

    from aot_llava_lmms_eval import models

    gone = [{"video": f"/gone{number}.mp4", "question": "What?"} for number in range(2)]
    docs = [gone[0], local_task.docs[3], gone[1]]
    model = models.aot_chat.create_from_arg_string(f"{RUNS['aot'][1]},unreadable_videos=llava_vid")
    printed = []
    sink = logger.add(printed.append, format="{message}")
    answers = [answer.text for answer in model.generate_until(requests_of(docs, model))]
    logger.remove(sink)
    assert answers[::2] == [f"Video /gone{number}.mp4 can not load, check the source" for number in range(2)]
    *named, counted, _ = printed  # and what lmms-eval says of the speed
    assert [line.startswith(f"/gone{number}.mp4 cannot be read") for number, line in enumerate(named)] == [True, True]
    assert counted.startswith("2 of 3 requests of process 0 had a video that cannot be read")


def test_log_says_how_many_requests_reused_a_video(local_task):
    from loguru import logger

    from aot_llava_lmms_eval import models

    model = models.aot_chat.create_from_arg_string(RUNS["aot"][1])
    printed = []
    sink = logger.add(printed.append, format="{message}")
    list(model.generate_until(requests_of(local_task.docs, model)))
    logger.remove(sink)
    num_clips = len({doc["video"] for doc in local_task.docs})
    num_docs = len(local_task.docs)
    assert f"{num_docs - num_clips} of {num_docs} requests of process 0 reused an encoded video.\n" in printed


def test_wrong_argument_names_the_right_ones(local_task, monkeypatch):
    monkeypatch.chdir(local_task.folder)
    with pytest.raises(ValueError, match="aot_llava has no argument 'retention_rate'; did you mean 'retention_ratio'"):
        run("aot_llava", f"{BASE},retention_rate=0.1")
    with pytest.raises(ValueError, match="aot_llava_fastv has no argument 'layers'; did you mean 'layer'"):
        run("aot_llava_fastv", f"{BASE},layers=2")
    with pytest.raises(ValueError, match="`local_anchor_ratio` is 2, but it must be a number from 0 to 1"):
        run("aot_llava", f"{BASE},local_anchor_ratio=2")


@pytest.mark.parametrize("request_type", ["loglikelihood", "generate_until_multi_round"])
def test_requests_that_are_not_answered(request_type):
    from aot_llava_lmms_eval.models import AOTModel

    with pytest.raises(NotImplementedError, match="aot_llava"):
        getattr(AOTModel, request_type)(AOTModel.__new__(AOTModel), [])
