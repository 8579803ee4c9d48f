-- Note one answer: its impressions, what was shown to the user, and the record in the stream.
-- Times to live are seconds.
-- KEYS: answer, stream, and of a known user what was shown and the tombstone
-- ARGV: answer, answer_ttl_s, stream payload, stream_max_events, stream_ttl_s, shown records,
--   shown_max_bytes, shown_ttl_s, time of the answer in ms
-- Returns 1, or 0 if the user was erased after the answer: then nothing is noted.

local answer_ttl_s, stream_max = tonumber(ARGV[2]), tonumber(ARGV[4])
local shown_max_bytes = tonumber(ARGV[7])

-- A call that was sent again after its connection broke must not count twice.
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end

-- An answer that was on its way while its user was erased must not bring the id back.
local erased_ms = KEYS[4] and tonumber(redis.call('GET', KEYS[4]) or '')
if erased_ms and erased_ms >= tonumber(ARGV[9]) then return 0 end

redis.call('SET', KEYS[1], ARGV[1], 'EX', answer_ttl_s)
if stream_max > 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', stream_max, '*', 'exposure', ARGV[3])
  redis.call('EXPIRE', KEYS[2], tonumber(ARGV[5]))
end
if KEYS[3] then
  local shown = (redis.call('GET', KEYS[3]) or '') .. ARGV[6]
  redis.call('SET', KEYS[3], string.sub(shown, -shown_max_bytes), 'EX', tonumber(ARGV[8]))
end
return 1
