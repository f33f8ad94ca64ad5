"""The kernels: right under Triton's interpreter, compiled for a GPU, and left alone where they cannot run."""

import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from modeling_aot_llava import attention_kernels, fused_kernels, optimal_transport, sinkhorn_kernel, token_anchors
from modeling_aot_llava.fused_kernels import NAMESPACE, with_kernel
from modeling_aot_llava.optimal_transport import sinkhorn
from modeling_aot_llava.token_anchors import attention_received

HERE = Path(__file__).parent
OPTIONS = 0.1, 100, 0.01, False, 2.01  # of the Sinkhorn operator

needs_triton = pytest.mark.skipif(fused_kernels.triton is None, reason="Triton is not installed")
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


def test_a_gpu_without_memory_is_no_failure_of_the_kernel(kernels_everywhere):
    def fail(values, factor):
        raise torch.OutOfMemoryError("no memory left")

    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        scaled_by(4, fail)(torch.ones(2), 3.0)


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
        torch.library.opcheck(optimal_transport._sinkhorn.operator, (cost, None, None, *OPTIONS), test_utils=checks)
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


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
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
            options={"num_warps": num_warps},
        )
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= 99 * 1024  # what the smaller cards of these generations have


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
