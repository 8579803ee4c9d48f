-- Append events of users of one partition: their histories, seen overflows, counters and stream
-- change together or not at all. Times are ms since 1970; ARGV times to live are seconds.
-- A merge of two users calls it too, with what the other one left, and without stream and counters.
-- KEYS: stream, then for each user: history, seen, tombstone; then the counters of any number of days
-- ARGV: max_events, max_seen, ttl_s, stream_max_events, counter_ttl_s, counter_max_items, oldest_ms,
--   seen records of another user (for the first one), weights by event type (doubles), num_users,
--   then the days of the counters, since 1970, then for each user: the new events as a history, in
--   order of time, and their stream payloads, with NUL between them
-- Returns for each user the number of seen records taken from the other one, which only the first
-- user has, then for each event 1 if it was accepted, 0 if it is a duplicate, -1 if it is older than
-- oldest_ms, and the negative time of the user's erasure if it is not newer than that.
-- An event is a duplicate if its id's hash is in the history or among the events that left it last.
-- The columns are those of history_codec.py.

local LAYOUT, HEADER, RECORDS_LAYOUT, RECORDS_HEADER, RECORD = 2, 4, 1, 3, 30
local TIME, HASH, TYPE, NUM_FIXED = 1, 2, 3, 4      -- columns
local WIDTHS = { 6, 6, 1, 1, 4, 4, 4, 4 }           -- bytes of each column, an event
local NAN = '\0\0\192\127'                          -- a number that is not known
local SEEN, SEEN_HASH_AT, SEEN_REWRITTEN = 15, 9, 4096
local ACCEPTED, DUPLICATE, EXPIRED = 1, 0, -1
local DAY_MS, LIMITS = 86400000, 10

local max_events, max_seen, ttl_s = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stream_max, counter_ttl_s = tonumber(ARGV[4]), tonumber(ARGV[5])
local counter_max_items, oldest_ms, foreign_seen = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local weights, num_users = ARGV[9], tonumber(ARGV[10])
local first_counter = 2 + 3 * num_users
local num_days = #KEYS - first_counter + 1
local stream = KEYS[1]

-- A history as a table: its number of events, a string for each column, false for those that are
-- not there, and the ids.
local function unpacked(packed)
  local _, count, flags = struct.unpack('<BHB', packed)
  local history, at = { count = count }, HEADER + 1
  for column, width in ipairs(WIDTHS) do
    local is_there = column <= NUM_FIXED or bit.band(bit.rshift(flags, column - NUM_FIXED - 1), 1) == 1
    history[column] = is_there and string.sub(packed, at, at + width * count - 1)
    if is_there then at = at + width * count end
  end
  history.ids = string.sub(packed, at)
  return history
end

-- The same of a history of whole records, as they were before there were columns.
local function unpacked_records(packed)
  local _, count = struct.unpack('<BH', packed)
  local history, offset = { count = count }, RECORDS_HEADER + 1
  for column, width in ipairs(WIDTHS) do
    local parts = {}
    for event = 1, count do
      local at = offset + (event - 1) * RECORD
      parts[event] = string.sub(packed, at, at + width - 1)
    end
    history[column] = table.concat(parts)
    offset = offset + width
  end
  history.ids = string.sub(packed, RECORDS_HEADER + count * RECORD + 1)
  return history
end

