"""Which role a starting Redis takes, in every situation that it can find itself in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.redis.runnerhub_redis.decision import (
    FAILOVER_PATIENCE_SECONDS,
    MINORITY_PATIENCE_SECONDS,
    Decision,
    HandOver,
    PeerState,
    RedisAnswer,
    SentinelAnswer,
    Situation,
    StartMaster,
    StartReplica,
    Volume,
    Wait,
    decide,
    known_master,
    replaceable,
    sentinel_target,
)

ADDRESSES = {0: "10.0.0.10", 1: "10.0.0.11", 2: "10.0.0.12"}
SECOND_LIFE = Situation(
    ordinal=0, replicas=3, majority=2, addresses=ADDRESSES, volume=Volume.COMPLETE, bootstrapped=True
)
FIRST_START = replace(SECOND_LIFE, volume=Volume.BLANK, bootstrapped=False)


def naming(ordinal: int, *, epoch: int = 1, flags: str = "", live: bool = True) -> SentinelAnswer:
    return SentinelAnswer(ADDRESSES[ordinal], epoch, frozenset(filter(None, flags.split(","))), live=live)


def states(**volumes: Volume) -> tuple[PeerState, ...]:
    return tuple(PeerState(int(name[-1]), volume) for name, volume in volumes.items())


def role(decision: Decision) -> str:
    return type(decision).__name__


# The first start of a cluster


def test_pod_0_is_the_first_master() -> None:
    assert role(decide(FIRST_START)) == "StartMaster"


@pytest.mark.parametrize("ordinal", [1, 2])
def test_others_follow_pod_0_at_the_first_start(ordinal: int) -> None:
    assert decide(replace(FIRST_START, ordinal=ordinal)) == StartReplica(
        ADDRESSES[0], "first start: pod 0 is the first master"
    )


@pytest.mark.parametrize("situation", [FIRST_START, SECOND_LIFE])
@pytest.mark.parametrize("ordinal", [0, 1])
def test_decides_nothing_before_it_knows_all_addresses(situation: Situation, ordinal: int) -> None:
    """Seen on kind: before DNS had answered, the own Sentinel's memory looked like that of a foreign cluster."""
    addresses = {ordinal: ADDRESSES[ordinal]}
    sentinels = (naming(2, live=False),)
    early = replace(situation, ordinal=ordinal, addresses=addresses, sentinels=sentinels, waited_seconds=3600)
    assert role(decide(early)) == "Wait"
    assert role(decide(replace(early, sentinels=()))) == "Wait"
    assert sentinel_target(early) is None


def test_a_sentinel_that_remembers_another_master_rules_a_first_start_out() -> None:
    foreign = (SentinelAnswer("10.9.9.9", 3, live=False),)
    assert role(decide(replace(FIRST_START, sentinels=foreign))) == "Wait"
    assert role(decide(replace(FIRST_START, sentinels=foreign, ordinal=1))) == "Wait"
    assert sentinel_target(replace(FIRST_START, sentinels=foreign)) is None


def test_replicas_that_started_before_pod_0_do_not_hinder_it() -> None:
    peers = states(pod1=Volume.UNSYNCED, pod2=Volume.UNSYNCED)
    sentinels = (naming(0, epoch=0), naming(0, epoch=0))
    assert role(decide(replace(FIRST_START, peers=peers, sentinels=sentinels))) == "StartMaster"


def test_pod_0_that_lost_its_volume_before_the_operator_noted_the_master_waits() -> None:
    sentinels = (naming(0, epoch=0), naming(0, epoch=0))
    peers = states(pod1=Volume.COMPLETE, pod2=Volume.UNSYNCED)
    assert role(decide(replace(FIRST_START, peers=peers, sentinels=sentinels))) == "Wait"
    assert role(decide(replace(FIRST_START, peers=peers))) == "Wait"


# A later start, Sentinel answers


