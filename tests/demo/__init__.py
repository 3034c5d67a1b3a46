"""`make demo`: the main job end to end on a real `posthouse up`, which is killed in the middle, and a checked summary.

stage.py runs the gateway on a temporary folder, cast.py says what each provider sends, sending.py sends it as they
do, watching.py is the platform's side, reckoning.py holds both lists against each other, screen.py shows it, and
acts.py is the order of events: a later issue adds its act to the list there. connecting.py is a person at a browser who
connects an account at `posthouse sandbox`, accounts.py what the platform does with two such accounts,
revoking.py and renewing.py what becomes of their tokens.
"""
