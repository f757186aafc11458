"""Ranks: their launcher, their messages and their exit."""