@pytest.mark.parametrize("volume", list(Volume))
def test_follows_the_master_that_sentinel_names(volume: Volume) -> None:
    situation = replace(SECOND_LIFE, volume=volume, sentinels=(naming(2), naming(2)))
    decision = decide(situation)
    assert isinstance(decision, StartReplica)
    assert decision.master == ADDRESSES[2]


def test_master_with_data_starts_again_when_a_majority_names_it() -> None:
    assert role(decide(replace(SECOND_LIFE, sentinels=(naming(0), naming(0))))) == "StartMaster"


@pytest.mark.parametrize("volume", [Volume.BLANK, Volume.UNSYNCED])
def test_master_without_data_stays_down_until_another_is_elected(volume: Volume) -> None:
    sentinels = (naming(0), naming(0), naming(0))
    situation = replace(SECOND_LIFE, volume=volume, sentinels=sentinels, waited_seconds=3600)
    assert role(decide(situation)) == "Wait"
    elected = replace(situation, sentinels=(naming(1, epoch=2), naming(1, epoch=2), naming(0)))
    assert decide(elected) == StartReplica(ADDRESSES[1], "Sentinel names it master, epoch 2")


HEIRS = (RedisAnswer(1, "slave", ADDRESSES[0], offset=900), RedisAnswer(2, "slave", ADDRESSES[0], offset=901))
NAMED = replace(SECOND_LIFE, sentinels=(naming(0), naming(0), naming(0)))


@pytest.mark.parametrize("volume", list(Volume))
def test_a_master_that_comes_back_hands_over_to_replicas_that_ran_on(volume: Volume) -> None:
    """Seen on kind under load: resumed, it lost writes that WAIT had confirmed, for its offsets began anew."""
    assert role(decide(replace(NAMED, volume=volume, redis=HEIRS))) == "HandOver"
    assert role(decide(replace(NAMED, volume=volume, redis=HEIRS[:1]))) == "HandOver"


def test_a_master_resumes_when_its_replicas_restarted_too() -> None:
    restarted = tuple(replace(answer, offset=1) for answer in HEIRS)
    assert role(decide(replace(NAMED, redis=restarted))) == "StartMaster"


def test_a_master_resumes_when_nobody_can_be_promoted() -> None:
    waited = replace(NAMED, redis=HEIRS, waited_seconds=FAILOVER_PATIENCE_SECONDS)
    assert role(decide(waited)) == "StartMaster"
    assert role(decide(replace(waited, volume=Volume.BLANK))) == "HandOver"


def test_does_not_disturb_a_failover_with_another_request() -> None:
    under_way = (naming(0, flags="failover_in_progress"), naming(0), naming(0))
    assert role(decide(replace(NAMED, redis=HEIRS, sentinels=under_way))) == "Wait"


def test_an_old_master_does_not_trust_a_minority_that_still_names_it() -> None:
    stale = replace(SECOND_LIFE, sentinels=(naming(0),), waited_seconds=3600)
    assert role(decide(stale)) == "Wait"


def test_the_higher_epoch_outweighs_the_number_of_answers() -> None:
    sentinels = (naming(0, epoch=3), naming(0, epoch=3), naming(1, epoch=4))
    decision = decide(replace(SECOND_LIFE, sentinels=sentinels))
    assert isinstance(decision, StartReplica)
    assert decision.master == ADDRESSES[1]


def test_a_majority_is_of_the_pods_that_are_there_while_more_have_yet_to_come() -> None:
    named = (naming(0), naming(0))
    more = ADDRESSES | {3: "10.0.0.13", 4: "10.0.0.14"}
    growing = replace(SECOND_LIFE, replicas=5, addresses=more, sentinels=named)
    assert role(decide(growing)) == "StartMaster"
    assert role(decide(replace(growing, majority=3))) == "Wait"


