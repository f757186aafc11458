"""Bodies as pictures: decoded within bounds of memory, and what their decoders complain of"""
