"""A Hugging Face Hub for tests: speaks the Hub's protocol over HTTP on the loopback, to the real huggingface_hub.

    with HubServer() as server:
        commit = server.add_repo("base/model", {"config.json": b"{}", "model.safetensors": Path("weights")})
        server.fail(at=3, fault=Fault.status(500))
        subprocess.run([...], env={**os.environ, **environment(server, home), "HF_TOKEN": server.token("me")})
        assert server.tree("me/model") == {...}

It stores files by their hash, checks every hash that it is given, notes every request, and fails where it is told to.
Large files travel as Git LFS does; Xet transfers are not spoken, so its clients run with HF_HUB_DISABLE_XET=1.
"""

from .clients import environment, retry_at_once, use_in_this_process
from .faults import Fault
from .recording import RecordedRequest
from .repositories import Commit, File
from .server import HubServer

__all__ = [
    "Commit",
    "Fault",
    "File",
    "HubServer",
    "RecordedRequest",
    "environment",
    "retry_at_once",
    "use_in_this_process",
]