def test_waits_a_while_for_a_majority_before_it_follows_a_minority() -> None:
    situation = replace(SECOND_LIFE, sentinels=(naming(1),))
    assert role(decide(situation)) == "Wait"
    assert role(decide(replace(situation, waited_seconds=MINORITY_PATIENCE_SECONDS))) == "StartReplica"


def test_does_not_start_as_master_into_a_failover() -> None:
    sentinels = (naming(0, flags="s_down,o_down,failover_in_progress"), naming(0), naming(0))
    assert role(decide(replace(SECOND_LIFE, sentinels=sentinels, waited_seconds=3600))) == "Wait"


def test_starts_as_master_when_the_failover_finds_nobody() -> None:
    sentinels = (naming(0, flags="s_down,o_down"), naming(0), naming(0))
    situation = replace(SECOND_LIFE, sentinels=sentinels)
    assert role(decide(situation)) == "Wait"
    assert role(decide(replace(situation, waited_seconds=FAILOVER_PATIENCE_SECONDS))) == "StartMaster"


def test_answers_that_name_an_unknown_address_do_not_count() -> None:
    foreign = SentinelAnswer("10.9.9.9", 99)
    assert role(decide(replace(SECOND_LIFE, sentinels=(foreign, naming(0), naming(0))))) == "StartMaster"
    assert role(decide(replace(SECOND_LIFE, sentinels=(foreign,)))) == "Wait"


# A later start, no Sentinel answers


def test_the_own_state_file_names_another_master() -> None:
    situation = replace(SECOND_LIFE, sentinels=(naming(1, live=False),))
    assert role(decide(situation)) == "Wait"
    decision = decide(replace(situation, waited_seconds=MINORITY_PATIENCE_SECONDS))
    assert isinstance(decision, StartReplica)


def test_the_own_state_file_alone_makes_no_master() -> None:
    situation = replace(SECOND_LIFE, sentinels=(naming(0, live=False),), waited_seconds=3600)
    assert role(decide(situation)) == "Wait"


def test_follows_a_running_master_when_no_sentinel_knows_one() -> None:
    running = (
        RedisAnswer(1, "master", connected_replicas=1),
        RedisAnswer(2, "slave", ADDRESSES[1], offset=5),
    )
    decision = decide(replace(SECOND_LIFE, redis=running))
    assert isinstance(decision, StartReplica)
    assert decision.master == ADDRESSES[1]


def test_of_two_running_masters_the_one_with_replicas_counts() -> None:
    running = (RedisAnswer(1, "master", offset=900), RedisAnswer(2, "master", offset=5, connected_replicas=1))
    decision = decide(replace(SECOND_LIFE, redis=running))
    assert isinstance(decision, StartReplica)
    assert decision.master == ADDRESSES[2]


def test_running_replicas_tell_the_master_that_they_followed() -> None:
    running = (
        RedisAnswer(1, "slave", ADDRESSES[0], offset=7),
        RedisAnswer(2, "slave", ADDRESSES[0], offset=7),
    )
    assert role(decide(replace(SECOND_LIFE, redis=running))) == "Wait"
    assert sentinel_target(replace(SECOND_LIFE, redis=running)) == ADDRESSES[0]
    assert role(decide(replace(SECOND_LIFE, ordinal=1, redis=running[1:]))) == "StartReplica"


def test_replicas_that_never_synchronised_tell_nothing() -> None:
    running = (RedisAnswer(1, "slave", ADDRESSES[0], offset=1),)
    assert role(decide(replace(SECOND_LIFE, redis=running))) == "Wait"


@pytest.mark.parametrize("ordinal", [0, 1, 2])
@pytest.mark.parametrize("volume", list(Volume))
def test_nobody_knows_the_master_so_everybody_waits(ordinal: int, volume: Volume) -> None:
    peers = tuple(PeerState(other, Volume.COMPLETE) for other in range(3) if other != ordinal)
    situation = replace(SECOND_LIFE, ordinal=ordinal, volume=volume, peers=peers, waited_seconds=3600)
    assert role(decide(situation)) == "Wait"


