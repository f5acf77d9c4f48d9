"""A worker in a process of its own lives, dies and is closed as one would wish."""

import os
import signal

import pytest
import torch

import folkmoot as fm


def test_a_process_of_its_own_answers_and_ends_with_its_worker(digits):
    alice = fm.Worker("alice", {"digits": digits}, process=True)
    pid = alice._channel._forked.pid
    assert pid != os.getpid()

    assert torch.equal(alice.data["digits"].x.sum(0).get(), digits[0].sum(0))
    alice.close()
    alice.close()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(fm.FolkmootError, match="was closed"):
        alice.send(torch.ones(1)).get()


def test_a_process_that_dies_is_one_clear_error():
    with fm.Worker("alice", process=True) as alice:
        x = alice.send(torch.ones(3))
        os.kill(alice._channel._forked.pid, signal.SIGKILL)

        with pytest.raises(fm.FolkmootError, match=r"'alice' \(\d+\) was ended by signal 9"):
            x.sum().item()


def test_a_worker_that_nobody_holds_is_ended():
    alice = fm.Worker("alice", process=True)
    pid = alice._channel._forked.pid

    del alice

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_lives_as_long_as_anything_that_points_to_it():
    alice = fm.Worker("alice", process=True)
    x = alice.send(torch.ones(3))

    del alice

    assert x.sum().item() == 3


def test_hostile_bytes_leave_a_process_alive():
    with fm.Worker("alice", process=True) as alice:
        for message in (b"", b"\xff" * 9, b"[" * 300_000):
            assert b"no message" in alice._channel.ask(message)

        assert alice.send(torch.ones(3)).sum().item() == 3


def test_what_keeps_a_process_from_beginning_is_told(tmp_path):
    policy = fm.remote.Policy(epsilon=1.0, ledger=tmp_path)

    with pytest.raises(fm.SettingsError, match=r"'alice' could not begin: .* is a folder"):
        fm.Worker("alice", policy=policy, process=True)


def test_its_owner_has_a_pipe_of_her_own(digits):
    with fm.Worker("alice", {"digits": digits}, process=True) as alice:
        request = alice.request(alice.data["digits"].x[7], "a picture for the paper")
        [asked] = alice.owner.requests()
        assert asked["why"] == "a picture for the paper"
        alice.owner.approve(1)

        assert torch.equal(request.get(), digits[0][7])


def test_after_an_interrupt_answers_are_those_to_what_was_asked():
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    with fm.Worker("alice", process=True) as alice:
        one, two = (alice.send(torch.tensor(value)) for value in (1.0, 2.0))
        alice.flush()
        before = signal.signal(signal.SIGALRM, interrupt)
        # It computes for ever, as far as the user sees.
        os.kill(alice._channel._forked.pid, signal.SIGSTOP)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                one.item()
        finally:
            signal.signal(signal.SIGALRM, before)
            os.kill(alice._channel._forked.pid, signal.SIGCONT)

        assert two.item() == 2.0
        assert one.item() == 1.0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_of_the_program_ends_no_worker():
    with fm.Worker("alice", process=True) as alice:
        one = alice.send(torch.tensor(1.0))
        child = os.fork()
        if not child:
            try:
                alice.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)

        assert one.item() == 1.0
