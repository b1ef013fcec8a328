"""The judge is judged first: fabricated faults must be found, and found as what they are."""
import pytest

from bed.checker import Message, Truth, check, record


def make(keys=3, per_key=10, topic="t"):
    truth = Truth()
    row_id = 0
    for n in range(per_key):
        for k in range(keys):
            row_id += 1
            truth.committed([(row_id, record(topic, "k%d" % k, "value %d of %d" % (n, k), [("n", str(n))]))])
    return truth


def arrived(truth):
    """All that was written, in order, each key in its own partition."""
    messages = []
    for partition, rows in enumerate(truth.lanes.values()):
        for offset, (_, r) in enumerate(rows):
            messages.append(Message(r.topic, partition, offset, r.key, r.value, r.headers))
    return messages


def only(report, **expected):
    names = ("lost", "invented", "corrupted", "overtaken")
    assert {n: len(getattr(report, n)) for n in names} == {n: expected.get(n, 0) for n in names}
    assert report.duplicates == expected.get("duplicates", 0)
    assert report.skips == expected.get("skips", 0)


def test_all_well():
    truth = make()
    report = check(truth, arrived(truth))
    only(report)
    report.assert_ok(duplicates=0)
    assert report.written == report.received == 30


def test_nothing_received_is_all_lost():
    only(check(make(), []), lost=30)


def test_loss_in_the_middle_is_a_loss_and_overtaking():
    truth = make()
    messages = arrived(truth)
    del messages[4]
    report = check(truth, messages)
    only(report, lost=1, overtaken=5)
    with pytest.raises(AssertionError):
        report.assert_ok()


def test_loss_at_the_end():
    truth = make()
    messages = arrived(truth)
    del messages[9]
    only(check(truth, messages), lost=1)


def test_swap():
    truth = make()
    messages = arrived(truth)
    messages[3], messages[4] = messages[4], messages[3]
    only(check(truth, messages), overtaken=1)


def test_skip_ahead_that_heals_later():
    """0 1 2 5 6 3 4 5 6 ...: 5 and 6 went first."""
    truth = make(keys=1)
    m = arrived(truth)
    only(check(truth, m[0:3] + m[5:7] + m[3:10]), overtaken=2, duplicates=2)


def test_replayed_suffix_is_no_fault():
    """0 1 2 3 4 | 2 3 4 5 ..."""
    truth = make(keys=1)
    m = arrived(truth)
    report = check(truth, m[0:5] + m[2:10])
    only(report, duplicates=3)
    report.assert_ok()
    with pytest.raises(AssertionError):
        report.assert_ok(duplicates=0)


def test_replay_that_leaves_something_out_is_counted():
    """0 1 2 3 4 | 1 3 4 5 ..."""
    truth = make(keys=1)
    m = arrived(truth)
    only(check(truth, m[0:5] + [m[1]] + m[3:10]), duplicates=3, skips=1)


def test_replay_that_goes_on_behind_what_was_never_seen():
    """0 1 2 | 1 2 4 ...: 3 was left out by the replay."""
    truth = make(keys=1)
    m = arrived(truth)
    only(check(truth, m[0:3] + m[1:3] + m[4:10]), duplicates=2, lost=1, overtaken=6, skips=1)


@pytest.mark.parametrize("change", [
    dict(value=b"value 4 of 0 "),
    dict(value=b"valuf 4 of 0"),
    dict(value=None),
    dict(value=b""),
    dict(headers=()),
    dict(headers=(("n", b"5"),)),
    dict(headers=(("n", b"4"), ("n", b"4"))),
    dict(headers=(("m", b"4"),)),
])
def test_corruption(change):
    truth = make()
    messages = arrived(truth)
    messages[4] = messages[4]._replace(**change)
    report = check(truth, messages)
    assert len(report.corrupted) + len(report.invented) == 1
    assert len(report.lost) == 1


def test_wrong_key_and_wrong_topic():
    truth = make()
    for change in (dict(key=b"k1"), dict(topic="u")):
        messages = arrived(truth)
        messages[9] = messages[9]._replace(**change)
        report = check(truth, messages)
        assert len(report.lost) == 1 and len(report.invented) + len(report.corrupted) == 1


def test_header_order_matters():
    truth = Truth()
    truth.committed([(1, record("t", "k", "v", [("a", "1"), ("b", "2")]))])
    only(check(truth, [Message("t", 0, 0, b"k", b"v", (("b", b"2"), ("a", b"1")))]), lost=1, corrupted=1)


def test_null_and_empty_differ():
    for written, read in ((None, b""), (b"", None)):
        truth = Truth()
        truth.committed([(1, record("t", "k", written))])
        only(check(truth, [Message("t", 0, 0, b"k", read, ())]), lost=1, invented=1)


def test_rolled_back_must_not_arrive():
    truth = make()
    ghost = record("t", "k0", "never committed")
    truth.not_committed([ghost])
    report = check(truth, arrived(truth) + [Message("t", 0, 99, b"k0", b"never committed", ())])
    only(report, invented=1)
    assert "rolled back" in report.invented[0]


def test_invented():
    truth = make()
    only(check(truth, arrived(truth) + [Message("t", 0, 99, b"k0", b"who wrote this?", ())]), invented=1)


def test_equal_records_are_a_fault_of_the_test():
    truth = Truth()
    truth.committed([(1, record("t", "k", None))])
    with pytest.raises(AssertionError):
        truth.committed([(2, record("t", "k", None))])


def test_writes_that_were_not_serialised_are_a_fault_of_the_test():
    truth = Truth()
    truth.committed([(2, record("t", "k", "2")), (1, record("t", "k", "1"))])
    with pytest.raises(AssertionError):
        check(truth, [])
