-- Who is online: whoever is among the users of a gateway whose lease has not ended.
-- KEYS  leases, the users of each known gateway
-- ARGV  the known gateways, the users in question
-- Answers a '0' or '1' for each user; or all gateways, if the caller does not know one of them yet:
-- a script may only touch keys that it was given.
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local gateways = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now_ms, '+inf')

local users_of = {}
for i = 2, #KEYS do
    users_of[ARGV[i - 1]] = KEYS[i]
end
for _, gateway in ipairs(gateways) do
    if not users_of[gateway] then
        return gateways
    end
end

local online = {}
for i = #KEYS, #ARGV do
    online[i - #KEYS + 1] = '0'
end
for _, gateway in ipairs(gateways) do
    local found = redis.call('SMISMEMBER', users_of[gateway], unpack(ARGV, #KEYS, #ARGV))
    for i, is in ipairs(found) do
        if is == 1 then
            online[i] = '1'
        end
    end
end
return table.concat(online)
