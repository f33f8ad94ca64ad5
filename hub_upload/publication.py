"""Which variant goes to which branch, and what the whole push would do, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .base import Base
from .errors import PushUsageError
from .files import File, FileOnDisk, FileOnHub, readable_size
from .model_card import model_card, readable_flops
from .names import MAIN
from .operating_point import OperatingPoint
from .repository import repository_files
from .target import BranchState, Changes, with_sizes
from .variants import Variant

# Of the files that are left out.
MOST_NAMED = 100


@dataclass(frozen=True)
class Publication:
    """One branch, whole."""

    branch: str
    variant: Variant
    point: OperatingPoint
    files: tuple[File, ...]


def assign_branches(variants: Sequence[Variant], branch: str | None) -> list[tuple[str, Variant]]:
    """One variant goes to the branch that is named, or to the main one.

    Of several each has a branch that is called like itself, and the main branch gets the first.
    """
    if len(variants) == 1:
        return [(branch or MAIN, variants[0])]
    if branch is not None:
        raise PushUsageError(
            f"--revision {branch} names one branch, but {len(variants)} variants are to be pushed: leave it out, "
            "and each gets a branch of its own."
        )
    return [(MAIN, variants[0]), *((variant.name, variant) for variant in variants)]


def make_publication(
    base: Base,
    branch: str,
    variant: Variant,
    points: Mapping[str, OperatingPoint],
    repo_id: str,
) -> Publication:
    """Makes all that goes to a branch; `points` holds the operating points of all variants, by name."""
    is_main = branch == MAIN
    card = model_card(
        base,
        variant,
        points[variant.name],
        repo_id,
        revision=None if is_main else branch,
        branches=points if is_main and len(points) > 1 else None,
    )
    return Publication(branch, variant, points[variant.name], tuple(repository_files(base, variant, card)))


def describe_base(base: Base) -> str:
    size = readable_size(sum(file.size for file in base.files))
    at = f" at commit {base.revision}" if base.is_on_hub else ", a local folder"
    lines = [f"Base      {base.location}{at} ({len(base.files)} files, {size})"]
    if base.left_out:
        rest = len(base.left_out) - MOST_NAMED
        more = f" and {rest:,} more" if rest > 0 else ""
        lines.append(f"          left out: {', '.join(base.left_out[:MOST_NAMED])}{more}")
    if base.private_fields:
        fields = [f"{', '.join(names)} of {path}" for path, names in base.private_fields.items()]
        lines.append(f"          left out as nobody's business: {'; '.join(fields)}")
    if base.is_quantised:
        lines.append("          quantised: names and shapes of the weights are not compared with the config")
    return "\n".join(lines)


def describe_point(publication: Publication, where: str) -> str:
    """Like `main = x-10: 6,272 → 627 video tokens of 32 frames, prefill 40.8 TFLOPs → 3.4 TFLOPs`."""
    point, name = publication.point, publication.variant.name
    heading = name if where == name else f"{where} = {name}"
    about = "" if point.has_fixed_token_count else "about "
    newlines = f", {point.newlines_after:,} newline tokens beside them" if point.newlines_after > 1 else ""
    return (
        f"{heading}: {point.tokens_before:,} → {about}{point.tokens_after:,} video tokens of {point.num_frames} "
        f"frames{newlines}, prefill {readable_flops(point.flops_before)} → {readable_flops(point.flops_after)}"
    )


def describe_transfers(
    planned: Sequence[Publication],
    states: Sequence[BranchState],
    all_changes: Sequence[Changes],
    can_copy_from_base: bool,
) -> list[str]:
    """What would move and how: file by file for the first branch, in sums for the others and for all."""
    lines: list[str] = []
    totals: dict[str, list[File]] = {}
    # By name and size: hashes would mean to read a local base's weights, and this is only a description.
    in_target = {(file.path, file.size) for state in states for file in state.files.values() if file.is_large}
    for number, (publication, changes) in enumerate(zip(planned, all_changes)):
        ways: dict[str, list[File]] = {}
        for file in publication.files:
            way = _way(file, in_target, can_copy_from_base) if file in changes.write else "already there"
            way = "kept as you edited it" if file.path in changes.keep else way
            ways.setdefault(way, []).append(file)
            totals.setdefault(way, []).append(file)
        in_target |= {(file.path, file.size) for file in publication.files if _is_large(file)}
        lines += ["", describe_point(publication, publication.branch)]
        lines += _describe_files(ways) if number == 0 else [f"  {_describe_sums(ways)}"]
        if changes.delete:
            lines.append(f"  deleted: {', '.join(changes.delete)}")
        if changes.lost:
            lines.append(f"  lost by --overwrite: {with_sizes(changes.lost)}")
    return [*lines, "", f"In all    {_describe_sums(totals)}"]


def _describe_files(ways: dict[str, list[File]]) -> list[str]:
    width = max(len(file.path) for files in ways.values() for file in files)
    lines = []
    for way, files in ways.items():
        lines.append(f"  {_describe_sums({way: files})}")
        if way not in ("already there", "kept as you edited it"):
            lines += [f"    {file.path:<{width}}  {readable_size(file.size):>7}" for file in files]
    return lines


def _describe_sums(ways: dict[str, list[File]]) -> str:
    """Like `uploaded: 14 files, 116 kB; copied on the Hub: 5 files, 16.1 GB`."""
    return "; ".join(
        f"{way}: {len(files)} file{'s' if len(files) > 1 else ''}, {readable_size(sum(file.size for file in files))}"
        for way, files in ways.items()
    )


def _way(file: File, in_target: set[tuple[str, int]], can_copy_from_base: bool) -> str:
    if _is_large(file) and (file.path, file.size) in in_target:
        return "copied within the repository"
    if isinstance(file, FileOnHub):
        return "copied on the Hub" if can_copy_from_base and file.is_large else "downloaded and uploaded"
    return "uploaded"


def _is_large(file: File) -> bool:
    """Whether the Hub keeps it in LFS, as far as can be told from here."""
    if isinstance(file, FileOnHub):
        return file.is_large
    return isinstance(file, FileOnDisk) and file.path.endswith(".safetensors")
