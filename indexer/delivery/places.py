"""Where alerts go, as the user wrote it."""

from dataclasses import dataclass, field

from indexer.delivery.channels import Channel, Command, Stdout
from indexer.delivery.services import Apprise


@dataclass(frozen=True, slots=True)
class Places:
    """Where alerts go, as the user wrote it."""

    urls: tuple[str, ...] = field(default=(), repr=False)
    command: str | None = field(default=None, repr=False)
    stdout: bool = False

    def channels(self) -> list[Channel]:
        """Returns the channels. ConfigError for one that cannot work."""
        found: list[Channel] = [Apprise(url) for url in self.urls]
        if self.command is not None:
            found.append(Command(self.command))
        if self.stdout:
            found.append(Stdout())
        return found
