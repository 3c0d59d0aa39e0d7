"""The Lua scripts: each touches one slot, and repeating one that went through changes nothing."""

from __future__ import annotations

# Moves a cast on: rows, timeline, counts and `applied` together, or nothing at all.
# KEYS: cast, row blocks...
# ARGV: field of applied, its expected value, expected version ('' = absent), next applied ('' = unmoved),
#       number of hash fields, (field, value)..., number of counts, (name, increment)...,
#       floats of a block, steps of a block, then per block: number of runs, (byte offset, bytes)...
# Returns 1, or 0 when the cast is not what the writer had loaded.
APPLY = """
local cast = KEYS[1]
if (redis.call('HGET', cast, ARGV[1]) or '') ~= ARGV[2] then return 0 end
if (redis.call('HGET', cast, 'version') or '') ~= ARGV[3] then return 0 end
if ARGV[4] ~= '' then redis.call('HSET', cast, ARGV[1], ARGV[4]) end
local at = 5
local fields = tonumber(ARGV[at])
redis.call('HSET', cast, unpack(ARGV, at + 1, at + 2 * fields))
at = at + 2 * fields + 1
for _ = 1, tonumber(ARGV[at]) do
  redis.call('HINCRBY', cast, ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
local floats, steps = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
at = at + 2
for k = 2, #KEYS do
  if redis.call('EXISTS', KEYS[k]) == 0 then
    redis.call('SET', KEYS[k], string.rep('\\0\\0\\192\\127', floats) .. string.rep('\\0', steps))
  end
  at = at + 1
  for _ = 1, tonumber(ARGV[at]) do
    redis.call('SETRANGE', KEYS[k], ARGV[at + 1], ARGV[at + 2])
    at = at + 2
  end
end
redis.call('HINCRBY', cast, 'version', 1)
redis.call('HINCRBY', cast, 'revision', 1)
return 1
"""

# Adds one label to a cast, seen or not.
# KEYS: cast.  ARGV: field of applied, offset, label as canonical JSON.
# Returns 1, or 0 when the record was applied before.
LABEL = """
local cast = KEYS[1]
local applied = tonumber(redis.call('HGET', cast, ARGV[1]) or '0')
if applied > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', cast, ARGV[1], string.format('%.0f', tonumber(ARGV[2]) + 1))
redis.call('HINCRBY', cast, 'label:' .. string.sub(ARGV[1], 9), 1)
local labels = redis.call('HGET', cast, 'labels')
if not labels then
  labels = '[' .. ARGV[3] .. ']'
elseif string.find(labels, ARGV[3], 1, true) then
  return 1
else
  labels = string.sub(labels, 1, -2) .. ',' .. ARGV[3] .. ']'
end
redis.call('HSET', cast, 'labels', labels)
redis.call('HINCRBY', cast, 'revision', 1)
return 1
"""

# Enters windows of one cast into the index, and their decisions by order of arrival. A decision that stands
# already keeps its arrival number: repeating it is no news. A view of the cast older than the one shown is refused.
# KEYS: windows, defective, good, arrivals, shown.  ARGV: cast id, revision, (address, end time, verdict)...
# Returns 1, or 0 when the index shows a newer revision of the cast.
INDEX = """
local shown = tonumber(redis.call('HGET', KEYS[5], ARGV[1]) or '0')
if shown > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
for at = 3, #ARGV, 3 do
  local address, verdict = ARGV[at], ARGV[at + 2]
  redis.call('ZADD', KEYS[1], ARGV[at + 1], address)
  if verdict ~= '1' then redis.call('ZREM', KEYS[2], address) end
  if verdict ~= '0' then redis.call('ZREM', KEYS[3], address) end
  if verdict ~= '-1' then
    local key = verdict == '1' and KEYS[2] or KEYS[3]
    if not redis.call('ZSCORE', key, address) then
      redis.call('ZADD', key, redis.call('INCR', KEYS[4]), address)
    end
  end
end
return 1
"""

# Marks what of a cast the index shows, unless the cast has moved on meanwhile.
# KEYS: cast.  ARGV: revision, sealed edge.
# Returns 1, or 0 when there is more to index.
INDEXED = """
if (redis.call('HGET', KEYS[1], 'revision') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'indexed', ARGV[1], 'indexed_step', ARGV[2])
return 1
"""

# Moves the position of a partition forward, with its clock and its counts.
# KEYS: position.  ARGV: next offset, offset that the writer knows to be there ('' = none), number of fields,
#       (field, value)..., (count, increment)...
# Returns 1, or 0 when another offset is there than the writer knows.
POSITION = """
if (redis.call('HGET', KEYS[1], 'offset') or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'offset', ARGV[1])
local at = 4
for _ = 1, tonumber(ARGV[3]) do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for count = at, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[count], ARGV[count + 1]) end
return 1
"""
