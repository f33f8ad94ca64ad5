"""How many kernels AOT puts on a GPU for a video, that the host never waits for one, nor copies pageable memory."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from qwen_vl_hosts import HOSTS as QWEN_HOSTS
from qwen_vl_hosts import config_of
from reference import small_config
from torch._subclasses.fake_tensor import FakeTensorMode

import benchmarks.launches
from benchmarks.launches import HOSTS, LaunchCount, count_launches, count_launches_on_qwen_vl, main
from modeling_aot_llava import AOTLlavaOnevisionConfig, fused_kernels
from modeling_aot_llava.inter_frame_transport import numbers_on_device
from modeling_aot_llava.optimal_transport import sinkhorn
from modeling_aot_llava.token_anchors import attention_received

pytestmark = pytest.mark.skipif(fused_kernels.triton is None, reason="without Triton a GPU runs the plain formulas")

TORCH_VERSIONS = "2.14", "2.15"  # another one may make other operations of the same calls


@pytest.mark.parametrize(("num_frames", "limit"), [(8, 110), (32, 150), (64, 300), (128, 600)])
def test_launches_of_a_video(num_frames, limit):
    count = count_launches(num_frames, AOTLlavaOnevisionConfig(), width=8)
    assert 0 < count.kernels.total() <= limit
    assert count.waits.total() == count.pageable_copies.total() == 0


@pytest.mark.skipif(not torch.__version__.startswith(TORCH_VERSIONS), reason=f"counted with torch {TORCH_VERSIONS}")
@pytest.mark.parametrize(("num_frames", "kernels"), [(8, 102), (32, 141), (64, 281), (128, 552)])
def test_launches_of_a_video_exactly(num_frames, kernels):
    assert count_launches(num_frames, AOTLlavaOnevisionConfig(), width=8).kernels.total() == kernels


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"retention_ratio": 0.25},
        {"sinkhorn_epsilon": 0.01},
        {"num_clips": 3},
        {"anchor_selection": "random"},
        {"intra_frame_aggregation": "cosine", "inter_frame_aggregation": "cosine"},
        {"intra_frame_aggregation": "none", "inter_frame_aggregation": "none"},
    ],
    ids=str,
)
def test_an_exact_budget_never_waits(fields):
    launches = count_launches(8, small_config(7, **fields), width=8)
    assert launches.waits.total() == launches.pageable_copies.total() == 0


@pytest.mark.parametrize(
    "fields", [{"clip_segmentation": "dynamic"}, {"temporal_threshold": 0.3}], ids=["dynamic clips", "threshold"]
)
def test_what_depends_on_the_video_waits_once(fields):
    """For where the clips begin, or for how many tokens there are."""
    assert count_launches(8, small_config(7, **fields), width=8).waits.total() == 1


@pytest.mark.parametrize("host", QWEN_HOSTS)
@pytest.mark.parametrize("num_frames", [8, 32, 64])
def test_launches_of_a_qwen_vl_video_are_hardly_more_and_never_wait(host, num_frames):
    """DeepStack's channels ride along in the same launches; more are where the kept tokens stand."""
    count = HOSTS[host](num_frames)
    assert count.waits.total() == count.pageable_copies.total() == 0
    assert 0 <= count.kernels.total() - HOSTS["llava"](num_frames).kernels.total() <= 12


def test_dynamic_clips_of_a_qwen_vl_video_wait_once():
    config = config_of(QWEN_HOSTS["qwen3_vl"], clip_segmentation="dynamic")
    assert count_launches_on_qwen_vl((8, 6, 8), config, 2).waits.total() == 1


@pytest.fixture
def counted():
    """Counts what a function does with two tensors that say they are on a GPU: `counted(function)`."""

    def count(function):
        with torch.no_grad(), FakeTensorMode():
            x, y = torch.empty(4, 6, device="cuda"), torch.empty(4, 6, device="cuda")
            with LaunchCount() as launches:
                function(x, y)
        return launches.kernels.total(), launches.waits.total(), launches.pageable_copies.total()

    return count


@pytest.mark.parametrize(
    ("function", "kernels", "waits", "copies"),
    [
        (lambda x, y: x.view(6, 4).T[1:].unsqueeze(0).expand(2, -1, -1), 0, 0, 0),
        (lambda x, y: torch.empty_like(x), 0, 0, 0),
        (lambda x, y: x + y, 1, 0, 0),
        (lambda x, y: x.mul_(2), 1, 0, 0),
        (lambda x, y: torch._foreach_add_(x.view(-1)[:3].unbind(), [1, 2, 3]), 1, 0, 0),
        (lambda x, y: torch._foreach_add_(x.new_zeros(97).unbind(), [1] * 97), 3, 0, 0),
        (lambda x, y: x @ y.T, 1, 0, 0),
        (lambda x, y: x.sum().item(), 1, 1, 0),
        (lambda x, y: x.cpu(), 1, 1, 1),
        (lambda x, y: x.cpu() + 1, 1, 1, 1),
        (lambda x, y: torch.tensor([1, 2], device="cpu").to(x.device), 1, 1, 1),
        (lambda x, y: torch.tensor([1, 2], device="cpu").to(x.device, non_blocking=True), 1, 0, 1),
        (lambda x, y: torch.ones(2, pin_memory=True)[1:].to(x.device, non_blocking=True), 1, 0, 0),
        (lambda x, y: torch.ones(2, pin_memory=True).to(x.device), 1, 1, 0),
        (lambda x, y: x[[0, 2]], 2, 1, 1),
        (lambda x, y: torch.ones(3, device="cpu") * 2, 0, 0, 0),
        (lambda x, y: sinkhorn(x), 1, 0, 0),
        (lambda x, y: attention_received(x.view(1, 1, 4, 6), y.view(1, 1, 4, 6), 0.4), 2, 0, 0),
    ],
)
def test_what_counts(counted, function, kernels, waits, copies):
    assert counted(function) == (kernels, waits, copies)


def test_the_command_prints_a_table(capsys):
    main(["--frames", "8", "--operations"])
    header, row, *operations = capsys.readouterr().out.splitlines()
    assert header.split() == ["frames", "kernels", "host", "waits", "pageable", "copies"]
    frames, kernels, waits, copies = map(int, row.split())
    assert (frames, waits, copies) == (8, 0, 0)
    assert sum(int(line.split()[0]) for line in operations) == kernels
    assert any("sinkhorn" in line for line in operations)


def test_the_command_fails_where_the_host_waits(capsys, monkeypatch):
    monkeypatch.setattr(
        benchmarks.launches, "AOTLlavaOnevisionConfig", partial(small_config, 7, temporal_threshold=0.3)
    )
    with pytest.raises(SystemExit, match="waits, or copies from pageable memory, 1 times"):
        main(["--frames", "8"])
    assert capsys.readouterr().out.splitlines()[1].split()[2:] == ["1", "0"]


def test_numbers_reach_a_gpu_as_they_are():
    """The way that a GPU's go, without one."""
    device = SimpleNamespace(type="cuda")
    numbers = [[3, 0, 7], [], [10**6, 5]]
    with patch.object(torch, "zeros", lambda size, **_: torch.full((size,), 0)):
        on_device = numbers_on_device(numbers, device)
    assert [part.tolist() for part in on_device] == numbers
