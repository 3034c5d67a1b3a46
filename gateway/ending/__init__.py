"""The end of a connection (PROTOCOLS 6): closed at once, its tokens revoked at the provider afterwards, and shredded.

Some revocations reach further than one token: the account at the app, the whole installation. Where another live grant
shares that, revoking would end a connection that nobody asked to end, so the tokens are shredded and nothing is sent.
Who shares it is asked just before a revocation goes out, not when the connection ends: of two that end together neither
would find the other gone, and both tokens would stay alive at the provider for ever.
"""
