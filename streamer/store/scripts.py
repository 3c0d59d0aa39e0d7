"""The Lua scripts: each touches one slot, and repeating one that went through changes nothing."""

from __future__ import annotations

# Counts are written as what they become, never as an increment: a power cut that tears the append-only file inside
# a script leaves a transaction without its end there, which Redis drops at this start and carries out at the next
# one, before what was repeated meanwhile. Written twice, a value is the same; an increment is not.
ADD = """
local function add(key, field, increment)
  local held = tonumber(redis.call('HGET', key, field) or '0')
  redis.call('HSET', key, field, string.format('%.0f', held + tonumber(increment)))
end
"""

# Moves a cast on: rows, timeline, counts and `applied` together, or nothing at all.
# KEYS: cast, row blocks...
# ARGV: field of applied, its expected value, expected version ('' = absent), next applied ('' = unmoved),
#       number of hash fields, (field, value)..., number of counts, (name, increment)...,
#       floats of a block, steps of a block, then per block: number of runs (1 = all of it in one),
#       (byte offset, bytes)...
# Returns 1, or 0 when the cast is not what the writer had loaded.
APPLY = (
    ADD
    + """
local cast = KEYS[1]
if (redis.call('HGET', cast, ARGV[1]) or '') ~= ARGV[2] then return 0 end
if (redis.call('HGET', cast, 'version') or '') ~= ARGV[3] then return 0 end
if ARGV[4] ~= '' then redis.call('HSET', cast, ARGV[1], ARGV[4]) end
local at = 5
local fields = tonumber(ARGV[at])
redis.call('HSET', cast, unpack(ARGV, at + 1, at + 2 * fields))
at = at + 2 * fields + 1
for _ = 1, tonumber(ARGV[at]) do
  add(cast, ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
local floats, steps = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
at = at + 2
local empty  -- a block of NaN; made once, since that costs more than all the rest
for k = 2, #KEYS do
  at = at + 1
  local runs = tonumber(ARGV[at])
  if runs == 1 then  -- all of the block
    redis.call('SET', KEYS[k], ARGV[at + 2])
    at = at + 2
  else
    if redis.call('EXISTS', KEYS[k]) == 0 then
      empty = empty or string.rep('\\0\\0\\192\\127', floats) .. string.rep('\\0', steps)
      redis.call('SET', KEYS[k], empty)
    end
    for _ = 1, runs do
      redis.call('SETRANGE', KEYS[k], ARGV[at + 1], ARGV[at + 2])
      at = at + 2
    end
  end
end
add(cast, 'version', 1)
add(cast, 'revision', 1)
return 1
"""
)

# Adds one label to a cast, seen or not. All that changes is written by one command: an append-only file that is torn
# has all of it or nothing, so `applied` never says more than the list holds.
# KEYS: cast.
# ARGV: field of applied (`applied:<topic>/<partition>`), its expected value, offset, label as canonical JSON,
#       most labels of a cast.
# Returns 1 once the cast holds the label, -1 when its list is full without it (then and ever after), or 0 when
# `applied` is not what the writer had loaded, and nothing was written.
LABEL = """
local cast, offset = KEYS[1], tonumber(ARGV[3])
local applied = tonumber(redis.call('HGET', cast, ARGV[1]) or '0')
if applied ~= tonumber(ARGV[2]) then return 0 end
local counter = 'label:' .. string.sub(ARGV[1], #'applied:' + 1)
local held = redis.call('HMGET', cast, 'labels', 'num_labels', 'revision', counter)
local labels, num_labels = held[1], tonumber(held[2] or '0')
local is_new = not (labels and string.find(labels, ARGV[4], 1, true))
local is_full = is_new and num_labels >= tonumber(ARGV[5])
local function more(number) return string.format('%.0f', tonumber(number or '0') + 1) end
if applied <= offset then
  local fields = {ARGV[1], more(offset)}
  local function set(field, value) fields[#fields + 1] = field; fields[#fields + 1] = value end
  if not is_full then set(counter, more(held[4])) end
  if is_new and not is_full then
    set('labels', (labels and string.sub(labels, 1, -2) .. ',' or '[') .. ARGV[4] .. ']')
    set('num_labels', more(num_labels))
    set('revision', more(held[3]))
  end
  redis.call('HSET', cast, unpack(fields))
end
return is_full and -1 or 1
"""

