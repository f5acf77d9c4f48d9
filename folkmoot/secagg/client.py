"""The client's half of a secure sum: it hides its vectors, and helps to open their sum alone.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017,
ePrint 2017/281, figure 4, with the graph of Bell et al., CCS 2020, ePrint 2020/704.

    advertise      two fresh public keys, and a commitment to the seed of one's own mask
    share          shares of that seed and of the mask key, sealed for each peer
    mask           x + PRG(own seed) + sum over peers of +-PRG(what the pair agreed on)
    consistency    against an active server only: a signature over who survived
    unmask         of each peer one share: a survivor's seed, or a dropped client's mask key

Whoever has both secrets of a client can take all its masks off, so that the client never answers
for both, never twice, and never to have itself unmasked as dropped. It relies on nothing that the
server says where it can compute or check it itself. A generator that has raised is of no further
use: the client then is, for the others, one that dropped out.

Beyond the paper: commitments, by which the server notices wrong shares; and on a graph that is not
complete clients sign who survived against an active server too, and check their neighbours.
"""

from collections.abc import Callable, Generator

import numpy as np

from folkmoot.core.errors import SettingsError
from folkmoot.secagg import shamir
from folkmoot.secagg.checks import (
    Own,
    Roster,
    Vectors,
    believe,
    check_order,
    check_signatures,
    check_signed,
    check_vectors,
    enough,
    expected,
    names,
    own_attempts,
)
from folkmoot.secagg.keys import (
    advert_text,
    commitment,
    complaint_text,
    open_shares,
    own_mask,
    pair_key,
    seal_shares,
    survivors_text,
)
from folkmoot.secagg.masks import add_masks, zeros
from folkmoot.secagg.messages import (
    MASK,
    SEED,
    Advert,
    Adverts,
    ClientMessage,
    Complaint,
    Delivery,
    Masked,
    Reveal,
    ServerMessage,
    Shares,
    Signatures,
    Signed,
    Survivors,
)
from folkmoot.secagg.primitives import Ed25519PrivateKey, sign
from folkmoot.secagg.terms import ClientId, Demands, Terms, weakness


def client(
    terms: Terms,
    me: ClientId,
    vectors: Vectors | Callable[[], Vectors],
    *,
    identity: Ed25519PrivateKey | None = None,
    roster: Roster | None = None,
    demands: Demands = Demands(),
) -> Generator[ClientMessage, ServerMessage | bytes | None, None]:
    """Take part in one secure sum: yields what the server is to hear, is sent what it answers.

    The first message comes from `next`. After the last, `send(None)` ends it in peace.

    Args:
        terms: Of the sum, as this client has them: with the model that it trained from.
        me: Its id.
        vectors: As the terms say: (length,) each, uint16, uint32 or uint64. Or a function that
            returns them, called once all masks are expanded, so that training may go on until then.
        identity: The key that it signs with; needed against an active server.
        roster: Everybody's public signing keys, 32 bytes each, known not from this server.
        demands: What it insists on beyond what makes the terms safe.

    Yields:
        Its messages, in the order of the phases. Where shares do not open, a `Complaint` stands in
        place of its masked vectors; whatever it is sent then has it leave, with a SecureError.

    Raises:
        SecureError: If anything breaks a rule; the message names client, round and rule.
        SettingsError: If its own vectors or keys are not as the terms say.
    """
    own = _begin(terms, me, demands)
    if not callable(vectors):
        check_vectors(own, vectors)
    if terms.threat == "active" and (identity is None or roster is None):
        raise SettingsError(
            f"Client {me!r} signs against an active server, but has no identity or no roster of "
            'others. Pass identity= and roster=, or agree on the threat "honest".'
        )
    adverts = yield _advertise(own, identity)
    _meet(own, expected(own, adverts, Adverts), roster or {})
    delivery = yield _deal(own)
    if unread := _hold(own, expected(own, delivery, Delivery)):
        yield _complain(own, unread, identity)
        who = names(own, set(unread))
        raise own.refusal("sealed shares", f"what {who} sealed for it does not open.")
    survivors = yield _mask(own, vectors)
    believe(own, expected(own, survivors, Survivors))
    if identity is not None and terms.threat == "active":
        text = survivors_text(terms.digest, own_attempts(own)[own.position], own.bitmap)
        signatures = yield Signed(sign(identity, text))
        check_signatures(own, expected(own, signatures, Signatures), roster or {})
    again = yield _reveal(own)
    if again is not None:
        raise own.refusal("one answer", f"asked again, by {type(again).__name__}.")


def _begin(terms: Terms, me: ClientId, demands: Demands) -> Own:
    """Draw fresh secrets, if the terms are safe."""
    if me not in terms.positions:
        raise SettingsError(f"Client {me!r} is not in the cohort of these terms.")
    own = Own(terms, me)
    if fault := weakness(terms, demands):
        raise own.refusal("safe terms", fault)
    return own


