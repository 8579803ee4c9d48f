-- Note answers: the impressions of each, what was shown to its user, and its record in the stream.
-- Times to live are seconds.
-- KEYS: for each answer: answer, stream, and of a known user what was shown and the tombstone
-- ARGV: answer_ttl_s, stream_max_events, stream_ttl_s, shown_max_bytes, shown_ttl_s, then for each
--   answer: number of its keys (2 or 4), answer, stream payload, shown records, time of it in ms
-- Returns for each 1, or 0 if the user was erased after the answer: then nothing of it is noted.

local answer_ttl_s, stream_max, stream_ttl_s = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local shown_max_bytes, shown_ttl_s = tonumber(ARGV[4]), ARGV[5]
local LIMITS, FIELDS = 5, 5

-- A user's value, '' if there is none. One of another type is not ours, and counts as none: it must
-- not cost the other users' answers of the same call.
local function text(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then
    if not string.find(value.err, '^WRONGTYPE') then error(value.err) end
    return ''
  end
  return value or ''
end

local function noted(answer_key, stream_key, shown_key, tombstone_key, answer, payload, records, time_ms)
  -- A call that was sent again after its connection broke must not count twice.
  if redis.call('EXISTS', answer_key) == 1 then return 1 end
  -- An answer that was on its way while its user was erased must not bring the id back.
  local erased_ms = tombstone_key and tonumber(text(tombstone_key))
  if erased_ms and erased_ms >= time_ms then return 0 end
  redis.call('SET', answer_key, answer, 'EX', answer_ttl_s)
  if stream_max > 0 then
    redis.call('XADD', stream_key, 'MAXLEN', '~', stream_max, '*', 'exposure', payload)
    redis.call('EXPIRE', stream_key, stream_ttl_s)
  end
  if shown_key then
    local shown = text(shown_key) .. records
    redis.call('SET', shown_key, string.sub(shown, -shown_max_bytes), 'EX', shown_ttl_s)
  end
  return 1
end

local results, key_at = {}, 1
for at = LIMITS + 1, #ARGV, FIELDS do
  local num_keys = tonumber(ARGV[at])
  local shown_key, tombstone_key = nil, nil
  if num_keys > 2 then shown_key, tombstone_key = KEYS[key_at + 2], KEYS[key_at + 3] end
  results[#results + 1] = noted(
    KEYS[key_at], KEYS[key_at + 1], shown_key, tombstone_key,
    ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  )
  key_at = key_at + num_keys
end
return results