local function packed(history)
  local flags, parts = 0, {}
  for column = 1, #WIDTHS do
    if history[column] then
      parts[#parts + 1] = history[column]
      if column > NUM_FIXED then flags = flags + 2 ^ (column - NUM_FIXED - 1) end
    end
  end
  return struct.pack('<BHB', LAYOUT, history.count, flags) .. table.concat(parts) .. history.ids
end

-- Numbers, never strings, are compared: string order depends on the server's locale.
local function time_at(history, event)
  return (struct.unpack('<I6', history[TIME], (event - 1) * 6 + 1))
end

local function after(one, other)
  if one.count == 0 or other.count == 0 then return one.count == 0 and other or one end
  local both = { count = one.count + other.count, ids = one.ids .. other.ids }
  for column = 1, #WIDTHS do
    local first, second = one[column], other[column]
    both[column] = (first or second)
      and (first or string.rep(NAN, one.count)) .. (second or string.rep(NAN, other.count))
  end
  return both
end

-- Where the id of an event begins.
local function id_at(ids, event)
  local at = 1
  for _ = 2, event do at = string.find(ids, '\0', at, true) + 1 end
  return at
end

local function part(history, first, last)
  if first == 1 and last == history.count then return history end
  local some, id_from = { count = last - first + 1 }, id_at(history.ids, first)
  for column, width in ipairs(WIDTHS) do
    some[column] = history[column]
      and string.sub(history[column], (first - 1) * width + 1, last * width)
  end
  local rest = string.sub(history.ids, id_from)
  some.ids = last == history.count and rest or string.sub(rest, 1, id_at(rest, some.count + 1) - 1)
  return some
end

-- The events at these places, in their order.
local function picked(history, places)
  local some, ids, parts = { count = #places }, {}, {}
  for column, width in ipairs(WIDTHS) do
    for at, event in ipairs(places) do
      parts[at] = history[column] and string.sub(history[column], (event - 1) * width + 1, event * width)
    end
    some[column] = history[column] and table.concat(parts)
  end
  for id in string.gmatch(history.ids, '[^%z]+%z') do ids[#ids + 1] = id end
  for at, event in ipairs(places) do parts[at] = ids[event] end
  some.ids = table.concat(parts)
  return some
end

-- Both by time; of equal times those of `old` come first. Only where they overlap is each event
-- looked at: most come in order.
local function merged(old, new)
  local first_time, kept = time_at(new, 1), old.count
  while kept > 0 and time_at(old, kept) > first_time do kept = kept - 1 end
  if kept == old.count then return after(old, new) end
  local overlap, places, old_at = part(old, kept + 1, old.count), {}, 1
  for new_at = 1, new.count do
    local time_ms = time_at(new, new_at)
    while old_at <= overlap.count and time_at(overlap, old_at) <= time_ms do
      places[#places + 1], old_at = old_at, old_at + 1
    end
    places[#places + 1] = overlap.count + new_at
  end
  for at = old_at, overlap.count do places[#places + 1] = at end
  local rest = picked(after(overlap, new), places)
  return kept == 0 and rest or after(part(old, 1, kept), rest)
end

-- Whether a hash stands at its place in one of the packed records.
local function has_hash(records, hash, record_bytes, offset)
  local at = string.find(records, hash, 1, true)
  while at do
    if (at - 1 - offset) % record_bytes == 0 then return true end
    at = string.find(records, hash, at + 1, true)
  end
  return false
end

local function seen_record(history, event, item_id)
  local sha = redis.sha1hex(item_id)
  local hash = struct.pack('>I4I4', tonumber(string.sub(sha, 1, 8), 16), tonumber(string.sub(sha, 9, 16), 16))
  return hash .. string.sub(history[TYPE], event, event)
    .. string.sub(history[HASH], (event - 1) * 6 + 1, event * 6)
end

-- What each event comes to, added to `results`, and the places of those that are new.
local function judged(new, history, seen, erased_ms, taken, results)
  local fresh = {}
  for event = 1, new.count do
    local hash, time_ms = string.sub(new[HASH], event * 6 - 5, event * 6), time_at(new, event)
    local result = ACCEPTED
    if time_ms < oldest_ms then
      result = EXPIRED
    elseif erased_ms and time_ms <= erased_ms then
      result = -erased_ms
    elseif taken[hash] or has_hash(history[HASH], hash, 6, 0) or has_hash(seen, hash, SEEN, SEEN_HASH_AT) then
      result = DUPLICATE
    else
      taken[hash] = true
      fresh[#fresh + 1] = event
    end
    results[#results + 1] = result
  end
  return fresh
end

-- The other user's seen records that are new here. They have no times: of a user who was erased any
-- of them may be from before, so none is taken.
local function taken_over(user, history, seen, erased_ms, taken)
  local left = {}
  for at = 1, (erased_ms or user > 1) and 0 or #foreign_seen, SEEN do
    local record = string.sub(foreign_seen, at, at + SEEN - 1)
    local hash = string.sub(record, SEEN_HASH_AT + 1)
    if not (taken[hash] or has_hash(history[HASH], hash, 6, 0) or has_hash(seen, hash, SEEN, SEEN_HASH_AT)) then
      left[#left + 1], taken[hash] = record, true
    end
  end
  return left
end

-- The history within its bounds. What is too old is dropped, what is too much is added to `left`;
-- both are the oldest events.
local function bounded(history, left)
  local num_expired, id_from = 0, 1
  while num_expired < history.count and time_at(history, num_expired + 1) < oldest_ms do
    num_expired = num_expired + 1
  end
  local num_leaving = math.max(num_expired, history.count - max_events)
  for event = 1, num_leaving do
    local id_end = string.find(history.ids, '\0', id_from, true)
    if event > num_expired then
      left[#left + 1] = seen_record(history, event, string.sub(history.ids, id_from, id_end - 1))
    end
    id_from = id_end + 1
  end
  return part(history, num_leaving + 1, history.count)
end

local function write(key, history)
  if history.count > 0 then
    redis.call('SET', key, packed(history), 'EX', ttl_s)
  else
    redis.call('DEL', key)
  end
end

-- A value that grows by APPEND gets room for as much again, so a short one is written anew.
local function write_seen(key, seen, left)
  if #left > 0 and max_seen > 0 then
    local added = table.concat(left)
    local size = #seen + #added
    if size > max_seen * SEEN * 1.25 then
      redis.call('SET', key, string.sub(seen .. added, -max_seen * SEEN), 'EX', ttl_s)
      return
    elseif size <= SEEN_REWRITTEN then
      redis.call('SET', key, seen .. added, 'EX', ttl_s)
      return
    end
    redis.call('APPEND', key, added)
  end
  -- Also without an eviction: what was seen must live as long as the history it belongs to.
  redis.call('EXPIRE', key, ttl_s)
end

-- First all is read, so that a value that is none of ours stops the call before anything changed.
local users = {}
for user = 1, num_users do
  local at = 3 * user - 1
  local stored = redis.call('GET', KEYS[at])
  local layout = stored and string.byte(stored) or LAYOUT
  if layout ~= LAYOUT and layout ~= RECORDS_LAYOUT then
    return redis.error_reply('LAYOUT the history has layout ' .. layout .. ', not ' .. LAYOUT)
  end
  local unpack_stored = layout == LAYOUT and unpacked or unpacked_records
  users[user] = {
    history = unpack_stored(stored or struct.pack('<BHB', LAYOUT, 0, 0)),
    seen = redis.call('GET', KEYS[at + 1]) or '',
    erased_ms = tonumber(redis.call('GET', KEYS[at + 2]) or ''),
  }
end

local day_of, added = {}, {}
for at = 1, num_days do
  added[at] = {}
  day_of[tonumber(ARGV[LIMITS + at])] = added[at]
end
local is_streamed = false

-- Add the weights of a user's new events to those of their days.
local function count_weights(new)
  local event = 0
  for item_id in string.gmatch(new.ids, '[^%z]+') do
    event = event + 1
    local items = day_of[math.floor(time_at(new, event) / DAY_MS)]
    local weight = struct.unpack('<d', weights, string.byte(new[TYPE], event) * 8 - 7)
    if items and weight > 0 then items[item_id] = (items[item_id] or 0) + weight end
  end
end

local function stream_out(payloads, fresh)
  if not is_streamed then
    -- An entry's id is the time of its arrival. Before the new ones, which a clock that differs from
    -- the server's must not trim.
    redis.call('XTRIM', stream, 'MINID', '=', string.format('%.0f', oldest_ms))
    is_streamed = true
  end
  local event, at = 0, 1
  for payload in string.gmatch(payloads, '[^%z]+') do
    event = event + 1
    if event == fresh[at] then
      redis.call('XADD', stream, '*', 'event', payload)
      at = at + 1
    end
  end
end

local results = {}
for number, user in ipairs(users) do
  local at, argument = 3 * number - 1, LIMITS + num_days + 2 * number - 1
  local new, taken, place = unpacked(ARGV[argument]), {}, #results + 1
  results[place] = 0
  local fresh = judged(new, user.history, user.seen, user.erased_ms, taken, results)
  local left = taken_over(number, user.history, user.seen, user.erased_ms, taken)
  results[place] = #left
  if #fresh > 0 or #left > 0 then
    if #fresh > 0 and #fresh < new.count then new = picked(new, fresh) end
    local history = #fresh > 0 and merged(user.history, new) or user.history
    -- The first of all writes: a server whose memory is full refuses it, and then the whole call.
    write(KEYS[at], bounded(history, left))
    write_seen(KEYS[at + 1], user.seen, left)
    if #fresh > 0 and num_days > 0 then count_weights(new) end
    if #fresh > 0 and stream_max > 0 then stream_out(ARGV[argument + 1], fresh) end
  end
end

if is_streamed then
  redis.call('XTRIM', stream, 'MAXLEN', '~', stream_max)
  redis.call('EXPIRE', stream, ttl_s)
end
for at, items in ipairs(added) do
  local counters = KEYS[first_counter + at - 1]
  for item_id, weight in pairs(items) do redis.call('ZINCRBY', counters, weight, item_id) end
  if redis.call('ZCARD', counters) > counter_max_items * 1.25 then
    redis.call('ZREMRANGEBYRANK', counters, 0, -(counter_max_items + 1))
  end
  redis.call('EXPIRE', counters, counter_ttl_s)
end
return results
