from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import Interactions, Vocabulary, read_interactions
from features.moments import microseconds
from features.tables import EventColumns
from recsys.dataset.user_events import UserEvents
from recsys.errors import ArtifactError

START = datetime(2026, 5, 1)
DATA = Path(__file__).parents[3] / "examples" / "data"
ITEMS = Vocabulary.from_ids(["b", "a", "ü", "c"])


def log_of(*rows, created=None):
    """Rows of (user, item, hours, kind, weight); ``created`` in hours."""
    names = ["user_id", "item_id", "timestamp", "event", "weight"]
    frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        (pl.lit(START) + pl.duration(hours="timestamp")).alias("timestamp")
    )
    if created is not None:
        hours = [START + timedelta(hours=one) for one in created]
        frame = frame.with_columns(pl.Series("created", hours))
    return Interactions.from_frame(frame, now=START + timedelta(days=900))


LOG = log_of(
    ("zoë", "a", 3, "view", 1.5),
    ("u2", "b", 5, "buy", 4.0),
    ("u10", "ü", 1, "view", 1.0),
    ("zoë", "elsewhere", 4, "buy", 2.0),
    ("u2", "a", 5, "view", 1.0),
    ("zoë", "c", 4, "view", 0.5),
    ("u2", "gone", 9, "view", 3.0),
    ("u2", "elsewhere", 7, "view", 3.0),
)


def written(tmp_path: Path, log: Interactions = LOG, items: Vocabulary = ITEMS) -> UserEvents:
    UserEvents.write(tmp_path / "events.bin", log, items)
    return UserEvents.open(tmp_path / "events.bin")


