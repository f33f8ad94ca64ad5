"""The kernels: right under Triton's interpreter, compiled for a GPU, and left alone where they cannot run."""

import math
import os
import subprocess
import sys
import warnings
from collections import defaultdict
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from reference import small_config
from torch._subclasses.fake_tensor import FakeTensorMode

from modeling_aot_llava import (
    attention_kernels,
    fused_kernels,
    kernel_warm_up,
    optimal_transport,
    sinkhorn_kernel,
    token_anchors,
)
from modeling_aot_llava.fused_kernels import NAMESPACE, with_kernel
from modeling_aot_llava.optimal_transport import sinkhorn
from modeling_aot_llava.spatiotemporal_pruning import compress_video_features
from modeling_aot_llava.token_anchors import attention_received

HERE = Path(__file__).parent
OPTIONS = 0.1, 100, 0.01, False, 2.01  # of the Sinkhorn operator

needs_triton = pytest.mark.skipif(fused_kernels.triton is None, reason="Triton is not installed")
needs_compiler = pytest.mark.skipif(
    fused_kernels.triton is None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="the interpreter compiles nothing",
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to run the kernels on")


@needs_triton
def test_the_interpreted_kernels_give_what_the_plain_formulas_give():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    tests = str(HERE / "interpreted_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-W", "ignore", "-p", "no:cacheprovider", tests]
    process = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-2000:]


# --- Which of the two runs


def scaled_by(strength, launch):
    """A formula and its kernel; the kernel's results are told apart by `strength`."""

    def empty_result(values: torch.Tensor, factor: float) -> torch.Tensor:
        return torch.empty_like(values)

    @with_kernel(f"scaled_by_{strength}", launch, empty_result)
    def scaled(values: torch.Tensor, factor: float) -> torch.Tensor:
        return values * factor

    return scaled


@pytest.fixture
def kernels_everywhere(monkeypatch):
    """As if every tensor lay on a GPU."""
    monkeypatch.setattr(fused_kernels, "can_run_kernels", lambda args: True)


def test_on_a_cpu_the_plain_formula_runs():
    scaled = scaled_by(1, lambda *args: pytest.fail("the kernel was launched"))
    assert scaled(torch.ones(2), 3.0).tolist() == [3, 3]


def test_where_kernels_can_run_one_is_launched(kernels_everywhere):
    scaled = scaled_by(2, lambda values, factor: values + 100)
    assert scaled(torch.ones(2), 3.0).tolist() == [101, 101]


def test_a_kernel_is_launched_on_the_gpu_of_its_tensors(kernels_everywhere, monkeypatch):
    """Triton takes the current one, and the parts of a model may be spread over several."""
    entered = []

    @contextmanager
    def device_of(values):
        entered.append(values.tolist())
        yield
        entered.append("left")

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    scaled = scaled_by(5, lambda values, factor: entered.append("launched") or values * factor)
    assert scaled(torch.ones(2), 3.0).tolist() == [3, 3]
    assert entered == [[1, 1], "launched", "left"]


def test_a_kernel_that_fails_is_replaced_with_one_warning(kernels_everywhere):
    launches = []

    def fail(values, factor):
        launches.append(values)
        raise RuntimeError("out of resource: shared memory,\n" + "Required: 1 " * 1000)

    scaled = scaled_by(3, fail)
    with pytest.warns(RuntimeWarning, match="kernel of scaled_by_3 failed.*RuntimeError: out of resource") as caught:
        assert scaled(torch.ones(2), 3.0).tolist() == [3, 3]
    assert len(str(caught[0].message)) < 400
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scaled(torch.ones(2), 4.0).tolist() == [4, 4]
    assert len(launches) == 1


