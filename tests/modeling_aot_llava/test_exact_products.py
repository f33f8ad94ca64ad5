"""That float32 products stay float32 whatever the process allows, and that its switches are read and never set."""

import pytest
import torch
from reference import make_video, relative_error, small_config
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_aot_llava import exact_products, fused_kernels
from modeling_aot_llava.optimal_transport import aggregate, cosine_similarity, sinkhorn
from modeling_aot_llava.spatial_pooling import coverage_of, pooling_matrix
from modeling_aot_llava.spatiotemporal_pruning import compress_video_features
from modeling_aot_llava.token_anchors import attention_received

MATRIX_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "_cdist_forward")


class Products(TorchDispatchMode):
    """Notes in which dtypes matrices are multiplied."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name.partition("::")[2] in MATRIX_PRODUCTS:
            self.dtypes.append(args[0].dtype)
        if function is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1  # there are no numbers in it
        return function(*args, **(kwargs or {}))


def precisions():
    backends = torch.backends
    return [part.fp32_precision for part in (backends, backends.cuda.matmul, backends.mkldnn.matmul)]


@pytest.fixture
def switches():
    """Puts PyTorch's switches back."""
    before = precisions()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.fp32_precision, torch.backends.cuda.matmul.fp32_precision = before[:2]
    torch.backends.mkldnn.matmul.fp32_precision = before[2]
    assert precisions() == before


SWITCHED_ON = {
    "allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "cuda.matmul.fp32_precision": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "fp32_precision": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


@pytest.fixture(params=[None, *SWITCHED_ON])
def switch(request, switches, monkeypatch):
    """Each way to shorten the products of a GPU, and none."""
    monkeypatch.setattr(fused_kernels, "can_run_kernels", lambda args: False)
    if request.param:
        SWITCHED_ON[request.param]()
    return request.param


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_every_product_of_the_method_is_exact_on_a_gpu(switch, recipe):
    set_by_the_user = precisions()
    config = small_config(7, recipe=recipe, sinkhorn_iterations=2)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), Products() as products:
        features, queries = torch.empty(4, 49, 8, device="cuda"), torch.empty(4, 2, 49, 8, device="cuda")
        attention = attention_received(queries, queries, 0.3)
        compress_video_features(features, attention, attention, config)
    assert len(products.dtypes) > 5
    assert set(products.dtypes) == {torch.float64 if switch else torch.float32}
    assert precisions() == set_by_the_user


def test_a_cpu_that_may_use_bfloat16_does_not(switches):
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    with Products() as products:
        cosine_similarity(torch.randn(2, 5, 4), torch.randn(2, 3, 4))
        sinkhorn(torch.rand(2, 5, 3))
    assert set(products.dtypes) == {torch.float64}


def test_tokens_are_the_same_where_products_are_made_in_float64(monkeypatch):
    video = make_video(6, 7)
    config = small_config(7)
    video = video.features, video.local_attention, video.global_attention
    exact = compress_video_features(*video, config).tokens
    monkeypatch.setattr(exact_products, "_shortens_float32", lambda device_type: True)
    in_float64 = compress_video_features(*video, config).tokens
    assert in_float64.dtype == torch.float32
    assert 0 < relative_error(in_float64, exact.double()) < 1e-5


def test_products_in_float64_have_gradients(monkeypatch):
    monkeypatch.setattr(exact_products, "_shortens_float32", lambda device_type: True)
    left, right = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 4, 5, requires_grad=True)
    added = torch.randn(2, 3, 5, requires_grad=True)
    exact_products.exact_sum_with_product(added, left, right, alpha=0.5).sum().backward()
    torch.testing.assert_close(left.grad, 0.5 * right.detach().sum(2)[:, None].expand(2, 3, 4))
    torch.testing.assert_close(added.grad, torch.ones(2, 3, 5))


@pytest.mark.parametrize("function", [
    lambda x, y: cosine_similarity(x, y),
    lambda x, y: sinkhorn(1 - cosine_similarity(x, y)),
    lambda x, y: aggregate(y, x, torch.ones(2, 9, 4) / 3, 0.5),
    lambda x, y: attention_received(x.view(2, 1, 9, 6), x.view(2, 1, 9, 6), 0.4),
    lambda x, y: coverage_of(torch.arange(49).unsqueeze(0) % 3 == 0, pooling_matrix(7)),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(function, dtype):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 9, 6, generator=generator), torch.randn(2, 4, 6, generator=generator)
    expected = function(x, y)
    with torch.autocast("cpu", dtype=dtype):
        result = function(x, y)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)
