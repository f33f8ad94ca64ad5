"""The map in CONTRIBUTING.md is the house: its boxes hold every package and room, its arrows are the imports."""

import ast
import re
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "modeling_aot_llava"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGES, ROOMS = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)


def boxes_of(drawing):
    """What each box holds, by the box's name: `name["<b>title</b><br>first<br>second"]`."""
    boxes = re.findall(r'^ *(\w+)\["<b>.*?</b><br>(.*?)"\]$', drawing, re.MULTILINE)
    return {box: re.split(r"<br>|, ", held) for box, held in boxes}


def arrows_of(drawing):
    """Pairs of boxes; `a --> b & c` draws two."""
    lines = re.findall(r"^ *(\w+) --> ([\w &]+)$", drawing, re.MULTILINE)
    return {(box, target) for box, targets in lines for target in targets.split(" & ")}


def imports_of(file):
    """Top-level packages, and siblings, that a file imports."""
    packages, siblings = set(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 1:
            siblings.add(node.module)
    return packages, siblings


def reachable(arrows):
    """The pairs that are joined by arrows, directly or over others."""
    found = set(arrows)
    while True:
        longer = {(a, d) for a, b in found for c, d in arrows if b == c} - found
        if not longer:
            return found
        found |= longer


def test_every_package_stands_in_the_map():
    with_code = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    assert with_code == {held for boxes in boxes_of(PACKAGES).values() for held in boxes}


def test_arrows_between_packages_are_the_imports_and_run_one_way():
    box_of = {held: box for box, boxes in boxes_of(PACKAGES).items() for held in boxes}
    imported = {
        (box_of[package], box_of[other])
        for package in box_of
        for file in (ROOT / package).rglob("*.py")
        for other in imports_of(file)[0] & box_of.keys()
        if other != package
    }
    drawn = arrows_of(PACKAGES)
    TopologicalSorter({box: {other for one, other in imported if one == box} for box, _ in imported}).prepare()
    assert imported <= reachable(drawn)
    assert drawn <= imported


def test_every_room_stands_in_one_box():
    held = [room for rooms in boxes_of(ROOMS).values() for room in rooms]
    rooms = {file.stem for file in (ROOT / PACKAGE).glob("*.py")} - {"__init__"}
    assert sorted(held) == sorted(rooms)


def test_arrows_between_rooms_are_the_imports_and_run_one_way():
    box_of = {room: box for box, rooms in boxes_of(ROOMS).items() for room in rooms}
    imported = {
        (box_of[room], box_of[other])
        for room in box_of
        for other in imports_of(ROOT / PACKAGE / f"{room}.py")[1]
        if box_of[other] != box_of[room]
    }
    TopologicalSorter({box: {other for one, other in imported if one == box} for box, _ in imported}).prepare()
    assert imported <= reachable(arrows_of(ROOMS))
    assert arrows_of(ROOMS) <= imported


@pytest.mark.parametrize("room", boxes_of(ROOMS)["reading"])
def test_a_room_that_reads_videos_says_first_when_it_runs(room):
    """Whoever looks through a repository's code on the Hub sees what of it runs for them."""
    assert ast.get_docstring(ast.parse((ROOT / PACKAGE / f"{room}.py").read_text("utf-8"))).startswith("Runs ")


def test_no_package_holds_more_than_a_third_of_the_lines():
    lines = {
        package: sum(len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / package).rglob("*.py"))
        for boxes in boxes_of(PACKAGES).values()
        for package in boxes
    }
    assert max(lines.values()) <= sum(lines.values()) / 3, lines


@pytest.mark.parametrize("drawing", [PACKAGES, ROOMS])
def test_no_arrow_is_drawn_that_others_tell_already(drawing):
    arrows = arrows_of(drawing)
    assert {arrow for arrow in arrows if arrow in reachable(arrows - {arrow})} == set()
    assert all(one != other for one, other in arrows)
    assert list(pairwise(sorted(arrows)))
