-- Asks a deployment for recommendations of users from a file, in random order.
--   USERS    a file with a user id a line; required
--   K        how many items each; 10
--   API_KEY  sent as X-API-Key, if set
-- Prints how many answers were no 200 and how many were degraded; wrk prints rates and latencies.

local threads = {}

local function escaped(text)
  return (text:gsub("[^%w%-%._~]", function(byte) return string.format("%%%02X", byte:byte()) end))
end

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init()
  local path = os.getenv("USERS") or error("set USERS to a file with a user id a line")
  local ask = "/recommendations?k=" .. (os.getenv("K") or "10")
  paths, failed, degraded = {}, 0, 0
  for user in io.lines(path) do
    if user ~= "" then table.insert(paths, "/v1/users/" .. escaped(user) .. ask) end
  end
  if #paths == 0 then error(path .. " names no user") end
  if os.getenv("API_KEY") then wrk.headers["X-API-Key"] = os.getenv("API_KEY") end
  -- Threads of one seed would ask for the same users at the same time.
  math.randomseed(os.time() + 1000 * number)
end

function request()
  return wrk.format("GET", paths[math.random(#paths)])
end

function response(status, _, body)
  if status ~= 200 then
    failed = failed + 1
  elseif not body:find('"degraded":[]', 1, true) then
    degraded = degraded + 1
  end
end

function done(summary)
  local bad, poor = 0, 0
  for _, thread in ipairs(threads) do
    bad, poor = bad + thread:get("failed"), poor + thread:get("degraded")
  end
  print(string.format("answers: %d, no 200: %d, degraded: %d", summary.requests, bad, poor))
end
