-- What the scripts of versions share.
-- Raises the highest version of a model name; the key is a hash of the number and the registry it belongs to.
-- Promise: the number never falls, and a number that is there keeps its registry.
-- Returns the highest number and its registry ('' = not known), as they are now.
local function raise(key, number, registry)
  local held = redis.call('HMGET', key, 'number', 'registry_id')
  local highest, by = tonumber(held[1] or '0'), held[2] or ''
  if number <= highest then return highest, by end
  redis.call('HSET', key, 'number', string.format('%.0f', number), 'registry_id', registry)
  return number, registry
end
