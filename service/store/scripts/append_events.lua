-- Append events of users of one partition: their histories, seen overflows, counters and stream
-- change together or not at all. Times are ms since 1970; ARGV times to live are seconds.
-- A merge of two users calls it too, with what the other one left, and without stream and counters.
-- KEYS: stream, then for each user: history, seen, tombstone; then the counters of any number of days
-- ARGV: limits, 8 doubles: max_events, max_seen, ttl_s, stream_max_events, counter_ttl_s,
--   counter_max_items, oldest_ms, num_users; seen records of another user, for a merge, which has
--   one user; weights by event type, doubles; the days of the counters, since 1970; then for each
--   user: the new events as a history, in order of time, and their stream payloads, with NUL between
-- Returns for each user the number of seen records taken from the other one, then for each event 1
-- if it was accepted, 0 if it is a duplicate, -1 if it is older than oldest_ms, and the negative time
-- of the user's erasure if it is not newer than that.
-- An event is a duplicate if its id's hash is in the history or among the events that left it last.
-- The columns are those of history_codec.py.

-- Found once: a call by the full name looks two of them up.
local sub, find, byte, pack, unpack = string.sub, string.find, string.byte, struct.pack, struct.unpack
local call = redis.call

local LAYOUT, HEADER, RECORDS_LAYOUT, RECORDS_HEADER, RECORD = 2, 4, 1, 3, 30
local TIME, HASH, TYPE, NUM_FIXED = 1, 2, 3, 4      -- columns
local WIDTHS = { 6, 6, 1, 1, 4, 4, 4, 4 }           -- bytes of each column, an event
local NAN = '\0\0\192\127'                          -- a number that is not known
local NO_EVENTS = pack('<BHB', LAYOUT, 0, 0)
local SEEN, SEEN_HASH_AT, SEEN_REWRITTEN = 15, 9, 4096
local ACCEPTED, DUPLICATE, EXPIRED = 1, 0, -1
local DAY_MS, LIMITS = 86400000, 3

local max_events, max_seen, ttl_s, stream_max, counter_ttl_s, counter_max_items, oldest_ms, num_users =
  unpack('<dddddddd', ARGV[1])
