"""A journal: what was acknowledged is there, whatever happened; what was edited is found."""

import errno
import itertools
import json
import os

import pytest

from folkmoot.core.errors import CheckpointError, InfrastructureError, SettingsError
from folkmoot.privacy.journal import Journal

CHANGES = ("edited", "removed", "doubled", "garbage", "blank", "zeros")
RECORDS = [{"n": 1}, {"n": 2, "text": "ä\r\n"}, {"n": 3}]


def write(path, records=RECORDS):
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.close()
    return journal.head


def read(path):
    journal = Journal(path)
    journal.close()
    return journal.records


def test_records_come_back_in_order_with_the_head(tmp_path):
    path = tmp_path / "new" / "folder" / "journal.jsonl"

    head = write(path)

    journal = Journal(path)
    assert (journal.records, journal.head) == (RECORDS, head)
    journal.close()
    journal.close()


def test_a_file_cut_at_any_byte_keeps_every_whole_line_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # A thousand of them take seconds.
    whole = tmp_path / "whole"
    write(whole)
    data = whole.read_bytes()
    path = tmp_path / "cut"

    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        journal = Journal(path)
        kept = journal.records
        journal.append({"n": 4})
        journal.close()

        assert kept == RECORDS[: data[:length].count(b"\n")]
        assert read(path) == [*kept, {"n": 4}]


@pytest.mark.parametrize(
    ("change", "line"),
    # Of a line cut off from the end only the head tells.
    [case for case in itertools.product(CHANGES, [0, 1, 2]) if case != ("removed", 2)],
)
def test_a_line_that_was_changed_is_found_by_its_number(tmp_path, change, line):
    path = tmp_path / "journal"
    write(path)
    lines = path.read_bytes().split(b"\n")[:-1]
    changed = {
        "edited": [lines[line].replace(b'"n": ', b'"n": 1')],
        "removed": [],
        "doubled": [lines[line]] * 2,
        "garbage": [b"\xff{" + lines[line]],
        "blank": [b"", lines[line]],
        "zeros": [b"\0" * 40],
    }[change]
    lines[line : line + 1] = changed
    last = len(lines)
    path.write_bytes(b"\n".join([*lines, b""]))

    with pytest.raises(CheckpointError, match=rf"Line [1-{last}] of .*journal is damaged.*copy"):
        read(path)


def test_what_was_cut_off_from_the_end_changes_the_head(tmp_path):
    path = tmp_path / "journal"
    head = write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))

    journal = Journal(path)

    assert journal.head != head
    journal.close()


def test_an_open_file_is_refused_to_others_and_free_once_closed(tmp_path):
    path = tmp_path / "journal"
    first = Journal(path)

    with pytest.raises(CheckpointError, match="open elsewhere"):
        Journal(path)
    assert path.read_bytes() == b""  # Reading it does not let the lock go.
    with pytest.raises(CheckpointError, match="open elsewhere"):
        Journal(path)

    first.close()
    assert read(path) == []


def test_what_cannot_be_opened_is_refused_with_what_to_name(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match=r"is a folder\. Name a file in it, such as .*jsonl"):
        Journal(tmp_path)
    with pytest.raises(SettingsError, match=r"cannot be opened: .* Name a file that may be writ"):
        Journal(tmp_path / "file" / "ledger.jsonl")


def test_a_closed_journal_takes_nothing(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.close()

    with pytest.raises(InfrastructureError, match="is closed"):
        journal.append({})


class Failing:
    """A file whose next write stops half way, as on a full disk."""

    def __init__(self, file, raises):
        self.file, self.raises, self.armed = file, raises, True

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        if not self.armed:
            return self.file.write(data)
        self.armed = False
        written = self.file.write(data[: len(data) // 2])
        if self.raises:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written


@pytest.mark.parametrize("raises", [True, False])
def test_a_write_that_failed_half_way_does_not_count_and_is_overwritten(tmp_path, raises):
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append({"n": 1})
    head = journal.head
    journal._file = Failing(journal._file, raises)

    with pytest.raises(InfrastructureError, match="cannot be written"):
        journal.append({"n": 2, "long": "x" * 100})
    assert journal.head == head
    journal.append({"n": 3})
    journal.close()

    assert read(path) == [{"n": 1}, {"n": 3}]


def test_a_record_is_on_the_disk_before_append_returns(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal")
    seen = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (seen.append((tmp_path / "journal").read_bytes()), sync(file))
    )

    journal.append({"n": 1})

    assert json.loads(seen[-1])["record"] == {"n": 1}
    journal.close()
