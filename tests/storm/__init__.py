"""The proof of single flight: many processes, many callers, one refresh; and whoever dies, wherever, costs no token that could be kept.

worker.py is a gateway process that a test can set to die at any await of its refresh (moments.py counts them: they are
found, not listed), fleet.py starts such processes, crowd.py asks them for tokens as platform code does, town.py holds
provider, database and connections together. stories.py plays thousands of random lives of a token against the real core, in
one process; world.py is what happens to them.
"""
