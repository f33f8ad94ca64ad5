"""That no warp of a kernel reads what another has overwritten, shown in the code that a GPU would run.

The interpreter has one thread, so it cannot see a race. Here the kernels are compiled for GPUs that are not here, for
every tile that they are launched with, and each way through the PTX is followed: between a load of the scaling that
the Sinkhorn kernel goes on changing and a store into it, in either order, all warps must have met at a barrier.
"""

import os
import re

import pytest

from modeling_aot_llava import fused_kernels, sinkhorn_kernel
from modeling_aot_llava.sinkhorn_kernel import SINKHORN_TILE, sinkhorn_tile

pytestmark = [
    pytest.mark.skipif(fused_kernels.triton is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]

# All that there are up to 1,024 anchors, which is more than a grid of 27 x 27 patches has; and one so small that its
# rows are held by several warps.
TILES = sorted({sinkhorn_tile(sources, anchors) for sources in (1, 2000) for anchors in range(1, 1025)} | {(8, 8)})
SINKHORN_TYPES = {
    **dict.fromkeys(("cost", "plan"), "*fp16"),  # so every access of 32 bits is one to the scaling
    "log_source_scaling": "*fp32",
    **dict.fromkeys(("source_mask", "anchor_mask"), "*u8"),
    **dict.fromkeys(("num_sources", "num_anchors", "max_iterations"), "i32"),
    **dict.fromkeys(("epsilon", "tolerance"), "fp32"),
}


def compile_ptx(kernel, types, constants, num_warps, compute_capability):
    source = fused_kernels.triton.compiler.ASTSource(
        kernel, {name: types.get(name, "constexpr") for name in kernel.arg_names}, constants
    )
    target = fused_kernels.triton.backends.compiler.GPUTarget("cuda", compute_capability, 32)
    options = {"num_warps": num_warps, **fused_kernels.LAUNCH_OPTIONS}
    return fused_kernels.triton.compile(source, target=target, options=options).asm["ptx"]


def basic_blocks(ptx):
    """{label: (events, labels that may follow)}; an event is "load", "store" or "barrier"."""
    blocks, label = {"start": ([], [])}, "start"
    ends = False
    for line in map(str.strip, ptx[ptx.index(".visible .entry") :].splitlines()):
        if found := re.match(r"(\$L__BB\w+):", line):
            if not ends:
                blocks[label][1].append(found[1])
            label, ends = found[1], False
            blocks[label] = [], []
        elif found := re.match(r"(@!?%p\d+ )?bra(\.uni)?\s+(\$\w+);", line):
            blocks[label][1].append(found[3])
            if found[1]:  # goes on below where the condition does not hold
                rest = f"{label}, behind line {len(blocks)}"
                blocks[label][1].append(rest)
                label = rest
                blocks[label] = [], []
            else:
                ends = True
        elif re.match(r"(@!?%p\d+ )?ret;", line):
            ends = not line.startswith("@")
        elif re.search(r"\bbar(rier)?\.(cta\.)?sync", line):
            blocks[label][0].append("barrier")
        elif found := re.search(r"\b(ld|st)\.global(\.\w+)*\.[bfu]32\b", line):
            blocks[label][0].append({"ld": "load", "st": "store"}[found[1]])
    return blocks


def races(ptx):
    """The pairs of accesses that some way through the code makes without a barrier between them."""
    blocks = basic_blocks(ptx)
    since_barrier = {"start": frozenset()}
    found, waiting = set(), ["start"]
    while waiting:
        label = waiting.pop()
        pending = set(since_barrier[label])
        events, following = blocks[label]
        for event in events:
            if event == "barrier":
                pending.clear()
            else:
                found |= {(other, event) for other in pending if other != event}
                pending.add(event)
        for after in following:
            joined = since_barrier.get(after, frozenset()) | pending
            if after not in since_barrier or joined != since_barrier[after]:
                since_barrier[after] = joined
                waiting.append(after)
    return found


@pytest.fixture
def up_to_ptx(monkeypatch, tmp_path):
    """The assembler, which takes most of the time, is not asked."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("triton.backends.nvidia.compiler.CUDABackend.make_cubin", lambda *args: b"")


@fused_kernels.jit()
def increments_rows(values, HAS_BARRIER: fused_kernels.constexpr):  # noqa: N803
    """Each warp reads all rows, and one warp changes them."""
    rows = fused_kernels.tl.arange(0, 8)
    previous = fused_kernels.tl.load(values + rows)
    if HAS_BARRIER:
        fused_kernels.tl.debug_barrier()
    fused_kernels.tl.store(values + rows, previous + 1)


@pytest.mark.parametrize(("has_barrier", "expected"), [(False, {("load", "store")}), (True, set())])
def test_a_race_is_seen(has_barrier, expected, up_to_ptx):
    ptx = compile_ptx(increments_rows, {"values": "*fp32"}, {"HAS_BARRIER": has_barrier}, 4, 80)
    assert races(ptx) == expected


def test_the_tiles_are_few():
    assert len(TILES) <= 2 * 7 + 1
    assert all(sources * anchors <= SINKHORN_TILE for sources, anchors in TILES)


@pytest.mark.parametrize(("block_sources", "block_anchors"), TILES)
def test_warps_wait_for_each_other_before_a_scaling_changes(block_sources, block_anchors, up_to_ptx):
    constants = {"SOURCES_FIRST": False, "BLOCK_SOURCES": block_sources, "BLOCK_ANCHORS": block_anchors}
    compute_capability = (80, 90)[TILES.index((block_sources, block_anchors)) % 2]
    num_warps = sinkhorn_kernel.num_warps_of(block_sources, block_anchors)
    ptx = compile_ptx(sinkhorn_kernel._sinkhorn_kernel, SINKHORN_TYPES, constants, num_warps, compute_capability)
    events = [event for events, _ in basic_blocks(ptx).values() for event in events]
    assert {"load", "store", "barrier"} <= set(events)
    assert not races(ptx)
