-- Read the next entries of one partition's event stream, and what tells whether some were trimmed.
-- KEYS: stream
-- ARGV: the id after which to read, the greatest number of entries
-- Returns: entries in the stream, entries ever added (-1 where the server does not count them), id of
--   the oldest entry ('' if there is none), the entries. One script, so that all are of one moment.

if redis.call('EXISTS', KEYS[1]) == 0 then return {0, -1, '', {}} end
local info, answer = {}, redis.call('XINFO', 'STREAM', KEYS[1])
for at = 1, #answer, 2 do info[answer[at]] = answer[at + 1] end
local oldest = info['first-entry']
return {
  info['length'],
  info['entries-added'] or -1,
  oldest and oldest[1] or '',
  redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2]),
}
