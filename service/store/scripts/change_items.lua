-- Change what is said of items, all of them or none, and note the changes for every process.
-- KEYS: ids of live items, log of changes, then each item's hash
-- ARGV: max_items, log_max, then for each item: item_id, 1 to forget what was said before (0: add to
--   it), number of values that follow, field and value in turn
-- Returns the id of the last change in the log, or an error that begins with FULL.

local max_items, log_max = tonumber(ARGV[1]), tonumber(ARGV[2])

local fresh, at = 0, 3
local items = {}
for key = 3, #KEYS do
  local item_id, count = ARGV[at], tonumber(ARGV[at + 2])
  items[#items + 1] = {KEYS[key], item_id, ARGV[at + 1] == '1', at + 3, count}
  -- Taking an item away is never refused for want of room.
  local is_deletion = count == 2 and ARGV[at + 3] == 'deleted' and ARGV[at + 4] == 'true'
  if not is_deletion then fresh = fresh + 1 - redis.call('SISMEMBER', KEYS[1], item_id) end
  at = at + 3 + count
end
if fresh > 0 and redis.call('SCARD', KEYS[1]) + fresh > max_items then
  return redis.error_reply('FULL the live catalogue may hold ' .. max_items .. ' items')
end

local last
for _, item in ipairs(items) do
  local key, item_id, forget, first, count = unpack(item)
  if forget then redis.call('DEL', key) end
  for field = first, first + count - 1, 2 do
    redis.call('HSET', key, ARGV[field], ARGV[field + 1])
  end
  redis.call('SADD', KEYS[1], item_id)
  last = redis.call('XADD', KEYS[2], 'MAXLEN', '~', log_max, '*', 'item_id', item_id)
end
return last
