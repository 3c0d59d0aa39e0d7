-- Raises the highest version. Stands behind raising.lua.
-- KEYS: versions.  ARGV: number, registry ('' = not known).
-- Promise: repeating it, or raising to a number that is not higher, changes nothing.
-- Returns {highest number, its registry}.
return {raise(KEYS[1], tonumber(ARGV[1]), ARGV[2])}
