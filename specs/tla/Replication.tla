---------------------------- MODULE Replication ----------------------------
(* One broker group: a log per member, flushed at once or later, copied to slaves, acknowledged to producers; and what faults do to it.  *)
(* Written from the documents, which are quoted where they decide; it knows nothing of trmq's code.                                      *)
(*                                                                                                                                       *)
(* Seed 003_c790c013a3e4f038.txt                                                                                                         *)
(*   [SYNC]  "SYNC_MASTER，等 Master 和 Slave 均写成功后才返回给客户端写成功状态": SEND_OK after master and slave have written it.         *)
(*   [ASYNC] "ASYNC_MASTER，只要 Master 写成功即可返回": SEND_OK as soon as the master has. Here: Need = 1.                               *)
(*   [1-4]   "RocketMQ 在这四种情况下能保证消息不丢，或丢失少量数据（依赖刷盘方式是同步还是异步）": close, crash, system crash, power.    *)
(*   [5-6]   "在此单点上的消息全部丢失 ... 通过异步复制，可保证 99%的消息不丢 ... 通过同步双写技术可以完全避免单点": machine, disk.       *)
(*   [HAND]  "RocketMQ 目前还不支持把 Slave 自动转成 Master ... 则要手动停止 Slave 角色的 Broker": a slave is made master by hand.        *)
(*   [ONE]   "这样即使有一台机器出故障，仍然能保证数据不丢": SYNC_MASTER with ASYNC_FLUSH survives one machine.                           *)
(* Seed 000_962224688e51e41c.txt                                                                                                         *)
(*   [COPY]  "将消息持久化并同步到其Slave Broker上，确保数据的一致性": a slave's log is its master's.                                      *)
(* Reference "ha", trap H6 (apache/rocketmq #3015, #1155)                                                                                *)
(*   [MORE]  a slave that has more than its master is no copy of it; Apache serves it, and takes its reports for acks.                   *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS Master, Slaves,
          Need,          \* how many members must have written a record before SEND_OK, the master included
          SyncFlush,     \* TRUE: what counts is what would survive losing power
          Faults,        \* subset of {"kill", "power", "machine"}
          MaxFaults, MaxRecords,
          RefuseLonger   \* FALSE: as Apache, a slave with another log is served

VARIABLES log,       \* member -> sequence of records, as a reader of its page cache sees it
          dur,       \* member -> how many of them are on the platter
          wrote,     \* member -> every record it ever had in the sense that counts
          lead, alive, served,
          said,      \* slave -> the furthest it told this master that it has, as it is on the wire
          heard,     \* slave -> the furthest that this master has read
          waiting,   \* records whose producers wait
          acked, next, faults
vars == <<log, dur, wrote, lead, alive, served, said, heard, waiting, acked, next, faults>>

Nodes == {Master} \cup Slaves
Range(q) == {q[i] : i \in DOMAIN q}
IsPrefix(p, q) == Len(p) <= Len(q) /\ SubSeq(q, 1, Len(p)) = p
Counting(n, q, d) == IF SyncFlush THEN SubSeq(q, 1, d) ELSE q
Min(a, b) == IF a < b THEN a ELSE b

Init == /\ log = [n \in Nodes |-> <<>>] /\ dur = [n \in Nodes |-> 0] /\ wrote = [n \in Nodes |-> {}]
        /\ lead = Master /\ alive = Nodes /\ served = {}
        /\ said = [n \in Nodes |-> 0] /\ heard = [n \in Nodes |-> 0]
        /\ waiting = {} /\ acked = {} /\ next = 1 /\ faults = 0

Store ==    \* a send is appended to the master's log
    /\ lead \in alive /\ next <= MaxRecords
    /\ log' = [log EXCEPT ![lead] = Append(@, next)]
    /\ wrote' = [wrote EXCEPT ![lead] = @ \cup Range(Counting(lead, log'[lead], dur[lead]))]
    /\ waiting' = waiting \cup {next} /\ next' = next + 1
    /\ UNCHANGED <<dur, lead, alive, served, said, heard, acked, faults>>

Flush(n, k) ==    \* an fsync returns: the first k records are durable
    /\ n \in alive /\ k \in (dur[n] + 1)..Len(log[n])
    /\ dur' = [dur EXCEPT ![n] = k]
    /\ wrote' = [wrote EXCEPT ![n] = @ \cup Range(Counting(n, log[n], k))]
    /\ UNCHANGED <<log, lead, alive, served, said, heard, waiting, acked, next, faults>>

Connect(s) ==    \* [COPY], [MORE]
    /\ lead \in alive /\ s \in alive \ {lead} /\ s \notin served
    /\ RefuseLonger => IsPrefix(log[s], log[lead])
    /\ served' = served \cup {s}
    /\ UNCHANGED <<log, dur, wrote, lead, alive, said, heard, waiting, acked, next, faults>>

Refuse(s) ==    \* ... and is told so
    /\ RefuseLonger /\ lead \in alive /\ s \in alive \ {lead} /\ ~IsPrefix(log[s], log[lead])
    /\ UNCHANGED vars

Replicate(s) ==    \* from the page cache (H2), the master's flush is not awaited
    /\ s \in served /\ Len(log[s]) < Len(log[lead])
    /\ log' = [log EXCEPT ![s] = Append(@, log[lead][Len(@) + 1])]
    /\ wrote' = [wrote EXCEPT ![s] = @ \cup Range(Counting(s, log'[s], dur[s]))]
    /\ UNCHANGED <<dur, lead, alive, served, said, heard, waiting, acked, next, faults>>

