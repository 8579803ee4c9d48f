-- Note what a process serves, and forget those that have not said so for long. Times are ms.
-- KEYS: the reports, a hash by process
-- ARGV: process, its report ("<time> <version> <0 or 1>"), oldest time that is kept, ttl_s
-- Returns the reports as they are afterwards: process, report, process, report, ...

local key, process, report = KEYS[1], ARGV[1], ARGV[2]
local oldest_ms, ttl_s = tonumber(ARGV[3]), tonumber(ARGV[4])

redis.call('HSET', key, process, report)
redis.call('EXPIRE', key, ttl_s)
local all = redis.call('HGETALL', key)
for at = 1, #all, 2 do
  if tonumber(string.match(all[at + 1], '^%d+')) < oldest_ms then
    redis.call('HDEL', key, all[at])
  end
end
return redis.call('HGETALL', key)
