"""What a run asks of secure sums, in one argument: `fm.run(..., secure=True)`."""

from dataclasses import dataclass
from typing import Any

from folkmoot.core.errors import SettingsError
from folkmoot.secagg.graph import part
from folkmoot.secagg.terms import THREATS, Terms, terms

WEIGHT_CAP = 1 << 16
NOISES = ("gaussian", "skellam")


@dataclass(frozen=True, kw_only=True)
class Secure:
    """Secure sums: the server learns the sum over those who answered, and nothing else.

    Raises:
        SettingsError: If a number is out of range.
    """

    threat: str = "honest"
    """"honest": the server follows the protocol, and looks; "active": it may also lie."""
    corrupt: float = 0.05
    """Share of a cohort that may collude with the server."""
    dropped: float | None = None
    """Share of a cohort that may vanish in mid-round; None is 1/3 of up to 128 clients, and 0.05 of
    more."""
    bits: int | None = None
    """16 or 32 for each number; None is 32, and with noise in the sum 16 where that is enough."""
    weight_cap: int = WEIGHT_CAP
    """Largest weight of one client; public. Of more, so much counts, and the report says how
    often."""
    noise: str = "gaussian"
    """What clients add under differential privacy: "gaussian" or "skellam" shares."""
    protocol: bool = False
    """Whether a simulation runs the whole protocol, with keys and masks; else it adds modulo a
    power of two, which gives the same bits."""

    def __post_init__(self) -> None:
        _one_of("threat", self.threat, THREATS)
        _one_of("noise", self.noise, NOISES)
        _one_of("bits", self.bits, (None, 16, 32))
        if not isinstance(self.protocol, bool):
            raise SettingsError(f"protocol must be True or False, but is {self.protocol!r}.")
        cap = self.weight_cap
        if not isinstance(cap, int) or isinstance(cap, bool) or not 1 <= cap < 2**31:
            raise SettingsError(f"weight_cap must be a whole number from 1 on, but is {cap!r}.")
        if isinstance(self.bits, float):
            raise SettingsError(f"bits must be a whole number, but is {self.bits!r}.")
        for name, share in (("corrupt", self.corrupt), ("dropped", self.dropped)):
            given = name == "corrupt" or share is not None
            if given and not (isinstance(share, int | float) and 0 <= share < 1):
                raise SettingsError(
                    f"{name} must be a share of a cohort, at least 0 and below 1, but is {share!r}."
                )

    def terms(self, clients: Any, vectors: Any, **named: Any) -> Terms:
        """Return the terms of one sum: `terms` with these numbers."""
        return terms(
            clients,
            vectors,
            threat=self.threat,
            corrupt=self.corrupt,
            dropped=self.dropped,
            **named,
        )

    def colluders(self, clients: int) -> int:
        """Return how many of a cohort are taken to know each other's noise: rounded up, for a
        protocol may count a part of a client as nobody, and a privacy guarantee may not."""
        return clients - part(clients, 1 - self.corrupt)

    def providers(self, clients: int) -> int:
        """Return of how many clients' noise a sum is sure: its quorum less those who collude.

        Raises:
            SettingsError: If there is none.
        """
        quorum, colluders = self.terms(clients, []).quorum, self.colluders(clients)
        if quorum <= colluders:
            raise SettingsError(
                f"A sum of {clients} clients opens with {quorum}, of whom {colluders} may collude, "
                "so nobody's noise is sure to be in it. Assume fewer corrupt or dropped, or ask "
                "more clients."
            )
        return quorum - colluders


def as_secure(asked: Any) -> Secure | None:
    """Return what `secure=` asks for: True, "protocol", a `Secure`, or nothing.

    Raises:
        SettingsError: If it is something else.
    """
    if asked is None or asked is False:
        return None
    if isinstance(asked, Secure):
        return asked
    if asked is True:
        return Secure()
    if asked == "protocol":
        return Secure(protocol=True)
    raise SettingsError(f'secure must be True, "protocol", or fm.Secure(...), but is {asked!r}.')


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{name} must be one of {known}, but is {value!r}.")
