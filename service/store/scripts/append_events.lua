-- Append events of one user: history, seen overflow, counters and stream change together or not
-- at all. Times are ms since 1970 inside the records; ARGV times to live are seconds.
-- A merge of two users calls it too, with what the other one left, and without stream and counters.
-- KEYS: history, seen, stream, tombstone, then the counters of any number of days
-- ARGV: max_events, max_seen, ttl_s, stream_max_events, counter_ttl_s, counter_max_items, oldest_ms,
--   seen records of another user, then for each event, in order of time: record, item_id, weight,
--   place of its counters in KEYS (0: none), stream payload
-- Returns the number of seen records taken from the other user, then for each event 1 if it was
-- accepted, 0 if it is a duplicate, -1 if it is older than oldest_ms, and the negative time of the
-- user's erasure if it is not newer than that.
-- An event is a duplicate if its id's hash is in the history or among the events that left it last.
-- Byte offsets are those of history_codec.py.

local HEADER, LAYOUT, RECORD, SEEN, FIELDS, LIMITS = 3, 1, 30, 15, 5, 8
local ACCEPTED, DUPLICATE, EXPIRED = 1, 0, -1
local HASH_FIRST, HASH_LAST, TYPE_AT = 7, 12, 13  -- in a history record, from 1
local SEEN_HASH_AT = 9                            -- in a seen record, from 0

local max_events, max_seen, ttl_s = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stream_max, counter_ttl_s = tonumber(ARGV[4]), tonumber(ARGV[5])
local counter_max_items, oldest_ms, foreign_seen = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

local function event_argument(event, place)
  return ARGV[LIMITS + (event - 1) * FIELDS + place]
end

-- Whether a hash stands at its place in one of the packed records.
local function has_hash(packed, hash, record_bytes, offset)
  local at = string.find(packed, hash, 1, true)
  while at do
    if (at - 1 - offset) % record_bytes == 0 then return true end
    at = string.find(packed, hash, at + 1, true)
  end
  return false
end

-- Numbers, never strings, are compared: string order depends on the server's locale.
local function time_at(records, index)
  return (struct.unpack('<I6', records, (index - 1) * RECORD + 1))
end

local function seen_record(record, item_id)
  local hash = string.gsub(string.sub(redis.sha1hex(item_id), 1, 16), '%x%x', function(byte)
    return string.char(tonumber(byte, 16))
  end)
  return hash .. string.sub(record, TYPE_AT, TYPE_AT) .. string.sub(record, HASH_FIRST, HASH_LAST)
end

