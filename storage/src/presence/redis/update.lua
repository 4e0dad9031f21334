-- Adds and removes users of a gateway, all or none.
-- KEYS  the gateway's lease, its users
-- ARGV  token of the lease held, most users, how many enter, those who enter, those who leave
-- Answers 1: done, 0: no such lease, -1: too many users.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
local entering = tonumber(ARGV[3])

-- Calls `done` with what the command answers about the users from one index to another, in parts
-- that Lua's stack has room for.
local function each(command, from, to, done)
    for first = from, to, 5000 do
        done(redis.call(command, KEYS[2], unpack(ARGV, first, math.min(first + 4999, to))))
    end
end
local function nothing() end

local users = redis.call('SCARD', KEYS[2]) + entering
if users > tonumber(ARGV[2]) then
    -- Who is there already takes no room, and who leaves gives some.
    local function count(found)
        for _, is in ipairs(found) do
            users = users - is
        end
    end
    each('SMISMEMBER', 4, #ARGV, count)
    if users > tonumber(ARGV[2]) then
        return -1
    end
end
each('SADD', 4, 3 + entering, nothing)
each('SREM', 4 + entering, #ARGV, nothing)
redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]))
return 1
