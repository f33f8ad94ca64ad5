"""Runs mypy over the Python code of the README and of docs/, which readers copy into programs that are type-checked.

    python tests/docs/check_types.py

Only what is said of the pages' own lines counts, as `README.md:45: error: …`. The blocks of a page are one program, as
in `test_documentation.py`; a step of `.ci/run`, for mypy reads all of transformers, which takes half a minute.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Lines at which mypy stumbles over what others say of their own methods.
FAULTS_OF_OTHERS = {
    "model.push_to_hub(": "transformers' type of it takes the model itself for an argument",
    "merged.save_pretrained(": "peft's types know nothing of what `merge_and_unload` returns",
    "pipe(conversation,": "transformers' type of the pipeline knows no conversations",
}
OPTIONS = ("--follow-imports=silent", "--ignore-missing-imports", "--check-untyped-defs", "--allow-redefinition")


def program_of(page: Path) -> str:
    """The page's Python blocks on the lines where they stand in the page."""
    text = page.read_text(encoding="utf-8")
    program = ""
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        program += "\n" * (text.count("\n", 0, block.start(1)) - program.count("\n")) + block[1]
    return program


def main() -> int:
    programs = {page: program for page in PAGES if (program := program_of(page))}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for page, program in programs.items():
            files[page] = Path(folder) / f"{page.stem.replace('-', '_')}_page.py"
            files[page].write_text(program, encoding="utf-8")
        command = [sys.executable, "-m", "mypy", *OPTIONS, "--cache-dir", os.path.join(folder, "cache")]
        result = subprocess.run(
            [*command, *(file.name for file in files.values())],
            env={**os.environ, "MYPYPATH": str(ROOT)},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode not in (0, 1):  # neither clean nor errors in the code: mypy itself has failed
        print(result.stdout + result.stderr, end="")
        return result.returncode
    errors = []
    for page, file in files.items():
        lines = page.read_text(encoding="utf-8").splitlines()
        for number, message in re.findall(rf"^{file.name}:(\d+): (error: .*)$", result.stdout, re.MULTILINE):
            if not any(fault in lines[int(number) - 1] for fault in FAULTS_OF_OTHERS):
                errors.append(f"{page.relative_to(ROOT)}:{number}: {message}")
    print("\n".join(errors) or f"The Python code of {len(files)} pages has the types that it needs.")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
