-- Random requests from a file, every answer checked. Arguments after `--`: the file, the text that
-- a right answer holds, and the first of the times that take the place of stamps.

local STAMP = string.rep('@', 13)
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  requests, expected, now, bad, first_bad = {}, args[2], tonumber(args[3]), 0, ''
  math.randomseed(now)
  wrk.headers['Content-Type'] = nil
  for line in io.lines(args[1]) do
    local path, body = string.match(line, '^(.-)\t(.*)$')
    if body == '' then
      table.insert(requests, wrk.format('GET', path))
    else
      local headers = { ['Content-Type'] = 'application/json', ['Host'] = wrk.headers['Host'] }
      table.insert(requests, wrk.format('POST', path, headers, body))
    end
  end
  stamped = string.find(requests[1], STAMP, 1, true) ~= nil
end

function request()
  local chosen = requests[math.random(#requests)]
  if not stamped then return chosen end
  now = now + 1
  return (string.gsub(chosen, STAMP, string.format('%d', now)))
end

function response(status, _, body)
  if status ~= 200 or not string.find(body, expected, 1, true) then
    if bad == 0 then first_bad = status .. ' ' .. string.sub(body, 1, 300) end
    bad = bad + 1
  end
end

function done(summary)
  local errors = summary.errors
  local bad, first_bad = 0, ''
  for _, thread in ipairs(threads) do
    bad = bad + thread:get('bad')
    if first_bad == '' then first_bad = thread:get('first_bad') end
  end
  io.write(string.format(
    'RESULT requests=%d duration_us=%d bad=%d failed=%d\n', summary.requests, summary.duration,
    bad, errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
  if first_bad ~= '' then io.write('BAD ', (string.gsub(first_bad, '\n', ' ')), '\n') end
end
