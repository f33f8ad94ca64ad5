"""The results as tables, none wider than a terminal."""

from typing import Any

from benchmarks.report import describe_run, duration, table

from .way import STOCK

# The stages in the order of the data's way.
STAGES = {
    "reading_seconds": "reading",
    "preparing_seconds": "preparing",
    "vision_tower_seconds": "vision tower",
    "attention_received_seconds": "attention received",
    "projector_seconds": "projector",
    "compression_seconds": "AOT's stages",
    "language_model_seconds": "prefill",
    "rest_seconds": "rest",
}
MIB = 2**20


def as_text(report: dict[str, Any]) -> str:
    """For each file where the time goes, then what other readers take."""
    parts = [describe_run(report)]
    for case in report["cases"]:
        parts += [_stage_table(case), _reader_table(case)]
    return "\n\n".join(parts)


def median(contender: dict[str, Any], name: str) -> float:
    """Of one quantity of a contender."""
    return contender[name]["median"]


def _stage_table(case: dict[str, Any]) -> str:
    contenders = case["contenders"]
    rows = [["", *(contender["name"] for contender in contenders)]]
    for key, stage in STAGES.items():
        rows.append([stage, *(_with_share(contender, key) for contender in contenders)])
    rows.append(["file to first token", *(duration(median(contender, "all_seconds")) for contender in contenders)])
    stock = next(contender for contender in contenders if contender["name"] == STOCK)
    rows.append(["times faster", *(_ratio(stock, contender, "all_seconds") for contender in contenders)])
    rows.append(["prompt tokens", *(f"{median(contender, 'prompt_tokens'):,.0f}" for contender in contenders)])
    rows.append(["file to pixels, CPU", *(duration(median(each, "pixels_cpu_seconds")) for each in contenders)])
    rows.append(["file to pixels, memory", *(_mib(each, "pixels_memory_bytes") for each in contenders)])
    rows.append(["first token, memory", *(_mib(each, "memory_growth_bytes") for each in contenders)])
    return f"{case['clip']} ({case['file_bytes'] / 1e6:,.0f} MB)\n" + table(rows)


def _reader_table(case: dict[str, Any]) -> str:
    rows = [["read with", "seconds", "CPU seconds", "memory", "differs by"]]
    for reader in case["readers"]:
        if "error" in reader:
            rows.append([reader["name"], reader["error"][:50], "", "", ""])
            continue
        difference = reader["largest_difference"]
        rows.append(
            [
                reader["name"],
                duration(median(reader, "seconds")),
                duration(median(reader, "cpu_seconds")),
                _mib(reader, "memory_growth_bytes"),
                "size" if difference is None else str(difference),
            ]
        )
    return table(rows)


def _with_share(contender: dict[str, Any], key: str) -> str:
    seconds = median(contender, key)
    return f"{duration(seconds)} ({seconds / median(contender, 'all_seconds'):.0%})"


def _ratio(stock: dict[str, Any], contender: dict[str, Any], key: str) -> str:
    return "" if contender is stock else f"{median(stock, key) / median(contender, key):.2f}"


def _mib(measured: dict[str, Any], key: str) -> str:
    return f"{median(measured, key) / MIB:,.0f} MiB"