def test_starts_anew_only_when_every_volume_is_known_to_be_empty() -> None:
    lost = replace(SECOND_LIFE, volume=Volume.BLANK, peers=states(pod1=Volume.BLANK, pod2=Volume.BLANK))
    assert role(decide(lost)) == "StartMaster"
    assert (
        role(decide(replace(lost, ordinal=1, peers=states(pod0=Volume.BLANK, pod2=Volume.BLANK)))) == "Wait"
    )
    assert role(decide(replace(lost, peers=states(pod1=Volume.BLANK)))) == "Wait"
    assert role(decide(replace(lost, peers=states(pod1=Volume.BLANK, pod2=Volume.UNSYNCED)))) == "Wait"


# What holds in every situation

volumes = st.sampled_from(list(Volume))
sentinel_answers = st.lists(
    st.builds(
        SentinelAnswer,
        master=st.sampled_from([*ADDRESSES.values(), "10.9.9.9"]),
        config_epoch=st.integers(0, 3),
        flags=st.frozensets(st.sampled_from(["s_down", "o_down", "failover_in_progress"])),
        live=st.booleans(),
    ),
    max_size=3,
)
redis_answers = st.lists(
    st.builds(
        RedisAnswer,
        ordinal=st.integers(1, 2),
        role=st.sampled_from(["master", "slave"]),
        master=st.sampled_from([None, *ADDRESSES.values()]),
        offset=st.integers(0, 3),
        connected_replicas=st.integers(0, 2),
    ),
    max_size=2,
)
peer_states = st.lists(st.builds(PeerState, ordinal=st.integers(1, 2), volume=volumes), max_size=2)
situations = st.builds(
    Situation,
    ordinal=st.just(0),
    replicas=st.just(3),
    majority=st.just(2),
    addresses=st.just(ADDRESSES),
    volume=volumes,
    bootstrapped=st.booleans(),
    sentinels=sentinel_answers,
    redis=redis_answers,
    peers=peer_states,
    waited_seconds=st.floats(0, 100),
)


@settings(max_examples=200)
@given(situations)
def test_no_empty_master_beside_data(situation: Situation) -> None:
    if isinstance(decide(situation), StartMaster) and situation.volume is not Volume.COMPLETE:
        assert all(peer.volume is not Volume.COMPLETE for peer in situation.peers)
        everyone_blank = {peer.ordinal for peer in situation.peers if peer.volume is Volume.BLANK} == {1, 2}
        # What is whole of damaged data is more than nothing, when all others have told that they have less.
        best = situation.volume is Volume.DAMAGED and {peer.ordinal for peer in situation.peers} >= {1, 2}
        remembered = any(answer.master != situation.own_address for answer in situation.sentinels)
        assert everyone_blank or best or not (situation.bootstrapped or remembered)


@given(situations)
def test_no_master_against_the_word_of_sentinel(situation: Situation) -> None:
    known = known_master(situation.sentinels, frozenset(ADDRESSES.values()))
    if isinstance(decide(situation), StartMaster) and known is not None:
        assert known.address == situation.own_address


@given(situations)
def test_no_master_beside_its_running_heirs(situation: Situation) -> None:
    known = known_master(situation.sentinels, frozenset(ADDRESSES.values()))
    if situation.heirs and known and situation.bootstrapped:
        patient = situation.waited_seconds < FAILOVER_PATIENCE_SECONDS
        everyone_blank = {peer.ordinal for peer in situation.peers if peer.volume is Volume.BLANK} == {1, 2}
        if patient and not everyone_blank:
            assert not isinstance(decide(situation), StartMaster)


@given(situations)
def test_nobody_is_its_own_replica(situation: Situation) -> None:
    decision = decide(situation)
    if isinstance(decision, StartReplica):
        assert decision.master in set(ADDRESSES.values()) - {situation.own_address}