Say(s, k) ==    \* [SYNC]: a report says what is written, under SYNC_FLUSH what is durable
    /\ s \in served /\ k \in (said[s] + 1)..Len(Counting(s, log[s], dur[s]))
    /\ said' = [said EXCEPT ![s] = k]
    /\ UNCHANGED <<log, dur, wrote, lead, alive, served, heard, waiting, acked, next, faults>>

Hear(s, k) ==    \* the slave may be gone by now
    /\ k \in (heard[s] + 1)..said[s]
    /\ heard' = [heard EXCEPT ![s] = k]
    /\ UNCHANGED <<log, dur, wrote, lead, alive, served, said, waiting, acked, next, faults>>

Ack(i) ==    \* SEND_OK for the i-th record of the master's log: [SYNC], [ASYNC]
    /\ lead \in alive /\ i \in DOMAIN log[lead] /\ log[lead][i] \in waiting
    /\ Cardinality({s \in Nodes \ {lead} : heard[s] >= i}) >= Need - 1
    /\ SyncFlush => dur[lead] >= i
    /\ acked' = acked \cup {log[lead][i]} /\ waiting' = waiting \ {log[lead][i]}
    /\ UNCHANGED <<log, dur, wrote, lead, alive, served, said, heard, next, faults>>

Careful(s, k) ==    \* not promised: what is left when somebody empties the only member that has it
    \A r \in acked : r \in Range(SubSeq(log[s], k + 1, Len(log[s]))) => \E n \in alive \ {s} : r \in Range(Counting(n, log[n], dur[n]))

NoneOf == [n \in Nodes |-> 0]
Goes(n) ==    \* a process ends: a master's connections and whoever waited there end with it
    /\ served' = IF n = lead THEN {} ELSE served \ {n}
    /\ IF n = lead THEN said' = NoneOf /\ heard' = NoneOf /\ waiting' = {} ELSE UNCHANGED <<said, heard, waiting>>
    /\ faults' = faults + 1 /\ faults < MaxFaults

Kill(n) ==    \* [1-4] 2: the page cache lives; it comes back with its log
    /\ "kill" \in Faults /\ n \in alive /\ Goes(n)
    /\ UNCHANGED <<log, dur, wrote, lead, alive, acked, next>>

Power(n, k) ==    \* [1-4] 3, 4: a prefix comes back, with all that was durable
    /\ "power" \in Faults /\ n \in alive /\ k \in dur[n]..Len(log[n]) /\ Goes(n)
    /\ log' = [log EXCEPT ![n] = SubSeq(@, 1, k)]
    /\ UNCHANGED <<dur, wrote, lead, alive, acked, next>>    \* recovery syncs what it keeps: a Flush

Machine(n) ==    \* [5-6]: it does not come back, or so late that somebody else has taken its place
    /\ "machine" \in Faults /\ n \in alive /\ Goes(n)
    /\ alive' = alive \ {n}
    /\ UNCHANGED <<log, dur, wrote, lead, acked, next>>

Return(n, k) ==    \* [5-6], [HAND]: repaired, or another machine in its place: with its log, or with nothing
    /\ n \notin alive /\ k \in {0, Len(log[n])}
    /\ alive' = alive \cup {n} /\ log' = [log EXCEPT ![n] = SubSeq(@, 1, k)] /\ dur' = [dur EXCEPT ![n] = Min(@, k)]
    /\ UNCHANGED <<wrote, lead, served, said, heard, waiting, acked, next, faults>>

Promote(s) ==    \* [HAND]: of what is left, the slave that has most; for a master that is gone or came back with less
    /\ s \in alive \ {lead} /\ \A t \in alive \ {lead} : Len(log[t]) <= Len(log[s])
    /\ lead \notin alive \/ (Len(log[lead]) < Len(log[s]) /\ IsPrefix(log[lead], log[s]))
    /\ lead' = s /\ served' = {} /\ said' = NoneOf /\ heard' = NoneOf /\ waiting' = {}
    /\ UNCHANGED <<log, dur, wrote, alive, acked, next, faults>>

Truncate(s, k) ==    \* who follows drops what its master lacks, or (resync) everything
    /\ s \in alive \ {lead} /\ lead \in alive /\ s \notin served /\ k < Len(log[s])
    /\ k = 0 \/ (~IsPrefix(log[s], log[lead]) /\ IsPrefix(SubSeq(log[s], 1, k), log[lead]))
    /\ log' = [log EXCEPT ![s] = SubSeq(@, 1, k)] /\ dur' = [dur EXCEPT ![s] = Min(@, k)]
    /\ UNCHANGED <<wrote, lead, alive, served, said, heard, waiting, acked, next, faults>>

Next == \/ Store
        \/ \E n \in Nodes : Kill(n) \/ Machine(n)
        \/ \E n \in Nodes, k \in 0..MaxRecords : Flush(n, k) \/ Power(n, k) \/ Return(n, k) \/ (Careful(n, k) /\ Truncate(n, k))
        \/ \E s \in Nodes : Connect(s) \/ Refuse(s) \/ Replicate(s) \/ Promote(s) \/ (\E k \in 1..MaxRecords : Say(s, k) \/ Hear(s, k))
        \/ \E i \in 1..MaxRecords : Ack(i)
Spec == Init /\ [][Next]_vars

\* --- what is promised

NoLoss == \A r \in acked : \E n \in alive : r \in Range(log[n])
AckImpliesHeld == \A r \in acked : Cardinality({n \in Nodes : r \in wrote[n]}) >= Need
PrefixCopies == \A s \in served : IsPrefix(log[s], log[lead])
NothingBeyond == \A s \in Nodes : heard[s] <= Len(log[lead])
=============================================================================
