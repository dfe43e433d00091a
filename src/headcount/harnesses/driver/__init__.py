"""A driver: the program that holds a conversation with an agent program open, so that it can be told, asked
and cancelled in the middle of its work."""
