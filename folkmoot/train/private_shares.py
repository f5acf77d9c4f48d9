"""Privacy inside a secure sum: clients add the noise, and no server is trusted with anything.

Kairouz, Liu, Steinke, ICML 2021, arXiv:2102.06387. A secure sum shows nothing but itself, so the
noise may come in shares, one from each client. Who hides among whom changes: the server draws the
cohort and knows it, so nothing is gained by the lot; and a client's share counts only while the
client is in the sum and does not collude.
"""

import math
from collections.abc import Callable, Sequence

from folkmoot.codecs.field import to_field
from folkmoot.codecs.rotate import rotate
from folkmoot.codecs.shares import gaussian_shares, skellam_shares
from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State
from folkmoot.core.codec import Bounds, Codec
from folkmoot.core.errors import SettingsError
from folkmoot.privacy.dp import DP
from folkmoot.privacy.events import Event, Gaussian, Skellam
from folkmoot.secagg.secure import Secure


def refuse_beside_secure(dp: DP) -> None:
    """Refuse promises whose noise cannot be added inside a secure sum.

    Raises:
        SettingsError: Naming the part that contradicts.
    """
    because = {
        "mechanism=": (dp.mechanism is not None, "is drawn by a server that sees every sum"),
        "population=": (dp.population is not None, "scales noise for a cohort that is not there"),
        'trust="local"': (dp.trust == "local", "hides each update by itself, also from the sum"),
    }
    for name, (given, why) in because.items():
        if given:
            raise SettingsError(
                f"secure= has clients add noise inside the sum, but DP({name}) {why}. Leave one "
                "of them out."
            )


def stages(dp: DP, secure: Secure, noise: float, clients: int) -> tuple[Codec, ...]:
    """Return what stands between a clipped vector and a secure sum of so many.

    Args:
        dp: The promise.
        secure: What is asked of the sums.
        noise: The noise multiplier.
        clients: Of a round.
    """
    providers = secure.providers(clients)
    shares = gaussian_shares if secure.noise == "gaussian" else skellam_shares
    return (
        rotate(),
        _field(secure, noise, clients, providers),
        shares(noise, providers=providers, simulation=dp.simulation),
    )


def cost(secure: Secure, clients: int, sizes: Sequence[int]) -> Callable[[float], Event]:
    """Return what the costliest exchange of a round costs, by its noise.

    Args:
        secure: What is asked of the sums.
        clients: Of a round.
        sizes: How many numbers each exchange sends.
    """
    if secure.noise == "gaussian":
        return Gaussian

    def event(noise: float) -> Event:
        # Skellam noise costs the more, the coarser the steps and the more the numbers.
        reach = min((_reach(secure, noise, clients, size) for size in sizes), default=1.0)
        return Skellam(noise, reach=reach, size=max(sizes, default=1))

    return event


def _reach(secure: Secure, noise: float, clients: int, size: int) -> float:
    """Return the length of what one client adds, in steps; 1 where noise has no room.

    A search for noise asks about any; a run with too much is refused by the field itself.
    """
    field = _field(secure, noise, clients, secure.providers(clients))
    bounds = Bounds(l2=1.0, weight=1.0, clients=clients, size=size, expected=clients)
    _, bounds = rotate().init(bounds, None)  # type: ignore[arg-type]
    try:
        _, bounds = field.init(bounds, None)  # type: ignore[arg-type]
    except SettingsError:
        return 1.0
    return bounds.l2


def loudness(secure: Secure, clients: int, state: State, scales: float) -> float:
    """Return the root of the mean squared L2 norm of the noise in a sum in which all are.

    Args:
        secure: What is asked of the sums.
        clients: Of a round.
        state: Of the exchange.
        scales: L2 norm of what each coordinate is scaled by behind the field.
    """
    more = math.sqrt(clients / secure.providers(clients))
    (scale,) = [leaf for path, leaf in trees.items(state.codec) if path[-1] == "scale"]
    steps = float(scale)
    return more * state.bounds.noise * state.bounds.l2 / steps * scales


def _field(secure: Secure, noise: float, clients: int, providers: float) -> Codec:
    most = noise * math.sqrt(clients / providers)
    return to_field(bits=secure.bits, noise=most, clients=clients, counted=False)
