-- Takes one token out of a bucket that fills evenly, if there is one (GCRA: the bucket is the time
-- at which it would be full). One key, so it runs on any node of a Cluster.
-- KEYS[1]  string: microseconds since 1970, by this server's clock, which all callers share
-- ARGV[1]  microseconds between two tokens, at least 1
-- ARGV[2]  tokens in a full bucket, at least 1
-- Returns {taken (0 or 1), tokens left, us until the next token, us until the bucket is full}.
local bucket = KEYS[1]
local interval_us = tonumber(ARGV[1])
local burst = tonumber(ARGV[2])

local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local capacity_us = interval_us * burst
local full_at_us = tonumber(redis.call('GET', bucket) or '') or now_us
-- A bucket of larger settings, or of a clock that was ahead, is no emptier than empty.
full_at_us = math.min(math.max(full_at_us, now_us), now_us + capacity_us)

local missing_us = full_at_us - now_us
local taken = 0
if missing_us + interval_us <= capacity_us then
  taken = 1
  missing_us = missing_us + interval_us
  -- Lua's own conversion would round a number of 16 digits.
  redis.call('SET', bucket, string.format('%.0f', now_us + missing_us),
             'PX', math.ceil(missing_us / 1000))
end
local left = math.floor((capacity_us - missing_us) / interval_us)
local wait_us = 0
if left == 0 then
  wait_us = missing_us + interval_us - capacity_us
end
return {taken, left, wait_us, missing_us}
