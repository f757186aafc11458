"""Parts: how outcomes become durable, and how they are read back."""
