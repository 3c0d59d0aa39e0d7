-- Takes the lease if it is free, or if its holder was at the same place. Stands behind taking.lua.
-- KEYS, ARGV, replies: as there.
-- Promise: each taking has a new token. Repeated after a lost reply, it takes the lease again with one more.
if redis.call('EXISTS', lease) == 0 or redis.call('HGET', lease, 'place') == place then return take() end
return refuse(lease)
