-- Renews the lease, or takes it again. Stands behind taking.lua.
-- KEYS, ARGV, replies: as there.
-- Promise: it goes through only if nobody else has had the lease since its owner took it, as far as Redis knows.
return keep()