-- Merge two histories by time; of equal times the old one's events stay first.
local function merge(old_records, old_ids, old_count, new_records, new_ids)
  local records, ids, new_at, old_at = {}, {}, 1, 0
  for old_id in string.gmatch(old_ids, '[^%z]+') do
    old_at = old_at + 1
    local old_time = time_at(old_records, old_at)
    while new_records[new_at] and time_at(new_records[new_at], 1) < old_time do
      records[#records + 1], ids[#ids + 1] = new_records[new_at], new_ids[new_at]
      new_at = new_at + 1
    end
    records[#records + 1] = string.sub(old_records, (old_at - 1) * RECORD + 1, old_at * RECORD)
    ids[#ids + 1] = old_id
  end
  for at = new_at, #new_records do
    records[#records + 1], ids[#ids + 1] = new_records[at], new_ids[at]
  end
  return table.concat(records), table.concat(ids, '\0') .. '\0'
end

local count, records, ids = 0, '', ''
local stored = redis.call('GET', KEYS[1])
if stored then
  local layout
  layout, count = struct.unpack('<BH', stored)
  if layout ~= LAYOUT then
    return redis.error_reply('LAYOUT the history has layout ' .. layout .. ', not ' .. LAYOUT)
  end
  records = string.sub(stored, HEADER + 1, HEADER + count * RECORD)
  ids = string.sub(stored, HEADER + count * RECORD + 1)
end
local seen = redis.call('GET', KEYS[2]) or ''
local erased_ms = tonumber(redis.call('GET', KEYS[4]) or '')

local function is_known(hash)
  return has_hash(records, hash, RECORD, HASH_FIRST - 1) or has_hash(seen, hash, SEEN, SEEN_HASH_AT)
end

local results, taken, fresh, new_records, new_ids = { 0 }, {}, {}, {}, {}
for event = 1, (#ARGV - LIMITS) / FIELDS do
  local record = event_argument(event, 1)
  local hash, time_ms = string.sub(record, HASH_FIRST, HASH_LAST), time_at(record, 1)
  local result = ACCEPTED
  if time_ms < oldest_ms then
    result = EXPIRED
  elseif erased_ms and time_ms <= erased_ms then
    result = -erased_ms
  elseif taken[hash] or is_known(hash) then
    result = DUPLICATE
  else
    taken[hash] = true
    fresh[#fresh + 1] = event
    new_records[#fresh], new_ids[#fresh] = record, event_argument(event, 2)
  end
  results[event + 1] = result
end

-- They have no times. Of a user who was erased any of them may be from before, so none is taken.
local left = {}
for at = 1, erased_ms and 0 or #foreign_seen, SEEN do
  local record = string.sub(foreign_seen, at, at + SEEN - 1)
  local hash = string.sub(record, SEEN_HASH_AT + 1)
  if not taken[hash] and not is_known(hash) then
    left[#left + 1], taken[hash] = record, true
  end
end
results[1] = #left
if #fresh == 0 and #left == 0 then return results end

if #fresh == 0 then
  -- Only seen records came; the history is cut to its bounds all the same.
elseif count == 0 or time_at(new_records[1], 1) >= time_at(records, count) then
  records = records .. table.concat(new_records)
  ids = ids .. table.concat(new_ids, '\0') .. '\0'
else
  records, ids = merge(records, ids, count, new_records, new_ids)
end
count = count + #fresh

-- What is too old is dropped, what is too much is remembered as seen; both are the oldest events.
local num_expired, num_leaving, id_from = 0, 0, 1
while num_expired < count and time_at(records, num_expired + 1) < oldest_ms do
  num_expired = num_expired + 1
end
num_leaving = math.max(num_expired, count - max_events)
for at = 1, num_leaving do
  local id_end = string.find(ids, '\0', id_from, true)
  if at > num_expired then
    local record = string.sub(records, (at - 1) * RECORD + 1, at * RECORD)
    left[#left + 1] = seen_record(record, string.sub(ids, id_from, id_end - 1))
  end
  id_from = id_end + 1
end
count = count - num_leaving
if count > 0 then
  local packed = struct.pack('<BH', LAYOUT, count) .. string.sub(records, num_leaving * RECORD + 1)
  redis.call('SET', KEYS[1], packed .. string.sub(ids, id_from), 'EX', ttl_s)
else
  redis.call('DEL', KEYS[1])
end

if #left > 0 and max_seen > 0 then
  local added = table.concat(left)
  if #seen + #added > max_seen * SEEN * 1.25 then
    redis.call('SET', KEYS[2], string.sub(seen .. added, -max_seen * SEEN))
  else
    redis.call('APPEND', KEYS[2], added)
  end
end
-- Also without an eviction: what was seen must live as long as the history it belongs to.
redis.call('EXPIRE', KEYS[2], ttl_s)

if stream_max > 0 then
  -- An entry's id is the time of its arrival. Before the new ones, which a clock that differs from
  -- the server's must not trim.
  redis.call('XTRIM', KEYS[3], 'MINID', '=', string.format('%.0f', oldest_ms))
end
for _, event in ipairs(fresh) do
  local item_id, weight = event_argument(event, 2), tonumber(event_argument(event, 3))
  local counters = KEYS[tonumber(event_argument(event, 4))]
  if counters and weight > 0 then redis.call('ZINCRBY', counters, weight, item_id) end
  if stream_max > 0 then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', stream_max, '*', 'event', event_argument(event, 5))
  end
end
if stream_max > 0 then redis.call('EXPIRE', KEYS[3], ttl_s) end
for at = 5, #KEYS do
  if redis.call('ZCARD', KEYS[at]) > counter_max_items * 1.25 then
    redis.call('ZREMRANGEBYRANK', KEYS[at], 0, -(counter_max_items + 1))
  end
  redis.call('EXPIRE', KEYS[at], counter_ttl_s)
end
return results