def test_a_failure_is_one_of_a_kind_and_a_shape(kernels_everywhere):
    """What fails for one goes on for the others, with a warning each."""
    launches = []

    def fail_for_two(values, factor):
        launches.append((values.dtype, len(values)))
        if len(values) == 2 and values.dtype == torch.float32:
            raise RuntimeError("out of resource")
        return values + 100

    scaled = scaled_by(6, fail_for_two)
    with pytest.warns(RuntimeWarning, match=r"scaled_by_6 failed.*float32 of \(2,\)"):
        assert scaled(torch.ones(2), 3.0).tolist() == [3, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scaled(torch.ones(3), 3.0).tolist() == [101] * 3
        assert scaled(torch.ones(2).half(), 3.0).tolist() == [101] * 2
        assert scaled(torch.ones(2), 3.0).tolist() == [3, 3]
    assert launches == [(torch.float32, 2), (torch.float32, 3), (torch.float16, 2)]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (
            (2, 603, 126),
            (7, 600, 127),
            True,
        ),  # another number of problems; another size, for which no more is compiled
        ((2, 34, 34), (2, 603, 126), False),
        ((2, 34, 34), (2, 34, 20), False),
    ],
)
def test_a_failure_of_sinkhorn_is_one_of_its_tile(first, second, is_same):
    kinds = [
        sinkhorn_kernel.sinkhorn_variant(torch.empty(shape, device="meta"), None, None, *OPTIONS)
        for shape in (first, second)
    ]
    assert (kinds[0] == kinds[1]) == is_same


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("no memory left"), torch.OutOfMemoryError),
        (RuntimeError("Triton Error [CUDA]: out of memory"), torch.OutOfMemoryError),
        (RuntimeError("CUDA error: device-side assert triggered"), RuntimeError),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), RuntimeError),
    ],
    ids=str,
)
def test_what_is_no_failure_of_the_kernel_is_raised(kernels_everywhere, error, raised):
    """No memory, or a GPU that no formula runs on any more: the kernel is tried again the next time."""
    errors = [error, None]

    def fail_once(values, factor):
        if (error := errors.pop(0)) is not None:
            raise error
        return values + 100

    scaled = scaled_by(f"4_{abs(hash(str(error)))}", fail_once)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(raised, match=str(error)[-12:]):
            scaled(torch.ones(2), 3.0)
        assert scaled(torch.ones(2), 3.0).tolist() == [101, 101]


@needs_triton
@pytest.mark.parametrize(
    ("capability", "hip", "expected", "found"),
    [
        ((7, 5), None, False, "compute capability 8.0, but this one has 7.5"),
        ((7, 0), None, False, "but this one has 7.0"),
        ((9, 4), "6.4", False, "another maker's"),
        ((8, 0), None, True, None),
        ((12, 0), None, True, None),
    ],
)
def test_older_cards_run_the_plain_formulas_and_say_so_once(capability, hip, expected, found, monkeypatch):
    fused_kernels._is_supported.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    with FakeTensorMode():
        cost = torch.empty(2, 9, 4, device="cuda")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answers = [fused_kernels.can_run_kernels((cost, None, None, *OPTIONS)) for _ in range(3)]
    assert answers == [expected] * 3
    assert len(caught) == (not expected)
    assert expected or found in str(caught[0].message)


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "requires_grad", "shape", "device", "expected"),
    [
        (torch.float32, False, (2, 9, 4), "cuda", True),
        (torch.bfloat16, False, (2, 9, 4), "cuda", True),
        (torch.float64, False, (2, 9, 4), "cuda", False),
        (torch.float32, True, (2, 9, 4), "cuda", False),
        (torch.float32, False, (2, 0, 4), "cuda", False),
        (torch.float32, False, (2, 9, 4), "cpu", False),
    ],
)
def test_what_a_kernel_is_used_for(dtype, requires_grad, shape, device, expected):
    with FakeTensorMode():
        cost = torch.empty(shape, dtype=dtype, device=device, requires_grad=requires_grad)
        assert fused_kernels.can_run_kernels((cost, None, None, *OPTIONS)) == expected
        with torch.no_grad():
            without_gradient = expected or requires_grad
            assert fused_kernels.can_run_kernels((cost, None, None, *OPTIONS)) == without_gradient


# --- The operators


def test_the_operators_are_known_to_pytorch():
    cost, queries = torch.rand(3, 9, 4), torch.randn(2, 3, 9, 8)
    checks = "test_schema", "test_faketensor"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no kernel runs on a CPU
        for costs in (cost, cost.transpose(1, 2)):  # whatever the strides, the plan is contiguous
            arguments = costs, None, None, *OPTIONS
            torch.library.opcheck(optimal_transport._sinkhorn.operator, arguments, test_utils=checks)
        torch.library.opcheck(token_anchors._attention_received.operator, (queries, queries, 0.3), test_utils=checks)


