"""From a base and its variants to a repository on the Hub, or to folders."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from huggingface_hub import HfApi

from .base import Base, check_base_names, read_base
from .conversion import RenamedWeights, converted
from .errors import PushError, PushUsageError
from .files import File, FileOnHub, readable_size
from .hub import Hub
from .model_card import loading_lines
from .names import MAIN, branch_problem, repo_id_problem, shown
from .operating_point import Checkpoint, OperatingPoint, load_without_weights
from .original_tower import check_tower, tower_of
from .output_folder import OutputFolder, check_output, claim_output
from .placing import place_files
from .publication import (
    Publication,
    assign_branches,
    describe_base,
    describe_point,
    describe_transfers,
    make_publication,
)
from .publisher import Publisher
from .repository import description_files
from .target import BranchState
from .variants import Variant, read_variants


@dataclass(frozen=True)
class Options:
    """What the command line was given; see `aot-llava push --help`."""

    variants: Sequence[str]
    base: str | None = None
    base_revision: str | None = None
    repo_id: str | None = None
    revision: str | None = None
    output: Path | None = None
    hard_links: bool = False
    convert: bool = False
    private: bool = False
    overwrite: bool = False
    dry_run: bool = False
    token: str | None = field(default=None, repr=False)


def run(options: Options, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Pushes, or writes folders, or with `dry_run` only says what it would do.

    Raises:
        PushError: if something is wrong or goes wrong; no branch and no folder is then left half done.
    """
    variants = read_variants(options.variants, options.base)
    location = options.base or _only_base_model(variants)
    _check(options)
    check_base_names(location, options.base_revision)
    assign_branches(variants, options.revision)
    with ExitStack() as held:
        # Before anything is read or asked for: a folder that must not be written costs no time.
        outputs = _claim_outputs(options, variants, location, held, warn)
        hub = Hub(HfApi(token=options.token or False), warn)
        base = read_base(location, options.base_revision, hub)
        if options.convert:
            base = converted(base, hub)
        say(describe_base(base))
        _warn_of_other_bases(base, variants, warn)
        check_tower(base, warn)
        if options.output is not None:
            _write_folders(options, base, variants, outputs, hub, say)
        else:
            _push(options, base, variants, hub, say)


def _check(options: Options) -> None:
    if options.repo_id is None and options.output is None:
        raise PushUsageError(
            "--repo-id is missing: name the repository to push to, or a folder to write with --output."
        )
    problem = repo_id_problem(options.repo_id) if options.repo_id is not None else None
    if problem:
        raise PushUsageError(f"--repo-id {shown(options.repo_id)} is no repository: give owner/name; {problem}.")
    problem = branch_problem(options.revision) if options.revision is not None else None
    if problem:
        raise PushUsageError(f"--revision {shown(options.revision)} can be no branch: {problem}. Give another name.")
    if options.convert and options.output is None:
        raise PushUsageError(
            "--convert writes the weights under other names, which needs --output: give a folder, and push that."
        )
    if options.hard_links and (options.output is None or options.convert):
        raise PushUsageError("--hard-links is for --output without --convert: leave it out.")
    if options.output is None and not options.token and not options.dry_run:
        raise PushError("there is no token: log in with `hf auth login`, or give one with --token.")
    if options.token and not re.fullmatch(r"[!-~]+", options.token):
        raise PushError("the token holds characters that no token has: copy it again.")


def _claim_outputs(
    options: Options, variants: Sequence[Variant], base: str, held: ExitStack, warn: Callable[[str], None]
) -> Mapping[str, OutputFolder]:
    """The folders to write, by the variants' names; a dry run only checks them."""
    if options.output is None:
        return {}
    base_folder = Path(base) if Path(base).is_dir() else None
    outputs = {}
    for variant in variants:
        path = options.output / variant.name if len(variants) > 1 else options.output
        wanted = (path, variant.name, base_folder, options.overwrite)
        if options.dry_run:
            check_output(*wanted)
        else:
            outputs[variant.name] = held.enter_context(claim_output(*wanted, warn))
    return outputs


def _only_base_model(variants: Sequence[Variant]) -> str:
    base_models = sorted({variant.base_model for variant in variants})
    if len(base_models) > 1:
        raise PushUsageError(f"--base is missing, and the variants were made for several: {', '.join(base_models)}.")
    return base_models[0]


def _warn_of_other_bases(base: Base, variants: Sequence[Variant], warn: Callable[[str], None]) -> None:
    for variant in variants:
        if base.is_on_hub and variant.base_model != base.location:
            warn(f"{variant.name} was made for {variant.base_model}, and is now used with {base.location}.")


