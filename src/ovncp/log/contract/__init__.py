"""What every log backend promises (`ovncp.log.base`), as cases that run on it.

`ovncp log-contract URL` runs them on an engine that has an entry point; a backend exists once it
passes.  `cases` and `shared_cases` are the promises; a `bench` is a new log for one case, with
what a case may do to it; `run` runs them all.  A case that fails raises.
"""