@given(situations)
def test_every_decision_says_why(situation: Situation) -> None:
    decision = decide(situation)
    assert isinstance(decision, StartMaster | StartReplica | HandOver | Wait)
    assert decision.reason


# What a Sentinel without memory watches


def test_a_new_sentinel_watches_pod_0_at_the_first_start() -> None:
    assert sentinel_target(FIRST_START) == ADDRESSES[0]


def test_a_new_sentinel_believes_the_others() -> None:
    assert sentinel_target(replace(SECOND_LIFE, sentinels=(naming(1), naming(2, epoch=7)))) == ADDRESSES[2]


def test_a_new_sentinel_believes_the_running_master() -> None:
    assert sentinel_target(replace(SECOND_LIFE, redis=(RedisAnswer(1, "master"),))) == ADDRESSES[1]


def test_a_new_sentinel_waits_rather_than_guess() -> None:
    assert sentinel_target(SECOND_LIFE) is None
    assert sentinel_target(replace(FIRST_START, peers=states(pod1=Volume.COMPLETE))) is None


# What was whole of a damaged volume


def test_a_damaged_volume_follows_a_master() -> None:
    situation = replace(SECOND_LIFE, volume=Volume.DAMAGED, sentinels=(naming(2), naming(2)))
    assert role(decide(situation)) == "StartReplica"


@pytest.mark.parametrize(
    ("peers", "decided"),
    [
        ({"pod1": Volume.COMPLETE, "pod2": Volume.BLANK}, "Wait"),
        ({"pod1": Volume.BLANK}, "Wait"),
        ({"pod1": Volume.BLANK, "pod2": Volume.UNSYNCED}, "StartMaster"),
        ({"pod1": Volume.DAMAGED, "pod2": Volume.DAMAGED}, "StartMaster"),
    ],
)
def test_a_damaged_volume_is_the_last_resort(peers: dict[str, Volume], decided: str) -> None:
    sentinels = (naming(0), naming(0))
    situation = replace(
        SECOND_LIFE, ordinal=0, volume=Volume.DAMAGED, sentinels=sentinels, peers=states(**peers),
        waited_seconds=60,
    )  # fmt: skip
    assert role(decide(situation)) == decided


def test_nobody_starts_empty_beside_a_damaged_volume() -> None:
    peers = states(pod1=Volume.DAMAGED, pod2=Volume.BLANK)
    assert role(decide(replace(FIRST_START, peers=peers))) == "Wait"


# A master that hangs

HEIR = RedisAnswer(1, "slave", ADDRESSES[0], promotable=True)
OTHER = RedisAnswer(2, "master")


@pytest.mark.parametrize(
    ("sentinels", "redis", "may"),
    [
        ([naming(0), naming(0)], [HEIR], True),
        ([naming(0), naming(0), naming(0, flags="master,s_down")], [HEIR], True),
        ([naming(0), naming(0)], [], False),
        ([naming(0), naming(0)], [replace(HEIR, promotable=False)], False),
        ([naming(0), naming(0)], [replace(HEIR, master=ADDRESSES[2])], False),
        ([naming(0)], [HEIR], False),
        ([naming(0), replace(naming(0), tilt=True)], [HEIR], False),
        ([naming(2, epoch=2), naming(2, epoch=2)], [OTHER], True),
        # It was promoted itself a moment ago, and they have not seen it yet.
        ([naming(2, epoch=2), naming(2, epoch=2)], [HEIR], False),
        ([naming(2, epoch=2), naming(0)], [OTHER, HEIR], False),
    ],
)
def test_a_master_that_hangs_is_ended_only_when_another_can_take_its_place(
    sentinels: list[SentinelAnswer], redis: list[RedisAnswer], may: bool
) -> None:
    assert bool(replaceable(0, 2, ADDRESSES, sentinels, redis)) is may
