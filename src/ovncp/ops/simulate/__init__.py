"""A load as OVN's: hypervisors that monitor a Southbound database, and a CMS that writes to it.

`plan` says what there is to be, `monitors` what an ovn-controller asks for, `ledger` who has to be
told of what and when he was, `report` what came of it; none of them knows a socket. `hypervisor`,
`swarm` and `writer` are the connections, and `simulation` is the story of a run.
"""
