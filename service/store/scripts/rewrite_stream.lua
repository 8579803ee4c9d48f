-- Copy one page of a stream, and put the copy in its place once all is copied. XDEL only flags an
-- entry: its bytes stay in the node that it shares with others, until the stream is written anew.
-- KEYS: stream, copy, rewrite
-- ARGV: what asks for the rewrite, id of the last entry in the copy ('0-0' to begin), page, copy_ttl_s
-- Returns 'more' and the id of the last entry in the copy; or 'over' and what asks for a rewrite now,
-- '' if nothing does. It is over as well if an erasure came between: the copy may hold what it erased.

local asks, last_id, page_size, copy_ttl_s = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local asks_now = redis.call('GET', KEYS[3]) or ''
if asks_now ~= asks then
  redis.call('DEL', KEYS[2])
  return { 'over', asks_now }
end

-- The copy has to end where the caller says: it may have expired while the caller was held up, lack
-- its end after a failover, or have the page already if a call was sent twice. A copy with a gap would
-- lose events.
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if (last and last[1] or '0-0') ~= last_id then
  redis.call('DEL', KEYS[2])
  return { 'over', asks }
end

-- Before any XADD a write that a server whose memory is full does not refuse; see erase_user.lua.
redis.call('EXPIRE', KEYS[2], copy_ttl_s)
local page = redis.call('XRANGE', KEYS[1], '(' .. last_id, '+', 'COUNT', page_size)
for _, entry in ipairs(page) do
  last_id = entry[1]
  redis.call('XADD', KEYS[2], last_id, unpack(entry[2]))
end
if #page == page_size then
  redis.call('EXPIRE', KEYS[2], copy_ttl_s)
  return { 'more', last_id }
end

-- An append may have trimmed the stream meanwhile; without a first entry the stream itself has gone.
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if first then
  local ttl_ms = redis.call('PTTL', KEYS[1])
  redis.call('XTRIM', KEYS[2], 'MINID', '=', first[1])
  redis.call('RENAME', KEYS[2], KEYS[1])
  redis.call('PEXPIRE', KEYS[1], ttl_ms)
else
  redis.call('DEL', KEYS[2])
end
redis.call('DEL', KEYS[3])
return { 'over', '' }