# Decides windows of one cast. On each step the newest inspection wins, on a tie the defect; a withdrawal leaves the
# step unlabelled. A window is defective if one of its valid steps is, good if all of them are good. The steps are cut
# at every border of a label or a window, and each piece is counted once, so the work grows with their number and not
# with their lengths.
# KEYS: cast, row blocks...
# ARGV: period, phase (ms), steps a block, bytes of rows before the validity of a block, smallest share of valid
#       steps, (number of the block of each key)..., (start, length of a window)...
# Returns the revision of the cast ('' = none), then 1 (defective), 0 (good) or -1 for each window.
DECIDE = """
local cast = KEYS[1]
local period, phase, size = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tail, min_ratio = tonumber(ARGV[4]), tonumber(ARGV[5])
local blocks = {}
for k = 2, #KEYS do blocks[tonumber(ARGV[4 + k])] = KEYS[k] end
local points, known, windows, covers = {}, {}, {}, {}
local function cut(step)
  if not known[step] then known[step] = true; points[#points + 1] = step end
end
local low, high = math.huge, -math.huge
for at = 5 + #KEYS, #ARGV, 2 do
  local start = tonumber(ARGV[at])
  local stop = start + tonumber(ARGV[at + 1])
  windows[#windows + 1] = {start, stop}
  cut(start); cut(stop)
  covers[start] = (covers[start] or 0) + 1
  covers[stop] = (covers[stop] or 0) - 1
  low, high = math.min(low, start), math.max(high, stop)
end

local function step(ts) return math.floor((2 * (ts - phase) + period) / (2 * period)) end
local function rank(label)
  if label.defect == cjson.null then return -1 end
  return label.defect and 1 or 0
end
local labels = cjson.decode(redis.call('HGET', cast, 'labels') or '[]')
table.sort(labels, function(a, b)
  if a.inspected_at ~= b.inspected_at then return a.inspected_at > b.inspected_at end
  return rank(a) > rank(b)
end)
local spans = {}
for _, label in ipairs(labels) do
  local from = label.from_ts == cjson.null and low or math.max(low, step(label.from_ts))
  local to = label.to_ts == cjson.null and high or math.min(high, step(label.to_ts) + 1)
  if from < to then
    spans[#spans + 1] = {from, to, rank(label)}
    cut(from); cut(to)
    if from == low and to == high then break end
  end
end
table.sort(points)
local index, free, verdict = {}, {}, {}
for k, point in ipairs(points) do index[point], free[k] = k, k end
-- The first piece from k on that no stronger label has taken.
local function unpainted(k)
  while free[k] ~= k do free[k] = free[free[k]]; k = free[k] end
  return k
end
for _, span in ipairs(spans) do
  local k, stop = unpainted(index[span[1]]), index[span[2]]
  while k < stop do
    verdict[k], free[k] = span[3], k + 1
    k = unpainted(k + 1)
  end
end

local function count_valid(from, to)
  local valid = 0
  while from < to do
    local block = math.floor(from / size)
    local stop = math.min(to, (block + 1) * size)
    local at = tail + from - block * size
    if blocks[block] then
      valid = valid + redis.call('BITCOUNT', blocks[block], at, at + stop - from - 1)
    end
    from = stop
  end
  return valid
end
local valid, good, defective, depth = {0}, {0}, {0}, 0
for k = 1, #points - 1 do
  depth = depth + (covers[points[k]] or 0)
  local count = depth > 0 and count_valid(points[k], points[k + 1]) or 0
  valid[k + 1] = valid[k] + count
  good[k + 1] = good[k] + (verdict[k] == 0 and count or 0)
  defective[k + 1] = defective[k] + (verdict[k] == 1 and count or 0)
end
local reply = {redis.call('HGET', cast, 'revision') or ''}
for n, window in ipairs(windows) do
  local i, j = index[window[1]], index[window[2]]
  local num_valid = valid[j] - valid[i]
  local decided = -1
  if num_valid > 0 and num_valid / (window[2] - window[1]) >= min_ratio then
    if defective[j] > defective[i] then decided = 1
    elseif good[j] - good[i] == num_valid then decided = 0 end
  end
  reply[n + 1] = decided
end
return reply
"""

# Enters windows of one cast into the index, and their decisions by order of arrival. A decision that stands
# already keeps its arrival number: repeating it is no news; withdrawing it is. A view of the cast older than the one
# shown is refused.
# KEYS: windows, defective, good, withdrawn, arrivals, shown.
# ARGV: cast id, revision, (address, end time, verdict)...
# Returns 1, or 0 when the index shows a newer revision of the cast.
INDEX = """
local shown = tonumber(redis.call('HGET', KEYS[6], ARGV[1]) or '0')
if shown > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[6], ARGV[1], ARGV[2])
local sets = {['1'] = KEYS[2], ['0'] = KEYS[3]}
for at = 3, #ARGV, 3 do
  local address, verdict = ARGV[at], ARGV[at + 2]
  redis.call('ZADD', KEYS[1], ARGV[at + 1], address)
  local had = 0
  for each, key in pairs(sets) do
    if each ~= verdict then had = had + redis.call('ZREM', key, address) end
  end
  if verdict == '-1' then
    if had > 0 then redis.call('ZADD', KEYS[4], redis.call('INCR', KEYS[5]), address) end
  else
    redis.call('ZREM', KEYS[4], address)
    if not redis.call('ZSCORE', sets[verdict], address) then
      redis.call('ZADD', sets[verdict], redis.call('INCR', KEYS[5]), address)
    end
  end
end
return 1
"""

# Marks what of a cast the index of one spec shows, unless the cast has moved on meanwhile.
# KEYS: cast.  ARGV: revision, field of the marker, marker.
# Returns 1, or 0 when there is more to index.
INDEXED = """
if (redis.call('HGET', KEYS[1], 'revision') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
"""

# Moves the position of a partition forward, with its clock and its counts.
# KEYS: position.  ARGV: next offset, offset that the writer knows to be there ('' = none), number of fields,
#       (field, value)..., (count, increment)...
# Returns 1, or 0 when another offset is there than the writer knows.
POSITION = (
    ADD
    + """
if (redis.call('HGET', KEYS[1], 'offset') or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'offset', ARGV[1])
local at = 4
for _ = 1, tonumber(ARGV[3]) do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for count = at, #ARGV, 2 do add(KEYS[1], ARGV[count], ARGV[count + 1]) end
return 1
"""
)

# Writes a field of a hash that does not exist yet.  KEYS: hash.  ARGV: field, value.
# Returns what the field holds now, or '' when the hash is there without it.
CLAIM = """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return redis.call('HGET', KEYS[1], ARGV[1]) or ''
"""
