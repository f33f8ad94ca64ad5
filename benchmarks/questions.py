"""Questions a second about one video: encoded once, against read and encoded for each question.

Both in turns in one run, so that a busy machine slows both alike; the answers must be the same.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from .options import OneLineParser, count, device, list_of

PROMPT = "What moves? Answer with one word. ({number})"


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = OneLineParser(prog="python -m benchmarks.questions", description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="Hub ID or folder (default: the mini checkpoint)")
    parser.add_argument("--video", help="a video file (default: the mini clip)")
    parser.add_argument("--questions", type=list_of(count), default=[1, 3, 10], metavar="N,N")
    parser.add_argument("--repeats", type=count, default=3, metavar="N")
    parser.add_argument("--num-frames", type=count, metavar="N", help="default: the checkpoint's")
    parser.add_argument("--max-new-tokens", type=count, default=8, metavar="N")
    parser.add_argument("--device", type=device, help="default: the GPUs where there are some, else the CPU")
    options = parser.parse_args(arguments)

    from aot_llava_cli import answer, hosts
    from aot_llava_cli.mini import MINI_CHECKPOINT, MINI_CLIP

    answer.silence_libraries()
    name, video = options.model or str(MINI_CHECKPOINT), options.video or str(MINI_CLIP)
    hosts.check_is_llava(name)
    processor = answer.load_processor(name, None)
    model = answer.load_model(name, None, device=options.device)
    _Asking(model, processor, video, options).ask_each_time(1)  # what is done once in a process is not measured
    print("| questions | encoded for each | encoded once | ratio |\n|---|---|---|---|")
    for number in options.questions:
        each, once = _measure(_Asking(model, processor, video, options), number, options.repeats)
        print(f"| {number} | {number / each:.2f} a second | {number / once:.2f} a second | {each / once:.2f} |")


class _Asking:
    def __init__(self, model: Any, processor: Any, video: str, options: Any):
        self._model, self._processor, self._video, self._options = model, processor, video, options

    @property
    def device(self) -> Any:
        """Of the model."""
        return self._model.device

    def ask_each_time(self, number: int) -> list[Any]:
        """The answers to so many questions; each reads the video."""
        return [self._ask(self._video, which, num_frames=self._options.num_frames) for which in range(number)]

    def ask_once_encoded(self, number: int) -> list[Any]:
        """The answers to the same; the first reads and encodes the video."""
        from aot_llava_cli import answer

        encoded = answer.encode(self._model, self._processor, self._video, num_frames=self._options.num_frames)
        return [self._ask(encoded, which) for which in range(number)]

    def _ask(self, video: Any, which: int, **options: Any) -> Any:
        from aot_llava_cli import answer

        prompt = PROMPT.format(number=which)
        question = answer.read_question(self._processor, video, prompt, **options)
        question = question.to(self._model.device, self._model.dtype)
        return self._model.generate(**question, **answer.greedily(self._options.max_new_tokens)).sequences


def _measure(asking: _Asking, number: int, repeats: int) -> tuple[float, float]:
    """Seconds of the two ways, medians.

    Raises:
        RuntimeError: if their answers are not the same.
    """
    from .measure import seconds

    ways: list[Callable[[int], list[Any]]] = [asking.ask_each_time, asking.ask_once_encoded]
    spent: list[list[float]] = [[], []]
    for _ in range(repeats):
        answers: list[list[Any]] = []
        for way, seconds_of_way in zip(ways, spent):
            seconds_of_way.append(seconds(partial(_keep, answers, way, number), asking.device))
        if any(not one.equal(other) for one, other in zip(*answers)):
            raise RuntimeError("The encoded video answers otherwise than the video itself.")
    each, once = map(statistics.median, spent)
    return each, once


def _keep(answers: list[list[Any]], way: Callable[[int], list[Any]], number: int) -> None:
    answers.append(way(number))


if __name__ == "__main__":
    main()
