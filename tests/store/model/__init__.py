"""A model of a store: what each unit does, as plain calls on dictionaries; the store on SQLite must agree with it."""
