"""Endpoints about the caller and the repositories that are theirs."""

from . import errors, views
from .hub import Hub
from .recording import UNCOUNTED
from .routes import route
from .wire import Request, Response, json_response


@route("GET", "/api/whoami-v2")
def who_am_i(hub: Hub, request: Request) -> Response:
    account = request.account
    if account is None:
        raise errors.login_required()
    organizations = hub.accounts.organizations_of(account.user)
    return json_response(
        {
            "type": "user",
            "id": account.user,
            "name": account.user,
            "fullname": account.user,
            "email": f"{account.user}@example.org",
            "isPro": False,
            "orgs": [{"type": "org", "name": name, "roleInOrg": "write"} for name in organizations],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}},
        }
    )


@route("POST", "/api/repos/create")
def create_repo(hub: Hub, request: Request) -> Response:
    wanted = request.json()
    repo_id, namespace = _repo_in_own_namespace(hub, request, wanted)
    address = {"url": f"{hub.endpoint}/{repo_id}", "name": repo_id, "id": repo_id}
    with hub.lock:
        if repo_id in hub.repositories:
            raise errors.HubError(409, "You already created this model repo", **address)
        is_private = wanted.get("private") or wanted.get("visibility") == "private"
        region = wanted.get("region") or hub.settings.region
        hub.create(repo_id, namespace, private=bool(is_private), region=region)
    return json_response(address)


@route("DELETE", "/api/repos/delete")
def delete_repo(hub: Hub, request: Request) -> Response:
    repo_id, _ = _repo_in_own_namespace(hub, request, request.json())
    with hub.lock:
        hub.writable(repo_id, request.account)
        del hub.repositories[repo_id]
    return json_response({})


def _repo_in_own_namespace(hub: Hub, request: Request, wanted: dict) -> tuple[str, str]:
    account = request.account
    if account is None:
        raise errors.login_required()
    if wanted.get("type", "model") != "model":
        raise errors.bad_request("Only model repositories are served here")
    namespace = wanted.get("organization") or account.user
    if account.role != "write" or not hub.accounts.belongs_to(account, namespace):
        raise errors.namespace_forbidden(namespace)
    return f"{namespace}/{wanted['name']}", namespace


@route("POST", "/api/validate-yaml")
def validate_card(hub: Hub, request: Request) -> Response:
    card = request.json()["content"]
    if card.startswith("---\n") and "\n---" not in card[4:]:
        message = "The metadata block is not closed"
        return json_response({"error": message, "errors": [{"message": message}], "warnings": []}, 400)
    warnings = [] if views.front_matter(card) else [{"message": "empty or missing yaml metadata in repo card"}]
    return json_response({"errors": [], "warnings": warnings})


@route("GET", UNCOUNTED)
def agent_harnesses(hub: Hub, request: Request) -> Response:
    return json_response({"standardEnvVars": [], "harnesses": {}})
