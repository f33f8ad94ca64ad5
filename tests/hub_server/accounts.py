"""Who is calling: users, the organizations they belong to, and their tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """What one token stands for."""

    user: str
    role: str
    token: str


class Accounts:
    def __init__(self):
        self._accounts: dict[str, Account] = {}
        self._members: dict[str, set[str]] = {}

    def token(self, user: str, role: str = "write") -> str:
        """The user's token with that role, "read" or "write"; the user is made if new."""
        token = f"hf_{user}_{role}_secret"
        self._accounts[token] = Account(user, role, token)
        return token

    def revoke(self, token: str) -> None:
        del self._accounts[token]

    def add_organization(self, name: str, members: tuple[str, ...]) -> None:
        self._members[name] = set(members)

    def of_token(self, token: str) -> Account | None:
        return self._accounts.get(token)

    def organizations_of(self, user: str) -> list[str]:
        return [name for name, members in self._members.items() if user in members]

    def belongs_to(self, account: Account, namespace: str) -> bool:
        return namespace in (account.user, *self.organizations_of(account.user))