@pytest.mark.filterwarnings("ignore:The Triton kernel:RuntimeWarning")
def test_compiled_code_sees_one_node_each(kernels_everywhere):
    nodes = []

    def backend(graph, inputs):
        nodes.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    @torch.compile(backend=backend, fullgraph=True)
    def both(cost, queries):
        return sinkhorn(cost) * 2, attention_received(queries, queries, 0.3) * 2

    cost, queries = torch.rand(3, 9, 4), torch.randn(2, 3, 9, 8)
    plan, received = both(cost, queries)
    ours = [node for node in nodes if NAMESPACE in node]
    assert ours == [f"{NAMESPACE}.sinkhorn.default", f"{NAMESPACE}.attention_received.default"]
    torch.testing.assert_close(plan, 2 * optimal_transport._sinkhorn.plain(cost, None, None, *OPTIONS))
    torch.testing.assert_close(received, 2 * token_anchors._attention_received.plain(queries, queries, 0.3))


# --- On a GPU, or compiled for one


@needs_compiler
@pytest.mark.parametrize("compute_capability", [80, 90])
def test_the_kernels_compile_for_a_gpu_that_is_not_here(compute_capability, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    float32, float16, integer = "*fp32", "*fp16", "i32"
    scalars = {"epsilon": "fp32", "tolerance": "fp32", "scale": "fp32"}
    outputs = dict.fromkeys(("largest_out", "total_out", "largest_in", "total_in", "received"), float32)
    inputs = dict.fromkeys(("queries", "keys"), float16)
    costs = dict.fromkeys(("cost", "plan", "log_source_scaling"), float32)
    masks = dict.fromkeys(("source_mask", "anchor_mask"), "*u8")
    blocks = {"BLOCK": 64, "BLOCK_WIDTH": 128}
    tile = {"SOURCES_FIRST": False, "BLOCK_SOURCES": 64, "BLOCK_ANCHORS": 128}
    for kernel, constants, num_warps in (
        (sinkhorn_kernel._sinkhorn_kernel, tile, 8),
        (attention_kernels._softmax_sums_kernel, blocks, 4),
        (attention_kernels._column_means_kernel, blocks, 4),
    ):
        types = {**scalars, **outputs, **inputs, **costs, **masks, **dict.fromkeys(constants, "constexpr")}
        compiled = fused_kernels.triton.compile(
            fused_kernels.triton.compiler.ASTSource(
                kernel, {name: types.get(name, integer) for name in kernel.arg_names}, constants
            ),
            target=fused_kernels.triton.backends.compiler.GPUTarget("cuda", compute_capability, 32),
            options={"num_warps": num_warps, **fused_kernels.LAUNCH_OPTIONS},
        )
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= 99 * 1024  # what the smaller cards of these generations have


@pytest.fixture
def compiled_keys(kernels_everywhere, monkeypatch):
    """What Triton would compile, each under its key, as if there were a GPU; nothing is compiled nor launched."""
    from triton import knobs
    from triton.runtime import driver

    target = fused_kernels.triton.backends.compiler.GPUTarget("cuda", 90, 32)
    gpu = SimpleNamespace(
        get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: target
    )
    keys = set()
    monkeypatch.setattr(driver, "_active", gpu)
    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", lambda key, fn, **_: keys.add((fn.name, key)) or True)
    monkeypatch.setattr(torch.cuda, "device_of", lambda values: nullcontext())
    monkeypatch.setattr(kernel_warm_up, "can_run_kernels", lambda args: True)
    kernels = (
        sinkhorn_kernel._sinkhorn_kernel,
        attention_kernels._softmax_sums_kernel,
        attention_kernels._column_means_kernel,
    )
    for kernel in kernels:
        monkeypatch.setattr(kernel, "device_caches", defaultdict(kernel.create_binder))
    return keys


@needs_compiler
def test_no_kernel_is_compiled_for_a_number_of_tokens_or_frames(compiled_keys):
    masks = torch.ones(65, 64, dtype=torch.bool)
    for num_problems, size in ((1, 33), (3, 48), (5, 64)):
        cost = torch.zeros(num_problems, size, size)
        sinkhorn(cost, 0.1, 1 + size % 3, source_mask=masks[1 : 1 + num_problems, :size], largest_cost=2.0)
    assert len(compiled_keys) == 1
    compiled_keys.clear()
    for num_frames, num_heads in ((1, 3), (2, 1), (5, 16)):
        queries = torch.zeros(num_frames, 9, num_heads * 8).unflatten(-1, (num_heads, 8)).transpose(1, 2)
        attention_received(queries, queries, 0.3)
    assert len({key for name, key in compiled_keys if "softmax" in name}) == 2  # strides by 16 or not
    assert all("'enable_fp_fusion': False" in key for _, key in compiled_keys)


@needs_compiler
@pytest.mark.parametrize(
    "fields",
    [{}, {"retention_ratio": 0.25}, {"recipe": "released"}, {"clip_segmentation": "dynamic"}, {"num_anchors": 49}],
    ids=str,
)
def test_after_the_warm_up_no_video_compiles_a_kernel(fields, compiled_keys):
    config = small_config(7, **fields)
    kernel_warm_up.warm_up_kernels(config, torch.float32, torch.device("cpu"), torch.device("cpu"))
    compiled = set(compiled_keys)
    assert len(compiled) >= 3 or config.num_anchors == 49
    assert len(compiled) <= 8
    for num_frames in (1, 2, 3, 8, 31, 33):
        features, attention = torch.randn(num_frames, 49, 4), torch.rand(2, num_frames, 49)
        compress_video_features(features, *attention, config, features[:, 0])
    assert compiled_keys == compiled


def test_a_model_warms_its_kernels_up(model, monkeypatch):
    """On a CPU nothing is done; on a GPU, what the function above does."""
    model.model.warm_up_kernels([8])
    called = []
    monkeypatch.setattr("modeling_aot_llava.modeling_aot_llava.warm_up_kernels", lambda *args: called.append(args))
    model.model.warm_up_kernels([8, 16])
    cpu = torch.device("cpu")
    assert called == [(model.config, torch.float32, cpu, cpu, [8, 16])]


def test_more_frames_than_a_grid_has_places_along_an_axis(monkeypatch):
    """CUDA allows 2**31 - 1 programs along the first axis, and 65,535 along the others."""
    grids = []

    class Kernel:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *args, **kwargs: None

    for name in ("_softmax_sums_kernel", "_column_means_kernel"):
        monkeypatch.setattr(attention_kernels, name, Kernel())
    monkeypatch.setattr(sinkhorn_kernel, "_sinkhorn_kernel", Kernel())
    queries = torch.zeros(1, 1, 1, 16).expand(70_000, 2, 70, 16)
    attention_kernels.launch_attention_received(queries, queries, 1.0)
    sinkhorn_kernel.launch_sinkhorn(torch.zeros(70_000, 1, 1), None, None, *OPTIONS)
    assert [math.prod(grid) for grid in grids] == [70_000 * 2 * 3, 70_000 * 3, 70_000]
    assert all(grid[0] < 2**31 and all(size <= 65_535 for size in grid[1:]) for grid in grids)


@needs_gpu
@needs_triton
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
@pytest.mark.parametrize("width", [32, 64, 72, 80])
def test_attention_received_on_the_device(width, dtype, tolerance):
    queries, keys = torch.randn(2, 3, 4, 729, width, device="cuda", dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received = attention_received(queries, keys, width**-0.5)
    expected = token_anchors._attention_received.plain(queries.double(), keys.double(), width**-0.5)
    assert (received.double() - expected).norm() / expected.norm() < tolerance


@needs_gpu
@needs_triton
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 2e-2)]
)
@pytest.mark.parametrize("sources_first", [False, True])
@pytest.mark.parametrize(("num_sources", "num_anchors"), [(1, 1), (34, 34), (603, 126), (524, 205), (25, 704)])
def test_sinkhorn_on_the_device(num_sources, num_anchors, sources_first, dtype, tolerance):
    cost = (2 * torch.rand(8, num_sources, num_anchors, device="cuda")).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = sinkhorn(cost, sources_first=sources_first, largest_cost=2.0)
    expected = sinkhorn(cost.double(), sources_first=sources_first, largest_cost=2.0)
    assert (plan.double() - expected).norm() / expected.norm() < tolerance
