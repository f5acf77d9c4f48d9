"""From `compress=` to a program: what clients train travels packed, in every exchange.

Nothing of the algorithm is known here: its round is driven as it is, and the aggregators of what it
asks are put behind a codec. Numbers that are only measured travel as they are.
"""

import functools
import math
from typing import Any

import torch

from folkmoot.aggregators.compressed import compressed, large
from folkmoot.aggregators.links import alone, as_codec, varies
from folkmoot.core.aggregator import Aggregator
from folkmoot.core.algorithm import Algorithm, Task
from folkmoot.core.codec import Bounds, Codec, Layout
from folkmoot.core.errors import SettingsError
from folkmoot.engines.tasks import example
from folkmoot.privacy.dp import DP
from folkmoot.train.driven import driven
from folkmoot.train.plan import asked_in_a_round


def compressing(
    algorithm: Algorithm, codec: Codec, *, privacy: DP | None = None, secure: bool = False
) -> Algorithm:
    """Return an algorithm whose trained updates travel by a codec.

    Args:
        algorithm: As it is promised: its rules are private or secure already, if at all.
        codec: How updates travel.
        privacy: What is promised of privacy.
        secure: Whether sums are secure.

    Raises:
        SettingsError: If the codec adds noise or bounds of its own, cannot be added in a secure
            sum, or shows by its bytes what privacy hides.
    """
    codec = as_codec("compress", codec)
    noised = privacy is not None and privacy.unit == "client" and privacy.trust == "local"
    # Noise that a client adds itself is in what travels: of short vectors it is short.
    link = codec if secure or noised else alone(codec)
    _refuse_unfit(link)
    if secure and not codec.linear:
        raise SettingsError(
            f"{codec.name} packs each update by itself, and what it packs cannot be added, so a "
            "secure sum cannot be taken of it. Use a codec whose sums are decoded, such as "
            "fm.codecs.random_k(0.1), or fewer bits in the sum itself: secure=fm.Secure(bits=16)."
        )
    if privacy is not None and not codec.linear:
        _refuse_private(codec, link, privacy)
    rebuilt: Any = functools.cache(functools.partial(compressed, codec=link))

    def ask(task: Task) -> Task:
        update = example(task)
        if not task.work.train or not large(update.value)[1]:
            return task
        if update.packed_bytes is not None:
            raise SettingsError(
                f"The work {task.work.name!r} packs its updates already, with a memory of what "
                "that loses. Leave compress= or feedback() out."
            )
        rule: Aggregator = rebuilt(task.aggregator)
        return task._replace(aggregator=rule)

    found = driven(algorithm, ask=ask)
    # What an exchange cannot travel by is said now, and not in the first round.
    asked_in_a_round(found, 1)
    return found


def _refuse_unfit(codec: Codec) -> None:
    """Refuse a codec with a promise of its own: what it states would be heard by nobody."""
    size = 64
    try:
        _, after = codec.init(Bounds(size=size), Layout.of({"x": torch.zeros(size)}))
    except SettingsError as error:
        raise SettingsError(f"compress={codec.name} cannot be used: {error}") from error
    if math.isfinite(after.l2):
        raise SettingsError(
            f"compress={codec.name} bounds updates, which is no compression. Make it a stage of "
            "the rule: aggregator=fm.aggregators.weighted_mean(...)."
        )
    if after.noise:
        raise SettingsError(
            f"compress={codec.name} adds noise, of which no ledger would know. Ask for "
            "privacy=fm.DP(...), and compress beside it."
        )


def _refuse_private(codec: Codec, link: Codec, privacy: DP) -> None:
    if privacy.trust == "local" and privacy.unit == "client":
        raise SettingsError(
            f"{codec.name} packs an update before noise is added, but with trust='local' each "
            "client adds its noise before anything leaves it. Use a codec whose sums are decoded, "
            "such as fm.codecs.random_k(0.1), or leave compress= out."
        )
    # What hides examples has been added before an update is packed.
    if privacy.unit == "client" and varies(link):
        raise SettingsError(
            f"The bytes that {codec.name} packs hang on an update's numbers, and whoever counts "
            "them learns what no noise hides. Leave the entropy coding out."
        )
