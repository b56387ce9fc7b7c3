from runnerhub_orchestrator.redis_link import SentinelView, choose_master

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


def view(name, master, epoch, *, healthy=True):
    return SentinelView(sentinel=name, master=master, epoch=epoch, healthy=healthy)


def test_the_newest_epoch_wins_over_more_but_older_views():
    assert choose_master([view("a", OLD, 1), view("b", OLD, 1), view("c", NEW, 2)]) == NEW


def test_a_master_seen_down_is_no_master():
    assert choose_master([view("a", OLD, 2, healthy=False), view("b", NEW, 1)]) == NEW
    assert choose_master([view("a", OLD, 2, healthy=False)]) is None


def test_silent_sentinels_have_no_say():
    silent = SentinelView(sentinel="c", error="TimeoutError: ")
    assert choose_master([silent, view("a", NEW, 3)]) == NEW
    assert choose_master([silent]) is None
    assert choose_master([]) is None
