-- Lists the requests whose askers still wait, and forgets those whose askers are gone.
-- KEYS: requests, askers.
-- Promise: it removes nothing else.  Returns the requests, the one that was asked first at the head.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for _, request in ipairs(redis.call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE')) do
  redis.call('ZREM', KEYS[1], request)
  redis.call('ZREM', KEYS[2], request)
end
return redis.call('ZRANGE', KEYS[1], 0, -1)
