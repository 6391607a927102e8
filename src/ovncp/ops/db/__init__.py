"""What an operator does to a database as a whole, on whatever keeps it: one module a verb.

`place` says what a location names, `stored` reads what is kept there, and `state` is the database
that this amounts to, as of any index. Nothing of an existing log is changed here but by a verb that
says so; what a verb makes appears whole, or not at all.
"""
