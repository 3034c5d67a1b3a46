-- wrk's side of bench-ingest: signed bodies made beforehand, a delivery id of its own for every request.
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local bodies, signatures, count = {}, {}, 0

function init(args)
  for line in io.lines(args[1]) do
    local signature, body = line:match("^(%S+) (.*)$")
    bodies[#bodies + 1], signatures[#signatures + 1] = body, signature
  end
  run = args[2]
end

function request()
  count = count + 1
  local at = count % #bodies + 1
  return wrk.format("POST", nil, {
    ["Content-Type"] = "application/json",
    ["User-Agent"] = "GitHub-Hookshot/bench",
    ["X-GitHub-Event"] = "push",
    ["X-GitHub-Delivery"] = run .. "-" .. number .. "-" .. count,
    ["X-Hub-Signature-256"] = signatures[at],
  }, bodies[at])
end

function done(summary, latency, requests)
  io.write(string.format("FIGURES %d %d %d %d %.6f %.3f %.3f %.3f\n", summary.requests, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write, summary.errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
