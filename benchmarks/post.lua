-- For wrk: signed deliveries, each with an id of its own. BODY, HEADERS ("Name: value" lines) and RUN come from outside.
wrk.method = "POST"
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.body = file:read("*a")
file:close()
for name, value in os.getenv("HEADERS"):gmatch("([^:\n]+): ([^\n]*)\n") do
  wrk.headers[name] = value
end

local count, run = 0, os.getenv("RUN")
request = function()
  count = count + 1
  wrk.headers["X-GitHub-Delivery"] = run .. "-" .. count
  return wrk.format()
end

done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answered":%d,"failed":%d,"rate":%.3f,"p50":%.4f,"p99":%.4f,"longest":%.4f}\n',
    summary.requests - errors.status,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
