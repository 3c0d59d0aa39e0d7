-- What the scripts of the lease share: taking it, keeping it, saying who has it.
-- KEYS: lease, last taking.
-- ARGV: owner (a word that no other process or object uses), place (host, folder and registry), holder (JSON),
--       ttl (ms), the last token that the owner had (0 = none).
-- Promise: one script takes or keeps the lease wholly or not at all; all time is that of Redis. A token is larger
-- than every one before it, also than those that Redis has forgotten, since none is smaller than Redis' clock in ms.
-- Replies: {1, token} or, if somebody else has it, {0, holder, since (ms), ttl (ms, negative = over), expires at (ms)}.
local lease, last = KEYS[1], KEYS[2]
local owner, place, holder, ttl, had = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local function take()
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local known = tonumber(redis.call('HGET', last, 'token') or '0')
  local token = string.format('%.0f', math.max(known + 1, had + 1, now))
  for _, key in ipairs({last, lease}) do
    redis.call('HSET', key, 'token', token, 'owner', owner, 'place', place, 'holder', holder,
      'since', string.format('%.0f', now))
  end
  redis.call('PEXPIRE', lease, ttl)
  return {1, token}
end

local function refuse(key)
  local other = redis.call('HMGET', key, 'holder', 'since')
  return {0, other[1], other[2], redis.call('PTTL', lease), redis.call('PEXPIRETIME', lease)}
end

-- A lease that has ended is taken again if nobody else had it since, or nothing is known of anybody.
local function keep()
  if redis.call('EXISTS', lease) == 1 then
    if redis.call('HGET', lease, 'owner') ~= owner then return refuse(lease) end
    redis.call('PEXPIRE', lease, ttl)
    return {1, redis.call('HGET', lease, 'token')}
  end
  local taker = redis.call('HGET', last, 'owner')
  if taker and taker ~= owner then return refuse(last) end
  return take()
end
