"""The proof of the machine: its table, a model that stories are played against, mutations, and an explorer of every order."""