def test_a_users_past_by_hand(tmp_path):
    events = written(tmp_path)
    assert (events.num_users, len(events)) == (3, 8)
    assert events.event_names == ("buy", "view")
    assert events.mean_weight == LOG.frame["weight"].mean()
    assert events.vocabulary_sha256 == ITEMS.sha256
    past = events.of("zoë")
    assert past.item_index.tolist() == [2, 4, 0]  # of one time, as drawn
    assert [part.dtype for part in past] == ["int32", "int64", "float32", "uint16"]
    hour = 3_600_000_000
    assert ((past.timestamp_us - microseconds(START)) // hour).tolist() == [3, 4, 4]
    assert past.weight.tolist() == [1.5, 0.5, 2.0]
    assert [events.event_names[kind] for kind in past.kind] == ["view", "view", "buy"]


def test_the_moment_itself_is_not_before_it(tmp_path):
    events = written(tmp_path)
    four = microseconds(START + timedelta(hours=4))
    assert events.of("zoë", before=four).item_index.tolist() == [2]
    assert events.of("zoë", before=four + 1).item_index.tolist() == [2, 4, 0]
    assert events.of("zoë", before=0).item_index.size == 0


@pytest.mark.parametrize("user", ["", "u", "u1", "u100", "zz", "\ud800", "u2\0", "x" * 70_000])
def test_an_unknown_user_did_nothing(tmp_path, user):
    events = written(tmp_path)
    assert events.of(user).item_index.size == 0
    assert events.interactions(user, START + timedelta(days=9)).frame.equals(LOG.frame.clear())


def test_every_user_of_the_bundled_ratings_as_the_log_has_it(tmp_path):
    columns = EventColumns(
        user="userId", item="movieId", timestamp="timestamp", unit="s", weight="rating"
    )
    log = read_interactions(DATA / "ratings.parquet", columns=columns)
    ids = log.frame["item_id"].unique(maintain_order=True)
    events = written(tmp_path, log, Vocabulary.from_ids(ids[: len(ids) * 3 // 4]))
    middle = log.frame["timestamp"].median()
    assert events.mean_weight == log.frame["weight"].mean()
    assert log.num_users == events.num_users == 671
    for user in log.frame["user_id"].unique():
        own = log.filter_users([user])
        assert events.interactions(user).frame.equals(own.frame)
        assert events.interactions(user, middle).frame.equals(own.before(middle).frame)
        assert events.of(user).timestamp_us.size == len(own)


def test_late_arrivals_are_seen_when_they_arrive(tmp_path):
    log = log_of(
        ("u", "a", 1, "view", 1.0),
        ("u", "b", 2, "view", 1.0),
        ("u", "c", 3, "view", 1.0),
        ("v", "c", 3, "view", 1.0),
        created=[1, 8, 4, 3],
    )
    events = written(tmp_path, log)
    for hours in range(10):
        moment = START + timedelta(hours=hours)
        kept = log.filter_users(["u"]).before(moment)
        assert events.interactions("u", moment).frame.equals(kept.frame)
        seen = events.of("u", before=microseconds(moment)).item_index
        assert seen.tolist() == ITEMS.index(kept.frame["item_id"]).tolist()


def test_an_empty_log(tmp_path):
    events = written(tmp_path, Interactions(LOG.frame.clear()))
    assert (events.num_users, len(events), events.mean_weight) == (0, 0, 1.0)
    assert events.of("u2").item_index.size == 0
    assert events.interactions("u2").frame.equals(LOG.frame.clear())


def test_views_not_copies_and_nobody_can_change_them(tmp_path):
    events = written(tmp_path)
    past = events.of("u2", before=microseconds(START + timedelta(hours=8)))
    assert past.weight.base is not None
    assert not past.weight.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        past.item_index[0] = 1


def test_who_has_the_old_file_open_keeps_it(tmp_path):
    events = written(tmp_path)
    UserEvents.write(tmp_path / "events.bin", log_of(("n", "a", 1, "view", 1.0)), ITEMS)
    assert events.of("u2").item_index.size == 4
    assert UserEvents.open(tmp_path / "events.bin").of("n").item_index.tolist() == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["events.bin"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    written(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        UserEvents.write(tmp_path / "events.bin", LOG, ITEMS)
    assert [path.name for path in tmp_path.iterdir()] == ["events.bin"]
    assert UserEvents.open(tmp_path / "events.bin").num_users == 3


def test_no_byte_can_change_unseen(tmp_path):
    written(tmp_path)
    path = tmp_path / "events.bin"
    whole = path.read_bytes()
    # Between header and content there may be zeros that nobody reads.
    for place in [*range(0, len(whole), 7), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 0x40
        path.write_bytes(changed)
        try:
            found = UserEvents.open(path).interactions("u2").frame
        except ArtifactError:
            continue
        assert found.equals(LOG.filter_users(["u2"]).frame)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 200, -64, -1])
def test_a_file_cut_short(tmp_path, size):
    written(tmp_path)
    path = tmp_path / "events.bin"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"events.bin is damaged: it .*copy the bundle again"):
        UserEvents.open(path)


def test_what_is_no_such_file(tmp_path):
    with pytest.raises(ArtifactError, match="No such file or directory; make it with `recsys can"):
        UserEvents.open(tmp_path / "events.bin")
    written(tmp_path)
    path = tmp_path / "events.bin"
    whole = path.read_bytes()
    path.write_bytes(b"PK" + whole[2:])
    with pytest.raises(ArtifactError, match="does not begin as a file of user events does"):
        UserEvents.open(path)
    path.write_bytes(whole[:8] + b"\x02" + whole[9:])
    with pytest.raises(ArtifactError, match="has version 2, this version reads 1; run `recsys can"):
        UserEvents.open(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="its content has another checksum than recorded"):
        UserEvents.open(path)
    assert UserEvents.open(path, verify=False).num_users == 3


def test_more_kinds_than_a_file_can_name(tmp_path):
    number = 65_537
    frame = pl.DataFrame(
        {
            "user_id": ["u"] * number,
            "item_id": ["a"] * number,
            "timestamp": [START] * number,
            "event": [str(one) for one in range(number)],
        }
    )
    log = Interactions.from_frame(frame, now=START)
    with pytest.raises(ValueError, match="must have at most 65,536 kinds of events, got 65,537"):
        UserEvents.write(tmp_path / "events.bin", log, ITEMS)


def test_processes_share_the_pages(tmp_path):
    """Opening and reading a large file adds file pages to a process, no memory of its own."""
    rng = np.random.default_rng(0)
    number = 1_000_000
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(0, 20_000, number).astype(str),
            "item_id": "a",
            "timestamp": START,
            "event": "view",
            "weight": np.ones(number, dtype=np.float32),
        },
        schema_overrides={"timestamp": pl.Datetime("us")},
    )
    UserEvents.write(tmp_path / "events.bin", Interactions(frame), ITEMS)
    code = f"""
from pathlib import Path
from recsys.dataset.user_events import UserEvents
def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    values = {{line.split()[0]: int(line.split()[1]) for line in lines[1:]}}
    return values["Private_Dirty:"], values["Rss:"]
before = private()
events = UserEvents.open(Path({str(tmp_path / "events.bin")!r}))
total = sum(events.of(str(user)).weight.sum() for user in range(20_000))
after = private()
print(int(total), after[0] - before[0], after[1] - before[1])
"""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not say how memory is shared")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, own_kb, all_kb = map(int, done.stdout.split())
    assert total == number
    assert all_kb > 17_000  # the file is in memory ...
    assert own_kb < 3_000  # ... and belongs to nobody