local foreign_seen = ARGV[2]
local weight_of = { unpack('<' .. string.rep('d', #ARGV[3] / 8), ARGV[3]) }
local first_counter = 2 + 3 * num_users
local num_days = #KEYS - first_counter + 1
local stream = KEYS[1]

-- A packed history and where its columns begin; false for those that are not there. Only the hashes
-- are cut out of it before the history is written: a copy of a full one takes as long as a command.
local function view(packed)
  local _, count, flags = unpack('<BHB', packed)
  local history, at = { packed = packed, count = count }, HEADER + 1
  for column, width in ipairs(WIDTHS) do
    local is_there = column <= NUM_FIXED or bit.band(bit.rshift(flags, column - NUM_FIXED - 1), 1) == 1
    history[column] = is_there and at
    if is_there then at = at + width * count end
  end
  history.ids_at = at
  return history
end

local function header(count, has_column)
  local flags = 0
  for column = NUM_FIXED + 1, #WIDTHS do
    if has_column[column] then flags = flags + 2 ^ (column - NUM_FIXED - 1) end
  end
  return pack('<BHB', LAYOUT, count, flags)
end

-- What a column has of some events, one after the other.
local function cells(history, column, first, last)
  local at, width = history[column], WIDTHS[column]
  if not at then return string.rep(NAN, last - first + 1) end
  return sub(history.packed, at + (first - 1) * width, at + last * width - 1)
end

-- A history of whole records, as they were before there were columns, in columns. Each record has all
-- numbers; a number that no event has gets no column.
local function of_records(packed)
  local _, count = unpack('<BH', packed)
  local offset, unknown, has_column, parts = RECORDS_HEADER + 1, string.rep(NAN, count), {}, { '' }
  for column, width in ipairs(WIDTHS) do
    local cut = {}
    for event = 1, count do
      local at = offset + (event - 1) * RECORD
      cut[event] = sub(packed, at, at + width - 1)
    end
    local whole = table.concat(cut)
    has_column[column] = column <= NUM_FIXED or whole ~= unknown
    if has_column[column] then parts[#parts + 1] = whole end
    offset = offset + width
  end
  parts[1] = header(count, has_column)
  parts[#parts + 1] = sub(packed, RECORDS_HEADER + count * RECORD + 1)
  return table.concat(parts)
end

-- Numbers, never strings, are compared: string order depends on the server's locale.
local function time_at(history, event)
  return (unpack('<I6', history.packed, history[TIME] + (event - 1) * 6))
end

-- All times at once: a history has at most 5,000 events, and Lua's stack has room for 8,000 values.
local function times_of(history)
  return { unpack('<' .. string.rep('I6', history.count), history.packed, history[TIME]) }
end

-- Where the id of an event begins; of the one after the last, where the history ends.
local function id_at(history, event)
  if event > history.count then return #history.packed + 1 end
  local at = history.ids_at
  for _ = 2, event do at = find(history.packed, '\0', at, true) + 1 end
  return at
end

-- Events of one history from one place to another, and after them those of a second one, packed.
local function joined(one, first, last, other, other_first)
  local num_one, num_other = last - first + 1, other.count - other_first + 1
  local has_column, parts = {}, { '' }
  for column = 1, #WIDTHS do
    has_column[column] = num_one > 0 and one[column] or num_other > 0 and other[column]
    if has_column[column] then
      parts[#parts + 1] = cells(one, column, first, last)
      parts[#parts + 1] = cells(other, column, other_first, other.count)
    end
  end
  parts[#parts + 1] = sub(one.packed, id_at(one, first), id_at(one, last + 1) - 1)
  parts[#parts + 1] = sub(other.packed, id_at(other, other_first))
  parts[1] = header(num_one + num_other, has_column)
  return table.concat(parts)
end

-- The events at these places, in their order.
local function picked(history, places)
  local parts, ids = { header(#places, history) }, {}
  for column = 1, #WIDTHS do
    for _, event in ipairs(history[column] and places or {}) do
      parts[#parts + 1] = cells(history, column, event, event)
    end
  end
  for id in string.gmatch(sub(history.packed, history.ids_at), '[^%z]+%z') do ids[#ids + 1] = id end
  for _, event in ipairs(places) do parts[#parts + 1] = ids[event] end
  return view(table.concat(parts))
end

-- The number of old events that are not later than any new one, and what comes after them by time:
-- of equal times old ones first. Only where they overlap is each looked at: most come in order.
local function merged(old, new)
  local first_time, kept = time_at(new, 1), old.count
  while kept > 0 and time_at(old, kept) > first_time do kept = kept - 1 end
  if kept == old.count then return kept, new end
  local both, places = view(joined(old, kept + 1, old.count, new, 1)), {}
  local num_old, old_at = old.count - kept, 1
  for new_at = num_old + 1, both.count do
    while old_at <= num_old and time_at(both, old_at) <= time_at(both, new_at) do
      places[#places + 1], old_at = old_at, old_at + 1
    end
    places[#places + 1] = new_at
  end
  for at = old_at, num_old do places[#places + 1] = at end
  return kept, picked(both, places)
end

-- Whether a hash stands at this place of a record.
local function has_hash(records, hash, place, record_bytes)
  local at = find(records, hash, place, true)
  while at do
    if (at - place) % record_bytes == 0 then return true end
    at = find(records, hash, at + 1, true)
  end
  return false
end

-- Whether an event of this hash is in the user's history, or left it.
local function is_known(user, hash)
  return has_hash(user.hashes, hash, 1, 6) or has_hash(user.seen, hash, SEEN_HASH_AT + 1, SEEN)
end

local function seen_record(history, event, item_id)
  local sha = redis.sha1hex(item_id)
  local hash = pack('>I4I4', tonumber(sub(sha, 1, 8), 16), tonumber(sub(sha, 9, 16), 16))
  return hash .. cells(history, TYPE, event, event) .. cells(history, HASH, event, event)
end

-- What each event comes to, added to `results`, and the places of those that are new.
local function judged(user, new, times, taken, results)
  local packed, hash_at, fresh, num_before = new.packed, new[HASH], {}, #results
  for event = 1, new.count do
    local hash, time_ms = sub(packed, hash_at, hash_at + 5), times[event]
    local result = ACCEPTED
    hash_at = hash_at + 6
    if time_ms < oldest_ms then
      result = EXPIRED
    elseif user.erased_ms and time_ms <= user.erased_ms then
      result = -user.erased_ms
    elseif taken[hash] or is_known(user, hash) then
      result = DUPLICATE
    else
      taken[hash] = true
      fresh[#fresh + 1] = event
    end
    results[num_before + event] = result
  end
  return fresh
end

-- The other user's seen records that are new here. They have no times: of a user who was erased any
-- of them may be from before, so none is taken.
local function taken_over(user, taken)
  local left = {}
  for at = 1, user.erased_ms and 0 or #foreign_seen, SEEN do
    local record = sub(foreign_seen, at, at + SEEN - 1)
    local hash = sub(record, SEEN_HASH_AT + 1)
    if not taken[hash] and not is_known(user, hash) then
      left[#left + 1], taken[hash] = record, true
    end
  end
  return left
end

-- The number of events, the oldest ones, that a history loses, `kept` of `old` and all of `rest`.
-- What is too old is dropped, what is too much is added to `left`.
local function leave(old, kept, rest, left)
  local count, num_expired = kept + rest.count, 0
  local function place(event)
    if event <= kept then return old, event end
    return rest, event - kept
  end
  while num_expired < count and time_at(place(num_expired + 1)) < oldest_ms do
    num_expired = num_expired + 1
  end
  local num_leaving = math.max(num_expired, count - max_events)
  local id_from = old.ids_at
  for event = 1, num_leaving do
    local history, at = place(event)
    if at == 1 then id_from = history.ids_at end
    local id_end = find(history.packed, '\0', id_from, true)
    if event > num_expired then
      left[#left + 1] = seen_record(history, at, sub(history.packed, id_from, id_end - 1))
    end
    id_from = id_end + 1
  end
  return num_leaving
end

-- Write a history within its bounds: `kept` events of `old` and then `rest`.
local function write(key, old, kept, rest, left)
  local num_leaving = leave(old, kept, rest, left)
  if num_leaving == kept + rest.count then
    call('DEL', key)
    return
  end
  local from_rest = math.max(num_leaving - kept, 0) + 1
  local from_old = math.min(num_leaving, kept) + 1
  call('SET', key, joined(old, from_old, kept, rest, from_rest), 'EX', ttl_s)
end

-- A value that grows by APPEND gets room for as much again, so a short one is written anew.
local function write_seen(key, seen, left)
  local added = max_seen > 0 and table.concat(left) or ''
  local size = #seen + #added
  if #added > 0 and size > max_seen * SEEN * 1.25 then
    call('SET', key, sub(seen .. added, -max_seen * SEEN), 'EX', ttl_s)
  elseif #added > 0 and size <= SEEN_REWRITTEN then
    call('SET', key, seen .. added, 'EX', ttl_s)
  elseif size > 0 then
    if #added > 0 then call('APPEND', key, added) end
    -- Also without an eviction: what was seen must live as long as the history it belongs to.
    call('EXPIRE', key, ttl_s)
  end
end

-- First all is read, so that a value that is none of ours stops the call before anything changed.
local users = {}
for user = 1, num_users do
  local at = 3 * user - 1
  local stored = call('GET', KEYS[at])
  local layout = stored and byte(stored) or LAYOUT
  if layout ~= LAYOUT and layout ~= RECORDS_LAYOUT then
    return redis.error_reply('LAYOUT the history has layout ' .. layout .. ', not ' .. LAYOUT)
  end
  if layout == RECORDS_LAYOUT then stored = of_records(stored) end
  local history = view(stored or NO_EVENTS)
  users[user] = {
    history = history,
    hashes = cells(history, HASH, 1, history.count),
    seen = call('GET', KEYS[at + 1]) or '',
    erased_ms = tonumber(call('GET', KEYS[at + 2]) or ''),
  }
end

local day_of, added = {}, {}
for at = 1, num_days do
  added[at] = {}
  day_of[tonumber(ARGV[LIMITS + at])] = added[at]
end
local is_streamed = false

-- Add the weights of a user's new events to those of their days.
local function count_weights(new, times)
  local event, type_at = 0, new[TYPE] - 1
  for item_id in string.gmatch(sub(new.packed, new.ids_at), '[^%z]+') do
    event = event + 1
    local items = day_of[math.floor(times[event] / DAY_MS)]
    local weight = weight_of[byte(new.packed, type_at + event)]
    if items and weight > 0 then items[item_id] = (items[item_id] or 0) + weight end
  end
end

local function stream_out(payloads, fresh)
  if not is_streamed then
    -- An entry's id is the time of its arrival. Before the new ones, which a clock that differs from
    -- the server's must not trim.
    call('XTRIM', stream, 'MINID', '=', string.format('%.0f', oldest_ms))
    is_streamed = true
  end
  local event, at = 0, 1
  for payload in string.gmatch(payloads, '[^%z]+') do
    event = event + 1
    if event == fresh[at] then
      call('XADD', stream, '*', 'event', payload)
      at = at + 1
    end
  end
end

local results = {}
for number, user in ipairs(users) do
  local at, argument = 3 * number - 1, LIMITS + num_days + 2 * number - 1
  local new, taken, place = view(ARGV[argument]), {}, #results + 1
  local times = times_of(new)
  results[place] = 0
  local fresh = judged(user, new, times, taken, results)
  local left = taken_over(user, taken)
  results[place] = #left
  if #fresh > 0 or #left > 0 then
    if #fresh < new.count then
      new = picked(new, fresh)
      times = times_of(new)
    end
    local kept, rest = user.history.count, new
    if #fresh > 0 then kept, rest = merged(user.history, new) end
    -- The first of all writes: a server whose memory is full refuses it, and then the whole call.
    write(KEYS[at], user.history, kept, rest, left)
    write_seen(KEYS[at + 1], user.seen, left)
    if #fresh > 0 and num_days > 0 then count_weights(new, times) end
    if #fresh > 0 and stream_max > 0 then stream_out(ARGV[argument + 1], fresh) end
  end
end

if is_streamed then
  call('XTRIM', stream, 'MAXLEN', '~', stream_max)
  call('EXPIRE', stream, ttl_s)
end
for at, items in ipairs(added) do
  local counters = KEYS[first_counter + at - 1]
  for item_id, weight in pairs(items) do call('ZINCRBY', counters, weight, item_id) end
  if call('ZCARD', counters) > counter_max_items * 1.25 then
    call('ZREMRANGEBYRANK', counters, 0, -(counter_max_items + 1))
  end
  call('EXPIRE', counters, counter_ttl_s)
end
return results