def _advertise(own: Own, identity: Ed25519PrivateKey | None) -> Advert:
    digest, keys = own.terms.digest, own.keys
    fixed = commitment(digest, own.position, keys.seed)
    parts, signature = (keys.channel_public, keys.mask_public, fixed), b""
    if identity is not None and own.terms.threat == "active":
        signature = sign(identity, advert_text(digest, own.position, *parts))
    own.advert = Advert(*parts, signature)
    return own.advert


def _meet(own: Own, adverts: Adverts, roster: Roster) -> None:
    """Agree with each peer on a channel and a mask."""
    if strangers := adverts.by_peer.keys() - set(own.peers):
        raise own.refusal("own peers", f"sent keys of {names(own, strangers)}, who are none.")
    enough(own, len(adverts.by_peer), "advertised keys")
    said = [own.keys.channel_public, own.keys.mask_public]
    said += [key for advert in adverts.by_peer.values() for key in (advert.channel, advert.mask)]
    if len(set(said)) < len(said):
        raise own.refusal("distinct keys", f"{len(said)} public keys, {len(set(said))} distinct.")
    for peer, advert in adverts.by_peer.items():
        check_order(own, peer, advert)
        if own.terms.threat == "active":
            check_signed(own, peer, advert, roster)
    own.adverts = adverts.by_peer
    digest, keys, me = own.terms.digest, own.keys, own.position
    for peer, advert in own.adverts.items():
        ends = {me: keys.channel_public, peer: advert.channel}
        own.channels[peer] = pair_key(b"channel", digest, keys.channel, ends, peer)
        ends = {me: keys.mask_public, peer: advert.mask}
        own.pair_masks[peer] = pair_key(b"mask", digest, keys.mask, ends, peer)


def _deal(own: Own) -> Shares:
    """Cut both secrets into shares and seal them."""
    terms, me = own.terms, own.position
    holders = sorted([*own.adverts, me]) if terms.complete else sorted(own.adverts)
    points = [holder + 1 for holder in holders]
    seeds = shamir.split(own.keys.seed, points, terms.threshold)
    masks = shamir.split(own.keys.mask.private_bytes_raw(), points, terms.threshold)
    dealt = dict(zip(holders, zip(seeds, masks, strict=True), strict=True))
    if terms.complete:
        own.held[me] = dealt.pop(me)
    return Shares(
        {
            peer: seal_shares(own.channels[peer], terms.digest, me, peer, shares)
            for peer, shares in dealt.items()
        }
    )


def _hold(own: Own, delivery: Delivery) -> list[int]:
    """Open what peers dealt; return whose does not open, which tells that somebody broke rules."""
    if strangers := delivery.by_peer.keys() - own.adverts.keys():
        raise own.refusal("own peers", f"sent shares of {names(own, strangers)}, who are none.")
    enough(own, len(delivery.by_peer), "dealt shares")
    unread = []
    for peer, sealed in sorted(delivery.by_peer.items()):
        shares = open_shares(own.channels[peer], own.terms.digest, peer, own.position, sealed)
        if shares is None:
            unread.append(peer)
        else:
            own.held[peer] = shares
    own.channels.clear()
    return unread


def _complain(own: Own, unread: list[int], identity: Ed25519PrivateKey | None) -> Complaint:
    """Say whose shares do not open; the server could not tell it from one that vanished."""
    own.forget()
    if identity is None or own.terms.threat == "honest":
        return Complaint(tuple(unread), b"")
    attempted = own_attempts(own)[own.position]
    text = complaint_text(own.terms.digest, attempted, own.position, unread)
    return Complaint(tuple(unread), sign(identity, text))


def _mask(own: Own, vectors: Vectors | Callable[[], Vectors]) -> Masked:
    """Expand all masks, then add the vectors."""
    total = _expanded(own)
    if callable(vectors):
        vectors = vectors()
        check_vectors(own, vectors)
    for hidden, vector in zip(total, vectors, strict=True):
        hidden += vector
    return Masked(tuple(total))


def _expanded(own: Own) -> list[np.ndarray]:
    """Return the sum of this client's masks, and forget what they come from."""
    me, pairs = own.position, {p: m for p, m in own.pair_masks.items() if p in own.held}
    plus = [mask for peer, mask in pairs.items() if me < peer]
    minus = [mask for peer, mask in pairs.items() if me > peer]
    total = zeros(own.terms.vectors)
    add_masks(total, [own_mask(own.terms.digest, me, own.keys.seed), *plus], minus)
    own.pair_masks.clear()
    del own.keys
    return total


def _reveal(own: Own) -> Reveal:
    """Show of each one share, and forget the others."""
    if own.revealed:
        raise own.refusal("one answer", "it has shown its shares.")
    own.revealed = {peer: SEED if own.survivors[peer] else MASK for peer in sorted(own.held)}
    shown = {peer: (kind, own.held[peer][kind]) for peer, kind in own.revealed.items()}
    own.held.clear()
    return Reveal(shown)