def _load_before_anything_moves(base: Base, variants: Sequence[Variant], hub: Hub) -> dict[str, OperatingPoint]:
    """Loads what will be published; the config itself finds wrong values, against the base's vision tower."""
    with tempfile.TemporaryDirectory(prefix="aot-variants-") as folder:
        for variant in variants:
            for file in description_files(base, variant):
                file.place_in(Path(folder, variant.name))
        checkpoints = [
            Checkpoint(f"variant {variant.name}", str(Path(folder, variant.name)), variant.num_frames)
            for variant in variants
        ]
        if not base.is_quantised:
            # All variants have these weights; AOT's fields ask for no others.
            first = replace(checkpoints[0], weights=base.tensors, tower=tower_of(base))
            checkpoints = [first, *checkpoints[1:]]
        points = load_without_weights(checkpoints, hub.api)
    return {variant.name: point for variant, point in zip(variants, points)}


def _write_folders(
    options: Options,
    base: Base,
    variants: Sequence[Variant],
    outputs: Mapping[str, OutputFolder],
    hub: Hub,
    say: Callable[[str], None],
) -> None:
    points = _load_before_anything_moves(base, variants, hub)
    way = "hard-linked" if options.hard_links else "copied, or cloned where the file system can"
    if base.is_on_hub:
        way = f"downloaded into huggingface_hub's cache, then {way}"
    say(f"Output    {options.output}: {readable_size(sum(file.size for file in base.files))} {way}")
    for variant in variants:
        folder = options.output / variant.name if len(variants) > 1 else options.output
        # The card names what will hold the files: the repository if there is to be one, else the folder.
        branch = variant.name if options.repo_id and len(variants) > 1 else options.revision or MAIN
        point = {variant.name: points[variant.name]}
        publication = make_publication(base, branch, variant, point, options.repo_id or str(folder))
        say(f"\n{describe_point(publication, folder.name)}")
        if not options.dry_run:
            # Downloads first: they are kept in the cache, so that a second run goes on where this one stopped.
            files = [_on_disk(file, hub) for file in publication.files]
            outputs[variant.name].write(lambda new, files=files: place_files(files, new, options.hard_links))
            say(f"{folder} is ready:\n\n" + "\n".join(loading_lines(str(folder))))
    if options.dry_run:
        say("\nDry run: nothing was written.")


def _on_disk(file: File | RenamedWeights, hub: Hub) -> File | RenamedWeights:
    if isinstance(file, RenamedWeights):
        return file.fetched(hub)
    return hub.fetch(file) if isinstance(file, FileOnHub) else file


def _push(options: Options, base: Base, variants: Sequence[Variant], hub: Hub, say: Callable[[str], None]) -> None:
    assigned = assign_branches(variants, options.revision)
    publisher = Publisher(hub, options.repo_id, base, options.overwrite, say, options.private)
    if not options.dry_run:
        hub.call("Checking the token", hub.api.whoami)
    states = [publisher.look_at(branch) for branch, _ in assigned]
    points = _load_before_anything_moves(base, variants, hub)
    planned = [make_publication(base, branch, variant, points, options.repo_id) for branch, variant in assigned]
    say(_describe_target(options, states))
    say(_describe_way(base, publisher))
    changes = [publisher.plan(publication, state) for publication, state in zip(planned, states)]
    say("\n".join(describe_transfers(planned, states, changes, publisher.can_copy_from_base)))
    say("")
    if options.dry_run:
        say("Dry run: nothing was changed.")
        return
    if not states[0].repository_exists:
        publisher.create_repository()
    commits = [publisher.publish(publication) for publication in planned]
    publisher.load(planned, commits)
    say("Verified: files, hashes of the weights, config and code.")
    say(_how_to_load(planned[0], options.repo_id, hub.api))


def _describe_target(options: Options, states: Sequence[BranchState]) -> str:
    if states[0].repository_exists:
        return f"Target    {options.repo_id}, which exists" + (" and is private" if options.private else "")
    return f"Target    {options.repo_id}, new and {'private' if options.private else 'public'}"


def _describe_way(base: Base, publisher: Publisher) -> str:
    if not base.is_on_hub:
        return "How       the weights are uploaded from the folder, once; they are read for their hashes first"
    if publisher.can_copy_from_base:
        return "How       the Hub copies the weights itself: none pass through this machine"
    return "How       downloaded and uploaded: this huggingface_hub cannot copy between repositories (update it)"


def _how_to_load(publication: Publication, repo_id: str, api: HfApi) -> str:
    revision = None if publication.branch == MAIN else publication.branch
    url = f"{api.endpoint}/{repo_id}" + (f"/tree/{revision}" if revision else "")
    return "\n".join([url, "", *loading_lines(repo_id, revision)])
