"""The two lines of schema: `control` and `region`. Forward only, plain SQL, numbered; expand first, contract later."""
