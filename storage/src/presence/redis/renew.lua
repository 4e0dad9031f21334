-- Renews a gateway's lease, or begins one without users if it is not the one that the caller holds.
-- KEYS  leases, the gateway's lease, its users
-- ARGV  gateway, token of the lease held, token of a new one, lease in ms, most gateways
-- Answers 1: renewed, 0: begun, -1: too many gateways.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local ends_ms = string.format('%.0f', now_ms + ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms))

local held = redis.call('GET', KEYS[2]) == ARGV[2]
if not held then
    local others = redis.call('ZCARD', KEYS[1])
    if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
        others = others - 1
    end
    if others >= tonumber(ARGV[5]) then
        return -1
    end
    redis.call('DEL', KEYS[3])
    redis.call('SET', KEYS[2], ARGV[3])
end
redis.call('ZADD', KEYS[1], ends_ms, ARGV[1])
redis.call('PEXPIREAT', KEYS[2], ends_ms)
redis.call('PEXPIREAT', KEYS[3], ends_ms)
redis.call('PEXPIREAT', KEYS[1], redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
return held and 1 or 0
