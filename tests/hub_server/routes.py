"""Which function answers which address."""

import re
from collections.abc import Callable
from urllib.parse import unquote

from . import errors

_ROUTES: list[tuple[str, re.Pattern, Callable]] = []

# In addresses a repository is two parts, a revision is one (its slashes are quoted) and a path is the rest.
_PARTS = {"repo": "[^/]+/[^/]+?", "path": ".+"}


def route(method: str, template: str):
    """Registers `endpoint(hub, request, **parts)` for an address such as "/api/models/{repo}/refs"."""
    pattern = re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{_PARTS.get(part[1], '[^/]+')})", template)

    def register(endpoint: Callable) -> Callable:
        _ROUTES.append((method, re.compile(pattern), endpoint))
        return endpoint

    return register


def find(method: str, path: str) -> tuple[Callable, dict[str, str]]:
    """The endpoint of a request; HEAD is GET without the body."""
    method = "GET" if method == "HEAD" else method
    for route_method, pattern, endpoint in _ROUTES:
        match = pattern.fullmatch(path) if route_method == method else None
        if match:
            return endpoint, {name: unquote(part) for name, part in match.groupdict().items()}
    raise errors.HubError(404, f"Cannot {method} {path}")
