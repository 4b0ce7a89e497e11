-- A load of small calls: wrk.args gives the size of the body. Each request names another
-- client, as a load balancer before the node would, so that each is placed anew.
function init(args)
    local body = string.rep("x", tonumber(args[1] or "1024"))
    requests = {}
    count = #body > 65536 and 1 or 256
    for at = 0, count - 1 do
        local headers = {}
        headers["Host"] = "bench"
        headers["Portolan-Client-Ip"] = string.format("%d.%d.34.7", 2 + at % 200, at)
        requests[at] = wrk.format("POST", wrk.path, headers, body)
    end
    at = 0
end

function request()
    at = (at + 1) % count
    return requests[at]
end
