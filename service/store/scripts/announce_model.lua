-- Change which model is announced to all processes, in one step. Times are ms since 1970.
-- KEYS: the announcement, a hash
-- ARGV: kind of change (ask, pointer, first, prepare, give-up), version, time of the change, version
--   that CURRENT names
-- Returns active, previous, pointer, changed_at_ms, preparing and preparing_at_ms as they are
-- afterwards, nil if not there.
-- A pointer that was taken up once is no change any more, whoever sees it later; the first
-- announcement is made by one process only. Asking for what is active changes nothing.

local key, kind, version, now_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local named_by_current = ARGV[4]
local active = redis.call('HGET', key, 'active')

local function announce()
  if active == version then return end
  if active then redis.call('HSET', key, 'previous', active) end
  redis.call('HSET', key, 'active', version, 'changed_at_ms', now_ms)
end

local function no_longer_preparing()
  if redis.call('HGET', key, 'preparing') == version then
    redis.call('HDEL', key, 'preparing', 'preparing_at_ms')
  end
end

if kind == 'prepare' then
  redis.call('HSET', key, 'preparing', version, 'preparing_at_ms', now_ms)
elseif kind == 'give-up' then
  no_longer_preparing()
elseif kind == 'ask' then
  no_longer_preparing()
  announce()
elseif kind == 'pointer' and redis.call('HGET', key, 'pointer') ~= version then
  redis.call('HSET', key, 'pointer', version)
  announce()
elseif kind == 'first' and not active then
  redis.call('HSET', key, 'pointer', named_by_current)
  announce()
end
return redis.call('HMGET', key, 'active', 'previous', 'pointer', 'changed_at_ms', 'preparing',
  'preparing_at_ms')
