"""What happens atomically in Redis, as Lua; `redis` says which keys each of them gets.

Times are in milliseconds of Redis' clock.  What has run out is left where it is until somebody
lists it, and is taken as absent.
"""

from __future__ import annotations

import hashlib


class Script:
    """A text of Lua, with `sha` by which Redis knows it once it has run."""

    def __init__(self, text: str):
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function text(number) return string.format('%.0f', number) end
"""

# An absent value is given as no argument, since "" is a value.
SWAP = Script("""
-- KEYS: value; ARGV: ttl, "1" if a value is expected, "1" if there is a new one, each of them
local expected = false
local next = 4
if ARGV[2] == '1' then expected, next = ARGV[4], 5 end
if redis.call('GET', KEYS[1]) ~= expected then return 0 end
if ARGV[3] == '1' then redis.call('SET', KEYS[1], ARGV[next], 'PX', ARGV[1])
else redis.call('DEL', KEYS[1]) end
return 1
""")

COUNT = Script("""
-- KEYS: counters; ARGV: window, an amount for each
local sums = {}
for i, key in ipairs(KEYS) do
  sums[i] = redis.call('INCRBY', key, ARGV[i + 1])
  if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, ARGV[1]) end
end
return sums
""")

# A lease is a field "TOKEN HOLDER" of the hash, and the end of its time in the sorted set.
_LEASE = (
    _NOW
    + """
local function lease(name)
  local until_ = tonumber(redis.call('ZSCORE', KEYS[2], name) or '0')
  local held = until_ > now and redis.call('HGET', KEYS[1], name)
  if not held then return nil end
  local token, holder = string.match(held, '^(%d+) (.*)$')
  return {name = name, token = token, holder = holder, left = until_ - now}
end
local function answer(lease) return {lease.name, lease.holder, lease.token, text(lease.left)} end
local function drop(name)
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
end
"""
)

TAKE = Script(
    _LEASE
    + """
-- KEYS: leases, ends, last token; ARGV: name, holder, ttl
local name, holder, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held = lease(name)
if not held then
  local token = text(math.max(tonumber(redis.call('GET', KEYS[3]) or '0') + 1, now))
  redis.call('SET', KEYS[3], token)
  redis.call('HSET', KEYS[1], name, token .. ' ' .. holder)
  held = {name = name, token = token, holder = holder}
end
if held.holder == holder then
  redis.call('ZADD', KEYS[2], text(now + ttl), name)
  held.left = ttl
end
return answer(held)
"""
)

PROLONG = Script(
    _LEASE
    + """
-- KEYS: leases, ends; ARGV: name, token, ttl
local held = lease(ARGV[1])
if not held or held.token ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[2], text(now + tonumber(ARGV[3])), ARGV[1])
return 1
"""
)

RELEASE = Script(
    _LEASE
    + """
-- KEYS: leases, ends; ARGV: name, token
local held = lease(ARGV[1])
if not held or held.token ~= ARGV[2] then return 0 end
drop(ARGV[1])
return 1
"""
)

REVOKE = Script(
    _LEASE
    + """
-- KEYS: leases, ends; ARGV: name
local held = lease(ARGV[1])
if not held then return nil end
drop(ARGV[1])
return answer(held)
"""
)

LEASES = Script(
    _LEASE
    + """
-- KEYS: leases, ends
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now))) do drop(name) end
local all = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local held = lease(name)
  if held then table.insert(all, answer(held)) end
end
return all
"""
)

ENTER = Script(
    _NOW
    + """
-- KEYS: entries, ends; ARGV: ttl, then a key and a value for each entry
local until_ = text(now + tonumber(ARGV[1]))
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[2], until_, ARGV[i])
end
"""
)

STRIKE = Script(
    _NOW
    + """
-- KEYS: entries, ends; ARGV: keys
local struck = 0
for _, key in ipairs(ARGV) do
  if tonumber(redis.call('ZSCORE', KEYS[2], key) or '0') > now then struck = struck + 1 end
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
end
return struck
"""
)

ENTRIES = Script(
    _NOW
    + """
-- KEYS: entries, ends
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now))) do
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
end
return redis.call('HGETALL', KEYS[1])
"""
)

# The head of a stream is a hash: the largest `token` seen, and the `last` id.
_STREAM = (
    _NOW
    + """
local head = redis.call('HMGET', KEYS[2], 'token', 'last')
local seen, last = tonumber(head[1] or '0'), head[2] or '0-0'
local last_token, last_number = string.match(last, '^(%d+)-(%d+)$')
last_token, last_number = tonumber(last_token), tonumber(last_number)
-- Without its head a stream cannot be told from another one: it begins anew.
if not head[2] then redis.call('DEL', KEYS[1]) end
local function extend(token, first, keep)
  local number = token == last_token and last_number or 0
  for i = first, #ARGV do
    number = number + 1
    local id = text(token) .. '-' .. text(number)
    redis.call('XADD', KEYS[1], id, 'p', last, 'd', ARGV[i])
    last = id
  end
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', keep)
  redis.call('HSET', KEYS[2], 'token', text(token), 'last', last)
  return {'done', last}
end
"""
)

BEGIN = Script(
    _STREAM
    + """
-- KEYS: items, head; ARGV: token, "1" if broken
local token = tonumber(ARGV[1])
if token < seen then return {'fenced', last} end
if ARGV[2] == '1' then
  if token <= last_token then return {'fenced', last} end
  last = text(token) .. '-0'
end
redis.call('HSET', KEYS[2], 'token', text(token), 'last', last)
return {'done', last}
"""
)

APPEND = Script(
    _STREAM
    + """
-- KEYS: items, head; ARGV: token, after, keep, items
local token = tonumber(ARGV[1])
if token < seen then return {'fenced', last} end
if ARGV[2] ~= last then return {'conflict', last} end
return extend(token, 4, ARGV[3])
"""
)

PUBLISH = Script(
    _STREAM
    + """
-- KEYS: items, head; ARGV: ttl, keep, items
local done = extend(math.max(now, last_token), 3, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return done
"""
)
