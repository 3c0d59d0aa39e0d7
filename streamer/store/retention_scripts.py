"""The Lua scripts of retention: each touches one slot, and repeating one that went through changes nothing.

Retention has to work on a Redis that is full. Redis refuses the first write of a script then, unless that write can
only free memory; so each script that retention runs begins with a removal.
"""

from __future__ import annotations

from streamer.store.scripts import ADD

# Moves the log time of partitions on.  KEYS: clock.  ARGV: (partition, epoch ms)...
# Returns all log times.
CLOCK = """
redis.call('HDEL', KEYS[1], '')
for at = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  if not known or tonumber(known) < tonumber(ARGV[at + 1]) then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  end
end
return redis.call('HVALS', KEYS[1])
"""

# Enters members into a sorted set.  KEYS: sorted set.  ARGV: (score, member)...
ENTER = """
for at = 1, #ARGV, 2 do
  redis.call('ZREM', KEYS[1], ARGV[at + 1])
  redis.call('ZADD', KEYS[1], ARGV[at], ARGV[at + 1])
end
return 1
"""

# Names the casts that a holder needs, in place of those it named before.
# KEYS: holders, number of the last hold, casts of the holder.  ARGV: holder, cast ids...
HOLD = """
redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[2]), ARGV[1])
redis.call('DEL', KEYS[3])
for at = 2, #ARGV do redis.call('SADD', KEYS[3], ARGV[at]) end
return 1
"""

# Says that a cast may go, unless it has moved since it was looked at.
# KEYS: cast.  ARGV: token of this pass, revision.
# Returns 1, or 0 when there is nothing to mark.
MARK = """
redis.call('HDEL', KEYS[1], '')
if redis.call('HEXISTS', KEYS[1], 'evicted') == 1 then return 0 end
if (redis.call('HGET', KEYS[1], 'revision') or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'evicting', ARGV[1])
return 1
"""

# Takes the mark off a cast that somebody holds.  KEYS: cast.  ARGV: token of this pass.
UNMARK = """
if redis.call('HGET', KEYS[1], 'evicting') == ARGV[1] then redis.call('HDEL', KEYS[1], 'evicting') end
return 1
"""

# Makes a stub of a cast: from here on nobody reads its rows, and no label decides a window of it.
# KEYS: cast.  ARGV: token of this pass, fields that a stub does not need...
# Returns 1, or 0 when another member has taken the cast over.
EVICT = (
    ADD
    + """
if redis.call('HGET', KEYS[1], 'evicting') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'evicting')
for at = 2, #ARGV do redis.call('HDEL', KEYS[1], ARGV[at]) end
redis.call('HSET', KEYS[1], 'evicted', 1)
add(KEYS[1], 'revision', 1)
add(KEYS[1], 'version', 1)
return 1
"""
)

# Takes windows of a stub out of one index, and keeps every late view of the cast out of it.
# KEYS: windows, defective, good, withdrawn, shown.  ARGV: cast id, revision that no view reaches, addresses...
UNINDEX = """
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
for at = 3, #ARGV do
  for key = 1, 4 do redis.call('ZREM', KEYS[key], ARGV[at]) end
end
return 1
"""

# Adds what a cast counts to the totals of a partition. The marker says what was added, so that it is added once.
# KEYS: totals.  ARGV: field of the owner, token of the owner, marker, (field, count)...
# Returns 1, or 0 when another member has taken over.
FOLD = (
    ADD
    + """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local before = cjson.decode(redis.call('HGET', KEYS[1], ARGV[3]) or '{}')
local after = {}
redis.call('HDEL', KEYS[1], ARGV[3])
for at = 4, #ARGV, 2 do
  local field, new = ARGV[at], math.max(tonumber(ARGV[at + 1]), before[ARGV[at]] or 0)
  local more = new - (before[field] or 0)
  if more > 0 then add(KEYS[1], field, more) end
  after[field] = new
end
redis.call('HSET', KEYS[1], ARGV[3], cjson.encode(after))
return 1
"""
)

# Takes back what a marker says was added.  KEYS: totals.  ARGV: field of the owner, token of the owner, marker.
# Returns 1, or 0 when another member has taken over.
UNFOLD = (
    ADD
    + """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local added = cjson.decode(redis.call('HGET', KEYS[1], ARGV[3]) or '{}')
redis.call('HDEL', KEYS[1], ARGV[3])
for field, count in pairs(added) do
  if count > 0 then add(KEYS[1], field, -count) end
end
return 1
"""
)

# Notes in a cast which pass wants to delete it, so that an older pass no longer can.
# KEYS: cast.  ARGV: token, 1 to begin with it or 0 to take over what a pass before has begun with.
# Returns 1 if a pass before has noted the same, 0 if none has, or the cast is gone.
TAKE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], '')
local before = redis.call('HEXISTS', KEYS[1], 'going')
if before == 1 or ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'going', ARGV[1]) end
return before
"""

# Says who moves counts of an owner into the totals of a partition.  KEYS: totals.  ARGV: field of the owner, token.
OWN = """
redis.call('HDEL', KEYS[1], '')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

# Enters a member into a set.  KEYS: set.  ARGV: member.
JOIN = """
redis.call('SREM', KEYS[1], '')
redis.call('SADD', KEYS[1], ARGV[1])
return 1
"""

# Deletes the hash of a cast whose counts stand in the totals.
# KEYS: cast.  ARGV: number of its fields, (field, value)... as they were when its counts were read.
# Returns 1, or 0 when it has moved since.
DROP = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
if redis.call('HLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
for at = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then return 0 end
end
redis.call('DEL', KEYS[1])
return 1
"""
