"""What the Hub refuses, and the headers by which huggingface_hub tells the reasons apart."""


class HubError(Exception):
    """`details` go into the JSON of the answer, next to the message."""

    def __init__(self, status: int, message: str, code: str | None = None, **details: str):
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.headers = {"X-Error-Message": " ".join(message.split())}
        if code:
            self.headers["X-Error-Code"] = code


def invalid_token() -> HubError:
    return HubError(401, "Invalid credentials in Authorization header")


def login_required() -> HubError:
    # The Hub sends no code here: huggingface_hub takes any 401 of an https address for a missing repository. Ours is
    # http, so the code must say what the address says there.
    return HubError(401, "Invalid username or password.", "RepoNotFound")


def repo_not_found(is_logged_in: bool) -> HubError:
    return HubError(404, "Repository not found", "RepoNotFound") if is_logged_in else login_required()


def gated_repo(repo_id: str, url: str, is_logged_in: bool) -> HubError:
    restricted = f"Access to model {repo_id} is restricted"
    if is_logged_in:
        message = f"{restricted} and you are not in the authorized list. Visit {url} to ask for access."
        return HubError(403, message, "GatedRepo")
    message = f"{restricted}. You must have access to it and be authenticated to access it. Please log in."
    return HubError(401, message, "GatedRepo")


def write_token_required() -> HubError:
    return HubError(403, "Forbidden: you must use a write token to upload to a repository.")


def forbidden() -> HubError:
    return HubError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")


def namespace_forbidden(namespace: str) -> HubError:
    return HubError(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str = "Entry not found", commit_id: str | None = None) -> HubError:
    error = HubError(404, message, "EntryNotFound")
    if commit_id:
        error.headers["X-Repo-Commit"] = commit_id  # by which clients remember that the file is not there
    return error


def bad_request(message: str) -> HubError:
    return HubError(400, message)
