"""The output folder's state: who owns it, what is durable, markers, checkpoint, logs."""
