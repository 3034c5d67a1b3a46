-- wrk's side of bench-vault: connections in a random order, the API key on every request.
local paths, key = {}, ""

function init(args)
  math.randomseed(1)
  for line in io.lines(args[1]) do
    paths[#paths + 1] = line
  end
  key = "Bearer " .. args[2]
end

function request()
  return wrk.format("GET", paths[math.random(#paths)], { ["Authorization"] = key })
end

function done(summary, latency, requests)
  io.write(string.format("FIGURES %d %d %d %d %.6f %.3f %.3f %.3f\n", summary.requests, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write, summary.errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
