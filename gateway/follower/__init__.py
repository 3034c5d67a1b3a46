"""The lifecycle follower: a consumer of the stream like any other, which tells the machine what providers say of grants."""
