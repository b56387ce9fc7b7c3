"""The words of the operator's Events, and what they mean, in one place.

An Event that comes from a condition has the condition's reason instead; `meanings` explains those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .status import FULL_PERCENT, NEARLY_FULL_PERCENT

# The words are part of the API: none is renamed or given a new sense.
EventReason = Literal[
    "Creating",
    "Ready",
    "NotReady",
    "Degraded",
    "Recovered",
    "PrimaryChanged",
    "MasterChanged",
    "LeaderChanged",
    "SwitchoverWaits",
    "SwitchoverPostponed",
    "SwitchoverRefused",
    "ChangeDelayed",
    "MemberReinitialized",
    "MemberRecovered",
    "VolumeGrows",
    "StatefulSetReplaced",
    "VolumeNearlyFull",
    "VolumeFull",
    "MemoryNearlyFull",
    "FormerMasterSaved",
    "FormerMasterNotSaved",
    "AppendOnlyFileDamaged",
    "PasswordsChanged",
    "RotationRefused",
    "PasswordNotUsed",
    "PasswordUnsuitable",
    "RunnersStarted",
    "RunnersStopped",
    "RunnerSilent",
]


@dataclass(frozen=True, slots=True)
class EventMeaning:
    """`type`: as Kubernetes has it. `look`: what a person should look at. `remedy`: what to do."""

    type: Literal["Normal", "Warning"]
    text: str
    look: str
    remedy: str


EVENTS: Final[Mapping[EventReason, EventMeaning]] = {
    "Creating": EventMeaning(
        "Normal",
        "The operator has seen the cluster for the first time and begins to make it.",
        "`kubectl runnerhub status --watch`.",
        "Wait.",
    ),
    "Ready": EventMeaning(
        "Normal",
        "The condition Ready has become True: every component serves.",
        "Nothing.",
        "Nothing.",
    ),
    "NotReady": EventMeaning(
        "Warning",
        "The condition Ready, which was True, is so no longer: a component does not serve.",
        "The message, and the conditions of the components that it names.",
        "What the reason of that condition says.",
    ),
    "Degraded": EventMeaning(
        "Warning",
        "The condition Degraded has become True: it serves with less redundancy than the spec asks for.",
        "The message; `kubectl runnerhub doctor`.",
        "Bring back the pod or node that is missing, or correct the setting. A crashed pod comes back by itself.",
    ),
    "Recovered": EventMeaning(
        "Normal",
        "The condition Degraded is no longer True: nothing is missing.",
        "Nothing.",
        "Nothing.",
    ),
    "PrimaryChanged": EventMeaning(
        "Normal",
        "Another member is the Postgres primary. The message tells the one before, how long it took, and the cause.",
        "`kubectl runnerhub failovers`; when nobody asked for it, the node and the log of the one before.",
        "Nothing; find out the cause when it happens again and again.",
    ),
    "MasterChanged": EventMeaning(
        "Normal",
        "Another pod is the Redis master. The message tells the one before, how long it took, and the cause.",
        "`kubectl runnerhub failovers`; when nobody asked for it, the node and the log of the one before.",
        "Nothing; find out the cause when it happens again and again.",
    ),
    "LeaderChanged": EventMeaning(
        "Normal",
        "Another orchestrator leads. The message tells the one before, how long it took, and the cause.",
        "`kubectl runnerhub failovers`; the log of the ha-agent of the one before.",
        "Nothing; find out the cause when it happens again and again.",
    ),
    "SwitchoverWaits": EventMeaning(
        "Warning",
        "The member that the annotation `runnerhub.io/switch-primary-to` names cannot become primary now.",
        "The message; `status.postgres.switchover`.",
        "Wait: the operator follows the request as soon as it can, for ten minutes. Without the annotation it is given "
        "up.",
    ),
    "SwitchoverPostponed": EventMeaning(
        "Warning",
        "Clients could not be held back for a switchover, or for a restart of a primary that nobody can take over "
        "from, mostly because a transaction did not end within 1.5 to 2.5 seconds, so nothing was done.",
        "The message; `kubectl runnerhub psql -- -c 'select pid, state, xact_start, query from pg_stat_activity order "
        "by xact_start'`.",
        "Nothing: it is tried again every 15 seconds, and after three tries it is done all the same. End the long "
        "transaction if it must not be cut off.",
    ),
    "SwitchoverRefused": EventMeaning(
        "Warning",
        "A request to switch over was given up: there is no such member, or it could not take over for ten minutes.",
        "The message; `kubectl runnerhub status` for the lag and state of the member.",
        "Take the annotation away, mend what the message names, and ask again.",
    ),
    "ChangeDelayed": EventMeaning(
        "Warning",
        "Patroni, a pooler or another server did not answer, or refused, so a step of a change did not take place; or "
        "a member of the database that the step rests on does not stream, or is too far behind to take over.",
        "The message names who did not answer; the log of that pod.",
        "Nothing: it is tried again. When it goes on, mend that pod or the network to it.",
    ),
    "MemberReinitialized": EventMeaning(
        "Warning",
        "A broken replica of the database throws its data away and copies the primary's.",
        "The message tells what was wrong; `kubectl runnerhub logs postgres`.",
        "Nothing, if it was once. Again and again: look for a broken disk or network.",
    ),
    "MemberRecovered": EventMeaning(
        "Normal",
        "A member that was made anew streams from the primary again.",
        "Nothing.",
        "Nothing.",
    ),
    "VolumeGrows": EventMeaning(
        "Normal",
        "A PersistentVolumeClaim has been asked to be larger.",
        "`kubectl describe pvc data-POD`, when it stands still.",
        "Wait.",
    ),
    "StatefulSetReplaced": EventMeaning(
        "Normal",
        "A StatefulSet is deleted without its pods and made anew, because the size of its volumes has changed.",
        "Nothing.",
        "Nothing: the pods go on running.",
    ),
    "VolumeNearlyFull": EventMeaning(
        "Warning",
        f"A volume is {NEARLY_FULL_PERCENT} % full or more.",
        "`kubectl runnerhub status` for how full each member's is; what takes the room: tables, or log that a replica "
        "which is away holds back.",
        "Raise the field that the message names, or remove data.",
    ),
    "VolumeFull": EventMeaning(
        "Warning",
        f"A volume is {FULL_PERCENT} % full or more. No rolling change renews or restarts a member any more, and none "
        "with such a volume is switched to.",
        "As with VolumeNearlyFull.",
        "Raise the field that the message names now; what waited goes on by itself.",
    ),
    "MemoryNearlyFull": EventMeaning(
        "Warning",
        f"The Redis master has used {NEARLY_FULL_PERCENT} % or more of the memory at which it refuses new jobs.",
        "`kubectl runnerhub status` for the jobs that wait; `kubectl runnerhub redis-cli -- info memory`.",
        "Raise `spec.redis.resources.limits.memory`, where that is not set `spec.redis.storage.size`, or let jobs be "
        "worked off.",
    ),
    "FormerMasterSaved": EventMeaning(
        "Warning",
        "A Redis master that was replaced while it was frozen or cut off had something that the new one has not; it is "
        "kept as a file on its volume.",
        "The file that the message names; `status.redis.instances[].snapshots`.",
        "See whether something in it is still wanted. Jobs of the orchestrators are rows in the database and were put "
        "back into the queue.",
    ),
    "FormerMasterNotSaved": EventMeaning(
        "Warning",
        "A Redis master that was replaced had something that the new one has not, and it could not be saved within two "
        "minutes, mostly for want of room on its volume. It is gone.",
        "`kubectl runnerhub logs redis` for the reason; `status.redis.instances[].volumeUsedPercent`.",
        "Raise `spec.redis.storage.size`. Jobs of the orchestrators are rows in the database and were put back into "
        "the queue.",
    ),
    "AppendOnlyFileDamaged": EventMeaning(
        "Warning",
        "A Redis pod could not read its append-only file, as after a failure of its disk. It copies the master's data; "
        "only when no other pod has data does it go on from what was whole.",
        "The directory that the message names has the files as they were; `kubectl runnerhub logs redis` tells where "
        "the damage begins.",
        "Look after the disk. Nothing else is to be done unless the pod became master with what was left.",
    ),
    "PasswordsChanged": EventMeaning(
        "Normal",
        "A Secret with passwords has new values, which come into effect while everything goes on.",
        "The message names the keys. Nobody expected it: who wrote the Secret.",
        "Clients of your own must follow within the time that the page on passwords tells.",
    ),
    "RotationRefused": EventMeaning(
        "Warning",
        "The annotation `runnerhub.io/rotate` asked for a key that the Secret has not.",
        "The message has the keys that there are.",
        "Annotate again with one of them, several with commas, or `all`.",
    ),
    "PasswordNotUsed": EventMeaning(
        "Warning",
        "A new password is empty or cannot be printed. The one before stays in effect, and pods that start may fail.",
        "The key that the message names.",
        "Write another value, or have one made by the annotation `runnerhub.io/rotate`, soon.",
    ),
    "PasswordUnsuitable": EventMeaning(
        "Warning",
        "A new `app-password` has characters that an address cannot have as they are, so images that take it from "
        "`DATABASE_URL` cannot log in.",
        "OrchestratorsReady.",
        "Write a value of letters, digits and `. _ ~ -`.",
    ),
    "RunnersStarted": EventMeaning(
        "Normal",
        "Runners of a pool were started, because jobs wait or some are to be replaced.",
        "`kubectl runnerhub status`.",
        "Nothing.",
    ),
    "RunnersStopped": EventMeaning(
        "Normal",
        "Runners of a pool were stopped; the message tells why. One that was ready had said that it has no job.",
        "`kubectl runnerhub status`.",
        "Nothing.",
    ),
    "RunnerSilent": EventMeaning(
        "Warning",
        "A runner that is not needed could not be asked whether it has a job, so it stays; others are stopped instead.",
        "The message, the runner's log, and whether the operator reaches port 9810 of the runners.",
        "Let the operator reach that port in your NetworkPolicies; an image of your own must answer `POST /drain`. The "
        "runner is asked again every minute.",
    ),
}
