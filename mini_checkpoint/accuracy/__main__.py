"""The program `python -m mini_checkpoint.accuracy`."""

import sys
from argparse import Namespace
from pathlib import Path

from benchmarks.options import check_results_folder
from benchmarks.plot import require_matplotlib

from .options import parse_options

PROGRAM = "python -m mini_checkpoint.accuracy"
RESULTS = "accuracy.json"


def main(arguments: list[str] | None = None, prog: str = PROGRAM) -> None:
    """Asks what has not been answered yet, prints the tables and writes the results.

    Raises:
        ImportError: if matplotlib is missing but a plot is wanted.
        OSError: if the checkpoint cannot be read or the results cannot be written.
        ValueError: if the checkpoint is of another kind, or the output folder holds answers of another one.
    """
    options = parse_options(arguments, prog)
    if not options.no_plot:
        require_matplotlib()
    check_results_folder(options.output, RESULTS, {"settings", "groups"}, ("accuracy.md", "accuracy.png"))
    options.output.mkdir(parents=True, exist_ok=True)
    results = _measure(options)
    for file in _write(results, options.output, not options.no_plot):
        print(f"Written: {file}", file=sys.stderr)


def _measure(options: Namespace) -> dict:
    # Only now: torch takes seconds to import, and a typing error should be answered at once.
    from tqdm import tqdm
    from transformers import LlavaOnevisionForConditionalGeneration

    from aot_llava_baselines.cost import ModelShape
    from aot_llava_cli import answer
    from mini_checkpoint.questions import ask, make_scene

    from .provenance import definition_of, made_with
    from .results import summarise
    from .saved_replies import SavedReplies
    from .survey import Checkpoint, ask_about, cost_of

    answer.silence_libraries()
    model, processor = answer.load(str(options.model), retention_ratio=None)
    model = model.float().eval()
    stock = LlavaOnevisionForConditionalGeneration.from_pretrained(options.model).float().eval().to(model.device)
    checkpoint = Checkpoint(model, processor, stock)
    provenance = made_with(options.model, model.device)
    saved = SavedReplies(options.output / "answers.jsonl", provenance, definition_of)
    scenes = [make_scene(seed, "held_out") for seed in range(options.clips)]
    for scene in tqdm(scenes, file=sys.stderr, unit="clip", dynamic_ncols=True):
        missing = saved.missing(scene.seed, options.settings)
        if missing:
            replies = ask_about(scene, missing, checkpoint)
            saved.add(scene.seed, {setting: replies[setting.name] for setting in missing})
    return summarise(
        [ask(scene) for scene in scenes],
        {setting: [saved.of(scene.seed, setting) for scene in scenes] for setting in options.settings},
        model.config.pooled_grid_size**2,
        lambda setting, reply: cost_of(setting, reply, ModelShape.of(stock.config)),
        {"model": options.model.resolve().name, "made with": provenance},
    )


def _write(results: dict, folder: Path, with_plot: bool) -> list[Path]:
    from benchmarks.report import write_json
    from hub_upload.whole_file import write_whole

    from .plot import draw
    from .tables import as_markdown

    tables = as_markdown(results)
    print(tables)
    files = [folder / RESULTS, folder / "accuracy.md"]
    write_json(results, files[0])
    write_whole(files[1], lambda file: file.write_text(tables))
    if with_plot:
        files.append(folder / "accuracy.png")
        draw(results, files[-1])
    return files


if __name__ == "__main__":
    try:
        main()
    except (OSError, ImportError, ValueError) as error:
        sys.exit(f"{PROGRAM}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{PROGRAM}: interrupted. The same command goes on from here.")
