"""Whose data goes on with whose: what a server has that another has not, by INFO replication of both. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

# Sentinel promotes none of these at that moment; a moment later it may.
_PASSED_OVER = {"s_down", "o_down", "disconnected"}


def has_diverged(own: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Whether the own data may have something that theirs has not.

    A promoted replica remembers whose history it goes on with, and up to which offset (`second_repl_offset`, the first
    that is its own). Who cannot be asked may lack anything.
    """
    history = own["master_replid"]
    if not theirs or history not in (theirs["master_replid"], theirs["master_replid2"]):
        return True
    if history == theirs["master_replid"]:
        return int(own["master_repl_offset"]) > int(theirs["master_repl_offset"])
    return int(own["master_repl_offset"]) + 1 > int(theirs["second_repl_offset"])


def furthest(told: Mapping[int, Mapping[str, str]], at: Mapping[int, float]) -> int:
    """Who has all that the others have, by what each tells of itself; `at`: when it was as it tells, in seconds.

    There may be nobody, as when a master has begun a new history and not all have copied it: then who told last, of
    those whose data nobody else has.
    """

    def is_behind(one: int) -> bool:
        others = [info for ordinal, info in told.items() if ordinal != one]
        return any(not has_diverged(told[one], info) and has_diverged(info, told[one]) for info in others)

    ahead = [ordinal for ordinal in told if not is_behind(ordinal)]
    return max(ahead or told, key=lambda ordinal: (at[ordinal], -ordinal))


def promotes_one_of(whole: Collection[str], offset: int, replicas: Sequence[Mapping[str, str]]) -> bool:
    """Whether a Sentinel to which the replicas look like this (SENTINEL REPLICAS) promotes one that is `whole`.

    Those, told by address, have everything up to `offset`, and the others less. Sentinel takes the highest offset of
    the lowest priority, by what each replica told it, which is a second old or more. One that it has seen at `offset`
    is not outdone by what it learns of the others before it decides.
    """
    promotable = [replica for replica in replicas if replica["slave-priority"] != "0"]
    if all(replica["ip"] in whole for replica in promotable):
        return bool(promotable)
    first = min(int(replica["slave-priority"]) for replica in promotable)
    return any(
        int(replica["slave-priority"]) == first
        and int(replica["slave-repl-offset"]) >= offset
        and not _PASSED_OVER & set(replica["flags"].split(","))
        for replica in promotable
    )
