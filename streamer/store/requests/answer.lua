-- Stores the answer of a request, which then no longer waits.
-- KEYS: requests, askers, answer.  ARGV: request, answer, lifetime of the answer (ms).
-- Promise: answer and removal in one step; repeating it is harmless.  Returns 1.
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
