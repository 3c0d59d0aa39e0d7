-- Asks for a cycle, or says that its asker still waits.
-- KEYS: requests, askers, answer.  ARGV: request, lifetime (ms).
-- Promise: repeating it keeps the place in the row. A request that has its answer is not asked again.
-- Returns 1, or 0 when the answer is there.
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'NX', string.format('%.0f', time[1] * 1000000 + time[2]), ARGV[1])
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
for at = 1, 2 do
  if redis.call('PTTL', KEYS[at]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[at], ARGV[2]) end
end
return 1
