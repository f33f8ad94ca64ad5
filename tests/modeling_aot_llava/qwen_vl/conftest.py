"""A stock model of each host, and ours with its weights."""

from types import SimpleNamespace

import pytest
from qwen_vl_hosts import HOSTS, our_model, processor_of, stock_model


@pytest.fixture(scope="session", params=HOSTS)
def pair(request):
    """Stock model and processor, and ours, of one host of the family."""
    host = HOSTS[request.param]
    stock = stock_model(host)
    return SimpleNamespace(
        host=host,
        stock=stock,
        ours=our_model(host, stock),
        dynamic=our_model(host, stock, clip_segmentation="dynamic", dynamic_similarity_threshold=0.99),
        stock_processor=processor_of(host, is_ours=False),
        processor=processor_of(host),
    )
