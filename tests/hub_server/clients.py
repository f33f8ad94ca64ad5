"""What makes huggingface_hub talk to this server, in another process or in this one."""

from pathlib import Path
from types import SimpleNamespace

from .server import HubServer

LOOPBACK = "127.0.0.1,localhost"


def environment(server: HubServer, home: Path) -> dict[str, str]:
    """Variables for a process whose Hub this server is, with its cache and no saved token in the folder `home`."""
    return {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }


def use_in_this_process(server: HubServer, monkeypatch) -> None:
    """Makes this server the Hub of the huggingface_hub that is imported here, until the test is over."""
    from huggingface_hub import close_session, constants, hf_api
    from transformers.utils import hub as hub_of_transformers

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, LOOPBACK)
    close_session()  # the next one knows this
    template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
    # transformers makes its own once, for the Hub of that moment.
    monkeypatch.setattr(hub_of_transformers, "_hf_api", None, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


def retry_at_once(monkeypatch) -> list[float]:
    """Lets huggingface_hub repeat failed requests without waiting; the waits that it wanted are in the list."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    waits: list[float] = []
    impatient = SimpleNamespace(sleep=waits.append)
    monkeypatch.setattr(_http, "time", impatient)
    monkeypatch.setattr(file_download, "time", impatient)
    return waits
