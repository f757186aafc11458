"""What a downloading rank does: it moves values between the core, libcurl and the writer."""
