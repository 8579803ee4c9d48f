-- Erase one user, whole or not at all: history, seen items, what was shown and stream entries go, a
-- tombstone holds off late events, and a mark in the stream tells the collector.
-- KEYS: history, seen, stream, tombstone, rewrite, shown
-- ARGV: user_id, user_hash, now_ms, tombstone_s, stream_ttl_s, stream_max_events, oldest_ms,
--   must_hold, history, seen, looked_until, then the ids of the user's stream entries until there.
--   If must_hold is 1, the user must hold exactly this history and these seen items ('' for none).
-- Returns {0} if the user holds something else, and then nothing has changed; otherwise 1, the number
-- of events, of seen records and of stream entries that were removed, the time of the erasure, and
-- what `rewrite_stream.lua` has to be told to remove the entries' bytes too, '' if there are none.
-- Byte offsets are those of history_codec.py.

local SEEN, FIXED, PAGE = 15, 11, 250
-- By layout of a history: where the times begin, from 0, and how far apart they are.
local TIMES = { { 3, 30 }, { 4, 6 } }

local user_id, user_hash, now_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local stream_ttl_s, looked_until = ARGV[5], ARGV[11]

-- A value of another type than ours is erased too, though nothing in it can be counted.
local function stored(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or ''
end

-- Number of events, and the time of the newest one.
local function summary(history)
  if #history < 3 then return 0, 0 end
  local layout, count = struct.unpack('<BH', history)
  local times = TIMES[layout]
  if not times or count == 0 then return 0, 0 end
  return count, (struct.unpack('<I6', history, times[1] + (count - 1) * times[2] + 1))
end

-- Whether a value is JSON of the user. Without a backslash the id stands in it as it is, so a search
-- tells nearly all values of others, in a tenth of the time of decoding them.
local function is_of_user(value)
  if not string.find(value, user_id, 1, true) and not string.find(value, '\\', 1, true) then
    return false
  end
  local is_json, decoded = pcall(cjson.decode, value)
  return is_json and type(decoded) == 'table' and decoded.user_id == user_id
end

local function names_user(fields)
  for at = 2, #fields, 2 do
    if is_of_user(fields[at]) then return true end
  end
  return false
end

local history, seen = stored(KEYS[1]), stored(KEYS[2])
if ARGV[8] == '1' and (history ~= ARGV[9] or seen ~= ARGV[10]) then return { 0 } end
local num_events, newest_ms = summary(history)
-- A clock that was ahead may have stamped events later than now; their retries stay out too.
local erased_ms = math.max(now_ms, newest_ms, tonumber(redis.call('GET', KEYS[4]) or '') or 0)
local erased_text = string.format('%.0f', erased_ms)

-- First of all writes: a server whose memory is full refuses what may need more, but no DEL, and
-- within a script that has begun to write nothing.
redis.call('DEL', KEYS[1], KEYS[2], KEYS[6])
redis.call('SET', KEYS[4], erased_text, 'EX', ARGV[4])
redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[7])

local num_entries = 0
for at = FIXED + 1, #ARGV do
  num_entries = num_entries + redis.call('XDEL', KEYS[3], ARGV[at])
end
-- What came after the caller has looked is little, as a rule, so that nobody waits for this.
local from, page = '(' .. looked_until, nil
repeat
  page = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', PAGE)
  for _, entry in ipairs(page) do
    if names_user(entry[2]) then num_entries = num_entries + redis.call('XDEL', KEYS[3], entry[1]) end
    from = '(' .. entry[1]
  end
until #page < PAGE

-- The mark is the last entry, so the stream's last id is one that stays.
local mark = '{"user":"' .. user_hash .. '","before_ms":' .. erased_text .. '}'
local mark_id = redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'erase', mark)
redis.call('EXPIRE', KEYS[3], stream_ttl_s)
if num_entries > 0 then redis.call('SET', KEYS[5], mark_id, 'EX', stream_ttl_s) end
local rewrite = redis.call('GET', KEYS[5]) or ''
return { 1, num_events, #seen / SEEN, num_entries, erased_ms, rewrite }
