-- Claims a version while keeping the lease. Stands behind taking.lua and raising.lua.
-- KEYS: lease, last taking, versions.
-- ARGV: as in taking.lua, then number, registry, the highest number that the owner knows of, its registry.
-- Promise: lease and version are judged in one step. The same registry may claim its highest number again.
-- Returns {0, ...} as in taking.lua, or {1, token, highest number, its registry}: claimed if both are the caller's.
local kept = keep()
if kept[1] == 0 then return kept end
raise(KEYS[3], tonumber(ARGV[8]), ARGV[9]) -- a Redis that lost it learns it from whoever still knows
local highest, by = raise(KEYS[3], tonumber(ARGV[6]), ARGV[7])
return {1, kept[2], highest, by}
