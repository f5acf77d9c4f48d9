"""Nothing secret is printed, logged, pickled, or carried by an exception and its frames."""

import pickle
import traceback

import parties
import pytest

from folkmoot.core.errors import QuorumError, SecureError
from folkmoot.secagg import keys, messages, primitives, shamir
from folkmoot.secagg.shamir import PRIME


@pytest.fixture
def secrets(monkeypatch):
    """Note everything that is drawn, agreed, derived, dealt or rebuilt."""
    found = set()

    def noting(function):
        def noted(*given):
            result = function(*given)
            found.update(result if isinstance(result, list) else [result])
            return result

        return noted

    entropy = noting(primitives.entropy)
    for module in (primitives, keys, shamir):
        monkeypatch.setattr(module, "entropy", entropy)
    monkeypatch.setattr(keys, "agree", noting(primitives.agree))
    monkeypatch.setattr(keys, "derive", noting(primitives.derive))
    monkeypatch.setattr(shamir, "evaluate", noting(shamir.evaluate))
    return found


def shown(text, secrets):
    """The secrets that a text shows, in bytes, hexadecimal or decimal."""
    for secret in secrets:
        whole = secret if isinstance(secret, int) else int.from_bytes(secret, "little")
        raw = secret if isinstance(secret, bytes) else secret.to_bytes(33, "little")
        forms = [str(whole), f"{whole:x}", raw.hex(), repr(raw)[2:-1]]
        yield from (form for form in forms if len(form) > 16 and form in text)


def frames(error):
    """An exception as a logger that shows local variables would write it, causes included."""
    lines = traceback.format_exception(error)
    while error is not None:
        frame = error.__traceback__
        while frame is not None:
            # The tests' own frames stand for the client's data, and hold inputs.
            if "/folkmoot/" in frame.tb_frame.f_code.co_filename:
                lines += [f"{k} = {v!r}" for k, v in frame.tb_frame.f_locals.items()]
            frame = frame.tb_next
        error = error.__context__
    return "\n".join(lines)


def test_what_is_looked_for_would_be_found(secrets):
    made = keys.Keys()

    assert list(shown(f"seed = {made.seed!r}", secrets))
    assert list(shown(f"seed = {made.seed.hex()}", secrets))
    assert list(shown(str(shamir.evaluate([5, 2**255], [1, 2])), secrets))
    assert not list(shown(f"{made!r} {made.mask!r} {made.channel!r}", secrets))


@pytest.mark.parametrize("threat", ["honest", "active"])
def test_a_whole_sum_shows_no_secret(threat, secrets, capfd, caplog):
    caplog.set_level(0)
    agreed = parties.five(threat=threat)
    clients, lead, _ = parties.parties(agreed)
    seen = []

    def look(phase, name, message):
        # Sealed texts and masked vectors are what others may see; everything else is written out.
        frame = clients[name].gi_frame
        seen.extend([repr(message), repr(clients[name]), repr(lead.gi_frame.f_locals)])
        seen.extend(f"{k} = {v!r}" for k, v in (frame.f_locals if frame else {}).items())
        return message

    opened, refused = parties.play(
        clients,
        lead,
        down=look,
        up=lambda *said: [] if said[:2] == ("mask", 3) else [(said[1], look(*said))],
    )
    written = "\n".join([*seen, repr(opened), repr(agreed), *capfd.readouterr(), caplog.text])

    assert opened.survivors == (0, 1, 2, 4)
    assert not refused
    assert len(secrets) > 100
    assert not list(shown(written, secrets))


def failing(phase, agreed, *, down=None, up=None):
    """What clients or the server raise when a phase is meddled with."""
    clients, lead, _ = parties.parties(agreed)

    def told(now, name, message):
        return down(message) if (now, name) == (phase, 0) and down else message

    def said(now, name, message):
        return up(name, message) if now == phase and up else [(name, message)]

    opened, refused = parties.play(clients, lead, down=told, up=said)
    return [*refused.values(), *([opened] if isinstance(opened, QuorumError) else [])]


@pytest.mark.parametrize(
    ("phase", "down"),
    [
        (
            "share",
            lambda m: messages.Adverts({p: a._replace(mask=bytes(32)) for p, a in m[0].items()}),
        ),
        ("share", lambda m: messages.Adverts({})),
        ("share", lambda m: b"noise"),
        (
            "mask",
            lambda m: messages.Delivery({p: t if p < 4 else t[:-1] for p, t in m[0].items()}),
        ),
        ("mask", lambda m: messages.Delivery({})),
        ("unmask", lambda m: messages.Survivors(b"\x03")),
        ("unmask", lambda m: messages.Survivors(b"\xff")),
        ("unmask", lambda m: None),
    ],
)
def test_a_refusal_shows_no_secret(phase, down, secrets):
    [error] = failing(phase, parties.five(), down=down)

    assert isinstance(error, SecureError)
    assert not list(shown(frames(error), secrets))


@pytest.mark.parametrize(
    "up",
    [
        lambda name, m: [(name, m)] if name < 2 else [],
        lambda name, m: [
            (name, messages.Reveal({p: (k, (s + name) % PRIME) for p, (k, s) in m[0].items()}))
        ],
    ],
    ids=["too few", "wrong shares"],
)
def test_a_sum_that_is_given_up_shows_no_secret(up, secrets):
    [error] = failing("unmask", parties.five(), up=up)

    assert isinstance(error, QuorumError)
    assert not list(shown(frames(error), secrets))


def test_what_cannot_be_masked_is_refused_without_showing_masks(secrets):
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed, parties.inputs(agreed) | {0: list})

    with pytest.raises(ValueError, match="Client 0 brings") as caught:
        parties.play(clients, lead)

    assert not list(shown(frames(caught.value), secrets))


def test_a_party_is_not_pickled():
    agreed = parties.five()
    clients, lead, _ = parties.parties(agreed)
    next(lead)
    next(clients[0])

    for party in (lead, clients[0], clients[0].gi_frame.f_locals["own"]):
        with pytest.raises(TypeError, match=r"cannot pickle|it stays here"):
            pickle.dumps(party)


def test_what_is_public_is_shown():
    agreed = parties.five()
    opened = parties.opens(agreed)

    assert "a run" in repr(agreed)
    assert "survivors=(0, 1, 2, 3, 4)" in repr(opened)
