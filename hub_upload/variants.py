"""A variant: AOT fields, the base model that they were chosen for and the number of frames. One JSON file each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .errors import PushError, PushUsageError, in_one_line
from .names import MAIN, branch_problem, repo_id_problem, shown
from .package_code import aot_defaults
from .strict_json import read_object

# A frame a second for eleven days: whoever asks for more has mistyped.
MOST_FRAMES = 1_000_000

# An installation has the folder inside this package, a checkout beside it.
_FOLDERS = (Path(__file__).parent / "configuration", Path(__file__).parents[1] / "configuration")


@dataclass(frozen=True)
class Variant:
    """One way to run a base with AOT.

    Attributes:
        name: the file's name without `.json`; its branch on the Hub.
        base_model: Hub ID of the base that it was made for.
        num_frames: frames that the processor reads from a video.
        fields: every AOT field, those that the file does not name at their defaults; those about the base model
            (`mm_...`) only where the file names them.
    """

    name: str
    base_model: str
    num_frames: int
    fields: dict[str, Any]


def read_variants(arguments: Sequence[str], base: str | None) -> list[Variant]:
    """Reads what `--variant` names: files, folders of files, or the names of variants that come with the project.

    Of a folder those are taken that were made for the base; if none was, all, as long as they agree on one base.
    """
    variants = [variant for argument in arguments for variant in _read(argument, base)]
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise PushUsageError(f"two variants are called {name}, but each needs a branch of its own: rename one.")
    return variants


def read_variant(file: Path) -> Variant:
    """Reads one file.

    Raises:
        PushError: if it is no variant; the message names the file, the field and what is right. The values of AOT
            fields are checked later, by the config class itself and against the base.
    """
    values = read_object(file, shown(str(file)), "correct it.")
    known = ["base_model", "num_frames", *aot_defaults()]
    for name in values:
        if name not in known:
            raise PushError(f"{file}: there is no field {in_one_line(repr(name))}. {_suggestion(name, known)}")
    base_model, num_frames = values.pop("base_model", None), values.pop("num_frames", None)
    problem = repo_id_problem(base_model)
    if problem:
        raise PushError(f"{file}: `base_model` is {in_one_line(repr(base_model))}, but {problem}.")
    if not isinstance(num_frames, int) or isinstance(num_frames, bool) or not 1 <= num_frames <= MOST_FRAMES:
        raise PushError(
            f"{file}: `num_frames` is {in_one_line(repr(num_frames))}, but it must be an integer from 1 to "
            f"{MOST_FRAMES:,}."
        )
    problem = branch_problem(file.stem)
    if not re.fullmatch(r"\w[\w.-]*", file.stem) or file.stem == MAIN or problem:
        raise PushError(
            f"{shown(str(file))}: its name becomes a branch, so use letters, digits, `-`, `_` and `.`; not `main`"
            f"{f' ({problem})' if problem else ''}."
        )
    # What the base model does, the base says, unless the file does.
    defaults = {name: value for name, value in aot_defaults().items() if not name.startswith("mm_")}
    return Variant(file.stem, base_model, num_frames, {**defaults, **values})


def bundled_variants() -> dict[str, Path]:
    """The files of `configuration/`, by the name of the variant."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def _read(argument: str, base: str | None) -> list[Variant]:
    path = Path(argument)
    if path.is_dir():
        return _read_folder(path, base)
    if path.is_file():
        return [read_variant(path)]
    bundled = bundled_variants()
    name = path.name.removesuffix(".json")
    if name in bundled and len(path.parts) == 1:
        return [read_variant(bundled[name])]
    raise PushUsageError(
        f"there is no variant {argument}: give a JSON file or a folder of them. {_suggestion(name, bundled)}"
    )


def _read_folder(folder: Path, base: str | None) -> list[Variant]:
    variants = [read_variant(file) for file in sorted(folder.glob("*.json"))]
    if not variants:
        raise PushUsageError(f"the folder {folder} holds no variant: put a JSON file into it, or name one.")
    base_models = sorted({variant.base_model for variant in variants})
    if base in base_models:
        variants = [variant for variant in variants if variant.base_model == base]
    elif len(base_models) > 1:
        raise PushUsageError(
            f"the variants in {folder} were made for {len(base_models)} bases ({', '.join(base_models)}), and --base "
            "is none of them: name the files that you want, each with its own --variant."
        )
    return sorted(variants, key=_papers_order)


def _papers_order(variant: Variant) -> tuple:
    """Uniform clips, then dynamic ones, then the released recipe; in each, the smallest ratio first."""
    fields = variant.fields
    # Values have not been checked yet, so they are compared as text.
    return fields["recipe"] != "paper", fields["clip_segmentation"] != "uniform", str(fields["retention_ratio"])


def _suggestion(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    matches = get_close_matches(name, known, n=1, cutoff=0.56)
    return f"Did you mean {matches[0]!r}?" if matches else f"There are: {', '.join(known)}."
