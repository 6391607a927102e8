"""How the nodes of a platform work as one: over Redis, or within one process.

`base.Store` is the one narrow interface to what they share, with two implementations (`memory`,
`redis`); all else here is written once, on top of it, and put together by `node.Node`.
"""
