"""Every key in Redis, with what lies under it and how long it lives.

All keys start with the namespace. Keys of one cast share the hash tag {cast_id}, keys of one window spec the hash
tag {spec}, keys of one model name the hash tag {model}, so a script touches one slot only and the same layout runs
on Redis Cluster.

meta                          hash         layout, sensors, units, period, grid, blocks  for good
casts                         sorted set   cast ids by log time of their first record    until its stub goes
stored                        sorted set   casts with rows, by the same log time         until evicted
evicting                      sorted set   "cast source" on its way out, by the same     until it is a stub
stubs                         sorted set   "cast source" without rows, by the same       retention.stubs_s
labels:pending                sorted set   casts with labels only, by log time of label  until seen or given up
clock                         hash         <topic>/<partition> -> log time               for good
totals                        set          partitions that have totals                   for good
totals:<topic>/<partition>    hash         counts of casts that are gone, markers        for good
cast:{id}                     hash         timeline, labels, counts, `applied`           until its stub goes
cast:{id}:rows:<block>        string       float32 rows of one block, NaN = no value     with its cast
open:<topic>/<partition>      set          casts with open steps or pending index        until done
position:<topic>/<partition>  hash         next offset, log clock, counts of records     for good
probe                         string       written after an outage, to see whether it is over   for good
stopped:<topic>/<partition>   string       where and why the breaker stopped it           until it goes on
replayed:<topic>/<partition>  hash         offset -> dead letter sent again, or claimed   with its dead letter
spec:<name>                   string       a window spec as JSON                         for good
specs                         set          names of the specs that members keep to       for good
windows:{spec}                sorted set   addresses of sealed windows by end time       with its cast
windows:{spec}:defective      sorted set   windows by arrival number of their label      until decided otherwise
windows:{spec}:good           sorted set   the same                                      until decided otherwise
windows:{spec}:withdrawn      sorted set   windows by arrival number of the withdrawal   until decided again
windows:{spec}:arrivals       counter      the last arrival number                       for good
windows:{spec}:shown          hash         cast id -> revision that the index shows      with its cast
dataset:<id>                  string       a frozen manifest                             until its owner lets go
{held}                        sorted set   holders by number of their hold               until released
{held}:number                 counter      the last hold                                 for good
{held}:by:<holder>            set          casts that a holder needs                     until released
trainer:{model}:lease         hash         owner, token and holder of the lease          until it expires
trainer:{model}:last          hash         the same of the last taking                   for good
trainer:{model}:version       hash         highest version claimed, registry_id          for good
trainer:{model}:requests      sorted set   requests for a cycle by time of asking, us    until answered or expired
trainer:{model}:asked         sorted set   the same by when they expire, epoch ms        until answered or expired
trainer:{model}:answer:<id>   string       what became of a request                      minutes

"For good": as long as the namespace.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamer.records import Partition


def partition_of(name: str) -> Partition:
    """The partition that `<topic>/<number>` names, alone or at the end of a key."""
    topic, _, number = name.rpartition(":")[-1].rpartition("/")
    return Partition(topic, int(number))


@dataclass(frozen=True, slots=True)
class Keys:
    """Builds the keys of one namespace."""

    namespace: str

    @property
    def meta(self) -> str:
        return f"{self.namespace}:meta"

    @property
    def casts(self) -> str:
        return f"{self.namespace}:casts"

    @property
    def stored(self) -> str:
        return f"{self.namespace}:stored"

    @property
    def evicting(self) -> str:
        return f"{self.namespace}:evicting"

    @property
    def stubs(self) -> str:
        return f"{self.namespace}:stubs"

    @property
    def pending_labels(self) -> str:
        return f"{self.namespace}:labels:pending"

    @property
    def clock(self) -> str:
        return f"{self.namespace}:clock"

    @property
    def totals_partitions(self) -> str:
        return f"{self.namespace}:totals"

    def totals(self, partition: Partition) -> str:
        return f"{self.namespace}:totals:{partition}"

    def cast(self, cast_id: str) -> str:
        return f"{self.namespace}:cast:{{{cast_id}}}"

    def rows(self, cast_id: str, block: int) -> str:
        return f"{self.cast(cast_id)}:rows:{block}"

    def open(self, partition: Partition) -> str:
        return f"{self.namespace}:open:{partition}"

    def position(self, partition: Partition) -> str:
        return f"{self.namespace}:position:{partition}"

    @property
    def positions(self) -> str:
        """Pattern of all position keys, for SCAN."""
        return f"{self.namespace}:position:*"

    @property
    def probe(self) -> str:
        return f"{self.namespace}:probe"

    def stopped(self, partition: Partition) -> str:
        return f"{self.namespace}:stopped:{partition}"

    @property
    def all_stopped(self) -> str:
        """Pattern of all keys of stopped partitions, for SCAN."""
        return f"{self.namespace}:stopped:*"

    def replayed(self, partition: Partition) -> str:
        return f"{self.namespace}:replayed:{partition}"

    @property
    def all_replayed(self) -> str:
        """Pattern of all keys of replays, for SCAN."""
        return f"{self.namespace}:replayed:*"

    def windows(self, spec: str) -> str:
        return f"{self.namespace}:windows:{{{spec}}}"

    def defective(self, spec: str) -> str:
        return f"{self.windows(spec)}:defective"

    def good(self, spec: str) -> str:
        return f"{self.windows(spec)}:good"

    def withdrawn(self, spec: str) -> str:
        return f"{self.windows(spec)}:withdrawn"

    def arrivals(self, spec: str) -> str:
        return f"{self.windows(spec)}:arrivals"

    def shown(self, spec: str) -> str:
        return f"{self.windows(spec)}:shown"

    def spec(self, name: str) -> str:
        return f"{self.namespace}:spec:{name}"

    @property
    def specs(self) -> str:
        return f"{self.namespace}:specs"

    def dataset(self, dataset_id: str) -> str:
        return f"{self.namespace}:dataset:{dataset_id}"

    @property
    def holders(self) -> str:
        return f"{self.namespace}:{{held}}"

    @property
    def last_hold(self) -> str:
        return f"{self.holders}:number"

    def held(self, holder: str) -> str:
        return f"{self.holders}:by:{holder}"

    def _trained(self, model_name: str) -> str:
        return f"{self.namespace}:trainer:{{{model_name}}}"

    def lease(self, model_name: str) -> str:
        return f"{self._trained(model_name)}:lease"

    def last_taking(self, model_name: str) -> str:
        return f"{self._trained(model_name)}:last"

    def versions(self, model_name: str) -> str:
        return f"{self._trained(model_name)}:version"

    def cycle_requests(self, model_name: str) -> str:
        return f"{self._trained(model_name)}:requests"

    def cycle_askers(self, model_name: str) -> str:
        return f"{self._trained(model_name)}:asked"

    def cycle_answer(self, model_name: str, request_id: str) -> str:
        return f"{self._trained(model_name)}:answer:{request_id}"
