"""Items prepared in a thread while the caller works on the one before; needs no lmms-eval."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aot_llava_lmms_eval.running_ahead import running_ahead


def others():
    return {thread for thread in threading.enumerate() if thread.name.startswith("running-ahead")}


@given(st.lists(st.integers()), st.integers(0, 4))
def test_results_come_in_order(items, ahead):
    assert list(running_ahead(lambda item: (item, -item), items, ahead)) == [(item, -item) for item in items]
    assert not others()


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_next_items_are_prepared_while_the_caller_works_but_no_more_than_asked_for(ahead):
    prepared = [threading.Event() for _ in range(8)]
    results = running_ahead(lambda item: prepared[item].set(), range(8), ahead)
    next(results)
    # No sleep: it is waited for what has to come, and what must not come could not be there without it.
    assert all(event.wait(10) for event in prepared[: ahead + 1])
    assert not any(event.is_set() for event in prepared[ahead + 1 :])
    results.close()
    assert not others()
    assert not any(event.is_set() for event in prepared[ahead + 1 :])


@pytest.mark.parametrize("ahead", [0, 1, 2, 5])
@pytest.mark.parametrize("error", [OSError("gone"), SystemExit("the video is missing")])
def test_error_comes_at_its_own_item_and_nothing_is_left(ahead, error):
    def prepare(item):
        if item == 3:
            raise error
        return item

    got = []
    with pytest.raises(type(error), match=str(error)):
        got.extend(running_ahead(prepare, range(100), ahead))
    assert got == [0, 1, 2]
    assert not others()


def test_without_running_ahead_there_is_no_thread():
    threads = {threading.get_ident()}
    results = running_ahead(lambda _: threads.add(threading.get_ident()), range(3), 0)
    assert len(list(results)) == 3
    assert threads == {threading.get_ident()}


def test_one_thread_prepares_all():
    threads = set(running_ahead(lambda _: threading.get_ident(), range(9), 2))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_caller_that_gives_up_is_not_kept_waiting_for_items_that_have_not_begun():
    begun = []
    results = running_ahead(begun.append, iter(range(5)), 2)
    next(results)
    results.close()
    assert begun in ([0], [0, 1], [0, 1, 2])
    assert not others()
