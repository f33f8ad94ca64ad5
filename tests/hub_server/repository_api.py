"""Endpoints that tell what is in a repository, and those that make and delete branches."""

from urllib.parse import urlencode

from . import errors, views
from .hub import Hub
from .repositories import DEFAULT_BRANCH, Commit
from .routes import route
from .wire import Request, Response, json_response

EXPANDED_PAGE = 50


@route("GET", "/api/models/{repo}")
@route("GET", "/api/models/{repo}/revision/{revision}")
def model_info(hub: Hub, request: Request, repo: str, revision: str = DEFAULT_BRANCH) -> Response:
    repository = hub.visible(repo, request.account)
    commit = repository.commit_at(revision)
    return json_response(views.model_info(hub, repository, commit, request.flag("blobs")))


@route("GET", "/api/models/{name}")
@route("GET", "/api/models/{name}/revision/{revision}")
@route("GET", "/{name}/resolve/{revision}/{path}")
def without_namespace(hub: Hub, request: Request, name: str, **_: str) -> Response:
    raise errors.repo_not_found(request.account is not None)


@route("GET", "/api/models/{repo}/auth-check")
def check_read(hub: Hub, request: Request, repo: str) -> Response:
    hub.readable(repo, request.account)
    return json_response({})


@route("GET", "/api/models/{repo}/auth-check/write")
def check_write(hub: Hub, request: Request, repo: str) -> Response:
    hub.writable(repo, request.account)
    return json_response({})


@route("GET", "/api/models/{repo}/commits/{revision}")
def commits(hub: Hub, request: Request, repo: str, revision: str) -> Response:
    history = hub.visible(repo, request.account).history(revision)
    return json_response([views.commit_info(commit) for commit in history])


@route("GET", "/api/models/{repo}/refs")
def refs(hub: Hub, request: Request, repo: str) -> Response:
    branches = hub.visible(repo, request.account).branches
    listed = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": target} for name, target in branches.items()]
    return json_response({"branches": listed, "tags": [], "converts": [], "pullRequests": []})


@route("POST", "/api/models/{repo}/branch/{branch}")
def create_branch(hub: Hub, request: Request, repo: str, branch: str) -> Response:
    starting_point = request.json().get("startingPoint", DEFAULT_BRANCH)
    repository = hub.writable(repo, request.account)
    with hub.lock:
        if branch in repository.branches:
            raise errors.HubError(409, f"Reference already exists: refs/heads/{branch}")
        if branch.startswith("refs/"):
            raise errors.bad_request(f"Invalid reference for a branch: {branch}")
        repository.branches[branch] = repository.commit_at(starting_point).id
    return Response()


@route("POST", "/api/models/{repo}/super-squash/{branch}")
def super_squash(hub: Hub, request: Request, repo: str, branch: str) -> Response:
    title = request.json().get("message") or f"Super-squash branch '{branch}'"
    repository = hub.writable(repo, request.account)
    with hub.lock:
        repository.squash(branch, title, request.account.user)
    return Response()


@route("DELETE", "/api/models/{repo}/branch/{branch}")
def delete_branch(hub: Hub, request: Request, repo: str, branch: str) -> Response:
    repository = hub.writable(repo, request.account)
    if branch == DEFAULT_BRANCH:
        raise errors.HubError(403, f"Cannot delete branch {branch}")
    with hub.lock:
        repository.head(branch)
        del repository.branches[branch]
    return Response()


@route("GET", "/api/models/{repo}/tree/{revision}")
@route("GET", "/api/models/{repo}/tree/{revision}/{path}")
def tree(hub: Hub, request: Request, repo: str, revision: str, path: str = "") -> Response:
    commit = hub.visible(repo, request.account).commit_at(revision)
    paths = _paths_below(commit, path, request.flag("recursive"))
    if path and not paths:
        raise errors.entry_not_found(f'{path} does not exist on "{revision}"')
    expand = request.flag("expand")
    first = int(request.query.get("cursor", 0))
    last = first + (min(EXPANDED_PAGE, hub.settings.page_size) if expand else hub.settings.page_size)
    response = json_response([views.entry(name, commit.files, commit, expand) for name in paths[first:last]])
    if last < len(paths):
        next_page = urlencode({**request.query, "cursor": last})
        response.headers["Link"] = f'<{hub.endpoint}{request.record.path}?{next_page}>; rel="next"'
    return response


def _paths_below(commit: Commit, folder: str, recursive: bool) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    paths = {*commit.files, *views.folders(commit.files)}
    below = [path for path in paths if path.startswith(prefix)]
    return sorted(path for path in below if recursive or "/" not in path[len(prefix) :])


@route("POST", "/api/models/{repo}/paths-info/{revision}")
def paths_info(hub: Hub, request: Request, repo: str, revision: str) -> Response:
    form = request.form()
    commit = hub.visible(repo, request.account).commit_at(revision)
    known = {*commit.files, *views.folders(commit.files)}
    expand = form.get("expand", [""])[0].lower() == "true"
    wanted = [path for path in form.get("paths", []) if path in known]
    return json_response([views.entry(path, commit.files, commit, expand) for path in wanted])
