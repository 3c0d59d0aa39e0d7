-- Ends the lease if it is the owner's; the last taking stays, so that tokens go on from there.
-- KEYS: lease.  ARGV: owner.
-- Promise: repeated, or after somebody else took the lease, it changes nothing.  Returns 1.
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
