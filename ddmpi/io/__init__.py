"""Everything that touches the world, one room per thing touched."""
