"""Which group a source row goes to, so that each makes its share of the manifest. Knows no templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Shares:
    """Counts what each group has made, and names the one that is furthest behind.

    The shares are met to within one group's rows wherever enough source rows fit each group; rows appended to a source
    change nothing for those before them.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = {name: share for name, share in shares.items() if share > 0}
        self.made = dict.fromkeys(self._shares, 0)

    def next(self, fitting: Iterable[str]) -> str:
        """The group among ``fitting`` that has made least for its share; of equals the first of the recipe."""
        choices = set(fitting)
        return min(
            (name for name in self._shares if name in choices), key=lambda name: self.made[name] / self._shares[name]
        )

    def add(self, name: str, num_images: int) -> None:
        """A group has made so many images more."""
        self.made[name] += num_images

    def asked_percent(self, name: str) -> float:
        """The group's share of all shares, in percent."""
        return 100 * self._shares[name] / sum(self._shares.values())

    def made_percent(self, name: str) -> float:
        """The group's share of all images so far, in percent."""
        return 100 * self.made[name] / max(1, sum(self.made.values()))
